"""`off-topic`: images far from every other, by their features. A list to look at, never a verdict."""

from collections.abc import Callable, Iterator

import numpy as np

from samcls.audit.finding import Finding
from samcls.audit.material import Material

__all__ = ["find"]

NEIGHBOURS = 5
FAR = 5.0  # robust standard deviations of the distance's logarithm
FEWEST = 20


def find(material: Material, note: Callable[[str], None]) -> Iterator[Finding]:
    """Yield the images whose neighbours are far."""
    if material.near is None or len(material.rows) < FEWEST:
        return
    alike = material.near[1][:, :NEIGHBOURS]
    distance = np.log(np.maximum(1 - alike.mean(1), 1e-6))
    middle = np.median(distance)
    spread = 1.4826 * np.median(np.abs(distance - middle))
    if spread < 1e-6:
        note("off-topic cannot be told: all images are as far from their neighbours")
        return
    far = (distance - middle) / spread
    for at in np.flatnonzero(far > FAR).tolist():
        row = int(material.rows[at])
        told = (
            f"{material.ids[row]}: {far[at]:.1f} deviations farther from its neighbours than others"
        )
        yield material.finding("off-topic", [row], told, min(1.0, 1 - FAR / far[at] / 2))
