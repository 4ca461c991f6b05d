"""What a report is made of: texts, tables, pictures, each number with where it comes from.

    Table("Figures", ("", "AUC"), [("test", figure(0.931, "metrics.json#/test/auc"))])

A source is a file of what is reported and a place in it: `metrics.json#/test/auc` is a JSON pointer, and
`predictions.csv, split test#auc` is what is computed from those rows. Readers see it by hovering, and under tables.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, SupportsFloat, SupportsInt

from samcls.learn.runs.text import printable

__all__ = [
    "Block",
    "Cell",
    "Gallery",
    "Listing",
    "Missing",
    "Note",
    "Picture",
    "Section",
    "Table",
    "Text",
    "chance",
    "count",
    "figure",
    "from_table",
    "interval",
    "shortened",
]

DASH = "\N{EN DASH}"  # where there is no number
SMALLEST = 0.001  # p that is told
LONGEST = 80  # signs of a name that are shown


@dataclass(frozen=True)
class Cell:
    """A text or a number, where it stands.

    Attributes:
        text: As it is shown.
        value: The number behind it, unrounded; None of a text.
        source: File and place that it comes from; "" of a text.
        mark: `strong`, or "".
        high: Upper end of an interval, whose lower one is the value.
        spread: Standard deviation over runs.
    """

    text: str
    value: float | None = None
    source: str = ""
    mark: str = ""
    high: float | None = None
    spread: float | None = None

    @property
    def key(self) -> float | str:
        """What a table is sorted by."""
        return self.text if self.value is None else self.value


Part = str | Cell


@dataclass(frozen=True)
class Text:
    """A paragraph; `kind` is `p`, `lead`, `note` or `command`."""

    parts: tuple[Part, ...]
    kind: str = "p"
    block: ClassVar[str] = "text"


@dataclass(frozen=True)
class Note:
    """A paragraph to copy, in a box: for the paper."""

    title: str
    text: str
    block: ClassVar[str] = "copy"


@dataclass(frozen=True)
class Missing:
    """What cannot be shown, and why."""

    what: str
    why: str
    block: ClassVar[str] = "missing"


@dataclass(frozen=True)
class Listing:
    """Points."""

    items: tuple[tuple[Part, ...], ...]
    block: ClassVar[str] = "list"


@dataclass(frozen=True)
class Table:
    """A table; its first column names the rows.

    Attributes:
        title: Above it.
        header: Names of the columns.
        rows: As many cells each.
        note: Under it.
        words: Columns that hold words, by number: to the left.
        folded: Whether it is shown when its title is pressed, being long and for reference.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Part, ...], ...]
    note: str = ""
    words: tuple[int, ...] = (0,)
    folded: bool = False
    block: ClassVar[str] = "table"

    @property
    def sources(self) -> tuple[str, ...]:
        """Files that its numbers come from, each once."""
        found = (cell.source for row in self.rows for cell in row if isinstance(cell, Cell))
        return tuple(dict.fromkeys(one.partition("#")[0] for one in found if one))


@dataclass(frozen=True)
class Picture:
    """A vector graphic.

    Attributes:
        name: Of the file that --figures writes, without its suffix.
        title: Above it.
        svg: The graphic, without an XML head.
        alt: What it shows, in words, for whoever does not see it.
        caption: Under it.
        source: File that it is drawn from.
        width: In inches, as it is saved.
    """

    name: str
    title: str
    svg: str
    alt: str
    caption: str
    source: str
    width: float
    block: ClassVar[str] = "picture"


@dataclass(frozen=True)
class Gallery:
    """Images with what is said of them: `items` hold `name`, `said`, `wrong`, `images` and `near`."""

    items: tuple[Mapping[str, Any], ...]
    block: ClassVar[str] = "gallery"


Block = Text | Note | Missing | Listing | Table | Picture | Gallery


@dataclass(frozen=True)
class Section:
    """A part of a report, with a place in the contents."""

    name: str
    title: str
    blocks: Sequence[Block] = field(default_factory=tuple)


def figure(
    value: SupportsFloat | None, source: str, digits: int = 3, *, sign: bool = False, mark: str = ""
) -> Cell:
    """Return a number as it is shown, with its source; a dash where it is not defined.

    Args:
        value: The number; None where nothing defines it.
        source: File and place.
        digits: After the point.
        sign: Whether a plus is shown, as of differences.
        mark: `strong`, or "".
    """
    if value is None or math.isnan(plain := float(value)):
        return Cell(DASH, None, "", mark)
    plus = "+" if sign else ""
    return Cell(f"{plain:{plus}.{digits}f}".replace("-", "\N{MINUS SIGN}"), plain, source, mark)


def chance(p: float | None, source: str) -> Cell:
    """Return a p as it is shown: two digits, or that it is below 0.001."""
    if p is None:
        return Cell(DASH)
    if p < SMALLEST:
        return Cell(f"below {SMALLEST}", p, source)
    return figure(p, source, 2 if p >= 0.1 else 3)


def count(value: SupportsInt, source: str) -> Cell:
    """Return a number of things, with its source."""
    return Cell(f"{int(value):,}", float(int(value)), source)


def interval(
    ends: Sequence[float] | None, source: str, digits: int = 3, *, sign: bool = False
) -> Cell:
    """Return a 95 % interval as it is shown; a dash where there is none."""
    if ends is None or any(math.isnan(one) for one in ends):
        return Cell(DASH)
    plus = "+" if sign else ""
    low, high = (f"{one:{plus}.{digits}f}".replace("-", "\N{MINUS SIGN}") for one in ends)
    return Cell(f"{low} to {high}", float(ends[0]), source, high=float(ends[1]))


def from_table(table: Mapping[str, Any], place: str, name: str) -> tuple[Cell, Cell]:
    """Return a figure of a table of `scoring.score`, with its spread over runs, and its interval."""
    value, spread = table.get(name), table.get(f"{name}_std")
    cell = figure(value, f"{place}/{name}")
    if spread and value is not None:  # what has no chance in it does not vary over seeds
        cell = replace(cell, text=f"{cell.text} ± {spread:.3f}", spread=float(spread))
    return cell, interval(table.get(f"{name}_interval"), f"{place}/{name}_interval")


def shortened(text: object, most: int = LONGEST) -> str:
    """Return a name without control characters, cut where it is very long."""
    plain = printable(text)
    return plain if len(plain) <= most else f"{plain[: most - 1]}…"
