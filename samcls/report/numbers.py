"""Every number of a report with its source, as a table for programs.

section,table,row,column,value,high,spread,source     an interval is value to high
"""

from collections.abc import Iterator, Sequence

from samcls.learn.runs.predictions import csv_bytes
from samcls.report.blocks import Cell, Part, Section, Table

__all__ = ["numbers_csv", "numbers_of"]


def numbers_of(sections: Sequence[Section]) -> Iterator[tuple[str, str, str, str, Cell]]:
    """Yield section, table, row, column and the number itself, in their order.

    Args:
        sections: Of a report.
    """
    for section in sections:
        for block in section.blocks:
            if isinstance(block, Table):
                for row in block.rows:
                    name = _text(row[0])
                    for title, part in zip(block.header, row, strict=True):
                        if isinstance(part, Cell) and part.source:
                            yield section.name, block.title, name, title, part
            else:
                for part in _parts(block):
                    if isinstance(part, Cell) and part.source:
                        yield section.name, "", "", "", part


def numbers_csv(sections: Sequence[Section]) -> bytes:
    """Return them as CSV, every digit kept.

    Args:
        sections: Of a report.
    """
    rows = [
        [*where, *map(_digits, (cell.value, cell.high, cell.spread)), cell.source]
        for *where, cell in numbers_of(sections)
    ]
    return csv_bytes(
        ["section", "table", "row", "column", "value", "high", "spread", "source"], rows
    )


def _digits(value: float | None) -> str:
    return "" if value is None else repr(value)


def _text(part: Part) -> str:
    return part.text if isinstance(part, Cell) else part


def _parts(block: object) -> Iterator[Part]:
    yield from getattr(block, "parts", ())
    for item in getattr(block, "items", ()):
        if isinstance(item, tuple):
            yield from item
