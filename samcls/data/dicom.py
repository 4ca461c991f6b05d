"""One frame of a DICOM file, decoded.

Of the pixels that one frame alone is read. For each compression there is one decoder, so that none
fills in what another one refuses. Errors name their kind alone, since a decoder's text may quote
the header.

    rgb = read_dicom(Path("ct.dcm"), 17)
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Shaped, UInt8

from samcls.data.arrays import check_size, choose
from samcls.data.deep import check_end, decode_jpeg
from samcls.data.dicom_display import show_colours, show_grey
from samcls.data.dicom_file import (
    GREY,
    Header,
    bits_of,
    count_frames,
    header_of,
    number,
    present,
    samples_of,
    text,
)
from samcls.data.kinds import Shape, j2k_shape, jpeg_shape
from samcls.errors import ImageError

__all__ = ["read_dicom"]

# The decoder that pydicom is to use for each compression, with the package that brings it.
DECODERS = {
    "1.2.840.10008.1.2.4.50": ("pillow", "pillow"),
    "1.2.840.10008.1.2.4.51": ("pillow", "pillow"),
    "1.2.840.10008.1.2.4.57": ("gdcm", "python-gdcm"),
    "1.2.840.10008.1.2.4.70": ("gdcm", "python-gdcm"),
    "1.2.840.10008.1.2.4.80": ("pyjpegls", "pyjpegls"),
    "1.2.840.10008.1.2.4.81": ("pyjpegls", "pyjpegls"),
    "1.2.840.10008.1.2.4.90": ("pylibjpeg", "pylibjpeg and pylibjpeg-openjpeg"),
    "1.2.840.10008.1.2.4.91": ("pylibjpeg", "pylibjpeg and pylibjpeg-openjpeg"),
    "1.2.840.10008.1.2.4.201": ("pylibjpeg", "pylibjpeg and pylibjpeg-openjpeg"),
    "1.2.840.10008.1.2.4.202": ("pylibjpeg", "pylibjpeg and pylibjpeg-openjpeg"),
    "1.2.840.10008.1.2.4.203": ("pylibjpeg", "pylibjpeg and pylibjpeg-openjpeg"),
    "1.2.840.10008.1.2.5": ("pydicom", "pydicom"),
}
LOSSLESS_JPEG = {"1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"}
OTHER_SPACES = {"ARGB", "CMYK", "HSV", "XYB", "YBR_PARTIAL_420", "YBR_PARTIAL_422"}
COLOUR_SPACES = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"}


def read_dicom(file: Path, index: int | None) -> UInt8[np.ndarray, "row col 3"]:
    """Decode one frame and show it as DICOM PS3.3 says.

    Raises:
        ImageError: The file is damaged, compressed in an unknown way, or holds no such picture.
    """
    try:
        header = header_of(file)
        count = _checked(header, file)
        frame = choose(count, index, "frame")
        values, space = _decode(header, file, frame, count)
        if space in GREY:
            return show_grey(
                values, header.dataset, frame, little_endian=header.syntax.is_little_endian
            )
        return show_colours(values, header.dataset)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - damaged files raise anything at all
        raise ImageError(
            f"its DICOM content is damaged or cut short and cannot be decoded "
            f"({type(error).__name__})"
        ) from None


def _checked(header: Header, file: Path) -> int:
    """Return the number of frames, once all that decoding needs to know is there and makes sense."""
    dataset = header.dataset
    missing = [name for name in ("Rows", "Columns") if not number(dataset, name)]
    missing += [] if text(dataset, "PhotometricInterpretation") else ["PhotometricInterpretation"]
    if missing or not header.keyword:
        what = ", ".join(missing) if missing else "pixel data"
        raise ImageError(f"this DICOM file holds no picture: it has no {what}")
    samples = samples_of(dataset)
    bits = bits_of(header)[0]
    rows, columns = (int(number(dataset, name) or 0) for name in ("Rows", "Columns"))
    check_size(rows, columns, samples * max(1, bits // 8))
    space = text(dataset, "PhotometricInterpretation")
    if space not in GREY | COLOUR_SPACES or samples != (1 if space in GREY else 3):
        known = space if space in GREY | COLOUR_SPACES | OTHER_SPACES else "unknown"
        raise ImageError(
            f"its {samples} sample(s) a pixel of photometric interpretation {known} are not "
            f"supported: expected one of {', '.join(sorted(GREY))} with 1 sample, or of "
            f"{', '.join(sorted(COLOUR_SPACES))} with 3"
        )
    _check_syntax(header)
    return count_frames(file)


def _check_syntax(header: Header) -> None:
    """Refuse a compression that no installed decoder knows, by its name."""
    from pydicom.pixels.decoders.base import get_decoder

    syntax = header.syntax
    name = syntax.name
    if name == str(syntax):
        name = f"number {syntax}" if re.fullmatch(r"[\d.]{1,64}", name) else "of no known number"
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise ImageError(
            f"its compression, {name}, is not supported, and no package is known that would: "
            "convert it to an uncompressed DICOM file"
        ) from None
    if header.length is None and not syntax.is_encapsulated:
        raise ImageError("it is damaged: it is compressed, and its header does not say how")
    if syntax.is_encapsulated:
        plugin, package = DECODERS.get(str(syntax), ("", ""))
        if plugin not in decoder.available_plugins and str(syntax) not in LOSSLESS_JPEG:
            raise ImageError(
                f"its compression, {name}, needs a package that is not installed: "
                f"pip install {package.replace(' and ', ' ') or 'pydicom'}"
            )


@contextmanager
def _pixel_source(header: Header, file: Path) -> Iterator[BinaryIO]:
    """Open the file, or what it unpacks to, at the first byte of its pixels."""
    with file.open("rb") if header.body is None else io.BytesIO(header.body) as source:
        source.seek(header.start)
        yield source


def _decode(
    header: Header, file: Path, index: int, count: int
) -> tuple[Shaped[np.ndarray, "..."], str]:
    """Return stored values of one frame, (row, col) or (row, col, 3), and their colour space."""
    from pydicom.pixels.decoders.base import get_decoder

    dataset = header.dataset
    allocated, stored, highest, signed = bits_of(header)
    space = text(dataset, "PhotometricInterpretation") or ""
    options: dict[str, Any] = {
        "rows": int(dataset.Rows),
        "columns": int(dataset.Columns),
        "samples_per_pixel": 1 if space in GREY else 3,
        "photometric_interpretation": space,
        "planar_configuration": int(number(dataset, "PlanarConfiguration") or 0),
        "bits_allocated": allocated,
        "bits_stored": stored,
        "pixel_representation": int(signed),
        "number_of_frames": count,
        "pixel_keyword": header.keyword,
        "pixel_vr": header.vr,
    }
    names = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
    if all(present(dataset, name) is not None for name in names):
        options["extended_offsets"] = tuple(present(dataset, name) for name in names)
    with _pixel_source(header, file) as source:
        if header.syntax.is_encapsulated:
            own = _decode_own(header, source, index, options)
            if own is not None:
                return _true_bits(own, stored, stored - 1, signed=signed), space
        elif allocated == 1 and space in GREY:
            return _unpack_bits(header, source, index, (options["rows"], options["columns"])), space
        plain = str(header.syntax) == "1.2.840.10008.1.2.5" or not header.syntax.is_encapsulated
        integers = header.keyword == "PixelData"
        if plain and integers and allocated > 1 and highest != stored - 1:
            # pydicom takes the lowest bits for those stored.
            options["bits_stored"] = allocated
        plugin = DECODERS[str(header.syntax)][0] if header.syntax.is_encapsulated else ""
        values, found = get_decoder(header.syntax).as_array(
            source, index=index, decoding_plugin=plugin, **options
        )
    if options["bits_stored"] != stored:
        values = _true_bits(values, stored, highest, signed=signed)
    space = str(found["photometric_interpretation"])
    if space not in GREY | {"RGB"}:
        raise ImageError(
            f"its photometric interpretation {space} does not go with its compression, "
            f"{header.syntax.name}: it is damaged"
        )
    return values, space


def _unpack_bits(
    header: Header, source: BinaryIO, index: int, shape: tuple[int, int]
) -> UInt8[np.ndarray, "row col"]:
    """Return a frame of one bit a pixel, which may start in the middle of a byte."""
    count = shape[0] * shape[1]
    skipped, first = (index * count) % 8, (index * count) // 8
    if header.vr == "OW" and not header.syntax.is_little_endian:
        raise ImageError("bits in words of big-endian order are not supported: convert the file")
    source.seek(first, io.SEEK_CUR)
    data = np.frombuffer(source.read((skipped + count + 7) // 8), np.uint8)
    bits = np.unpackbits(data, bitorder="little")[skipped : skipped + count]
    if len(bits) < count:
        raise ImageError("it is cut short: it ends before its pixels do")
    return bits.reshape(shape)


def _decode_own(
    header: Header, source: BinaryIO, index: int, options: dict[str, Any]
) -> Shaped[np.ndarray, "..."] | None:
    """Check a compressed frame against the header, and decode what pydicom's decoders do not.

    Those are JPEG of 12 bits, which none of them knows, and lossless JPEG, where gdcm fills what is
    damaged with whatever comes and writes to standard error. None for all others.
    """
    from pydicom.encaps import get_frame

    syntax = str(header.syntax)
    frame = get_frame(
        source,
        index,
        number_of_frames=options["number_of_frames"],
        extended_offsets=options.get("extended_offsets"),
    )
    source.seek(header.start)
    if syntax == "1.2.840.10008.1.2.5":
        return None
    wavelets = ".4.9" in syntax or ".4.20" in syntax
    shape = (j2k_shape if wavelets else jpeg_shape)(frame)
    expected = (options["rows"], options["columns"], options["samples_per_pixel"])
    if shape is None or (shape.height, shape.width, shape.channels) != expected:
        raise ImageError("it is damaged: its compressed pixels are not of the size in its header")
    if DECODERS.get(syntax, ("",))[0] == "pyjpegls":
        check_end(frame)
    space = options["photometric_interpretation"]
    if syntax in LOSSLESS_JPEG:
        return _decode_lossless(frame, shape, space)
    if syntax.endswith(".4.51") and shape.bits > 8:
        if shape.channels > 1:
            raise ImageError("colour of 12 bits as JPEG is not supported: convert it")
        return decode_jpeg(frame, shape)
    return None


def _decode_lossless(frame: bytes, shape: Shape, space: str) -> Shaped[np.ndarray, "..."] | None:
    """Through imagecodecs, except where restarts or several scans leave it to gdcm."""
    if b"\xff\xdd" in frame[:2048] or frame.count(b"\xff\xda") > 1:
        try:
            import gdcm  # type: ignore[import-untyped]
        except ImportError:
            raise ImageError(
                "its compression, lossless JPEG with restarts, needs a package that is not "
                "installed: pip install python-gdcm"
            ) from None
        gdcm.Trace.WarningOff()
        gdcm.Trace.ErrorOff()
        return None
    if space not in GREY | {"RGB"}:
        return None
    return decode_jpeg(frame, shape)


def _true_bits(
    values: Shaped[np.ndarray, "..."], stored: int, highest: int, *, signed: bool
) -> Shaped[np.ndarray, "..."]:
    """Return the bits that are stored, alone: what lies above and below them belongs to overlays."""
    size = 8 * values.dtype.itemsize
    if stored > size:
        return values
    values = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("="), copy=False))
    shifted = values.view(np.dtype(f"u{values.dtype.itemsize}")) << np.uint8(size - 1 - highest)
    kind = "i" if signed else "u"
    return shifted.view(np.dtype(f"{kind}{values.dtype.itemsize}")) >> np.uint8(size - stored)
