"""`samcls plot`: several runs in one picture, a panel for each display.

    plot(["slca", "linear"], "figure.pdf", ["roc", "calibration"], task="diagnosis")

Runs of the same scored images, in colours and markers that colour-blind readers tell apart. A display is a function
and a line in `DISPLAYS`.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from samcls.errors import ConfigError, InputError, OverwriteRefused, RunError
from samcls.files import meant
from samcls.learn.score.curves import Curves
from samcls.learn.score.metrics import roc_auc
from samcls.learn.score.scoring import score
from samcls.report.reading import subject_of
from samcls.report.subject import Answers, CannotShow, Subject

__all__ = ["DISPLAYS", "plot"]

MOST = 7  # runs, as many as there are colours
PARTS = 1000  # of the images that are left out in turn for an interval
SIGNS = {".pdf": b"%PDF", ".png": b"\x89PNG", ".svg": b"<?xml"}  # how files begin
SIDE = 3.5  # inches of a panel


@dataclass(frozen=True, eq=False)
class _Arm:
    """A run in the picture."""

    name: str
    subject: Subject
    answers: Answers
    positive: int
    named: bool

    @cached_property
    def table(self) -> Mapping[str, Any]:
        """Figures of what the picture shows: of several runs their mean answer, of a class it against the rest."""
        own = self.answers
        labels, chance, classes = own.labels, own.probabilities, own.classes
        if self.alone:
            labels = (labels == self.positive).astype(np.int64)
            chance = np.stack([1 - chance[:, self.positive], chance[:, self.positive]], axis=1)
            classes = ("rest", classes[self.positive])
        return score(
            labels[:, None],
            {own.task: chance},
            {own.task: classes},
            {own.task: 0},
            PARTS,
            own.groups,
        )

    @property
    def alone(self) -> bool:
        """Whether the picture is of one of more than two classes."""
        return self.named and not self.answers.binary

    @property
    def curves(self) -> Curves:
        self.answers.need_both(self.positive)
        chance = self.answers.probabilities[:, self.positive]
        return Curves(self.answers.labels == self.positive, chance, self.answers.groups)


def plot(
    runs: Sequence[str | Path],
    out: str | Path,
    displays: Sequence[str] = ("roc",),
    *,
    task: str | None = None,
    name: str | None = None,
    labels: Sequence[str] = (),
) -> dict[str, Any]:
    """Draw runs beside each other.

    Args:
        runs: Their folders, of one run, seeds, folds, a sweep or an evaluation each.
        out: File, `.pdf`, `.png` or `.svg`; another picture in its place is replaced.
        displays: Of `DISPLAYS`.
        task: Of the runs' tasks; the first by default.
        name: Class against the rest; the last by default.
        labels: Names of the runs; those of their folders by default.

    Returns:
        `file`, `displays`, `task`, and `runs` with the AUC of each.

    Raises:
        InputError: a run is not there, was not scored, or is of other tasks or images.
        ConfigError: a display, a class or the file's suffix is none.
        OverwriteRefused: `out` is a folder or no picture.
    """
    asked = tuple(displays) or ("roc",)
    for one in asked:
        if one not in DISPLAYS:
            raise ConfigError(
                f"there is no display {one}{meant(one, DISPLAYS)}; expected of {', '.join(DISPLAYS)}"
            )
    file = _file(Path(out))
    if labels and len(labels) != len(runs):
        raise ConfigError(f"got {len(labels)} labels for {len(runs)} runs")
    if not 1 <= len(runs) <= MOST:
        raise ConfigError(
            f"got {len(runs)} runs; a picture holds 1 to {MOST}, as many as there are colours to tell apart"
        )
    from samcls.report.canvas import grid, looks, save  # matplotlib

    try:
        arms = _arms(runs, task, name, labels or _names(runs))
        panels = [(one, arm) for one in asked for arm in (arms if one == "confusion" else [None])]
        with looks(file.stem):
            figure, axes = grid(
                len(panels),
                wide=SIDE * 1.5 if len(panels) > 1 else SIDE * 1.3,
                high=SIDE * 1.4 if len(panels) > 1 else SIDE,
            )
            for panel, (one, arm) in zip(axes, panels, strict=True):
                DISPLAYS[one](panel, [arm] if arm else arms)
            save(figure, file)
    except CannotShow as error:
        raise InputError(str(error)) from error
    except OSError as error:
        raise RunError(f"{file} cannot be written: {error.strerror or error}") from error
    first = arms[0]
    return {
        "file": str(file),
        "displays": list(asked),
        "task": first.answers.task,
        "class": first.answers.classes[first.positive],
        "runs": [
            {
                "run": str(arm.subject.path),
                "name": arm.name,
                "auc": arm.table["auc"],
            }
            for arm in arms
        ],
    }


def _file(out: Path) -> Path:
    if out.suffix.lower() not in SIGNS:
        raise ConfigError(
            f"{out} names no format; expected a file that ends with .pdf, .png or .svg"
        )
    try:
        if out.is_dir():
            raise OverwriteRefused(f"{out} is a folder; name a file")
        if out.exists() and not out.read_bytes()[:200].lstrip().startswith(
            SIGNS[out.suffix.lower()]
        ):
            raise OverwriteRefused(
                f"{out} is there already, and is no such picture; name another file"
            )
        out.parent.mkdir(parents=True, exist_ok=True)
        writable = os.access(out if out.exists() else out.parent, os.W_OK)
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error.strerror or error}") from error
    if not writable:
        raise InputError(f"{out} cannot be written: permission denied")
    return out


def _names(runs: Sequence[str | Path]) -> list[str]:
    """Return the folders' names; where two are alike, with that of the folder that they are in."""
    paths = [Path(run).resolve() for run in runs]
    plain = [path.name for path in paths]
    return [
        one if plain.count(one) == 1 else f"{path.parent.name}/{one}"
        for one, path in zip(plain, paths, strict=True)
    ]


