"""Whoever lost the store's lock writes nothing more, whichever way it would write."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from support.stores import batch, make_parted, pick, table

from samcls.errors import RunError
from samcls.store.feature_store import FeatureStore
from samcls.store.lock import lock_path, writer_lock
from samcls.store.writer import ShardWriter

OTHER = json.dumps({"host": "elsewhere", "pid": 1, "token": "another's"})

WRITES: dict[str, Callable[[FeatureStore], object]] = {
    "features": lambda store: store.write_features(batch(0, 3, seed=7)),
    "marks": lambda store: store.write_marks(batch(0, 3, seed=7)),
    "pending": lambda store: store.mark_pending(np.arange(3)),
    "level": lambda store: store.write_level("neck", slice(0, 3), batch(0, 3).features["neck"] + 1),
    "column": lambda store: store.rewrite_column("status", np.zeros(21, np.uint8)),
    "table": lambda store: store.update_table(table(24)),
}


@pytest.fixture
def held(tmp_path: Path) -> Iterator[FeatureStore]:
    """A full store, opened under its lock."""
    make_parted(tmp_path / "s.zarr")
    with writer_lock(tmp_path / "s.zarr") as lock:
        yield FeatureStore.open(tmp_path / "s.zarr", mode="r+", claim=lock.claim)


def take_over(store: FeatureStore) -> None:
    file = lock_path(store.path)
    assert file is not None
    file.write_text(OTHER)


def contents(store: FeatureStore) -> dict[str, bytes]:
    return {str(f): f.read_bytes() for f in Path(store.path).rglob("*") if f.is_file()}


@pytest.mark.parametrize("name", WRITES)
def test_nothing_is_written_once_the_lock_is_lost(held: FeatureStore, name: str) -> None:
    """Each way of writing checks the lock first: it raises, and no file changes."""
    before = contents(held)
    take_over(held)
    with pytest.raises(RunError, match=r"s\.zarr\.lock was taken over by another process"):
        WRITES[name](held)
    assert contents(held) == before


@pytest.mark.parametrize("name", WRITES)
def test_everything_is_written_while_the_lock_is_held(held: FeatureStore, name: str) -> None:
    """The same writes go through under the lock."""
    before = contents(held)
    WRITES[name](held)
    assert contents(held) != before


def test_a_lock_lost_in_the_middle_stops_the_writer(tmp_path: Path) -> None:
    """What was flushed before stays; the next flush raises and leaves the arrays as they were."""
    store, given = make_parted(tmp_path / "s.zarr")
    store.mark_pending(np.arange(21))
    with writer_lock(store.path) as lock:
        writing = FeatureStore.open(store.path, mode="r+", claim=lock.claim)
        with (
            pytest.raises(RunError, match="taken over by another process"),
            ShardWriter(writing, seconds=1e9) as writer,
        ):
            writer.add(pick(given, np.arange(8)))  # a whole shard, which is written at once
            while writer.rows_written < 8:
                pass
            take_over(store)
            before = contents(store)
            writer.add(pick(batch(0, 21, seed=7), np.arange(8, 16)))
    assert contents(store) == before
    assert store.status.tolist() == [1] * 8 + [0] * 13
