"""What a feature store says of its images, one value an image: ids, splits, labels, status.

Columns are small and read whole, through Zarr. Damage becomes a StoreError that names the verb to run;
`read_column` reads what can still be read of a damaged one. `FeatureStore.open` makes the object.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from jaxtyping import Int, UInt8, UInt16

from samcls.errors import SamclsError, StoreError
from samcls.store.keys import Keys, local_path
from samcls.store.schema import DONE, FAILED, PENDING, REMOVED, Fingerprint
from samcls.store.tables import NO_SPLIT

__all__ = ["ColumnReader", "configured"]

_PIPELINE = "zarr.core.codec_pipeline.BatchedCodecPipeline"
_CONFIG_LOCK = threading.Lock()  # Zarr's configuration is one for the whole process


@contextmanager
def configured() -> Iterator[None]:
    """Let arrays be opened so that files are replaced atomically, and chunks of zeros are kept.

    Whatever pipeline the process has chosen, zarr-python's own is the one that checks every chunk. A
    chunk that is kept even where it holds zeros is known to be lost when it is absent.
    """
    settings = {"codec_pipeline.path": _PIPELINE, "array.write_empty_chunks": True}
    with _CONFIG_LOCK, zarr.config.set(settings):
        yield


class ColumnReader:
    """A store's description and its per-image columns."""

    def __init__(self, path: str, group: zarr.Group, mode: Literal["r", "r+"]) -> None:
        self.path = path
        self.mode = mode
        self._group = group
        self._arrays: dict[str, zarr.Array[Any]] = {}
        self._attributes: dict[str, Any] = dict(group.attrs)
        self._root = local_path(path)
        self._folder = _identity(self._root)

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """What made the features."""
        return Fingerprint.from_dict(self._attributes["fingerprint"])

    @cached_property
    def tasks(self) -> dict[str, tuple[str, ...]]:
        """Name of each label task and its class names, in the order of their indices."""
        return {task["name"]: tuple(task["classes"]) for task in self._attributes["tasks"]}

    @property
    def ordinal(self) -> tuple[str, ...]:
        """Tasks whose classes are steps of one scale, as the manifest said."""
        return tuple(self._attributes.get("ordinal", ()))

    @property
    def meta_names(self) -> tuple[str, ...]:
        """Names of the columns that are kept beside the labels; training never sees them."""
        return tuple(self._attributes.get("meta", ()))

    @property
    def meta(self) -> dict[str, list[str]]:
        """Each of these columns, a text for each image."""
        if not self.meta_names:
            return {}
        columns = self._whole("meta").T.tolist()
        return {
            name: [str(value) for value in column]
            for name, column in zip(self.meta_names, columns, strict=True)
        }

    def __len__(self) -> int:
        """Return the number of images, whatever their status."""
        return int(self._array("status").shape[0])

    @property
    def ids(self) -> list[str]:
        """Identifier of each image, in the manifest's order."""
        return self._strings("id")

    @property
    def splits(self) -> list[str]:
        """`train`, `val` or `test` for each image; empty for one that was removed."""
        return self._strings("split")

    @property
    def groups(self) -> list[str]:
        """Patient or lesion of each image; empty where there is none."""
        return self._strings("group")

    @property
    def errors(self) -> list[str]:
        """Reason of each failed row; empty elsewhere."""
        return self._strings("error")

    @property
    def labels(self) -> Int[np.ndarray, "image task"]:
        """Class index for each image and task; -1 where the label is missing."""
        return self._whole("label")

    @property
    def status(self) -> UInt8[np.ndarray, " image"]:
        """0 pending, 1 done, 2 failed, 3 removed: not in the manifest any more, and not used."""
        return self._whole("status")

    @property
    def valid(self) -> UInt16[np.ndarray, "image 2"]:
        """Height and width, in encoder-input pixels, that show picture rather than padding."""
        return self._whole("valid")

    @property
    def sha256(self) -> UInt8[np.ndarray, "image 32"]:
        """SHA-256 of each image's decoded pixels; zeros while pending."""
        return self._whole("sha256")

    def read_column(self, name: str) -> tuple[np.ndarray, list[tuple[slice, bool, str]]]:
        """Read a per-image array as far as it can be read.

        Args:
            name: one of `layout.COLUMNS` or `layout.RESULTS`.

        Returns:
            The values, empty where they are lost; and for each lost piece its rows, whether it is
            absent rather than damaged, and why.

        Raises:
            StoreError: the array itself is not in the store.
        """
        array, keys = self._array(name), Keys(self._group.store)
        values = np.full(array.shape, array.fill_value, dtype=array.dtype)
        lost = []
        for rows, chunks in _column_chunks(array, name):
            if any(keys.size(chunk) is None for chunk in chunks):
                lost.append((rows, True, "a chunk is absent"))
                continue
            try:
                values[rows] = array[rows]
            except (ValueError, RuntimeError, TypeError, IndexError, OverflowError) as error:
                lost.append((rows, False, str(error)))
        return values, lost

    def readable_status(self) -> UInt8[np.ndarray, " image"]:
        """Return each row's status; where it is lost, what the row's digest and error tell of it."""
        status, lost = self.read_column("status")
        for rows, _, _ in lost:
            encoded = self.read_column("sha256")[0][rows].any(axis=1)
            failed = self.read_column("error")[0][rows] != ""
            told = np.where(failed, FAILED, np.where(encoded, DONE, PENDING))
            removed = self.read_column("split")[0][rows] == NO_SPLIT
            status[rows] = np.where(removed, REMOVED, told)
        return status

    def status_if_present(self) -> UInt8[np.ndarray, " image"]:
        """Return each row's status, for a removed one the status that it would return with."""
        status = self.status
        away = status == REMOVED
        if away.any():
            failed = np.array(self.errors) != ""
            told = np.where(failed, FAILED, np.where(self.sha256.any(axis=1), DONE, PENDING))
            status[away] = told[away]
        return status

    def _array(self, name: str) -> zarr.Array[Any]:
        if name not in self._arrays:
            with configured():
                self._arrays[name] = self._get(name)
        return self._arrays[name]

    def _get(self, name: str) -> zarr.Array[Any]:
        try:
            array = self._group[name]
        except KeyError as error:
            raise StoreError(f"{self.path} lacks the array {name}; it is damaged") from error
        except (ValueError, TypeError) as error:
            raise StoreError(
                f"{self.path}: the metadata of {name} are damaged: {error}. samcls store repair "
                "restores them from their copy"
            ) from error
        if not isinstance(array, zarr.Array):
            raise StoreError(f"{self.path}: {name} is a group where an array was expected")
        return array

    def _whole(self, name: str) -> np.ndarray:
        with self._reading(name):
            return np.asarray(self._array(name)[:])

    @contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        """Turn what Zarr raises on a damaged chunk into words; notice a store that was replaced."""
        try:
            yield
            if _identity(self._root) != self._folder:
                raise StoreError(
                    f"{self.path} was written anew, by samcls extract --removed drop, since it was "
                    "opened: its rows are others now. Start again"
                )
        except (SamclsError, MemoryError):
            raise
        except (ValueError, RuntimeError) as error:
            raise StoreError(
                f"{self.path}: {what} cannot be read: {error}\nThe store is damaged; "
                f"samcls store verify {self.path} names the images, samcls store repair encodes them "
                "again"
            ) from error

    def _strings(self, name: str) -> list[str]:
        return [str(value) for value in self._whole(name)]


def _identity(root: Path | None) -> tuple[int, int] | None:
    """Return what tells a local store's folder from another that takes its place."""
    if root is None:
        return None
    try:
        found = root.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _column_chunks(array: zarr.Array[Any], name: str) -> Iterator[tuple[slice, list[str]]]:
    """Yield each piece of a per-image array: its rows, and the keys that hold them."""
    height = array.chunks[0]
    tails = [""]
    if len(array.shape) > 1:
        tails = [f"/{i}" for i in range(-(-array.shape[1] // array.chunks[1]))]
    for number, start in enumerate(range(0, array.shape[0], height)):
        rows = slice(start, min(start + height, array.shape[0]))
        yield rows, [f"{name}/c/{number}{tail}" for tail in tails]
