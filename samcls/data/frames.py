"""What a file holds before it is decoded: DICOM or not, and how many pictures.

Only headers are read, whatever a file's size. The frames counted here are those that `read_image`
takes an index of.

    if holds_dicom(file): ...
    indices = range(frames_of(file))
"""

from pathlib import Path

from samcls.data.dicom_file import count_frames, is_dicom
from samcls.data.images import count_animation
from samcls.data.kinds import HEAD_BYTES, hush, kind_of
from samcls.data.tiff import count_pages

__all__ = ["frames_of", "holds_dicom"]


def holds_dicom(path: str | Path) -> bool:
    """Whether the file's content is DICOM, with or without a preamble; its name plays no part.

    A file that cannot be opened holds none.
    """
    hush()
    try:
        return is_dicom(Path(path), _head(Path(path)))
    except OSError:
        return False


def frames_of(path: str | Path) -> int:
    """Return the number of pictures in a file: frames of a DICOM, GIF, WebP or PNG, pages of a TIFF, else 1.

    A DICOM file without pixels (a report, a DICOMDIR) holds 0. A file that cannot be read counts
    as one, so that it keeps a row that fails with its reason.
    """
    hush()
    file = Path(path)
    try:
        head = _head(file)
        kind = kind_of(head)
        if kind == "dicom" or (kind == "other" and is_dicom(file, head)):
            return count_frames(file)
        if kind == "tiff":
            return max(1, count_pages(file))
        return count_animation(file)
    except Exception:  # noqa: BLE001 - the reason is read_image's to give
        return 1


def _head(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(HEAD_BYTES)
