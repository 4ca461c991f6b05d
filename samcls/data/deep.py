"""PNG, JPEG, JPEG 2000 and PPM of other than 8 bits, whose low bits Pillow would drop.

imagecodecs keeps them all (JPEG of 12 bits, lossless JPEG and JPEG-LS too).

    rgb = read_deep("png", Path("slide.png").read_bytes(), shape)
"""

import re

import numpy as np
from jaxtyping import Shaped, UInt8

from samcls.data.arrays import check_size, over_black, to_rgb
from samcls.data.kinds import Shape, j2k_depths
from samcls.errors import ImageError

__all__ = ["check_end", "decode_jpeg", "pnm_shape", "read_deep"]

PNM_HEADER = re.compile(rb"P([2356])" + rb"(?:\s|#[^\n]*\n)+(\d+)" * 3 + rb"\s", re.DOTALL)

# Colour spaces of JPEG 2000 by their number in the file; the first two are shown as they are.
JP2_SPACES = {16: "sRGB", 17: "grey", 12: "CMYK", 14: "CIELab", 18: "sYCC", 24: "e-sYCC"}


def pnm_shape(data: bytes) -> Shape | None:
    """Size and depth of a PGM or PPM; None where its header is damaged."""
    if not (found := PNM_HEADER.match(data)):
        return None
    kind, width, height, top = map(int, found.groups())
    return Shape(height, width, 3 if kind in (3, 6) else 1, top.bit_length(), top <= 255)


def read_deep(kind: str, data: bytes, shape: Shape) -> UInt8[np.ndarray, "row col 3"]:
    """Decode a picture that is not `shape.plain` by the rule of `to_rgb`, alpha laid over black.

    Raises:
        ImageError: It is too large, or of a form that cannot be shown.
    """
    check_size(shape.height, shape.width, shape.channels * (2 if shape.bits > 8 else 1))
    values = DECODERS[kind](data, shape)
    if values.shape[:2] != (shape.height, shape.width):
        raise ImageError(
            f"it is damaged: its header promises {shape.height} x {shape.width} pixels, and "
            f"{values.shape[0]} x {values.shape[1]} were found"
        )
    if values.ndim == 2:
        values = values[:, :, None]
    channels = values.shape[2]
    if channels > 4:
        raise ImageError(f"it has {channels} channels: expected grey or RGB, with or without alpha")
    colours = values[:, :, :-1] if channels in (2, 4) else values
    rgb = to_rgb(colours, shape.bits if colours.dtype.kind == "u" else None)
    if channels not in (2, 4):
        return rgb
    return over_black(rgb, values[:, :, -1], 2.0**shape.bits - 1)


def check_end(data: bytes) -> None:
    """Refuse a JPEG or JPEG-LS without its end.

    libjpeg fills what is missing with grey and only mumbles; CharLS may search for it for minutes.
    """
    if b"\xff\xd9" not in data.rstrip(b"\0")[-64:]:
        raise ImageError("it is damaged or cut short: its JPEG stream has no end")


def decode_jpeg(data: bytes, shape: Shape) -> Shaped[np.ndarray, "row col *channel"]:
    """Return a JPEG of any depth and process, its colours as they are stored where it is lossless."""
    import imagecodecs

    check_end(data)
    if shape.process == 0xF7:
        return np.asarray(imagecodecs.jpegls_decode(data))
    if shape.process == 0xC3:
        return np.ascontiguousarray(imagecodecs.jpegsof3_decode(data))
    if shape.process not in {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}:
        raise ImageError(
            f"its compression, JPEG process {shape.process - 0xC0}, is not supported, and no package "
            "is known that would: save it as PNG"
        )
    return np.asarray(imagecodecs.jpeg8_decode(data))


def _decode_png(data: bytes, shape: Shape) -> Shaped[np.ndarray, "row col *channel"]:  # noqa: ARG001
    import imagecodecs

    if data.find(b"acTL", 0, max(0, data.find(b"IDAT"))) > 0:
        raise ImageError("an animation of 16 bits is not supported: save its frames as PNG")
    return np.asarray(imagecodecs.png_decode(data))


def _decode_j2k(data: bytes, shape: Shape) -> Shaped[np.ndarray, "row col *channel"]:  # noqa: ARG001
    import imagecodecs

    if len(set(j2k_depths(data))) > 1:
        raise ImageError(
            "its channels are of different depths, which is not supported: save it with one depth"
        )
    start = data.find(b"colr")
    if 0 <= start < data.find(b"\xff\x4f\xff\x51") and data[start + 4] == 1:
        number = int.from_bytes(data[start + 7 : start + 11], "big")
        if number not in (16, 17):
            raise ImageError(
                f"its colour space, {JP2_SPACES.get(number, f'number {number}')}, is not supported "
                "at more than 8 bits: save it as RGB"
            )
    return np.asarray(imagecodecs.jpeg2k_decode(data))


def _decode_pnm(data: bytes, shape: Shape) -> Shaped[np.ndarray, "row col *channel"]:
    found = PNM_HEADER.match(data)
    if found is None:
        raise ImageError("it is damaged: its header cannot be read")
    count = shape.height * shape.width * shape.channels
    body = data[found.end() :]
    if found[1] in b"56":
        values = np.frombuffer(body[: 2 * count], ">u2").astype(np.uint16)
    else:
        values = np.array(re.sub(rb"#[^\n]*", b"", body).split()[:count], dtype=np.int64)
    if len(values) < count:
        raise ImageError("it is cut short: it ends before its pixels do")
    if values.min() < 0 or values.max() > int(found[4]):
        raise ImageError("it is damaged: a value is outside the range that its header promises")
    return values.astype(np.uint16).reshape(shape.height, shape.width, shape.channels)


DECODERS = {
    "png": _decode_png,
    "jpeg": decode_jpeg,
    "jp2": _decode_j2k,
    "pnm": _decode_pnm,
}
