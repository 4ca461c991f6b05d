"""DICOM files: what they hold, and one frame of one decoded.

Only the elements named here are ever parsed: no name, date or number of a patient. The header of a file
is kept for the next frame, and of the pixels the one frame alone is read: some 2 ms for a CT slice.
Errors name their kind alone, since a decoder's text may quote the header.

    rgb = read_dicom(Path("ct.dcm"), 17)
"""

import functools
import io
import logging
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Shaped, UInt8

from samcls.data.arrays import MAX_BYTES, check_size, choose
from samcls.data.deep import decode_jpeg
from samcls.data.dicom_display import DISPLAY_TAGS, number, present, show_colours, show_grey, text
from samcls.data.kinds import Shape, j2k_shape, jpeg_shape
from samcls.errors import ImageError

__all__ = ["count_frames", "is_dicom", "read_dicom"]

PIXEL_TAGS = [
    "SOPClassUID", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration",
    "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "ExtendedOffsetTable", "ExtendedOffsetTableLengths",
]  # fmt: skip
PIXELS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}
DEFLATED = "1.2.840.10008.1.2.1.99"

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
COLOUR_SPACES = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"}
GREY = {"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"}

for _name in ("pydicom", "pylibjpeg", "openjpeg", "jpeg_ls"):  # their logs are not the user's
    logging.getLogger(_name).addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Header:
    """A file's elements before its pixels, and where those are.

    Attributes:
        dataset: The elements of `PIXEL_TAGS` and `DISPLAY_TAGS` that the file has.
        syntax: Transfer syntax: byte order and compression.
        keyword: Name of the element that holds the pixels; empty where there is none.
        vr: How that element is written.
        start: Place of its value in the file.
        length: In bytes; None for a compressed one, whose length is not given.
        body: The whole file unpacked, where it is deflated.
    """

    dataset: Any
    syntax: Any
    keyword: str
    vr: str
    start: int
    length: int | None
    body: bytes | None


def is_dicom(file: Path, head: bytes) -> bool:
    """Whether a file's content is DICOM, with or without a preamble; its name plays no part.

    Args:
        file: The file.
        head: Its first 132 bytes or more.
    """
    if head[128:132] == b"DICM":
        return True
    # Without a preamble a data set starts with a low element of group 2 or 8, in either byte order.
    if len(head) < 132 or not re.match(rb"[\x02\x08]\0.\0|\0[\x02\x08]\0.", head, re.DOTALL):
        return False
    try:
        dataset = header_of(file).dataset
        uid = text(dataset, "SOPClassUID") or ""
        sizes = [number(dataset, name) or 0 for name in ("Rows", "Columns")]
    except Exception:  # noqa: BLE001 - what is no DICOM raises anything at all
        return False
    return bool(re.fullmatch(r"[0-2](\.\d+)+", uid)) or min(sizes) > 0


def count_frames(file: Path) -> int:
    """Number of frames, 0 for a file without pixels.

    Raises:
        ImageError: The file cannot hold as many frames as its header promises.
    """
    header = header_of(file)
    if not header.keyword:
        return 0
    count = int(number(header.dataset, "NumberOfFrames") or 1)
    size = len(header.body) if header.body else file.stat().st_size
    # A compressed frame takes the 8 bytes of its item's header at least.
    least = 8 if header.syntax.is_encapsulated else _frame_bytes(header)
    if count < 1 or count * least > size:
        raise ImageError(
            f"it is damaged: {count} frames are promised, which {size} bytes cannot hold"
        )
    return count


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
    except ImageError:
        raise
    except Exception as error:  # noqa: BLE001 - damaged files raise anything at all
        raise ImageError(
            f"its DICOM content is damaged or cut short and cannot be decoded "
            f"({type(error).__name__})"
        ) from None


def header_of(file: Path) -> Header:
    """The header of a file, which is kept for its next frame.

    Raises:
        ImageError: The file is not DICOM, or its header is damaged.
    """
    stat = file.stat()
    return _header(str(file), stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=4)
