"""An audit as a page of text, as `samcls audit` prints it.

print(audit_page(findings))
"""

from collections.abc import Mapping
from typing import Any

from samcls.audit.finding import CODES, Findings
from samcls.learn.runs.text import aligned, number, pair, printable

__all__ = ["audit_page"]

SHOWN = 5


def audit_page(found: Findings) -> str:
    """Return the page: of each code what it means, its first findings, and what to do."""
    lines = [f"{found.source}: {found.sentence()}, {found.seconds:.1f} s"]
    for code, count in found.counts.items():
        kind, own = CODES[code], found.of(code)
        across = sum(one.across for one in own)
        told = f", {across} across splits" if across else ""
        lines += ["", f"{code}: {count}{told} ({kind.meaning})"]
        # What stands in several splits is what figures suffer from: it comes first.
        first = sorted(own, key=lambda one: not one.across)[:SHOWN]
        lines += [f"  {one.sentence}" for one in first]
        if count > SHOWN:
            lines.append(f"  and {count - SHOWN} more; --out DIR and --json list them all")
        verdict = "a list to look at, no verdict; " if kind.look else ""
        lines.append(f"  what to do: {verdict}{kind.advice}")
    lines += _effect(found.effect)
    lines += ["", *(f"note: {line}" for line in found.notes)]
    return "".join(f"{printable(line)}\n" for line in lines)


def _effect(effect: Mapping[str, Any]) -> list[str]:
    """Return what leaks did to a run's figures."""
    if not effect:
        return []
    told = (
        f"what it did to {effect['run']}: {effect['affected']} of {effect['test_images']} test images have twins or "
        f"their group among {effect['learned_twins']} images of training and validation"
    )
    lines = ["", told]
    for task, table in effect["tasks"].items():
        rows = [[f"{task}, test", "all", "without them", "difference", "95 % interval"]]
        rows += [_line(name, one, "all", "without") for name, one in table.items()]
        lines += ["", *aligned(rows)]
    again = effect["retrained"]
    for kind, what in (("tasks", "twins"), ("control", "others")):
        for task, table in again.get(kind, {}).items():
            without = f"without {again['removed']} {what} in training"
            rows = [[f"{task}, test, all", "as it was", without, "difference", "95 % interval"]]
            rows += [_line(name, one, "before", "after") for name, one in table.items()]
            lines += ["", *aligned(rows)]
    return lines


def _line(name: str, one: Mapping[str, Any], first: str, second: str) -> list[str]:
    gap = one["difference"]
    return [
        name.replace("_", " ").replace("auc", "AUC"),
        number(one[first]),
        number(one[second]),
        "-" if gap is None else f"{gap:+.3f}",
        pair(one["interval"], sign=True),
    ]
