"""A picture before it is saved."""

from dataclasses import dataclass

from samcls.report.canvas import Figure

__all__ = ["Drawing"]


@dataclass(frozen=True, eq=False)
class Drawing:
    """A figure with its words.

    Attributes:
        figure: Drawn under `canvas.looks`.
        title: Above it.
        alt: What it shows, for whoever does not see it.
        caption: Under it.
        source: File that it is drawn from.
    """

    figure: Figure
    title: str
    alt: str
    caption: str
    source: str
