"""How alike two pictures are at their best: turned, mirrored, cropped, brightened or compressed again.

Both are small grey copies from which broad shading is taken, so that brightness and contrast say nothing. The
similarity is the correlation under the best of the eight symmetries of a square and, of either picture, of crops
that lose up to a tenth of its sides. Candidates are the nearest by a description that no symmetry changes: the
magnitudes of the cosine transform, (u, v) and (v, u) together.

    pairs = pairs_of(nearest(unit(described(thumbs)), 16)[0])
    similarity = aligned(thumbs, pairs)
"""

from functools import cache

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8
from scipy.ndimage import gaussian_filter

from samcls.views import VIEWS, symmetry

__all__ = ["aligned", "described"]

FREQUENCIES = 10  # along either side
BROAD = 5.0  # pixels of a thumb: what is broader is shading
FINE = 0.6
CROPS = (0.05, 0.1)  # share of the sides that is lost
STEPS = (0.0, 0.5, 1.0)  # where a crop begins, as a share of what is lost
NEAR = 0.25  # how far about the best of these is looked
CROPPED = tuple(  # whether the second picture is cut, the share lost, and where the crop begins
    (second, share, down, across)
    for second in (False, True)
    for share in CROPS
    for down in STEPS
    for across in STEPS
)
LOOKED_INTO = 0.5  # correlation below which no crop makes twins of two pictures
CLOSE = 0.8  # at half the resolution, from which the whole one decides
BLOCK = 4096  # pairs at once

Thumbs = UInt8[np.ndarray, "image side side"]
Maps = Float[np.ndarray, "_image side side"]
Pairs = Float[np.ndarray, "pair side side"]


def described(thumbs: Thumbs) -> Float[np.ndarray, "image number"]:
    """Return what no symmetry of the square changes of each picture, each number in standard deviations."""
    seen = _standard(thumbs.astype(np.float32))
    basis = _cosines(thumbs.shape[1], FREQUENCIES)
    waves = np.abs(basis @ seen @ basis.T)
    both = waves + waves.transpose(0, 2, 1)
    upper = np.triu_indices(FREQUENCIES)
    numbers = np.log(both[:, upper[0], upper[1]][:, 1:] + 0.05)  # the first is the mean
    deviation = numbers.std(0)
    centred = numbers - numbers.mean(0)
    found: np.ndarray = centred / np.where(deviation > 0, deviation, 1)
    return found


def aligned(thumbs: Thumbs, pairs: Int[np.ndarray, "pair 2"]) -> Float[np.ndarray, " pair"]:
    """Return the similarity of each pair, -1..1; a blank picture is like no other.

    Pairs that are unlike at half the resolution are not looked at more closely, and keep that similarity.
    """
    fine = _unshaded(thumbs)
    coarse = _unshaded(_halved(thumbs))
    found = np.zeros(len(pairs), np.float32)
    for start in range(0, len(pairs), BLOCK):
        part = pairs[start : start + BLOCK]
        similarity, views = _turned_best(coarse, part)
        again = np.flatnonzero(similarity > LOOKED_INTO)
        first, second = _shown(coarse, part[again], views[again])
        similarity[again], crops = _best_crop(first, second)
        close = np.flatnonzero(similarity[again] > CLOSE)
        first, second = _shown(fine, part[again[close]], views[again[close]])
        similarity[again[close]] = _around(first, second, crops[close])
        found[start : start + BLOCK] = similarity
    return found


def _turned_best(
    maps: Maps, pairs: Int[np.ndarray, "pair 2"]
) -> tuple[Float[np.ndarray, " pair"], Int[np.ndarray, " pair"]]:
    """Return the correlation under the best symmetry of the second picture, and which that is."""
    one, other = maps[pairs[:, 0]], maps[pairs[:, 1]]
    by_view = np.stack([_correlation(one, _turned(other, view)) for view in VIEWS], axis=1)
    return by_view.max(1), by_view.argmax(1)


def _shown(
    maps: Maps, pairs: Int[np.ndarray, "pair 2"], views: Int[np.ndarray, " pair"]
) -> tuple[Pairs, Pairs]:
    """Return the first and the second picture of each pair, the second as a view shows it."""
    one, other = maps[pairs[:, 0]], maps[pairs[:, 1]]
    for number, view in enumerate(VIEWS):
        here = views == number
        other[here] = _turned(other[here], view)
    return one, other


