"""What is gone is never taken for zeros: neither by readers, nor by a writer that completes it."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.damage import SHARD, forget_chunk
from support.stores import LEVELS, batch, make_parted, pick

from samcls.errors import StoreError
from samcls.learn.runs.train import train
from samcls.learn.settings import TrainConfig
from samcls.store import reader
from samcls.store.feature_store import FeatureStore
from samcls.store.repair import repair
from samcls.store.verify import verify


@pytest.fixture(params=["beneath Zarr", "through Zarr"])
def path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A full store, read as on this system and as on Windows or from a URL."""
    if request.param == "through Zarr":
        monkeypatch.setattr(reader, "CAN_READ_PARTS", False)
    elif not hasattr(os, "preadv"):
        pytest.skip("this system reads through Zarr")
    make_parted(tmp_path / "s.zarr")
    return tmp_path / "s.zarr"


LOSSES: dict[str, tuple[Callable[[Path], None], list[int]]] = {
    "shard": (lambda p: (p / SHARD).unlink(), list(range(8))),
    "chunk": (lambda p: forget_chunk(p / SHARD, 3), [6, 7]),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_rows_that_are_done_and_gone_are_refused(path: Path, loss: str) -> None:
    """Reading them names level, rows, ids and what to do; all others are read as before."""
    lose, rows = LOSSES[loss]
    lose(path)
    store = FeatureStore.open(path)
    first = f"row {rows[0]} \\(image-{rows[0]}-é\\)"
    words = f"level neck lacks the features of {len(rows)} images.*{first}.*store verify.*repair"
    with pytest.raises(StoreError, match=words):
        store.read("neck")
    with pytest.raises(StoreError, match=f"of 1 images .* row {rows[-1]} "):
        store.read("neck", [20, rows[-1], 12])
    with pytest.raises(StoreError, match=words):
        store.to_dask("neck").sum().compute()
    others = np.setdiff1d(np.arange(21), rows)
    given = batch(0, 21).features
    np.testing.assert_array_equal(store.read("neck", others), given["neck"][others])
    np.testing.assert_array_equal(store.read("block:0"), given["block:0"])


def test_rows_that_wait_or_failed_are_zeros(path: Path) -> None:
    """A pending row without a chunk reads as zeros, as does a row of zeros that is there."""
    store = FeatureStore.open(path, mode="r+")
    store.mark_pending(np.arange(8))
    (path / SHARD).unlink()
    given = batch(0, 21)
    given.features["neck"][20] = 0
    store.write(pick(given, np.array([20])))
    assert not store.read("neck", slice(0, 8)).any()
    np.testing.assert_array_equal(store.read("neck")[8:], given.features["neck"][8:])


def test_a_row_written_while_it_is_read_is_no_loss(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features that appear between the look at them and at the mark are read, not refused."""
    writing = FeatureStore.open(path, mode="r+")
    writing.mark_pending(np.arange(8))
    (path / SHARD).unlink()
    (path / str(SHARD).replace("neck", "block_0")).unlink()
    store, given = FeatureStore.open(path), batch(0, 21)
    held, late = store.read_held, [True]

    def read_held(level: str, rows: object = None) -> object:
        found = held(level, rows)  # type: ignore[arg-type]
        if late.pop() if late else False:
            writing.write(pick(given, np.arange(8)))
        return found

    monkeypatch.setattr(store, "read_held", read_held)
    np.testing.assert_array_equal(store.read("neck"), given.features["neck"])


def test_a_lost_chunk_is_not_completed_with_zeros(path: Path) -> None:
    """Writing a row beside lost ones is refused; whole chunks, and repaired ones, are written."""
    forget_chunk(path / SHARD, 3)
    store, given = FeatureStore.open(path, mode="r+"), batch(0, 21)
    store.mark_pending(np.array([7]))
    with pytest.raises(StoreError, match=r"lacks the features of 1 images .* row 6 "):
        store.write(pick(given, np.array([7])))
    lost = repair(path, verify(path))
    assert lost.tolist() == [6]
    store.write(pick(given, np.array([6, 7])))
    for level in LEVELS:
        np.testing.assert_array_equal(FeatureStore.open(path).read(level), given.features[level])


def test_training_on_a_store_with_a_loss_is_refused(path: Path, tmp_path: Path) -> None:
    """Stage two stops with the same words before it makes a run."""
    (path / SHARD).unlink()
    with pytest.raises(StoreError, match="level neck lacks the features of 8 images"):
        train(FeatureStore.open(path), TrainConfig(), tmp_path / "run")
    assert not (tmp_path / "run").exists()