def _header(file: str, modified: int, size: int) -> Header:  # noqa: ARG001 - cache keys
    from pydicom.errors import InvalidDicomError

    try:
        with Path(file).open("rb") as opened:
            return _parse(opened)
    except ImageError:
        raise
    except InvalidDicomError:
        raise ImageError("it is not a DICOM file, or its header is damaged") from None
    except Exception as error:  # noqa: BLE001 - damaged files raise anything at all
        raise ImageError(
            f"it is not a DICOM file, or its header is damaged ({type(error).__name__})"
        ) from None


def _parse(opened: BinaryIO) -> Header:
    from pydicom.filereader import read_dataset, read_partial
    from pydicom.tag import Tag
    from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    found: dict[str, Any] = {}

    def at_pixels(tag: Any, vr: str | None, length: int) -> bool:
        if int(tag) in PIXELS:
            found.update(keyword=PIXELS[int(tag)], vr=vr, length=length)
        return bool(found)

    tags: list[Any] = [Tag(name) for name in (*PIXEL_TAGS, *DISPLAY_TAGS)]
    body = _inflated(opened)
    source = opened if body is None else io.BytesIO(body)
    if body is None:
        dataset: Any = read_partial(source, at_pixels, force=True, specific_tags=tags)
        named = str(dataset.file_meta.get("TransferSyntaxUID") or "")
    else:
        dataset = read_dataset(
            source,
            is_implicit_VR=False,
            is_little_endian=True,
            stop_when=at_pixels,
            specific_tags=tags,
        )
        named = str(ExplicitVRLittleEndian)
    implicit, little = dataset.original_encoding
    syntax = UID(named)
    if not named:
        syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        syntax = syntax if little else ExplicitVRBigEndian
    if not found:
        if body is None and not len(dataset) and not dataset.file_meta:
            raise ImageError("it is not a DICOM file, or its header is damaged")
        return Header(dataset, syntax, "", "", 0, None, body)
    # pydicom stops before the element, whose tag, kind and length take 8 or 12 bytes.
    start = source.tell() + (8 if found["vr"] is None else 12)
    length = None if found["length"] == 0xFFFFFFFF else int(found["length"])
    keyword = "" if length == 0 else found["keyword"]
    return Header(dataset, syntax, keyword, found["vr"] or "OW", start, length, body)


def _inflated(opened: BinaryIO) -> bytes | None:
    """The data set of a deflated file as it was before; None for all other files."""
    from pydicom.filereader import read_file_meta_info

    head = opened.read(4096)
    opened.seek(0)
    if head[128:132] != b"DICM" or DEFLATED.encode() not in head:
        return None
    meta = read_file_meta_info(opened.name)
    if str(meta.get("TransferSyntaxUID")) != DEFLATED:
        return None
    opened.seek(132 + 12 + int(meta.FileMetaInformationGroupLength))
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    body = unpacker.decompress(opened.read(), MAX_BYTES)
    if unpacker.unconsumed_tail:
        raise ImageError(f"it is too large: it unpacks to more than {MAX_BYTES} bytes")
    return body


