"""How far evidence may be believed: what becomes of the answer when windows go, against maps that know nothing.

Windows go in the order of a map, the strongest first, and the run answers again from the cached features, in which what
is gone is the training images' mean: exact for the head, of the encoder a model. `deletion` is the mean probability of
the class that was answered while windows go (lower is better), `insertion` the mean while they come (higher is better).
Both ask whether a map tells what the run does, and any additive head does well, whatever it learned. Whether the windows
that it names speak for the truth is asked of the labelled class, its probability in place of the answered one's, every
class weighing the same: of a run that learned nothing the map is then no better than a random one.
Each image counts once, and intervals draw whole groups, as all intervals of samcls do.

    table = window_scores(subject, "melanoma", pictures)
    table["deletion"].values["evidence"], table["deletion"].gaps["centre"]
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8

from samcls.explain.evidence import Evidence, evidence_of
from samcls.explain.maps import centre, deleted_shares, edges, random_maps, shown
from samcls.explain.subject import Subject
from samcls.learn.features.batches import select_rows
from samcls.learn.features.tensors import Features
from samcls.learn.fit.fit import steady_threads
from samcls.learn.fit.prediction import Model, to_probabilities
from samcls.learn.heads.base import NetworkHead
from samcls.learn.score.intervals import unit_numbers

__all__ = [
    "MOST",
    "Score",
    "agreement",
    "answered_for",
    "area",
    "randomised",
    "ranks",
    "sanity_scores",
    "score_of",
    "window_scores",
]

MOST = 16  # windows along a side that go one by one
STEPS = 10
DRAWS = 2  # random maps
RESAMPLES = 1000
LOWER, HIGHER = "lower", "higher"
KINDS = ("deletion", "insertion", "deletion, labelled class", "insertion, labelled class")

Grid = Float[np.ndarray, "image row col"]
Pictures = Mapping[int, UInt8[np.ndarray, "_row _col 3"]]


@dataclass(frozen=True, eq=False)
class Score:
    """A score of several maps over the same images.

    Attributes:
        better: `lower` or `higher`; empty where neither is.
        values: Mean of each map over images.
        intervals: Of these, 95 %.
        gaps: Evidence minus each other map, with its interval: difference, low, high.
        images: How many were scored.
    """

    better: str
    values: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    gaps: Mapping[str, tuple[float, float, float]]
    images: int

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it: what is no number is null."""

        def plain(values: tuple[float, ...]) -> list[float | None]:
            return [one if np.isfinite(one) else None for one in values]

        return {
            "better": self.better,
            "values": dict(self.values),
            "intervals": {k: plain(v) for k, v in self.intervals.items()},
            "gaps": {k: plain(v) for k, v in self.gaps.items()},
            "images": self.images,
        }

    def beats(self, control: str) -> bool:
        """Whether evidence is better than a control by more than noise."""
        _, low, high = self.gaps[control]
        return high < 0 if self.better == LOWER else low > 0


def score_of(
    better: str, values: Mapping[str, Float[np.ndarray, " image"]], groups: tuple[str, ...]
) -> Score:
    """Return the means of values with intervals over groups; the first is held against the others.

    Args:
        better: As `Score` has it.
        values: Of each map, one for each image.
        groups: Patient or lesion of each image; empty where there is none.
    """
    units = unit_numbers(groups)
    count = int(units.max()) + 1
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    weights = drawn[:, units].astype(np.float64)
    weights /= np.maximum(weights.sum(1, keepdims=True), 1)

    def interval(one: np.ndarray) -> tuple[float, float]:
        if count < 2:  # of one group no spread is known
            return float("nan"), float("nan")
        low, high = np.percentile(weights @ one, [2.5, 97.5]).tolist()
        return low, high

    first, *others = values
    return Score(
        better,
        {name: float(one.mean()) for name, one in values.items()},
        {name: interval(one) for name, one in values.items()},
        {
            name: (
                float((values[first] - values[name]).mean()),
                *interval(values[first] - values[name]),
            )
            for name in others
        },
        len(units),
    )


