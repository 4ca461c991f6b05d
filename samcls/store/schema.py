"""The store's format, version 1: names, types, chunk shapes, and the fingerprint of what made it.

One Zarr v3 group for each data set and encoder. Feature maps are sharded: a shard of some 64 MiB
holds chunks of some 512 KiB, so a local store of 100 000 images is a few hundred files, and one image
still costs one small read. All levels share the number of rows in a shard, so that whoever encodes a
range of images writes whole shards of every level.
"""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, get_args

import numpy as np
from jaxtyping import Float, Integer
from numcodecs import BitRound

from samcls.config import Resize
from samcls.errors import StoreError

__all__ = [
    "CHECKPOINT",
    "DONE",
    "FAILED",
    "FORMAT_VERSION",
    "PENDING",
    "PIXELS",
    "REMOVED",
    "TRANSPOSED",
    "Fingerprint",
    "LevelShape",
    "Partition",
    "array_name",
    "array_path",
    "cells_under",
    "rounded",
]

FORMAT_VERSION = 1
PENDING, DONE, FAILED = 0, 1, 2  # values of the `status` array
REMOVED = 3  # not in the manifest any more; whatever was encoded is kept, and no stage uses it
CHECKPOINT = (
    "checkpoint"  # attribute: the file that the weights came from, and whether it is official
)
PIXELS = "pixels"  # the array of images; no level has that name
TRANSPOSED = frozenset({"rot90", "rot270", "transpose", "antitranspose"})  # views: sides swapped

SHARD_BYTES = 64 * 2**20
CHUNK_BYTES = 512 * 2**10
ITEM_BYTES = {"float16": 2, "float32": 4}
MANTISSA_BITS = {"float16": 10, "float32": 23}


@dataclass(frozen=True)
class Fingerprint:
    """Everything that decides what a feature value is.

    Two stores with equal fingerprints hold the same function of their images.

    Attributes:
        encoder: Name of the encoder, such as `vit_b`.
        checkpoint_sha256: Of the checkpoint file; of the weights themselves where there is no file.
        input_size: Side of the square encoder input, in pixels.
        resize: `longest` (keep the aspect, pad right and bottom) or `stretch`.
        mean: Per RGB channel, in 0..255.
        std: Per RGB channel, in 0..255.
        levels: Names of the cached depths, in order.
        window: Side of the pooling window, in map cells; 1 keeps the whole map.
        views: Transforms of the image under which it was encoded, in the order of the view axis.
        storage: `float16` or `float32`.
        precision: Type of the encoder's arithmetic.
        preprocessing: Version of the rules that turn a file into a frame.
        keep_bits: Mantissa bits that values are rounded to before they are stored; all by default.
    """

    encoder: str
    checkpoint_sha256: str
    input_size: int
    resize: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    levels: tuple[str, ...]
    window: int
    views: tuple[str, ...]
    storage: str
    precision: str
    preprocessing: int
    keep_bits: int | None = None

    def __post_init__(self) -> None:
        """Refuse values that no store can have.

        Raises:
            StoreError: a field has a value outside its range.
        """
        checks = {
            "storage": (self.storage in ITEM_BYTES, "float16 or float32"),
            "resize": (self.resize in get_args(Resize), " or ".join(get_args(Resize))),
            "levels": (bool(self.levels) and len(set(self.levels)) == len(self.levels), "distinct"),
            "views": (bool(self.views) and len(set(self.views)) == len(self.views), "distinct"),
            "window": (self.window >= 1, "at least 1"),
            "keep_bits": (
                self.keep_bits is None or 1 <= self.keep_bits <= MANTISSA_BITS.get(self.storage, 0),
                f"1 to {MANTISSA_BITS.get(self.storage)} bits of {self.storage}, or none",
            ),
        }
        for name, (good, expected) in checks.items():
            if not good:
                raise StoreError(f"{name} is {getattr(self, name)!r}; expected {expected}")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Fingerprint":
        """Rebuild a fingerprint from its JSON form.

        Raises:
            StoreError: a field is missing.
        """
        missing = [f.name for f in fields(cls) if f.default is MISSING and f.name not in values]
        if missing:
            raise StoreError(
                f"the store's fingerprint lacks {', '.join(missing)}; it was not written by a "
                "version of samcls that this one can read"
            )
        known: dict[str, Any] = {
            field.name: tuple(value) if isinstance(value := values[field.name], list) else value
            for field in fields(cls)
            if field.name in values
        }
        return cls(**known)

    def differing(self, other: "Fingerprint") -> dict[str, tuple[Any, Any]]:
        """Return the fields in which `other` differs, as (own, other's)."""
        pairs = {f.name: (getattr(self, f.name), getattr(other, f.name)) for f in fields(self)}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


