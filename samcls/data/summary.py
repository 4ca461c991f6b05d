"""The last step of every source: check the labels, write the manifest, count what it holds.

A source finds the rows; this module looks through folders for it and says what became of each file.
Writing 100,000 rows takes about a second.

    return finish(rows, ["label"], out, ignored=by_suffix(left_out), overwrite=False)
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from samcls.data.manifest import (
    SPLITS,
    Manifest,
    Row,
    check_labels,
    class_order,
)
from samcls.data.manifest_file import write_manifest
from samcls.errors import ManifestError

__all__ = ["Summary", "by_suffix", "existing_folder", "files_below", "finish", "is_shown"]


@dataclass(frozen=True)
class Summary:
    """What a new manifest holds, and what was left out of it.

    Attributes:
        manifest: The CSV written.
        images: Number of rows.
        splits: Images in each split, in the order train, val, test.
        tasks: Class names of each task.
        counts: For each task and split, the images of each class.
        ignored: Files left out, by lower-case suffix; files without one under "(none)".
        notes: Sentences on anything else that a reader should know.
    """

    manifest: Path
    images: int
    splits: dict[str, int]
    tasks: dict[str, tuple[str, ...]]
    counts: dict[str, dict[str, dict[str, int]]]
    ignored: dict[str, int]
    notes: tuple[str, ...]


def finish(
    rows: Sequence[Row],
    tasks: Sequence[str],
    out: Path,
    *,
    overwrite: bool,
    ignored: Mapping[str, int] | None = None,
    notes: Sequence[str] = (),
) -> Summary:
    """Check the labels, write the manifest and count what is in it."""
    classes = {
        task: class_order({row.labels[column] for row in rows} - {""})
        for column, task in enumerate(tasks)
    }
    check_labels(Manifest(out, tuple(rows), classes))
    write_manifest(rows, tasks, out, overwrite=overwrite)
    splits = Counter(row.split for row in rows)
    counted = {
        task: Counter((row.split, row.labels[column]) for row in rows)
        for column, task in enumerate(tasks)
    }
    used = [split for split in SPLITS if splits[split]]
    return Summary(
        manifest=out,
        images=len(rows),
        splits={split: splits[split] for split in used},
        tasks=classes,
        counts={
            task: {
                split: {name: counted[task][split, name] for name in classes[task]}
                for split in used
            }
            for task in tasks
        },
        ignored=dict(sorted((ignored or {}).items())),
        notes=tuple(notes),
    )


def existing_folder(directory: str | Path) -> Path:
    """The resolved path of a folder; ManifestError where there is none."""
    if not Path(directory).is_dir():
        raise ManifestError(f"{directory} is not a folder: name one that holds the images")
    return Path(directory).resolve()


def files_below(folder: Path) -> list[Path]:
    """All files at any depth, sorted; hidden folders and macOS's archive leftovers are passed over."""
    files = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if is_shown(name))
        files += [Path(parent, name) for name in sorted(names)]
    return files


def is_shown(name: str) -> bool:
    """Whether a folder of this name may hold images."""
    return not name.startswith(".") and name != "__MACOSX"


def by_suffix(files: Sequence[Path]) -> Counter[str]:
    """Number of files with each lower-case suffix; "(none)" for those without."""
    return Counter(file.suffix.lower() or "(none)" for file in files)
