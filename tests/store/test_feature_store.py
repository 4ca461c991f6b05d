"""The feature store: what it promises of its rows, its refusals and its reads."""

from dataclasses import replace
from pathlib import Path

import dask.array
import numpy as np
import pytest
import zarr
from support.stores import FINGERPRINT, LEVELS, batch, make, table

from samcls.errors import FingerprintMismatch, OverwriteRefused, StoreError
from samcls.store.feature_store import FeatureStore
from samcls.store.keys import Keys
from samcls.store.metadata import read_root, write_attributes
from samcls.store.schema import DONE, FAILED, PENDING, LevelShape, Partition


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Values, marks and the table come back as they were given."""
    store = make(tmp_path / "s.zarr")
    given = batch(2, 5)
    store.write(given)
    read = FeatureStore.open(tmp_path / "s.zarr")
    for level in LEVELS:
        np.testing.assert_array_equal(read.read(level, slice(2, 7)), given.features[level])
        assert not read.read(level)[7:].any()
    assert read.status.tolist() == [PENDING] * 2 + [DONE] * 5 + [PENDING] * 2
    np.testing.assert_array_equal(read.sha256[2:7], given.sha256)
    assert read.ids == list(table(9).ids)
    assert read.splits == list(table(9).splits)
    assert read.tasks == {"label": ("benign", "malignant")}
    assert read.labels[:, 0].tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0]
    assert read.fingerprint == FINGERPRINT
    assert read.levels == LEVELS


def test_rows_come_in_the_order_asked_for(tmp_path: Path) -> None:
    """Row numbers may be in any order and repeat."""
    store = make(tmp_path / "s.zarr")
    given = batch(0, 9)
    store.write(given)
    rows = [8, 0, 0, 5]
    np.testing.assert_array_equal(store.read("neck", rows), given.features["neck"][rows])


def test_rows_need_not_be_consecutive(tmp_path: Path) -> None:
    """Writing rows with gaps leaves the rows between as they were."""
    store = make(tmp_path / "s.zarr")
    before = batch(0, 9, seed=1)
    store.write(before)
    given = replace(batch(0, 4, seed=2), rows=np.array([1, 2, 5, 8]))
    store.write(given)
    expected = before.features["neck"].copy()
    expected[[1, 2, 5, 8]] = given.features["neck"]
    np.testing.assert_array_equal(FeatureStore.open(store.path).read("neck"), expected)


def test_a_failed_row_keeps_its_reason(tmp_path: Path) -> None:
    """A failed row says why, and the others do not."""
    store = make(tmp_path / "s.zarr", images=3)
    good = batch(0, 3)
    status = np.array([DONE, FAILED, DONE], dtype=np.uint8)
    store.write(replace(good, status=status, error=["", "x.png is truncated", ""]))
    assert FeatureStore.open(store.path).errors == ["", "x.png is truncated", ""]


@pytest.mark.parametrize("window", [1, 2, 3])
def test_counts_are_the_valid_cells_under_each_pooled_cell(tmp_path: Path, window: int) -> None:
    """Counts equal a brute-force count over the unpooled grid, also where the window does not divide it."""
    side = -(-4 // window)
    shape = LevelShape(1, side, side, 16)
    store = FeatureStore.create(
        tmp_path / "s.zarr",
        replace(FINGERPRINT, levels=("neck",), window=window),
        {"neck": shape},
        table(3),
    )
    valid = np.array([[64, 64], [33, 64], [16, 5]], dtype=np.uint16)
    empty = np.zeros((3, 1, 1, side, side), dtype=np.float16)
    store.write(replace(batch(0, 3), features={"neck": empty}, valid=valid))
    for row, (height, width) in enumerate(valid.astype(int)):
        cells = np.zeros((side * window, side * window))
        cells[: -(-height // 16), : -(-width // 16)] = 1
        expected = cells.reshape(side, window, side, window).sum(axis=(1, 3))
        np.testing.assert_array_equal(store.counts("neck", [row])[0], expected)


def test_another_fingerprint_is_refused_with_the_differing_fields(tmp_path: Path) -> None:
    """The refusal shows each differing field, and only those, side by side."""
    store = make(tmp_path / "s.zarr")
    other = replace(FINGERPRINT, window=4, checkpoint_sha256="1" * 64)
    with pytest.raises(FingerprintMismatch, match="window") as caught:
        store.require(other)
    assert set(caught.value.differing) == {"window", "checkpoint_sha256"}
    assert "in the store: 2   asked for: 4" in str(caught.value)
    assert "input_size" not in str(caught.value)
    store.require(FINGERPRINT)


def test_a_finished_store_is_not_overwritten(tmp_path: Path) -> None:
    """Creating over a store, a file, a folder or somebody else's group changes nothing."""
    make(tmp_path / "s.zarr")
    with pytest.raises(OverwriteRefused, match="already at"):
        make(tmp_path / "s.zarr")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").write_text("precious")
    (tmp_path / "file").write_text("precious")
    for name in ("folder", "file"):
        with pytest.raises(OverwriteRefused, match="not a feature store"):
            make(tmp_path / name)
    zarr.open_group(tmp_path / "other.zarr", mode="w").create_array("x", shape=3, dtype="int8")
    with pytest.raises(OverwriteRefused, match="another kind"):
        make(tmp_path / "other.zarr")
    assert "x" in zarr.open_group(tmp_path / "other.zarr", mode="r")


