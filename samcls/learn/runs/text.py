"""Figures and names as a page of text shows them: aligned, with a dash where there is nothing.

What comes from a stranger's run may hold anything: `printable` lets nothing through that moves a terminal.
"""

from collections.abc import Sequence

__all__ = ["aligned", "around", "number", "pair", "printable"]


def printable(text: object) -> str:
    r"""Return a text without control characters: line ends, escapes and marks of direction as `\x1b`."""
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in str(text)
    )


def aligned(rows: Sequence[Sequence[str]], indent: str = "") -> list[str]:
    """Return rows as lines of equal columns, the first to the left and the others to the right.

    Args:
        rows: Cells, as many in each; the header is the first.
        indent: Stands before each line.
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        indent
        + "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def number(value: float | None, digits: int = 3) -> str:
    """Return a figure, or a dash where it is not defined."""
    return "-" if value is None else f"{value:.{digits}f}"


def pair(ends: Sequence[float] | None, *, sign: bool = False) -> str:
    """Return an interval, `0.837 to 0.969`, or a dash where there is none.

    Args:
        ends: The lower and the upper.
        sign: Whether a plus is shown, as of differences.
    """
    if ends is None:
        return "-"
    form = "+.3f" if sign else ".3f"
    return f"{ends[0]:{form}} to {ends[1]:{form}}"


def around(value: float | None, spread: float | None, ends: Sequence[float] | None) -> str:
    """Return a figure with its spread over runs and its interval, as far as they are there."""
    if value is None:
        return "-"
    over = "" if spread is None else f" ± {spread:.3f}"
    return f"{value:.3f}{over}" + ("" if ends is None else f" ({pair(ends)})")
