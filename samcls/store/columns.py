"""What a feature store says of its images, one value an image: ids, splits, labels, status.

Columns are small and read whole, through Zarr, when they are first asked for; an open store keeps them, so
they are what they were then but for what it writes itself. They are written in full when a store is made,
so a chunk that is absent is lost, and never a column's fill value. Damage becomes a StoreError that names
the verb to run; `read_column` reads what can still be read of a damaged one.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal, TypeVar

import numpy as np
import zarr
from jaxtyping import Int, Shaped, UInt8, UInt16

from samcls.errors import SamclsError, StoreError
from samcls.store.binding import CheckedStore, ChunkLost, Guard, Misplaced, index_bytes_of
from samcls.store.keys import AnyArray, Keys, local_path
from samcls.store.layout import META, RESULTS, columns_of
from samcls.store.metadata import ROOT, STORE_ID, UPDATING, array_problem, parsed, read_root
from samcls.store.opening import damage
from samcls.store.rows import RowTable
from samcls.store.schema import DONE, FAILED, PENDING, REMOVED, Fingerprint
from samcls.store.tables import NO_SPLIT

__all__ = ["ColumnReader", "Lost", "configured", "if_present", "open_array"]

_T = TypeVar("_T")
PIPELINE = "zarr.core.codec_pipeline.BatchedCodecPipeline"
CONFIG_LOCK = threading.Lock()  # Zarr's configuration is one for the whole process
UNREADABLE = (ValueError, RuntimeError, TypeError, IndexError, OverflowError)  # seen of damage


@contextmanager
def configured() -> Iterator[None]:
    """Let arrays be opened so that files are replaced atomically, and chunks of zeros are kept.

    Whatever pipeline the process has chosen, zarr-python's own is the one that checks every chunk. A
    chunk that is kept even where it holds zeros is known to be lost when it is absent.
    """
    settings = {"codec_pipeline.path": PIPELINE, "array.write_empty_chunks": True}
    with CONFIG_LOCK, zarr.config.set(settings):
        yield


def open_array(keys: Keys, name: str, store_id: str | None, *, replacing: bool = False) -> AnyArray:
    """Open an array of a store, so that its shards are checked, and written, with their place.

    Args:
        keys: Of the store.
        name: Path of the array.
        store_id: The store's identifier; none for a store of the first version.
        replacing: For writing the whole array, whatever state it is in.
    """
    metadata = parsed(keys, f"{name}/{ROOT}") or {}
    required = name in {*columns_of(True), *RESULTS}
    guard = Guard(store_id, index_bytes_of(metadata), required, replacing)
    with configured():
        store = CheckedStore(keys.store, guard)
        return zarr.open_array(
            store, path=name, zarr_format=3, mode="r" if store.read_only else "r+"
        )


@dataclass(frozen=True)
class Lost:
    """A piece of a column that cannot be read.

    Attributes:
        rows: That it held.
        how: `missing`, `damaged` or `misplaced`.
        why: For a person.
    """

    rows: slice
    how: str
    why: str


class ColumnReader:
    """A store's description and its per-image columns."""

    def __init__(self, path: str, keys: Keys, mode: Literal["r", "r+"]) -> None:
        self.path = path
        self.mode = mode
        self._keys = keys
        self._arrays: dict[str, AnyArray] = {}
        self._known: dict[str, Any] = {}  # columns, once they were read
        self._reading_columns = threading.RLock()
        self._metadata = read_root(keys)
        self._root = local_path(path)

    @property
    def _attributes(self) -> dict[str, Any]:
        return self._metadata.attributes

    @property
    def _store_id(self) -> str | None:
        """What every shard names; none in a store of the first version."""
        return self._attributes.get(STORE_ID)

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
    def table(self) -> RowTable:
        """What the manifest said of the images, removed ones emptied; it cannot be changed."""
        return self._once("table", self._read_table)

    def _read_table(self) -> RowTable:
        return RowTable(
            ids=self._texts("id"),
            splits=self._texts("split"),
            groups=self._texts("group"),
            tasks=MappingProxyType(self.tasks),
            labels=self.labels,
            meta=MappingProxyType(self._beside()),
            ordinal=self.ordinal,
        )

    @property
    def meta(self) -> dict[str, list[str]]:
        """Each of these columns, a text for each image."""
        return {name: list(column) for name, column in self._beside().items()}

    def _beside(self) -> dict[str, tuple[str, ...]]:
        if not self.meta_names:
            return {}
        columns = self._whole(META).T.tolist()
        return {
            name: tuple(str(value) for value in column)
            for name, column in zip(self.meta_names, columns, strict=True)
        }

    def __len__(self) -> int:
        """Return the number of images, whatever their status."""
        return int(self._array("status").shape[0])

    @property
    def ids(self) -> list[str]:
        """Identifier of each image, in the manifest's order."""
        return list(self._texts("id"))

    @property
    def splits(self) -> list[str]:
        """`train`, `val` or `test` for each image; empty for one that was removed."""
        return list(self._texts("split"))

    @property
    def groups(self) -> list[str]:
        """Patient or lesion of each image; empty where there is none."""
        return list(self._texts("group"))

    @property
    def errors(self) -> list[str]:
        """Reason of each failed row; empty elsewhere."""
        return list(self._texts("error"))

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

    def read_column(self, name: str) -> tuple[np.ndarray, list[Lost]]:
        """Read a per-image array as far as it can be read.

        Args:
            name: One of `layout.COLUMNS` or `layout.RESULTS`.

        Returns:
            The values, empty where they are lost; and what is lost.

        Raises:
            StoreError: the array itself is not in the store.
        """
        array = self._array(name)
        values = np.full(array.shape, array.fill_value, dtype=array.dtype)
        lost = []
        for rows in _pieces(array):
            try:
                values[rows] = array[rows]
            except ChunkLost as error:
                lost.append(Lost(rows, "missing", str(error)))
            except Misplaced as error:
                lost.append(Lost(rows, "misplaced", str(error)))
            except UNREADABLE as error:
                lost.append(Lost(rows, "damaged", str(error)))
        return values, lost

    def check_columns(self) -> None:
        """Read every per-image array, so that damage is known before work is done.

        Raises:
            StoreError: naming one that is damaged.
        """
        if self._metadata.updating:  # which rewrites them
            return
        for name in (*columns_of(bool(self.meta_names)), *RESULTS):
            self._whole(name)

    def readable_status(self) -> UInt8[np.ndarray, " image"]:
        """Return each row's status; where it is lost, what the row's digest and error tell of it."""
        status, lost = self.read_column("status")
        for rows in (piece.rows for piece in lost):
            encoded = self.read_column("sha256")[0][rows].any(axis=1)
            failed = self.read_column("error")[0][rows] != ""
            told = np.where(failed, FAILED, np.where(encoded, DONE, PENDING))
            removed = self.read_column("split")[0][rows] == NO_SPLIT
            status[rows] = np.where(removed, REMOVED, told)
        return status

    @property
    def _kept_rows(self) -> int:
        """Rows that hold results: fewer than the arrays' own where appending was cut off."""
        return int(self._attributes.get(UPDATING, {}).get("images", len(self)))

    def _array(self, name: str) -> AnyArray:
        if name not in self._arrays:
            self._arrays[name] = self._get(name)
        return self._arrays[name]

    def _get(self, name: str) -> AnyArray:
        problem = array_problem(self._metadata, name, parsed(self._keys, f"{name}/{ROOT}"))
        try:
            if problem is None:
                return open_array(self._keys, name, self._store_id)
        except (ValueError, TypeError, KeyError, FileNotFoundError) as error:
            problem = f"cannot be read: {error}"
        try:
            changed = read_root(self._keys) != self._metadata
        except ValueError:
            changed = False
        if changed:
            raise StoreError(
                f"{self.path} was changed by another process since it was opened; start again"
            )
        raise StoreError(damage(self.path, self._keys, f"{name}/{ROOT} {problem}"))

    def _whole(self, name: str) -> np.ndarray:
        """Return a per-image array as it was when it was first read; it cannot be written to."""

        def read() -> np.ndarray:
            with self._reading(name):
                values = np.asarray(self._array(name)[: self._kept_rows])
            values.flags.writeable = False
            return values

        return self._once(name, read)

    def _texts(self, name: str) -> tuple[str, ...]:
        return self._once(
            f"{name} as text", lambda: tuple(str(value) for value in self._whole(name))
        )

    def _once(self, name: str, read: Callable[[], _T]) -> _T:
        """Read something of the columns unless it was read before."""
        with self._reading_columns:
            if name not in self._known:
                self._known[name] = read()
            found: _T = self._known[name]
        return found

    def _forget(self) -> None:
        """Have columns read again; to be called after they were written."""
        with self._reading_columns:
            self._known.clear()

    @contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        """Turn what Zarr raises on a damaged chunk into words."""
        try:
            yield
        except (SamclsError, MemoryError):
            raise
        except (ValueError, RuntimeError) as error:
            raise StoreError(
                f"{self.path}: {what} cannot be read: {error}\nThe store is damaged; "
                f"samcls store verify {self.path} names the images, samcls store repair {self.path} "
                "--manifest M.csv restores what can be, and samcls extract encodes the rest again"
            ) from error


def if_present(
    status: UInt8[np.ndarray, " image"],
    errors: Shaped[np.ndarray, " image"],
    digests: UInt8[np.ndarray, "image 32"],
) -> UInt8[np.ndarray, " image"]:
    """Return each row's status, for a removed one the status that it would return with."""
    told = np.where(errors != "", FAILED, np.where(digests.any(axis=1), DONE, PENDING))
    present: np.ndarray = np.where(status == REMOVED, told, status).astype(np.uint8)
    return present


def _pieces(array: AnyArray) -> Iterator[slice]:
    """Yield the rows of each piece of a per-image array."""
    height = (array.shards or array.chunks)[0]
    for start in range(0, array.shape[0], height):
        yield slice(start, min(start + height, array.shape[0]))
