"""Name every image of a store that is damaged, lost or not what it should be.

Each shard is read once, through the checksum of every chunk, while the one before it is looked at, so a
store is verified at nearly the rate at which it is read, in the memory of three shards. Absence is
read from the shards' own indices: Zarr would serve zeros.

    report = verify("features.zarr")        # samcls store verify features.zarr
    report.ok, report.rows
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int, Shaped, UInt8

from samcls.errors import StoreError
from samcls.store.feature_store import FeatureStore
from samcls.store.keys import Keys
from samcls.store.layout import RESULTS, columns_of
from samcls.store.metadata import COPIES, STORE_ID, Root, damaged_files, intact_copy, read_root
from samcls.store.opening import Found, look
from samcls.store.schema import DONE, FAILED, PENDING, REMOVED
from samcls.store.shards import ShardIndex

__all__ = ["Problem", "VerifyReport", "verify"]

Progress = Callable[[int, int, int], None]

BLOCK = 2**20  # values looked at together: what is read, masked and reduced stays in the cache
SIGNLESS = {2: (np.uint16, 0x7FFF, 0x7C00), 4: (np.uint32, 0x7FFFFFFF, 0x7F800000)}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        row: The image's row; none where the whole store is hit.
        id: The image's identifier; empty where it cannot be known.
        level: Level, per-image array or metadata file that is hit.
        kind: `shard missing`, `shard damaged`, `shard misplaced` (of another place or store), `chunk
            missing`, `chunk damaged`, `not finite`, `all zero`, `done without data`, `status out of
            range`, `row array missing`, `row array damaged`, `row array misplaced` or `metadata
            damaged`.
        detail: More about it, for a person.
    """

    row: int | None
    id: str
    level: str
    kind: str
    detail: str = ""


@dataclass(frozen=True)
class VerifyReport:
    """What was found.

    Attributes:
        store: Path or URL.
        checked: Rows that were looked at.
        bytes: Of the feature values that were read.
        problems: By row, then level.
        notes: What could not be checked.
    """

    store: str
    checked: int
    bytes: int
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    @property
    def rows(self) -> Int[np.ndarray, " image"]:
        """Rows that are hit, ascending."""
        return np.unique(np.array([p.row for p in self.problems if p.row is not None], dtype=int))


def verify(
    store_path: str | Path,
    rows: Iterable[int] | slice | None = None,
    progress: Progress | None = None,
) -> VerifyReport:
    """Check metadata, per-image arrays and features.

    Damaged metadata may hide or feign anything else, so then nothing more is looked at.

    Args:
        store_path: Local path or URL.
        rows: The rows to check; all by default.
        progress: Called with (shards checked, shards in all, problems found).

    Raises:
        StoreError: no store is there, one whose metadata and their copies are all lost, one whose
            format cannot be read, or one whose table was being rewritten.
    """
    path = str(store_path)
    metadata = _metadata_problems(path)
    if any(problem.level not in COPIES for problem in metadata):
        return VerifyReport(path, 0, 0, tuple(metadata))
    store = FeatureStore.open(path)
    wanted = _mask(rows, len(store))
    columns, lost = _row_arrays(store)
    ids = columns["id"].tolist()
    found = [*metadata, *lost]
    status = store.readable_status()
    unknown = _mask([p.row for p in lost if p.row is not None], len(store))
    found += _status_problems(status, columns, wanted & ~unknown, ids)
    read = 0
    shards = list(_shards(store, wanted))
    kept = (status == REMOVED) & columns["sha256"].any(axis=1)  # features that may be used again
    held = (status == DONE) | kept
    for done, (level, start, bad, size) in enumerate(_checked(store, shards, held), start=1):
        found += [
            Problem(row, ids[row], level, kind)
            for row, kind in sorted((start + at, kind) for at, kind in bad)
            if wanted[row]
        ]
        read += size
        if progress:
            progress(done, len(shards), len(found))
    order = {name: i for i, name in enumerate(store.payloads)}
    found.sort(key=lambda p: (-1 if p.row is None else p.row, order.get(p.level, -1)))
    notes = _notes(read_root(Keys.of(path, read_only=True)))
    return VerifyReport(path, int(wanted.sum()), read, tuple(found), notes)


