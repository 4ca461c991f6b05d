"""Writing a manifest: whole or not at all, and only what would read back as it is.

write_manifest(rows, ("malignancy",), "breastmnist.csv")
"""

import csv
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from samcls.data.columns import TaskColumn, meta_column, parse_header, task_columns
from samcls.data.manifest import Row
from samcls.errors import ManifestError, OverwriteRefused

__all__ = ["refuse_existing", "write_manifest"]


def refuse_existing(out: Path, *, overwrite: bool) -> None:
    """Raise OverwriteRefused where something is at `out` and may not be replaced."""
    if out.exists() and not overwrite:
        raise OverwriteRefused(
            f"the manifest {out} is already there: remove it, name another file, or ask for it "
            "to be overwritten"
        )


def write_manifest(
    rows: Sequence[Row],
    tasks: Sequence[str | TaskColumn],
    out: str | Path,
    *,
    meta: Sequence[str] = (),
    overwrite: bool = False,
) -> Path:
    """Write a manifest whole or not at all, its paths relative to its own folder where they can be.

    Args:
        rows: At least one row, paths absolute.
        tasks: Tasks, or their names, in the order of each row's labels.
        out: The CSV to write; its folder is made where it is missing.
        meta: Names of the columns that training never sees, in the order of each row's `meta`.
        overwrite: Replace a file that is there.

    Returns:
        The path written.

    Raises:
        OverwriteRefused: Something is at `out` already.
        ManifestError: The rows would not read back as they are, or `out` cannot be written.
    """
    out = Path(out)
    refuse_existing(out, overwrite=overwrite)
    folder = os.path.realpath(out.parent)
    optional = [
        name
        for name, used in (
            ("index", any(row.index is not None for row in rows)),
            ("group", any(row.group for row in rows)),
        )
        if used
    ]
    declared = [column.text for column in task_columns(tasks)]
    declared += [meta_column(name) for name in meta]
    header = ["id", "path", *optional, "split", *declared]
    _refuse_unreadable(out, header, task_columns(tasks), meta)
    lines = (_cells(row, folder, optional) for row in rows)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _write_whole(out, header, lines)
    except (OSError, UnicodeEncodeError) as error:
        raise ManifestError(f"the manifest {out} cannot be written: {error}") from error
    return out


def _refuse_unreadable(
    out: Path, header: Sequence[str], tasks: Sequence[TaskColumn], meta: Sequence[str]
) -> None:
    """Raise where the header would be read as another one."""
    read = parse_header(header)
    if read.problems or list(read.tasks) != list(tasks) or list(read.meta) != list(meta):
        said = "; ".join(read.problems) or f"{', '.join(header)} would be read as something else"
        raise ManifestError(f"the header of {out} cannot be written: {said}; rename the column")


def _cells(row: Row, folder: str, optional: Sequence[str]) -> list[str]:
    """One line of the CSV."""
    extra = {"index": "" if row.index is None else str(row.index), "group": row.group}
    path = _relative(row.path, folder)
    cells = [row.id, path, *(extra[name] for name in optional), row.split, *row.labels, *row.meta]
    for cell in cells:
        if cell != cell.strip() or "\n" in cell or "\r" in cell:
            raise ManifestError(
                f"image {row.id!r}: {cell!r} holds a line break or starts or ends with white "
                "space, which a CSV does not keep: rename it"
            )
    return cells


def _relative(path: str, folder: str) -> str:
    """Relative to the manifest's folder, unless the two have nothing but the disk's root in common."""
    try:
        if os.path.commonpath([path, folder]) == os.path.commonpath([path, os.sep]):
            return path
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # on different drives
        return path


def _write_whole(out: Path, header: list[str], lines: Iterable[list[str]]) -> None:
    """Write beside the target, then move into place: a reader never sees half a file."""
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(header)
            writer.writerows(lines)
        part.replace(out)
    finally:
        with suppress(FileNotFoundError):
            part.unlink()
