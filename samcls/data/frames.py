"""What a file holds before it is decoded: DICOM or not, and how many pictures.

Only headers are read: some 0.2 ms a file, whatever its size. The frames counted here are those that
`read_image` takes an index of.

    if holds_dicom(file): ...
    indices = range(frames_of(file))
"""

import re
import warnings
from pathlib import Path
from typing import Any

__all__ = ["frames_of", "holds_dicom"]

TIFF_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def holds_dicom(path: str | Path) -> bool:
    """Whether the file's content is DICOM, with or without a preamble; its name plays no part.

    A file that cannot be opened holds none.
    """
    try:
        with Path(path).open("rb") as opened:
            head = opened.read(132)
    except OSError:
        return False
    if head[128:] == b"DICM":
        return True
    # Without a preamble a data set starts with a low element of group 2 or 8, in either byte order.
    if len(head) < 132 or not re.match(rb"[\x02\x08]\0.\0|\0[\x02\x08]\0.", head, re.DOTALL):
        return False
    try:
        dataset, _ = _dicom_header(Path(path))
        uid = str(dataset.get("SOPClassUID") or "")
        sizes = [int(dataset.get(name) or 0) for name in ("Rows", "Columns")]
    except Exception:  # noqa: BLE001 - what is no DICOM raises anything at all
        return False
    return bool(re.fullmatch(r"[0-2](\.\d+)+", uid)) or min(sizes) > 0


def frames_of(path: str | Path) -> int:
    """Number of pictures in a file: frames of a DICOM, GIF, WebP or PNG, pages of a TIFF, else 1.

    A DICOM file without pixels (a report, a DICOMDIR) holds 0. A file that cannot be read counts
    as one, so that it keeps a row that fails with its reason.
    """
    try:
        return _count(Path(path))
    except Exception:  # noqa: BLE001 - the reason is read_image's to give
        return 1


def _count(file: Path) -> int:
    if holds_dicom(file):
        dataset, pixels = _dicom_header(file)
        if not pixels:
            return 0
        frames = int(dataset.get("NumberOfFrames") or 1)
        return frames if 0 < frames <= file.stat().st_size else 1
    with file.open("rb") as opened:
        head = opened.read(4)
    if head in TIFF_MARKS:
        import tifffile

        with tifffile.TiffFile(file) as tiff:
            return len(tiff.pages)
    from PIL import Image

    with Image.open(file) as image:
        return 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))


def _dicom_header(file: Path) -> tuple[Any, bool]:
    """The elements that say what a DICOM file is, and whether pixels follow them."""
    from pydicom.filereader import read_partial
    from pydicom.tag import Tag

    pixel_tags = {Tag(0x7FE00008), Tag(0x7FE00009), Tag(0x7FE00010)}
    seen = []

    def at_pixels(tag: Any, _vr: str | None, _length: int) -> bool:
        if tag in pixel_tags:
            seen.append(tag)
        return bool(seen)

    names = [0x00080016, 0x00280008, 0x00280010, 0x00280011]
    with warnings.catch_warnings(), file.open("rb") as opened:
        warnings.simplefilter("ignore")
        dataset = read_partial(opened, at_pixels, force=True, specific_tags=names)
        for element in list(dataset.keys()):
            dataset[element]
    return dataset, bool(seen)
