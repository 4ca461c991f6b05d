"""A sweep in pictures, as SVG and PNG: of the validation split, but for one that says test.

    marginals.svg          AUC against the values of each varied setting
    learning_curves.svg    AUC and loss by epoch, the best ten in front
    data_efficiency.svg    AUC against the share of training images, where the space has shares;
                           data_efficiency_test.svg is the same of the test split

Colours are told apart by colour-blind readers (Okabe and Ito). The only door to matplotlib, by its
objects alone: no global state, no display. Matplotlib is in the extra `report`.

    plot_sweep(folder, Searched(rows, runs, space))
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from samcls.learn.runs.folder import Run
from samcls.sweep.efficiency import Point
from samcls.sweep.leaderboard import Row
from samcls.sweep.scales import (
    is_log,
    label,
    on_scale,
    ordered,
    reads,
    round_ticks,
    shown,
    varied,
)
from samcls.sweep.space import Space

__all__ = [
    "PICTURES",
    "Searched",
    "data_efficiency",
    "learning_curves",
    "marginals",
    "plot_sweep",
]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#9A9A9A"
MARKERS = "osD^vPX"
BEST = 10  # configurations that stand out
FEWEST = 5  # configurations behind a running median
MOST = 12  # categories shown of a setting that has more
STYLE: Any = {
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.0,
    "svg.hashsalt": "samcls",  # or the same figure would be another file each time
}


@dataclass(frozen=True, eq=False)
class Searched:
    """What there is to draw of a sweep.

    Attributes:
        rows: Ranked rows of the leaderboard, the best first.
        runs: Finished runs by the digest of their config.
        space: What was searched.
        points: The data-efficiency curve on `validation` and on `test`; empty where there is none.
    """

    rows: Sequence[Row]
    runs: Mapping[str, Run]
    space: Space
    points: Mapping[str, Sequence[Point]] = field(default_factory=dict)


def plot_sweep(folder: str | Path, searched: Searched) -> list[Path]:
    """Draw what there is to draw into a folder's `plots`.

    Args:
        folder: The sweep's.
        searched: Rows without a rank are not drawn.

    Returns:
        The files written; none where no configuration has a rank.
    """
    searched = replace(searched, rows=[row for row in searched.rows if row.rank is not None])
    written: list[Path] = []
    if not searched.rows:
        return written
    plots = Path(folder) / "plots"
    plots.mkdir(parents=True, exist_ok=True)
    for name, draw in PICTURES.items():
        with mpl.rc_context(STYLE):
            figure = draw(searched)
            if figure is None:
                continue
            for suffix in ("svg", "png"):
                path = plots / f"{name}.{suffix}"
                metadata = {"Date": None} if suffix == "svg" else {}
                figure.savefig(path, dpi=150, metadata=metadata)
                written.append(path)
    return written


def marginals(rows: Sequence[Row], space: Space) -> Figure:
    """AUC against the values of each varied setting, a panel each: every configuration, and medians.

    Args:
        rows: Ranked rows, the best first.
        space: Says which settings vary, and on which scale.
    """
    keys = varied(rows, space)
    heads = list(dict.fromkeys(row.configuration.head for row in rows))
    columns = min(3, len(keys))
    lines = math.ceil(len(keys) / columns)
    figure = Figure(figsize=(1.0 + 3.2 * columns, 0.9 + 2.8 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
    for panel, key in zip(panels, keys, strict=False):
        _marginal(panel, key, rows, space, heads)
    for panel in panels[len(keys) :]:
        panel.set_visible(False)
    for panel in panels[::columns]:
        panel.set_ylabel("validation AUC")
    handles = _head_handles(heads) if len(heads) > 1 else []
    if any(panel.get_lines() or panel.findobj(LineCollection) for panel in panels):
        handles.append(Line2D([], [], color="black", linewidth=2, label="median"))
    star = Line2D([], [], color="black", marker="*", markersize=11, linestyle="", label="winner")
    handles.append(star)
    figure.legend(
        handles=handles, loc="outside upper center", ncols=min(6, len(handles)), frameon=False
    )
    return figure


def learning_curves(rows: Sequence[Row], found: Mapping[str, Run]) -> Figure:
    """AUC and loss by epoch, the first run of each configuration; dots mark the epoch chosen.

    Args:
        rows: Ranked rows, the best first.
        found: Finished runs by the digest of their config.
    """
    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    panels = figure.subplots(1, 2)
    runs = [found[row.runs[0]] for row in rows]
    for i in range(len(runs))[::-1]:
        epochs = [epoch.epoch for epoch in runs[i].history]
        aucs = [np.nan if e.val_auc is None else e.val_auc for e in runs[i].history]
        losses = [epoch.val_loss for epoch in runs[i].history]
        colour = COLOURS[1] if i == 0 else COLOURS[0] if i < BEST else GREY
        look: dict[str, Any] = {
            "color": colour,
            "linewidth": 2.4 if i == 0 else 1.4 if i < BEST else 0.6,
            "alpha": 1.0 if i == 0 else 0.75 if i < BEST else 0.35,
            "marker": "o" if len(epochs) == 1 else "",
            "markersize": 3.0,
        }
        for panel, values in zip(panels, (aucs, losses), strict=True):
            panel.plot(epochs, values, **look)
            if i < BEST:
                at = runs[i].metrics["best_epoch"] - 1
                panel.plot(epochs[at], values[at], "o", color=colour, markersize=5 if i == 0 else 4)
    _clip_losses(panels[1], runs)
    for panel, name in zip(panels, ("validation AUC", "validation loss (nats)"), strict=True):
        panel.set_xlabel("epoch")
        panel.set_ylabel(name)
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.grid(axis="y", linewidth=0.4, alpha=0.5)
    handles = [Line2D([], [], color=COLOURS[1], linewidth=2.4, label="winner")]
    if len(runs) > 1:
        next_ones = f"ranks 2 to {min(BEST, len(runs))}"
        handles.append(Line2D([], [], color=COLOURS[0], linewidth=1.4, label=next_ones))
    if len(runs) > BEST:
        handles.append(Line2D([], [], color=GREY, label=f"{len(runs) - BEST} others"))
    handles.append(Line2D([], [], color="black", marker="o", linestyle="", label="epoch chosen"))
    figure.legend(handles=handles, loc="outside upper center", ncols=4, frameon=False)
    return figure


def data_efficiency(points: Sequence[Point], split: str = "validation") -> Figure:
    """AUC against the share of training images, a line and its intervals for each head.

    Args:
        points: As `efficiency` gives them.
        split: Whose AUC it is.
    """
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    panel = figure.subplots()
    heads = list(dict.fromkeys(point.head for point in points))
    shares = sorted({point.fraction for point in points})
    logarithmic = shares[-1] / shares[0] > 5
    for i, head in enumerate(heads):
        own = [point for point in points if point.head == head]
        # Side by side, or intervals of several heads would hide each other.
        shift = (i - (len(heads) - 1) / 2) * 0.012
        wide = (shares[-1] - shares[0]) or 1.0
        x = [p.fraction * 4**shift if logarithmic else p.fraction + wide * shift for p in own]
        y = [point.auc for point in own]
        ends = [point.interval or (point.auc, point.auc) for point in own]
        reach = np.abs(np.array(ends).T - np.array(y))
        panel.errorbar(
            x, y, yerr=reach, color=COLOURS[i % 7], marker=MARKERS[i % 7], markersize=5,
            linewidth=1.8, elinewidth=1.1, capsize=3, label=head,
        )  # fmt: skip
    if logarithmic:
        panel.set_xscale("log")
    panel.xaxis.set_major_locator(FixedLocator(shares))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g} %"))
    panel.set_xlabel("share of the training images")
    panel.set_ylabel(f"{split} AUC")
    panel.grid(axis="y", linewidth=0.4, alpha=0.5)
    panel.legend(title="head, best configuration", frameon=False)
    runs = sorted({point.runs for point in points})
    bars = "" if runs == [1] else "; bars: 95 % over these runs"
    counted = " to ".join(str(n) for n in dict.fromkeys((runs[0], runs[-1])))
    plural = "" if runs == [1] else "s"
    panel.set_title(f"mean of {counted} run{plural} (seeds and folds){bars}", loc="left")
    return figure


def _marginal(
    panel: Axes, key: str, rows: Sequence[Row], space: Space, heads: Sequence[str]
) -> None:
    own = [row for row in rows if reads(space, row.configuration, key)]
    values = ordered([getattr(row.configuration, key) for row in own])
    aucs = np.array([row.auc for row in own], dtype=np.float64)
    if on_scale(key, values, space):
        x = np.array([getattr(row.configuration, key) for row in own], dtype=np.float64)
        _running_median(panel, x, aucs)
        if is_log(key, values, space):
            # Of less than a decade matplotlib's own numbers overlap.
            panel.set_xscale("log")
            ticks = FixedLocator(round_ticks(values[0], values[-1], True))
            panel.xaxis.set_major_locator(ticks)
            panel.xaxis.set_minor_locator(NullLocator())
            panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2g}"))
    else:
        x, own, aucs = _strips(panel, key, own, values)
    for i, head in enumerate(heads):
        chosen = [j for j, row in enumerate(own) if row.configuration.head == head]
        panel.scatter(
            x[chosen], aucs[chosen], s=14, alpha=0.55, linewidths=0,
            color=COLOURS[i % 7], marker=MARKERS[i % 7], zorder=2,
        )  # fmt: skip
    winner = [j for j, row in enumerate(own) if row.rank == 1]
    panel.scatter(
        x[winner], aucs[winner], s=130, marker="*", color="black", edgecolors="white",
        linewidths=0.8, zorder=4,
    )  # fmt: skip
    panel.set_xlabel(label(key))
    panel.grid(axis="y", linewidth=0.4, alpha=0.5)


def _strips(
    panel: Axes, key: str, rows: Sequence[Row], values: Sequence[Any]
) -> tuple[np.ndarray, list[Row], np.ndarray]:
    """Return a strip for each value with its median; of very many values those of the best medians."""
    by_value = {v: [r for r in rows if getattr(r.configuration, key) == v] for v in values}
    medians = {v: float(np.median([r.auc or 0.0 for r in own])) for v, own in by_value.items()}
    best = sorted(sorted(values, key=lambda v: -medians[v])[:MOST], key=list(values).index)
    x, kept = [], []
    for place, value in enumerate(best):
        own = by_value[value]
        # Spread evenly, in the order of the digests: no randomness, and points stay apart.
        order = np.argsort(np.argsort([row.key for row in own]))
        x += list(place + (0.5 * (order + 0.5) / len(own) - 0.25))
        kept += own
        panel.hlines(
            medians[value], place - 0.32, place + 0.32, color="black", linewidth=2, zorder=3
        )
    names = [shown(value) for value in best]
    longest = max(len(line) for name in names for line in name.splitlines())
    turned = longest * len(names) > 40
    panel.set_xticks(
        range(len(best)), names, fontsize=9 if len(best) < 6 else 7, linespacing=1.0,
        rotation=35 if turned else 0, ha="right" if turned else "center",
        rotation_mode="anchor" if turned else "default",
    )  # fmt: skip
    panel.set_xlim(-0.6, len(best) - 0.4)
    if len(best) < len(values):
        panel.set_title(f"best {len(best)} of {len(values)} values", fontsize=8)
    return np.array(x), kept, np.array([row.auc for row in kept], dtype=np.float64)


def _running_median(panel: Axes, x: np.ndarray, aucs: np.ndarray) -> None:
    """Medians of neighbours, up to six groups of equal size; of few points there are none."""
    if len(x) < 2 * FEWEST:
        return
    order = np.argsort(x, kind="stable")
    groups = [part for part in np.array_split(order, min(6, len(x) // FEWEST)) if len(part)]
    middle = [float(np.median(x[part])) for part in groups]
    median = [float(np.median(aucs[part])) for part in groups]
    panel.plot(middle, median, color="black", linewidth=2, zorder=3)


def _clip_losses(panel: Axes, runs: Sequence[Run]) -> None:
    """Leave out of the picture what a few diverging runs reach."""
    losses = np.array([epoch.val_loss for run in runs for epoch in run.history])
    low, high = float(losses.min()), float(np.percentile(losses, 97))
    if high > low:
        panel.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))


def _head_handles(heads: Sequence[str]) -> list[Line2D]:
    return [
        Line2D([], [], color=COLOURS[i % 7], marker=MARKERS[i % 7], linestyle="", label=head)
        for i, head in enumerate(heads)
    ]


# A picture is a function and a line: from what was searched to a figure, or None where there is nothing.
PICTURES: dict[str, Callable[[Searched], Figure | None]] = {
    "learning_curves": lambda s: learning_curves(s.rows, s.runs),
    "marginals": lambda s: marginals(s.rows, s.space) if varied(s.rows, s.space) else None,
    "data_efficiency": lambda s: _efficiency(s, "validation"),
    "data_efficiency_test": lambda s: _efficiency(s, "test"),
}


def _efficiency(searched: Searched, split: str) -> Figure | None:
    points = searched.points.get(split)
    return data_efficiency(points, split) if points else None