def test_a_creation_cut_off_is_made_anew(tmp_path: Path) -> None:
    """What a creation leaves that was cut off in its place is refused when opened, and replaced."""
    path = tmp_path / "s.zarr"
    zarr.open_group(path, mode="w", attributes={"created_by": "samcls"}).create_array(
        "id", shape=3, dtype="int8"
    )
    with pytest.raises(StoreError, match="can simply be run again"):
        FeatureStore.open(path)
    assert not FeatureStore.exists(path)
    assert len(make(path, images=4)) == 4
    assert [entry.name for entry in tmp_path.iterdir()] == ["s.zarr"]


def test_opening_says_what_is_wrong(tmp_path: Path) -> None:
    """Nothing there, another version and an unknown level each have their own words."""
    with pytest.raises(StoreError, match="samcls extract MANIFEST"):
        FeatureStore.open(tmp_path / "absent.zarr")
    store = make(tmp_path / "s.zarr")
    with pytest.raises(StoreError, match="it holds block:0, neck"):
        store.read("late")
    with pytest.raises(StoreError, match="opened for reading"):
        FeatureStore.open(store.path).write(batch(0, 1))
    keys = Keys.of(store.path, read_only=False)
    root = read_root(keys)
    write_attributes(keys, {**root.attributes, "format_version": 99}, root.arrays)
    with pytest.raises(StoreError, match="format version 99"):
        FeatureStore.open(store.path)


def test_plain_zarr_and_dask_read_the_same(tmp_path: Path) -> None:
    """The store is ordinary Zarr: other readers see the same values."""
    store = make(tmp_path / "s.zarr")
    given = batch(0, 9)
    store.write(given)
    array = zarr.open_array(store.path, path="features/neck", mode="r")
    np.testing.assert_array_equal(array[:], given.features["neck"])
    lazy = dask.array.from_zarr(store.path, component="features/neck")
    np.testing.assert_array_equal(lazy.compute(), given.features["neck"])


def test_partition_is_sized_in_bytes() -> None:
    """Shards of five ViT-H levels at window 4 hold some 64 MiB of the widest level."""
    levels = {"late": LevelShape(1280, 16, 16, 16), "neck": LevelShape(256, 16, 16, 16)}
    partition = Partition.for_levels(levels, views=1, storage="float16")
    assert partition == Partition(chunk_rows=1, shard_rows=64)
    assert partition.shard_rows * levels["late"].values * 2 == 40 * 2**20
