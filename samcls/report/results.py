"""What a report computes from a run's predictions, each thing once: claims, operating points, calibration, gaps.

    results = Results(subject)
    results.claims["diagnosis"].sentence, results.operating("diagnosis").figures["sensitivity"]

Everything else is read from the run's own files. Resamples are of whole groups and always the same ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from samcls.deploy.subgroups import parts_of
from samcls.learn.heads.controls import MEANINGS, SHUFFLED
from samcls.learn.runs.gain import gain_of_runs
from samcls.learn.score.curves import Calibration, Curves
from samcls.learn.score.headline import of_task
from samcls.learn.score.intervals import FEWEST, intervals, left_out, unit_numbers
from samcls.learn.score.operating import fit_threshold
from samcls.learn.score.scoring import majority_class, mean_intervals, resample, score
from samcls.report.gaps import Gap, gaps_of, in_order
from samcls.report.subject import Answers, CannotShow, Subject

__all__ = ["RATES", "Claim", "Operating", "Results", "threshold_rule"]

PARTS = 1000
THRESHOLDS = 500  # resamples of validation


@dataclass(frozen=True)
class Claim:
    """Whether a head is ahead of the best control.

    Attributes:
        task: Name.
        head: Name.
        control: Name of the control that validation prefers.
        first: The head's AUC.
        second: The control's.
        difference: First minus second.
        interval: 95 % of it; None where too few groups are there.
        p: Two-sided; None likewise.
    """

    task: str
    head: str
    control: str
    first: float
    second: float
    difference: float
    interval: tuple[float, float] | None
    p: float | None

    @property
    def ahead(self) -> bool:
        """Whether it is ahead by more than noise."""
        return self.interval is not None and self.interval[0] > 0

    @property
    def behind(self) -> bool:
        """Whether it is behind by more than noise."""
        return self.interval is not None and self.interval[1] < 0

    @property
    def against(self) -> str:
        """The control in words."""
        return MEANINGS.get(self.control, self.control)


@dataclass(frozen=True, eq=False)
class Operating:
    """Answers of a task at the threshold that validation fixed.

    Attributes:
        table: Images by label and answer.
        figures: By name, the value; None where undefined.
        intervals: By name, 95 %; None where too few groups are behind it.
    """

    table: Int[np.ndarray, "actual answered"]
    figures: Mapping[str, float | None]
    intervals: Mapping[str, tuple[float, float] | None]


class Results:
    """What is computed of a subject, each thing when it is first asked for.

    Args:
        subject: What is reported.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.calibration = cache(self._calibration)
        self.operating = cache(self._operating)
        self.gaps = cache(self._gaps)
        self._control_intervals = cache(self._control_intervals_of)
        self._pooled = cache(self._pooled_of)

    @cached_property
    def claims(self) -> dict[str, Claim]:
        """For each task whether the head is ahead of the control that validation prefers; none without controls."""
        return self._claims(self._beside)

    @cached_property
    def hindsight(self) -> dict[str, Claim]:
        """The same against the control that the test split prefers, where that is another one."""
        found = {}
        tables = self.subject.metrics.get("baselines", {})
        for task, claim in self.claims.items():
            aucs = {
                name: (self.pooled(name, task) or of_task(tables[name]["test"], task)).get("auc")
                for name in self._beside
                if "test" in tables.get(name, {})
            }
            known = {name: auc for name, auc in aucs.items() if auc is not None}
            best = max(known, key=lambda name: known[name], default=claim.control)
            if best != claim.control:
                found[task] = self._claims([best])[task]
        return found

    @property
    def _beside(self) -> list[str]:
        """Controls that gate nothing, and are not chance."""
        subject = self.subject
        if subject.external or not subject.runs or not all(run.scored for run in subject.runs):
            return []
        out = ("majority", SHUFFLED, subject.run.config.head)
        return [name for name in subject.controls if name in MEANINGS and name not in out]

    def _claims(self, beside: Sequence[str]) -> dict[str, Claim]:
        if not beside:
            return {}
        runs, found = self.subject.runs, {}
        for task, one in gain_of_runs(runs, beside).items():
            if one["difference"] is not None:
                ends = one["difference_interval"]
                found[task] = Claim(
                    task=task,
                    head=runs[0].config.head,
                    control=one["control"],
                    first=one["first"],
                    second=one["second"],
                    difference=one["difference"],
                    interval=None if ends is None else (ends[0], ends[1]),
                    p=one["p"],
                )
        return found

    def control_interval(self, name: str, task: str) -> tuple[float, float] | None:
        """Return the 95 % interval of a control's AUC over several seeds, whose summary has none.

        Args:
            name: Of the control.
            task: Name.
        """
        if self.subject.kind not in ("seeds", "sweep") or name not in self.subject.controls:
            return None
        return self._control_intervals(name).get(task)

    def pooled(self, name: str, task: str) -> Mapping[str, Any]:
        """Return a control's figures on all folds' test images together, as those of the run are told.

        Args:
            name: Of the control.
            task: Name.

        Returns:
            Nothing but for the folds of one seed.
        """
        if not self.subject.folds or self.subject.seeds > 1 or name not in self.subject.controls:
            return {}
        return of_task(self._pooled(name), task)

    def _pooled_of(self, name: str) -> dict[str, Any]:
        said, tasks = self.subject.controls[name], self.subject.tasks
        majority = {
            task: majority_class(said.labels[:, i], len(classes))
            for i, (task, classes) in enumerate(tasks.items())
        }
        parts = self.subject.run.config.intervals
        return score(said.labels, said.probabilities, tasks, majority, parts, said.groups)

    def _control_intervals_of(self, name: str) -> dict[str, tuple[float, float] | None]:
        runs = self.subject.runs
        if runs[0].config.folds:
            return {}
        said = [run.controls("test")[name] for run in runs]
        apart = [one.probabilities for one in said]
        if all(_same(apart[0], one) for one in apart):  # regressions say the same under every seed
            apart = apart[:1]
        parts = runs[0].config.intervals or PARTS
        found = mean_intervals(said[0].labels, apart, self.subject.tasks, parts, said[0].groups)
        ends = {task: of_task(found, task).get("auc_interval") for task in self.subject.tasks}
        return {task: None if one is None else (one[0], one[1]) for task, one in ends.items()}

    def best_control(self, task: str) -> Answers | None:
        """Return what the control of the claim says of the images; None without one."""
        claim = self.claims.get(task)
        return None if claim is None else self.subject.control(claim.control, task)

    def _calibration(self, task: str, positive: int, scaled: bool) -> Calibration:
        """Return how far the probabilities of a class are what happens.

        Args:
            task: Name.
            positive: Class index.
            scaled: Whether they are taken at the temperature that validation fixed.

        Raises:
            CannotShow: the images are of one class.
        """
        answers = self.subject.answers(task)
        answers.need_both(positive)
        chance = answers.scaled if scaled else answers.probabilities
        return Curves(answers.labels == positive, chance[:, positive], answers.groups).calibration()

    def _operating(self, task: str) -> Operating:
        """Return the confusion at the threshold, with intervals of what follows from it.

        Raises:
            CannotShow: nothing was scored.
        """
        answers = self.subject.answers(task)
        number = len(answers.classes)
        if not len(answers.labels):
            raise CannotShow(f"no image of the split has a label of task {task}")
        said = answers.answers
        table = np.bincount(answers.labels * number + said, minlength=number**2).reshape(
            number, number
        )
        if not answers.binary:
            value = float(np.trace(table) / table.sum())
            return Operating(table, {"accuracy": value}, {"accuracy": None})
        units = unit_numbers(answers.groups)
        cells = np.eye(4)[answers.labels * 2 + said]
        weights = np.concatenate(list(left_out(units, PARTS)))
        values = _rates(weights @ cells)
        true = answers.labels == 1
        behind = [true, ~true, said == 1, said == 0, np.ones(len(true), dtype=bool), true]
        # What a rate rests on: the groups of the images that it is a share of.
        support = np.array([len(np.unique(units[rows])) for rows in behind], dtype=np.int64)
        bounds = np.array([[0.0] * len(RATES), [1.0] * len(RATES)])
        ends = intervals(values, bounds, support)
        return Operating(
            table,
            {name: _plain(row[0]) for name, row in zip(RATES, values, strict=True)},
            {
                name: None if e is None else (e[0], e[1])
                for name, e in zip(RATES, ends, strict=True)
            },
        )

    def thresholds(self, task: str) -> tuple[tuple[float, float], np.ndarray] | None:
        """Return how far the threshold would move with other validation images, and what that does on the test.

        Args:
            task: Name, of two classes.

        Returns:
            95 % range of the threshold over resamples of validation's groups, and the 2.5th and 97.5th
            percentiles of sensitivity and of specificity on the scored images at these thresholds ("end rate");
            None where too few groups of a class are there.

        Raises:
            CannotShow: there are no validation answers.
        """
        if self.subject.folds:
            raise CannotShow("validation images of folds are other folds' test images")
        own, test = self.subject.answers(task, "val"), self.subject.answers(task)
        test.need_both(1)
        units = unit_numbers(own.groups)
        if any(len(np.unique(units[own.labels == c])) < FEWEST for c in (0, 1)):
            return None
        found = []
        for counts in resample(int(units.max()) + 1, THRESHOLDS, 0):
            for weights in counts[:, units].astype(np.int64):
                rows = np.repeat(np.arange(len(weights)), weights)
                found.append(fit_threshold(own.labels[rows], own.probabilities[rows]))
        cuts = np.array([one for one in found[1:] if one is not None])
        true, chance = test.labels == 1, test.probabilities[:, 1]
        with np.errstate(invalid="ignore"):
            above = chance[None] > cuts[:, None]
            rates = np.stack([above[:, true].mean(1), (~above[:, ~true]).mean(1)], axis=1)
        low, high = np.percentile(cuts, [2.5, 97.5]).tolist()
        return (low, high), np.percentile(rates, [2.5, 97.5], axis=0)

    def _gaps(self, task: str) -> tuple[Gap, ...]:
        """Return each subgroup of each of the manifest's columns beside all other images.

        Raises:
            CannotShow: there are no columns, or none that divides the images.
        """
        columns = self.subject.columns
        answers = self.subject.answers(task)
        groups: list[tuple[str, str, Bool[np.ndarray, " image"]]] = []
        for name, texts in columns.items():
            parts = np.array(parts_of([texts[row].strip() for row in answers.rows.tolist()]))
            known = list(dict.fromkeys(sorted(parts.tolist(), key=in_order)))
            if len(known) > 1:
                groups += [(name, part, parts == part) for part in known]
        if not groups:
            named = ", ".join(columns)
            raise CannotShow(
                f"the columns {named} divide the {self.subject.split} images in no groups: one text each, or one an image"
            )
        return gaps_of(answers, groups)