def _checked(header: Header, file: Path) -> int:
    """The number of frames, once all that decoding needs to know is there and makes sense."""
    dataset = header.dataset
    missing = [name for name in ("Rows", "Columns") if not number(dataset, name)]
    missing += [] if text(dataset, "PhotometricInterpretation") else ["PhotometricInterpretation"]
    if missing or not header.keyword:
        what = ", ".join(missing) if missing else "pixel data"
        raise ImageError(f"this DICOM file holds no picture: it has no {what}")
    samples = _samples(dataset)
    bits = _bits(header)[0]
    rows, columns = (int(number(dataset, name) or 0) for name in ("Rows", "Columns"))
    check_size(rows, columns, samples * max(1, bits // 8))
    space = text(dataset, "PhotometricInterpretation")
    if space not in GREY | COLOUR_SPACES or samples != (1 if space in GREY else 3):
        known = space if re.fullmatch(r"[A-Z0-9_ ]{1,16}", space or "") else "unknown"
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
    name = syntax.name if syntax.name != str(syntax) else f"number {syntax}"
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
        if plugin not in decoder.available_plugins:
            raise ImageError(
                f"its compression, {name}, needs a package that is not installed: "
                f"pip install {package.replace(' and ', ' ') or 'pydicom'}"
            )


def _bits(header: Header) -> tuple[int, int, int, bool]:
    """Bits allocated and stored, the highest of those stored, and whether they are signed."""
    dataset = header.dataset
    floats = {"FloatPixelData": 32, "DoubleFloatPixelData": 64}
    if header.keyword in floats:
        allocated = floats[header.keyword]
        return allocated, allocated, allocated - 1, False
    allocated = int(number(dataset, "BitsAllocated") or 0)
    stored = int(number(dataset, "BitsStored") or allocated)
    high = number(dataset, "HighBit")
    highest = stored - 1 if high is None else int(high)
    if allocated not in (1, 8, 16, 32, 64) or not stored - 1 <= highest < allocated or stored < 1:
        raise ImageError(
            f"its {allocated} bits allocated, {stored} stored, highest bit {highest}, are not "
            "supported: expected 1, 8, 16, 32 or 64 bits that hold those stored"
        )
    return allocated, stored, highest, number(dataset, "PixelRepresentation") == 1


def _samples(dataset: Any) -> int:
    grey = text(dataset, "PhotometricInterpretation") in GREY
    return int(number(dataset, "SamplesPerPixel") or (1 if grey else 3))


def _frame_bytes(header: Header) -> int:
    """Least number of whole bytes of an uncompressed frame."""
    names = ("Rows", "Columns")
    rows, columns = (int(number(header.dataset, name) or 0) for name in names)
    samples = _samples(header.dataset)
    samples = 2 if text(header.dataset, "PhotometricInterpretation") == "YBR_FULL_422" else samples
    return rows * columns * samples * _bits(header)[0] // 8


@contextmanager
def _pixel_source(header: Header, file: Path) -> Iterator[BinaryIO]:
    """The file, or what it unpacks to, at the first byte of its pixels."""
    with file.open("rb") if header.body is None else io.BytesIO(header.body) as source:
        source.seek(header.start)
        yield source


def _decode(
    header: Header, file: Path, index: int, count: int
) -> tuple[Shaped[np.ndarray, "..."], str]:
    """Stored values of one frame, (row, col) or (row, col, 3), and their colour space."""
    from pydicom.pixels.decoders.base import get_decoder

    dataset = header.dataset
    allocated, stored, highest, signed = _bits(header)
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
    """A frame of one bit a pixel, which may start in the middle of a byte."""
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
    shape = (j2k_shape if ".4.9" in syntax or ".4.20" in syntax else jpeg_shape)(frame)
    expected = (options["rows"], options["columns"], options["samples_per_pixel"])
    if shape is None or (shape.height, shape.width, shape.channels) != expected:
        raise ImageError("it is damaged: its compressed pixels are not of the size in its header")
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
        import gdcm  # type: ignore[import-untyped]

        gdcm.Trace.WarningOff()
        gdcm.Trace.ErrorOff()
        return None
    if space not in GREY | {"RGB"}:
        return None
    return decode_jpeg(frame, shape)


def _true_bits(
    values: Shaped[np.ndarray, "..."], stored: int, highest: int, *, signed: bool
) -> Shaped[np.ndarray, "..."]:
    """The bits that are stored, alone: what lies above and below them belongs to overlays."""
    size = 8 * values.dtype.itemsize
    if stored > size:
        return values
    values = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("="), copy=False))
    shifted = values.view(np.dtype(f"u{values.dtype.itemsize}")) << np.uint8(size - 1 - highest)
    kind = "i" if signed else "u"
    return shifted.view(np.dtype(f"{kind}{values.dtype.itemsize}")) >> np.uint8(size - stored)
