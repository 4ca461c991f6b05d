"""Which files of a folder are pictures, and the rows that each becomes.

A file counts by its suffix or, for DICOM, by its content. Its header is read for the number of
frames.

    pictures, others = find_pictures(tree, tree.files)
    rows = [row for file, count in pictures.items() for row in frame_rows(file, count, "all")]
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from samcls.data.frames import frames_of, holds_dicom
from samcls.data.images import SUFFIXES
from samcls.data.tree import SHOWN, Tree
from samcls.errors import ConfigError

__all__ = [
    "FRAMES",
    "FrameRow",
    "FrameRule",
    "by_suffix",
    "find_pictures",
    "is_picture",
    "mask_note",
]

FRAMES = ("all", "first", "middle")
DICOMDIR = "DICOM files without pixels (reports, DICOMDIR)"

MASK = re.compile(
    r"(.+?)[ _.-](?:mask|masks|seg|segmentation|superpixels|gt|groundtruth)(?:[ _.-]?\d+)?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class FrameRow:
    """One row of a file: what its id adds to the file's, and the index of the frame."""

    suffix: str
    index: int | None


@dataclass
class FrameRule:
    """Which frames of a file with several become rows, and what was met so far.

    Attributes:
        which: One of `FRAMES`.
        files: Files with several frames.
        rows: Rows that they became.
    """

    which: str
    files: int = field(default=0, init=False)
    rows: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.which not in FRAMES:
            raise ConfigError(f"the frames {self.which!r} are unknown: expected all, first, middle")

    def rows_of(self, count: int) -> list[FrameRow]:
        """Return the rows of a file with so many frames."""
        if count <= 1:
            return [FrameRow("", None)]
        chosen = {"all": range(count), "first": [0], "middle": [count // 2]}[self.which]
        rows = [FrameRow(f"#{i}" if self.which == "all" else "", i) for i in chosen]
        self.files += 1
        self.rows += len(rows)
        return rows

    def notes(self) -> list[str]:
        """Return what became of files with several frames."""
        if not self.files:
            return []
        kept = "as a row each" if self.which == "all" else f"of which the {self.which} one is a row"
        return [f"{self.files} file(s) hold several frames, {kept}: {self.rows} rows"]


def is_picture(file: Path) -> bool:
    """Whether a file's suffix or, for DICOM, its content is that of a picture."""
    return file.suffix.lower() in SUFFIXES or holds_dicom(file)


def find_pictures(tree: Tree, files: Iterable[str]) -> dict[str, int]:
    """Return the number of frames of each file that is a picture; the others are counted as left out."""
    found = {}
    for file in files:
        path = tree.root / file
        if path.name.upper() == "DICOMDIR":
            tree.left_out.add(DICOMDIR, file)
        elif not is_picture(path):
            tree.left_out.add(by_suffix(file), file)
        elif count := frames_of(path):
            found[file] = count
        else:
            tree.left_out.add(DICOMDIR, file)
    return found


def by_suffix(file: str) -> str:
    """Return the reason why a file of another kind is left out."""
    suffix = PurePosixPath(file).suffix.lower()
    return f"files ending in {suffix}" if suffix else "files without a suffix"


def mask_note(pictures: Sequence[str]) -> list[str]:
    """Return a note where pictures are named like masks of others in the same folder."""
    stems = {str(PurePosixPath(file).with_suffix("")) for file in pictures}
    masks = [
        file
        for file in pictures
        if (found := MASK.fullmatch(PurePosixPath(file).stem))
        and str(PurePosixPath(file).parent / found[1]) in stems
    ]
    if not masks:
        return []
    shown = ", ".join(masks[:SHOWN])
    note = (
        f"WARNING: {len(masks)} image(s) are named like masks of others and are rows like them: "
        f"{shown}; move them out of the folder if they are no pictures to learn from"
    )
    return [note]
