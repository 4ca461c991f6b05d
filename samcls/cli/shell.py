"""What every verb shares: exit status, `--json`, errors in words, progress on stderr.

Nothing here imports torch: `samcls --help` must answer at once.
"""

import contextlib
import functools
import inspect
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from samcls.errors import SamclsError

__all__ = [
    "Outcome",
    "give_up_output",
    "number",
    "open_streams",
    "progress_bar",
    "say",
    "settings",
    "show_table",
    "showing",
    "verb",
]

AS_JSON = Annotated[
    bool, typer.Option("--json", help="Print exactly one JSON object on standard output.")
]

settings = {"debug": False}  # set by the command line's own --debug


class Outcome:
    """What a verb hands back: its JSON form, how to show it to a person, and the exit status."""

    def __init__(
        self, values: dict[str, Any], show: Callable[[], None], exit_status: int = 0
    ) -> None:
        self.values = values
        self.show = show
        self.exit_status = exit_status


def verb(function: Callable[..., Outcome]) -> Callable[..., None]:
    """Turn a function that returns an Outcome into a command with `--json` and an exit status.

    One that has a parameter `as_json` itself is told: it writes nothing to standard output then.
    """
    own = inspect.signature(function)
    tells = "as_json" in own.parameters

    @functools.wraps(function)
    def command(*args: Any, as_json: bool = False, **kwargs: Any) -> None:
        try:
            if tells:
                kwargs["as_json"] = as_json
            outcome = function(*args, **kwargs)
            with showing():
                if as_json:
                    sys.stdout.write(json.dumps(outcome.values, allow_nan=False) + "\n")
                else:
                    outcome.show()
        except _NotShown as error:
            raise typer.Exit(_not_shown(error)) from error
        except SamclsError as error:
            raise typer.Exit(_fail(str(error), error.exit_status, as_json)) from error
        except KeyboardInterrupt as error:
            message = "interrupted; finished work is kept, and the same command goes on from there"
            raise typer.Exit(_fail(message, 1, as_json)) from error
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            if not settings["debug"]:
                message += "\nThis is a defect of samcls; samcls --debug shows where it happened."
            raise typer.Exit(_fail(message, 1, as_json)) from error
        if outcome.exit_status:
            raise typer.Exit(outcome.exit_status)

    # typer reads options from the signature, so --json is added there once for every verb
    option = inspect.Parameter(
        "as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=AS_JSON
    )
    given = [one for one in own.parameters.values() if one.name != "as_json"]
    parameters = [*given, option]
    command.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {**function.__annotations__, "as_json": AS_JSON}
    return command


def _fail(message: str, exit_status: int, as_json: bool) -> int:
    if settings["debug"]:
        traceback.print_exc()
    say(f"error: {message}")
    if as_json:
        try:
            with showing():
                sys.stdout.write(json.dumps({"error": message, "exit_status": exit_status}) + "\n")
        except _NotShown as error:
            _not_shown(error)
    return exit_status


class _NotShown(Exception):
    """Standard output takes no more: it is full, or whoever read it has gone."""


@contextmanager
def showing() -> Iterator[None]:
    """Write to standard output, to the end of its buffer."""
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        raise _NotShown(error.strerror or str(error)) from error


def _not_shown(error: _NotShown) -> int:
    """Say that the result could not be shown, unless its reader has left on purpose, as `head` does."""
    if not isinstance(error.__cause__, BrokenPipeError):
        say(f"error: standard output cannot be written: {error}. What the command did is done")
    give_up_output()
    return 1


def give_up_output() -> None:
    """Send what is still in the buffer of standard output nowhere, so that Python's end is quiet."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def open_streams() -> None:
    """Put nowhere in the place of standard streams that were closed; no file may get their numbers."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123 - for the whole process


def say(message: str) -> None:
    """Write one message to stderr; a log that is full or closed stops no work."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(message + "\n")
        sys.stderr.flush()


def number(value: float | None, digits: int = 3) -> str:
    """Show a figure, or a dash where it is not defined."""
    return "-" if value is None else f"{value:.{digits}f}"


def show_table(header: list[str], rows: list[list[str]]) -> None:
    """Print aligned columns to stdout: the first and those of words to the left, the rest right."""
    widths = [max(len(line[i]) for line in [header, *rows]) for i in range(len(header))]
    worded = [
        i == 0 or 2 * sum(row[i][:1].isalpha() for row in rows) > len(rows)
        for i in range(len(header))
    ]

    def line(cells: list[str]) -> str:
        placed = (
            cell.ljust(width) if left else cell.rjust(width)
            for cell, width, left in zip(cells, widths, worded, strict=True)
        )
        return "  ".join(placed).rstrip()

    sys.stdout.write("\n".join([line(header), line(["-" * w for w in widths]), *map(line, rows)]))
    sys.stdout.write("\n")


@contextmanager
def progress_bar(what: str, unit: str = "images") -> Iterator["_Lines"]:
    """Show progress on stderr: a bar on a terminal, a line every ten seconds elsewhere.

    Yields a function that takes (finished, total, failed, bytes written).
    """
    if not sys.stderr.isatty():
        yield _Lines(what, unit)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    bar = Progress(
        TextColumn(what),
        BarColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
    )
    with bar:
        task = bar.add_task(what, total=1, note="")
        yield _Bar(
            what,
            unit,
            lambda done, all_, note: bar.update(task, completed=done, total=all_, note=note),
        )


class _Lines:
    """Progress for a log: at most one line every ten seconds."""

    def __init__(self, what: str, unit: str) -> None:
        self._what = what
        self._unit = unit
        self._last = self._begun = time.monotonic()
        self._before: int | None = None  # finished before this run began

    def __call__(self, finished: int, total: int, failed: int = 0, written: int = 0) -> None:
        now = time.monotonic()
        if self._before is None:
            self._before = finished
        if now - self._last >= 10:
            self._last = now
            say(f"{self._what}: {self._note(finished, total, failed, written)}")

    def _note(self, finished: int, total: int, failed: int, written: int) -> str:
        rate = (finished - (self._before or 0)) / max(time.monotonic() - self._begun, 1e-3)
        parts = [f"{finished:,}/{total:,} {self._unit}"]
        if rate > 0:
            left = int((total - finished) / rate)
            parts += [f"{rate:,.3g} {self._unit}/s", f"{left // 60}:{left % 60:02d} left"]
        if written:
            parts.append(f"{written / 1e9:.3f} GB")
        if failed:
            parts.append(f"{failed} failed")
        return ", ".join(parts)


class _Bar(_Lines):
    """Progress on a terminal: every call is shown."""

    def __init__(self, what: str, unit: str, draw: Callable[[int, int, str], None]) -> None:
        super().__init__(what, unit)
        self._draw = draw

    def __call__(self, finished: int, total: int, failed: int = 0, written: int = 0) -> None:
        if self._before is None:
            self._before = finished
        self._draw(finished, total, self._note(finished, total, failed, written))
