"""Which store and place a shard belongs to, said in the shard itself.

A shard ends in an index that says where its chunks lie, so any reader of Zarr passes over bytes between
the last chunk and the index. There stand 52 bytes: the store's random identifier, the shard's key and
number, and their checksum. They travel with the file: one that was copied from another store, or to
another place, is told from the right one, and what was never written is told from zeros.

    store = CheckedStore(keys.store, Guard("5f2a...", index_bytes=20, required=True))
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import zarr.storage
from google_crc32c import value as crc32c
from zarr.abc.store import ByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype

from samcls.store.keys import SyncedStore

__all__ = [
    "BINDING_BYTES",
    "Binding",
    "CheckedStore",
    "ChunkLost",
    "Guard",
    "Misplaced",
    "index_bytes_of",
]

MARK = b"samcls\x00\x01"
BINDING_BYTES = len(MARK) + 16 + 16 + 8 + 4
DATA = "/c/"  # stands in the key of every chunk and shard, and of nothing else
ABSENT = b"\xff" * 16  # entry of an index for a chunk that is not there


class Misplaced(ValueError):
    """A shard belongs to another place or another store."""


class ChunkLost(ValueError):
    """A chunk that was written is not there any more."""


@dataclass(frozen=True)
class Binding:
    """The place of one shard.

    Attributes:
        store: Identifier of the store, 32 hexadecimal digits.
        key: Of the shard within it.
    """

    store: str
    key: str

    def to_bytes(self) -> bytes:
        """Return what the shard says of itself."""
        number = self.key.partition(DATA)[2].partition("/")[0]
        said = (
            MARK + bytes.fromhex(self.store) + _name(self.key) + int(number).to_bytes(8, "little")
        )
        return said + int(crc32c(said)).to_bytes(4, "little")

    def check(self, found: bytes) -> None:
        """Compare what a shard says of itself with the place where it lies.

        Raises:
            Misplaced: it belongs elsewhere, or does not say where.
            ValueError: what it says is damaged.
        """
        own = self.to_bytes()
        if found == own:
            return
        if found[:8] != MARK and found[8:24] != own[8:24]:
            raise Misplaced(
                "a shard does not say which store it belongs to: it was written by another program "
                "or an older samcls"
            )
        if crc32c(found[:-4]) != int.from_bytes(found[-4:], "little"):
            raise ValueError("what a shard says of its place is damaged")
        if found[8:24] != own[8:24]:
            raise Misplaced("a shard belongs to another store")
        number = int.from_bytes(found[40:48], "little")
        if found[24:40] == _name(_moved(self.key, number)):
            raise Misplaced(f"a shard belongs elsewhere in its array: it is number {number}")
        raise Misplaced("a shard belongs to another array of the store")


def _name(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()[:16]


def _moved(key: str, number: int) -> str:
    array, _, place = key.partition(DATA)
    _, slash, rest = place.partition("/")
    return f"{array}{DATA}{number}{slash}{rest}"


def index_bytes_of(metadata: Mapping[str, Any]) -> int:
    """Return the length of the index at the end of an array's shards; 0 where it has no shards."""
    codec = metadata["codecs"][0]
    if codec["name"] != "sharding_indexed":
        return 0
    outer = metadata["chunk_grid"]["configuration"]["chunk_shape"]
    inner = codec["configuration"]["chunk_shape"]
    chunks: int = prod(int(a) // int(b) for a, b in zip(outer, inner, strict=True))
    return 16 * chunks + 4


@dataclass(frozen=True)
class Guard:
    """What is checked of an array's shards or chunks.

    Attributes:
        store: The store's identifier; none where shards do not say where they belong.
        index_bytes: Length of the index of a shard; 0 where there are no shards.
        required: Every chunk was written when the array was made, so that an absent one is lost.
        replacing: What is there is replaced as a whole, whatever its state, and never read.
    """

    store: str | None
    index_bytes: int
    required: bool
    replacing: bool = False

    @property
    def tail_bytes(self) -> int:
        """Length of what stands behind the chunks of a shard."""
        bound = self.store is not None and self.index_bytes > 0
        return self.index_bytes + (BINDING_BYTES if bound else 0)

    def check(self, key: str, tail: bytes) -> None:
        """Check the end of a shard.

        Raises:
            Misplaced: it belongs elsewhere.
            ChunkLost: it must hold every chunk, and says that it does not.
            ValueError: it is cut off or damaged.
        """
        index = tail[len(tail) - self.index_bytes :]
        checksum = int.from_bytes(index[-4:], "little")
        if len(tail) < self.index_bytes or crc32c(index[:-4]) != checksum:
            raise ValueError("the index of a shard is truncated or its checksum is wrong")
        if self.store is not None:
            Binding(self.store, key).check(tail[: len(tail) - self.index_bytes][-BINDING_BYTES:])
        if self.required and ABSENT in (index[at : at + 16] for at in range(0, len(index) - 4, 16)):
            raise ChunkLost("a chunk is absent")


class CheckedStore(zarr.storage.WrapperStore[Store]):
    """A Zarr store that says, and checks, where the shards of one array belong.

    Args:
        store: What keeps the bytes.
        guard: Of the array.
    """

    def __init__(self, store: Store, guard: Guard) -> None:
        super().__init__(store)
        self._guard = guard

    def _with_store(self, store: Store) -> "CheckedStore":
        return type(self)(store, self._guard)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Read a key, or a part of it; a shard's end is checked wherever it is read."""
        guard = self._guard
        if DATA not in key:
            return await self._store.get(key, prototype, byte_range)
        if guard.replacing:
            return None
        wanted = byte_range.suffix if isinstance(byte_range, SuffixByteRequest) else 0
        if wanted:
            byte_range = SuffixByteRequest(max(wanted, guard.tail_bytes))
        value = await self._store.get(key, prototype, byte_range)
        if value is None:
            if guard.required:
                raise ChunkLost("a chunk is absent")
            return None
        if guard.index_bytes and (wanted or byte_range is None):
            guard.check(key, value[max(0, len(value) - guard.tail_bytes) :].to_bytes())
        return value[len(value) - wanted :] if wanted else value

    async def set(self, key: str, value: Buffer) -> None:
        """Write a key; a shard with the place where it belongs."""
        guard = self._guard
        if DATA in key and guard.store is not None and guard.index_bytes:
            end = len(value) - guard.index_bytes
            said = Binding(guard.store, key).to_bytes()
            content = value.as_numpy_array().data
            parts: list[bytes | memoryview] = [content[:end], said, content[end:]]
            if isinstance(self._store, SyncedStore):
                await self._store.set_parts(key, parts)
                return
            value = type(value).from_bytes(b"".join(parts))
        await self._store.set(key, value)