def _best_crop(
    one: Pairs, other: Pairs
) -> tuple[Float[np.ndarray, " pair"], Int[np.ndarray, " pair"]]:
    """Return the correlation of the whole pictures or of their best crop, and which of `CROPPED` that is."""
    best, which = _correlation(one, other), np.zeros(len(one), dtype=np.int64)
    standard = [_steady(other), _steady(one)]
    for number, (second, *crop) in enumerate(CROPPED, start=1):
        similarity = _cropped(other if second else one, standard[second], *crop)
        better = similarity > best
        best[better], which[better] = similarity[better], number
    return best, which


def _around(
    one: Pairs, other: Pairs, crops: Int[np.ndarray, " pair"]
) -> Float[np.ndarray, " pair"]:
    """Return the correlation of the whole pictures, or of crops about the one that was best."""
    best = _correlation(one, other)
    for number in np.unique(crops[crops > 0]).tolist():
        here = np.flatnonzero(crops == number)
        second, share, down, across = CROPPED[number - 1]
        cut, whole = (other, one) if second else (one, other)
        steady = _steady(whole[here])
        for i in (-NEAR, 0.0, NEAR):
            for j in (-NEAR, 0.0, NEAR):
                at = (min(max(down + i, 0.0), 1.0), min(max(across + j, 0.0), 1.0))
                best[here] = np.maximum(best[here], _cropped(cut[here], steady, share, *at))
    return best


def _cropped(
    cut: Pairs, steady: Float[np.ndarray, "pair pixel"], share: float, down: float, across: float
) -> Float[np.ndarray, " pair"]:
    """Correlate a crop, brought to the whole side, with what is of mean 0 and deviation 1, over its pixels."""
    side = cut.shape[1]
    part = _part(side, share, down) @ cut @ _part(side, share, across).T
    flat = part.reshape(len(cut), part.shape[1] * part.shape[2])
    along = np.einsum("ij,ij->i", flat, steady)
    spread = np.einsum("ij,ij->i", flat, flat) / flat.shape[1] - flat.mean(1) ** 2
    found: np.ndarray = along / np.sqrt(np.where(spread > 1e-6, spread, np.inf))
    return found


def _steady(whole: Pairs) -> Float[np.ndarray, "pair pixel"]:
    pixels = whole.shape[1] * whole.shape[2]
    found: np.ndarray = _standard(whole).reshape(len(whole), pixels) / pixels
    return found


def _halved(thumbs: Thumbs) -> Float[np.ndarray, "image half half"]:
    count, side = thumbs.shape[:2]
    found: np.ndarray = thumbs.reshape(count, side // 2, 2, side // 2, 2).mean((2, 4), np.float32)
    return found


@cache
def _part(side: int, share: float, step: float) -> Float[np.ndarray, "_side _side"]:
    """Linear interpolation at the centres of the cells of a part of the side that loses a share of it."""
    length = (1 - share) * side
    at = share * step * side + (np.arange(side) + 0.5) * length / side - 0.5
    at = np.clip(at, 0, side - 1)
    low = np.minimum(at.astype(int), side - 2)
    weights = np.zeros((side, side), np.float32)
    weights[np.arange(side), low] = 1 - (at - low)
    weights[np.arange(side), low + 1] = at - low
    return weights


@cache
def _cosines(side: int, count: int) -> Float[np.ndarray, "count side"]:
    """Orthonormal cosines, DCT-II."""
    waves = np.cos(np.pi * np.outer(np.arange(count), np.arange(side) + 0.5) / side)
    waves *= np.sqrt(2 / side)
    waves[0] /= np.sqrt(2)
    found: np.ndarray = waves.astype(np.float32)
    return found


def _unshaded(thumbs: Shaped[np.ndarray, "_image side side"]) -> Maps:
    values = thumbs.astype(np.float32)
    fine = gaussian_filter(values, (0, FINE, FINE), mode="nearest")
    found: np.ndarray = fine - gaussian_filter(values, (0, BROAD, BROAD), mode="nearest")
    return found


def _standard(values: Maps) -> Maps:
    centred = values - values.mean((1, 2), keepdims=True)
    deviation = centred.std((1, 2), keepdims=True)
    found: np.ndarray = centred / np.where(deviation > 0, deviation, 1)
    return found


def _turned(maps: Maps, view: str) -> Maps:
    turns, mirrored = symmetry(view)
    seen = maps[:, :, ::-1] if mirrored else maps
    found: np.ndarray = np.rot90(seen, turns, (1, 2))
    return found


def _correlation(one: Maps, other: Maps) -> Float[np.ndarray, " _image"]:
    a = one - one.mean((1, 2), keepdims=True)
    b = other - other.mean((1, 2), keepdims=True)
    length = np.sqrt((a * a).sum((1, 2)) * (b * b).sum((1, 2)))
    found: np.ndarray = (a * b).sum((1, 2)) / np.where(length > 0, length, np.inf)
    return found
