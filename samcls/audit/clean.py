"""A manifest in which what was found does no harm: twins in one group and one split, contradictions left out.

Nothing is deleted: the manifest that was audited stays as it is, and so do the images. Twins are joined with
each other and with the groups that they are in; such a unit goes where most of its images are, to train where
that leaves a choice, so that test images become training images rather than the other way round.

    said = write_clean(manifest, findings, "clean.csv")
"""

from collections import Counter
from dataclasses import replace
from pathlib import Path

from samcls.audit.finding import Findings
from samcls.data.columns import TaskColumn
from samcls.data.manifest import SPLITS, Manifest
from samcls.data.manifest_file import write_manifest
from samcls.errors import ManifestError

__all__ = ["write_clean"]

TWINS = ("exact", "near")


def write_clean(manifest: Manifest, findings: Findings, out: str | Path) -> str:
    """Write the manifest.

    Returns:
        A sentence on what differs.

    Raises:
        ManifestError: nothing would be left, or the file cannot be written.
    """
    gone = {name for one in findings.of("contradiction") for name in one.ids}
    units = _units(manifest, findings)
    members: dict[str, list[int]] = {}
    for place, row in enumerate(manifest.rows):
        members.setdefault(units[row.id], []).append(place)
    rows = []
    grouped = moved = 0
    for row in manifest.rows:
        if row.id in gone:
            continue
        own = [manifest.rows[place] for place in members[units[row.id]]]
        kept = [one for one in own if one.id not in gone]
        split = _split_of([one.split for one in kept])
        group = row.group
        if len(own) > 1 and len({one.group for one in own} | {""}) != 2:
            group = f"twins of {own[0].id}"
        grouped += group != row.group
        moved += split != row.split
        rows.append(replace(row, group=group, split=split))
    if not rows:
        raise ManifestError(
            f"every image of {manifest.source} contradicts another: nothing is left to write"
        )
    positives = {
        task: names[-1] if len(names) == 2 else None for task, names in manifest.tasks.items()
    }
    columns = [
        TaskColumn(task, positive, task in manifest.ordinal) for task, positive in positives.items()
    ]
    write_manifest(rows, columns, out, meta=manifest.meta)
    return (
        f"{out}: {len(rows)} of {len(manifest)} images; {len(gone)} with contradictory twins left out, "
        f"{grouped} given a group, {moved} moved to the split of their twins or group"
    )


def _units(manifest: Manifest, findings: Findings) -> dict[str, str]:
    """Return the name of what each image must not be parted from: twins and groups, joined."""
    parents = {row.id: row.id for row in manifest.rows}

    def root(name: str) -> str:
        while parents[name] != name:
            parents[name] = parents[parents[name]]
            name = parents[name]
        return name

    sets = [list(one.ids) for one in findings.of(*TWINS)]
    groups: dict[str, list[str]] = {}
    for row in manifest.rows:
        if row.group:
            groups.setdefault(row.group, []).append(row.id)
    for names in (*sets, *groups.values()):
        for name in names[1:]:
            parents[root(name)] = root(names[0])
    return {row.id: root(row.id) for row in manifest.rows}


def _split_of(splits: list[str]) -> str:
    counted = Counter(splits)
    return max(SPLITS, key=lambda split: (counted[split], -SPLITS.index(split)))
