"""`group-leak`: a patient or lesion in several splits."""

from collections.abc import Callable, Iterator

from samcls.audit.finding import Finding
from samcls.audit.material import Material
from samcls.data.leaks import find_leaks

__all__ = ["find"]


def find(material: Material, note: Callable[[str], None]) -> Iterator[Finding]:
    """Yield each divided group."""
    if not any(material.groups):
        note("no image has a group: whether a patient stands in several splits cannot be told")
        return
    places = {name: row for row, name in enumerate(material.ids)}
    found = find_leaks(material.ids, material.splits, material.groups).groups
    for name, unit in zip(found.names, found.units, strict=True):
        told = ", ".join(f"{split} {len(ids)}" for split, ids in unit.items())
        rows = [places[one] for ids in unit.values() for one in ids]
        yield material.finding("group-leak", rows, f"group {name} lies in several splits: {told}")
