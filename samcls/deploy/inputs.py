"""What a user names to be predicted, as rows: files, folders, a manifest, an .npz, DICOM, paths on standard input.

Nothing is decoded here. A file that is not there or is no picture keeps its row, which then fails with its
reason; a folder's other files are counted.

    found = pictures_of(["scans/", "extra.dcm", "manifest.csv", "archive.npz"])
    found.rows[0].id, found.rows[0].path
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from samcls.data.arrays import array_shapes
from samcls.data.frames import frames_of
from samcls.data.manifest import Row, file_of, read_manifest
from samcls.data.pictures import FrameRule, find_pictures
from samcls.data.tree import walk
from samcls.errors import ImageError, InputError
from samcls.files import few

__all__ = ["STDIN", "Pictures", "pictures_of"]

STDIN = "-"
SPLIT = "test"  # of rows that nothing else is known of
IMAGES = "_images"  # how MedMNIST's arrays of pictures end
STORE_MARK = "zarr.json"


@dataclass(frozen=True)
class Pictures:
    """Rows to be predicted, in the order in which they were named.

    Attributes:
        rows: One for each picture; a file of several frames has several.
        tasks: Class names of each task, where a single manifest was named that has labels.
        meta: Names of its meta columns.
        notes: Sentences on what was left out.
    """

    rows: tuple[Row, ...]
    tasks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    meta: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def texts(self) -> dict[str, list[str]]:
        """Return each meta column's texts."""
        return {name: [row.meta[i] for row in self.rows] for i, name in enumerate(self.meta)}


def pictures_of(
    inputs: Sequence[str | Path],
    *,
    root: str | Path | None = None,
    stdin: Iterable[str] | None = None,
) -> Pictures:
    """Return the pictures that are meant.

    Args:
        inputs: Files, folders, one manifest (`.csv`), archives (`FILE.npz`, all its pictures, or
            `FILE.npz#array`), or `-` for a path a line on standard input.
        root: Folder that a manifest's relative paths start from; its own by default.
        stdin: In place of standard input.

    Raises:
        InputError: nothing was named, a folder or archive holds no picture, or a manifest stands beside
            something else.
        ManifestError: the manifest cannot be read.
    """
    named = [str(one) for one in inputs]
    tables = [one for one in named if one.lower().endswith(".csv")]
    if tables and len(named) > 1:
        raise InputError(
            f"{tables[0]} is a manifest and stands beside {few(o for o in named if o != tables[0])}; "
            "name a manifest alone, or the pictures"
        )
    if tables:
        manifest = read_manifest(tables[0], root, bare=True)
        return Pictures(manifest.rows, manifest.tasks, manifest.meta, manifest.remarks)
    rows: list[Row] = []
    notes: list[str] = []
    for one in named:
        if one == STDIN:
            lines = sys.stdin if stdin is None else stdin
            paths = [line.rstrip("\r\n") for line in lines]
            rows += [row for path in paths if path.strip() for row in _of_path(path, notes)]
        else:
            rows += _of_path(one, notes)
    if not rows:
        raise InputError(
            "no path came on standard input; expected one a line"
            if STDIN in named
            else "no picture was named; name files, folders, a manifest (.csv) or an .npz"
        )
    return Pictures(tuple(rows), notes=tuple(notes))


def _of_path(path: str, notes: list[str]) -> list[Row]:
    if Path(path).is_dir():
        return _of_folder(Path(path), notes)
    if file_of(path)[1] is not None or path.lower().endswith(".npz"):
        return _of_archive(path)
    return _of_file(path, path)


def _of_folder(folder: Path, notes: list[str]) -> list[Row]:
    """Return the pictures of a folder at any depth."""
    if (folder / STORE_MARK).exists():
        raise InputError(
            f"{folder} is a feature store, not a folder of pictures; its images are predicted and scored "
            f"with: samcls evaluate RUN {folder}"
        )
    tree = walk(folder.resolve())
    rule, rows = FrameRule("all"), []
    for file, count in find_pictures(tree, tree.files).items():
        name = str(folder / file)
        frames = rule.rows_of(count)
        group = name if len(frames) > 1 else ""
        rows += [_row(name + one.suffix, name, one.index, group) for one in frames]
    left = tree.left_out
    counts = ", ".join(f"{reason}: {count}" for reason, count in left.counts().items())
    if not rows:
        raise InputError(
            f"{folder} holds no picture" + (f" (left out: {counts})" if counts else ": it is empty")
        )
    notes += [f"{folder}: left out: {counts}"] if counts else []
    notes += [*rule.notes(), *left.notes()]
    return rows


def _of_archive(path: str) -> list[Row]:
    """Return the rows of an archive's arrays of pictures."""
    file, chosen = file_of(path)
    if not Path(file).exists():
        return _of_file(path, path)
    try:
        shapes = array_shapes(file)
    except ImageError as error:
        raise InputError(f"{file} cannot be read: {error}") from error
    pictures = {name: shape for name, shape in shapes.items() if _holds_pictures(shape)}
    named = {name: shape for name, shape in pictures.items() if name.endswith(IMAGES)}
    if chosen is not None:
        named = {chosen: pictures[chosen]} if chosen in pictures else {}
    elif not named:
        named = pictures
    if not named:
        held = ", ".join(f"{name} {shape}" for name, shape in shapes.items()) or "nothing"
        raise InputError(
            f"{path} holds no array of pictures, (image, row, col) or (image, row, col, 3); it has {held}"
        )
    return [
        _row(f"{name.removesuffix(IMAGES)}_{i:05}", f"{file}#{name}", i)
        for name, shape in named.items()
        for i in range(shape[0])
    ]


def _holds_pictures(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3))


def _of_file(name: str, path: str) -> list[Row]:
    """Return a row for each picture of a file; one that cannot be looked into keeps one."""
    try:
        count = frames_of(path)
    except (OSError, ValueError):
        count = 1
    frames = FrameRule("all").rows_of(max(1, count))
    group = name if len(frames) > 1 else ""
    return [_row(name + one.suffix, path, one.index, group) for one in frames]


def _row(name: str, path: str, index: int | None, group: str = "") -> Row:
    file, array = file_of(path)
    absolute = str(Path(file).absolute())
    return Row(name, absolute if array is None else f"{absolute}#{array}", index, SPLIT, group, ())
