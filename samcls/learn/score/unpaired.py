"""Differences of figures between two sets of images that have none in common.

Each set's interval says how far its figure may be off to either side; the difference's follows from both, by the
method of variance estimates recovery (Newcombe 1998; Zou and Donner 2008). Nothing is resampled anew.

    differences(outside, inside)["auc"]          # {"difference": -0.04, "interval": [-0.09, 0.01]}
"""

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["differences"]


def differences(
    first: Mapping[str, Any], second: Mapping[str, Any], names: tuple[str, ...]
) -> dict[str, dict[str, Any]]:
    """Return each figure's difference, first - second, with its 95 % interval where both have one.

    Args:
        first: Table of figures, as `scoring.score` gives it.
        second: Of the other images.
        names: Figures to compare; those that either does not define are left out.
    """
    found = {}
    for name in names:
        a, b = first.get(name), second.get(name)
        if a is None or b is None:
            continue
        one, other = first.get(f"{name}_interval"), second.get(f"{name}_interval")
        interval = None
        if one is not None and other is not None:
            low = a - b - math.hypot(a - one[0], other[1] - b)
            high = a - b + math.hypot(one[1] - a, b - other[0])
            interval = [low, high]
        found[name] = {"difference": a - b, "interval": interval}
    return found