def _arms(
    runs: Sequence[str | Path], task: str | None, name: str | None, labels: Sequence[str]
) -> list[_Arm]:
    arms: list[_Arm] = []
    for path, label in zip(runs, labels, strict=True):
        subject = subject_of(path)
        if not subject.tasks:
            raise InputError(f"{path}: {subject.reason}")
        chosen = task or next(iter(subject.tasks))
        if chosen not in subject.tasks:
            raise InputError(
                f"{path} has no task {chosen}{meant(chosen, subject.tasks)}; it has {', '.join(subject.tasks)}"
            )
        answers = subject.answers(chosen)
        if name is not None and name not in answers.classes:
            raise ConfigError(
                f"{path} has no class {name}{meant(name, answers.classes)}; it has {', '.join(answers.classes)}"
            )
        positive = len(answers.classes) - 1 if name is None else answers.classes.index(name)
        arms.append(_Arm(label, subject, answers, positive, name is not None))
        if answers.classes != arms[0].answers.classes:
            raise InputError(
                f"{runs[0]} and {path} have other classes: {', '.join(arms[0].answers.classes)} and {', '.join(answers.classes)}"
            )
        if set(answers.ids) != set(arms[0].answers.ids):
            both = len(set(answers.ids) & set(arms[0].answers.ids))
            raise InputError(
                f"{runs[0]} and {path} were not scored on the same images: {len(arms[0].answers.ids)} and {len(answers.ids)}, "
                f"{both} in both; name runs of the same store and splits"
            )
    return arms


def _look(place: int) -> dict[str, Any]:
    from samcls.report.canvas import COLOURS

    return {"color": COLOURS[place], "linestyle": ("-", "--", "-.", ":")[place % 4]}


def _roc(panel: Any, arms: Sequence[_Arm]) -> None:
    from samcls.report.canvas import QUIET, banded, labelled, square

    panel.plot([0, 1], [0, 1], color=QUIET, linewidth=0.8)
    for place, arm in enumerate(arms):
        curve = arm.curves.roc()
        low, high = (curve.low, curve.high) if len(arms) <= 2 else (None, None)
        banded(
            panel,
            curve.x,
            curve.y,
            low,
            high,
            label=f"{arm.name} ({_auc(arm):.3f})",
            **_look(place),
        )
    square(panel)
    labelled(panel, "1 \N{MINUS SIGN} specificity", "sensitivity")
    panel.legend(loc="lower right", title="AUC")


def _auc(arm: _Arm) -> float:
    """AUC of the curve that is drawn: of the class against the rest."""
    ones, own = np.ones((1, len(arm.answers.labels))), arm.answers
    return float(roc_auc(ones, own.labels == arm.positive, own.probabilities[:, arm.positive])[0])


def _precision_recall(panel: Any, arms: Sequence[_Arm]) -> None:
    from samcls.report.canvas import QUIET, banded, labelled, square

    panel.axhline(
        float((arms[0].answers.labels == arms[0].positive).mean()), color=QUIET, linewidth=0.8
    )
    for place, arm in enumerate(arms):
        curve = arm.curves.precision_recall()
        low, high = (curve.low, curve.high) if len(arms) <= 2 else (None, None)
        banded(panel, curve.x, curve.y, low, high, label=arm.name, **_look(place))
    square(panel)
    labelled(panel, "recall (sensitivity)", "precision")
    panel.legend(loc="best")


def _calibration(panel: Any, arms: Sequence[_Arm]) -> None:
    from samcls.report.canvas import QUIET, banded, labelled, square

    panel.plot([0, 1], [0, 1], color=QUIET, linewidth=0.8)
    for place, arm in enumerate(arms):
        found = arm.curves.calibration()
        smooth = found.smooth
        low, high = (smooth.low, smooth.high) if len(arms) <= 2 else (None, None)
        banded(
            panel,
            smooth.x,
            smooth.y,
            low,
            high,
            label=f"{arm.name} ({found.slope:.2f})",
            **_look(place),
        )
    square(panel)
    labelled(panel, "probability", "share of the class")
    panel.legend(loc="upper left", title="slope")


