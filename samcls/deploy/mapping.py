"""Another data set's labels as a run's classes: by name, or by a file where the names differ.

    task,from,to
    diagnosis,melanoma,malignant
    diagnosis,nevus,benign
    diagnosis,unclear,

A class that is mapped to nothing is left out. The column `task` names the run's task, and may be missing where
there is one alone; a task of another name in the data set stands as `run's=theirs`.

    labels = labels_for(run.tasks, store.tasks, store.labels, "classes.csv")
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Int

from samcls.data.manifest import csv_lines
from samcls.errors import InputError
from samcls.files import few, meant

__all__ = ["labels_for"]

OUT = ""  # what is mapped to it is left out

Classes = Mapping[str, tuple[str, ...]]


def labels_for(
    tasks: Classes,
    theirs: Classes,
    labels: Int[np.ndarray, "image task"],
    file: str | Path | None = None,
) -> Int[np.ndarray, "image own_task"]:
    """Return the labels of a run's tasks, -1 where an image has none or its class is left out.

    Args:
        tasks: The run's.
        theirs: The data set's.
        labels: Its class indices; -1 where a label is missing.
        file: CSV with the columns `from`, `to` and, of several tasks, `task`.

    Raises:
        InputError: there are no labels, or tasks or classes do not match; everything that is wrong is
            said at once.
    """
    if not theirs or not (labels >= 0).any():
        raise InputError(
            "the images have no labels, so nothing can be scored; samcls predict needs none"
        )
    pairs, maps = _read(file, tasks) if file is not None else ({}, {})
    found, problems = [], []
    for task, classes in tasks.items():
        name = pairs.get(task, task)
        if name not in theirs and len(tasks) == len(theirs) == 1 and task not in pairs:
            name = next(iter(theirs))
        if name not in theirs:
            problems.append(
                f"no task {name}; the data set has {', '.join(theirs)}{meant(name, theirs)}. Name it in a file "
                f"of classes (--classes) as {task}=THEIRS"
            )
            continue
        mapping = maps.get(task, {})
        strange = [one for one in mapping if one not in theirs[name]]
        lost = [one for one in theirs[name] if mapping.get(one, one) not in (*classes, OUT)]
        if strange:
            problems.append(
                f"task {task}: {few(strange)} in {file} is no class of the data set, which has "
                f"{', '.join(theirs[name])}"
            )
        if lost:
            problems.append(
                f"task {task}: the data set has {', '.join(theirs[name])} and the run knows "
                f"{', '.join(classes)}; say what {few(lost)} is with --classes FILE (columns from, to), to "
                "nothing where it is to be left out"
            )
        places = {one: i for i, one in enumerate(classes)} | {OUT: -1}
        table = np.array([places.get(mapping.get(one, one), -1) for one in theirs[name]] + [-1])
        found.append(table[labels[:, list(theirs).index(name)]])
    if problems:
        raise InputError("the data set's labels are not the run's:\n  " + "\n  ".join(problems))
    own = np.stack(found, 1).astype(np.int64)
    if not (own >= 0).any():
        raise InputError(
            "no image has a label of a class that the run knows; nothing can be scored"
        )
    return own


def _read(file: str | Path, tasks: Classes) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Return the data set's name of each task that has another one, and each task's mapping."""
    lines = csv_lines(Path(file), "file of classes")
    header = [cell.strip() for cell in lines[0][1]] if lines else []
    if not {"from", "to"} <= set(header):
        raise InputError(
            f"{file} has the columns {', '.join(header) or 'none'}; expected from, to and, of several "
            "tasks, task"
        )
    pairs: dict[str, str] = {}
    maps: dict[str, dict[str, str]] = {}
    for number, cells in lines[1:]:
        values = dict(zip(header, (cell.strip() for cell in cells), strict=False))
        named = values.get("task") or (next(iter(tasks)) if len(tasks) == 1 else "")
        task, mark, other = named.partition("=")
        if task not in tasks:
            raise InputError(
                f"{file}, line {number}: task {task!r}; the run has {', '.join(tasks)}{meant(task, tasks)}"
            )
        if mark:
            pairs[task] = other
        to = values.get("to", "")
        if to not in (*tasks[task], OUT):
            raise InputError(
                f"{file}, line {number}: to {to!r}; the run's classes are {', '.join(tasks[task])}"
                f"{meant(to, tasks[task])}"
            )
        maps.setdefault(task, {})[values.get("from", "")] = to
    return pairs, maps
