"""Write a local store anew, with other rows or in another order; nothing is encoded again.

The new store is made beside the old one, in `features.zarr.swap`, by copying rows bit for bit, and takes
its place by two renames. Whatever cuts it off, the next extract ends it or starts it anew. It costs the
time to read and write the store once, and the disk for a second one until it is done.

    store = rewrite_store(FeatureStore.open("features.zarr", mode="r+"), table, claim)
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Int

from samcls.errors import OverwriteRefused, RunError, StoreError
from samcls.store.feature_store import FeatureStore
from samcls.store.keys import local_path, swap_path, sync_folder
from samcls.store.lock import Claim
from samcls.store.rows import RowTable
from samcls.store.schema import DONE, FAILED, PENDING

__all__ = ["finish_rewrite", "rewrite_store"]

_NEW, _OLD = "new", "old"


def rewrite_store(
    store: FeatureStore,
    table: RowTable,
    claim: Claim,
    log: Callable[[str], None] = lambda _: None,
) -> FeatureStore:
    """Give a store exactly a table's rows, in the table's order.

    Args:
        store: local; the caller holds its lock.
        table: ids that the store lacks become pending rows.
        claim: of the lock.
        log: called with a sentence on what is done.

    Returns:
        The store in its place, opened for writing.

    Raises:
        StoreError: the store is a URL, or features of a row that is kept are lost or damaged.
        RunError: the disk is full or refuses the write; the store is as it was.
    """
    swap, root = swap_path(store.path), local_path(store.path)
    if swap is None or root is None:
        raise StoreError(
            f"{store.path} is a URL, where no store can be swapped for another at once; give --removed "
            "keep, or extract into another store"
        )
    finish_rewrite(store.path)
    own = {name: row for row, name in enumerate(store.kept_ids)}
    places = np.array([own.get(name, -1) for name in table.ids], dtype=np.int64)
    kept = int((places >= 0).sum())
    log(f"writing {store.path} anew: {kept} rows are copied, {len(own) - kept} are dropped")
    with _in_words(store.path):
        try:
            swap.mkdir()
            new = FeatureStore.create(
                swap / _NEW,
                store.fingerprint,
                store.levels,
                table,
                codec=store.codec,
                partition=store.partition,
                claim=claim,
                pixels=store.pixel_size,
                checkpoint=store.checkpoint,
            )
            _copy(store, new, places)
        except BaseException:  # Ctrl-C too: the disk may have no room for a second store
            shutil.rmtree(swap, ignore_errors=True)
            raise
        claim.check()
        root.rename(swap / _OLD)
        sync_folder(root.parent)
        (swap / _NEW).rename(root)
        sync_folder(root.parent)
        shutil.rmtree(swap)
    return FeatureStore.open(store.path, mode="r+", claim=claim)


def finish_rewrite(path: str | Path) -> None:
    """End a rewriting that was cut off; only the holder of the lock may call it.

    Raises:
        OverwriteRefused: something else lies where the new store is made.
        RunError: the disk refuses.
    """
    swap, root = swap_path(path), local_path(path)
    if swap is None or root is None or not swap.exists():
        return
    if not swap.is_dir() or {entry.name for entry in swap.iterdir()} - {_NEW, _OLD}:
        raise OverwriteRefused(
            f"{swap} is not of samcls's making, and is where it would write {path} anew; move it away"
        )
    with _in_words(path):
        # the old store is moved away only once the new one is whole
        if not root.exists() and (swap / _OLD).exists() and (swap / _NEW).exists():
            (swap / _NEW).rename(root)
            sync_folder(root.parent)
        shutil.rmtree(swap)


def _copy(store: FeatureStore, new: FeatureStore, places: Int[np.ndarray, " image"]) -> None:
    """Copy the rows that stand at some places, a shard at a time and their marks last."""
    there = places >= 0
    status = np.full(len(places), PENDING, dtype=np.uint8)
    status[there] = store.status_if_present()[places[there]]
    size = new.partition.shard_rows
    for start in range(0, len(places), size):
        held = start + np.flatnonzero(np.isin(status[start : start + size], (DONE, FAILED)))
        if not len(held):
            continue
        rows = slice(int(held[0]), int(held[-1]) + 1)
        for level in store.payloads:
            found, absent = store.read_held(level, places[held])
            lost = absent[status[held][absent] == DONE]
            store.refuse_lost(level, places[held][lost])
            values = store.empty_rows(level, rows.stop - rows.start)
            values[held - rows.start] = found
            new.write_level(level, rows, values)
    errors = np.array(store.errors, dtype=object)
    for name, own in (("valid", store.valid), ("sha256", store.sha256), ("error", errors)):
        values, _ = new.read_column(name)
        values[there] = own[places[there]]
        new.rewrite_column(name, values)
    new.rewrite_column("status", status)


@contextmanager
def _in_words(path: str | Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{path} could not be written anew: {error.strerror or error}. No row is lost; make room "
            "for a second store, and run the same command again"
        ) from error