def _decision(panel: Any, arms: Sequence[_Arm]) -> None:
    from samcls.report.canvas import QUIET, banded, labelled

    share = float((arms[0].answers.labels == arms[0].positive).mean())
    everyone = arms[0].curves.treat_all()
    panel.axhline(0, color=QUIET, linewidth=0.8, label="treat none")
    panel.plot(
        everyone.x, everyone.y, color=QUIET, linewidth=1.0, linestyle=(0, (4, 3)), label="treat all"
    )
    for place, arm in enumerate(arms):
        curve = arm.curves.net_benefit()
        banded(panel, curve.x, curve.y, None, None, label=arm.name, **_look(place))
    panel.set_xlim(0, 1)
    panel.set_ylim(-0.35 * share, 1.1 * share)
    labelled(panel, "threshold of probability", "net benefit")
    panel.legend(loc="upper right")


def _confusion(panel: Any, arms: Sequence[_Arm]) -> None:
    from samcls.report.pictures.tables import MOST as CLASSES
    from samcls.report.pictures.tables import confusion_on

    (arm,) = arms
    number = len(arm.answers.classes)
    if number > CLASSES:
        raise CannotShow(f"a confusion of {number} classes cannot be read; {CLASSES} at most")
    table = np.bincount(arm.answers.labels * number + arm.answers.answers, minlength=number**2)
    confusion_on(panel, table.reshape(number, number), arm.answers.classes)
    panel.set_title(arm.name)


def _forest(panel: Any, arms: Sequence[_Arm]) -> None:
    from samcls.report.pictures.tables import forest_on

    lines = []
    for arm in arms:
        if arm.table["auc"] is None:
            raise CannotShow(f"{arm.subject.path} has no AUC of {arm.answers.task}")
        ends = arm.table.get("auc_interval")
        around = None if ends is None else (float(ends[0]), float(ends[1]))
        lines.append((arm.name, float(arm.table["auc"]), around))
    forest_on(panel, lines, "AUC and 95 % interval")


def _learning_curve(panel: Any, arms: Sequence[_Arm]) -> None:
    from samcls.report.canvas import COLOURS, MARKERS, labelled, ticks_at

    shared = [bool(arm.subject.board.get("efficiency", {}).get("test")) for arm in arms]
    if any(shared) and not all(shared):
        raise CannotShow(
            "shares of a sweep and numbers of images of single runs have no axis in common; draw them apart"
        )
    drawn: dict[str, list[tuple[float, float, tuple[float, float] | None]]] = {}
    for arm in arms:
        for point in _points(arm):
            drawn.setdefault(point[0], []).append(point[1:])
    if all(len(points) < 2 for points in drawn.values()):
        raise CannotShow(
            "a learning curve needs a sweep with several shares (fractions), or runs of one head with several --train-fraction"
        )
    for place, (head, points) in enumerate(drawn.items()):
        shift = 4 ** (
            0.012 * (place - (len(drawn) - 1) / 2)
        )  # side by side, or bars would hide each other
        x, y = [shift * one[0] for one in sorted(points)], [one[1] for one in sorted(points)]
        reach = [
            [max(0.0, v - e[0]) if e else 0.0, max(0.0, e[1] - v) if e else 0.0]
            for _, v, e in sorted(points)
        ]
        panel.errorbar(
            x,
            y,
            yerr=np.array(reach).T,
            color=COLOURS[place % 7],
            marker=MARKERS[place % 7],
            markersize=4.5,
            capsize=2.5,
            label=head,
        )
    xs = sorted({one[0] for points in drawn.values() for one in points})
    shares = xs[-1] <= 1
    ticks_at(panel, xs, logarithmic=xs[-1] / xs[0] > 5, percent=shares)
    labelled(panel, "share of the training images" if shares else "training images", "test AUC")
    panel.legend(loc="lower right")


def _points(arm: _Arm) -> list[tuple[str, float, float, tuple[float, float] | None]]:
    """Return head, share or number of training images, AUC and interval."""
    board = arm.subject.board.get("efficiency", {})
    if points := board.get("test"):
        return [
            (p["head"], p["fraction"], p["auc"], p["interval"] and tuple(p["interval"]))
            for p in points
        ]
    if arm.table["auc"] is None:
        raise CannotShow(f"{arm.subject.path} has no AUC of {arm.answers.task}")
    ends, images = arm.table.get("auc_interval"), float(arm.subject.metrics["images"]["train"])
    return [
        (arm.subject.run.config.head, images, float(arm.table["auc"]), ends and (ends[0], ends[1]))
    ]


DISPLAYS: Mapping[str, Callable[[Any, Sequence[Any]], None]] = {
    "roc": _roc,
    "precision-recall": _precision_recall,
    "calibration": _calibration,
    "decision": _decision,
    "confusion": _confusion,
    "forest": _forest,
    "learning-curve": _learning_curve,
}
