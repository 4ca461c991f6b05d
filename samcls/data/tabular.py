"""Tables as programs export them to columns of text: CSV in any dress, Excel and Parquet.

What the bytes say counts, not the suffix. Text keeps the file's own spelling; numbers lose a `.0` that
only their type gave them. 100,000 lines of CSV take about a second. The only door to openpyxl.

    table = read_table("export.csv")
    table.columns, table.column("diagnosis"), table.notes
"""

import csv
import datetime as dt
import io
import itertools
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samcls.errors import ManifestError

__all__ = ["Table", "read_table", "refuse"]

SEPARATORS = ",;\t|"
SHOWN = 10


@dataclass(frozen=True)
class Table:
    """A table as text.

    Attributes:
        source: The file.
        columns: Names, in the file's order; empty for a column without one.
        rows: Cells of each row, stripped and without line breaks, as many as there are columns; empty where missing.
        lines: Line, or row of the sheet, of each row.
        notes: Sentences on how the file was read.
        faults: Pairs of a column and of what is wrong with it, which matters where it is used.
    """

    source: Path
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]
    notes: tuple[str, ...]
    faults: tuple[tuple[str, str], ...] = ()

    def column(self, name: str) -> list[str]:
        """Return the cells of a column."""
        place = self.columns.index(name)
        return [row[place] for row in self.rows]


def read_table(source: str | Path, sheet: str | None = None) -> Table:
    """Read a table whose first line that is not blank names its columns.

    Args:
        source: CSV, TSV, an Excel workbook or a Parquet file.
        sheet: Of a workbook; the first by default.

    Raises:
        ManifestError: The file is missing, of another kind, damaged or empty, or has lines of
            another length; all such lines are named.
    """
    source = Path(source)
    if not source.exists():
        raise ManifestError(f"the table {source} does not exist: name a CSV, Excel or Parquet file")
    if not source.is_file():
        raise ManifestError(f"the table {source} is a folder: name a CSV, Excel or Parquet file")
    try:
        data = source.read_bytes()
    except OSError as error:
        raise ManifestError(f"the table {source} cannot be read: {error.strerror}") from error
    if data.startswith(b"PAR1"):
        return _read_parquet(source)
    if data.startswith(b"PK\x03\x04"):
        return _read_excel(source, sheet)
    if data.startswith(b"\xd0\xcf\x11\xe0"):
        raise ManifestError(
            f"the table {source} is an Excel workbook of before 2007, or one with a password: save "
            "it as .xlsx or as `CSV UTF-8`"
        )
    return _read_text(source, data)


def refuse(source: Path, problems: Sequence[str], remedy: str = "") -> None:
    """Raise one error for all problems of a table, of which the first few are listed."""
    if not problems:
        return
    lines = [f"the table {source} has {len(problems)} problem(s):"]
    lines += [f"  {problem}" for problem in problems[:SHOWN]]
    if len(problems) > SHOWN:
        lines.append(f"  ... and {len(problems) - SHOWN} more")
    raise ManifestError("\n".join([*lines, remedy] if remedy else lines))


def _read_text(source: Path, data: bytes) -> Table:
    text, notes = _decode(source, data)
    if text.lower().startswith("sep=") and text[4:5] in SEPARATORS:
        separator = text[4]
        text = "\n" + text.partition("\n")[2]  # Excel's own first line; it still counts as one
    else:
        separator = _separator(text)
    if separator != ",":
        notes.append(f"columns are separated by {SPOKEN[separator]}")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        lines = [
            (reader.line_num, tuple(map(_clean, cells)))
            for cells in reader
            if any(map(str.strip, cells))
        ]
    except csv.Error as error:
        raise ManifestError(
            f"the table {source}, line {reader.line_num}, is no CSV: {error}"
        ) from error
    return _table(source, lines, notes, "line")


SPOKEN = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


def _decode(source: Path, data: bytes) -> tuple[str, list[str]]:
    """Return the text, and a note where the encoding is not UTF-8."""
    head = data[:4096]
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif head[1::2].count(0) > len(head) // 4:
        encoding = "utf-16-le"
    elif head[::2].count(0) > len(head) // 4:
        encoding = "utf-16-be"
    else:
        encoding = "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        try:
            text = data.decode("cp1252")
        except UnicodeDecodeError:
            raise ManifestError(
                f"the table {source} is text in no encoding that is known here ({error}): save it "
                "as `CSV UTF-8`"
            ) from error
        encoding = "cp1252"
    if "\0" in text:
        raise ManifestError(
            f"the table {source} is not text: expected CSV, TSV, Excel (.xlsx) or Parquet"
        )
    if encoding == "cp1252":
        foreign = next(line for line in text.splitlines() if not line.isascii())
        note = (
            f"the table is not UTF-8 and was read as Windows-1252; see that {foreign.strip()!r} is "
            "right, or save it as `CSV UTF-8`"
        )
        return text, [note]
    return text, [] if encoding == "utf-8-sig" else ["the table was read as UTF-16"]


def _separator(text: str) -> str:
    """Return the mark that divides the first lines into the most cells, equally many in each."""
    sample = text[:65536]

    def fit(separator: str) -> tuple[float, int]:
        reader = csv.reader(io.StringIO(sample, newline=""), delimiter=separator)
        try:
            widths = [len(cells) for cells in itertools.islice(reader, 50) if any(cells)]
        except csv.Error:
            return 0.0, 0
        if not widths or widths[0] == 1:
            return 0.0, 0
        return widths.count(widths[0]) / len(widths), widths[0]

    return max(SEPARATORS, key=fit)


