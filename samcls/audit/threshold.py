"""From which similarity on two images are called twins: told by the user's own images.

Of up to 64 images, the similarity to their own copies (JPEG of quality 70, 5 % cropped, brightened by a fifth)
says what twins look like; turned and mirrored copies are the same by construction. The similarity of every image
to its nearest other says what strangers look like: in Fisher's z their bulk is near to normal, and what one
stranger of a thousand exceeds is the least that is called twins.

    found = threshold_of(best, own)
    found.value, found.sentence
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8

from samcls.audit.aligned import aligned
from samcls.audit.looks import thumb_of
from samcls.data.images import jpeg_copy

__all__ = ["Threshold", "own_copies", "threshold_of"]

SAMPLE = 64
QUALITY, CROP, LIGHT = 70, 0.05, 1.2
ALARM = 3.09  # standard deviations: one stranger of a thousand
LEAST, MOST = 0.8, 0.995
MISSED = 5  # per cent of own copies that a threshold may miss where strangers leave the choice

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
    found = []
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
    best: Float[np.ndarray, " image"], own: Float[np.ndarray, "own copy"] | None
) -> Threshold:
    """Choose the threshold.

    Args:
        best: Similarity of each image to its nearest other.
        own: As `own_copies` gives them; None where there are no pictures.
    """
    z = np.arctanh(np.clip(best, -0.9999, 0.9999))
    middle = float(np.median(z))
    spread = 1.4826 * float(np.median(np.abs(z - middle)))
    strangers = float(np.tanh(middle + ALARM * spread))
    told = f"what one stranger of a thousand exceeds is {strangers:.3f}"
    if own is None or not own.size:
        value = float(np.clip(strangers, LEAST, MOST))
        return Threshold(value, float("nan"), f"twins are from similarity {value:.3f} on: {told}")
    copies = float(np.percentile(own, MISSED))
    value = float(np.clip(max(strangers, min(copies, MOST)), LEAST, MOST))
    # Many true twins widen the strangers' bulk; own copies then say how far that may go.
    value = min(value, max(copies, LEAST))
    power = float((own >= value).mean())
    return Threshold(
        value,
        power,
        f"twins are from similarity {value:.3f} on: {100 * power:.0f} % of own copies (JPEG {QUALITY}, "
        f"{100 * CROP:.0f} % cropped, {LIGHT} times as bright) reach it, and {told}",
    )
