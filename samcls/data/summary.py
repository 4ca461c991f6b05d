"""The last step of every source: check the labels, write the manifest, count what it holds.

Writing 100,000 rows takes about a second.

    return finish(rows, ["label"], out, left_out=tree.left_out.counts(), overwrite=False)
"""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from samcls.data.columns import TaskColumn
from samcls.data.labels import canonical, near_misses, read_task
from samcls.data.manifest import SPLITS, Manifest, Row, check_labels
from samcls.data.manifest_file import write_manifest
from samcls.data.tree import SHOWN
from samcls.errors import ConfigError

__all__ = ["Summary", "finish", "listed"]


@dataclass(frozen=True)
class Summary:
    """What a new manifest holds, and what was left out of it.

    Attributes:
        manifest: The CSV written.
        images: Number of rows.
        splits: Images in each split, in the order train, val, test.
        group_count: Groups in all, such as patients; an image without one is its own. 0 where no
            image has one.
        groups: Likewise in each split; empty where no image has one.
        tasks: Class names of each task, the positive one of two last.
        ordinal: Tasks whose classes are steps of one scale.
        meta: Columns that are kept and never learned.
        counts: For each task and split, the images of each class.
        missing: For each task that lacks labels, the images without one in each split.
        ignored: Files left out, by the reason.
        notes: Sentences on anything else that a reader should know.
    """

    manifest: Path
    images: int
    splits: dict[str, int]
    group_count: int
    groups: dict[str, int]
    tasks: dict[str, tuple[str, ...]]
    ordinal: tuple[str, ...]
    meta: tuple[str, ...]
    counts: dict[str, dict[str, dict[str, int]]]
    missing: dict[str, dict[str, int]]
    ignored: dict[str, int]
    notes: tuple[str, ...]


def finish(
    rows: Sequence[Row],
    tasks: Sequence[str],
    out: Path,
    *,
    overwrite: bool,
    positive: Sequence[str] = (),
    ordinal: Sequence[str] = (),
    meta: Sequence[str] = (),
    left_out: Mapping[str, int] | None = None,
    notes: Sequence[str] = (),
    remarks: Sequence[str] | None = None,
) -> Summary:
    """Check the labels, write the manifest and count what is in it.

    Args:
        rows: At least one.
        tasks: Names, in the order of each row's labels.
        out: The CSV to write.
        overwrite: Replace a manifest that is there.
        positive: Positive classes: `melanoma`, or `diagnosis=melanoma` where there are several
            tasks that it might be of.
        ordinal: Tasks whose classes are steps of one scale; they must be numbers.
        meta: Names of the meta columns, in the order of each row's.
        left_out: Number of files for each reason.
        notes: What the source has to say.
        remarks: What is to be said of doubtful labels; by default what they give cause for.

    Raises:
        ConfigError: With everything that is wrong with `positive` and `ordinal`.
        ManifestError: With every label that val or test holds and train lacks.
    """
    texts = {task: [row.labels[column] for row in rows] for column, task in enumerate(tasks)}
    read = {task: read_task(TaskColumn(task), cells) for task, cells in texts.items()}
    classes = {task: labels.classes for task, labels in read.items()}
    columns = _columns(classes, positive, listed(ordinal, classes))
    classes = {one.name: read_task(one, texts[one.name]).classes for one in columns}
    if remarks is None:
        remarks = [remark for labels in read.values() for remark in labels.remarks]
    check_labels(Manifest(out, tuple(rows), classes))
    write_manifest(rows, columns, out, meta=meta, overwrite=overwrite)
    used = [split for split in SPLITS if any(row.split == split for row in rows)]
    by_split = {split: [row for row in rows if row.split == split] for split in used}
    counted = {
        task: {split: Counter(row.labels[i] for row in by_split[split]) for split in used}
        for i, task in enumerate(tasks)
    }
    names = {s: {(row.group, row.group or row.id) for row in by_split[s]} for s in used}
    grouped = any(row.group for row in rows)
    group_count = len(set().union(*names.values())) if grouped else 0
    return Summary(
        manifest=out,
        images=len(rows),
        splits={split: len(by_split[split]) for split in used},
        group_count=group_count,
        groups={split: len(names[split]) for split in used} if grouped else {},
        tasks=classes,
        ordinal=tuple(column.name for column in columns if column.ordinal),
        meta=tuple(meta),
        counts={
            task: {split: {name: counted[task][split][name] for name in names} for split in used}
            for task, names in classes.items()
        },
        missing={
            task: {split: counted[task][split][""] for split in used}
            for task in tasks
            if any(counted[task][split][""] for split in used)
        },
        ignored=dict(sorted((left_out or {}).items())),
        notes=(*notes, *remarks, *_divided_groups(rows), *_absent_classes(counted, classes)),
    )


