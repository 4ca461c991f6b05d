"""TIFF pages of any layout, depth and orientation as RGB, through tifffile and imagecodecs.

What Pillow's libtiff alone knows (subsampled YCbCr that is not JPEG, old-style JPEG) is left to the
caller.

    found = read_tiff(Path("slide.tif"), 0)
"""

import logging
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image

from samcls.data.arrays import check_size, choose, over_black, to_rgb, upright
from samcls.errors import ImageError

__all__ = ["count_pages", "read_tiff"]

JPEG = {6, 7, 33007, 34892}  # compressions whose YCbCr tifffile turns to RGB
COLOURS = {
    "MINISWHITE": 1,
    "MINISBLACK": 1,
    "RGB": 3,
    "PALETTE": 1,
    "SEPARATED": 4,
    "YCBCR": 3,
    "CIELAB": 3,
}

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # its log is not the user's


def count_pages(file: Path) -> int:
    """Return the number of pages; reduced copies and masks that belong to a page are none."""
    import tifffile

    with tifffile.TiffFile(file) as tiff:
        return len(_pages(tiff, file))


def read_tiff(file: Path, index: int | None) -> UInt8[np.ndarray, "row col 3"] | int:
    """Decode one page by the rule of `to_rgb`, upright, alpha laid over black.

    Returns:
        The picture, or the number of the page where Pillow is to read it.

    Raises:
        ImageError: The page is damaged, cut short, too large, or of a kind that cannot be shown.
    """
    import tifffile

    try:
        opened = tifffile.TiffFile(file)
    except tifffile.TiffFileError as error:
        raise ImageError(f"it is damaged: {error}") from error
    with opened as tiff:
        pages = _pages(tiff, file)
        if not pages:
            raise ImageError("it holds no picture: it has no page")
        page = pages[choose(len(pages), index, "page")]
        photometric = getattr(page.photometric, "name", str(page.photometric))
        if page.compression == 6 or (page.is_subsampled and page.compression not in JPEG):
            check_size(page.imagelength * page.imagedepth, page.imagewidth, page.samplesperpixel)
            return int(page.index)
        _check(page, photometric, file.stat().st_size)
        values = page.asarray(squeeze=False, maxworkers=1)  # (plane, depth, row, col, channel)
        values = values[:, 0]
        values = np.moveaxis(values[..., 0], 0, -1) if len(values) > 1 else values[0]
        turned = upright(values, int(page.tags.valueof("Orientation", default=1)))
        return _show(page, photometric, turned)


def _check_chain(file: Path, big: bool, order: str) -> None:
    """Refuse a file whose list of pages breaks off, which tifffile would take for its end."""
    end = file.stat().st_size
    count_form, entry, link_form, first = ("Q", 20, "Q", 8) if big else ("H", 12, "I", 4)
    link_bytes = struct.calcsize(link_form)
    seen: set[int] = set()
    with file.open("rb") as opened:
        opened.seek(first)
        while (place := struct.unpack(order + link_form, opened.read(link_bytes))[0]) != 0:
            opened.seek(place)
            count = opened.read(struct.calcsize(count_form))
            next_link = (
                place
                + len(count)
                + entry * int.from_bytes(count, "little" if order == "<" else "big")
            )
            if place in seen or next_link + link_bytes > end:
                raise ImageError("it is damaged or cut short: its list of pages breaks off")
            seen.add(place)
            opened.seek(next_link)


def _pages(tiff: Any, file: Path) -> list[Any]:
    """Pages that are pictures of their own; those of an ImageJ stack lie behind its only page."""
    _check_chain(file, tiff.is_bigtiff, tiff.byteorder)
    pages = [page for page in tiff.pages if not int(page.subfiletype) & 0b101]
    pages = pages or list(tiff.pages)
    stacked = int((tiff.imagej_metadata or {}).get("images", 1)) if tiff.is_imagej else 1
    if stacked > len(tiff.pages):
        raise ImageError(
            f"it is an ImageJ stack of {stacked} images behind one page: save it as a TIFF of "
            f"{stacked} pages"
        )
    return pages