def _mask(rows: Iterable[int] | slice | None, images: int) -> Bool[np.ndarray, " image"]:
    mask = np.zeros(images, dtype=bool)
    if rows is None or isinstance(rows, slice):
        mask[slice(None) if rows is None else rows] = True
    else:
        mask[np.fromiter(rows, dtype=int)] = True
    return mask


def _metadata_problems(path: str) -> list[Problem]:
    keys = Keys.of(path, read_only=True)
    try:
        if look(path) is not Found.STORE or read_root(keys).updating:
            return []  # which opening says better
        unreadable = ""
    except (StoreError, ValueError) as error:
        unreadable = str(error)
    damaged = damaged_files(keys)
    if unreadable and intact_copy(keys) is None:
        raise StoreError(unreadable)
    return [Problem(None, "", name, "metadata damaged", why) for name, why in damaged.items()]


def _notes(root: Root) -> tuple[str, ...]:
    notes = []
    if STORE_ID not in root.attributes:
        notes.append(
            "made by an earlier samcls: its shards do not say where they belong, so that one copied "
            "from another place or store, and whole, cannot be told"
        )
    if not root.sealed:
        notes.append(
            "made by an earlier samcls: its attributes carry no checksum, and are compared with their "
            "copy alone"
        )
    return tuple(notes)


def _row_arrays(store: FeatureStore) -> tuple[dict[str, np.ndarray], list[Problem]]:
    """Read the per-image arrays piece by piece; what is lost is left empty."""
    columns, found = {}, []
    for name in (*columns_of(bool(store.meta_names)), *RESULTS):
        values, lost = store.read_column(name)
        columns[name] = values
        for piece in lost:
            kind, rows = f"row array {piece.how}", range(piece.rows.start, piece.rows.stop)
            found += [Problem(row, "", name, kind, piece.why) for row in rows]
    names = columns["id"]
    return columns, [Problem(p.row, str(names[p.row]), p.level, p.kind, p.detail) for p in found]


def _status_problems(
    status: UInt8[np.ndarray, " image"],
    columns: dict[str, np.ndarray],
    wanted: Bool[np.ndarray, " image"],
    ids: Sequence[str],
) -> list[Problem]:
    odd = wanted & ~np.isin(status, (PENDING, DONE, FAILED, REMOVED))
    empty = ~columns["sha256"].any(axis=1) | ~columns["valid"].any(axis=1)
    hollow = wanted & (status == DONE) & empty
    return [
        *(
            Problem(r, ids[r], "status", "status out of range", f"it is {status[r]}")
            for r in np.flatnonzero(odd).tolist()
        ),
        *(
            Problem(r, ids[r], "sha256", "done without data", "no digest or no extent")
            for r in np.flatnonzero(hollow).tolist()
        ),
    ]


def _shards(
    store: FeatureStore, wanted: Bool[np.ndarray, " image"]
) -> Iterator[tuple[str, int, slice]]:
    """Yield (level, shard, rows) for every shard that holds a wanted row."""
    size = store.partition.shard_rows
    edges = [*range(0, len(wanted), size), len(wanted)]
    for shard, (start, stop) in enumerate(pairwise(edges)):
        if wanted[start:stop].any():
            for level in store.payloads:
                yield level, shard, slice(start, stop)


def _checked(
    store: FeatureStore,
    shards: Sequence[tuple[str, int, slice]],
    held: Bool[np.ndarray, " image"],
) -> Iterator[tuple[str, int, set[tuple[int, str]], int]]:
    """Read each shard while the one before is looked at; yield (level, first row, faults, bytes)."""
    with ThreadPoolExecutor(1, thread_name_prefix="verify") as pool:

        def start(item: tuple[str, int, slice]) -> Future["_Shard"]:
            return pool.submit(_read_shard, store, *item)

        ahead = start(shards[0]) if shards else None
        for position, (level, _, rows) in enumerate(shards):
            shard = ahead.result() if ahead else None
            ahead = start(shards[position + 1]) if position + 1 < len(shards) else None
            if shard is not None:
                faults = _faults(shard, held[rows])
                yield level, rows.start, faults, sum(v.nbytes for v in shard.parts.values())


