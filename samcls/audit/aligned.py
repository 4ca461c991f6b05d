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
LOOKED_INTO = 0.5  # correlation below which no crop makes twins of two pictures
CLOSE = 0.8  # at half the resolution, from which the whole one decides
BLOCK = 4096  # pairs at once

Thumbs = UInt8[np.ndarray, "image side side"]
Maps = Float[np.ndarray, "_image side side"]


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
        _cropped_best(coarse, part, views, similarity, np.flatnonzero(similarity > LOOKED_INTO))
        close = np.flatnonzero(similarity > CLOSE)
        similarity[close] = -1.0
        _cropped_best(fine, part, views, similarity, close)
        found[start : start + BLOCK] = similarity
    return found


def _turned_best(
    maps: Maps, pairs: Int[np.ndarray, "pair 2"]
) -> tuple[Float[np.ndarray, " pair"], Int[np.ndarray, " pair"]]:
    """Return the correlation under the best symmetry of the second picture, and which that is."""
    one, other = maps[pairs[:, 0]], maps[pairs[:, 1]]
    by_view = np.stack([_correlation(one, _turned(other, view)) for view in VIEWS], axis=1)
    return by_view.max(1), by_view.argmax(1)


def _cropped_best(
    maps: Maps,
    pairs: Int[np.ndarray, "pair 2"],
    views: Int[np.ndarray, " pair"],
    similarity: Float[np.ndarray, " pair"],
    places: Int[np.ndarray, " place"],
) -> None:
    """Raise the similarity of the pairs at some places to that of the whole pictures or of their best crop."""
    if not len(places):
        return
    one = maps[pairs[places, 0]]
    other = maps[pairs[places, 1]]
    for number, view in enumerate(VIEWS):
        here = views[places] == number
        other[here] = _turned(other[here], view)
    top = np.maximum(similarity[places], _correlation(one, other))
    for cut, whole in ((one, other), (other, one)):
        steady = _standard(whole).reshape(len(whole), -1) / whole[0].size
        for rows, cols in _crops(maps.shape[1]):
            part = (rows @ cut @ cols.T).reshape(len(cut), -1)
            top = np.maximum(top, _with_standard(part, steady))
    similarity[places] = top


def _halved(thumbs: Thumbs) -> Float[np.ndarray, "image half half"]:
    count, side = thumbs.shape[:2]
    found: np.ndarray = thumbs.reshape(count, side // 2, 2, side // 2, 2).mean((2, 4), np.float32)
    return found


def _with_standard(
    part: Float[np.ndarray, "_image pixel"], steady: Float[np.ndarray, "_image pixel"]
) -> Float[np.ndarray, " _image"]:
    """Correlation with what is of mean 0 and deviation 1, over its number of pixels."""
    along = np.einsum("ij,ij->i", part, steady)
    spread = np.einsum("ij,ij->i", part, part) / part.shape[1] - part.mean(1) ** 2
    found: np.ndarray = along / np.sqrt(np.where(spread > 1e-6, spread, np.inf))
    return found


@cache
def _crops(side: int) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Matrices that bring a part of the rows, and of the columns, to the whole side."""
    parts = {
        (share, step): _part(side, share * step * side, (1 - share) * side)
        for share in CROPS
        for step in STEPS
    }
    return tuple(
        (parts[share, down], parts[share, across])
        for share in CROPS
        for down in STEPS
        for across in STEPS
    )


def _part(side: int, start: float, length: float) -> Float[np.ndarray, "side side"]:
    """Linear interpolation at the centres of `side` cells from `start` on."""
    at = np.clip(start + (np.arange(side) + 0.5) * length / side - 0.5, 0, side - 1)
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
