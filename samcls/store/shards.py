"""One shard of a level beneath Zarr's arrays: is it there, which chunks does it hold, are they whole.

zarrs checks a chunk's CRC-32C only where a whole shard is decoded, and Zarr serves zeros for what is
absent. So parts of a local shard are read here: the index at its end tells absence from zeros, and
every chunk is checked before it is decoded. Only chunks that hold a wanted row are read.

    with LocalShard(root, key, Partition(16, 2048), compressed=True, store="5f2a...") as shard:
        shard.read(rows, places, out)
"""

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from google_crc32c import value as crc32c
from jaxtyping import Bool, Int, UInt8, UInt64
from numcodecs import blosc

from samcls.store.binding import Guard, Misplaced
from samcls.store.keys import Keys
from samcls.store.schema import PIXELS, Partition, array_path

__all__ = ["CAN_READ_PARTS", "LocalShard", "ShardIndex", "read_index", "shard_key"]

ABSENT = 2**64 - 1
CAN_READ_PARTS = hasattr(os, "preadv")  # not on Windows, where Zarr reads instead
_memory = threading.local()
THREADS = 8  # chunks decoded at once, at most; decoding and reading release the interpreter
FEW = 4  # chunks that are not worth a pool of threads


@dataclass(frozen=True)
class ShardIndex:
    """What a shard says of its chunks.

    Attributes:
        present: The shard is there.
        readable: The index is whole; if not, no chunk of the shard can be found.
        entries: Offset and length of each chunk, both 2**64 - 1 for one that is absent.
        misplaced: Why the shard belongs elsewhere, if it does; it is not readable then.
    """

    present: bool
    readable: bool
    entries: UInt64[np.ndarray, "chunk 2"]
    misplaced: str = ""

    @property
    def held(self) -> Bool[np.ndarray, " chunk"]:
        """Whether the shard holds each chunk."""
        return np.asarray(self.entries[:, 0] != ABSENT)


def shard_key(name: str, shard: int) -> str:
    """Return the key of a shard of a level, or of the images: rows are split, other axes are whole."""
    whole = "0/0/0" if name == PIXELS else "0/0/0/0"
    return f"{array_path(name)}/c/{shard}/{whole}"


def read_index(
    keys: Keys, level: str, shard: int, partition: Partition, store: str | None
) -> ShardIndex:
    """Read a shard's index alone; `store` is the identifier that its shards name, if they do."""
    key, guard = shard_key(level, shard), _guard(partition, store)
    return _index(keys.read(key, last=guard.tail_bytes), key, guard)


def _guard(partition: Partition, store: str | None) -> Guard:
    chunks = partition.shard_rows // partition.chunk_rows
    return Guard(store, 16 * chunks + 4, required=False)


