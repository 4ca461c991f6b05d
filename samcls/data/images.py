"""Image files to RGB to encoder frames.

DICOM, TIFF and pictures deeper than 8 bits are read by modules of their own, all else here through
Pillow. A file that is damaged, cut short, absurdly large or of another kind raises `ImageError`
with the file's name and the reason; nothing is filled in. What the bytes say counts, not the
suffix.

    frame = make_frame(read_image("lesion.jpg"), 1024)
"""

import base64
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from samcls.config import Resize
from samcls.data.arrays import MAX_PIXELS, check_size, choose, read_row, to_rgb, upright
from samcls.data.deep import pnm_shape, read_deep
from samcls.data.dicom import read_dicom
from samcls.data.dicom_file import is_dicom
from samcls.data.kinds import (
    HEAD_BYTES,
    hush,
    j2k_shape,
    jpeg_shape,
    kind_of,
    png_shape,
    refuse_stranger,
)
from samcls.data.manifest import file_of
from samcls.data.tiff import read_tiff
from samcls.errors import ImageError

__all__ = [
    "MAX_PIXELS",
    "PREPROCESSING_VERSION",
    "SUFFIXES",
    "Frame",
    "Resize",
    "count_animation",
    "data_uri",
    "jpeg_bytes",
    "jpeg_copy",
    "make_frame",
    "pixel_digest",
    "png_bytes",
    "read_image",
]

PREPROCESSING_VERSION = 1  # changes with anything below that changes a pixel

SUFFIXES = frozenset(
    (  # noqa: SIM905 - read as one line, with its dots
        ".apng .bmp .btf .dcm .dicom .gif .j2c .j2k .jfif .jif .jp2 .jpc .jpe .jpeg .jpf .jpg .jpx "
        ".mpo .pbm .pfm .pgm .png .pnm .ppm .tf8 .tif .tiff .webp"
    ).split()
)

# Pillow opens other formats too, some of them by running other programs.
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "JPEG2000", "PPM")


@dataclass(frozen=True)
class Frame:
    """One picture as the encoder takes it.

    Attributes:
        pixels: RGB, 0..255; the right and bottom beyond `valid` are 0.
        valid: Height and width, in pixels, that show picture rather than padding.
    """

    pixels: UInt8[np.ndarray, "size size 3"]
    valid: tuple[int, int]


def read_image(path: str, index: int | None = None) -> UInt8[np.ndarray, "row col 3"]:
    """Read one picture as RGB, 0..255. Safe to call from several threads.

    Depth, by one rule in every format (`to_rgb`): unsigned values of 8 bits stay as they are, fewer
    bits are spread over 0..255, and all others (deeper, signed, floats) are scaled linearly from the
    picture's own minimum..maximum, all its colours alike and alpha left out; a constant one becomes
    0. The orientation of EXIF and TIFF is applied, palettes are resolved, transparency is laid over
    black. DICOM is shown as PS3.3 says (`show_grey`): modality table or rescale, then the file's
    own VOI table or first window, or the rule of depth where it has none; padding is black.

    Args:
        path: A file, or `FILE.npz#array`.
        index: Row of the array, page of a TIFF or frame of a DICOM, GIF or WebP; needed only where
            there are several.

    Raises:
        ImageError: The file is missing, empty, cut short, damaged, of another kind or above
            `MAX_PIXELS`; `index` is missing or out of range; or a value is not finite.
    """
    hush()
    try:
        return _read(path, index)
    except Exception as error:  # decoders of damaged files raise anything at all
        raise ImageError(f"the image {path} cannot be read: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Return what went wrong, in words that tell damage from want of memory, disk or decoder."""
    if isinstance(error, ImageError):
        return str(error)
    if isinstance(error, MemoryError):
        return "there is not enough memory to decode it: use fewer --workers, or make it smaller"
    if isinstance(error, OSError) and error.errno is not None:
        return f"the disk does not give it: {error.strerror or error}"
    said = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, NotImplementedError) or "nsupported" in said:
        return f"it is written in a form that is not supported ({said}): save it as PNG or TIFF"
    return f"it is damaged or cut short ({said})"


def pixel_digest(image: UInt8[np.ndarray, "row col 3"]) -> str:
    """SHA-256, in hexadecimal, of the shape and the decoded pixels: equal pictures, equal digest."""
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def jpeg_copy(
    image: UInt8[np.ndarray, "row col 3"], quality: int
) -> UInt8[np.ndarray, "row col 3"]:
    """Return what is left of a picture in a JPEG of some quality, 1..95."""
    return np.array(Image.open(io.BytesIO(jpeg_bytes(image, quality))).convert("RGB"))


def jpeg_bytes(image: UInt8[np.ndarray, "row col 3"], quality: int) -> bytes:
    """Return a picture as the contents of a JPEG file of some quality, 1..95."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return file.getvalue()


def data_uri(image: UInt8[np.ndarray, "row col 3"], quality: int) -> str:
    """Return a picture as a JPEG in an address of its own, for a page that asks for nothing else.

    Args:
        image: RGB, 0..255.
        quality: 1..95.
    """
    text = base64.b64encode(jpeg_bytes(np.ascontiguousarray(image), quality)).decode()
    return f"data:image/jpeg;base64,{text}"


def png_bytes(image: UInt8[np.ndarray, "row col 3"]) -> bytes:
    """Return a picture as the contents of a PNG file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", optimize=True)
    return file.getvalue()


