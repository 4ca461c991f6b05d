"""The writer loses nothing and writes in few pieces."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.stores import batch, make

from samcls.errors import StoreError
from samcls.store.feature_store import FeatureStore
from samcls.store.schema import DONE, PENDING
from samcls.store.writer import ShardWriter


def test_leaving_by_an_interrupt_writes_what_is_held(tmp_path: Path) -> None:
    """Ctrl-C between batches costs nothing that was added."""
    store = make(tmp_path / "s.zarr")
    with pytest.raises(KeyboardInterrupt), ShardWriter(store, seconds=1e9) as writer:
        writer.add(batch(0, 2))
        writer.add(batch(2, 2))
        assert store.status.tolist() == [PENDING] * 9
        raise KeyboardInterrupt
    read = FeatureStore.open(store.path)
    assert read.status.tolist() == [DONE] * 4 + [PENDING] * 5
    np.testing.assert_array_equal(read.read("neck")[2:4], batch(2, 2).features["neck"])


def test_results_are_not_held_longer_than_asked(tmp_path: Path) -> None:
    """A batch reaches the store once the time is over, though no other follows it."""
    store = make(tmp_path / "s.zarr")
    with ShardWriter(store, seconds=0.05) as writer:
        writer.add(batch(0, 1))
        deadline = time.monotonic() + 20
        while FeatureStore.open(store.path).status[0] != DONE and time.monotonic() < deadline:
            time.sleep(0.01)
        assert FeatureStore.open(store.path).status[0] == DONE


def test_features_are_found_before_and_after_they_are_written(tmp_path: Path) -> None:
    """A finished row can be read back at any time."""
    store = make(tmp_path / "s.zarr")
    with ShardWriter(store, seconds=1e9) as writer:
        writer.add(batch(0, 3))
        writer.add(batch(3, 2))
        held = writer.features(4)
    for level, values in batch(3, 2).features.items():
        np.testing.assert_array_equal(held[level], values[1])
        np.testing.assert_array_equal(writer.features(4)[level], values[1])


def test_an_error_of_the_disk_reaches_the_caller(tmp_path: Path) -> None:
    """A write that fails is raised in the caller's thread, with what was held before it written."""
    store = make(tmp_path / "s.zarr")
    wrong = replace(batch(2, 2), features={"nose": np.zeros((2, 1))})
    with pytest.raises(StoreError, match="no level 'nose'"), ShardWriter(store, 0.0) as writer:
        writer.add(batch(0, 2))
        while writer.rows_written < 2:
            time.sleep(0.001)
        writer.add(wrong)
    assert FeatureStore.open(store.path).status.tolist()[:4] == [DONE, DONE, PENDING, PENDING]
