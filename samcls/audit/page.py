"""An audit as a page of text, as `samcls audit` prints it.

print(audit_page(findings))
"""

from samcls.audit.finding import CODES, Findings
from samcls.learn.runs.text import printable

__all__ = ["audit_page"]

SHOWN = 5


def audit_page(found: Findings) -> str:
    """Return the page: of each code what it means, its first findings, and what to do."""
    lines = [f"{found.source}: {found.sentence()}, {found.seconds:.1f} s"]
    for code, number in found.counts.items():
        kind, own = CODES[code], found.of(code)
        across = sum(one.across for one in own)
        told = f", {across} across splits" if across else ""
        lines += ["", f"{code}: {number}{told} ({kind.meaning})"]
        # What stands in several splits is what figures suffer from: it comes first.
        first = sorted(own, key=lambda one: not one.across)[:SHOWN]
        lines += [f"  {one.sentence}" for one in first]
        if number > SHOWN:
            lines.append(f"  and {number - SHOWN} more; --out DIR and --json list them all")
        verdict = "a list to look at, no verdict; " if kind.look else ""
        lines.append(f"  what to do: {verdict}{kind.advice}")
    lines += ["", *(f"note: {line}" for line in found.notes)]
    return "".join(f"{printable(line)}\n" for line in lines)
