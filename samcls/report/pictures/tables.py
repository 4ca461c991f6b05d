"""Confusions, differences as forests, epochs, and runs: pictures of tables."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from samcls.learn.fit.schedule import Epoch
from samcls.report.canvas import COLOURS, INK, QUIET, Axes, grid, labelled, names_of, whole_numbers
from samcls.report.pictures.drawing import Drawing

__all__ = ["confusion", "confusion_on", "forest", "forest_on", "history", "spread"]

MOST = 15  # classes of a confusion that is drawn

Line = tuple[str, float, tuple[float, float] | None]


def confusion(
    table: Int[np.ndarray, "actual answered"], classes: Sequence[str], source: str, task: str
) -> Drawing:
    """Images by label and answer.

    Args:
        table: Numbers of images.
        classes: Names, in order.
        source: File that it is from.
        task: Name.
    """
    number = len(classes)
    size = 3.0 + 0.35 * max(0, number - 4)
    figure, (panel,) = grid(1, wide=size + 0.9, high=size)
    confusion_on(panel, table, classes)
    return Drawing(
        figure,
        f"Confusion, {task}",
        f"confusion of {task}: {int(np.trace(table))} of {int(table.sum())} images answered as labelled",
        "Images by label and answer; percentages are of each label.",
        source,
    )


def forest(
    title: str, lines: Sequence[Line], axis: str, source: str, caption: str, at: float | None = None
) -> Drawing:
    """Figures with their intervals, one below another.

    Args:
        title: Of the picture.
        lines: Name, figure and interval of each; the first is this run's.
        axis: What the figure is.
        source: File that they are from.
        caption: Under it.
        at: Where a line stands, such as 0 of differences.
    """
    figure, (panel,) = grid(1, wide=6.2, high=0.9 + 0.3 * len(lines))
    forest_on(panel, lines, axis, at)
    told = "; ".join(f"{name[:40]} {value:.3f}" for name, value, _ in lines[:12])
    return Drawing(figure, title, f"{title}: {told}", caption, source)


def history(epochs: Sequence[Epoch], best: int, source: str) -> Drawing:
    """Loss and AUC by epoch.

    Args:
        epochs: Each that ran.
        best: The one that was chosen, from 1.
        source: File that they are from.
    """
    figure, panels = grid(2, wide=4.4, high=3.4)
    x = [one.epoch for one in epochs]
    panels[0].plot(x, [one.train_loss for one in epochs], color=COLOURS[1], label="training")
    panels[0].plot(x, [one.val_loss for one in epochs], color=COLOURS[0], label="validation")
    panels[1].plot(
        x, [np.nan if e.val_auc is None else e.val_auc for e in epochs], color=COLOURS[0]
    )
    for panel, name in zip(panels, ("loss (nats)", "validation AUC"), strict=True):
        panel.axvline(best, color=QUIET, linewidth=0.9, linestyle=":", label="epoch chosen")
        labelled(panel, "epoch", name)
        panel.xaxis.set_major_locator(whole_numbers())
    panels[0].legend(loc="best")
    return Drawing(
        figure,
        "Training",
        f"loss and validation AUC over {len(epochs)} epochs; epoch {best} was chosen",
        "Loss and validation AUC by epoch; the dotted line is the epoch that validation chose.",
        source,
    )


def spread(names: Sequence[str], values: Sequence[float], axis: str, source: str) -> Drawing:
    """Draw a figure of each run, and their mean.

    Args:
        names: Of the runs.
        values: Of each.
        axis: What the figure is.
        source: File that they are from.
    """
    figure, (panel,) = grid(1, wide=6.2, high=0.9 + 0.26 * len(names))
    panel.axvline(float(np.mean(values)), color=QUIET, linewidth=0.9, linestyle=(0, (4, 3)))
    panel.plot(values, range(len(values)), "o", color=COLOURS[0], markersize=5)
    panel.set_yticks(range(len(names)), names_of(names, 30))
    panel.set_ylim(len(names) - 0.5, -0.5)
    panel.tick_params(axis="y", length=0)
    panel.set_xlabel(axis)
    panel.grid(axis="x", linewidth=0.4, alpha=0.4)
    told = ", ".join(f"{value:.3f}" for value in values[:12])
    return Drawing(
        figure,
        "Runs",
        f"{axis} of {len(names)} runs: {told}",
        "Each run; the line is their mean.",
        source,
    )


def confusion_on(
    panel: Axes, table: Int[np.ndarray, "actual answered"], classes: Sequence[str]
) -> None:
    """Draw a confusion.

    Args:
        panel: Where.
        table: Numbers of images.
        classes: Names, in order.
    """
    number = len(classes)
    shares = table / np.maximum(table.sum(1, keepdims=True), 1)
    edges = np.arange(number + 1) - 0.5
    panel.pcolormesh(
        edges, edges, shares, cmap="Blues", vmin=0, vmax=1.6
    )  # no raster in vector graphics
    panel.invert_yaxis()
    for row in range(number):
        for column in range(number):
            told = f"{table[row, column]}" + (
                f"\n{100 * shares[row, column]:.0f} %" if number <= 8 else ""
            )
            # The lighter half of the colours: black is read on all of them, in light and in dark.
            panel.text(
                column,
                row,
                told,
                ha="center",
                va="center",
                fontsize=9 if number <= 8 else 7,
                color="#0a0a0a",
            )
    names = names_of(classes, 16)
    turned = sum(map(len, names)) > 40
    panel.set_xticks(
        range(number), names, rotation=35 if turned else 0, ha="right" if turned else "center"
    )
    panel.set_yticks(range(number), names)
    panel.spines[:].set_visible(False)
    panel.tick_params(length=0)
    labelled(panel, "answer", "label")


def forest_on(panel: Axes, lines: Sequence[Line], axis: str, at: float | None = None) -> None:
    """Draw figures with their intervals, one below another.

    Args:
        panel: Where.
        lines: Name, figure and interval of each; the first is this run's.
        axis: What the figure is.
        at: Where a line stands, such as 0 of differences.
    """
    if at is not None:
        panel.axvline(at, color=QUIET, linewidth=0.9, linestyle=(0, (4, 3)))
    for place, (_, value, ends) in enumerate(lines):
        colour = COLOURS[0] if place == 0 and at is None else INK
        if ends is not None:
            panel.plot(ends, [place, place], color=colour, linewidth=1.4)
        panel.plot([value], [place], "s", color=colour, markersize=5)
    panel.set_yticks(range(len(lines)), names_of([name for name, _, _ in lines], 44))
    panel.set_ylim(len(lines) - 0.5, -0.5)
    panel.spines["left"].set_visible(False)
    panel.tick_params(axis="y", length=0)
    panel.set_xlabel(axis)
    panel.grid(axis="x", linewidth=0.4, alpha=0.4)
