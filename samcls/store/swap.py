"""A local store is made beside its place, in `features.zarr.swap`, and takes it by renames.

So a store is never seen half made, nor lost between two states: whatever cuts the making off, the next
holder of the lock ends it or starts it anew.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from samcls.errors import OverwriteRefused, RunError
from samcls.store.keys import local_path, swap_path, sync_folder

__all__ = ["NEW", "OLD", "finish_rewrite", "swapped_in"]

NEW, OLD = "new", "old"


@contextmanager
def swapped_in(path: str | Path) -> Iterator[Path]:
    """Give the place to make a store in; then put it where it belongs, instead of what is there.

    Args:
        path: Of a local store.

    Raises:
        OverwriteRefused: something else lies where the new store is made.
        RunError: the disk is full or refuses; what was there stays.
    """
    finish_rewrite(path)
    swap, root = swap_path(path), local_path(path)
    assert swap is not None
    assert root is not None
    with in_words(path):
        try:
            swap.mkdir(parents=True)
            yield swap / NEW
        except BaseException:  # Ctrl-C too: the disk may have no room for a second store
            shutil.rmtree(swap, ignore_errors=True)
            raise
        if root.exists():
            root.rename(swap / OLD)
            sync_folder(root.parent)
        (swap / NEW).rename(root)
        sync_folder(root.parent)
        shutil.rmtree(swap)


def finish_rewrite(path: str | Path) -> None:
    """End a making that was cut off; only the holder of the lock may call it.

    Raises:
        OverwriteRefused: something else lies where the new store is made.
        RunError: the disk refuses.
    """
    swap, root = swap_path(path), local_path(path)
    if swap is None or root is None or not swap.exists():
        return
    own = {NEW, OLD, f"{NEW}.swap"}  # a store that is written anew is made in a place of its own
    if not swap.is_dir() or {entry.name for entry in swap.iterdir()} - own:
        raise OverwriteRefused(
            f"{swap} is not of samcls's making, and is where it would write {path} anew; move it away"
        )
    with in_words(path):
        # the old store is moved away only once the new one is whole
        if not root.exists() and (swap / OLD).exists() and (swap / NEW).exists():
            (swap / NEW).rename(root)
            sync_folder(root.parent)
        shutil.rmtree(swap)


@contextmanager
def in_words(path: str | Path) -> Iterator[None]:
    """Turn a full disk, or another refusal, into words."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{path} could not be written anew: {error.strerror or error}. No row is lost; make room "
            "for a second store, and run the same command again"
        ) from error