def answered_for(evidence: Evidence, task: str) -> tuple[Grid, Int[np.ndarray, " image"], float]:
    """Return evidence for the class that each image is answered to have, in windows of one side.

    Returns:
        The map, "image row col"; the class; and the windows' side, as a share of the frame's.
    """
    classes = evidence.probabilities[task].argmax(1)
    contrast = evidence.contrast(task)
    grid = evidence.summed(contrast, MOST)
    sign = np.where(
        contrast.classes == classes, 1.0, -1.0
    )  # of two classes the other's is the opposite
    return grid * sign[:, None, None], classes, evidence.side(MOST)


def window_scores(
    subject: Subject, task: str, pictures: Pictures | None = None
) -> dict[str, Score]:
    """Return deletion and insertion over all images, from the cache.

    Args:
        subject: What is explained.
        task: Whose answer.
        pictures: Of some images, by number; None leaves out the map of edges.

    Returns:
        By name; empty where the head looks at images, which are not in the cache as features are.
    """
    models = subject.predictor.models
    if isinstance(models[0].head, NetworkHead):
        return {}
    evidence = subject.evidence
    grid, classes, side = answered_for(evidence, task)
    maps: dict[str, list[Grid]] = {
        "evidence": [grid],
        "random": [random_maps(grid.shape, seed) for seed in range(DRAWS)],
        "centre": [centre(evidence.extents, side, grid.shape[1])],
    }
    if pictures:
        maps["edges"] = [edges(pictures, evidence.extents, side, grid.shape[1])]
    there = shown(evidence.extents, side, grid.shape[1])
    column = list(evidence.tasks).index(task)
    said: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    start = 0
    for features, extents in subject.chunks():
        here = slice(start, start + len(features.ids))
        start = here.stop
        places = (evidence, extents, side, there[here])
        with torch.inference_mode(), steady_threads(features, models[0].config):
            for kind, sign in (("deletion", 1.0), ("insertion", -1.0)):
                curves = [
                    [_curve(models, features, sign * one[here], task, places) for one in drawn]
                    for drawn in maps.values()
                ]
                found = _means(curves)
                rows = np.arange(found.shape[1])
                said[kind].append(found[:, rows, classes[here]])
                said[f"{kind}, labelled class"].append(found[:, rows, subject.labels[here, column]])
    labels = subject.labels[:, column]
    scores = {}
    for kind, parts in said.items():
        values = dict(zip(maps, np.concatenate(parts, 1), strict=True))
        groups = subject.groups
        if kind.endswith("labelled class"):
            known = np.flatnonzero(labels >= 0)
            if len(np.unique(labels[known])) < 2:
                continue
            counts = np.bincount(labels[known])
            weights = len(known) / (counts > 0).sum() / counts[labels[known]]
            values = {name: one[known] * weights for name, one in values.items()}
            groups = tuple(groups[i] for i in known.tolist())
        scores[kind] = score_of(LOWER if kind.startswith("deletion") else HIGHER, values, groups)
    return scores


def _means(curves: list[list[np.ndarray]]) -> Float[np.ndarray, "map image class"]:
    found: np.ndarray = np.stack([np.mean(drawn, axis=0) for drawn in curves])
    return found


def _curve(
    models: tuple[Model, ...],
    features: Features,
    order: Grid,
    task: str,
    places: tuple[Evidence, np.ndarray, float, np.ndarray],
) -> Float[np.ndarray, "image class"]:
    """Return the mean probability of each class while windows go, the largest of `order` first."""
    evidence, extents, side, there = places
    images = len(order)
    flat = torch.arange(images) * features.views  # as it is, of several views
    tokens, counts = select_rows(features.tokens, features.counts, flat)
    standard = [model.scaler.apply(tokens) for model in models]
    rank = ranks(order, there)
    total = there.sum((1, 2))
    curve = []
    for step in range(STEPS + 1):
        gone = there & (rank < np.round(step / STEPS * total)[:, None, None])
        left = {}
        for level, values in tokens.items():
            place = evidence.places.get(level)
            if place is None:
                continue
            shape = (place.rows, place.cols)
            shares = deleted_shares(gone, place.side, shape, side, extents)
            left[level] = torch.from_numpy(1 - shares).reshape(*values.shape[:2], 1).float()
        parts = [
            to_probabilities(
                model.head({k: v * left[k] if k in left else v for k, v in own.items()}, counts),
                model.tasks,
            )[task]
            for model, own in zip(models, standard, strict=True)
        ]
        curve.append(np.mean(parts, axis=0))
    return area(np.stack(curve))


