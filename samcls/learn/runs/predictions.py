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
    "csv_bytes",
    "parse_predictions",
    "prediction_table",
    "predictions_csv",
    "read_predictions",
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
    said = Predictions(
        ids=tuple(features.ids[row] for row in rows),
        labels=features.labels.cpu().numpy()[rows],
        probabilities=probabilities,
        groups=tuple(features.groups[row] for row in rows),
    )
    return predictions_csv(said, [features.splits[row] for row in rows], features.tasks)


def predictions_csv(
    said: Predictions, splits: Sequence[str], tasks: Mapping[str, tuple[str, ...]]
) -> bytes:
    """Return a row for each image and task; a column for each class name, empty where not of the task."""
    names = list(dict.fromkeys(name for classes in tasks.values() for name in classes))
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
    header = ["id", "split", "group", "task", "label", *(f"p_{name}" for name in names)]
    return csv_bytes(header, rows)


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
    try:
        lines = csv.DictReader(io.StringIO(content.decode()))
        rows = [row for row in lines if row["split"] == split]
        labels, probabilities = [], {}
        for task, classes in tasks.items():
            own = [row for row in rows if row["task"] == task]
            places = {name: i for i, name in enumerate(classes)} | {"": -1}
            labels.append([places[row["label"]] for row in own])
            values = [[float(row[f"p_{name}"]) for name in classes] for row in own]
            probabilities[task] = np.array(values, np.float32).reshape(len(own), len(classes))
    except (KeyError, ValueError, csv.Error) as error:
        raise InputError(f"cannot read the predictions in {source}: {error}") from error
    groups = {row["id"]: row.get("group", "") for row in rows}
    ids = tuple(groups)
    columns = np.array(labels, dtype=np.int64).T.reshape(len(ids), len(tasks))
    return Predictions(ids, columns, probabilities, tuple(groups.values()))


def csv_bytes(header: Sequence[str], rows: Sequence[Sequence[str]]) -> bytes:
    """Return a CSV with Unix line ends, UTF-8."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue().encode()