def threshold_rule(subject: Subject, task: str) -> str:
    """Return in words how a task's threshold came about.

    Args:
        subject: What is reported.
        task: Name, of two classes.
    """
    if not subject.runs:
        return "the run's own, from its validation images"
    own = subject.answers(task, "val")
    if len(np.unique(own.labels)) < 2:
        return "since validation has not both classes and tells nothing"
    told = "which has the largest sensitivity + specificity on validation (Youden 1950)"
    if subject.folds:
        return f"{told}: on all folds' validation images together, most of which other folds test, so that rates here are a little too good"
    return told


RATES = ("sensitivity", "specificity", "precision", "negative_predictive_value", "accuracy", "f1")


def _same(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    return all(np.array_equal(values, second[task]) for task, values in first.items())


def _rates(cells: Float[np.ndarray, "part cell"]) -> Float[np.ndarray, "rate part"]:
    """Rates of confusions whose cells are true negative, false positive, false negative, true positive."""
    quiet, alarm, missed, hit = cells.T
    with np.errstate(invalid="ignore", divide="ignore"):
        found: np.ndarray = np.stack(
            [
                hit / (hit + missed),
                quiet / (quiet + alarm),
                hit / (hit + alarm),
                quiet / (quiet + missed),
                (hit + quiet) / cells.sum(1),
                2 * hit / (2 * hit + alarm + missed),
            ]
        )
    return found


def _plain(value: float) -> float | None:
    return None if not np.isfinite(value) else float(value)
