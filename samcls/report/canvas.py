"""How pictures look and what they are saved as: the report's door to matplotlib, by its objects alone.

    figure, panels = grid(3)
    panels[0].plot(x, y, color=COLOURS[0])
    svg_of(figure, "roc-melanoma")                # for a page: colours are the page's own variables
    write_figure(figure, Path("figures"), "roc-melanoma")

Colours are told apart by colour-blind readers (Okabe and Ito). Text stays text. The same figure is the same file:
no date, no random names.
"""

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from samcls.learn.runs.text import printable
from samcls.sweep.plots import COLOURS, GREY, MARKERS

__all__ = [
    "COLOURS",
    "FORMATS",
    "INK",
    "MARKERS",
    "QUIET",
    "Axes",
    "Figure",
    "banded",
    "grid",
    "labelled",
    "looks",
    "names_of",
    "save",
    "square",
    "svg_of",
    "thinned",
    "ticks_at",
    "whole_numbers",
    "write_figure",
]

INK, QUIET = "#1b1f24", "#8a9099"
FORMATS = ("pdf", "png", "svg")
WIDE, HIGH = 4.4, 3.5  # inches of a single panel
POINTS = 400  # of a line, beyond which a printed page shows no difference
STYLE: dict[str, Any] = {
    "font.size": 9.0,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9.0,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.fontsize": 8.0,
    "legend.frameon": False,
    "text.parse_math": False,  # a class may be named $x$
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "savefig.transparent": True,
}
# A page's own colours for those of pictures, a sweep's among them; black is the page's ink.
PAGE = {
    **{colour.lower(): f"var(--c{place})" for place, colour in enumerate(COLOURS)},
    INK: "currentColor",
    "#000000": "currentColor",
    QUIET: "var(--quiet)",
    GREY.lower(): "var(--quiet)",
}


@contextmanager
def looks(name: str) -> Iterator[None]:
    """Draw and save as reports do; inside, names in the file follow from the picture's own."""
    style: Any = {**STYLE, "svg.hashsalt": name}
    with mpl.rc_context(style), warnings.catch_warnings():
        # A class may be named in any script: pages show it, whatever matplotlib's fonts hold.
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
        yield


def grid(number: int, *, wide: float = WIDE, high: float = HIGH) -> tuple[Figure, list[Axes]]:
    """Return a figure of so many panels, at most three in a row.

    Args:
        number: Of panels.
        wide: Inches of a single panel; several are smaller.
        high: Likewise.
    """
    columns = min(3, number)
    rows = -(-number // columns)
    share = 1.0 if number == 1 else 0.66
    figure = Figure(figsize=(wide * share * columns, high * share * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for panel in panels[number:]:
        panel.set_visible(False)
    return figure, panels[:number]


def thinned(*lines: np.ndarray | None) -> list[np.ndarray | None]:
    """Return lines of the same places with at most `POINTS` of them, both ends among these."""
    length = next(len(line) for line in lines if line is not None)
    if length <= POINTS:
        return list(lines)
    kept = np.unique(np.linspace(0, length - 1, POINTS).astype(int))
    return [None if line is None else line[kept] for line in lines]


def svg_of(figure: Figure, name: str) -> str:
    """Return a figure as an element of a page: its own names, the page's colours, no size in inches.

    Args:
        figure: Drawn under `looks`.
        name: Different for each picture of a page.
    """
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = re.sub(r"^.*?(?=<svg)", "", text.getvalue(), count=1, flags=re.DOTALL)
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg [^>]*?) (?:width|height)="[^"]*"', r"\1", svg)
    svg = re.sub(r'(<svg [^>]*?) (?:width|height)="[^"]*"', r"\1", svg)
    svg = re.sub(r'(?<=[\s])id="', f'id="{name}-', svg)
    svg = re.sub(r'(?<=xlink:href="#)|(?<=url\(#)', f"{name}-", svg)
    for colour, variable in PAGE.items():
        svg = svg.replace(colour, variable)
    return re.sub(r"\n\s*", "\n", svg).strip()


def write_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write a figure in each of `FORMATS`; return the files.

    Args:
        figure: Drawn under `looks`.
        folder: Where.
        name: Of the files, without their suffix.
    """
    return [save(figure, folder / f"{name}.{form}") for form in FORMATS]


def save(figure: Figure, file: Path) -> Path:
    """Write a figure in the format that the file's name says, without a date."""
    form = file.suffix.removeprefix(".").lower()
    metadata: dict[str, Any] = {
        "pdf": {"CreationDate": None},
        "svg": {"Date": None},
    }.get(form, {})
    white = form == "png"
    figure.savefig(file, format=form, dpi=300, metadata=metadata, transparent=not white)
    return file


def labelled(panel: Axes, x: str, y: str, title: str = "") -> None:
    """Name both axes and the panel."""
    panel.set_xlabel(x)
    panel.set_ylabel(y)
    if title:
        panel.set_title(title)


def banded(
    panel: Axes,
    x: np.ndarray,
    y: np.ndarray,
    low: np.ndarray | None,
    high: np.ndarray | None,
    **look: Any,
) -> None:
    """Draw a line with its band."""
    x, y, low, high = thinned(x, y, low, high)  # type: ignore[assignment]
    (line,) = panel.plot(x, y, linewidth=1.6, **look)
    if low is not None and high is not None:
        panel.fill_between(x, low, high, color=line.get_color(), alpha=0.18, linewidth=0)


def whole_numbers() -> MaxNLocator:
    """Return what places ticks at whole numbers."""
    return MaxNLocator(integer=True)


def ticks_at(panel: Axes, places: Sequence[float], *, logarithmic: bool, percent: bool) -> None:
    """Put ticks where the points are, and no others.

    Args:
        panel: Whose lower axis.
        places: Rising.
        logarithmic: Whether the axis is.
        percent: Whether places are shares.
    """
    if logarithmic:
        panel.set_xscale("log")
    panel.xaxis.set_major_locator(FixedLocator(list(places)))
    panel.xaxis.set_minor_locator(NullLocator())
    form = "{:.3g} %" if percent else "{:,.0f}"
    scale = 100 if percent else 1
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: form.format(scale * value)))


def square(panel: Axes) -> None:
    """Both axes 0 to 1, of equal length."""
    panel.set_xlim(-0.02, 1.02)
    panel.set_ylim(-0.02, 1.02)
    panel.set_aspect("equal")


def names_of(texts: Sequence[str], most: int = 22) -> list[str]:
    """Return names short enough for a panel."""
    plain = map(printable, texts)
    return [text if len(text) <= most else f"{text[: most - 1]}…" for text in plain]
