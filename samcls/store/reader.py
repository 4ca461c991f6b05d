"""What a feature store says when it is read: rows, columns, pooled maps, lazily or in memory.

Local features are read beneath Zarr, chunk by chunk and each through its checksum, some 3 times faster
than by zarr-python; everything else goes through Zarr. Damage becomes a StoreError that names the verb
to run. `FeatureStore.open` makes the object; this file holds its reading half.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import zarr
from jaxtyping import Bool, Float, Int, Shaped, UInt8, UInt16
from zarr.codecs import BloscCodec

from samcls.errors import SamclsError, StoreError
from samcls.store.keys import Keys, local_path
from samcls.store.layout import array_paths, codec_of
from samcls.store.lazy import dataset, lazy_level
from samcls.store.schema import (
    DONE,
    FAILED,
    PENDING,
    PIXELS,
    REMOVED,
    TRANSPOSED,
    Fingerprint,
    LevelShape,
    Partition,
    array_path,
)
from samcls.store.shards import CAN_READ_PARTS, LocalShard, read_index, shard_key
from samcls.store.tables import NO_SPLIT

if TYPE_CHECKING:
    import dask.array
    import xarray

__all__ = ["Rows", "StoreReader", "configured"]

Rows = slice | np.ndarray | Sequence[int] | None

_PIPELINE = "zarr.core.codec_pipeline.BatchedCodecPipeline"
_SHOWN = 3  # rows that an error names
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


class StoreReader:
    """The reading half of a feature store."""

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

    @cached_property
    def levels(self) -> dict[str, LevelShape]:
        """Shape of each level's pooled map."""
        arrays = {name: self._features(name) for name in self.fingerprint.levels}
        return {name: _level_shape(array) for name, array in arrays.items()}

    @cached_property
    def partition(self) -> Partition:
        """How rows fall into chunks and shards."""
        array = self._features(self.fingerprint.levels[0])
        return Partition(array.chunks[0], (array.shards or array.chunks)[0])

    @property
    def codec(self) -> str:
        """How chunks are compressed: one of `layout.CODECS`."""
        return codec_of(self._features(self.fingerprint.levels[0]))

    def __len__(self) -> int:
        """Return the number of images, whatever their status."""
        return int(self._array("status").shape[0])

    @property
    def array_paths(self) -> list[str]:
        """Path of every array within the store's group."""
        return array_paths(self.fingerprint, self.pixel_size)

    @property
    def pixel_size(self) -> int:
        """Side of the images that are kept beside the features; 0 where none are."""
        return int(self._attributes.get(PIXELS, 0))

    @property
    def payloads(self) -> tuple[str, ...]:
        """What is written in shards: every level, and `pixels` where images are kept."""
        return (*self.fingerprint.levels, *([PIXELS] if self.pixel_size else []))

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

    def read(
        self, level: str, rows: Rows = None
    ) -> Float[np.ndarray, "image view channel row col"]:
        """Read pooled maps.

        Args:
            level: one of `levels`.
            rows: a slice, row numbers in any order, or None for all.

        Returns:
            Values in the storage type. Rows that are pending or failed hold zeros.

        Raises:
            StoreError: the level or a row is not in the store, a chunk is damaged, or the features
                of a row that is done are not there.
        """
        self._require_level(level)
        return self._read_done(level, rows)

    def pixels(self, rows: Rows = None) -> UInt8[np.ndarray, "image size size 3"]:
        """Read the images that are kept: RGB, framed as the encoder's own, as the first view shows them.

        Args:
            rows: a slice, row numbers in any order, or None for all.

        Returns:
            Values in 0..255, 0 beyond what shows picture; rows that are pending or failed hold zeros.

        Raises:
            StoreError: the store keeps no images; or as for `read`.
        """
        return self._read_done(PIXELS, rows)

    def _read_done(self, level: str, rows: Rows) -> Shaped[np.ndarray, "image ..."]:
        values, absent = self.read_held(level, rows)
        if not len(absent):
            return values
        numbers = self._numbers(rows)
        lost = absent[self.status[numbers[absent]] == DONE]
        if len(lost):  # or written just now by another process: its marks follow its features
            again, still = self.read_held(level, numbers[lost])
            self.refuse_lost(level, numbers[lost[still]])
            values[lost] = again
        return values

    def read_held(
        self, level: str, rows: Rows = None
    ) -> tuple[Shaped[np.ndarray, "image ..."], Int[np.ndarray, " absent"]]:
        """Read what is there, whatever the rows' status; absence is told from zeros.

        Args:
            level: one of `payloads`.
            rows: as for `read`.

        Returns:
            Values, zeros where a chunk is absent; and which positions those are, ascending.

        Raises:
            StoreError: the level or a row is not in the store, or a chunk is damaged.
        """
        array = self._features(level)
        numbers = self._numbers(rows)
        root = self._root if CAN_READ_PARTS else None
        shard_rows = self.partition.shard_rows
        shard = numbers // shard_rows
        out = np.empty((len(numbers), *array.shape[1:]), dtype=array.dtype)
        absent: list[np.ndarray] = []
        with self._reading(level):
            for number in np.unique(shard):
                places = np.flatnonzero(shard == number)
                if root is None:
                    out[places] = _span(array, numbers[places])
                    zero = places[_zero(out[places])]  # only zeros can be absent: ask for no more
                    absent.append(zero[~self._held(level, numbers[zero])])
                    continue
                file = root / shard_key(level, int(number))
                with LocalShard(file, self.partition, _is_compressed(array)) as opened:
                    absent.append(opened.read(numbers[places] - number * shard_rows, places, out))
        return out, np.sort(np.concatenate([*absent, np.empty(0, dtype=np.int64)]))

    def refuse_lost(self, level: str, rows: Int[np.ndarray, " image"]) -> None:
        """Refuse to take for zeros what is not there.

        Raises:
            StoreError: naming the level and the first few of the rows, if there are any.
        """
        if not len(rows):
            return
        ids, shown = self.ids, rows[:_SHOWN].tolist()
        named = ", ".join(f"row {row} ({ids[row]})" for row in shown)
        more = ", ..." if len(rows) > _SHOWN else ""
        raise StoreError(
            f"{self.path}: {_described(level)} of {len(rows)} images that are marked "
            f"done: {named}{more}. A chunk or a shard is gone; samcls store verify {self.path} names "
            f"every image, samcls store repair {self.path} --manifest M.csv encodes them again"
        )

    def counts(
        self, level: str, rows: Rows = None, view: int = 0
    ) -> Float[np.ndarray, "image row col"]:
        """Return how many map cells that show picture lie under each pooled cell.

        Args:
            level: one of `levels`.
            rows: a slice, row numbers in any order, or None for all.
            view: position on the view axis; a view that swaps the sides swaps the extent too.

        Raises:
            StoreError: the level is not in the store.
        """
        shape = self._shape(level)
        extent = self.valid[slice(None) if rows is None else rows].astype(np.int64)
        if self.fingerprint.views[view] in TRANSPOSED:
            extent = extent[:, ::-1]
        cells = -(-extent // shape.patch)
        window = self.fingerprint.window
        down = np.clip(cells[:, :1] - window * np.arange(shape.rows), 0, window)
        across = np.clip(cells[:, 1:] - window * np.arange(shape.cols), 0, window)
        counts: np.ndarray = (down[:, :, None] * across[:, None, :]).astype(np.float32)
        return counts

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

    def empty_rows(self, level: str, rows: int) -> Shaped[np.ndarray, "image ..."]:
        """Return zeros for so many rows of a payload, in its type and shape."""
        array = self._features(level)
        return np.zeros((rows, *array.shape[1:]), dtype=array.dtype)

    @property
    def payload_bytes(self) -> int:
        """Bytes of all feature values and images before compression."""
        return sum(int(self._features(level).nbytes) for level in self.payloads)

    @property
    def stored_bytes(self) -> int:
        """Bytes that the whole store takes where it lies."""
        root = self._root
        if root is not None:
            return sum(f.stat().st_size for f in root.rglob("*") if f.is_file())
        return sum(array.nbytes_stored() for _, array in self._group.arrays()) + sum(
            self._features(level).nbytes_stored() for level in self.levels
        )

    # -- lazily ---------------------------------------------------------------------------------

    def to_dask(self, level: str) -> "dask.array.Array":
        """Return a level as a lazy Dask array of shape (image, view, channel, row, col).

        One Dask chunk is one shard, read as by `read` and with its errors.

        Raises:
            StoreError: the level is not in the store.
        """
        self._features(level)
        return lazy_level(self, level)

    def to_xarray(self) -> "xarray.Dataset":
        """Return every level lazily, with id, split and status as coordinates of `image`.

        A level's dimensions are (image, view, channel_<level>, row_<level>, col_<level>): levels
        differ in size. `view` has the views' names as its coordinate.

        Raises:
            StoreError: xarray is not installed.
        """
        return dataset(self)

    # -- inside ---------------------------------------------------------------------------------

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

    def _features(self, level: str) -> zarr.Array[Any]:
        if level == PIXELS:
            if not self.pixel_size:
                raise StoreError(
                    f"{self.path} keeps no images; extract into another store with --keep-pixels 224"
                )
        else:
            self._require_level(level)
        return self._array(array_path(level))

    def _require_level(self, level: str) -> None:
        if level not in self.fingerprint.levels:
            raise StoreError(
                f"{self.path} has no level {level!r}; it holds {', '.join(self.fingerprint.levels)}"
            )

    def _shape(self, level: str) -> LevelShape:
        self._require_level(level)
        return self.levels[level]

    def _numbers(self, rows: Rows) -> Int[np.ndarray, " image"]:
        if rows is None or isinstance(rows, slice):
            return np.arange(len(self))[slice(None) if rows is None else rows]
        numbers = np.asarray(rows, dtype=np.int64)
        if len(numbers) and not -len(self) <= numbers.min() <= numbers.max() < len(self):
            raise StoreError(
                f"got rows {numbers.min()} to {numbers.max()}; {self.path} has {len(self)} rows"
            )
        return np.where(numbers < 0, numbers + len(self), numbers)

    def _held(self, level: str, rows: Int[np.ndarray, " image"]) -> Bool[np.ndarray, " image"]:
        """Say of each row whether its chunk is there, by the indices of the shards."""
        keys, partition = Keys(self._group.store), self.partition
        held = np.zeros(len(rows), dtype=bool)
        shard = rows // partition.shard_rows
        for number in np.unique(shard):
            index = read_index(keys, level, int(number), partition)
            here = shard == number
            chunk = rows[here] % partition.shard_rows // partition.chunk_rows
            held[here] = index.held[chunk]
        return held

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


def _described(level: str) -> str:
    """What a payload lacks, in words that go before `of N images`."""
    return "pixels lacks those" if level == PIXELS else f"level {level} lacks the features"


def _identity(root: Path | None) -> tuple[int, int] | None:
    """Return what tells a local store's folder from another that takes its place."""
    if root is None:
        return None
    try:
        found = root.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _level_shape(array: zarr.Array[Any]) -> LevelShape:
    channels, rows, cols = array.shape[2:]
    return LevelShape(channels, rows, cols, int(str(array.attrs["patch_size"])))


def _is_compressed(array: zarr.Array[Any]) -> bool:
    return any(isinstance(codec, BloscCodec) for codec in array.compressors)


def _span(array: zarr.Array[Any], rows: Int[np.ndarray, " image"]) -> np.ndarray:
    """Gather rows of one shard in any order, reading the span that holds them once."""
    first, last = int(rows.min()), int(rows.max())
    values: np.ndarray = np.asarray(array[first : last + 1])[rows - first]
    return values


def _zero(values: np.ndarray) -> Bool[np.ndarray, " image"]:
    """Say which rows hold nothing but positive zeros, as an absent chunk does."""
    bits = values.reshape(len(values), -1).view(f"u{values.dtype.itemsize}")
    return ~np.asarray(bits.any(axis=1))


def _column_chunks(array: zarr.Array[Any], name: str) -> Iterator[tuple[slice, list[str]]]:
    """Yield each piece of a per-image array: its rows, and the keys that hold them."""
    height = array.chunks[0]
    tails = [""]
    if len(array.shape) > 1:
        tails = [f"/{i}" for i in range(-(-array.shape[1] // array.chunks[1]))]
    for number, start in enumerate(range(0, array.shape[0], height)):
        rows = slice(start, min(start + height, array.shape[0]))
        yield rows, [f"{name}/c/{number}{tail}" for tail in tails]