def area(curve: Float[np.ndarray, "step ..."]) -> Float[np.ndarray, "..."]:
    """Return the area under a curve over 0..1, by trapezoids; NumPy's own name for it differs by version."""
    found: np.ndarray = (curve[1:] + curve[:-1]).mean(0) / 2
    return found


def ranks(order: Grid, there: np.ndarray) -> Int[np.ndarray, "image row col"]:
    """Return each window's place when they are ordered by a map, the largest first; those not there come last."""
    flat = np.where(there, order, -np.inf).reshape(len(order), -1)
    places = np.argsort(-flat, axis=1, kind="stable")
    found = np.empty_like(places)
    np.put_along_axis(found, places, np.arange(flat.shape[1])[None], axis=1)
    return found.reshape(order.shape)


def agreement(one: Grid, other: Grid, there: np.ndarray) -> Float[np.ndarray, " image"]:
    """Return Spearman's rank correlation of two maps over the windows that show picture, of each image.

    Args:
        one: A map.
        other: Another.
        there: Which windows show picture.
    """
    from scipy.stats import spearmanr  # a second

    found = []
    for a, b, here in zip(one, other, there, strict=True):
        if here.sum() < 3 or not np.ptp(a[here]) or not np.ptp(b[here]):
            found.append(0.0)
            continue
        found.append(float(spearmanr(a[here], b[here]).statistic))
    return np.array(found)


def randomised(model: Model, seed: int) -> Model:
    """Return a model whose head holds its own values in another order: what is learned is gone, their spread is not.

    Args:
        model: A fitted one, which stays as it is.
        seed: Of the order.
    """
    head = copy.deepcopy(model.head)
    generator = torch.Generator().manual_seed(seed)
    for value in head.state_dict().values():
        if value.is_floating_point() and value.numel() > 1:
            flat = value.flatten()
            value.copy_(flat[torch.randperm(len(flat), generator=generator)].view_as(value))
    return replace(model, head=head)


def sanity_scores(subject: Subject, task: str) -> dict[str, Score]:
    """Return how maps agree with those of a randomised head, and of several runs with each other.

    Args:
        subject: What is explained.
        task: Whose evidence.
    """
    models = subject.predictor.models
    evidence = subject.evidence
    side, own = evidence.side(MOST), evidence.summed(evidence.contrast(task), MOST)
    there = shown(evidence.extents, side, own.shape[1])
    others: dict[str, list[np.ndarray]] = {"randomised head": []}
    scrambled = tuple(randomised(model, seed) for seed, model in enumerate(models))
    by_run: list[list[np.ndarray]] = [[] for _ in models]
    for features, extents in subject.chunks():
        with steady_threads(features, models[0].config):
            drawn = evidence_of(scrambled, features, extents, evidence.places)
            others["randomised head"].append(drawn.summed(drawn.contrast(task), MOST))
            if len(models) > 1:
                for kept, model in zip(by_run, models, strict=True):
                    one = evidence_of([model], features, extents, evidence.places)
                    kept.append(one.summed(one.contrast(task), MOST))
    found = {
        "agreement with a randomised head": score_of(
            LOWER,
            {"evidence": agreement(own, np.concatenate(others["randomised head"]), there)},
            subject.groups,
        )
    }
    if len(models) > 1:
        maps = [np.concatenate(parts) for parts in by_run]
        pairs = [agreement(a, b, there) for i, a in enumerate(maps) for b in maps[i + 1 :]]
        found["agreement of runs"] = score_of(
            HIGHER, {"evidence": np.mean(pairs, axis=0)}, subject.groups
        )
    return found