def make_frame(
    image: UInt8[np.ndarray, "row col 3"], size: int, resize: Resize = "longest"
) -> Frame:
    """Resize a picture through Pillow's bilinear filter and pad it to a square.

    Args:
        image: RGB, 0..255.
        size: Side of the frame, in pixels.
        resize: "longest" brings the longer side to `size`, each side rounded as segment_anything's
            `ResizeLongestSide` does (and at least 1), and pads right and bottom with 0;
            "stretch" brings both sides to `size`.
    """
    height, width = size, size
    if resize == "longest":
        scale = size * 1.0 / max(image.shape[:2])
        height, width = (max(1, int(side * scale + 0.5)) for side in image.shape[:2])
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.zeros((size, size, 3), dtype=np.uint8)
    pixels[:height, :width] = np.asarray(resized)
    return Frame(pixels, (height, width))


def _read(path: str, index: int | None) -> UInt8[np.ndarray, "row col 3"]:
    name, array = file_of(path)
    file = Path(name)
    if not file.exists():
        raise ImageError("the file does not exist")
    if not file.is_file():
        raise ImageError("it is a folder, not a file")
    if file.stat().st_size == 0:
        raise ImageError("the file is empty (0 bytes)")
    if array is not None:
        return to_rgb(read_row(name, array, index))
    with file.open("rb") as opened:
        head = opened.read(HEAD_BYTES)
    kind = kind_of(head)
    if kind == "other":
        refuse_stranger(head)
        named = file.suffix.lower() in {".dcm", ".dicom"}
        kind = "dicom" if named or is_dicom(file, head) else kind
    if kind == "dicom":
        return read_dicom(file, index)
    if kind == "tiff":
        found = read_tiff(file, index)
        return _read_pillow(file, found) if isinstance(found, int) else found
    if kind != "other":
        rgb = _read_deep(kind, file, index)
        if rgb is not None:
            return rgb
    return _read_pillow(file, index)


def _read_deep(kind: str, file: Path, index: int | None) -> UInt8[np.ndarray, "row col 3"] | None:
    """Return a picture whose low bits Pillow would drop; None for all others."""
    with file.open("rb") as opened:
        start = opened.read(2**16)
    find = {"png": png_shape, "jpeg": jpeg_shape, "jp2": j2k_shape, "pnm": pnm_shape}[kind]
    shape = find(start)
    data = b""
    if shape is None:  # behind long comments, profiles or thumbnails
        data = file.read_bytes()
        shape = find(data)
    if shape is None or shape.plain:
        return None
    check_size(shape.height, shape.width)
    choose(1, index, "frame")
    data = data or file.read_bytes()
    rgb = read_deep(kind, data, shape)
    return np.ascontiguousarray(upright(rgb, _orientation(kind, data)))


def _orientation(kind: str, data: bytes) -> int:
    """Return the orientation that EXIF gives a PNG or JPEG which imagecodecs decoded."""
    exif = Image.Exif()
    if kind == "png":
        place = data.rfind(b"eXIf")
        if place > 0:
            exif.load(data[place + 4 : place + 4 + int.from_bytes(data[place - 4 : place], "big")])
    elif kind == "jpeg":
        place = data.find(b"Exif\0\0", 0, 2**16)
        if place > 0:
            exif.load(data[place : place - 2 + int.from_bytes(data[place - 2 : place], "big")])
    return int(exif.get(274, 1))


def _read_pillow(file: Path, index: int | None) -> UInt8[np.ndarray, "row col 3"]:
    try:
        image = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError as error:
        raise ImageError("it is no image of a known kind, or its header is damaged") from error
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"it is too large: its pixels exceed the limit of {MAX_PIXELS}: make it smaller"
        ) from error
    with image:
        check_size(image.height, image.width)
        image.seek(choose(_frames(image), index, "page" if image.format == "TIFF" else "frame"))
        check_size(image.height, image.width)
        image.load()
        return _pillow_to_rgb(image)


def count_animation(file: Path) -> int:
    """Return the number of frames of a file that Pillow opens, by its header."""
    with Image.open(file, formats=FORMATS) as image:
        return _frames(image)


def _frames(image: Image.Image) -> int:
    # An MPO's further frames are a phone's depth or gain maps, not pictures to choose from.
    return 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))


def _pillow_to_rgb(image: Image.Image) -> UInt8[np.ndarray, "row col 3"]:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        return to_rgb(np.asarray(image))
    if image.has_transparency_data:
        picture = image.convert("RGBA")
        ground = Image.new("RGBA", picture.size, (0, 0, 0, 255))
        image = Image.alpha_composite(ground, picture)
    return np.array(image.convert("RGB"))
