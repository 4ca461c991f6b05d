"""Other programs read the store as the ordinary Zarr that it is."""

import pickle
from pathlib import Path

import dask.array
import numpy as np
import pytest
import zarr
from support.stores import LEVELS, make_parted

from samcls.errors import StoreError
from samcls.store.feature_store import FeatureStore, RowBatch
from samcls.store.lazy import LevelArray


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RowBatch]:
    path = tmp_path_factory.mktemp("readers") / "s.zarr"
    return path, make_parted(path)[1]


def test_zarr_reads_it(stored: tuple[Path, RowBatch]) -> None:
    """Plain zarr-python sees the same values and the ids, without a warning."""
    path, given = stored
    group = zarr.open_group(path, mode="r")
    assert {name for name, _ in group.arrays()} >= {"id", "label", "status"}
    np.testing.assert_array_equal(group["features/neck"][:], given.features["neck"])  # type: ignore[index]
    assert group["id"][3] == "image-3-é"  # type: ignore[index]


def test_dask_reads_it(stored: tuple[Path, RowBatch]) -> None:
    """Dask sees the same values, by its own reader and by ours, one shard a chunk."""
    path, given = stored
    lazy = dask.array.from_zarr(str(path), component="features/neck")
    np.testing.assert_array_equal(lazy.compute(), given.features["neck"])
    ours = FeatureStore.open(path).to_dask("block:0")
    assert ours.chunks[0] == (8, 8, 5)
    np.testing.assert_array_equal(ours.compute(), given.features["block:0"])
    with pytest.raises(StoreError, match="it holds block:0, neck"):
        FeatureStore.open(path).to_dask("late")


def test_xarray_reads_it(stored: tuple[Path, RowBatch]) -> None:
    """xarray sees the same values under named dimensions, and selects by id."""
    xarray = pytest.importorskip("xarray", reason="xarray is not installed")
    path, given = stored
    plain = xarray.open_zarr(path, group="features", consolidated=False)
    np.testing.assert_array_equal(plain["neck"].values, given.features["neck"])
    ours = FeatureStore.open(path).to_xarray()
    assert ours["neck"].dims == ("image", "view", "channel_neck", "row_neck", "col_neck")
    assert set(ours.data_vars) == set(LEVELS)
    one = ours["neck"].set_xindex("id").sel(id="image-3-é")
    np.testing.assert_array_equal(one.values, given.features["neck"][3])
    assert ours["split"].values[1] == "val"


def test_tensorstore_reads_it(stored: tuple[Path, RowBatch]) -> None:
    """TensorStore, another implementation of Zarr, decodes the same values."""
    tensorstore = pytest.importorskip("tensorstore", reason="tensorstore is not installed")
    path, given = stored
    array = tensorstore.open(
        {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path / "features/neck")}}
    ).result()
    np.testing.assert_array_equal(array.read().result(), given.features["neck"])


def test_parts_are_read_as_the_whole(stored: tuple[Path, RowBatch]) -> None:
    """Any rows in any order, across chunks and shards, equal those of the whole."""
    path, given = stored
    store = FeatureStore.open(path)
    rng = np.random.default_rng(0)
    for count in (1, 2, 7, 40):
        rows = rng.integers(-21, 21, count)
        np.testing.assert_array_equal(store.read("neck", rows), given.features["neck"][rows])
    for part in (slice(3, 4), slice(1, 20, 3), slice(20, 2, -1), slice(5, 5), slice(-3, None)):
        np.testing.assert_array_equal(store.read("neck", part), given.features["neck"][part])
    with pytest.raises(StoreError, match="has 21 rows"):
        store.read("neck", [21])


def test_lazy_arrays_are_sliced_like_the_whole(stored: tuple[Path, RowBatch]) -> None:
    """Rows and the other axes may be cut in any way, in this process and after travelling to another."""
    path, given = stored
    lazy = FeatureStore.open(path).to_dask("neck")
    there = LevelArray(FeatureStore.open(path), "neck", FeatureStore.open)
    whole = given.features["neck"]
    for key in (
        np.s_[3],
        np.s_[-1, 0],
        np.s_[2:19:3, :, 1:3],
        np.s_[[20, 0, 7]],
        np.s_[..., 0],
        np.s_[:, 0, 2, 1],
    ):
        np.testing.assert_array_equal(lazy[key].compute(), whole[key])
    travelled = pickle.loads(pickle.dumps(there))  # noqa: S301 - our own
    np.testing.assert_array_equal(travelled[5:9, :, 0], whole[5:9, :, 0])
    np.testing.assert_array_equal(travelled[4, 0], whole[4, 0])
