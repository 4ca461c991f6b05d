"""The elements of a DICOM file before its pixels, and where those are.

Only the elements named here are ever parsed: no name, date or number of a patient. The header of a
file of many frames is kept for the next one. A blank element is an absent one.

    header = header_of(Path("ct.dcm"))
"""

import functools
import io
import logging
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from samcls.data.arrays import MAX_BYTES
from samcls.errors import ImageError

__all__ = [
    "GREY",
    "Header",
    "bits_of",
    "count_frames",
    "header_of",
    "is_dicom",
    "number",
    "numbers",
    "present",
    "samples_of",
    "text",
]

COLOURS = ("Red", "Green", "Blue")
DISPLAY_TAGS = [
    "RescaleIntercept", "RescaleSlope", "ModalityLUTSequence",
    "WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence", "PresentationLUTShape",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    "PixelPaddingValue", "PixelPaddingRangeLimit",
    "FloatPixelPaddingValue", "FloatPixelPaddingRangeLimit",
    "DoubleFloatPixelPaddingValue", "DoubleFloatPixelPaddingRangeLimit",
    *(f"{colour}PaletteColorLookupTableDescriptor" for colour in COLOURS),
    *(f"{colour}PaletteColorLookupTableData" for colour in COLOURS),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in COLOURS),
]  # fmt: skip
PIXEL_TAGS = [
    "SOPClassUID", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration",
    "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "ExtendedOffsetTable", "ExtendedOffsetTableLengths",
]  # fmt: skip
PIXELS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}
DEFLATED = "1.2.840.10008.1.2.1.99"
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
    """Return the number of frames, 0 for a file without pixels.

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


def header_of(file: Path) -> Header:
    """Return the header of a file, which is kept for its next frame.

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
    except (ImageError, MemoryError):
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
    """Return the data set of a deflated file as it was before; None for all other files."""
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


def present(dataset: Any, name: str) -> Any:
    """Return an element's value; None where it is absent or blank, which mean the same."""
    if dataset is None or name not in dataset:
        return None
    value = dataset[name].value
    if value is None or (isinstance(value, str) and not value.strip(" \0")):
        return None
    if hasattr(value, "__len__") and len(value) == 0:
        return None
    return value


def text(dataset: Any, name: str) -> str | None:
    """Return a word in capitals; None where it is absent or blank."""
    value = present(dataset, name)
    if value is not None and not isinstance(value, str) and hasattr(value, "__len__"):
        value = value[0]
    return None if value is None else " ".join(str(value).strip(" \0").upper().split()) or None


def number(dataset: Any, name: str) -> float | None:
    """Return the first number of an element that is not blank; None where there is none."""
    found = [value for value in numbers(dataset, name) if value is not None]
    return found[0] if found else None


def numbers(dataset: Any, name: str) -> list[float | None]:
    """All numbers of an element, None for those that are blank."""
    value = present(dataset, name)
    if value is None:
        return []
    several = (
        value if hasattr(value, "__iter__") and not isinstance(value, str | bytes) else [value]
    )
    try:
        return [None if str(one).strip(" \0") == "" else float(one) for one in several]
    except (TypeError, ValueError):
        raise ImageError(f"it is damaged: its element {name} is no number") from None


def bits_of(header: Header) -> tuple[int, int, int, bool]:
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


def samples_of(dataset: Any) -> int:
    """Return the samples a pixel; what the colour space has where the file does not say."""
    grey = text(dataset, "PhotometricInterpretation") in GREY
    return int(number(dataset, "SamplesPerPixel") or (1 if grey else 3))


def _frame_bytes(header: Header) -> int:
    """Least number of whole bytes of an uncompressed frame."""
    names = ("Rows", "Columns")
    rows, columns = (int(number(header.dataset, name) or 0) for name in names)
    samples = samples_of(header.dataset)
    samples = 2 if text(header.dataset, "PhotometricInterpretation") == "YBR_FULL_422" else samples
    return rows * columns * samples * bits_of(header)[0] // 8
