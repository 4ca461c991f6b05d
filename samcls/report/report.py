"""`samcls report`: one HTML file of a run, a folder of seeds or folds, a sweep, or an evaluation.

    found = report("run", "report.html", manifest="manifest.csv")
    found.checks.errors, found.bytes

Nothing is trained and nothing is fetched; the file asks for nothing else, and the same inputs make the same bytes. A
section is a function and a line in `sections.SECTIONS`; what it cannot show it says, with the reason.
"""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from samcls.errors import InputError, OverwriteRefused, RunError
from samcls.files import write_whole
from samcls.report.about import About
from samcls.report.audited import audited
from samcls.report.blocks import Block, Section
from samcls.report.checks import Checked, checks_of
from samcls.report.reading import subject_of
from samcls.report.results import Results
from samcls.report.settings import ReportConfig

__all__ = ["Report", "checks", "report"]

GENERATOR = '<meta name="generator" content="samcls report">'

Log = Callable[[str], None]
Made = Callable[[About], Iterator[Block]]


@dataclass(frozen=True)
class Report:
    """A report that was written.

    Attributes:
        file: Where.
        bytes: Its size.
        seconds: From the first look at the run to the last byte.
        checks: What the coded checks came to.
        figures: Files of single pictures, where they were asked for.
    """

    file: str
    bytes: int
    seconds: float
    checks: Checked
    figures: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON knows it."""
        return {
            "file": self.file,
            "bytes": self.bytes,
            "seconds": round(self.seconds, 3),
            "checks": [one.to_dict() for one in self.checks.found],
            "passed": [code for code, _ in self.checks.passed],
            "unjudged": {code: why for code, _, why in self.checks.unjudged},
            "figures": list(self.figures),
        }


def report(
    path: str | Path,
    out: str | Path = "report.html",
    *,
    store: str | Path | None = None,
    manifest: str | Path | None = None,
    audit: str | Path | None = None,
    images: bool = False,
    figures: str | Path | None = None,
    config: ReportConfig | None = None,
    log: Log = lambda _: None,
) -> Report:
    """Write a report.

    Args:
        path: A run, a folder of seeds or folds, a sweep, or an evaluation.
        out: The file; a former report in its place is replaced, anything else is not.
        store: Feature store of the images, for subgroups and the audit; the one that the run's command named, if it
            lies there still.
        manifest: Of the store: where the pictures are.
        audit: Folder that `samcls audit --out` made; without one the store's features are audited now.
        images: Whether failures are shown as pictures, which are of patients.
        figures: Folder for each picture as PDF, PNG and SVG, and for `numbers.csv`, every number with its source.
        config: What is shown, and which checks are accepted.
        log: Called with what is being done.

    Raises:
        InputError: there is nothing to report.
        ConfigError: a code to silence is none.
        OverwriteRefused: `out` holds something else.
    """
    begun = time.monotonic()
    out, config = Path(out), config or ReportConfig()
    _refuse_other(out)
    about = _about(path, store, manifest, audit, config, log)
    about = replace(
        about, images=images, figures=None if figures is None else _folder(Path(figures))
    )
    log("drawing")
    sections = tuple(_section(about, name, title, made) for name, (title, made) in _sections(about))
    from samcls.report.html import page_of

    content = page_of(about, sections).encode()
    _write(out, content)
    files: tuple[str, ...] = ()
    if about.figures is not None:
        from samcls.report.numbers import numbers_csv

        _write(about.figures / "numbers.csv", numbers_csv(sections))
        files = tuple(map(str, (*about.written, about.figures / "numbers.csv")))
    return Report(str(out), len(content), time.monotonic() - begun, about.checks, files)


def checks(
    path: str | Path,
    *,
    store: str | Path | None = None,
    audit: str | Path | None = None,
    config: ReportConfig | None = None,
    log: Log = lambda _: None,
) -> Checked:
    """Return what the coded checks come to, without a report.

    Args:
        path: As for `report`.
        store: As for `report`.
        audit: As for `report`.
        config: As for `report`.
        log: As for `report`.

    Raises:
        InputError: there is nothing to check.
        ConfigError: a code to silence is none.
    """
    return _about(path, store, None, audit, config or ReportConfig(), log).checks


def _about(
    path: str | Path,
    store: str | Path | None,
    manifest: str | Path | None,
    audit: str | Path | None,
    config: ReportConfig,
    log: Log,
) -> About:
    subject = subject_of(path, store=store, manifest=manifest, audit=audit)
    if not subject.audit:
        subject = replace(subject, audit=audited(subject, log))
    results = Results(subject)
    return About(subject, results, config, checks_of(results, config.silence))


def _sections(about: About) -> list[tuple[str, tuple[str, Made]]]:
    """Return the sections that are of this kind of subject, imported now: they draw."""
    from samcls.report.sections import SECTIONS

    kind = about.subject.kind
    return [
        (name, (title, made))
        for name, (title, kinds, made) in SECTIONS.items()
        if not kinds or kind in kinds
    ]


def _section(about: About, name: str, title: str, made: Made) -> Section:
    return Section(name, title, tuple(about.attempt(title.lower(), lambda: made(about))))


def _write(file: Path, content: bytes) -> None:
    try:
        write_whole(file, content)
    except OSError as error:
        raise RunError(f"{file} cannot be written: {error.strerror or error}") from error


def _folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path} cannot be made a folder: {error.strerror}") from error
    return path


def _refuse_other(out: Path) -> None:
    """Refuse to replace anything but a former report, and a place that cannot be written, before any work is done."""
    if out.is_dir():
        raise InputError(f"{out} is a folder; name a file, such as {out / 'report.html'}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.exists():
            with out.open("rb") as file:
                if GENERATOR.encode() not in file.read(2000):
                    raise OverwriteRefused(
                        f"{out} is there already, and is no report; name another file"
                    )
        writable = os.access(out if out.exists() else out.parent, os.W_OK)
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error.strerror or error}") from error
    if not writable:
        raise InputError(f"{out} cannot be written: permission denied")
