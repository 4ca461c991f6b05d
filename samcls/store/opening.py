"""Opening a store's group, and writing to it, with what can go wrong put into words."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import zarr
import zarr.errors

from samcls.errors import OverwriteRefused, RunError
from samcls.store.keys import Keys, local_path
from samcls.store.lock import Claim

__all__ = ["MARK", "open_group", "refuse_other_contents", "writing"]

MARK = "samcls"  # written first: tells a creation cut off from somebody else's group


@contextmanager
def writing(path: str, claim: Claim | None) -> Iterator[None]:
    """Write only while the lock is held; turn a full disk, or another refusal, into words."""
    try:
        if claim is not None:
            claim.check()
        yield
    except OSError as error:
        raise RunError(
            f"{path} could not be written: {error.strerror or error}. What was finished before is "
            "kept; make room, or mend what is wrong, and run the same command again"
        ) from error


def open_group(path: str, mode: Literal["r", "r+"]) -> zarr.Group:
    """Open the group of a store; FileNotFoundError where there is nothing at its path."""
    root = local_path(path)
    if root is not None and not root.exists():
        raise FileNotFoundError(path)
    keys = Keys.of(path, read_only=mode == "r")
    return zarr.open_group(keys.store, mode=mode, zarr_format=3)


def refuse_other_contents(path: str) -> None:
    """Let nothing be overwritten but a creation of our own that was cut off."""
    root = local_path(path)
    if root is not None and root.exists() and not (root / "zarr.json").exists():
        if not root.is_dir() or any(root.iterdir()):
            raise OverwriteRefused(
                f"{path} exists and is not a feature store; nothing was written. Name another path"
            )
        return
    try:
        attributes = open_group(path, "r").attrs
    except (FileNotFoundError, zarr.errors.GroupNotFoundError):
        return
    if "format_version" in attributes:
        raise OverwriteRefused(f"a feature store is already at {path}; open it, or name another")
    if attributes.get("created_by") != MARK:
        raise OverwriteRefused(
            f"{path} is a Zarr group of another kind; nothing was written. Name another path"
        )
