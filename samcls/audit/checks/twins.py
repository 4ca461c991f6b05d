"""Twins: `exact`, `near`, and those of either whose labels differ, `contradiction`.

Images of equal pixels are one finding; of them the first stands for all where near ones are looked for.
"""

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float, Int

from samcls.audit.aligned import aligned, described
from samcls.audit.finding import Finding
from samcls.audit.material import Material
from samcls.audit.nearest import nearest, pairs_of, unit
from samcls.audit.threshold import own_copies, ranked, threshold_of

__all__ = ["find"]

NEIGHBOURS = 8  # of each image, by either description, that are compared closely


def find(material: Material, note: Callable[[str], None]) -> Iterator[Finding]:
    """Yield twins and contradictions."""
    equal: dict[bytes, list[int]] = {}
    for row in material.rows.tolist():
        if material.digests[row]:
            equal.setdefault(material.digests[row], []).append(row)
    for rows in equal.values():
        if len(rows) > 1:
            yield from _told(material, "exact", rows, 1.0)
    first = {rows[0] for rows in equal.values()}
    alone = np.array(
        [row for row in material.rows.tolist() if row in first or not material.digests[row]],
        dtype=np.int64,
    )
    if len(alone) < 2:
        note("near-duplicates were not looked for: there is one picture")
        return
    pairs, similarity = _compared(material, alone)
    own = None
    if material.read is not None and material.looks is not None:
        own = own_copies(material.read, alone[material.looks.there[alone]])
    if not np.ptp(similarity):
        note(
            "near-duplicates cannot be told: all images are equally alike, as constant features or pictures are"
        )
        return
    threshold = threshold_of(ranked(pairs, similarity, len(alone)), own)
    note(threshold.sentence)
    for at in np.flatnonzero(similarity >= threshold.value).tolist():
        yield from _told(material, "near", alone[pairs[at]].tolist(), float(similarity[at]))


def _compared(
    material: Material, rows: Int[np.ndarray, " row"]
) -> tuple[Int[np.ndarray, "pair 2"], Float[np.ndarray, " pair"]]:
    """Return pairs of places in `rows`, and how similar each is."""
    parts = []
    vectors = None
    if material.maps is not None:
        vectors = material.maps[0][np.searchsorted(material.rows, rows)]
        near, _ = nearest(vectors, NEIGHBOURS)
        parts.append(pairs_of(near))
    if material.looks is not None:
        thumbs = material.looks.thumbs[rows]
        near, _ = nearest(unit(described(thumbs)), NEIGHBOURS)
        pairs = np.unique(np.concatenate([*parts, pairs_of(near)]), axis=0)
        similarity = aligned(thumbs, pairs)
    else:
        pairs = parts[0]
        assert vectors is not None
        similarity = np.concatenate(
            [
                np.einsum("ij,ij->i", vectors[part[:, 0]], vectors[part[:, 1]])
                for part in np.array_split(pairs, max(1, len(pairs) // 50_000))
            ]
        )
    return pairs, similarity


def _told(material: Material, code: str, rows: list[int], similarity: float) -> Iterator[Finding]:
    named = " = ".join(f"{material.ids[r]} ({material.splits[r] or 'unused'})" for r in rows[:5])
    more = f" and {len(rows) - 5} more" if len(rows) > 5 else ""
    what = "pixel for pixel" if code == "exact" else f"similarity {similarity:.3f}"
    yield material.finding(code, rows, f"{named}{more}: {what}", similarity)
    if material.contradict(rows):
        labels = " against ".join(dict.fromkeys(material.label(row) or "none" for row in rows))
        yield material.finding(
            "contradiction", rows, f"{named}{more}: {what}, labelled {labels}", similarity
        )
