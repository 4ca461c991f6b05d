"""What a report is about: a run, a folder of seeds or folds, a sweep, or an evaluation, as `reading` reads it.

    subject.test.probabilities["diagnosis"], subject.figures("diagnosis"), subject.columns["sex"]

Nothing is trained. What is not there (a store that has moved, an unfinished run) is said where it would have stood.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from samcls.errors import InputError
from samcls.learn.runs.folder import SUMMARY, Run
from samcls.learn.runs.operating import (
    OperatingPoint,
    mean_of,
    operating_points,
)
from samcls.learn.runs.page import environment_of, summary_of, tests_opened
from samcls.learn.runs.predictions import Predictions, parse_predictions, together
from samcls.learn.score.calibration import temperature_scaled
from samcls.learn.score.headline import of_task
from samcls.learn.score.operating import answered
from samcls.report.places import table_of
from samcls.store.feature_store import FeatureStore
from samcls.sweep.winner import WINNER

__all__ = ["Answers", "CannotShow", "Subject"]

LEADERBOARD = "leaderboard.json"


class CannotShow(Exception):
    """A part of a report that cannot be made, and why: a sentence."""


@dataclass(frozen=True, eq=False)
class Answers:
    """What was said of the labelled images of one task.

    Attributes:
        task: Its name.
        classes: Their names; of two the last is the positive one.
        ids: Of the images.
        labels: Class indices, none missing.
        probabilities: In [0, 1], rows summing to 1.
        groups: Patient or lesion of each image, "" where there is none.
        point: Temperature and threshold that validation fixed.
        source: File that it is from.
        rows: Of the images among all of the split, labelled or not.
    """

    task: str
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    labels: Int[np.ndarray, " image"]
    probabilities: Float[np.ndarray, "image class"]
    groups: tuple[str, ...]
    point: OperatingPoint
    source: str
    rows: Int[np.ndarray, " image"]

    @property
    def binary(self) -> bool:
        """Whether there are two classes."""
        return len(self.classes) == 2

    @property
    def shown(self) -> tuple[int, ...]:
        """Classes that a curve is drawn for: of two the last; of more those with images, the commonest nine."""
        if self.binary:
            return (1,)
        counts = np.bincount(self.labels, minlength=len(self.classes))
        common = [c for c in np.argsort(-counts, kind="stable")[:9].tolist() if counts[c]]
        return tuple(sorted(common))

    @property
    def answers(self) -> Int[np.ndarray, " image"]:
        """Class that is answered, at the threshold that validation fixed."""
        return answered(self.probabilities, self.point.threshold)

    @property
    def scaled(self) -> Float[np.ndarray, "image class"]:
        """Probabilities at the temperature that validation fixed."""
        return temperature_scaled(self.probabilities, self.point.temperature)

    @property
    def losses(self) -> Float[np.ndarray, " image"]:
        """Negative logarithm of each label's probability."""
        chance = self.probabilities[np.arange(len(self.labels)), self.labels].astype(np.float64)
        found: np.ndarray = -np.log(np.clip(chance, 1e-12, 1.0))
        return found

    def need_both(self, positive: int) -> None:
        """Refuse what needs images of a class and others.

        Raises:
            CannotShow: with what is there.
        """
        here = int((self.labels == positive).sum())
        if not len(self.labels):
            raise CannotShow(f"no image of the split has a label of task {self.task}")
        if not 0 < here < len(self.labels):
            raise CannotShow(
                f"{here} of {len(self.labels)} labelled images are of class {self.classes[positive]}: curves and AUC "
                "need images of it and others"
            )


