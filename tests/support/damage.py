"""Damage done to the files of `stores.make_parted`: shards of 4 chunks of 2 rows."""

from pathlib import Path

import numpy as np
from google_crc32c import value as crc32c

__all__ = ["SHARD", "flip", "forget_chunk", "index"]

TAIL = 16 * 4 + 4  # bytes of the index of a shard of 4 chunks
SHARD = Path("features/neck/c/0/0/0/0/0")


def index(path: Path) -> np.ndarray:
    """Offset and length of each chunk, from the end of a shard."""
    return np.frombuffer(path.read_bytes()[-TAIL:-4], "<u8").reshape(-1, 2)


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def forget_chunk(path: Path, chunk: int) -> None:
    """Mark a chunk as absent in a shard's index, checksum and all."""
    entries = index(path).copy()
    entries[chunk] = 2**64 - 1
    raw = entries.tobytes()
    body = path.read_bytes()[:-TAIL]
    path.write_bytes(body + raw + crc32c(raw).to_bytes(4, "little"))
