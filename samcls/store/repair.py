"""Make a damaged store whole again, but for the rows that must be encoded once more.

What can be restored is restored: metadata from its copy, per-image columns from the manifest, marks
from digests, the intact chunks of a damaged shard from the shard itself. The rest becomes pending, and
the next extract encodes exactly those rows.

    rows = repair("features.zarr", verify("features.zarr"))
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from samcls.errors import StoreError
from samcls.store.feature_store import FeatureStore
from samcls.store.keys import Keys
from samcls.store.layout import COLUMNS, META
from samcls.store.lock import writer_lock
from samcls.store.metadata import restore_files
from samcls.store.rows import RowTable
from samcls.store.schema import FAILED, REMOVED
from samcls.store.shards import shard_key
from samcls.store.tables import NO_SPLIT, merge_tables
from samcls.store.verify import Problem, VerifyReport, verify

__all__ = ["repair"]

RESTORED = {
    "id",
    "split",
    "group",
    "label",
    "meta",
    "status",
}  # arrays that need no image to be restored


def repair(
    store_path: str | Path,
    report: VerifyReport,
    table: RowTable | None = None,
    log: Callable[[str], None] | None = None,
) -> Int[np.ndarray, " image"]:
    """Restore what can be restored, and mark the rest of the rows that are hit as pending.

    It may be cut off anywhere: marks are taken back before anything is removed, and what is left to do
    is found by the next `verify`.

    Args:
        store_path: Local path or URL.
        report: What `verify` found in it.
        table: Of the manifest that the store was made from; needed only where `id`, `split`, `group`
            or `label` is damaged.
        log: Called with a message when a stale lock is taken over.

    Returns:
        The rows to encode again, ascending.

    Raises:
        StoreError: a column is damaged and no table, or another one, was given; the metadata is
            beyond repair; or another process is writing.
        RunError: the disk is full or refuses the write.
    """
    path = str(store_path)
    with writer_lock(path, log) as claim:
        if any(p.kind == "metadata damaged" for p in report.problems):
            claim.check()
            report = _restore_metadata(path)
        store = FeatureStore.open(path, mode="r+", claim=claim)
        _restore_columns(store, report.problems, table)
        rows = _mark(store, report.problems)
        for level in store.payloads:
            store.require_claim()
            _rewrite_shards(store, level, [p for p in report.problems if p.level == level])
    return rows


def _restore_metadata(path: str) -> VerifyReport:
    """Undo damage to the metadata; what it hid can be seen only afterwards."""
    try:
        restore_files(Keys.of(path, read_only=False))
        report = verify(path)
        left = [p.level for p in report.problems if p.kind == "metadata damaged"]
    except ValueError as error:
        raise StoreError(
            f"the metadata of {path} and their copies are damaged: {error}; put them back from a "
            "backup, or name another store and extract again"
        ) from error
    if left:
        raise StoreError(
            f"the metadata of {path} and their copies are damaged: {', '.join(left)}; put them back "
            "from a backup, or name another store and extract again"
        )
    return report


def _restore_columns(
    store: FeatureStore, problems: Sequence[Problem], table: RowTable | None
) -> None:
    lost = {p.level for p in problems if p.kind.startswith("row array")}
    copied = {*COLUMNS, META}
    damaged = sorted(lost & copied)
    if damaged and table is None:
        raise StoreError(
            f"{', '.join(damaged)} of {store.path} are damaged; only the manifest knows them: give "
            "--manifest"
        )
    if table is not None and damaged:
        _rewrite_columns(store, _aligned(store, table), damaged)
    for name in sorted(lost - copied - {"status"}):
        store.rewrite_column(name, store.read_column(name)[0])


def _aligned(store: FeatureStore, table: RowTable) -> RowTable:
    """Return a table in the store's order, as far as its ids can still be read."""
    ids, gone = store.read_column("id")
    if gone:  # then the table must say them all, in this order
        known = np.ones(len(ids), dtype=bool)
        for piece in gone:
            known[piece.rows] = False
        same = len(ids) == len(table.ids)
        if not same or (ids != np.array(list(table.ids), object))[known].any():
            raise StoreError(
                f"the manifest has other ids than the store {store.path}, or another order, and the "
                "store's own are damaged; give the manifest that it was made from"
            )
        return table
    merged = merge_tables(ids.tolist(), table)
    absent = np.array([split == NO_SPLIT for split in merged.splits])
    if len(merged.ids) != len(ids) or (absent & (store.readable_status() != REMOVED)).any():
        raise StoreError(
            f"the manifest has other ids than the store {store.path}; give the one that it was "
            "made from"
        )
    return merged


