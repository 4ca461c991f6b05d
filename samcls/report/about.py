"""What every section of a report is given, and how it says that something cannot be shown.

def section(about: About) -> Iterator[Block]:
yield from about.attempt("ROC", lambda: roc_blocks(about))
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from samcls.report.blocks import Block, Missing, Picture
from samcls.report.checks import Checked
from samcls.report.results import Results
from samcls.report.settings import ReportConfig
from samcls.report.subject import CannotShow, Subject

__all__ = ["GALLERY", "About", "slug"]

GALLERY = "gallery"  # among the names of what was made, where evidence is shown

if TYPE_CHECKING:
    from samcls.report.pictures.drawing import Drawing


@dataclass(frozen=True, eq=False)
class About:
    """What is reported, what was computed of it, and where pictures go.

    Attributes:
        subject: What is reported.
        results: What is computed of it.
        config: How it is reported.
        checks: What the coded checks came to.
        figures: Folder that each picture is also written to; None for none.
        images: Whether pictures of patients are shown.
        names: Of the pictures that were made.
        written: Files that they were written to.
    """

    subject: Subject
    results: Results
    config: ReportConfig
    checks: Checked
    figures: Path | None = None
    images: bool = False
    names: set[str] = field(default_factory=set)
    written: list[Path] = field(default_factory=list)

    @cached_property
    def several(self) -> bool:
        """Whether there is more than one task, whose name must then be told."""
        return len(self.subject.tasks) > 1

    def of(self, task: str) -> str:
        """Return ` of TASK` where there are several tasks."""
        return f" of {task}" if self.several else ""

    def attempt(self, what: str, made: Callable[[], Iterable[Block]]) -> Iterator[Block]:
        """Yield blocks as far as they can be made, and then why no more can.

        Args:
            what: Is made, in a word or two.
            made: Yields the blocks; may raise CannotShow.
        """
        try:
            yield from made()
        except CannotShow as reason:
            yield Missing(what, str(reason))
        except KeyError as lacking:
            told = (
                f"the files of {self.subject.name} hold no {lacking}, being of an earlier version"
            )
            yield Missing(what, told)

    def each(self, what: str, made: Callable[["About", str], Iterable[Block]]) -> Iterator[Block]:
        """Yield the blocks of every task, each as far as they can be made.

        Args:
            what: Is made, in a word or two.
            made: Yields a task's blocks; may raise CannotShow.
        """
        for task in self.subject.tasks:
            yield from self.attempt(f"{what}{self.of(task)}", partial(made, self, task))

    def picture(self, name: str, what: str, draw: "Callable[[], Drawing]") -> Block:
        """Return a picture, or why there is none.

        Args:
            name: Of the file, different for each picture.
            what: It shows, in a word or two.
            draw: Makes it; may raise CannotShow.
        """
        from samcls.report.canvas import looks, svg_of, write_figure  # matplotlib

        name = slug(name)
        while name in self.names:
            name += "-2"
        self.names.add(name)
        with looks(name):
            try:
                drawing = draw()
            except CannotShow as reason:
                return Missing(what, str(reason))
            if self.figures is not None:
                self.written.extend(write_figure(drawing.figure, self.figures, name))
            svg = svg_of(drawing.figure, name)
            width = float(drawing.figure.get_size_inches()[0])
        return Picture(
            name, drawing.title, svg, drawing.alt, drawing.caption, drawing.source, width
        )


def slug(text: str) -> str:
    """Return a text as a name of a file and of an element: letters, digits and dashes, at most 60."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower()[:60] or "picture"