@dataclass(frozen=True)
class LevelShape:
    """Shape of one level's stored map.

    Attributes:
        channels: Number of channels.
        rows: Pooled map's height, in windows.
        cols: Pooled map's width, in windows.
        patch: Side of one cell of the whole map, in encoder-input pixels.
    """

    channels: int
    rows: int
    cols: int
    patch: int

    @property
    def values(self) -> int:
        """Number of values in one view of one image."""
        return self.channels * self.rows * self.cols


@dataclass(frozen=True)
class Partition:
    """How rows fall into chunks and shards, the same for every level.

    Attributes:
        chunk_rows: Images in a chunk.
        shard_rows: Images in a shard, a multiple of `chunk_rows`.
    """

    chunk_rows: int
    shard_rows: int

    @classmethod
    def for_levels(
        cls,
        levels: Mapping[str, LevelShape],
        views: int,
        storage: str,
        most_rows: int | None = None,
        pixels: int = 0,
    ) -> "Partition":
        """Choose sizes from the largest level, as powers of two so that batches divide them.

        Args:
            levels: Shape of each level's pooled map.
            views: Number of views.
            storage: Type of a value.
            most_rows: A shard holds at most about so many, so that several workers find shards.
            pixels: Side of the images that are kept; 0 where none are.
        """
        row_bytes = max(shape.values for shape in levels.values()) * views * ITEM_BYTES[storage]
        row_bytes = max(row_bytes, 3 * pixels**2)
        chunk = max(1, CHUNK_BYTES // row_bytes)
        shard = max(1, min(SHARD_BYTES // row_bytes, most_rows or SHARD_BYTES))
        shard = 1 << (shard.bit_length() - 1)
        return cls(min(shard, 1 << (chunk.bit_length() - 1)), shard)


def array_name(level: str) -> str:
    """Return the name of a level's array inside `features`: no colon, which some file systems refuse."""
    return level.replace(":", "_")


def array_path(name: str) -> str:
    """Return the path of a level's array, or of the images', within a store's group."""
    return PIXELS if name == PIXELS else f"features/{array_name(name)}"


def cells_under(
    valid: Integer[np.ndarray, "image 2"], shape: LevelShape, window: int, view: str
) -> Float[np.ndarray, "image row col"]:
    """Return how many map cells that show picture lie under each pooled cell.

    Args:
        valid: Height and width of the picture in encoder-input pixels.
        shape: Of the level's pooled map.
        window: Side of the pooling window, in map cells.
        view: Its name; one that swaps the sides swaps the extent too.
    """
    extent = valid.astype(np.int64)
    if view in TRANSPOSED:
        extent = extent[:, ::-1]
    cells = -(-extent // shape.patch)
    down = np.clip(cells[:, :1] - window * np.arange(shape.rows), 0, window)
    across = np.clip(cells[:, 1:] - window * np.arange(shape.cols), 0, window)
    counts: np.ndarray = (down[:, :, None] * across[:, None, :]).astype(np.float32)
    return counts


def rounded(values: np.ndarray, storage: str, keep_bits: int | None) -> np.ndarray:
    """Return values of any shape as they are stored: in the storage type, rounded to the bits that are kept.

    Args:
        values: Of any floating type.
        storage: `float16` or `float32`.
        keep_bits: Mantissa bits; all where None.
    """
    flat = np.ascontiguousarray(values, dtype=storage)
    if keep_bits is None:
        return flat
    return np.asarray(BitRound(keep_bits).encode(flat)).view(flat.dtype).reshape(flat.shape)
