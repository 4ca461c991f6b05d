"""Arrays as pictures: the rows of an .npz, and numbers of any type to RGB uint8.

The last four arrays stay open in each process, so that reading row by row costs a copy of the row:
some 50 microseconds at 64 x 64. A member stored without compression is mapped from the disk, and a
compressed one (every MedMNIST file) is held in memory whole: 0.4 MB for BreastMNIST at 28 pixels.

    rgb = to_rgb(read_row("breastmnist.npz", "train_images", 17))
"""

import functools
import os
import struct
import threading
import zipfile
from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt8

from samcls.errors import ImageError

__all__ = ["MAX_PIXELS", "array_shapes", "check_size", "load_array", "read_row", "to_rgb"]

MAX_PIXELS = 89_478_485  # Pillow's own limit: a quarter of a GiB of RGB
MAX_RATIO = 100  # of a member's size to its compressed size, above BOMB_BYTES
BOMB_BYTES = 2**30

_LOCK = threading.Lock()


def check_size(height: int, width: int) -> None:
    """Refuse a picture without pixels, or so large that reading it would exhaust the memory.

    Raises:
        ImageError: With the reason; the caller names the file.
    """
    if height * width == 0:
        raise ImageError(f"it has no pixels (height {height}, width {width})")
    if height * width > MAX_PIXELS:
        raise ImageError(
            f"its {height} x {width} pixels exceed the limit of {MAX_PIXELS}: make it smaller"
        )


def to_rgb(pixels: Shaped[np.ndarray, "..."]) -> UInt8[np.ndarray, "row col 3"]:
    """Turn a grey or RGB picture of any numeric type into RGB, 0..255.

    Args:
        pixels: (row, col), (row, col, 1) or (row, col, 3). `uint8` is taken as it is. Every other
            type is scaled linearly from the picture's own minimum..maximum to 0..255, all
            channels alike; a constant picture becomes 0.

    Raises:
        ImageError: Another shape, a type that is no number, or a value that is not finite.
    """
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3):
        raise ImageError(
            f"its shape is {pixels.shape}: expected (row, col), (row, col, 1) or (row, col, 3)"
        )
    check_size(pixels.shape[0], pixels.shape[1])
    if pixels.dtype != np.uint8:
        pixels = _scale(pixels)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def _scale(pixels: Shaped[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    if pixels.dtype.kind not in "buif":
        raise ImageError(f"its values are of type {pixels.dtype}: expected numbers")
    values = pixels.astype(np.float64)
    if not np.isfinite(values).all():
        raise ImageError("it holds NaN or infinite values")
    values /= 2  # so that the span of the largest doubles does not overflow
    low, high = values.min(), values.max()
    if low == high:
        return np.zeros(pixels.shape, dtype=np.uint8)
    scaled: np.ndarray = np.rint((values - low) / (high - low) * 255).astype(np.uint8)
    return scaled


def array_shapes(file: str) -> dict[str, tuple[int, ...]]:
    """Shape of each array of an .npz, from the headers alone.

    Raises:
        ImageError: The file is no .npz.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            shapes = {}
            for info in archive.infolist():
                if info.filename.endswith(".npy"):
                    with archive.open(info) as member:
                        shapes[info.filename.removesuffix(".npy")] = _header(member)[0]
            return shapes
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ImageError(f"it is not an .npz that can be read: {error}") from error


def load_array(file: str, name: str) -> Shaped[np.ndarray, "..."]:
    """One array of an .npz, read-only; opened once for each state of the file.

    Raises:
        ImageError: The file is no .npz, is damaged, or holds no such array.
    """
    stat = os.stat(file)  # noqa: PTH116 - a string, once for each row
    with _LOCK:  # so that threads that miss at once decompress once
        found = _open(file, name, stat.st_mtime_ns, stat.st_size)
    if isinstance(found, str):
        raise ImageError(found)
    return found


def read_row(file: str, name: str, index: int | None) -> Shaped[np.ndarray, "..."]:
    """Copy one row of an array of an .npz.

    Raises:
        ImageError: As `load_array`, or the array has no such row.
    """
    array = load_array(file, name)
    if array.ndim < 3:
        raise ImageError(
            f"array {name!r} has shape {array.shape}: expected (image, row, col) or "
            "(image, row, col, 3)"
        )
    if index is None:
        raise ImageError(f"array {name!r} holds {len(array)} images: column 'index' must name one")
    if not 0 <= index < len(array):
        raise ImageError(
            f"index {index} is outside array {name!r}, which holds {len(array)} images"
        )
    check_size(array.shape[1], array.shape[2])
    return np.array(array[index])


@functools.lru_cache(maxsize=4)
def _open(file: str, name: str, modified: int, size: int) -> np.ndarray | str:  # noqa: ARG001 - cache keys
    """The array, or the reason why there is none, kept so that no row tries a bad file again."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = [entry.removesuffix(".npy") for entry in archive.namelist()]
            if name not in names:
                return f"it holds no array {name!r}, only {', '.join(sorted(names)) or 'none'}"
            return _open_member(file, archive, archive.getinfo(f"{name}.npy"))
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zipfile.zlib.error) as error:  # type: ignore[attr-defined]
        return f"its array {name!r} cannot be read: {error}"


def _open_member(file: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray | str:
    if info.file_size > max(BOMB_BYTES, MAX_RATIO * info.compress_size):
        return (
            f"its array {info.filename!r} unpacks to {info.file_size} bytes: a decompression bomb"
        )
    with archive.open(info) as member:
        shape, fortran, dtype = _header(member)
        start = member.tell()
        if dtype.hasobject:
            return f"its array {info.filename!r} holds Python objects, which are not loaded"
        if int(np.prod(shape, dtype=object)) * dtype.itemsize != info.file_size - start:
            return f"its array {info.filename!r} is not as long as its header says"
        if info.compress_type == zipfile.ZIP_STORED and info.file_size > start and not fortran:
            while member.read(2**20):  # to its end, where zipfile compares the checksum
                pass
            offset = _data_offset(file, info) + start
            return np.memmap(file, dtype=dtype, mode="r", offset=offset, shape=shape)
        member.seek(0)
        array: np.ndarray = np.lib.format.read_array(member, allow_pickle=False)
        member.read(1)  # the checksum is compared at the end
        array.flags.writeable = False
        return array


def _header(member: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran's order, and type; leaves the open member at its first value."""
    if np.lib.format.read_magic(member) == (1, 0):
        return np.lib.format.read_array_header_1_0(member)
    return np.lib.format.read_array_header_2_0(member)


def _data_offset(file: str, info: zipfile.ZipInfo) -> int:
    """Where a member's bytes start: its local header repeats the name and has its own extra field."""
    with open(file, "rb") as raw:  # noqa: PTH123 - a string throughout
        raw.seek(info.header_offset)
        name_length, extra_length = struct.unpack("<26xHH", raw.read(30))
    return int(info.header_offset + 30 + name_length + extra_length)
