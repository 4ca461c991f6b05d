"""How a store's arrays are laid out when it is made: chunks, shards, compression and checksums.

Feature maps are sharded; each chunk carries a CRC-32C. Every chunk that was ever written is kept, even
one that holds nothing but the fill value, so an absent one always means pending or lost, never zeros.
`samcls bench store` measures the codecs; the default reads fastest of those that gain 5 % or more.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from samcls.errors import StoreError
from samcls.store.rows import RowTable
from samcls.store.schema import PIXELS, Fingerprint, LevelShape, Partition, array_name, array_path

__all__ = [
    "CODECS",
    "COLUMNS",
    "DEFAULT_CODEC",
    "META",
    "RESULTS",
    "array_paths",
    "columns_of",
    "create_arrays",
    "create_meta",
    "row_arrays",
]

CODECS: Mapping[str, Mapping[str, Any] | None] = {
    "none": None,
    "lz4-bit": {"cname": "lz4", "clevel": 1, "shuffle": "bitshuffle"},
    "zstd-3-bit": {"cname": "zstd", "clevel": 3, "shuffle": "bitshuffle"},
}
DEFAULT_CODEC = "lz4-bit"  # reads twice as fast as zstd here, for a tenth more disk

COLUMNS = ("id", "split", "group", "label")  # copied from the table
META = "meta"  # copied too, where the table has such columns
RESULTS = ("valid", "sha256", "error", "status")  # written with the features, the mark last

ROW_CHUNK = 8192  # rows in one chunk of the per-image arrays
AXES = ("channel", "row", "col")


def array_paths(fingerprint: Fingerprint, pixels: int, meta: bool = False) -> list[str]:
    """Return the path of every array within a store's group.

    Args:
        fingerprint: Of the store.
        pixels: Side of the images that it keeps; 0 where it keeps none.
        meta: Whether it keeps columns beside the labels.
    """
    kept = [*fingerprint.levels, *([PIXELS] if pixels else [])]
    return [*(array_path(name) for name in kept), *columns_of(meta), *RESULTS]


def columns_of(meta: bool) -> tuple[str, ...]:
    """Return the per-image arrays that are copied from the table."""
    return (*COLUMNS, META) if meta else COLUMNS


def create_arrays(
    group: zarr.Group,
    fingerprint: Fingerprint,
    levels: Mapping[str, LevelShape],
    table: RowTable,
    codec: str,
    partition: Partition | None = None,
    pixels: int = 0,
) -> None:
    """Make every array of a new store, still empty; images too where their side is not 0.

    Raises:
        StoreError: the codec is unknown.
    """
    if codec not in CODECS:
        raise StoreError(f"codec is {codec!r}; expected one of {', '.join(CODECS)}")
    chosen = partition or Partition.for_levels(
        levels, len(fingerprint.views), fingerprint.storage, pixels=pixels
    )
    compressors = _compressors(codec)
    _create_feature_arrays(group, fingerprint, levels, len(table.ids), compressors, chosen)
    if pixels:
        _create_pixels(group, len(table.ids), pixels, compressors, chosen)
    _create_row_arrays(group, table)


def _create_feature_arrays(
    group: zarr.Group,
    fingerprint: Fingerprint,
    levels: Mapping[str, LevelShape],
    images: int,
    compressors: list[Any],
    partition: Partition,
) -> None:
    for level, shape in levels.items():
        tail = (len(fingerprint.views), shape.channels, shape.rows, shape.cols)
        group.create_array(
            f"features/{array_name(level)}",
            shape=(images, *tail),
            dtype=fingerprint.storage,
            chunks=(partition.chunk_rows, *tail),
            shards=(partition.shard_rows, *tail),
            compressors=compressors,
            fill_value=0,
            # distinct names let xarray hold levels of different sizes in one data set
            dimension_names=("image", "view", *(f"{axis}_{level}" for axis in AXES)),
            attributes={"patch_size": shape.patch},
        )


def _create_pixels(
    group: zarr.Group, images: int, size: int, compressors: list[Any], partition: Partition
) -> None:
    tail = (size, size, 3)
    group.create_array(
        PIXELS,
        shape=(images, *tail),
        dtype="uint8",
        chunks=(partition.chunk_rows, *tail),
        shards=(partition.shard_rows, *tail),
        compressors=compressors,
        fill_value=0,
        dimension_names=("image", "pixel_row", "pixel_col", "colour"),
    )


def _compressors(codec: str) -> list[Any]:
    blosc = CODECS[codec]
    return [Crc32cCodec()] if blosc is None else [BloscCodec(**blosc), Crc32cCodec()]


def _create_row_arrays(group: zarr.Group, table: RowTable) -> None:
    tasks = len(table.tasks)
    for name, (dims, dtype, values) in row_arrays(table).items():
        shape = (len(table.ids), tasks) if name == "label" else values.shape
        _create_row_array(group, name, dims, dtype, shape)


def create_meta(group: zarr.Group, table: RowTable) -> np.ndarray:
    """Make anew the array of a table's columns beside its labels, and return what belongs in it."""
    dims, dtype, values = row_arrays(table)[META]
    _create_row_array(group, META, dims, dtype, values.shape)
    return values


def _create_row_array(
    group: zarr.Group, name: str, dims: tuple[str, ...], dtype: Any, shape: tuple[int, ...]
) -> None:
    piece = (ROW_CHUNK, *(max(1, n) for n in shape[1:]))
    group.create_array(
        name,
        shape=shape,
        dtype=dtype,
        chunks=piece,
        shards=piece,  # of one chunk, so that it can say where it belongs
        compressors=[ZstdCodec(level=1), Crc32cCodec()],
        fill_value="" if dtype is str else 0,
        dimension_names=dims,
    )


def row_arrays(table: RowTable) -> dict[str, tuple[tuple[str, ...], Any, np.ndarray]]:
    """Return dimensions, type and first values of each per-image array of a new store."""
    images = len(table.ids)
    found: dict[str, tuple[tuple[str, ...], Any, np.ndarray]] = {
        "id": (("image",), str, _text(table.ids)),
        "split": (("image",), str, _text(table.splits)),
        "group": (("image",), str, _text(table.groups)),
        "label": (("image", "task"), "int16", np.asarray(table.labels)),
        "valid": (("image", "extent"), "uint16", np.zeros((images, 2), np.uint16)),
        "sha256": (("image", "byte"), "uint8", np.zeros((images, 32), np.uint8)),
        "error": (("image",), str, _text([""] * images)),
        "status": (("image",), "uint8", np.zeros(images, np.uint8)),
    }
    if table.meta:
        beside = np.stack([_text(column) for column in table.meta.values()], axis=1)
        found[META] = (("image", "column"), str, beside)
    return found


def _text(values: Any) -> np.ndarray:
    return np.array(list(values), dtype=object)
