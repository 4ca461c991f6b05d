"""A report as HTML: templates with escaping, one file that asks for nothing else.

page_of(about, sections)
"""

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from samcls import __version__
from samcls.learn.runs.text import printable
from samcls.report.about import About
from samcls.report.blocks import Block, Section

__all__ = ["page_of"]

KINDS = {
    "run": "A run",
    "seeds": "The mean of several seeds",
    "folds": "Cross-validation",
    "sweep": "A sweep's winner",
    "evaluation": "An evaluation on another data set",
    "unfinished": "An unfinished run",
}


def page_of(about: About, sections: Sequence[Section]) -> str:
    """Return the page.

    Args:
        about: What is reported.
        sections: In their order.
    """
    script = _file("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page: str = (
        _templates()
        .get_template("report.html")
        .render(
            about=about,
            title=about.subject.name,
            kind=KINDS[about.subject.kind],
            sections=sections,
            style=Markup(_file("report.css")),  # noqa: S704 - the package's own file
            script=Markup(script),  # noqa: S704 - the package's own file
            script_digest=digest,
            version=__version__,
            lang=about.config.lang,
        )
    )
    return page


@cache
def _templates() -> Environment:
    made = Environment(
        autoescape=True,
        loader=FunctionLoader(_file),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_plain,
    )
    made.filters["svg"] = Markup  # drawn by matplotlib, which escapes what it writes
    made.filters["runs"] = _runs
    made.filters["sentence"] = _sentence
    made.globals["draw"] = vars(made.get_template("blocks.html").module)["draw"]
    return made


def _plain(value: Any) -> Any:
    """Return a text without control characters, marks of direction and the home folder, whatever it came from."""
    if type(value) is not str:
        return value
    home = str(Path.home())
    return printable(value.replace(home, "~") if len(home) > 1 else value)


def _sentence(text: str) -> str:
    """Return a message as a sentence: a capital in front, a point behind."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def _runs(blocks: Sequence[Block]) -> list[dict[str, Any]]:
    """Return blocks in runs of neighbours: pictures stand side by side, all else below each other."""
    return [
        {"pictures": pictures, "blocks": list(own)}
        for pictures, own in groupby(blocks, key=lambda block: block.block == "picture")
    ]


@cache
def _file(name: str) -> str:
    return (files("samcls.report") / "templates" / name).read_text(encoding="utf-8")
