"""An open store reads each of its columns once, and hands out what nobody can change."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.stores import batch, make_parted, table

from samcls.store import binding
from samcls.store.feature_store import FeatureStore

COLUMNS = ("ids", "splits", "groups", "errors", "labels", "status", "valid", "sha256", "meta")


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each key of a column's values was asked for."""
    asked: Counter[str] = Counter()
    get = binding.CheckedStore.get

    async def counted(self: Any, key: str, *args: Any, **options: Any) -> Any:
        if "/c/" in key:
            asked[key.partition("/")[0]] += 1
        return await get(self, key, *args, **options)

    monkeypatch.setattr(binding.CheckedStore, "get", counted)
    return asked


def test_reading_a_column_twice_touches_the_disk_once(tmp_path: Path, read: Counter[str]) -> None:
    """However often properties and the table are asked for, each column is read when it first is."""
    make_parted(tmp_path / "s.zarr")
    store = FeatureStore.open(tmp_path / "s.zarr")
    read.clear()
    store.ids  # noqa: B018 - the reading is the point
    once = dict(read)
    assert set(once) == {"id"}
    for _ in range(3):
        for name in COLUMNS:
            getattr(store, name)
        assert store.table.ids == tuple(store.ids)
    assert read["id"] == once["id"]
    assert read["status"] == read["label"] == once["id"]


def test_what_is_read_of_a_column_cannot_be_changed(tmp_path: Path) -> None:
    """Neither arrays nor the table can be written to; a list that is handed out is the caller's own."""
    make_parted(tmp_path / "s.zarr")
    store = FeatureStore.open(tmp_path / "s.zarr")
    for values in (store.status, store.labels, store.table.labels):
        with pytest.raises(ValueError, match="read-only"):
            values[0] = 0
    store.ids.clear()
    assert len(store.ids) == len(store.table.ids) == 21


def test_a_writer_sees_its_own_writes_and_a_reader_what_it_opened(tmp_path: Path) -> None:
    """Marks, pending rows, columns and tables that a store writes are what it says from then on."""
    make_parted(tmp_path / "s.zarr")
    reader = FeatureStore.open(tmp_path / "s.zarr")
    before = reader.status
    store = FeatureStore.open(tmp_path / "s.zarr", mode="r+")
    assert store.status.tolist() == before.tolist()
    store.mark_pending(np.arange(3))
    assert store.status[:4].tolist() == [0, 0, 0, 1]
    store.write_marks(batch(0, 3, seed=7))
    assert store.status[:4].tolist() == [1, 1, 1, 1]
    store.rewrite_column("status", np.full(21, 2, np.uint8))
    assert set(store.status.tolist()) == {2}
    store.update_table(table(24))
    assert len(store.ids) == len(store.status) == len(store.table.splits) == 24
    assert reader.status is before
