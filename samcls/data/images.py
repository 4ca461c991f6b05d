"""Image files to RGB to encoder frames: the only door to Pillow, pydicom and tifffile.

A file that is damaged, cut short, absurdly large or of another kind raises `ImageError` with the
file's name and the reason; nothing is filled in. What the bytes say counts, not the suffix. Reading
and framing one 256 x 256 JPEG at 256 pixels takes about 1.5 ms, a 6-megapixel one at 1024 some 150.

    frame = make_frame(read_image("lesion.jpg"), 1024)
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Shaped, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from samcls.data.arrays import MAX_PIXELS, check_size, read_row, to_rgb
from samcls.data.manifest import file_of
from samcls.errors import ImageError

__all__ = [
    "MAX_PIXELS",
    "PREPROCESSING_VERSION",
    "SUFFIXES",
    "Frame",
    "Resize",
    "make_frame",
    "pixel_digest",
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

Resize = Literal["longest", "stretch"]

# The only elements of a DICOM file that are ever parsed: no name, date or number of a patient.
DICOM_TAGS = [
    "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames",
    "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "RescaleIntercept", "RescaleSlope", "ModalityLUTSequence",
    "WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence",
    "RedPaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableDescriptor", "BluePaletteColorLookupTableData",
    "SegmentedRedPaletteColorLookupTableData", "SegmentedGreenPaletteColorLookupTableData",
    "SegmentedBluePaletteColorLookupTableData",
    "ExtendedOffsetTable", "ExtendedOffsetTableLengths",
    "FloatPixelData", "DoubleFloatPixelData", "PixelData",
]  # fmt: skip


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

    Grey pictures of 16 or 32 bits or of floats are scaled linearly from their own minimum..maximum
    to 0..255 (a constant one becomes 0). EXIF orientation is applied, palettes are resolved and
    transparency is laid over black. DICOM: modality rescale, then the file's own window, or
    minimum..maximum where it has none; 8-bit values with neither stay as they are, as in a PNG;
    MONOCHROME1 is inverted.

    Args:
        path: A file, or `FILE.npz#array`.
        index: Row of the array, page of a TIFF or frame of a DICOM, GIF or WebP; needed only where
            there are several.

    Raises:
        ImageError: The file is missing, empty, cut short, damaged, of another kind or above
            `MAX_PIXELS`; `index` is missing or out of range; or a value is not finite.
    """
    try:
        return _read(path, index)
    except ImageError as error:
        raise ImageError(f"the image {path} cannot be read: {error}") from error
    except Exception as error:  # decoders of damaged files raise anything at all
        reason = str(error) or type(error).__name__
        raise ImageError(f"the image {path} cannot be read: {reason}") from error


def pixel_digest(image: UInt8[np.ndarray, "row col 3"]) -> str:
    """SHA-256, in hexadecimal, of the shape and the decoded pixels: equal pictures, equal digest."""
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


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
        head = opened.read(132)
    if head[128:] == b"DICM" or file.suffix.lower() in {".dcm", ".dicom"}:
        return _read_dicom(file, index)
    if head[:4] in {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"}:
        return _read_tiff(file, index)
    return _read_pillow(file, index)


def _choose(count: int, index: int | None, what: str) -> int:
    """The page or frame meant, which need not be named where there is only one."""
    if index is None and count > 1:
        raise ImageError(f"it holds {count} {what}s: name one of 0..{count - 1} as its index")
    if index is not None and not 0 <= index < count:
        raise ImageError(f"index {index} is outside its {count} {what}(s)")
    return index or 0


def _read_pillow(file: Path, index: int | None) -> UInt8[np.ndarray, "row col 3"]:
    try:
        image = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError as error:
        raise ImageError("it is no image of a known kind, or its header is damaged") from error
    with image:
        # An MPO's further frames are a phone's depth or gain maps, not pictures to choose from.
        count = 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))
        image.seek(_choose(count, index, "page" if image.format == "TIFF" else "frame"))
        check_size(image.height, image.width)
        image.load()
        return _pillow_to_rgb(image)


def _pillow_to_rgb(image: Image.Image) -> UInt8[np.ndarray, "row col 3"]:
    if image.mode.startswith(("I", "F")):
        return _deep_to_rgb(image)
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        picture = image.convert("RGBA")
        ground = Image.new("RGBA", picture.size, (0, 0, 0, 255))
        image = Image.alpha_composite(ground, picture)
    return np.array(image.convert("RGB"))


def _deep_to_rgb(image: Image.Image) -> UInt8[np.ndarray, "row col 3"]:
    """Grey of 16 or 32 bits or floats, with what Pillow leaves to its caller in a TIFF."""
    tags: Any = getattr(image, "tag_v2", {})
    values = np.asarray(ImageOps.exif_transpose(image))
    if image.mode == "I" and tags.get(339, (1,)) == (1,):  # unsigned, which Pillow holds as signed
        values = values.view(np.uint32)
    rgb = to_rgb(values)
    return 255 - rgb if tags.get(262) == 0 else rgb  # 0: white is zero


def _read_tiff(file: Path, index: int | None) -> UInt8[np.ndarray, "row col 3"]:
    """Through Pillow, which knows more compressions, but not doubles.

    It opens colour of more than 8 bits too, but keeps the high byte alone, and mixes up the rows
    where each channel has a plane of its own.
    """
    try:
        with Image.open(file, formats=("TIFF",)) as image:
            bits: tuple[int, ...] = getattr(image, "tag_v2", {}).get(258, (1,))
    except UnidentifiedImageError:
        return _read_tifffile(file, index)
    deep_colour = len(bits) > 1 and max(bits) > 8
    return _read_tifffile(file, index) if deep_colour else _read_pillow(file, index)


