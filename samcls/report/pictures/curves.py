"""Discrimination, calibration, utility and risk: the four displays, and precision by recall.

A panel for each class that is shown; of two classes, the positive one. Bands are 95 %, over resamples of groups.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np

from samcls.learn.score.curves import Calibration, Curve, Curves
from samcls.report.canvas import (
    COLOURS,
    INK,
    QUIET,
    Axes,
    Figure,
    banded,
    grid,
    labelled,
    names_of,
    square,
)
from samcls.report.pictures.drawing import Drawing
from samcls.report.subject import Answers

__all__ = ["calibration", "decision", "precision_recall", "risk", "roc"]

Corner = Literal["best", "lower right", "upper left", "upper right"]  # of the legend
BINS = np.linspace(0, 1, 21)


def roc(answers: Answers, control: Answers | None = None) -> Drawing:
    """Sensitivity by 1 - specificity, with the chosen threshold and the best control.

    Args:
        answers: Of the scored images.
        control: Of the best control on the same images.
    """

    def draw(panel: Axes, positive: int) -> None:
        curve = _curves(answers, positive).roc()
        panel.plot([0, 1], [0, 1], color=QUIET, linewidth=0.8, linestyle=(0, (4, 3)))
        if control is not None:
            _beside(panel, _curves(control, positive).roc())
        banded(panel, curve.x, curve.y, curve.low, curve.high, color=COLOURS[0], label="this run")
        if answers.point.threshold is not None:
            said, true = answers.answers == 1, answers.labels == 1
            at = (
                float((said & ~true).sum() / (~true).sum()),
                float((said & true).sum() / true.sum()),
            )
            panel.plot(*at, "o", color=INK, markersize=5, label="chosen threshold")
        square(panel)

    return _drawing(
        answers,
        draw,
        ("1 \N{MINUS SIGN} specificity", "sensitivity"),
        "lower right",
        "ROC",
        "receiver operating characteristic",
        "Sensitivity against 1 \N{MINUS SIGN} specificity at every threshold.",
    )


def precision_recall(answers: Answers, control: Answers | None = None) -> Drawing:
    """Precision by recall, with the share of the class.

    Args:
        answers: Of the scored images.
        control: Of the best control on the same images.
    """

    def draw(panel: Axes, positive: int) -> None:
        curve = _curves(answers, positive).precision_recall()
        share = float((answers.labels == positive).mean())
        panel.axhline(
            share,
            color=QUIET,
            linewidth=0.8,
            linestyle=(0, (4, 3)),
            label=f"share {share:.2f}" if answers.binary else "share of the class",
        )
        if control is not None:
            _beside(panel, _curves(control, positive).precision_recall())
        banded(panel, curve.x, curve.y, curve.low, curve.high, color=COLOURS[0], label="this run")
        square(panel)

    return _drawing(
        answers,
        draw,
        ("recall (sensitivity)", "precision"),
        "best",
        "Precision and recall",
        "precision by recall",
        "Precision against recall at every threshold; the broken line is the share of the class, which chance has.",
    )


def calibration(answers: Answers, found_of: Callable[[int, bool], Calibration]) -> Drawing:
    """Share of the class by probability, before and after the temperature.

    Args:
        answers: Of the scored images.
        found_of: Gives the calibration of a class, as given or at the temperature.
    """

    def draw(panel: Axes, positive: int) -> None:
        panel.plot([0, 1], [0, 1], color=QUIET, linewidth=0.8, linestyle=(0, (4, 3)))
        scaled = found_of(positive, True)
        banded(panel, scaled.smooth.x, scaled.smooth.y, None, None, color=COLOURS[1],
               label="at the temperature", linestyle="--")  # fmt: skip
        found = found_of(positive, False)
        smooth, bins = found.smooth, found.bins
        banded(
            panel, smooth.x, smooth.y, smooth.low, smooth.high, color=COLOURS[0], label="this run"
        )
        reach = np.stack([bins.share - bins.low, bins.high - bins.share])
        known = ~np.isnan(reach).any(0)
        panel.errorbar(
            bins.mean[known], bins.share[known], yerr=np.maximum(reach[:, known], 0), fmt="o", markersize=3.5,
            color=INK, elinewidth=0.8, label="tenths of the images",
        )  # fmt: skip
        panel.plot(bins.mean[~known], bins.share[~known], "o", markersize=3.5, color=INK)
        square(panel)

    return _drawing(
        answers,
        draw,
        ("probability", "share of the class"),
        "upper left",
        "Calibration",
        "calibration",
        "How often the class was there, by the probability given; the diagonal is right. The line is a logistic "
        "regression on a spline of the logit; points are tenths of the images.",
    )


def decision(answers: Answers, control: Answers | None = None) -> Drawing:
    """Net benefit by threshold, beside treating all and none.

    Args:
        answers: Of the scored images.
        control: Of the best control on the same images.
    """

    def draw(panel: Axes, positive: int) -> None:
        curves = _curves(answers, positive)
        curve, everyone = curves.net_benefit(), curves.treat_all()
        share = float((answers.labels == positive).mean())
        panel.axhline(0, color=QUIET, linewidth=0.8, label="treat none")
        panel.plot(
            everyone.x,
            everyone.y,
            color=QUIET,
            linewidth=1.0,
            linestyle=(0, (4, 3)),
            label="treat all",
        )
        if control is not None:
            _beside(panel, _curves(control, positive).net_benefit())
        banded(panel, curve.x, curve.y, curve.low, curve.high, color=COLOURS[0], label="this run")
        panel.set_xlim(0, 1)
        panel.set_ylim(-0.35 * share, 1.1 * share)

    return _drawing(
        answers,
        draw,
        ("threshold of probability", "net benefit"),
        "upper right",
        "Decision curve",
        "net benefit by threshold",
        "True positives less false positives weighed by the odds of the threshold, as a share of all images (Vickers "
        "and Elkin 2006). Useful where the line is above both treating all and treating none.",
    )


def risk(answers: Answers) -> Drawing:
    """Distribution of the probability, by outcome.

    Args:
        answers: Of the scored images.
    """

    def draw(panel: Axes, positive: int) -> None:
        true, chance = answers.labels == positive, answers.probabilities[:, positive]
        for side, name, colour in (
            (~true, "others", COLOURS[0]),
            (true, "of the class", COLOURS[1]),
        ):
            if side.any():
                shares = np.histogram(chance[side], BINS)[0] / side.sum()
                panel.stairs(shares, BINS, color=colour, fill=True, alpha=0.25)
                panel.stairs(
                    shares,
                    BINS,
                    color=colour,
                    linewidth=1.4,
                    label=f"{name} ({int(side.sum())})" if answers.binary else name,
                )
        if answers.point.threshold is not None:
            panel.axvline(
                answers.point.threshold,
                color=INK,
                linewidth=0.9,
                linestyle=":",
                label="chosen threshold",
            )
        panel.set_xlim(0, 1)
        panel.set_ylim(bottom=0)

    return _drawing(
        answers,
        draw,
        ("probability", "share of images"),
        "best",
        "Probability by outcome",
        "distribution of the probability among images of the class and others",
        "Shares of the images of each outcome, in 20 bins of probability.",
    )


def _beside(panel: Axes, curve: Curve) -> None:
    """Draw the best control's curve, without its band."""
    look = {"color": COLOURS[1], "label": "best control", "linestyle": "--"}
    banded(panel, curve.x, curve.y, None, None, **look)


