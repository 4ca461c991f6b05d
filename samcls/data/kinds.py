"""What kind of file this is, by its first bytes, and the size and depth that its header promises.

Nothing is decoded, so that a file of absurd size costs its header alone. What is no image but often
stands in an image's place (a web page, a pointer of Git LFS, a compressed volume) is named as what it is.

    kind = kind_of(head)
    shape = jpeg_shape(data)      # or j2k_shape, png_shape
"""

import re
import struct
import warnings
from dataclasses import dataclass

from samcls.errors import ImageError

__all__ = [
    "HEAD_BYTES",
    "Shape",
    "hush",
    "j2k_depths",
    "j2k_shape",
    "jpeg_shape",
    "kind_of",
    "png_shape",
    "refuse_stranger",
]

HEAD_BYTES = 512  # of a file, enough for `kind_of` and `refuse_stranger`

DECODERS = r"(pydicom|tifffile|PIL|imagecodecs|pylibjpeg|openjpeg)\b"

SIGNATURES = {
    b"II*\0": "tiff", b"MM\0*": "tiff", b"II+\0": "tiff", b"MM\0+": "tiff",
    b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg",
    b"\0\0\0\x0cjP  \r\n\x87\n": "jp2", b"\xff\x4f\xff\x51": "jp2",
    b"P2": "pnm", b"P3": "pnm", b"P5": "pnm", b"P6": "pnm",
}  # fmt: skip

# What is found where an image was expected, and what to do about it.
STRANGERS = (
    (rb"\s*(<!--.*?-->\s*)?<(!doctype\s+html|html|head|body)\b",
     "it is a web page (HTML), not an image: the download went wrong, perhaps for want of a login"),
    (rb"version https://git-lfs\.github\.com/spec",
     "it is a pointer of Git LFS, not the image itself: run `git lfs pull`"),
    (rb"/annex/objects/|.{0,80}\.git/annex/objects/",
     "it is a pointer of git-annex, not the image itself: run `git annex get`"),
    (rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?(<!doctype\s+svg[^>]*>\s*)?<svg\b",
     "it is an SVG drawing: save it as PNG"),
    (rb"\s*<\?xml|\s*<Error>", "it is an XML document, not an image"),
    (rb"\s*[\[{]\s*[\"\]}\[{]", "it is JSON text, not an image: the download went wrong"),
    (rb"%PDF-", "it is a PDF document: save its pages as PNG"),
    (rb"....ftyp(heic|heix|heim|heis|hevc|mif1|msf1)", "it is a HEIC photograph: save it as PNG or JPEG"),
    (rb"....ftyp(avif|avis)", "it is an AVIF image: save it as PNG or JPEG"),
    (rb"....ftyp|\x1aE\xdf\xa3|RIFF....AVI |\0\0\x01\xba", "it is a film: save its frames as PNG"),
    (rb"(\xff\x0a|\0\0\0\x0cJXL )", "it is a JPEG XL image: save it as PNG or TIFF"),
    (rb"\x1f\x8b", "it is compressed with gzip: unpack it"),
    (rb"PK\x03\x04", "it is a ZIP archive: unpack it, or name an array of an .npz as FILE.npz#array"),
    (rb"(7z\xbc\xaf'\x1c|Rar!|BZh|\xfd7zXZ)", "it is a packed archive: unpack it"),
    (rb"\x93NUMPY", "it is a NumPy array (.npy): save it in an .npz and name it as FILE.npz#array"),
    (rb"\x89HDF", "it is an HDF5 file: save its images as PNG or in an .npz"),
    (rb"(\\\x01\0\0|\0\0\x01\\).{340}(n\+1|ni1)\0", "it is a NIfTI volume: save its slices as PNG or TIFF"),
    (rb"ObjectType|NDims\s*=", "it is a MetaImage volume: save its slices as PNG or TIFF"),
    (rb"NRRD0", "it is an NRRD volume: save its slices as PNG or TIFF"),
    (rb"\0\x05\x16\x07", "it is a companion file of macOS (._name), not an image"),
)  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """What a header promises.

    Attributes:
        height: In pixels.
        width: In pixels.
        channels: Components, alpha included.
        bits: Of the deepest component.
        plain: Whether it is the usual form that Pillow reads with all its bits.
        process: The number of a JPEG's frame marker; 0 elsewhere.
    """

    height: int
    width: int
    channels: int
    bits: int
    plain: bool
    process: int = 0


def hush() -> None:
    """Keep decoders' warnings about single files off standard error, for good and in all threads.

    `warnings.catch_warnings` would not do: it is not safe where several threads decode.
    """
    wanted = ("ignore", None, Warning, re.compile(DECODERS), 0)
    if wanted not in warnings.filters:
        warnings.filterwarnings("ignore", module=DECODERS)


def kind_of(head: bytes) -> str:
    """Return the kind by a file's first bytes; "other" where Pillow may know it."""
    if head[128:132] == b"DICM":
        return "dicom"
    found = [kind for mark, kind in SIGNATURES.items() if head.startswith(mark)]
    return found[0] if found else "other"


def refuse_stranger(head: bytes) -> None:
    """Raise ImageError that names what the file is, where it is known to be no image of ours."""
    for pattern, reason in STRANGERS:
        if re.match(pattern, head, re.DOTALL | re.IGNORECASE):
            raise ImageError(reason)
    if head and not head.strip(b"\0"):
        raise ImageError(
            f"its first {len(head)} bytes are all zero: it is damaged, perhaps by a copy cut short"
        )


def png_shape(data: bytes) -> Shape | None:
    """Size and depth of a PNG by its IHDR chunk; None where there is none."""
    if data[12:16] != b"IHDR" or len(data) < 26:
        return None
    width, height, bits, colour = struct.unpack(">IIBB", data[16:26])
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 0)
    return Shape(height, width, channels, bits, bits <= 8)


def jpeg_shape(data: bytes) -> Shape | None:
    """Size, depth and process of a JPEG or JPEG-LS by its frame header; None where there is none."""
    place = 2
    while place + 10 <= len(data):
        if data[place] != 0xFF:
            return None
        marker = data[place + 1]
        if marker in {0xFF, 0x01} or 0xD0 <= marker <= 0xD8:  # fill, or without a length
            place += 1 if marker == 0xFF else 2
            continue
        if (0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}) or marker == 0xF7:
            bits, height, width, channels = struct.unpack(">BHHB", data[place + 4 : place + 10])
            plain = bits == 8 and marker in {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}
            return Shape(height, width, channels, bits, plain, marker)
        place += 2 + struct.unpack(">H", data[place + 2 : place + 4])[0]
    return None


def j2k_shape(data: bytes) -> Shape | None:
    """Size and depth of a JPEG 2000 by its SIZ marker; None where there is none."""
    start = data.find(b"\xff\x4f\xff\x51")
    depths = j2k_depths(data)
    if not depths:
        return None
    right, bottom, left, top = struct.unpack(">IIII", data[start + 8 : start + 24])
    bits = max(depth & 0x7F for depth in depths) + 1
    return Shape(bottom - top, right - left, len(depths), bits, set(depths) == {7})


def j2k_depths(data: bytes) -> list[int]:
    """For each channel of a JPEG 2000 its bits less one, and 128 more where it is signed."""
    start = data.find(b"\xff\x4f\xff\x51")
    count = data[start + 40 : start + 42]
    channels = int.from_bytes(count, "big") if start >= 0 and len(count) == 2 else 0
    parts = data[start + 42 : start + 42 + 3 * channels]
    return list(parts[::3]) if channels and len(parts) == 3 * channels else []
