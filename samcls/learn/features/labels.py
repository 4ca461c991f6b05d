"""Labels for stage two from a CSV, by id, under the rules that a manifest's labels follow.

    id,label:grade[ordinal],label:referable[positive=1]
    image-0,2,1

Columns are declared as in a manifest; what its reserved columns hold is not read. Equal numbers are
one class, and what looks doubtful is named.

    found = read_labels("grades.csv", store.ids, store.tasks)
    found.tasks, found.labels
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from samcls.data.columns import Header, parse_header
from samcls.data.labels import read_task, unused_missing
from samcls.errors import ConfigError

__all__ = ["LabelFile", "read_labels"]


@dataclass(frozen=True, eq=False)
class LabelFile:
    """What a file says of a store's images.

    Attributes:
        tasks: Class names of each task, in the order of the label columns.
        labels: Class indices; -1 where a label is missing.
        ordinal: Tasks that the file declares as ordered.
        remarks: Sentences on what a user should look at.
    """

    tasks: Mapping[str, tuple[str, ...]]
    labels: Int[np.ndarray, "image task"]
    ordinal: tuple[str, ...]
    remarks: tuple[str, ...]


def read_labels(
    path: str,
    ids: Sequence[str],
    known: Mapping[str, tuple[str, ...]],
    missing: Sequence[str] = (),
) -> LabelFile:
    """Labels from a CSV with a column `id` and one for each task; images not in it have none.

    A task that the store has too keeps the store's order of classes, unless the file declares a
    positive class; otherwise classes are in numeric order where all are numbers, and in
    alphabetical order where not.

    Args:
        path: The file.
        ids: The store's.
        known: The store's tasks.
        missing: What means that a label is missing, besides an empty cell.

    Raises:
        ConfigError: with the file and what is wrong with it.
    """
    lines = _lines(path)
    header = _header(path, lines[0][1] if lines else [])
    rows = _by_id(path, header, lines[1:])
    found = [rows.get(one) for one in ids]
    if not any(found):
        raise ConfigError(f"{path} has no id of the store; ids there look like {ids[0]!r}")
    tasks: dict[str, tuple[str, ...]] = {}
    columns: list[list[int]] = []
    remarks: list[str] = []
    seen: set[str] = set()
    for task, place in zip(header.tasks, header.task_places, strict=True):
        cells = [row[place] if row else "" for row in found]
        read = read_task(task, cells, missing, known.get(task.name, ()))
        if read.problem:
            raise ConfigError(f"{path}: {read.problem}")
        tasks[task.name] = read.classes
        places = {"": -1} | {text: i for i, text in enumerate(read.classes)}
        columns.append([places[text] for text in read.texts])
        remarks += read.remarks
        seen |= set(cells)
    remarks += unused_missing(missing, seen)
    return LabelFile(
        tasks=tasks,
        labels=np.array(columns, dtype=np.int64).T,
        ordinal=tuple(task.name for task in header.tasks if task.ordinal),
        remarks=tuple(f"{path}: {remark}" for remark in remarks),
    )


def _lines(path: str) -> list[tuple[int, list[str]]]:
    """Return the number and cells of each line that is not blank."""
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            return [
                (reader.line_num, [cell.strip() for cell in cells])
                for cells in reader
                if any(map(str.strip, cells))
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"cannot read the labels in {path}: {error}") from error


def _header(path: str, cells: Sequence[str]) -> Header:
    header = parse_header(cells)
    if "id" not in header.own or not (header.tasks or header.problems):
        raise ConfigError(
            f"{path} has columns {', '.join(cells) or 'none'}; expected id and one for each task"
        )
    if header.problems:
        raise ConfigError(f"{path}, line 1: {'; '.join(header.problems)}")
    return header


def _by_id(
    path: str, header: Header, lines: Sequence[tuple[int, list[str]]]
) -> dict[str, list[str]]:
    rows: dict[str, list[str]] = {}
    for number, cells in lines:
        if len(cells) != len(header.columns):
            raise ConfigError(
                f"{path}, line {number}: {len(cells)} cells, expected {len(header.columns)}"
            )
        name = cells[header.own["id"]]
        if name in rows:
            raise ConfigError(
                f"{path} names an id twice, {name!r} on line {number} again; expected one row for "
                "each image"
            )
        rows[name] = cells
    return rows
