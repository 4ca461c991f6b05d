"""Figures of repeated divisions of the same images: their mean, and how far it can be trusted.

Divisions share most of their training images, so their figures vary together; taken for independent
ones, differences of nothing are called significant far too often. Nadeau and Bengio (2003) add the share of
tested to training images to the variance of the mean.

    corrected_mean(differences, train=400, test=100)["p"]
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import t

__all__ = ["corrected_mean"]


def corrected_mean(values: Sequence[float], train: float, test: float) -> dict[str, Any]:
    """Mean of a figure, or of a difference, over divisions of the same images, with the corrected t test.

    Args:
        values: One for each division.
        train: Images that each learned from, on the mean.
        test: Images that each was tested on, on the mean.

    Returns:
        `mean`, its 95 % `interval`, the two-sided `p` of a mean of 0, and `divisions`. Interval and p
        are None for fewer than two divisions.

    Raises:
        ValueError: there are no values.
    """
    if not len(values):
        raise ValueError("there are no values; expected one for each division")
    found = np.asarray(values, dtype=np.float64)
    number, mean = len(found), float(found.mean())
    told: dict[str, Any] = {"mean": mean, "interval": None, "p": None, "divisions": number}
    if number < 2:
        return told
    error = math.sqrt((1 / number + test / train) * float(found.var(ddof=1)))
    reach = error * float(t.ppf(0.975, number - 1))
    told["interval"] = [mean - reach, mean + reach]
    told["p"] = float(2 * t.sf(abs(mean) / error, number - 1)) if error else float(mean == 0)
    return told