@dataclass(frozen=True, eq=False)
class Subject:
    """What is reported.

    Attributes:
        path: As it was given.
        kind: `run`, `seeds`, `folds`, `sweep`, `evaluation`, or `unfinished`.
        runs: Of one config; empty of an unfinished run.
        metrics: Figures, as `metrics.json` or `summary.json` have them; of an evaluation its own file's.
        file: Name of the file that they are in, from `path`.
        store: Features of the images; None where it is not at hand.
        unknown: Why there is no store.
        board: Of a sweep, its `leaderboard.json`.
        evaluation: Of an evaluation, its file.
        audit: Findings of an audit, as JSON knows them; empty where there was none.
        manifest: Where pictures are; None where not named.
        reason: Why nothing more can be shown of an unfinished run.
    """

    path: Path
    kind: str
    runs: tuple[Run, ...]
    metrics: Mapping[str, Any]
    file: str
    store: FeatureStore | None
    unknown: str
    board: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    audit: Mapping[str, Any] = field(default_factory=dict)
    manifest: str | Path | None = None
    reason: str = ""

    @property
    def name(self) -> str:
        """Of the folder, as given."""
        return self.path.name or self.path.resolve().name

    @property
    def run(self) -> Run:
        """The first run.

        Raises:
            CannotShow: there is none.
        """
        if not self.runs:
            raise CannotShow(self.reason or "the run is not where the evaluation says")
        return self.runs[0]

    @cached_property
    def tasks(self) -> dict[str, tuple[str, ...]]:
        """Class names of each task."""
        if self.external:
            return {task: tuple(found) for task, found in self.evaluation["shares"].items()}
        return (
            {task: tuple(names) for task, names in self.runs[0].tasks.items()} if self.runs else {}
        )

    @property
    def external(self) -> bool:
        """Whether the images are another data set's."""
        return self.kind == "evaluation"

    @property
    def folds(self) -> int:
        """Number of folds whose test images are put together; 0 where there are none."""
        return self.runs[0].config.folds if len(self.runs) > 1 else 0

    @property
    def seeds(self) -> int:
        """Number of seeds."""
        return len({run.config.seed for run in self.runs})

    @property
    def untrained(self) -> str:
        """What is known of an encoder with random weights, in words; "" of a trained one, or where nothing is known."""
        if not self.runs:
            return ""
        metrics, encoder = self.run.metrics, str(self.run.fingerprint.get("encoder"))
        drawn = metrics.get("weights", {}).get("untrained")
        said = any("UNTRAINED" in str(note) for note in metrics.get("notes", []))
        return str(
            drawn or (f"{encoder} with random weights" if said or encoder == "vit_t" else "")
        )

    @property
    def split(self) -> str:
        """What the scored images are called."""
        return "external" if self.external else "test"

    def figures(self, task: str) -> tuple[Mapping[str, Any], str]:
        """Return a task's table of figures of the scored images, and where it is: file and place in it.

        Raises:
            CannotShow: the test split was not scored.
        """
        name = "figures" if self.external else "test"
        if name not in self.metrics:
            raise CannotShow(self._unscored)
        table, place = self.metrics[name], f"{self.file}#/{name}"
        if not self.external and self.folds and len(self.metrics.get("pooled", ())) == 1:
            place = f"{self.file}#/pooled/0"
        return table_of(table, place, task)

    @property
    def _unscored(self) -> str:
        return (
            self.reason
            or "the test split was not scored: runs of a sweep are scored on validation alone"
        )

    @cached_property
    def points(self) -> dict[str, OperatingPoint]:
        """What validation fixed."""
        if not self.external:
            return operating_points(self.runs)
        return {
            task: OperatingPoint(table.get("temperature", 1.0), table.get("threshold"))
            for task in self.tasks
            for table in [of_task(self.evaluation["figures"], task)]
        }

    @cached_property
    def test(self) -> Predictions:
        """What is said of the scored images: seeds averaged, folds one behind another.

        Raises:
            CannotShow: nothing was scored.
        """
        if self.external:
            content, source = (self.path / "predictions.csv").read_bytes(), "predictions.csv"
            parts = [
                parse_predictions(content, self.tasks, split, source)
                for split in ("train", "val", "test")
            ]
            return together([part for part in parts if part.ids] or parts[:1])
        if not self.runs or not all(run.scored for run in self.runs):
            raise CannotShow(self._unscored)
        return self.said("test")

    @cached_property
    def validation(self) -> Predictions:
        """What is said of the validation images, likewise.

        Raises:
            CannotShow: there is no run.
        """
        return self.said("val")

    def said(self, split: str) -> Predictions:
        """Return what the runs say of their images of a split, seeds averaged, folds one behind another.

        Args:
            split: `train`, `val` or `test`.

        Raises:
            CannotShow: there is no run, or it says nothing of the split.
        """
        if not self.runs:
            raise CannotShow(self.reason or "the run is not where the evaluation says")
        try:
            return _joined(self.runs, [run.predictions(split) for run in self.runs])
        except InputError as error:
            raise CannotShow(str(error)) from error

    @cached_property
    def controls(self) -> dict[str, Predictions]:
        """What each control says of the scored images, those that every run has."""
        if self.external or not self.runs or not all(run.scored for run in self.runs):
            return {}
        each = [run.controls("test") for run in self.runs]
        names = [name for name in each[0] if all(name in one for one in each)]
        return {name: _joined(self.runs, [one[name] for one in each]) for name in names}

    def answers(self, task: str, split: str = "test") -> Answers:
        """Return what is said of a task's labelled images.

        Args:
            task: One of `tasks`.
            split: `test` for those that were scored, or `val`.

        Raises:
            CannotShow: nothing was scored.
        """
        if split == "test" and self.external:
            return self._answers(self.test, task, "predictions.csv, split all")
        said = self.test if split == "test" else self.validation
        return self._answers(said, task, f"{self.folder}predictions.csv, split {split}")

    def control(self, name: str, task: str) -> Answers:
        """Return what a control says, on the same images as `answers`."""
        return self._answers(self.controls[name], task, f"{self.folder}controls.csv, {name}")

    @property
    def base(self) -> str:
        """Where the runs lie from `path`; of an evaluation, the folder that it names."""
        if self.external and self.runs:
            return f"{(self.run.path if len(self.runs) == 1 else self.run.path.parent).name}/"
        return f"{WINNER}/run/" if self.kind == "sweep" else ""

    @property
    def folder(self) -> str:
        """Where the runs' files lie from `path`, `seed-*/` standing for those of several."""
        return self.base + ("seed-*/" if len(self.runs) > 1 else "")

    @cached_property
    def trained(self) -> Mapping[str, Any]:
        """Figures of the runs' training; of an evaluation, those of the run that was evaluated.

        Raises:
            CannotShow: there is no run.
        """
        if not self.runs:
            raise CannotShow(self.reason or "the run is not where the evaluation says")
        return summary_of(self.runs) if self.external else self.metrics

    @property
    def trained_file(self) -> str:
        """Where they are."""
        if not self.external:
            return self.file
        return self.base + (SUMMARY if len(self.runs) > 1 else "metrics.json")

    @property
    def first(self) -> str:
        """Where the first run's files lie from `path`."""
        return self.base + (f"{self.run.path.name}/" if len(self.runs) > 1 else "")

    def _answers(self, said: Predictions, task: str, source: str) -> Answers:
        column = list(self.tasks).index(task)
        rows = np.flatnonzero(said.labels[:, column] >= 0)
        return Answers(
            task=task,
            classes=self.tasks[task],
            ids=tuple(said.ids[row] for row in rows.tolist()),
            labels=said.labels[rows, column],
            probabilities=said.probabilities[task][rows],
            groups=tuple(said.groups[row] for row in rows.tolist()),
            point=self.points[task],
            source=source,
            rows=rows,
        )

    @cached_property
    def columns(self) -> dict[str, list[str]]:
        """Texts of each of the manifest's columns, for the scored images.

        Raises:
            CannotShow: there is no store, or it has none of the images or no columns.
        """
        if self.store is None:
            raise CannotShow(self.unknown)
        if not self.store.meta:
            raise CannotShow(
                "the manifest has no columns meta:<name> (sex, age, site, device): give it some and extract again, "
                "which encodes nothing anew"
            )
        places = {name: row for row, name in enumerate(self.store.ids)}
        absent = sum(name not in places for name in self.test.ids)
        if absent:
            raise CannotShow(
                f"{absent} of {len(self.test.ids)} scored images are not in {self.store.path}; name the store that they "
                "are of with --store"
            )
        return {
            name: [texts[places[one]] for one in self.test.ids]
            for name, texts in self.store.meta.items()
        }

    @property
    def opened(self) -> int:
        """How often the test split was opened."""
        return tests_opened(self.runs)

    @property
    def environment(self) -> dict[str, Any]:
        """Versions, machine and command of the first run."""
        return environment_of(self.run.path)


def _joined(runs: Sequence[Run], said: Sequence[Predictions]) -> Predictions:
    """Return the runs' predictions: of one fold averaged over seeds, folds one behind another."""
    by_fold: dict[int, list[Predictions]] = {}
    for run, one in zip(runs, said, strict=True):
        by_fold.setdefault(run.config.fold if run.config.folds else 0, []).append(one)
    return together([mean_of(parts) for parts in by_fold.values()])
