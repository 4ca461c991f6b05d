"""What a feature store holds for each image, read: pooled maps and pixels, lazily or in memory.

Local features are read beneath Zarr, chunk by chunk and each through its checksum; everything else
goes through Zarr. `FeatureStore.open` makes the object; this file and `columns.py` hold its reading
half.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped, UInt8
from zarr.codecs import BloscCodec

from samcls.errors import StoreError
from samcls.files import few
from samcls.store.columns import ColumnReader
from samcls.store.keys import AnyArray
from samcls.store.layout import array_paths
from samcls.store.schema import (
    CHECKPOINT,
    DONE,
    PIXELS,
    LevelShape,
    Partition,
    array_path,
    cells_under,
)
from samcls.store.shards import CAN_READ_PARTS, LocalShard, ShardIndex, read_index, shard_key

__all__ = ["Rows", "StoreReader"]

Rows = slice | np.ndarray | Sequence[int] | None

SHOWN = 3  # rows that an error names
UNTRAINED = "vit_t"  # of stores made before drawn weights were marked


class StoreReader(ColumnReader):
    """The reading half of a feature store."""

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
    def array_paths(self) -> list[str]:
        """Path of every array within the store's group."""
        return array_paths(self.fingerprint, self.pixel_size, bool(self.meta_names))

    @property
    def pixel_size(self) -> int:
        """Side of the images that are kept beside the features; 0 where none are."""
        return int(self._attributes.get(PIXELS, 0))

    @property
    def checkpoint(self) -> dict[str, str | None]:
        """What is known of the file that the weights came from; empty where there was none."""
        return dict(self._attributes.get(CHECKPOINT, {}))

    @property
    def provenance(self) -> str:
        """A sentence for every table of figures where the weights are no official ones; or nothing."""
        known, encoder = self.checkpoint, self.fingerprint.encoder
        if "untrained" in known or encoder == UNTRAINED:
            return (
                f"the encoder {encoder} is UNTRAINED: its weights are random, so these figures say "
                "nothing of what a trained one can do"
            )
        if not known or known["official"]:
            return ""
        return (
            f"the features come from {known['file']}, not an official checkpoint: sha256 "
            f"{self.fingerprint.checkpoint_sha256}"
        )

    @property
    def payloads(self) -> tuple[str, ...]:
        """What is written in shards: every level, and `pixels` where images are kept."""
        return (*self.fingerprint.levels, *([PIXELS] if self.pixel_size else []))

    def read(
        self, level: str, rows: Rows = None
    ) -> Float[np.ndarray, "image view channel row col"]:
        """Read pooled maps.

        Args:
            level: One of `levels`.
            rows: A slice, row numbers in any order, or None for all.

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
            rows: A slice, row numbers in any order, or None for all.

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
            level: One of `payloads`.
            rows: As for `read`.

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
                key, compressed = shard_key(level, int(number)), _is_compressed(array)
                with LocalShard(root, key, self.partition, compressed, self._store_id) as opened:
                    absent.append(opened.read(numbers[places] - number * shard_rows, places, out))
        return out, np.sort(np.concatenate([*absent, np.empty(0, dtype=np.int64)]))

    def refuse_lost(self, level: str, rows: Int[np.ndarray, " image"]) -> None:
        """Refuse to take for zeros what is not there.

        Raises:
            StoreError: naming the level and the first few of the rows, if there are any.
        """
        if not len(rows):
            return
        ids = self.ids
        named = few((f"row {row} ({ids[row]})" for row in rows.tolist()), SHOWN)
        raise StoreError(
            f"{self.path}: {_described(level)} of {len(rows)} images that are marked "
            f"done: {named}. A chunk or a shard is gone; samcls store verify {self.path} names "
            f"every image, samcls store repair {self.path} has samcls extract encode them again"
        )

    def counts(
        self, level: str, rows: Rows = None, view: int = 0
    ) -> Float[np.ndarray, "image row col"]:
        """Return how many map cells that show picture lie under each pooled cell.

        Args:
            level: One of `levels`.
            rows: A slice, row numbers in any order, or None for all.
            view: Position on the view axis; a view that swaps the sides swaps the extent too.

        Raises:
            StoreError: the level is not in the store.
        """
        extent = self.valid[slice(None) if rows is None else rows]
        made = self.fingerprint
        return cells_under(extent, self._shape(level), made.window, made.views[view])

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
        return sum(self._array(name).nbytes_stored() for name in self.array_paths)

    def _features(self, level: str) -> AnyArray:
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

    def shard_index(self, level: str, shard: int) -> ShardIndex:
        """Read what a shard says of its chunks, and whether it belongs where it lies."""
        return read_index(self._keys, level, shard, self.partition, self._store_id)

    def _held(self, level: str, rows: Int[np.ndarray, " image"]) -> Bool[np.ndarray, " image"]:
        """Say of each row whether its chunk is there, by the indices of the shards."""
        partition = self.partition
        held = np.zeros(len(rows), dtype=bool)
        shard = rows // partition.shard_rows
        for number in np.unique(shard):
            index = self.shard_index(level, int(number))
            here = shard == number
            chunk = rows[here] % partition.shard_rows // partition.chunk_rows
            held[here] = index.held[chunk]
        return held


def _described(level: str) -> str:
    """Return what a payload lacks, in words that go before `of N images`."""
    return "pixels lacks those" if level == PIXELS else f"level {level} lacks the features"


def _level_shape(array: AnyArray) -> LevelShape:
    channels, rows, cols = array.shape[2:]
    return LevelShape(channels, rows, cols, int(str(array.attrs["patch_size"])))


def _is_compressed(array: AnyArray) -> bool:
    return any(isinstance(codec, BloscCodec) for codec in array.compressors)


def _span(array: AnyArray, rows: Int[np.ndarray, " image"]) -> np.ndarray:
    """Gather rows of one shard in any order, reading the span that holds them once."""
    first, last = int(rows.min()), int(rows.max())
    values: np.ndarray = np.asarray(array[first : last + 1])[rows - first]
    return values


def _zero(values: np.ndarray) -> Bool[np.ndarray, " image"]:
    """Say which rows hold nothing but positive zeros, as an absent chunk does."""
    bits = values.reshape(len(values), -1).view(f"u{values.dtype.itemsize}")
    return ~np.asarray(bits.any(axis=1))
