"""From which similarity on two images are called twins: told by the user's own images.

What strangers look like is said by the similarity of every image to its sixth nearest, since nearer ones may be
twins: of those, what one in two hundred exceeds, or what is 4.5 robust deviations from their middle if that is less, since
larger sets of twins are no strangers; and beyond that by as much as the nearest of an image commonly goes
beyond its sixth (in Fisher's z). Images that surely have a twin say nothing of strangers. What twins look like is said by
up to 64 images and their own copies (JPEG of quality 70, 5 % cropped, brightened by a fifth; turned and mirrored
copies are the same by construction) or, of features alone, their stored views: however alike strangers are, no more
than half of these may be missed, and the share that is found stands in the sentence.

    found = threshold_of(strangers, own)
    found.value, found.sentence
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8

from samcls.audit.aligned import aligned
from samcls.audit.looks import thumb_of
from samcls.data.images import jpeg_copy

__all__ = ["Threshold", "own_copies", "ranked", "threshold_of"]

SAMPLE = 64
QUALITY, CROP, LIGHT = 70, 0.05, 1.2
RANK = 6  # of the neighbour that is taken for a stranger
TAIL = 99.5  # per cent
MOST = 0.995
ALARM, SPREAD = (
    4.5,
    1.4826,
)  # robust standard deviations, and what makes them of the median distance
MISSED = 50  # per cent of own copies that the threshold may miss

Picture = UInt8[np.ndarray, "row col 3"]


@dataclass(frozen=True)
class Threshold:
    """What twins are from.

    Attributes:
        value: Similarity.
        power: Share of own copies that are at least so similar; nan where there are none.
        sentence: How it came about.
    """

    value: float
    power: float
    sentence: str


def own_copies(
    read: Callable[[int], Picture], rows: Int[np.ndarray, " row"]
) -> Float[np.ndarray, "image copy"]:
    """Return the similarity of some images to their own copies: compressed, cropped, brightened."""
    found: list[np.ndarray] = []
    if not len(rows):
        return np.zeros((0, 3), np.float32)
    for row in rows[
        np.linspace(0, len(rows) - 1, min(SAMPLE, len(rows))).astype(np.int64)
    ].tolist():
        image = read(row)
        height, width = (max(1, round(side * (1 - CROP))) for side in image.shape[:2])
        top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 3
        copies = [
            jpeg_copy(image, QUALITY),
            image[top : top + height, left : left + width],
            np.clip(image * LIGHT, 0, 255).astype(np.uint8),
        ]
        thumbs = np.stack([thumb_of(one) for one in (image, *copies)])
        found.append(aligned(thumbs, np.array([[0, 1], [0, 2], [0, 3]])))
    return np.array(found).reshape(-1, 3)


def threshold_of(
    strangers: Float[np.ndarray, "image 2"], own: Float[np.ndarray, "own copy"] | None, least: float
) -> Threshold:
    """Choose the threshold.

    Args:
        strangers: Similarity of each image to its nearest and to its `RANK`th nearest.
        own: Of some images to their own copies or views; None where there are none.
        least: What a threshold is at least.
    """
    some = None if own is None or not own.size else own
    sure = MOST if some is None else min(MOST, float(np.percentile(some, MISSED)))
    alone = strangers[strangers[:, 0] < sure]
    nearest, far = np.arctanh(np.clip(alone if len(alone) else strangers, -0.9999, 0.9999)).T
    middle = float(np.median(far))
    farthest = middle + ALARM * SPREAD * float(np.median(np.abs(far - middle)))
    reach = min(float(np.percentile(far, TAIL)), farthest)
    bound = float(np.tanh(reach + np.median(nearest - far)))
    value = float(np.clip(min(bound, sure), least, MOST))
    told = f"twins are from similarity {value:.3f} on: "
    if some is None:
        return Threshold(value, float("nan"), f"{told}strangers reach {bound:.3f}")
    power = float((some >= value).mean())
    return Threshold(
        value,
        power,
        f"{told}{100 * power:.0f} % of some images' own copies reach it, and strangers reach {bound:.3f}",
    )


def ranked(
    pairs: Int[np.ndarray, "pair 2"], similarity: Float[np.ndarray, " pair"], count: int
) -> Float[np.ndarray, "image 2"]:
    """Return the similarity of each of `count` images to its nearest and its `RANK`th, or its farthest of fewer."""
    rows = pairs.T.reshape(-1)
    values = np.concatenate([similarity, similarity])
    order = np.lexsort((-values, rows))
    starts = np.searchsorted(rows[order], np.arange(count))
    ends = np.searchsorted(rows[order], np.arange(count), side="right")
    at = np.minimum(starts + RANK - 1, ends - 1)
    found: np.ndarray = values[order][np.stack([starts, at], 1)[ends > starts]]
    return found
