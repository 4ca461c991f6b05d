"""What a run says of every image, as a table.

id,split,group,task,label,p_benign,p_malignant     a row for each image and task, of every split
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from samcls.errors import InputError
from samcls.learn.features.tensors import Features

__all__ = [
    "Predictions",
    "controls_csv",
    "csv_bytes",
    "parse_controls",
    "parse_predictions",
    "prediction_table",
    "predictions_csv",
    "read_predictions",
    "together",
]

Probabilities = Mapping[str, Float[np.ndarray, "image _class"]]


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a run said of the images of one split.

    Attributes:
        ids: Identifier of each image.
        labels: Class indices; -1 where a label is missing.
        probabilities: By task, "image class".
        groups: Patient or lesion of each image, "" where it has none; none given means that no
            image has one.
    """

    ids: tuple[str, ...]
    labels: Int[np.ndarray, "image task"]
    probabilities: Probabilities
    groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.groups:
            object.__setattr__(self, "groups", ("",) * len(self.ids))


def prediction_table(
    features: Features, probabilities: Probabilities, split: str | None = None
) -> bytes:
    """Return what was said of a store's images, as `predictions_csv` writes it.

    Args:
        features: Of all images.
        probabilities: Of those of the split, in the order of the features' rows.
        split: The only one that was scored; None means all.
    """
    rows = np.arange(len(features.ids)) if split is None else features.rows(split).numpy()
    said = _said(features, probabilities, rows)
    return predictions_csv(said, [features.splits[row] for row in rows], features.tasks)


def _said(
    features: Features, probabilities: Probabilities, rows: Int[np.ndarray, " row"]
) -> Predictions:
    return Predictions(
        ids=tuple(features.ids[row] for row in rows),
        labels=features.labels.cpu().numpy()[rows],
        probabilities=probabilities,
        groups=tuple(features.groups[row] for row in rows),
    )


def predictions_csv(
    said: Predictions, splits: Sequence[str], tasks: Mapping[str, tuple[str, ...]]
) -> bytes:
    """Return a row for each image and task; a column for each class name, empty where not of the task."""
    return csv_bytes(_header(tasks), _rows(said, splits, tasks))


def controls_csv(
    features: Features, controls: Mapping[str, Probabilities], splits: Sequence[str]
) -> bytes:
    """Return what controls said of the images of some splits: as predictions, their name in front.

    Args:
        features: Of all images.
        controls: Of each control what it says of all images.
        splits: Which to write.
    """
    rows: list[list[str]] = []
    for name, probabilities in controls.items():
        for split in splits:
            own = features.rows(split).numpy()
            part = {task: values[own] for task, values in probabilities.items()}
            said = _said(features, part, own)
            found = _rows(said, [split] * len(own), features.tasks)
            rows += [[name, *row] for row in found]
    return csv_bytes(["control", *_header(features.tasks)], rows)


def _header(tasks: Mapping[str, tuple[str, ...]]) -> list[str]:
    return ["id", "split", "group", "task", "label", *(f"p_{name}" for name in _names(tasks))]


def _names(tasks: Mapping[str, tuple[str, ...]]) -> list[str]:
    return list(dict.fromkeys(name for classes in tasks.values() for name in classes))


def _rows(
    said: Predictions, splits: Sequence[str], tasks: Mapping[str, tuple[str, ...]]
) -> list[list[str]]:
    names = _names(tasks)
    rows: list[list[str]] = []
    for i, (image, split, group) in enumerate(zip(said.ids, splits, said.groups, strict=True)):
        for column, (task, classes) in enumerate(tasks.items()):
            label = int(said.labels[i, column])
            values = dict(zip(classes, said.probabilities[task][i].tolist(), strict=True))
            rows.append(
                [image, split, group, task, classes[label] if label >= 0 else ""]
                # Nine digits tell every float32 from its neighbours.
                + [f"{values[name]:.9g}" if name in values else "" for name in names]
            )
    return rows


def read_predictions(
    path: str | Path, tasks: Mapping[str, tuple[str, ...]], split: str
) -> Predictions:
    """Read back what `predictions_csv` wrote into a file, for one split; see `parse_predictions`."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the predictions in {path}: {error}") from error
    return parse_predictions(content, tasks, split, str(path))


def parse_predictions(
    content: bytes, tasks: Mapping[str, tuple[str, ...]], split: str, source: str
) -> Predictions:
    """Parse what `predictions_csv` made, for one split.

    A table of an earlier version has no column `group`: its images have none.

    Args:
        content: The table.
        tasks: Class names of each task.
        split: `train`, `val` or `test`.
        source: Where the table was read, for messages.

    Raises:
        InputError: where the table cannot be parsed or lacks a column.
    """
    return _parsed(_lines(content, source), tasks, split, source)


def parse_controls(
    content: bytes, tasks: Mapping[str, tuple[str, ...]], split: str, source: str
) -> dict[str, Predictions]:
    """Parse what `controls_csv` made, for one split: by name, what each control said.

    Args:
        content: The table; empty where a run of an earlier version kept none.
        tasks: Class names of each task.
        split: `val` or `test`.
        source: Where the table was read, for messages.

    Raises:
        InputError: as `parse_predictions`.
    """
    lines = _lines(content, source)
    names = dict.fromkeys(row.get("control", "") for row in lines)
    return {
        name: _parsed([row for row in lines if row.get("control") == name], tasks, split, source)
        for name in names
    }


def _lines(content: bytes, source: str) -> list[dict[str, str]]:
    try:
        return list(csv.DictReader(io.StringIO(content.decode())))
    except (ValueError, csv.Error) as error:
        raise InputError(f"cannot read the predictions in {source}: {error}") from error


def _parsed(
    lines: Sequence[Mapping[str, str]],
    tasks: Mapping[str, tuple[str, ...]],
    split: str,
    source: str,
) -> Predictions:
    try:
        rows = [row for row in lines if row["split"] == split]
        labels, probabilities = [], {}
        for task, classes in tasks.items():
            own = [row for row in rows if row["task"] == task]
            places = {name: i for i, name in enumerate(classes)} | {"": -1}
            labels.append([places[row["label"]] for row in own])
            values = [[float(row[f"p_{name}"]) for name in classes] for row in own]
            probabilities[task] = np.array(values, np.float32).reshape(len(own), len(classes))
    except (KeyError, ValueError) as error:
        raise InputError(f"cannot read the predictions in {source}: {error}") from error
    groups = {row["id"]: row.get("group", "") for row in rows}
    ids = tuple(groups)
    columns = np.array(labels, dtype=np.int64).T.reshape(len(ids), len(tasks))
    return Predictions(ids, columns, probabilities, tuple(groups.values()))


def together(parts: Sequence[Predictions]) -> Predictions:
    """Return predictions of several parts, such as folds, one behind another."""
    return Predictions(
        tuple(one for part in parts for one in part.ids),
        np.concatenate([part.labels for part in parts]),
        {
            task: np.concatenate([part.probabilities[task] for part in parts])
            for task in parts[0].probabilities
        },
        tuple(one for part in parts for one in part.groups),
    )


def csv_bytes(header: Sequence[str], rows: Sequence[Sequence[str]]) -> bytes:
    """Return a CSV with Unix line ends, UTF-8."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue().encode()