def _rewrite_columns(store: FeatureStore, table: RowTable, names: Sequence[str]) -> None:
    if "label" in names and store.tasks != dict(table.tasks):
        raise StoreError(
            f"the manifest has the label tasks {', '.join(table.tasks)}, the store {store.path} has "
            f"{', '.join(store.tasks)}; give the manifest that it was made from"
        )
    if "meta" in names and list(store.meta_names) != list(table.meta):
        raise StoreError(
            f"the manifest has the columns {', '.join(table.meta) or 'none'} beside its labels, the "
            f"store {store.path} has {', '.join(store.meta_names)}; give the manifest that it was "
            "made from"
        )
    beside = [np.array(list(column), dtype=object) for column in table.meta.values()]
    texts = {"id": table.ids, "split": table.splits, "group": table.groups}
    for name in names:
        given = np.array(list(texts[name]), dtype=object) if name in texts else table.labels
        given = np.stack(beside, axis=1) if name == META else given
        store.rewrite_column(name, given)


def _mark(store: FeatureStore, problems: Sequence[Problem]) -> Int[np.ndarray, " image"]:
    """Rewrite the marks: pending where features or results are lost, otherwise as they were."""
    status = store.readable_status()
    hit = {p.row for p in problems if p.row is not None and _is_lost(p, int(status[p.row]))}
    rows = np.array(sorted(hit), dtype=int)
    if len(rows) or any(p.level == "status" for p in problems):
        store.mark_pending(rows)
    return np.asarray(rows[status[rows] != REMOVED])


def _is_lost(problem: Problem, status: int) -> bool:
    """Say whether the image must be encoded again to make up for a problem."""
    if problem.kind.startswith("row array"):
        if problem.level == "error":  # a row that is done has none
            return status == FAILED
        return problem.level not in RESTORED and status != FAILED
    return status != FAILED


def _rewrite_shards(store: FeatureStore, level: str, problems: Sequence[Problem]) -> None:
    """Replace each damaged shard by one that holds its intact chunks, and zeros for the others."""
    size, chunk = store.partition.shard_rows, store.partition.chunk_rows
    keys = Keys.of(store.path, read_only=False)
    damaged = [p for p in problems if p.row is not None]
    lost = {"shard damaged", "shard misplaced"}
    gone = {p.row // size for p in damaged if p.kind in lost and p.row is not None}
    for shard in gone:
        keys.delete(shard_key(level, shard))
    torn = {p.row // chunk for p in damaged if p.kind == "chunk damaged" and p.row is not None}
    for shard in {number * chunk // size for number in torn} - gone:
        rows = slice(shard * size, min((shard + 1) * size, len(store)))
        values = store.empty_rows(level, rows.stop - rows.start)
        for first in range(rows.start, rows.stop, chunk):
            if first // chunk not in torn:
                part = slice(first, min(first + chunk, rows.stop))
                values[first - rows.start :][: part.stop - first] = store.read_held(level, part)[0]
        # Zarr would complete the last chunk from the damaged one; a kill here costs the shard's rows
        keys.delete(shard_key(level, shard))
        store.write_level(level, rows, values)