def _table(
    source: Path,
    lines: Sequence[tuple[int, tuple[str, ...]]],
    notes: Sequence[str],
    what: str,
    faults: Sequence[tuple[int, str]] = (),
) -> Table:
    """Check that every line is as wide as the header, but for empty cells at its end."""
    if not lines:
        raise ManifestError(f"the table {source} is empty: expected a header and a row an image")
    header = list(lines[0][1])
    while header and not header[-1]:
        header.pop()
    if len(lines) == 1:
        raise ManifestError(
            f"the table {source} has a header and no row: expected a row for each image"
        )
    width = len(header)
    rows, problems = [], []
    for line, cells in lines[1:]:
        if len(cells) < width or any(cells[width:]):
            problems.append(f"{what} {line}: {len(cells)} cells, expected {width}")
        rows.append(cells[:width])
    shown = ", ".join(name or "(no name)" for name in header)
    refuse(source, problems, f"The first {what} that is not blank names the columns: {shown}.")
    numbers = tuple(line for line, _ in lines[1:])
    found = [(header[column], fault) for column, fault in faults if column < width]
    found += [
        (name, f"column {name!r} stands there {count} times")
        for name, count in Counter(header).items()
        if count > 1
    ]
    return Table(source, tuple(header), tuple(rows), numbers, tuple(notes), tuple(found))


def _clean(text: str) -> str:
    """Return a cell without white space around it and without line breaks, which no manifest keeps."""
    return re.sub(r"\s*[\r\n]\s*", " ", text.strip())


def _text(value: Any) -> str:
    """Return a cell of a typed table as text."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    if isinstance(value, dt.datetime) and value.time() == dt.time():
        return value.date().isoformat()
    if isinstance(value, bytes):
        return _clean(value.decode("utf-8", "backslashreplace"))
    return _clean(str(value))


def _read_parquet(source: Path) -> Table:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ManifestError(
            f"the table {source} is a Parquet file, which pyarrow reads: install it with "
            "`pip install samcls[parquet]`, or save the table as CSV"
        ) from error
    try:
        found = pq.read_table(source)
        textual = [
            not (pa.types.is_nested(one) or _is_binary(pa, one)) for one in found.schema.types
        ]
        columns = [
            [_text(value) for value in column.to_pylist()] if known else [""] * len(found)
            for column, known in zip(found.columns, textual, strict=True)
        ]
    except (pa.ArrowException, OSError) as error:
        raise ManifestError(f"the table {source} is a damaged Parquet file: {error}") from error
    # Line 1 is the header, as in the other kinds.
    lines = list(enumerate(zip(*columns, strict=True), start=2))
    header = tuple(map(_clean, found.column_names))
    faults = [
        (place, f"column {name!r} holds {found.schema.types[place]}: expected text or numbers")
        for place, name in enumerate(header)
        if not textual[place]
    ]
    return _table(source, [(1, header), *lines], (), "row", faults)


def _is_binary(pa: Any, kind: Any) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _read_excel(source: Path, sheet: str | None) -> Table:
    try:
        import openpyxl
    except ImportError as error:
        raise ManifestError(
            f"the table {source} is an Excel workbook, which openpyxl reads: install it with "
            '`pip install "samcls[excel]"`, or save the sheet as `CSV UTF-8`'
        ) from error
    try:
        shown, formulas = (
            openpyxl.load_workbook(source, data_only=values) for values in (True, False)
        )
    except Exception as error:  # a damaged archive raises anything at all
        raise ManifestError(
            f"the table {source} is no Excel workbook, or a damaged one ({error}): save it as "
            ".xlsx or as `CSV UTF-8`"
        ) from error
    names = [one.title for one in shown.worksheets]
    if sheet is not None and sheet not in names:
        raise ManifestError(f"{source} has no sheet {sheet!r}; it has {', '.join(names)}")
    chosen = sheet if sheet is not None else names[0]
    notes = []
    if sheet is None and len(names) > 1:
        notes.append(f"sheet {chosen!r} was read, the first of {', '.join(names)}; see --sheet")
    cells, faults = _sheet_cells(shown[chosen], formulas[chosen])
    if merged := list(shown[chosen].merged_cells.ranges):
        notes.append(f"{len(merged)} merged cell(s) count for every row that they span")
    lines = [(line, row) for line, row in enumerate(cells, start=1) if any(row)]
    return _table(source, lines, notes, "row", faults)


def _sheet_cells(shown: Any, formulas: Any) -> tuple[list[tuple[str, ...]], list[tuple[int, str]]]:
    """Return the cells of a sheet as text, merged ones filled in, and what is wrong with which column."""
    grid = [[_text(cell.value) for cell in row] for row in shown.iter_rows()]
    faults = []
    for row, row_of_formulas in zip(shown.iter_rows(), formulas.iter_rows(), strict=True):
        for place, (cell, formula) in enumerate(zip(row, row_of_formulas, strict=True)):
            if cell.data_type == "e":
                faults.append((place, f"cell {cell.coordinate} holds the error {cell.value}"))
            elif formula.data_type == "f" and cell.value is None:
                fault = f"cell {cell.coordinate} holds a formula without its value: open the "
                faults.append((place, f"{fault}workbook in a spreadsheet program and save it"))
    for span in shown.merged_cells.ranges:
        value = grid[span.min_row - 1][span.min_col - 1]
        for line in grid[span.min_row - 1 : span.max_row]:
            line[span.min_col - 1 : span.max_col] = [value] * (span.max_col - span.min_col + 1)
    return [tuple(row) for row in grid], faults
