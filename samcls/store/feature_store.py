"""The feature store: create, open, read and write one Zarr v3 group.

Rows follow the manifest's order. A row's `status` becomes 1 (done) only after its features are on the
disk, so an interrupted extract resumes where it stopped. Writes replace whole shard files atomically
and durably; local reads go through the zarrs codec pipeline, which read shards 4 to 7 times faster
here.

    store = FeatureStore.open("features.zarr")
    store.read("neck", slice(0, 8))          # (8, view, channel, row, col) float16
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import zarr
import zarr.errors
from jaxtyping import Float, Int, UInt8, UInt16
from numcodecs import BitRound

from samcls.errors import FingerprintMismatch, OverwriteRefused, RunError, SamclsError, StoreError
from samcls.store.keys import Keys, local_path
from samcls.store.layout import COLUMNS, DEFAULT_CODEC, RESULTS, create_arrays
from samcls.store.metadata import save_copy
from samcls.store.rows import RowBatch, RowTable, TableChange
from samcls.store.schema import (
    FORMAT_VERSION,
    PENDING,
    TRANSPOSED,
    Fingerprint,
    LevelShape,
    Partition,
    array_name,
)

if TYPE_CHECKING:
    import dask.array
    import xarray

__all__ = ["FeatureStore", "RowBatch", "RowTable", "Rows", "TableChange"]

Rows = slice | np.ndarray | Sequence[int] | None

_PLAIN = "zarr.core.codec_pipeline.BatchedCodecPipeline"
_ZARRS = "zarrs.ZarrsCodecPipeline"
_MARK = "samcls"  # written first: tells a creation cut off from somebody else's group
_UPDATING = "table_update"  # set while the table is rewritten: tells an update cut off from a store
_CONFIG_LOCK = threading.Lock()  # Zarr's configuration is one for the whole process


@contextmanager
def _configured(path: str, mode: str) -> Iterator[None]:
    """Let arrays be opened with the pipeline for reading or for writing.

    zarrs serves local reads; zarr-python replaces files atomically. Chunks of zeros are kept, so that
    an absent one is known to be lost.
    """
    reading = mode == "r" and local_path(path) is not None
    settings = {
        "codec_pipeline.path": _ZARRS if reading else _PLAIN,
        "array.write_empty_chunks": True,
    }
    with _CONFIG_LOCK, zarr.config.set(settings):
        yield


class FeatureStore:
    """Cached feature maps of one data set under one encoder.

    Make one with `create` or `open`. Reading is safe from several threads; one process writes, and
    holds the store's `writer_lock` meanwhile.

    A path is a local folder or any URL that fsspec opens and Zarr can list. An endpoint and
    credentials come from fsspec's and the service's own settings: for S3 `AWS_ENDPOINT_URL`,
    `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, or `FSSPEC_S3_ENDPOINT_URL` and its like, or a
    file in `~/.config/fsspec`. Remote stores are read with zarr-python's own pipeline, their writes
    are as durable as the service makes them, and no lock guards them: run one writer.
    """

    def __init__(self, path: str, group: zarr.Group, mode: Literal["r", "r+"]) -> None:
        self.path = path
        self.mode = mode
        self._group = group
        self._arrays: dict[str, zarr.Array[Any]] = {}
        self._attributes: dict[str, Any] = dict(group.attrs)

    # -- making and opening ---------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        path: str | Path,
        fingerprint: Fingerprint,
        levels: Mapping[str, LevelShape],
        table: RowTable,
        codec: str = DEFAULT_CODEC,
    ) -> "FeatureStore":
        """Make an empty store, every row pending.

        A creation that was cut off leaves no `format_version`, and is made anew.

        Args:
            path: local path or any URL that Zarr opens.
            fingerprint: what the features will be.
            levels: shape of each level's pooled map, in the fingerprint's order.
            table: the images.
            codec: one of `layout.CODECS`; all are lossless.

        Raises:
            OverwriteRefused: something other than an unfinished creation is there.
            StoreError: the levels are not the fingerprint's, the codec is unknown, or there are no
                rows.
            RunError: the disk is full or refuses the write.
        """
        path = str(path)
        if tuple(levels) != fingerprint.levels:
            raise StoreError(
                f"got shapes for levels {tuple(levels)}; expected {fingerprint.levels}"
            )
        if not table.ids:
            raise StoreError("a store needs at least one row; the manifest has none")
        _refuse_other_contents(path)
        keys = Keys.of(path, read_only=False)
        attributes: dict[str, Any] = {
            "created_by": _MARK,
            "fingerprint": fingerprint.to_dict(),
            "tasks": _tasks(table),
            "format_version": FORMAT_VERSION,
        }
        with _writing(path), _configured(path, "r+"):
            group = zarr.open_group(
                keys.store, mode="w", zarr_format=3, attributes={"created_by": _MARK}
            )
            create_arrays(group, fingerprint, levels, table, codec)
            save_copy(keys, _array_paths(fingerprint), attributes)
            group.attrs.update(attributes)
        return cls.open(path, mode="r+")

    @classmethod
    def open(cls, path: str | Path, mode: Literal["r", "r+"] = "r") -> "FeatureStore":
        """Open a store that is there.

        Args:
            path: local path or any URL that Zarr opens.
            mode: `r` to read; `r+` to write too, which reads more slowly.

        Raises:
            StoreError: nothing is there, or not a store, one of another format version, or one whose
                table was being rewritten.
        """
        path = str(path)
        try:
            group = _open_group(path, mode)
        except (FileNotFoundError, zarr.errors.GroupNotFoundError) as error:
            raise StoreError(
                f"no feature store at {path}; make one with: samcls extract MANIFEST {path}"
            ) from error
        except (zarr.errors.BaseZarrError, ValueError, TypeError, NotADirectoryError) as error:
            raise StoreError(
                f"{path} is not a feature store, or its metadata is damaged: {error}. Of a store, "
                f"samcls store verify {path} says more"
            ) from error
        found = group.attrs.get("format_version")
        if found is None:
            raise StoreError(
                f"{path} is a Zarr group but not a finished feature store (no format_version); "
                "an extract that was cut off while making it can simply be run again"
            )
        if found != FORMAT_VERSION:
            raise StoreError(
                f"{path} has format version {found}; this samcls reads version {FORMAT_VERSION}. "
                "Install the version that wrote it, or extract again"
            )
        if mode == "r" and _UPDATING in group.attrs:
            raise StoreError(
                f"the labels and splits of {path} were being rewritten when that was cut off; run "
                f"samcls extract MANIFEST {path} again to finish it"
            )
        return cls(path, group, mode)

    @staticmethod
    def exists(path: str | Path) -> bool:
        """Say whether a finished creation is at the path."""
        try:
            group = _open_group(str(path), "r")
        except (FileNotFoundError, zarr.errors.BaseZarrError, ValueError, NotADirectoryError):
            return False
        return "format_version" in group.attrs

    def require(self, fingerprint: Fingerprint) -> None:
        """Refuse to go on with other settings than the store's.

        Raises:
            FingerprintMismatch: with the differing fields side by side.
        """
        differing = self.fingerprint.differing(fingerprint)
        if differing:
            raise FingerprintMismatch(self.path, differing)

    # -- what it holds --------------------------------------------------------------------------

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

    def __len__(self) -> int:
        """Return the number of images, whatever their status."""
        return int(self._array("status").shape[0])

    @property
    def ids(self) -> list[str]:
        """Identifier of each image, in the manifest's order."""
        return self._strings("id")

    @property
    def splits(self) -> list[str]:
        """`train`, `val` or `test` for each image."""
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
        """0 pending, 1 done, 2 failed."""
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
            Values in the storage type. Rows that are not done hold zeros.

        Raises:
            StoreError: the level is not in the store, or a chunk of it is damaged.
        """
        array = self._features(level)
        with self._reading(level):
            if rows is None or isinstance(rows, slice):
                return np.asarray(array[slice(None) if rows is None else rows])
            return _read_rows(array, np.asarray(rows, dtype=np.int64), self.partition.shard_rows)

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

    @property
    def payload_bytes(self) -> int:
        """Bytes of all feature values before compression."""
        return sum(int(self._features(level).nbytes) for level in self.levels)

    @property
    def stored_bytes(self) -> int:
        """Bytes that the whole store takes where it lies."""
        root = local_path(self.path)
        if root is not None:
            return sum(f.stat().st_size for f in root.rglob("*") if f.is_file())
        return sum(array.nbytes_stored() for _, array in self._group.arrays()) + sum(
            self._features(level).nbytes_stored() for level in self.levels
        )

    # -- writing --------------------------------------------------------------------------------

    def write(self, batch: RowBatch) -> None:
        """Write rows: features first, their marks last, each on the disk before the next.

        Raises:
            StoreError: the store was opened for reading, or a chunk to be completed is damaged.
            RunError: the disk is full or refuses the write; the rows stay as they were marked.
        """
        self._require_writable()
        if not len(batch):
            return
        error = np.array(list(batch.error), dtype=object)
        with _writing(self.path), self._reading("what is there"):
            for rows, part in batch.runs():
                for level, values in batch.features.items():
                    self._features(level)[rows] = self._rounded(values[part])
                self._array("valid")[rows] = batch.valid[part]
                self._array("sha256")[rows] = batch.sha256[part]
                self._array("error")[rows] = error[part]
            for rows, part in batch.runs():
                self._array("status")[rows] = batch.status[part]

    def mark_pending(self, rows: Int[np.ndarray, " image"]) -> None:
        """Have rows encoded again by the next extract.

        Raises:
            StoreError: the store was opened for reading.
            RunError: the disk is full or refuses the write.
        """
        self._require_writable()
        status = self.status
        status[rows] = PENDING
        with _writing(self.path):
            self._array("status")[:] = status

    # -- a table that changes -------------------------------------------------------------------

    def compare_table(self, table: RowTable) -> TableChange:
        """Say how a table differs from the store's own."""
        own = self.ids[: self._kept_rows]
        here, there = set(table.ids), set(own)
        shared = [i for i, (a, b) in enumerate(zip(own, table.ids, strict=False)) if a == b]
        place = {name: row for row, name in enumerate(own)}
        columns = {
            "splits": ([*self.splits], list(table.splits)),
            "groups": ([*self.groups], list(table.groups)),
        }
        changed = [k for k, (a, b) in columns.items() if any(a[i] != b[i] for i in shared)]
        if self.tasks != dict(table.tasks):
            changed.append("tasks")
        elif not np.array_equal(self.labels[shared], table.labels[shared]):
            changed.append("labels")
        return TableChange(
            added=tuple(name for name in table.ids if name not in there),
            removed=tuple(name for name in own if name not in here),
            moved=tuple(n for row, n in enumerate(table.ids) if place.get(n, row) != row),
            columns=tuple(changed),
        )

    def update_table(self, table: RowTable) -> TableChange:
        """Take over changed labels, splits, groups and tasks, and append new rows as pending.

        Features are not touched. While it runs the store carries a mark, and a store that still
        carries it refuses to be read until the update is done again.

        Args:
            table: its first ids are the store's own, in the store's order.

        Returns:
            What differed.

        Raises:
            StoreError: ids are gone or stand in other rows, or the store was opened for reading.
            RunError: the disk is full or refuses the write.
        """
        self._require_mode()
        change = self.compare_table(table)
        if not change.fits:
            raise StoreError(
                f"the store {self.path} cannot follow its new manifest: {change}. Rows can be added at "
                "the end, and labels, splits and groups can change; for anything else put the old "
                "rows back or name another store"
            )
        if not change.added and not change.columns and _UPDATING not in self._attributes:
            return change
        with _writing(self.path):
            self._group.attrs[_UPDATING] = {"images": self._kept_rows}
            self._rewrite_table(table)
            attributes = {**self._attributes, "tasks": _tasks(table)}
            attributes.pop(_UPDATING, None)
            save_copy(Keys(self._group.store), _array_paths(self.fingerprint), attributes)
            self._group.attrs.put(attributes)
        self._attributes = attributes
        self.__dict__.pop("tasks", None)
        return change

    def _rewrite_table(self, table: RowTable) -> None:
        images, kept = len(table.ids), self._kept_rows
        for name in _array_paths(self.fingerprint):
            array = self._array(name)
            tail = (len(table.tasks),) if name == "label" else array.shape[1:]
            array.resize((images, *tail))
        for name, values in zip(COLUMNS, (table.ids, table.splits, table.groups), strict=False):
            self._array(name)[:] = np.array(list(values), dtype=object)
        self._array("label")[:] = table.labels
        if images > kept:
            for name in RESULTS:
                array = self._array(name)
                array[kept:] = np.full(
                    (images - kept, *array.shape[1:]), array.fill_value, array.dtype
                )

    @property
    def _kept_rows(self) -> int:
        """Rows that hold results: fewer than the arrays' own where appending was cut off."""
        return int(self._attributes.get(_UPDATING, {}).get("images", len(self)))

    # -- lazily ---------------------------------------------------------------------------------

    def to_dask(self, level: str) -> "dask.array.Array":
        """Return a level as a lazy Dask array of shape (image, view, channel, row, col).

        One Dask chunk is one shard.

        Raises:
            StoreError: the level is not in the store.
        """
        import dask.array

        array = self._features(level)
        lazy: dask.array.Array = dask.array.from_array(  # type: ignore[no-untyped-call]
            array, chunks=array.shards or array.chunks
        )
        return lazy

    def to_xarray(self) -> "xarray.Dataset":
        """Return every level lazily, with id, split and status as coordinates of `image`.

        A level's dimensions are (image, view, channel_<level>, row_<level>, col_<level>): levels
        differ in size. `view` has the views' names as its coordinate.

        Raises:
            StoreError: xarray is not installed.
        """
        try:
            import xarray
        except ImportError as error:
            raise StoreError("xarray is not installed; pip install xarray") from error
        arrays = {name: self._features(name) for name in self.levels}
        return xarray.Dataset(
            {
                name: (array.metadata.dimension_names, self.to_dask(name))  # type: ignore[union-attr]
                for name, array in arrays.items()
            },
            coords={
                "id": ("image", np.array(self.ids)),
                "split": ("image", np.array(self.splits)),
                "status": ("image", self.status),
                "view": ("view", list(self.fingerprint.views)),
            },
            attrs={"fingerprint": self.fingerprint.to_dict()},
        )

    # -- inside ---------------------------------------------------------------------------------

    def _array(self, name: str) -> zarr.Array[Any]:
        if name not in self._arrays:
            with _configured(self.path, self.mode):
                self._arrays[name] = self._get(name)
        return self._arrays[name]

    def _get(self, name: str) -> zarr.Array[Any]:
        try:
            array = self._group[name]
        except KeyError as error:
            raise StoreError(f"{self.path} lacks the array {name}; it is damaged") from error
        if not isinstance(array, zarr.Array):
            raise StoreError(f"{self.path}: {name} is a group where an array was expected")
        return array

    def _features(self, level: str) -> zarr.Array[Any]:
        if level not in self.fingerprint.levels:
            raise StoreError(
                f"{self.path} has no level {level!r}; it holds {', '.join(self.fingerprint.levels)}"
            )
        return self._array(f"features/{array_name(level)}")

    def _shape(self, level: str) -> LevelShape:
        self._features(level)
        return self.levels[level]

    def _whole(self, name: str) -> np.ndarray:
        with self._reading(name):
            return np.asarray(self._array(name)[:])

    def _rounded(self, values: np.ndarray) -> np.ndarray:
        """Round to the bits that the fingerprint keeps, so that any reader sees plain numbers."""
        bits = self.fingerprint.keep_bits
        if bits is None:
            return values
        flat = np.ascontiguousarray(values, dtype=self.fingerprint.storage)
        return np.asarray(BitRound(bits).encode(flat)).view(flat.dtype).reshape(flat.shape)

    def _require_mode(self) -> None:
        if self.mode != "r+":
            raise StoreError(f"{self.path} was opened for reading; open it with mode='r+' to write")

    def _require_writable(self) -> None:
        self._require_mode()
        if _UPDATING in self._attributes:
            raise StoreError(
                f"rewriting the labels and splits of {self.path} was cut off; call update_table first"
            )

    @contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        """Turn what Zarr raises on a damaged chunk into words."""
        try:
            yield
        except (SamclsError, MemoryError):
            raise
        except (ValueError, RuntimeError, TypeError, IndexError) as error:
            raise StoreError(
                f"{self.path}: {what} cannot be read: {error}\nThe store is damaged; "
                f"samcls store verify {self.path} names the images, samcls store repair encodes them "
                "again"
            ) from error

    def _strings(self, name: str) -> list[str]:
        return [str(value) for value in self._whole(name)]


@contextmanager
def _writing(path: str) -> Iterator[None]:
    """Turn a full disk, or another refusal of the system, into words."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{path} could not be written: {error.strerror or error}. What was finished before is "
            "kept; make room, or mend what is wrong, and run the same command again"
        ) from error


def _open_group(path: str, mode: Literal["r", "r+"]) -> zarr.Group:
    root = local_path(path)
    if root is not None and not root.exists():
        raise FileNotFoundError(path)
    keys = Keys.of(path, read_only=mode == "r")
    return zarr.open_group(keys.store, mode=mode, zarr_format=3)


def _array_paths(fingerprint: Fingerprint) -> list[str]:
    levels = [f"features/{array_name(level)}" for level in fingerprint.levels]
    return [*levels, *COLUMNS, *RESULTS]


def _tasks(table: RowTable) -> list[dict[str, Any]]:
    return [{"name": name, "classes": list(classes)} for name, classes in table.tasks.items()]


def _level_shape(array: zarr.Array[Any]) -> LevelShape:
    channels, rows, cols = array.shape[2:]
    return LevelShape(channels, rows, cols, int(str(array.attrs["patch_size"])))


def _read_rows(
    array: zarr.Array[Any], rows: Int[np.ndarray, " image"], shard_rows: int
) -> np.ndarray:
    """Gather rows in any order, reading each shard's span of them once."""
    out = np.empty((len(rows), *array.shape[1:]), dtype=array.dtype)
    shard = rows // shard_rows
    for number in np.unique(shard):
        where = np.flatnonzero(shard == number)
        first, last = rows[where].min(), rows[where].max()
        out[where] = np.asarray(array[int(first) : int(last) + 1])[rows[where] - first]
    return out


def _refuse_other_contents(path: str) -> None:
    """Let nothing be overwritten but a creation of our own that was cut off."""
    root = local_path(path)
    if root is not None and root.exists() and not (root / "zarr.json").exists():
        if not root.is_dir() or any(root.iterdir()):
            raise OverwriteRefused(
                f"{path} exists and is not a feature store; nothing was written. Name another path"
            )
        return
    try:
        attributes = _open_group(path, "r").attrs
    except (FileNotFoundError, zarr.errors.GroupNotFoundError):
        return
    if "format_version" in attributes:
        raise OverwriteRefused(f"a feature store is already at {path}; open it, or name another")
    if attributes.get("created_by") != _MARK:
        raise OverwriteRefused(
            f"{path} is a Zarr group of another kind; nothing was written. Name another path"
        )
