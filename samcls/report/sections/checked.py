"""The coded checks: what was found, what passed, what could not be judged."""

from collections.abc import Iterator

from samcls.report.about import About
from samcls.report.blocks import Block, Cell, Listing, Table, Text

__all__ = ["checked"]


def checked(about: About) -> Iterator[Block]:
    """Yield a row for each finding, and lists of the rest."""
    told = about.checks
    if told.found:
        yield Table(
            "Found",
            ("code", "level", "what was found", "what to do"),
            tuple(
                (
                    Cell(one.code, mark="strong"),
                    Cell("accepted" if one.silenced else one.level, mark="" if one.silenced else one.level),
                    one.sentence,
                    one.remedy,
                )
                for one in told.found
            ),
            "error: figures are wrong or empty. warning: what a reader must know. note: worth doing. accepted: silenced in the config.",
            (0, 1, 2, 3),
        )  # fmt: skip
    if told.passed:
        yield Text(
            (
                Cell("Passed: ", mark="strong"),
                ", ".join(f"{title} ({code})" for code, title in told.passed),
                ".",
            )
        )
    if told.unjudged:
        yield Text((Cell("Not judged:", mark="strong"),))
        yield Listing(tuple((f"{title} ({code}): {why}",) for code, title, why in told.unjudged))
