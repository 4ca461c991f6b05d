"""How alike two pictures are at their best: turned, mirrored, cropped, brightened or compressed again.

Both are small grey copies from which broad shading is taken and whose contrast is the same everywhere, so that
brightness says nothing and one dark spot is not the whole picture. The
similarity is the correlation under the best of the eight symmetries of a square and, of either picture, of crops
that lose up to a tenth of its sides. Candidates are the nearest by a description that no symmetry changes: the
magnitudes of the cosine transform, (u, v) and (v, u) together.

    pairs, _ = nearest_pairs(unit(described(thumbs)), 16)
    similarity = aligned(thumbs, pairs)
"""

from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8
from scipy.ndimage import gaussian_filter

from samcls.views import VIEWS, symmetry

__all__ = ["aligned", "described"]

FREQUENCIES = 10  # along either side
BROAD = 5.0  # pixels of a thumb: what is broader is shading
FINE = 0.6
QUIET = 4.0  # grey levels of 255: contrast that is not raised
CROPS = (0.05, 0.1)  # share of the sides that is lost
STEPS = (0.0, 0.5, 1.0)  # where a crop begins, as a share of what is lost
STEPS_OF_FIT = 3
FARTHEST = 2.0  # pixels of a thumb that a step may go
LARGEST = 0.15  # share of a side that a crop may lose
CROPPED = tuple(  # whether the second picture is cut, the share lost, and where the crop begins
    (second, share, down, across)
    for second in (False, True)
    for share in CROPS
    for down in STEPS
    for across in STEPS
)
LOOKED_INTO = 0.5  # correlation below which no crop makes twins of two pictures
CLOSE = 0.8  # at half the resolution, from which the whole one decides
BLOCK = 512  # pairs at once
THREADS = 2

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

    def block(start: int) -> Float[np.ndarray, " part"]:
        part = pairs[start : start + BLOCK]
        similarity, views = _turned_best(coarse, part)
        again = np.flatnonzero(similarity > LOOKED_INTO)
        first, second = _shown(coarse, part[again], views[again])
        similarity[again], crops = _best_crop(first, second)
        close = np.flatnonzero(similarity[again] > CLOSE)
        first, second = _shown(fine, part[again[close]], views[again[close]])
        similarity[again[close]] = _registered(first, second, crops[close])
        return similarity

    with ThreadPoolExecutor(THREADS, thread_name_prefix="aligned") as pool:
        parts = list(pool.map(block, range(0, len(pairs), BLOCK)))
    found: np.ndarray = np.concatenate([np.zeros(0, np.float32), *parts])
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


def _registered(
    one: Pairs, other: Pairs, crops: Int[np.ndarray, " pair"]
) -> Float[np.ndarray, " pair"]:
    """Return the correlation of the whole pictures, or of the crop that is moved and scaled until it fits best.

    Gauss-Newton steps on where a crop begins and how long it is, along either side, beside gain and offset.
    """
    best = _correlation(one, other)
    here = np.flatnonzero(crops > 0)
    if not len(here):
        return best
    second, share, down, across = np.array(CROPPED)[crops[here] - 1].T
    turned = second.astype(bool)[:, None, None]
    cut = np.where(turned, other[here], one[here])
    whole = _standard(np.where(turned, one[here], other[here]))
    side = cut.shape[1]
    place = np.stack([(side * share * step, 1 - share) for step in (down, across)])
    along = (np.arange(side) + 0.5) / side - 0.5
    for step in range(STEPS_OF_FIT + 1):
        rows, columns = (_sampling(side, *one_side) for one_side in place)
        part = rows @ cut @ columns.transpose(0, 2, 1)
        best[here] = np.maximum(best[here], _correlation(part, whole))
        if step < STEPS_OF_FIT:
            slopes = [np.gradient(part, axis=1), np.gradient(part, axis=2)]
            fields = [part, slopes[0], slopes[0] * along[:, None], slopes[1], slopes[1] * along]
            place = _moved(place, _fitted(np.stack(fields, 1), whole), side)
    return best


def _fitted(
    fields: Float[np.ndarray, "pair field row col"], whole: Pairs
) -> Float[np.ndarray, "pair 4"]:
    """Return how many pixels each side of the crop should begin later and be longer."""
    flat = fields.reshape(*fields.shape[:2], -1)
    flat = flat - flat.mean(2, keepdims=True)
    products = flat @ flat.transpose(0, 2, 1)
    ridge = 1e-4 * np.trace(products, axis1=1, axis2=2)[:, None, None] * np.eye(flat.shape[1])
    target = flat @ whole.reshape(len(whole), -1, 1)
    gain, *moves = np.linalg.solve(products + ridge + 1e-9 * np.eye(flat.shape[1]), target).T[0]
    found: np.ndarray = np.stack(moves, 1) / np.where(gain > 1e-6, gain, np.inf)[:, None]
    return found


def _moved(
    place: Float[np.ndarray, "axis 2 pair"], moves: Float[np.ndarray, "pair 4"], side: int
) -> Float[np.ndarray, "axis 2 pair"]:
    """Return beginning (pixels) and length (share) of each crop after a step, inside the picture."""
    later, longer = np.clip(moves, -FARTHEST, FARTHEST).reshape(-1, 2, 2).transpose(2, 1, 0)
    length = np.clip(place[:, 1] * (1 + longer / side), 1 - LARGEST, 1)
    centre = place[:, 0] + later * place[:, 1] + place[:, 1] * side / 2
    begins = np.clip(centre - length * side / 2, 0, (1 - length) * side)
    return np.stack([begins, length], 1)


def _sampling(
    side: int, begins: Float[np.ndarray, " pair"], length: Float[np.ndarray, " pair"]
) -> Float[np.ndarray, "pair side side"]:
    """Return what interpolates linearly at the centres of `side` cells of a part of a side."""
    at = begins[:, None] + (np.arange(side) + 0.5) * length[:, None] - 0.5
    found: np.ndarray = np.maximum(
        0, 1 - np.abs(np.clip(at, 0, side - 1)[:, :, None] - np.arange(side))
    ).astype(np.float32)
    return found


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
    """Interpolation of a part of the side that loses a share of it."""
    found: np.ndarray = _sampling(side, np.array([share * step * side]), np.array([1 - share]))[0]
    return found


@cache
def _cosines(side: int, count: int) -> Float[np.ndarray, "count side"]:
    """Orthonormal cosines, DCT-II."""
    waves = np.cos(np.pi * np.outer(np.arange(count), np.arange(side) + 0.5) / side)
    waves *= np.sqrt(2 / side)
    waves[0] /= np.sqrt(2)
    found: np.ndarray = waves.astype(np.float32)
    return found


def _unshaded(thumbs: Shaped[np.ndarray, "_image side side"]) -> Maps:
    """Take broad shading away and bring what is left to one contrast everywhere, so that skin counts like a lesion."""
    values = thumbs.astype(np.float32)
    found: np.ndarray = _smooth(values, FINE) - _smooth(values, BROAD)
    found /= np.sqrt(_smooth(found**2, BROAD) + QUIET**2)
    return found


def _smooth(values: Maps, width: float) -> Maps:
    found: np.ndarray = gaussian_filter(values, (0, width, width), mode="nearest")
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