@dataclass(frozen=True)
class _Shard:
    """A shard as it was found.

    Attributes:
        index: What it says of its chunks.
        chunk_rows: Images in a chunk.
        parts: Position of a first row, and the values from there on, of what could be read.
        damaged: Positions of the first rows of chunks that could not.
    """

    index: ShardIndex
    chunk_rows: int
    parts: dict[int, Shaped[np.ndarray, "image ..."]]
    damaged: tuple[int, ...]


def _read_shard(store: FeatureStore, level: str, shard: int, rows: slice) -> _Shard:
    chunk_rows = store.partition.chunk_rows
    index = store.shard_index(level, shard)
    if not index.readable or not index.held.any():
        return _Shard(index, chunk_rows, {}, ())
    try:
        return _Shard(index, chunk_rows, {0: store.read_held(level, rows)[0]}, ())
    except StoreError:  # which chunk it is, only single reads can tell
        return _read_chunks(store, index, level, rows)


def _read_chunks(store: FeatureStore, index: ShardIndex, level: str, rows: slice) -> _Shard:
    chunk_rows = store.partition.chunk_rows
    parts, damaged = {}, []
    for first in range(rows.start, rows.stop, chunk_rows):
        try:
            values, _ = store.read_held(level, slice(first, min(first + chunk_rows, rows.stop)))
            parts[first - rows.start] = values
        except StoreError:
            damaged.append(first - rows.start)
    return _Shard(index, chunk_rows, parts, tuple(damaged))


def _faults(shard: _Shard, done: Bool[np.ndarray, " image"]) -> set[tuple[int, str]]:
    """Return (position in the shard, kind) for every row that is hit."""
    index, positions = shard.index, np.arange(len(done))
    if not index.present:
        return {(int(at), "shard missing") for at in positions[done]}
    if not index.readable:
        kind = "shard misplaced" if index.misplaced else "shard damaged"
        return {(int(at), kind) for at in positions}
    absent = ~index.held[positions // shard.chunk_rows]
    faults = {(int(at), "chunk missing") for at in positions[done & absent]}
    for first in shard.damaged:
        faults |= {(int(at), "chunk damaged") for at in positions[first : first + shard.chunk_rows]}
    for first, values in shard.parts.items():
        here = slice(first, first + len(values))
        unbounded, zero = _extremes(values)
        looked = done[here] & ~absent[here]
        faults |= {(first + int(at), "not finite") for at in np.flatnonzero(unbounded & looked)}
        faults |= {(first + int(at), "all zero") for at in np.flatnonzero(zero & looked)}
    return faults


def _extremes(
    values: Shaped[np.ndarray, "image ..."],
) -> tuple[Bool[np.ndarray, " image"], Bool[np.ndarray, " image"]]:
    """Say which rows hold a value that is not finite, and which hold nothing but zeros.

    IEEE numbers without their sign order as integers do: the greatest tells both at once. An image may
    be anything, all black among it.
    """
    if values.dtype == np.uint8:
        neither = np.zeros(len(values), dtype=bool)
        return neither, neither
    kind, mask, infinite = SIGNLESS[values.dtype.itemsize]
    bits = values.reshape(len(values), -1).view(kind)
    greatest = np.zeros(len(bits), dtype=kind)
    rows, width = max(1, BLOCK // bits.shape[1]), min(bits.shape[1], BLOCK)
    for start in range(0, len(bits), rows):
        for left in range(0, bits.shape[1], width):
            block = bits[start : start + rows, left : left + width] & kind(mask)
            part = greatest[start : start + rows]
            np.maximum(part, block.max(axis=1), out=part)
    return greatest >= infinite, greatest == 0
