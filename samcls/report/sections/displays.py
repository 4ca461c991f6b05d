"""Discrimination, calibration, clinical utility, and probabilities by outcome: the four displays."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from samcls.learn.score.curves import Curves
from samcls.learn.score.metrics import FIGURES, figures
from samcls.report.about import About
from samcls.report.blocks import Block, Cell, Part, Table, Text, figure, interval, shortened
from samcls.report.pictures import curves
from samcls.report.subject import Answers

__all__ = ["displays"]

SMALLEST = 1e-12
BENEFITS = (0.05, 0.1, 0.2, 0.3, 0.5)  # thresholds of the table of net benefit


def displays(about: About) -> Iterator[Block]:
    """Yield the four displays of each task, precision by recall, and tables of calibration and net benefit."""
    subject = about.subject
    if subject.seeds > 1 and not subject.external:
        yield Text(
            (
                "Curves are of the runs' mean probability of each image: its AUC need not be the mean of theirs.",
            ),
            "note",
        )
    yield from about.each("displays", _of_task)


def _of_task(about: About, task: str) -> Iterator[Block]:
    answers, control = about.subject.answers(task), about.results.best_control(task)
    answers.need_both(answers.shown[0] if answers.shown else 0)
    yield about.picture(f"roc-{task}", "ROC", lambda: curves.roc(answers, control))
    yield about.picture(
        f"calibration-{task}",
        "calibration",
        lambda: curves.calibration(answers, partial(about.results.calibration, task)),
    )
    yield about.picture(
        f"decision-{task}", "decision curve", lambda: curves.decision(answers, control)
    )
    yield about.picture(f"risk-{task}", "probability by outcome", lambda: curves.risk(answers))
    yield about.picture(
        f"precision-recall-{task}",
        "precision and recall",
        lambda: curves.precision_recall(answers, control),
    )
    yield _calibration(about, answers)
    yield from _before_and_after(about, answers)
    if answers.binary:
        yield _benefit(about, answers)


def _calibration(about: About, answers: Answers) -> Table:
    rows = []
    for positive in answers.shown:
        if not 0 < (answers.labels == positive).sum() < len(answers.labels):
            continue
        for scaled in (False, True):
            found = about.results.calibration(answers.task, positive, scaled)
            source = f"{answers.source}#calibration/{answers.task}/{positive}/{'scaled' if scaled else 'plain'}"
            ends = found.intervals
            rows.append(
                (
                    shortened(answers.classes[positive]),
                    "at the temperature" if scaled else "as given",
                    figure(found.slope, f"{source}/slope", 2),
                    interval(ends["slope"], f"{source}/slope_interval", 2),
                    figure(found.intercept, f"{source}/intercept", 2, sign=True),
                    interval(ends["intercept"], f"{source}/intercept_interval", 2, sign=True),
                    figure(found.ratio, f"{source}/ratio", 2),
                    interval(ends["ratio"], f"{source}/ratio_interval", 2),
                )
            )
    return Table(
        f"Calibration{about.of(answers.task)}",
        (
            "class",
            "probabilities",
            "slope",
            "95 %",
            "intercept",
            "95 %",
            "observed / expected",
            "95 %",
        ),
        tuple(rows),
        "Slope: of a logistic regression on the logit, right is 1, below it answers are too extreme. Intercept: with slope 1 "
        "(calibration in the large), right is 0, below it probabilities are too high. Observed / expected: images of the class "
        "over the sum of probabilities, right is 1. Intervals: percentiles over 500 resamples of groups.",
        (0, 1),
    )


def _before_and_after(about: About, answers: Answers) -> Iterator[Block]:
    """Yield errors of the probabilities as given, at the temperature, and of the classes' shares alone."""
    shares = np.bincount(answers.labels, minlength=len(answers.classes)) / len(answers.labels)
    kinds = {
        "as given": answers.probabilities,
        "at the temperature": answers.scaled,
        "shares of the classes alone": np.tile(shares, (len(answers.labels), 1)),
    }
    rows: list[tuple[Part, ...]] = []
    for name, chance in kinds.items():
        source = f"{answers.source}#errors/{answers.task}/{name}"
        values = figures(
            np.ones((1, len(answers.labels))), answers.labels, chance.astype(np.float64)
        )[:, 0]
        likely = np.clip(
            chance[np.arange(len(answers.labels)), answers.labels].astype(np.float64), SMALLEST, 1
        )
        rows.append(
            (
                name,
                figure(float(values[FIGURES.index("brier")]), f"{source}/brier"),
                figure(float(-np.log(likely).mean()), f"{source}/log_loss"),
                figure(float(values[FIGURES.index("ece")]), f"{source}/ece"),
            )
        )
    yield Table(
        f"Errors of the probabilities{about.of(answers.task)}",
        ("probabilities", "Brier score", "log loss (nats)", "expected calibration error"),
        tuple(rows),
        f"Temperature {answers.point.temperature:.3f}, fixed on validation; smaller is better in every column. The last row is "
        "what knowing the shares of the classes alone is worth." + _worse(rows),
    )


def _worse(rows: list[tuple[Part, ...]]) -> str:
    """Say it where the temperature does harm on these images."""
    plain, scaled = (row[2].value if isinstance(row[2], Cell) else None for row in rows[:2])
    if plain is None or scaled is None or scaled <= plain:
        return ""
    return (
        f" On these images the temperature does harm: the log loss rises by {scaled - plain:.3f}."
    )


def _benefit(about: About, answers: Answers) -> Table:
    of = Curves(answers.labels == 1, answers.probabilities[:, 1], answers.groups)
    curve, everyone = of.net_benefit(), of.treat_all()
    rows = []
    for threshold in BENEFITS:
        place = int(np.argmin(np.abs(curve.x - threshold)))
        source = f"{answers.source}#net_benefit/{answers.task}/{threshold:g}"
        ends = (
            None
            if curve.low is None or curve.high is None
            else (float(curve.low[place]), float(curve.high[place]))
        )
        beyond = float(curve.y[place]) - max(float(everyone.y[place]), 0.0)
        odds = threshold / (1 - threshold)
        rows.append(
            (
                Cell(f"{threshold:g}", threshold),
                figure(float(curve.y[place]), source),
                interval(ends, f"{source}/interval"),
                figure(float(everyone.y[place]), f"{source}/all"),
                figure(beyond, f"{source}/beyond", sign=True),
                figure(
                    100 * (float(curve.y[place]) - float(everyone.y[place])) / odds,
                    f"{source}/avoided",
                    1,
                ),
            )
        )
    return Table(
        f"Net benefit{about.of(answers.task)}",
        (
            "threshold",
            "net benefit",
            "95 %",
            "treat all",
            "beyond treating all or none",
            "net treatments avoided per 100",
        ),
        tuple(rows),
        "The threshold is the probability from which one would act: 0.1 means that a missed case weighs nine times a false "
        "alarm. Treatments avoided: per 100 images, beside treating all, as many as would be worth the same net benefit; below 0 it is worse.",
        (),
    )