def _index(tail: bytes | None, key: str, guard: Guard) -> ShardIndex:
    nothing = np.full((guard.index_bytes // 16, 2), ABSENT, dtype="<u8")
    if tail is None:
        return ShardIndex(False, False, nothing)
    try:
        guard.check(key, tail)
    except Misplaced as error:
        return ShardIndex(True, False, nothing, str(error))
    except ValueError:
        return ShardIndex(True, False, nothing)
    index = tail[len(tail) - guard.index_bytes : -4]
    return ShardIndex(True, True, np.frombuffer(index, dtype="<u8").reshape(-1, 2))


class LocalShard:
    """A shard file, open for reading.

    Args:
        root: Folder of the store.
        key: Of the shard, which may be absent: its chunks are then all absent.
        partition: Of the store.
        compressed: Chunks were compressed with Blosc, which says in each how.
        store: Identifier that the store's shards name, if they do.

    Raises:
        ValueError: the index is damaged, or the shard belongs elsewhere.
    """

    def __init__(
        self, root: Path, key: str, partition: Partition, compressed: bool, store: str | None
    ) -> None:
        self._partition = partition
        self._guard = _guard(partition, store)
        self._compressed = compressed
        try:
            self._file: int | None = os.open(root / key, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except FileNotFoundError:
            self._file = None
        self.index = _index(self._tail(), key, self._guard)
        if self.index.present and not self.index.readable:
            self.close()
            damage = "the index of a shard is truncated or its checksum is wrong"
            raise ValueError(self.index.misplaced or damage)

    def read(
        self, rows: Int[np.ndarray, " image"], places: Int[np.ndarray, " image"], out: np.ndarray
    ) -> Int[np.ndarray, " absent"]:
        """Read rows, counted from the shard's first, in any order.

        Args:
            rows: Which ones.
            places: Where each goes in `out`.
            out: Of shape (image, ...) as stored; zeros where a chunk is absent.

        Returns:
            The places whose chunk is absent.

        Raises:
            ValueError: the checksum of a chunk is wrong, or it is cut off.
        """
        chunk = rows // self._partition.chunk_rows
        parts = [np.flatnonzero(chunk == number) for number in np.unique(chunk)]

        def one(where: np.ndarray) -> None:
            self._read_chunk(int(chunk[where[0]]), rows[where], places[where], out)

        _each(one, parts)
        return np.asarray(places[self.index.entries[chunk, 0] == ABSENT])

    def _read_chunk(
        self,
        number: int,
        rows: Int[np.ndarray, " image"],
        places: Int[np.ndarray, " image"],
        out: np.ndarray,
    ) -> None:
        height = self._partition.chunk_rows
        entry = self.index.entries[number]
        if entry[0] == ABSENT or self._file is None:
            out[places] = 0
        elif len(rows) == height and _consecutive(rows) and _consecutive(places):
            self._decode(number, _flat(out[places[0] : places[0] + height]))
        else:
            values = _scratch("values", height * out[0].nbytes)
            self._decode(number, values)
            shaped = values.view(out.dtype).reshape(height, *out.shape[1:])
            out[places] = shaped[rows - number * height]

    def _decode(self, number: int, out: UInt8[np.ndarray, " byte"]) -> None:
        """Read a chunk that is there, check it, and fill its values."""
        if not self._compressed:
            self._read_checked(number, out)
            return
        content = _scratch("content", max(0, int(self.index.entries[number, 1]) - 4))
        self._read_checked(number, content)
        blosc.decompress(content, out)

    def _read_checked(self, number: int, content: UInt8[np.ndarray, " byte"]) -> None:
        offset, length = (int(value) for value in self.index.entries[number])
        checksum = bytearray(4)
        got = os.preadv(self._file or 0, [content.data, checksum], offset)
        fixed = content.view()
        fixed.flags.writeable = False
        if (
            got != length
            or length != len(content) + 4
            or crc32c(fixed) != int.from_bytes(checksum, "little")
        ):
            raise ValueError(f"the checksum of chunk {number} of a shard is wrong")

    def _tail(self) -> bytes | None:
        if self._file is None:
            return None
        size = os.fstat(self._file).st_size
        start = max(0, size - self._guard.tail_bytes)
        return _read_at(self._file, start, size - start)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __enter__(self) -> "LocalShard":
        """Return the shard."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        self.close()


def _each(work: Callable[[np.ndarray], None], parts: Iterable[np.ndarray]) -> None:
    parts = list(parts)
    cores = min(THREADS, os.cpu_count() or 1)
    if len(parts) <= FEW or cores == 1:
        for part in parts:
            work(part)
        return
    with ThreadPoolExecutor(cores, thread_name_prefix="read") as pool:
        list(pool.map(work, parts))


def _read_at(file: int, offset: int, length: int) -> bytes:
    return os.pread(file, length, offset)


def _consecutive(numbers: Int[np.ndarray, " image"]) -> bool:
    return bool((np.diff(numbers) == 1).all())


def _flat(values: np.ndarray) -> UInt8[np.ndarray, " byte"]:
    return values.reshape(-1).view(np.uint8)


def _scratch(name: str, length: int) -> UInt8[np.ndarray, " byte"]:
    """Return memory of this thread's own: a fresh page for every chunk costs more than reading it."""
    held: np.ndarray | None = getattr(_memory, name, None)
    if held is None or len(held) < length:
        held = np.empty(length, dtype=np.uint8)
        setattr(_memory, name, held)
    return held[:length]
