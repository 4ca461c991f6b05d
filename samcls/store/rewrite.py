"""Write a local store anew, with other rows or in another order; nothing is encoded again.

The new store is made beside the old one by copying rows bit for bit, and takes its place by renames.
Whatever cuts it off, the next extract ends it or starts it anew. It costs the time to read and write the
store once, and the disk for a second one until it is done.

    store = rewrite_store(FeatureStore.open("features.zarr", mode="r+"), table, claim)
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Int

from samcls.errors import StoreError
from samcls.store.feature_store import FeatureStore
from samcls.store.keys import swap_path
from samcls.store.lock import Claim
from samcls.store.rows import RowTable
from samcls.store.schema import DONE, FAILED, PENDING
from samcls.store.swap import finish_rewrite, swapped_in

__all__ = ["finish_rewrite", "rewrite_store"]


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
    if swap_path(store.path) is None:
        raise StoreError(
            f"{store.path} is a URL, where no store can be swapped for another at once; give --removed "
            "keep, or extract into another store"
        )
    own = {name: row for row, name in enumerate(store.ids)}
    places = np.array([own.get(name, -1) for name in table.ids], dtype=np.int64)
    kept = int((places >= 0).sum())
    log(f"writing {store.path} anew: {kept} rows are copied, {len(own) - kept} are dropped")
    with swapped_in(store.path) as place:
        new = FeatureStore.create(
            place,
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
        claim.check()
    return FeatureStore.open(store.path, mode="r+", claim=claim)


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
