"""A report's checks, and that it was written, as the command line says it.

print(checks_text(checks("run")))
"""

from typing import TYPE_CHECKING

from samcls.learn.runs.text import printable
from samcls.report.checks import Checked

if TYPE_CHECKING:
    from samcls.report.report import Report

__all__ = ["checks_text", "report_text"]


def checks_text(told: Checked) -> str:
    """Return a line or two for each check that found something, and counts of the rest.

    Args:
        told: What the checks came to.
    """
    lines = []
    for one in told.found:
        level = "accepted" if one.silenced else one.level
        lines += [f"{one.code} {level}: {one.sentence}", f"  {one.remedy}"]
    passed = ", ".join(code for code, _ in told.passed)
    lines.append(f"passed: {passed or 'none'}")
    lines += [f"not judged: {code} {title}: {why}" for code, title, why in told.unjudged]
    return "".join(f"{printable(line)}\n" for line in lines)


def report_text(found: "Report") -> str:
    """Return the checks, and where the report is.

    Args:
        found: The report.
    """
    size = f"{found.bytes / 1e6:.2f} MB" if found.bytes >= 1e5 else f"{found.bytes / 1e3:.0f} kB"
    figures = f", {len(found.figures)} files of figures" if found.figures else ""
    return f"{checks_text(found.checks)}\n{printable(found.file)}: {size} in {found.seconds:.1f} s{figures}\n"
