"""What only the encoder can say: pictures with parts blanked, encoded again, some images of a set.

`pixel deletion` and `pixel insertion` are those of `scores`, but the picture's own pixels go, to the colour that the
encoder takes for nothing. `locality` blanks one window and asks which share of all change in a level's features falls
into that window: it bounds how far any map of that level may be believed. A randomised encoder encodes the pictures
with weights that were drawn; a map that stays the same does not show what was learned.

    scores, local = encoder_scores(subject, "melanoma", pictures)
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8

from samcls.deploy.encoded import features_of
from samcls.deploy.said import encoded, joined
from samcls.encode.base import Encoder
from samcls.encode.encoders import open_encoder
from samcls.encode.options import ExtractOptions
from samcls.errors import InputError, SamclsError
from samcls.explain.evidence import evidence_of
from samcls.explain.geometry import overlap
from samcls.explain.maps import centre, edges, random_maps, shown
from samcls.explain.overlay import places_in
from samcls.explain.scores import (
    HIGHER,
    LOWER,
    MOST,
    Score,
    agreement,
    answered_for,
    area,
    ranks,
    score_of,
)
from samcls.explain.subject import Subject
from samcls.learn.features.tensors import ChannelScaler, Features
from samcls.learn.fit.prediction import predict_logits, to_probabilities
from samcls.store.schema import DONE

__all__ = ["encoder_scores", "locality", "price"]

STEPS = 5
BLANKS = 2  # windows of an image that are blanked one by one
MAPS = ("evidence", "random", "centre", "edges")

Picture = UInt8[np.ndarray, "_row _col 3"]
Grid = Float[np.ndarray, "image row col"]
Log = Callable[[str], None]


def price(images: int) -> int:
    """Return how many pictures are encoded for so many images."""
    return images * (len(MAPS) * (2 * STEPS - 1) + 2 + BLANKS + 1)


def encoder_scores(
    subject: Subject, task: str, pictures: Mapping[int, Picture], log: Log
) -> tuple[dict[str, Score], dict[str, dict[str, float]]]:
    """Return scores of some images, and the locality of each level.

    Args:
        subject: What is explained.
        task: Whose answer.
        pictures: Of those images, by number.
        log: Called with what it costs and what could not be done.

    Raises:
        InputError: the runs need columns beside the image.
    """
    if subject.predictor.models[0].meta:
        raise InputError(
            "the run reads columns beside the image: blanked pictures are not encoded for it"
        )
    rows = np.array(sorted(pictures))
    some = [pictures[row] for row in rows[:8].tolist()]
    _features(subject, some, subject.predictor.encoder)  # warm, so that the price is the true one
    begun = time.monotonic()
    _features(subject, some, subject.predictor.encoder)
    each = (time.monotonic() - begun) / len(some)
    log(
        f"encoding {price(len(rows)):,} pictures for scores through the encoder, {len(rows)} images: some "
        f"{max(1, round(each * price(len(rows))))} s"
    )
    evidence = subject.evidence
    grid, classes, side = answered_for(evidence, task)
    count, extents = grid.shape[1], evidence.extents[rows]
    there = shown(extents, side, count)
    own = {place: pictures[row] for place, row in enumerate(rows.tolist())}
    maps = {
        "evidence": grid[rows],
        "random": random_maps((len(rows), count, count), 0),
        "centre": centre(extents, side, count),
        "edges": edges(own, extents, side, count),
    }
    groups = tuple(subject.groups[row] for row in rows.tolist())
    curves = {
        name: _curves(subject, task, own, one, (there, side, extents), classes[rows])
        for name, one in maps.items()
    }
    scores = {
        "pixel deletion": score_of(LOWER, {k: v[0] for k, v in curves.items()}, groups),
        "pixel insertion": score_of(HIGHER, {k: v[1] for k, v in curves.items()}, groups),
    }
    try:
        other = _random_encoder(subject)
        found = _random_agreement(subject, task, own, extents, rows, other)
        scores["agreement with a randomised encoder"] = score_of(LOWER, {"evidence": found}, groups)
    except SamclsError as error:
        log(f"the randomised encoder is left out: {error}")
    return scores, locality(subject, own, (there, side, extents))


def locality(
    subject: Subject,
    pictures: Mapping[int, Picture],
    windows: tuple[Bool[np.ndarray, "image row col"], float, Float[np.ndarray, "image 2"]],
) -> dict[str, dict[str, float]]:
    """Blank one window at a time and return, for each level, the share of all change that falls into it.

    Args:
        subject: What is explained.
        pictures: By place.
        windows: Which show picture, "image row col"; their side as a share of the frame's; extents.

    Returns:
        By level `inside`, the share of the change, and `area`, the share of the picture that was blanked.
    """
    there, side, extents = windows
    rng = np.random.default_rng(0)
    blanked, sources, gone = [], [], []
    for place, picture in pictures.items():
        for at in rng.permutation(np.flatnonzero(there[place]))[:BLANKS].tolist():
            mask = np.zeros(there.shape[1:], bool)
            mask.flat[at] = True
            blanked.append(_blanked(picture, mask, side, extents[place], _nothing(subject)))
            sources.append(place)
            gone.append(mask)
    encoder = subject.predictor.encoder
    before = _features(subject, list(pictures.values()), encoder)
    after = _features(subject, blanked, encoder)
    scaler = subject.predictor.models[0].scaler
    old, new = scaler.apply(before.tokens), scaler.apply(after.tokens)
    found = {}
    for level, place_ in subject.evidence.places.items():
        if level not in old:
            continue
        shape, inside, area = (place_.rows, place_.cols), [], []
        for number, (source, mask) in enumerate(zip(sources, gone, strict=True)):
            views = before.views
            one, other = old[level][source * views], new[level][number * views]
            cells = before.counts[level][source * views].numpy()
            change = ((other - one).norm(dim=1).numpy() * cells).reshape(shape)
            height, width = extents[source].tolist()
            down = overlap(place_.side, shape[0], side, len(mask), height)
            across = overlap(place_.side, shape[1], side, len(mask), width)
            touched = (down @ mask @ across.T) > 0
            total = change.sum()
            inside.append(change[touched].sum() / total if total else 0.0)
            area.append((cells.reshape(shape) * touched).sum() / cells.sum())
        found[level] = {"inside": float(np.mean(inside)), "area": float(np.mean(area))}
    return found


def _curves(
    subject: Subject,
    task: str,
    pictures: Mapping[int, Picture],
    order: Grid,
    windows: tuple[Bool[np.ndarray, "image row col"], float, Float[np.ndarray, "image 2"]],
    classes: Int[np.ndarray, " image"],
) -> tuple[Float[np.ndarray, " image"], Float[np.ndarray, " image"]]:
    """Return the mean probability of the answered class while pixels go, and while they come."""
    there, side, extents = windows
    rank, total = ranks(order, there), there.sum((1, 2))
    fill = _nothing(subject)
    steps = []
    for kind in range(2):
        for step in range(STEPS + 1):
            number = np.round(step / STEPS * total)[:, None, None]
            gone = there & ((rank < number) if kind == 0 else (rank >= number))
            made = [
                _blanked(picture, gone[place], side, extents[place], fill)
                for place, picture in pictures.items()
            ]
            said = _probabilities(subject, made, task)
            steps.append(said[np.arange(len(made)), classes])
    down, up = np.stack(steps[: STEPS + 1]), np.stack(steps[STEPS + 1 :])
    return area(down), area(up)


def _blanked(
    picture: Picture,
    gone: Bool[np.ndarray, "down across"],
    side: float,
    extent: Float[np.ndarray, " 2"],
    fill: UInt8[np.ndarray, " 3"],
) -> Picture:
    """Return a picture in which some windows have one colour."""
    rows, cols = places_in(picture.shape[:2], gone.shape, side, extent)
    found = picture.copy()
    found[gone[rows[:, None], cols]] = fill
    return found


def _nothing(subject: Subject) -> UInt8[np.ndarray, " 3"]:
    """Return the colour that the encoder standardises to 0."""
    found: np.ndarray = np.clip(np.round(subject.made.mean), 0, 255).astype(np.uint8)
    return found


def _features(subject: Subject, pictures: Sequence[Picture], encoder: Encoder) -> Features:
    """Encode pictures as the run's own were; all must be usable."""
    predictor = subject.predictor
    numbers = np.arange(len(pictures))
    whole = joined(list(encoded(pictures, numbers, encoder, predictor.options, lambda _: None)))
    rows = np.flatnonzero(whole.status == DONE)
    if len(rows) < len(pictures):
        raise InputError("; ".join(filter(None, whole.error)))
    return features_of(predictor.models[0], subject.made, whole, rows, {}, subject.shapes)


