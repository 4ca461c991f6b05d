"""What stands in several splits: groups that were divided, and pictures that are there twice.

A patient in training and in test makes figures too good for new patients, and so does a picture. The same
facts are looked for wherever they become known: before and after extraction, in training, in a sweep, and
when a store is verified. A million images take some two seconds.

    found = find_leaks(ids, splits, groups, sha256, labels)
    found.groups.names, found.equal.images, found.to_dict()
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, UInt8

from samcls.data.manifest import Manifest
from samcls.errors import ManifestError

__all__ = ["ACCEPTED", "Leaks", "Straddling", "find_leaks", "refuse_divided_groups"]

ACCEPTED = "accept it with --allow-leak (allow_leak=True in Python), and every table will say so"
KEPT = 100  # units whose ids stand in a run's metrics
SHOWN = 5  # of them in a sentence


@dataclass(frozen=True)
class Straddling:
    """Units of one kind whose images stand in several splits.

    Attributes:
        units: For each, in the order of their first images, the ids in each split.
        names: Of groups; of pictures, the first id.
    """

    units: tuple[Mapping[str, tuple[str, ...]], ...] = ()
    names: tuple[str, ...] = ()

    @property
    def images(self) -> int:
        """Number of images in all of them."""
        return sum(len(ids) for unit in self.units for ids in unit.values())

    def __bool__(self) -> bool:
        return bool(self.units)

    def to_dict(self) -> dict[str, Any]:
        """Return counts, and the ids of the first of them."""
        first = [
            {"name": name, "images": {split: list(ids) for split, ids in unit.items()}}
            for name, unit in zip(self.names[:KEPT], self.units[:KEPT], strict=True)
        ]
        return {"count": len(self.units), "images": self.images, "first": first}


@dataclass(frozen=True)
class Leaks:
    """What stands in several splits.

    Attributes:
        groups: Patients or lesions.
        equal: Pictures, pixel for pixel, whose labels agree as far as they are there.
        contradictory: Pictures whose labels do not.
        places: What images are divided into, `splits` or `folds`, for the sentences.
    """

    groups: Straddling
    equal: Straddling
    contradictory: Straddling
    places: str = "splits"

    def divided_groups(self) -> str:
        """Return a sentence on the groups; empty where there are none."""
        if not self.groups:
            return ""
        named = [
            f"{name} ({', '.join(f'{split} {len(ids)}' for split, ids in unit.items())})"
            for name, unit in zip(self.groups.names, self.groups.units, strict=True)
        ]
        verb = "lies" if len(named) == 1 else "lie"
        return (
            f"{_number(len(named), 'group')} of {_number(self.groups.images, 'image')} {verb} in several "
            f"{self.places}: {_few(named)}"
        )

    def pictures(self) -> list[str]:
        """Return a sentence on pictures with equal labels, and one on those with contradictory ones."""
        return [
            sentence
            for found, labels in ((self.equal, "equal"), (self.contradictory, "contradictory"))
            if (sentence := self._twice(found, labels))
        ]

    def counted(self, store: str) -> str:
        """Return the counts in a line, and what looks for more."""
        return (
            f"in several {self.places}: {_number(len(self.equal.units), 'picture')} pixel for pixel, "
            f"{len(self.contradictory.units)} more with contradictory labels, "
            f"{_number(len(self.groups.units), 'group')}; near-duplicates and more: samcls audit {store}"
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON knows it."""
        return {
            "groups": self.groups.to_dict(),
            "equal": self.equal.to_dict(),
            "contradictory": self.contradictory.to_dict(),
        }

    def _twice(self, found: Straddling, labels: str) -> str:
        if not found:
            return ""
        named = [
            " = ".join(f"{name} ({split})" for split, ids in unit.items() for name in ids[:2])
            for unit in found.units
        ]
        verb = "stands" if len(named) == 1 else "stand"
        return (
            f"{_number(len(named), 'picture')} {verb} in several {self.places} pixel for pixel, with "
            f"{labels} labels, {found.images} images in all: {_few(named, '; ')}"
        )