def _curves(answers: Answers, positive: int) -> Curves:
    answers.need_both(positive)
    return Curves(answers.labels == positive, answers.probabilities[:, positive], answers.groups)


def _drawing(
    answers: Answers,
    draw: Callable[[Axes, int], None],
    axes: tuple[str, str],
    corner: Corner,
    title: str,
    what: str,
    caption: str,
) -> Drawing:
    """Return a panel for each class that has images and is not all of them."""
    shown = [c for c in answers.shown if 0 < (answers.labels == c).sum() < len(answers.labels)]
    if not shown:
        answers.need_both(answers.shown[0] if answers.shown else 0)
    figure, panels = grid(len(shown))
    names = names_of(answers.classes)
    for place, (panel, positive) in enumerate(zip(panels, shown, strict=True)):
        draw(panel, positive)
        labelled(panel, *axes, title="" if answers.binary else names[positive])
        if len(panels) == 1:
            panel.legend(loc=corner)
        elif place:
            panel.set_ylabel("")
    if len(panels) > 1:
        _one_legend(figure, panels[0])
    named = ", ".join(names[c] for c in shown)
    rest = len(answers.classes) - len(shown)
    more = f" {rest} more classes are not drawn." if rest and not answers.binary else ""
    sides = [answers.labels == c for c in shown]
    bands = all(Curves(side, np.zeros(len(side)), answers.groups).banded for side in sides)
    told = (
        " Bands: 95 %, over resamples of groups."
        if bands
        else " No bands: under six groups of an outcome."
    )
    return Drawing(
        figure,
        f"{title}, {answers.task}",
        f"{what} of {answers.task}, class {named}: {len(answers.labels)} images",
        caption + ("" if title == "Probability by outcome" else told) + more,
        answers.source,
    )


def _one_legend(figure: Figure, panel: Axes) -> None:
    handles, names = panel.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=min(4, len(names)))
