"""One shard of a level beneath Zarr's arrays: is it there, which chunks does it hold, are they whole.

Zarr serves zeros for a shard or a chunk that is absent. The index at a shard's end tells absence from
zeros: an offset and a length for each chunk, and a CRC-32C of its own.
"""

from dataclasses import dataclass

import numpy as np
from google_crc32c import value as crc32c
from jaxtyping import Bool, Int

from samcls.store.keys import Keys
from samcls.store.schema import Partition, array_name

__all__ = ["ShardIndex", "read_index", "shard_key"]

_ABSENT = np.uint64(2**64 - 1)


@dataclass(frozen=True)
class ShardIndex:
    """What a shard says of its chunks.

    Attributes:
        present: the shard's key is there.
        readable: the index is whole; if not, no chunk of the shard can be found.
        held: for each chunk, whether the shard holds it.
    """

    present: bool
    readable: bool
    held: Bool[np.ndarray, " chunk"]


def shard_key(level: str, shard: int) -> str:
    """Return the key of a level's shard: rows are split, the other axes are whole."""
    return f"features/{array_name(level)}/c/{shard}/0/0/0/0"


def read_index(keys: Keys, level: str, shard: int, partition: Partition) -> ShardIndex:
    """Read a shard's index alone."""
    chunks = partition.shard_rows // partition.chunk_rows
    nothing = np.zeros(chunks, dtype=bool)
    length = 16 * chunks + 4
    tail = keys.read(shard_key(level, shard), last=length)
    if tail is None:
        return ShardIndex(False, False, nothing)
    if len(tail) < length or crc32c(tail[:-4]) != int.from_bytes(tail[-4:], "little"):
        return ShardIndex(True, False, nothing)
    entries: Int[np.ndarray, "chunk 2"] = np.frombuffer(tail[:-4], dtype="<u8").reshape(-1, 2)
    return ShardIndex(True, True, entries[:, 0] != _ABSENT)
