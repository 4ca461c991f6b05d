"""Twins: `exact`, `near`, and those of either whose labels differ, `contradiction`.

Images of equal pixels are one finding; of them the first stands for all where near ones are looked for.
"""

from collections.abc import Callable, Iterator
from itertools import combinations

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from samcls.audit.aligned import aligned, described
from samcls.audit.finding import Finding
from samcls.audit.maps import by_features
from samcls.audit.material import Material
from samcls.audit.nearest import nearest_pairs, unit
from samcls.audit.threshold import own_copies, ranked, threshold_of

__all__ = ["find"]

NEIGHBOURS = 8  # of each image, by either description, that are compared closely
LEAST_OF_PICTURES, LEAST_OF_FEATURES = 0.7, 0.4  # of a threshold; cosines of features lie lower
LARGE = 50  # images of a set of twins, above which not every pair of it is compared


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
    pairs, similarity, own = _compared(material, alone)
    if material.read is not None and material.looks is not None:
        own = own_copies(material.read, alone[material.looks.there[alone]])
    if not np.ptp(similarity):
        note(
            "near-duplicates cannot be told: all images are equally alike, as constant features or pictures are"
        )
        return
    threshold = threshold_of(
        ranked(pairs, similarity, len(alone)),
        own,
        LEAST_OF_FEATURES if material.looks is None else LEAST_OF_PICTURES,
    )
    note(threshold.sentence)
    sure = similarity >= threshold.value
    pairs, similarity = pairs[sure], similarity[sure]
    if material.looks is not None:
        more = _of_the_same(pairs, len(alone))
        alike = aligned(material.looks.thumbs[alone], more)
        sure = alike >= threshold.value
        pairs = np.concatenate([pairs, more[sure]])
        similarity = np.concatenate([similarity, alike[sure]])
    for pair, value in zip(pairs.tolist(), similarity.tolist(), strict=True):
        yield from _told(material, "near", alone[pair].tolist(), value)


def _compared(
    material: Material, rows: Int[np.ndarray, " row"]
) -> tuple[
    Int[np.ndarray, "pair 2"], Float[np.ndarray, " pair"], Float[np.ndarray, "own copy"] | None
]:
    """Return pairs of places in `rows`, how similar each is, and by features some images to their own views."""
    pairs = np.zeros((0, 2), np.int64)
    similarity = np.zeros(0, np.float32)
    own = None
    if material.means is not None:
        vectors, own = by_features(material.means[:, np.searchsorted(material.rows, rows)])
        pairs, similarity = nearest_pairs(vectors, NEIGHBOURS)
    if material.looks is not None:
        thumbs = material.looks.thumbs[rows]
        near, _ = nearest_pairs(unit(described(thumbs)), NEIGHBOURS)
        pairs = np.unique(np.concatenate([pairs, near]), axis=0)
        similarity = aligned(thumbs, pairs)
    return pairs, similarity, own


def _of_the_same(pairs: Int[np.ndarray, "pair 2"], count: int) -> Int[np.ndarray, "more 2"]:
    """Return the pairs of images that twins link and that were not compared, of sets that are not large."""
    links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    _, sets = connected_components(links, directed=False)
    order = np.argsort(sets, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(sets[order])) + 1)
    linked = [pair for part in parts if 2 < len(part) <= LARGE for pair in combinations(part, 2)]
    known = {tuple(pair) for pair in pairs.tolist()}
    more = [pair for pair in linked if (int(pair[0]), int(pair[1])) not in known]
    return np.array(more, dtype=np.int64).reshape(-1, 2)


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
