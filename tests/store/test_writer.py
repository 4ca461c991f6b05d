"""The writer loses nothing and writes in few pieces."""

from pathlib import Path

import numpy as np
import pytest
from stores import batch, make

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
    """Once the time is over, a batch is in the store when `add` returns."""
    store = make(tmp_path / "s.zarr")
    with ShardWriter(store, seconds=0.0) as writer:
        writer.add(batch(0, 1))
        assert FeatureStore.open(store.path).status[0] == DONE