def _check(page: Any, photometric: str, end: int) -> None:
    """Refuse what cannot be decoded or shown, before anything is decoded."""
    import tifffile

    if page.imagedepth > 1:
        check_size(page.imagelength * page.imagedepth, page.imagewidth)
        raise ImageError(f"it is a volume of {page.imagedepth} planes: save each as a page")
    if page.dtype is None or isinstance(page.bitspersample, tuple):
        raise ImageError(
            f"its values of {page.bitspersample} bits, format {page.sampleformat}, are not "
            "supported: save it with 8 or 16 bits"
        )
    pixel_bytes = page.samplesperpixel * page.dtype.itemsize
    check_size(page.imagelength, page.imagewidth, pixel_bytes)
    if photometric not in COLOURS or (photometric == "SEPARATED" and page.samplesperpixel < 4):
        raise ImageError(
            f"its colour space, {photometric}, is not supported: save it as grey or RGB"
        )
    if page.compression not in tifffile.TIFF.DECOMPRESSORS:
        name = getattr(page.compression, "name", "unknown")
        raise ImageError(
            f"its compression, {name} (number {int(page.compression)}), is not supported by the "
            "package imagecodecs, nor by any other that is known: save it with LZW or Deflate"
        )
    # tifffile fills a missing strip in, where a row of the manifest is to fail.
    strips = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    present = sum(count for _, count in strips)
    expected = page.nbytes if page.is_contiguous else 0
    if (
        not strips
        or any(not count or start + count > end for start, count in strips)
        or present < expected
        or (not page.is_contiguous and len(strips) < math.prod(page.chunked))
    ):
        raise ImageError("the file is cut short: it ends before its pixels do")


def _show(
    page: Any, photometric: str, values: Shaped[np.ndarray, "row col channel"]
) -> UInt8[np.ndarray, "row col 3"]:
    bits = int(page.bitspersample) if values.dtype.kind in "bu" else None
    if values.dtype.kind == "b":
        values = values.view(np.uint8)
    count = COLOURS[photometric]
    extras = [int(extra) for extra in page.extrasamples]
    more = values.shape[2] - count
    alpha = next((place for place, extra in enumerate(extras) if extra in (1, 2)), None)
    # A fourth channel without a meaning is passed over beside RGB, as viewers do.
    if more < 0 or (more and alpha is None and (count == 1 or more > 1)):
        raise ImageError(
            f"it has {values.shape[2]} channels of type {photometric}: expected grey or RGB, with "
            "or without alpha; save each channel as a page"
        )
    colours = values[:, :, :count]
    if photometric == "CIELAB" or (photometric == "YCBCR" and page.compression not in JPEG):
        rgb = _convert(photometric, colours)
    elif photometric == "PALETTE":
        rgb = _look_up(page, colours[:, :, 0])
    elif photometric == "SEPARATED":
        rgb = _from_inks(colours)
    else:
        rgb = to_rgb(colours, bits)
        rgb = 255 - rgb if photometric == "MINISWHITE" else rgb
    if alpha is None or extras[alpha] == 1:  # 1: the colours lie over black already
        return rgb
    opaque = values[:, :, count + alpha]
    return over_black(rgb, opaque, 2.0**bits - 1 if bits else _top(opaque))


def _convert(
    photometric: str, values: Shaped[np.ndarray, "row col 3"]
) -> UInt8[np.ndarray, "row col 3"]:
    """Colour spaces of 8 bits that Pillow turns to RGB."""
    if values.dtype != np.uint8:
        raise ImageError(f"{photometric} of other than 8 bits is not supported: save it as RGB")
    mode = {"CIELAB": "LAB", "YCBCR": "YCbCr"}[photometric]
    size = (values.shape[1], values.shape[0])
    return np.array(Image.frombytes(mode, size, values.tobytes()).convert("RGB"))


def _look_up(page: Any, values: Shaped[np.ndarray, "row col"]) -> UInt8[np.ndarray, "row col 3"]:
    """Return the high bytes of a palette's colours, or the low ones where a writer left the high ones out."""
    if page.colormap is None:
        raise ImageError("it is damaged: it has a palette's numbers and no palette")
    table = np.asarray(page.colormap)
    table = table >> 8 if table.max() > 255 else table
    return np.ascontiguousarray(np.moveaxis(table.astype(np.uint8)[:, values], 0, -1))


def _from_inks(inks: Shaped[np.ndarray, "row col 4"]) -> UInt8[np.ndarray, "row col 3"]:
    """Cyan, magenta, yellow and black as RGB, as Pillow does it for 8 bits."""
    if inks.dtype == np.uint8:
        light = 255 - inks[:, :, 3:].astype(np.uint32)
        covered = inks[:, :, :3] * light + 128
        rgb: np.ndarray = (light - ((covered + (covered >> 8)) >> 8)).astype(np.uint8)
        return rgb
    shares = inks.astype(np.float32) / _top(inks)
    return to_rgb((1 - shares[:, :, :3]) * (1 - shares[:, :, 3:]))


def _top(values: Shaped[np.ndarray, "..."]) -> float:
    return 1.0 if values.dtype.kind == "f" else float(np.iinfo(values.dtype).max)