def _read_tifffile(file: Path, index: int | None) -> UInt8[np.ndarray, "row col 3"]:
    import tifffile

    with tifffile.TiffFile(file) as tiff:
        page: Any = tiff.pages[_choose(len(tiff.pages), index, "page")]
        check_size(page.imagelength, page.imagewidth)
        end = file.stat().st_size
        # tifffile fills a missing strip in, where a row of the manifest is to fail.
        strips = list(zip(page.dataoffsets, page.databytecounts, strict=True))
        if not strips or any(not count or start + count > end for start, count in strips):
            raise ImageError("the file is cut short: it ends before its pixels do")
        orientation = page.tags.valueof("Orientation", default=1)
        if orientation != 1 or page.photometric.name not in {"MINISBLACK", "MINISWHITE", "RGB"}:
            raise ImageError(
                f"a TIFF of type {page.dtype}, {page.photometric.name}, orientation {orientation} "
                "is not supported: save it upright, as grey or RGB"
            )
        values = page.asarray()
        if page.axes == "SYX":
            values = np.moveaxis(values, 0, -1)
        rgb = to_rgb(values)
        return 255 - rgb if page.photometric.name == "MINISWHITE" else rgb


def _read_dicom(file: Path, index: int | None) -> UInt8[np.ndarray, "row col 3"]:
    """Decode one frame. Errors name their kind alone, since their text may quote the header."""
    import pydicom

    try:
        dataset = pydicom.dcmread(file, specific_tags=DICOM_TAGS)
        return _dicom_to_rgb(dataset, index)
    except ImageError:
        raise
    except pydicom.errors.InvalidDicomError:
        raise ImageError("it is not a DICOM file, or its header is damaged") from None
    except Exception as error:  # noqa: BLE001 - damaged files raise anything at all
        raise ImageError(
            f"its DICOM pixel data cannot be decoded ({type(error).__name__}): it is damaged, cut "
            "short, or compressed in a way that needs a decoder such as pylibjpeg"
        ) from None


def _dicom_to_rgb(dataset: Any, index: int | None) -> UInt8[np.ndarray, "row col 3"]:
    from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
    from pydicom.pixels.utils import pixel_array

    missing = [
        name for name in ("Rows", "Columns", "PhotometricInterpretation") if name not in dataset
    ]
    if missing:
        raise ImageError(f"this DICOM file holds no picture: it has no {', '.join(missing)}")
    check_size(int(dataset.Rows), int(dataset.Columns))
    frame = _choose(int(dataset.get("NumberOfFrames") or 1), index, "frame")
    values = pixel_array(dataset, index=frame)
    kind = dataset.PhotometricInterpretation
    if kind == "PALETTE COLOR":
        colours = apply_color_lut(values, dataset)[:, :, :3]
        deep = int(dataset.RedPaletteColorLookupTableDescriptor[2]) > 8
        return to_rgb((colours >> 8 if deep else colours).astype(np.uint8))
    if values.ndim == 3:
        return to_rgb(values)
    # An identity would turn 8-bit values into doubles, and those are scaled.
    identity = (dataset.get("RescaleSlope", 1), dataset.get("RescaleIntercept", 0)) == (1, 0)
    if "ModalityLUTSequence" in dataset or not identity:
        values = apply_modality_lut(values, dataset)
    elif values.dtype == np.uint8 and dataset.BitsStored != 8:
        values = values.astype(np.uint16)  # so that a mask of 0 and 1 is scaled too
    rgb = to_rgb(_window(values, dataset))
    return 255 - rgb if kind == "MONOCHROME1" else rgb


def _window(values: Shaped[np.ndarray, "row col"], dataset: Any) -> Shaped[np.ndarray, "row col"]:
    """Grey values through the file's VOI table or first window; unchanged where it has neither.

    The three functions are those of DICOM PS3.3, C.11.2.1.2 and C.11.2.1.3.
    """
    if "VOILUTSequence" in dataset:
        shown = _look_up(values, dataset.VOILUTSequence[0])
    elif "WindowCenter" in dataset and "WindowWidth" in dataset:
        centre, width = _first(dataset.WindowCenter), _first(dataset.WindowWidth)
        function = str(dataset.get("VOILUTFunction") or "LINEAR").upper()
        distance = values.astype(np.float64) - centre
        if function == "SIGMOID":
            shown = 1 / (1 + np.exp(np.clip(-4 * distance / width, -700, 700)))
        elif function == "LINEAR_EXACT":
            shown = distance / width + 0.5
        else:
            shown = (distance + 0.5) / max(width - 1, 1e-9) + 0.5
    else:
        return values
    rounded: np.ndarray = np.rint(np.clip(shown, 0, 1) * 255).astype(np.uint8)
    return rounded


def _look_up(values: Shaped[np.ndarray, "row col"], item: Any) -> Float[np.ndarray, "row col"]:
    """Entries of a VOI table, 0..1; values beyond its ends show its first and last entry."""
    _, start, bits = map(int, item.LUTDescriptor)
    data = item.LUTData
    table = np.frombuffer(data, "<u2") if isinstance(data, bytes) else np.asarray(data)
    places = np.clip(np.rint(values).astype(np.int64) - start, 0, len(table) - 1)
    entries: np.ndarray = table[places] / (2.0**bits - 1)
    return entries


def _first(value: Any) -> float:
    """A window's centre and width may each be a list, of which the first is the default."""
    return float(value if isinstance(value, (int, float, str)) else value[0])