def _probabilities(
    subject: Subject, pictures: Sequence[Picture], task: str
) -> Float[np.ndarray, "image class"]:
    features = _features(subject, pictures, subject.predictor.encoder)
    said = [
        to_probabilities(predict_logits(m.head, features.standardised(m.scaler)), m.tasks)[task]
        for m in subject.predictor.models
    ]
    found: np.ndarray = np.mean(said, axis=0)
    return found


def _random_encoder(subject: Subject) -> Encoder:
    """Open the same encoder with weights that were drawn.

    Raises:
        SamclsError: it has none.
    """
    options = ExtractOptions.of(
        subject.made, device=subject.predictor.options.device, random_weights=True, seed=1
    )
    return open_encoder(options, log=lambda _: None)


def _random_agreement(
    subject: Subject,
    task: str,
    pictures: Mapping[int, Picture],
    extents: Float[np.ndarray, "image 2"],
    rows: Int[np.ndarray, " image"],
    encoder: Encoder,
) -> Float[np.ndarray, " image"]:
    """Return the rank correlation of evidence with that on features of another encoder, standardised anew."""
    features = _features(subject, list(pictures.values()), encoder)
    scaler = ChannelScaler.fit(features, torch.arange(len(features.ids)))
    models = [replace(model, scaler=scaler) for model in subject.predictor.models]
    drawn = evidence_of(models, features, extents, subject.evidence.places)
    whole = subject.evidence
    own = whole.summed(whole.contrast(task), MOST)[rows]
    there = shown(extents, whole.side(MOST), own.shape[1])
    return agreement(own, drawn.summed(drawn.contrast(task), MOST), there)
