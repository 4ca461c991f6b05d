"""The sections of a report, in their order. A section is a function that yields blocks, and a line here."""

from collections.abc import Callable, Iterator, Mapping

from samcls.report.about import About
from samcls.report.blocks import Block
from samcls.report.sections.answers import given
from samcls.report.sections.checked import checked
from samcls.report.sections.checklists import checklists, paragraphs
from samcls.report.sections.data import data
from samcls.report.sections.displays import displays
from samcls.report.sections.elsewhere import elsewhere
from samcls.report.sections.failures import failures
from samcls.report.sections.making import making
from samcls.report.sections.search import search
from samcls.report.sections.stability import stability
from samcls.report.sections.subgroups import subgroups
from samcls.report.sections.summary import summary

__all__ = ["SECTIONS"]

Made = Callable[[About], Iterator[Block]]

# By name: the title, the kinds of subject that it is of (none means all), and what makes it.
SECTIONS: Mapping[str, tuple[str, tuple[str, ...], Made]] = {
    "summary": ("In short", (), summary),
    "checks": ("Checks", (), checked),
    "elsewhere": ("Here and inside", ("evaluation",), elsewhere),
    "search": ("The sweep", ("sweep",), search),
    "displays": ("Discrimination, calibration, utility", (), displays),
    "answers": ("At the threshold", (), given),
    "subgroups": ("Subgroups", (), subgroups),
    "failures": ("Failures", (), failures),
    "stability": ("How far it would change", (), stability),
    "data": ("Data", (), data),
    "making": ("Cost, environment, commands", (), making),
    "paper": ("For the paper", (), paragraphs),
    "checklists": ("TRIPOD+AI and CLAIM", (), checklists),
}