def find_leaks(
    ids: Sequence[str],
    splits: Sequence[str],
    groups: Sequence[str],
    sha256: UInt8[np.ndarray, "image 32"] | None = None,
    labels: Int[np.ndarray, "image task"] | None = None,
    *,
    places: str = "splits",
) -> Leaks:
    """Look for groups and pictures in several splits, among images that all take part.

    Args:
        ids: Of the images.
        splits: Where each belongs; empty for one that takes no part.
        groups: Patient or lesion of each; empty where there is none.
        sha256: Of the decoded pixels; zeros where they are not known.
        labels: Class indices, -1 where missing.
        places: What `splits` are called in sentences.
    """
    codes = np.unique(np.array(splits, dtype=np.str_), return_inverse=True)[1]
    part = np.array([bool(split) for split in splits], dtype=bool)
    names = np.array(groups, dtype=np.str_)
    grouped = _straddling(names, codes, part & (names != ""))
    found = Straddling(
        tuple(_by_split(rows, ids, splits) for rows in grouped),
        tuple(groups[rows[0]] for rows in grouped),
    )
    if sha256 is None:
        return Leaks(found, Straddling(), Straddling(), places)
    digests = np.ascontiguousarray(sha256).view("S32").reshape(-1)
    twice = _straddling(digests, codes, part & sha256.any(axis=1))
    clash = [labels is not None and _contradict(labels[rows]) for rows in twice]
    equal, contradictory = (
        Straddling(
            tuple(
                _by_split(rows, ids, splits)
                for rows, odd in zip(twice, clash, strict=True)
                if odd == one
            ),
            tuple(ids[rows[0]] for rows, odd in zip(twice, clash, strict=True) if odd == one),
        )
        for one in (False, True)
    )
    return Leaks(found, equal, contradictory, places)


def refuse_divided_groups(manifest: Manifest) -> None:
    """Make sure that no group of a manifest lies in several splits.

    Raises:
        ManifestError: With how many do, the first by name, and what to do.
    """
    said = find_leaks(manifest.ids, manifest.splits, manifest.groups).divided_groups()
    if said:
        raise ManifestError(
            f"the manifest {manifest.source}: {said}. Images of one group belong in one split, or "
            f"figures are too good: give each group one split, or {ACCEPTED}. Training with --folds "
            "keeps groups whole whatever the splits are"
        )


def _straddling(
    keys: np.ndarray, codes: Int[np.ndarray, " image"], part: Bool[np.ndarray, " image"]
) -> list[list[int]]:
    """Rows of each key that has several codes, in the order of their first rows."""
    rows = np.flatnonzero(part)
    if not len(rows):
        return []
    _, units = np.unique(keys[rows], return_inverse=True)
    low = np.full(units.max() + 1, np.iinfo(np.int64).max)
    high = np.full(units.max() + 1, -1)
    np.minimum.at(low, units, codes[rows])
    np.maximum.at(high, units, codes[rows])
    found: dict[int, list[int]] = {}
    for at in np.flatnonzero((low != high)[units]).tolist():
        found.setdefault(int(units[at]), []).append(int(rows[at]))
    return list(found.values())


def _by_split(
    rows: Sequence[int], ids: Sequence[str], splits: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    order = {"train": 0, "val": 1, "test": 2}
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(splits[row], []).append(ids[row])
    return {
        split: tuple(found[split]) for split in sorted(found, key=lambda s: (order.get(s, 3), s))
    }


def _contradict(labels: Int[np.ndarray, "image task"]) -> bool:
    return any(len(np.unique(column[column >= 0])) > 1 for column in labels.T)


def _few(named: Sequence[str], mark: str = ", ") -> str:
    return mark.join(named[:SHOWN]) + (f"{mark}..." if len(named) > SHOWN else "")


def _number(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