def listed(texts: Sequence[str], whole: Collection[str] = ()) -> list[str]:
    """Comma-separated names; a name that is known as a whole may hold commas itself."""
    return [
        part.strip()
        for text in texts
        for part in ([text] if text in whole else text.split(","))
        if part.strip()
    ]


def _columns(
    classes: Mapping[str, tuple[str, ...]], positive: Sequence[str], ordinal: Sequence[str]
) -> list[TaskColumn]:
    """Return the tasks with their options; all problems of these are raised together."""
    problems = []
    chosen: dict[str, str] = {}
    for text in positive:
        task, name, problem = _positive(text, classes)
        if problem:
            problems.append(problem)
        elif chosen.setdefault(task, name) != name:
            problems.append(f"--positive names two classes of {task}: {chosen[task]} and {name}")
    for task in ordinal:
        if task not in classes:
            problems.append(
                f"--ordinal {task}: there is no such task; expected one of {', '.join(classes)}"
                f"{near_misses(task, classes)}"
            )
        elif not all(map(_is_number, classes[task])):
            problems.append(
                f"--ordinal {task}: its classes are {', '.join(classes[task])}, of which the order "
                "is not known: write them as numbers, the lowest step first"
            )
    if problems:
        raise ConfigError("\n  ".join(problems))
    return [TaskColumn(task, chosen.get(task), task in ordinal) for task in classes]


def _positive(text: str, classes: Mapping[str, tuple[str, ...]]) -> tuple[str, str, str]:
    """Task and class that an option means, or what is wrong with it."""
    task, mark, name = (part.strip() for part in text.partition("="))
    if not mark or task not in classes:
        name = canonical(text.strip())
        found = [task for task, names in classes.items() if name in names and len(names) == 2]
        if len(found) > 1:
            return (
                "",
                "",
                (
                    f"--positive {name}: {' and '.join(found)} have this class; name the task too, as "
                    f"--positive {found[0]}={name}"
                ),
            )
        # Of a task with a single candidate the messages below are to speak.
        holding = [task for task, names in classes.items() if name in names]
        task = (found or holding or [next(iter(classes)) if len(classes) == 1 else ""])[0]
    if not task:
        known = "; ".join(f"{one}: {', '.join(names[:9])}" for one, names in classes.items())
        alike = near_misses(name, [one for names in classes.values() for one in names])
        return "", "", f"--positive {text}: no task has this class; the classes are {known}{alike}"
    names, name = classes[task], canonical(name)
    if name not in names:
        return (
            "",
            "",
            (
                f"--positive {text}: {task} has no class {name!r}; its classes are "
                f"{', '.join(names[:9]) or 'none'}{near_misses(name, names)}"
            ),
        )
    if len(names) != 2:
        return (
            "",
            "",
            (
                f"--positive {text}: {task} has {len(names)} classes, {', '.join(names[:9])}; a "
                "positive class is one of two"
            ),
        )
    return task, name, ""


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _divided_groups(rows: Sequence[Row]) -> list[str]:
    splits: dict[str, set[str]] = {}
    for row in rows:
        if row.group:
            splits.setdefault(row.group, set()).add(row.split)
    divided = {group: found for group, found in splits.items() if len(found) > 1}
    if not divided:
        return []
    shown = ", ".join(
        f"{group} ({', '.join(split for split in SPLITS if split in found)})"
        for group, found in list(divided.items())[:SHOWN]
    )
    note = (
        f"WARNING: {len(divided)} group(s) lie in several splits, so that figures on val and test "
        f"would be too good: {shown}"
    )
    return [note]


def _absent_classes(
    counted: Mapping[str, Mapping[str, Counter[str]]], classes: Mapping[str, tuple[str, ...]]
) -> list[str]:
    """Return a note for each class that a split lacks: its figures cannot be told there."""
    return [
        f"{task}: no image of class {name!r} in {' and '.join(lacking)}"
        for task, splits in counted.items()
        for name in classes[task]
        if (lacking := [split for split, counts in splits.items() if not counts[name]])
    ]
