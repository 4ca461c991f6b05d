"""A store's levels as lazy arrays: Dask's and xarray's, read through the store's own checks.

A task reads one shard by `StoreReader.read`, so that damage and absence are errors there too, and on the
workers of a cluster, where the store is opened again from its path.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from samcls.errors import StoreError
from samcls.store.reader import StoreReader

if TYPE_CHECKING:
    import dask.array
    import xarray

__all__ = ["LevelArray", "dataset", "lazy_level"]

Opener = Callable[[str], StoreReader]


class LevelArray:
    """One level, sliced like an array; values are read when they are asked for.

    Args:
        store: Open.
        level: One of its levels.
        opener: Opens the store again from its path, where the array has travelled to.
    """

    def __init__(self, store: StoreReader, level: str, opener: Opener) -> None:
        self._store = store
        self._opener = opener
        self._level = level
        shape = store.levels[level]
        tail = (len(store.fingerprint.views), shape.channels, shape.rows, shape.cols)
        self.shape = (len(store), *tail)
        self.dtype = np.dtype(store.fingerprint.storage)
        self.ndim = len(self.shape)

    def __getitem__(self, key: Any) -> np.ndarray:
        """Read rows, and take of them what the rest of the key says."""
        first, *rest = key if isinstance(key, tuple) else (key,)
        if isinstance(first, int | np.integer):
            values = self._store.read(self._level, [int(first)])[0]
            return np.asarray(values[tuple(rest)])
        return np.asarray(self._store.read(self._level, first)[(slice(None), *rest)])

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as path, name and opener."""
        return _reopened, (self._store.path, self._level, self._opener)


def _reopened(path: str, level: str, opener: Opener) -> LevelArray:
    return LevelArray(opener(path), level, opener)


def lazy_level(store: StoreReader, level: str, opener: Opener) -> "dask.array.Array":
    """Return a level as a Dask array, one Dask chunk a shard.

    Args:
        store: Open.
        level: One of its levels.
        opener: Opens the store again from its path.
    """
    import dask.array

    whole = LevelArray(store, level, opener)
    lazy: dask.array.Array = dask.array.from_array(  # type: ignore[no-untyped-call]
        whole, chunks=(store.partition.shard_rows, *whole.shape[1:]), name=False
    )
    return lazy


def dataset(store: StoreReader, opener: Opener) -> "xarray.Dataset":
    """Return every level lazily, with id, split and status as coordinates of `image`.

    Args:
        store: Open.
        opener: Opens the store again from its path.

    Raises:
        StoreError: xarray is not installed.
    """
    try:
        import xarray
    except ImportError as error:
        raise StoreError("xarray is not installed; pip install xarray") from error
    return xarray.Dataset(
        {
            name: (
                ("image", "view", f"channel_{name}", f"row_{name}", f"col_{name}"),
                lazy_level(store, name, opener),
            )
            for name in store.levels
        },
        coords={
            "id": ("image", np.array(store.ids)),
            "split": ("image", np.array(store.splits)),
            "status": ("image", store.status),
            "view": ("view", list(store.fingerprint.views)),
        },
        attrs={"fingerprint": store.fingerprint.to_dict()},
    )
