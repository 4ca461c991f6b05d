"""A table that is written as it is found out, in order, and gone on with after a stop.

What stands in it for good is known by its keys; a line cut off by a kill is dropped, a unit that failed is tried
again, and everything else of a table of other pictures or another run is refused, never overwritten.

    with Table(path, header, keys, lines_each=2) as table:
        table.todo                     # numbers of the units that are still wanted
        table.put(0, [[...], [...]])   # written as soon as all units before it are there
"""

import csv
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TextIO

from samcls.errors import OverwriteRefused, RunError
from samcls.files import PART

__all__ = ["Table"]

Lines = list[list[str]]


class Table:
    """A CSV of units, each of as many lines, the first cells of a line being the unit's key.

    Args:
        path: The file; None keeps the lines in memory.
        header: Names of the columns.
        keys: First cells of each unit's lines, in order.
        lines_each: Lines of a unit.
        mark: Column that says whose table it is, and its text.
        error: Column that holds why a unit failed, empty where it did not.
        stream: Called with the text of lines as they come, where there is no file.

    Attributes:
        todo: Numbers of the units that are not in the file yet, or failed.
        lines: All lines, where there is no file.

    Raises:
        OverwriteRefused: the file holds something else.
        RunError: it cannot be written.
    """

    def __init__(
        self,
        path: str | Path | None,
        header: Sequence[str],
        keys: Sequence[tuple[str, ...]],
        *,
        lines_each: int,
        mark: tuple[str, str],
        error: str = "error",
        stream: Callable[[str], object] | None = None,
    ) -> None:
        self._path = None if path is None else Path(path)
        self._header, self._keys, self._each = list(header), list(keys), lines_each
        self._mark, self._error = mark, list(header).index(error)
        self._waiting: dict[int, Lines] = {}
        self._next = 0
        self.lines: Lines = []
        self._stream = stream
        kept = self._read() if self._path is not None and self._path.exists() else {}
        self._before = {i for i, lines in kept.items() if not lines[0][self._error]}
        self._waiting = {i: kept[i] for i in self._before}
        self.todo = [i for i in range(len(self._keys)) if i not in self._before]
        self._file: TextIO | None = None

    @property
    def kept(self) -> int:
        """Number of units that were there before."""
        return len(self._before)

    def __enter__(self) -> "Table":
        first = next(i for i in range(len(self._keys) + 1) if i not in self._waiting)
        self._next = first
        ready = [line for i in range(first) for line in self._waiting.pop(i)]
        if self._path is None:
            self.lines = ready
            self._tell([self._header, *ready])
            return self
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part = self._path.with_name(self._path.name + PART)
            part.write_text(_text([self._header, *ready]), encoding="utf-8", newline="")
            part.replace(self._path)
            self._file = self._path.open("a", encoding="utf-8", newline="")
        except OSError as error:
            raise self._not_written(error) from error
        return self

    def put(self, unit: int, lines: Lines) -> None:
        """Add a unit; it is written once all before it are there.

        Args:
            unit: Its number.
            lines: As many as every unit has.

        Raises:
            RunError: the file cannot be written.
        """
        self._waiting[unit] = lines
        ready: Lines = []
        while self._next in self._waiting:
            ready += self._waiting.pop(self._next)
            self._next += 1
        if self._path is None:
            self.lines += ready
        if ready:
            self._tell(ready)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is None:
            return
        try:
            # What was there before and comes after the place of a stop is kept too.
            self._file.write(
                _text([line for i in sorted(self._waiting) for line in self._waiting[i]])
            )
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as failure:
            if kind is None:
                raise self._not_written(failure) from failure
        finally:
            self._file.close()

    def _tell(self, lines: Lines) -> None:
        if self._stream is not None:
            self._stream(_text(lines))
        if self._file is not None:
            try:
                self._file.write(_text(lines))
                self._file.flush()
            except OSError as error:
                raise self._not_written(error) from error

    def _not_written(self, error: OSError) -> RunError:
        return RunError(
            f"{self._path} cannot be written: {error.strerror or error}. What stands in it is kept; make "
            "room and run the same command again to go on"
        )

    def _read(self) -> dict[int, Lines]:
        """Return the units in the file that are whole, by number."""
        path = self._path
        if path is None or path.is_dir():
            raise OverwriteRefused(f"{path} is a folder; name a file for the table")
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise self._strange(f"it cannot be read ({error})") from error
        text = text[: text.rfind("\n") + 1]  # a line that was cut off
        if not text:
            return {}
        try:
            header, *lines = list(csv.reader(io.StringIO(text, newline=""), strict=True)) or [[]]
        except csv.Error as error:
            raise self._strange(f"it is no CSV ({error})") from error
        if header != self._header:
            raise self._strange(f"its columns are {', '.join(header[:6])}, ...")
        return self._units(lines)

    def _units(self, lines: Lines) -> dict[int, Lines]:
        place = self._header.index(self._mark[0])
        width = len(self._keys[0])
        numbers = {key: i for i, key in enumerate(self._keys)}
        found: dict[int, Lines] = {}
        for line in lines:
            if len(line) != len(self._header) or line[place] != self._mark[1]:
                raise self._strange("it was written by another run or version")
            number = numbers.get(tuple(line[:width]))
            if number is None:
                raise self._strange(f"it has {' '.join(line[:width])}, which is not among these")
            found.setdefault(number, []).append(line)
        return {i: part for i, part in found.items() if len(part) == self._each}

    def _strange(self, reason: str) -> OverwriteRefused:
        return OverwriteRefused(
            f"{self._path} holds something else than these predictions: {reason}; name another file, or "
            "remove this one first"
        )


def _text(lines: Sequence[Sequence[str]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(lines)
    return out.getvalue()
