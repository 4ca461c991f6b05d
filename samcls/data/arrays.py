"""Arrays as pictures: the rows of an .npz, and numbers of any type to RGB uint8.

The last four arrays stay open in each process, so that reading row by row costs a copy of the row:
some 50 microseconds at 64 x 64. A member stored without compression is mapped from the disk, and a
compressed one (every MedMNIST file) is held in memory whole: 0.4 MB for BreastMNIST at 28 pixels.

    rgb = to_rgb(read_row("breastmnist.npz", "train_images", 17))
"""

import functools
import math
import os
import struct
import threading
import zipfile
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped, UInt8

from samcls.errors import ImageError

__all__ = [
    "MAX_PIXELS",
    "array_shapes",
    "check_size",
    "choose",
    "load_array",
    "over_black",
    "read_row",
    "to_rgb",
    "upright",
]

MAX_PIXELS = 89_478_485  # Pillow's own limit: a quarter of a GiB of RGB
MAX_BYTES = 2**30  # of one picture's decoded values: twelve a pixel at the largest size
BLOCK = 2**20  # values that are scaled at once
MAX_RATIO = 100  # of a member's size to its compressed size, above BOMB_BYTES
BOMB_BYTES = 2**30

LOCK = threading.Lock()


def check_size(height: int, width: int, pixel_bytes: int = 1) -> None:
    """Refuse a picture without pixels, or so large that reading it would exhaust the memory.

    Args:
        height: In pixels; of a volume, of all its planes together.
        width: In pixels.
        pixel_bytes: What one pixel takes when decoded, all its channels together.

    Raises:
        ImageError: With the reason; the caller names the file.
    """
    if height <= 0 or width <= 0:
        raise ImageError(f"it has no pixels (height {height}, width {width})")
    if height * width > MAX_PIXELS:
        raise ImageError(
            f"it is too large: its {height} x {width} pixels exceed the limit of {MAX_PIXELS}: "
            "make it smaller"
        )
    if height * width * pixel_bytes > MAX_BYTES:
        raise ImageError(
            f"it is too large: its {height} x {width} pixels of {pixel_bytes} bytes each exceed "
            f"the limit of {MAX_BYTES} bytes: make it smaller, or store fewer bits or channels"
        )


def choose(count: int, index: int | None, what: str) -> int:
    """Return the page or frame meant, which need not be named where there is only one."""
    if index is None and count > 1:
        raise ImageError(f"it holds {count} {what}s: name one of 0..{count - 1} as its index")
    if index is not None and not 0 <= index < count:
        raise ImageError(f"index {index} is outside its {count} {what}(s)")
    return index or 0


def to_rgb(
    pixels: Shaped[np.ndarray, "..."],
    bits: int | None = None,
    shown: Bool[np.ndarray, "row col"] | None = None,
) -> UInt8[np.ndarray, "row col 3"]:
    """Turn a grey or RGB picture of any numeric type into RGB, 0..255: the one rule of depth.

    Unsigned values of 8 bits are taken as they are, of fewer bits spread from 0..2^bits - 1 over
    0..255. All others (deeper, signed or floats) are scaled linearly from the picture's own
    minimum..maximum to 0..255, all channels alike, and a constant picture becomes 0. An alpha
    channel is none of these channels; `over_black` applies it afterwards.

    Args:
        pixels: (row, col), (row, col, 1) or (row, col, 3).
        bits: Significant bits of unsigned values; by default all that the type has.
        shown: Pixels that take part; those that do not become 0. All by default.

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
    if pixels.dtype.kind not in "buif":
        raise ImageError(f"its values are of type {pixels.dtype}: expected numbers")
    if pixels.dtype.kind == "b":
        pixels, bits = pixels.view(np.uint8), 1
    if bits is None:
        bits = 8 * pixels.dtype.itemsize
    if pixels.dtype.kind != "u" or bits > 8:
        pixels = _scale(pixels, shown)
    elif pixels.dtype != np.uint8 or bits < 8:
        pixels = _spread(pixels, bits)
    if shown is not None:
        pixels = np.where(shown[:, :, None], pixels, np.uint8(0))
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def _spread(pixels: Shaped[np.ndarray, "..."], bits: int) -> UInt8[np.ndarray, "..."]:
    """Values of at most 8 bits over 0..255."""
    top = 2**bits - 1
    if pixels.max() > top:
        raise ImageError(f"it is damaged: its values exceed the {bits} bits that it promises")
    levels = np.rint(np.arange(top + 1) * (255 / top)).astype(np.uint8)
    spread: np.ndarray = levels[pixels]
    return spread


def over_black(
    rgb: UInt8[np.ndarray, "row col 3"], alpha: Shaped[np.ndarray, "row col"], top: float
) -> UInt8[np.ndarray, "row col 3"]:
    """Lay a picture over black by its alpha, of which 0 is transparent and `top` opaque."""
    if (alpha == top).all():
        return rgb
    share = np.clip(alpha.astype(np.float64) / top, 0, 1)
    laid: np.ndarray = np.rint(rgb * share[:, :, None]).astype(np.uint8)
    return laid


def upright(pixels: Shaped[np.ndarray, "..."], orientation: int) -> Shaped[np.ndarray, "..."]:
    """Turn (row, col) or (row, col, channel) as the tag Orientation of TIFF and EXIF says, 1..8."""
    if orientation in (5, 6, 7, 8):
        pixels = np.swapaxes(pixels, 0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _scale(
    pixels: Shaped[np.ndarray, "..."], shown: Bool[np.ndarray, "row col"] | None
) -> UInt8[np.ndarray, "..."]:
    """Scale some rows at a time, so that a large picture needs no copy in doubles."""
    scaled = np.zeros(pixels.shape, dtype=np.uint8)
    kept = pixels if shown is None else pixels[shown]
    if not kept.size:
        return scaled
    # Halves, so that the span of the largest doubles does not overflow.
    low, high = (float(value) / 2 for value in (kept.min(), kept.max()))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ImageError("it holds NaN or infinite values")
    if low == high:
        return scaled
    step = max(1, BLOCK // max(1, pixels[0].size))
    for start in range(0, len(pixels), step):
        rows = slice(start, start + step)
        values = pixels[rows].astype(np.float64)
        if shown is not None:
            values[~shown[rows]] = 2 * low
        values /= 2
        scaled[rows] = np.rint((values - low) / (high - low) * 255)
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
    with LOCK:  # so that threads that miss at once decompress once
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
    pixel_bytes = array.itemsize * math.prod(array.shape[3:])
    check_size(array.shape[1], array.shape[2], pixel_bytes)
    return np.array(array[index])


@functools.lru_cache(maxsize=4)
def _open(file: str, name: str, modified: int, size: int) -> np.ndarray | str:  # noqa: ARG001 - cache keys
    """Return the array, or the reason why there is none, kept so that no row tries a bad file again."""
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
