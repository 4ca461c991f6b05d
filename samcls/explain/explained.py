"""What was explained: evidence of some images, how far it may be believed, and how it is drawn and told.

found = explain("run", store="features.zarr")
found.contrast.maps["neck"], found.figure(0), found.text()
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from samcls.errors import ImageError, InputError
from samcls.explain.evidence import Contrast, Evidence
from samcls.explain.geometry import on_grid
from samcls.explain.overlay import overlay, shrunk
from samcls.explain.page import explain_page, explain_text
from samcls.explain.scores import Score
from samcls.explain.subject import Neighbours, Subject
from samcls.learn.heads.contributions import MEAN_OF_MEMBERS

__all__ = ["EVIDENCE", "GATE", "Explained"]

EVIDENCE, GATE = "evidence", "gate"
MARKS = 99.0  # per cent of all windows that the colour scale reaches
NEAR = 128  # pixels of a training image's longer side

Picture = UInt8[np.ndarray, "_row _col 3"]


@dataclass(frozen=True, eq=False)
class Explained:
    """Evidence of some images, and how far it may be believed.

    Attributes:
        subject: What was explained.
        what: `evidence` or `gate`.
        task: Whose evidence.
        evidence: Of every class, by level.
        contrast: Of one class against another.
        shown: Numbers of the images that the page shows, the worst by loss first.
        pictures: Of these, by number, as far as they are there.
        scores: By name.
        locality: By level.
        neighbours: Nearest training images; None where they are not known.
        notes: What could not be done, and why.
    """

    subject: Subject
    what: str
    task: str
    evidence: Evidence
    contrast: Contrast
    shown: tuple[int, ...]
    pictures: Mapping[int, Picture]
    scores: Mapping[str, Score] = field(default_factory=dict)
    locality: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    neighbours: Neighbours | None = None
    notes: tuple[str, ...] = ()

    @cached_property
    def grid(self) -> Float[np.ndarray, "image row col"]:
        """All levels in windows of one side: their sum, of gates their mean."""
        summed = self.evidence.summed(self.contrast)
        return summed / len(self.evidence.places) if self.what == GATE else summed

    def level(self, name: str) -> Float[np.ndarray, "image row col"]:
        """Return one level in the same windows."""
        if name not in self.evidence.places:
            raise InputError(
                f"there is no map of {name}; there are {', '.join(self.evidence.places)}"
            )
        places = {name: self.evidence.places[name]}
        maps = {name: self.contrast.maps[name]}
        return on_grid(maps, places, self.evidence.extents, self.evidence.side())

    @cached_property
    def scale(self) -> float:
        """Logits at which a colour is strongest: one for all images."""
        if self.what == GATE:
            return 0.5
        there = np.abs(self.grid[self.grid != 0])
        return float(np.percentile(there, MARKS)) if there.size else 1.0

    @property
    def ends(self) -> tuple[str, str, str]:
        """What the ends of the colour scale mean, and the sentence between them."""
        if self.what == GATE:
            return (
                "gate 0: shut",
                "Mean gate A of each window's channels; 0.5 leaves the picture grey.",
                "1: open",
            )
        side = 100 * self.evidence.side()
        names = self.evidence.tasks[self.task]
        known = set(self.contrast.classes.tolist())
        name = names[known.pop()] if len(known) == 1 else "the class answered"
        name = f"{self.task} {name}"
        told = (
            f"Logits that each window adds, {side:.1f} % of the frame a side. One scale for all images and levels: the "
            f"{MARKS:.0f}th percentile of all windows."
        )
        return f"{-self.scale:+.3g}, against {name}", told, f"{self.scale:+.3g}, for {name}"

    @property
    def title(self) -> str:
        """Of the page."""
        run = self.subject.predictor.runs[0].path.name
        return f"{'Gates' if self.what == GATE else 'Evidence'} of {run}, task {self.task}"

    @property
    def sentence(self) -> str:
        """What was done."""
        if self.what == GATE:
            return f"{self.subject.source}: {self.evidence.method}, by level."
        method = self.evidence.method
        told = "terms of windows that sum, with the bias, to the logit"
        return (
            f"{self.subject.source}: {told} ({method}; largest difference {self.evidence.error:.1g}), for the class "
            f"{self._name()} against {self.contrast.against}."
        )

    def _name(self) -> str:
        names = self.evidence.tasks[self.task]
        known = set(self.contrast.classes.tolist())
        return names[known.pop()] if len(known) == 1 else "that is answered"  # of each image

    def said(self, number: int) -> str:
        """Return what the run says of an image, in words."""
        label = self.subject.label(number)
        told = f"label {label}. " if label else ""
        if self.what == GATE:
            return told
        chance = self.evidence.probabilities[self.task][number]
        names = self.evidence.tasks[self.task]
        terms = ", ".join(
            f"{level} {values[number].sum():+.2f}" for level, values in self.contrast.maps.items()
        )
        return (
            f"{told}Answer {names[chance.argmax()]} with probability {chance.max():.2f}. {self._logit} for "
            f"{names[self.contrast.classes[number]]} against {self.contrast.against} {self.contrast.logit[number]:+.2f}"
            f" = bias {self.contrast.bias[number]:+.2f}, {terms}"
        )

    @property
    def _logit(self) -> str:
        """What the logit is called: of several members or views it is not that of the mean probability."""
        members = self.evidence.method.startswith(MEAN_OF_MEMBERS)
        return "Mean logit" if members or len(self.subject.made.views) > 1 else "Logit"

    def wrong(self, number: int) -> bool:
        """Whether the most probable class is not the label."""
        if self.what == GATE:
            return False
        label = self.subject.labels[number, list(self.evidence.tasks).index(self.task)]
        return bool(label >= 0 and self.evidence.probabilities[self.task][number].argmax() != label)

    def drawn(self, number: int, picture: Picture, level: str | None = None) -> Picture:
        """Return an image's picture with its evidence over it, of all levels or of one.

        Args:
            number: Of the image.
            picture: As large as is wanted.
            level: One of the evidence's places.
        """
        values = self.grid[number] if level is None else self.level(level)[number]
        return self._over(number, picture, values)

    def _over(self, number: int, picture: Picture, values: np.ndarray) -> Picture:
        shift = 0.5 if self.what == GATE else 0.0
        side, extent = self.evidence.side(), self.evidence.extents[number]
        return overlay(picture, values - shift, side, extent, self.scale)

    def captions(self, number: int) -> dict[str, str]:
        """Return what stands under each level's map of an image."""
        return {
            level: level
            if self.what == GATE
            else f"{level} {self.contrast.maps[level][number].sum():+.2f}"
            for level in self.evidence.places
        }

    def near_picture(self, name: str) -> Picture | None:
        """Return a training image's picture; None where it cannot be had."""
        return self._near.get(name)

    @cached_property
    def _near(self) -> dict[str, Picture]:
        if self.neighbours is None or self.subject.others is None:
            return {}
        others = self.subject.others
        places = {name: row for row, name in enumerate(others.ids)}
        found = {}
        for name in {one for number in self.shown for one in self.neighbours.ids[number]}:
            try:
                found[name] = shrunk(others.picture(places[name]), NEAR)
            except ImageError:
                continue
        return found

    def figure(self, number: int) -> Picture:
        """Return an image's picture with its evidence over it, at the picture's own size: for notebooks."""
        return self.drawn(number, self.subject.picture(number))

    def to_dict(self) -> dict[str, Any]:
        """Return what a program needs to know."""
        places = {k: asdict(v) | {"side": v.side} for k, v in self.evidence.places.items()}
        return {
            "runs": [str(run.path) for run in self.subject.predictor.runs],
            "source": self.subject.source,
            "what": self.what,
            "task": self.task,
            "columns": [
                [task, one] for task, names in self.evidence.tasks.items() for one in names
            ],
            "for": None if self.what == GATE else self._name(),
            "against": self.contrast.against,
            "method": self.evidence.method,
            "error": self.evidence.error if self.what == EVIDENCE else None,
            "unit": "gate, 0..1" if self.what == GATE else "logit",
            "scale": self.scale,
            "levels": places,
            "images": len(self.evidence.ids),
            "scores": {name: score.to_dict() for name, score in self.scores.items()},
            "locality": {k: dict(v) for k, v in self.locality.items()},
            "notes": list(self.notes),
        }

    def text(self) -> str:
        """Return the page of text."""
        return explain_text(self)

    def html(self) -> str:
        """Return the page to look at."""
        return explain_page(self)
