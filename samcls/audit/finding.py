"""One finding of an audit, and all of them as a table.

findings = samcls.audit("features.zarr")
pandas.DataFrame(findings.table())
findings.of("near"), findings.leaks, findings.ok
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

__all__ = ["CODES", "Code", "Finding", "Findings"]


@dataclass(frozen=True)
class Code:
    """What a finding of a kind means.

    Attributes:
        meaning: In a few words.
        advice: What to do about one.
        grave: Whether it makes figures wrong wherever it stands; else one is grave only across splits.
        look: Whether it is a list to look at, and no verdict.
    """

    meaning: str
    advice: str
    grave: bool = False
    look: bool = False


CODES: Mapping[str, Code] = {
    "exact": Code(
        "the same pixels",
        "keep one of them, or give them one group in one split (--write clean.csv)",
    ),
    "near": Code(
        "the same picture turned, mirrored, cropped, brightened or compressed again",
        "look at the pair; if they are one picture, give them one group in one split (--write clean.csv)",
    ),
    "contradiction": Code(
        "twins with different labels", "find out which label is right, or leave both out", True
    ),
    "group-leak": Code(
        "a group in several splits", "give the group one split, or train with --folds", True
    ),
    "pretraining": Code(
        "an image that the encoder was trained on",
        "leave it out of val and test, or say so beside the figures",
        True,
    ),
    "label-suspect": Code(
        "the other images speak against the label",
        "look at the image; the label may well be right",
        look=True,
    ),
    "off-topic": Code(
        "far from every other image", "look whether it belongs to the data set", look=True
    ),
    "blank": Code("hardly any contrast", "look at it; leave it out if it shows nothing"),
    "tiny": Code("very few pixels", "find the original, or leave it out"),
    "mostly-padding": Code("mostly a flat border", "crop the border away, in all images alike"),
    "odd-mode": Code(
        "grey among coloured pictures, or the other way round", "look where it comes from"
    ),
    "unreadable": Code("cannot be read", "repair the file, or leave its row out"),
    "imbalance": Code("a rare class", "judge by AUC and average precision; try --class-weights"),
    "absent-class": Code(
        "a class that a split lacks", "split anew, stratified; its figures cannot be told", True
    ),
    "acquisition": Code(
        "how a picture was made tells its label",
        "compare with your figures: a model may learn the camera; report subgroups by it",
        look=True,
    ),
}


@dataclass(frozen=True)
class Finding:
    """One thing that a user should know.

    Attributes:
        code: One of `CODES`.
        ids: Images that it concerns.
        splits: Of each; empty where it takes no part.
        labels: Of each, `task=class` for each task that has a label, comma-separated.
        similarity: Of twins, 0..1, or what ranks others of the same code; None where nothing does.
        sentence: What was found.
    """

    code: str
    ids: tuple[str, ...]
    splits: tuple[str, ...]
    labels: tuple[str, ...]
    similarity: float | None
    sentence: str

    @property
    def advice(self) -> str:
        """What to do about it."""
        return CODES[self.code].advice

    @property
    def across(self) -> bool:
        """Whether its images stand in several splits."""
        return len(set(self.splits) - {""}) > 1

    @property
    def leak(self) -> bool:
        """Whether it makes figures on val or test too good."""
        return self.across and self.code in ("exact", "near", "group-leak")

    def to_dict(self) -> dict[str, Any]:
        """As JSON knows it; `kind` is the code."""
        return {
            "kind": self.code,
            "ids": list(self.ids),
            "splits": list(self.splits),
            "labels": list(self.labels),
            "similarity": self.similarity,
            "across_splits": self.across,
            "sentence": self.sentence,
            "advice": self.advice,
        }


@dataclass(frozen=True)
class Findings(Sequence[Finding]):
    """All findings, the gravest codes first and within a code the most similar.

    Attributes:
        source: Manifest or store.
        images: Number of images that were looked at.
        found: The findings.
        notes: What was not looked for, and how the threshold for twins came about.
        seconds: From opening to the last finding.
        effect: What leaks did to a run's figures, where one was given.
    """

    source: str
    images: int
    found: tuple[Finding, ...]
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    effect: Mapping[str, Any] = field(default_factory=dict)

    @overload
    def __getitem__(self, place: int) -> Finding: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Finding]: ...
    def __getitem__(self, place: int | slice) -> Finding | Sequence[Finding]:
        """Return one of the findings, or some."""
        return self.found[place]

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.found)

    def __iter__(self) -> Iterator[Finding]:
        """Yield each."""
        return iter(self.found)

    @property
    def ok(self) -> bool:
        """Whether nothing was found that makes figures wrong: no leak, contradiction or absent class."""
        return not any(one.leak or CODES[one.code].grave for one in self.found)

    @property
    def leaks(self) -> tuple[Finding, ...]:
        """Twins and groups in several splits."""
        return tuple(one for one in self.found if one.leak)

    @property
    def counts(self) -> dict[str, int]:
        """Number of findings of each code that has any."""
        counted = Counter(one.code for one in self.found)
        return {code: counted[code] for code in CODES if counted[code]}

    def of(self, *codes: str) -> tuple[Finding, ...]:
        """Return the findings of some codes."""
        return tuple(one for one in self.found if one.code in codes)

    def sentence(self) -> str:
        """Return the counts in a line."""
        if not self.found:
            return f"{self.images} images, nothing found"
        told = ", ".join(f"{code} {number}" for code, number in self.counts.items())
        return f"{self.images} images, {len(self.found)} findings ({told}), {len(self.leaks)} across splits"

    def table(self) -> dict[str, list[Any]]:
        """Return a column for each field, a row for each finding; several ids are joined by ` | `."""
        rows = [one.to_dict() for one in self.found]
        columns = list(rows[0]) if rows else list(Finding("exact", (), (), (), None, "").to_dict())
        return {
            name: [
                " | ".join(row[name]) if isinstance(row[name], list) else row[name] for row in rows
            ]
            for name in columns
        }

    def to_dict(self) -> dict[str, Any]:
        """As JSON knows it."""
        return {
            "ok": self.ok,
            "source": self.source,
            "images": self.images,
            "counts": self.counts,
            "leaks": len(self.leaks),
            "problems": [one.to_dict() for one in self.found],
            "notes": list(self.notes),
            "effect": dict(self.effect),
            "seconds": round(self.seconds, 3),
        }


def ordered(found: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return findings in the order of `CODES`, the most similar first."""
    places = {code: place for place, code in enumerate(CODES)}
    return tuple(
        sorted(found, key=lambda one: (places[one.code], -(one.similarity or 0.0), one.ids))
    )
