"""How a figure grows with the number of training images: a power law, and how far it can be trusted.

AUC(n) = a - b n^-c, with a at most 1 and b at least 0, fitted to the means of several runs at each of several
shares of the training images (Hestness et al., 2017; Figueroa et al., 2012, for classifiers of medical
texts). The fit is repeated on means drawn around those measured, for an interval that holds where the law does.

A training set has luck, whose variance falls with its size. Of nested shares of one set it has two parts, as
the mean of a sample has: the whole set's own, which lies in every share alike and lifts or lowers the whole
curve, and each run's, which is told by the spread of the runs at a share and is gone at the whole set. Seen
from the smaller shares, the whole set's figure lacks the first part; that of another set has it anew.

    law = fit_power_law([0.05, 0.1, 0.25, 0.5], 546, aucs)        # "run share"
    law.at(1092)                                                  # (0.91, (0.89, 0.93))
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

__all__ = ["FEWEST_SIZES", "PowerLaw", "fit_power_law"]

FEWEST_SIZES = 3  # shares, under which three unknowns cannot be told
EXPONENTS = np.geomspace(0.05, 2.0, 60)  # c that are tried
DRAWS = 2000
LEAST_SPREAD = 1e-4  # of runs that agree to the last digit
RESOLUTION = 0.002  # of a mean AUC, that no law holds beyond

Curves = Float[np.ndarray, "draw size"]


@dataclass(frozen=True, eq=False)
class PowerLaw:
    """A fitted law, and laws fitted to means drawn around those measured.

    Attributes:
        a: Limit for ever more images, of each draw; the first is the fit to the means themselves.
        b: What is missing of it at one image, likewise.
        c: Exponent, likewise.
        scale: Of each draw but the first, by how much the true spread may be larger than the measured one.
        trend: Slope and height of the luck's logarithm over that of the number of images.
        images: Of the whole set.
        seed: Of the draws.
    """

    a: Float[np.ndarray, " draw"]
    b: Float[np.ndarray, " draw"]
    c: Float[np.ndarray, " draw"]
    scale: Float[np.ndarray, " drawn"]
    trend: Float[np.ndarray, " 2"]
    images: float
    seed: int = 0

    def at(self, images: float, *, another: bool = True) -> tuple[float, tuple[float, float]]:
        """Return the AUC on the same test images at a number of training images, with its 95 % interval.

        Args:
            images: Number of training images.
            another: Whether they are another set; else the larger share of which the others are part.
        """
        values = self.a - self.b * float(images) ** -self.c
        generator = np.random.default_rng(self.seed + 1)
        spread = np.full(len(self.scale), RESOLUTION)
        if another:
            luck = np.exp(np.polyval(self.trend, np.log([self.images, float(images)])))
            spread = np.hypot(spread, self.scale * np.hypot(*luck))
        drawn = values[1:] + generator.normal(0, spread)
        low, high = np.percentile(drawn, [2.5, 97.5])
        return float(values[0]), (max(0.0, float(low)), min(1.0, float(high)))


def fit_power_law(
    shares: Sequence[float],
    images: float,
    values: Float[np.ndarray, "run share"],
    seed: int = 0,
) -> PowerLaw:
    """Fit the law to the means over runs.

    Args:
        shares: Of the training images, rising, above 0 and at most 1.
        images: Number of all training images.
        values: AUC of each run at each share, at least two runs; each run has drawn its own shares.
        seed: Of the draws.

    Raises:
        ValueError: where there are fewer than three shares or two runs, or fewer than two shares below 1.
    """
    runs, number = values.shape
    f = np.asarray(shares, dtype=np.float64)
    free = f < 1
    if number < FEWEST_SIZES or runs < 2 or free.sum() < FEWEST_SIZES - 1:
        raise ValueError(
            f"got {runs} runs at the shares {', '.join(f'{share:g}' for share in shares)}; a power law "
            f"needs two runs or more at {FEWEST_SIZES} shares or more"
        )
    n = f * images
    spread = np.maximum(values[:, free].std(0, ddof=1) / np.sqrt(1 - f[free]), LEAST_SPREAD)
    # One spread for all would hide that small shares scatter more; each its own is too few runs.
    trend = np.polyfit(np.log(n[free]), np.log(spread), 1)
    trend[0] = min(trend[0], 0.0)
    trend[1] = np.mean(np.log(spread)) - trend[0] * np.mean(np.log(n[free]))
    luck = np.exp(np.polyval(trend, np.log(n)))
    # Runs on the whole set differ by their seeds alone.
    seeds = np.where(free, 0.0, values.std(0, ddof=1))
    errors = np.sqrt((luck**2 * (1 - f) + seeds**2) / runs + RESOLUTION**2)
    generator = np.random.default_rng(seed)
    freedom = max(1, (runs - 1) * int(free.sum()) - 2)  # slope and height are fitted
    scale = np.sqrt(freedom / generator.chisquare(freedom, (DRAWS, 1)))
    means = values.mean(0)
    drawn = means + scale * errors * generator.normal(size=(DRAWS, number))
    a, b, c = _fit(n, np.vstack([means, drawn]), errors**-2)
    return PowerLaw(a, b, c, scale[:, 0], trend, float(images), seed)


def _fit(
    n: Float[np.ndarray, " size"], curves: Curves, weights: Float[np.ndarray, " size"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Least squares of each curve over the exponents, the rest solved in one go."""
    share = weights / weights.sum()
    best = np.full(len(curves), np.inf)
    found = [np.zeros(len(curves)) for _ in range(3)]
    middle = curves @ share
    for c in EXPONENTS:
        x = -(n**-c)  # so that the figure is a + b x
        center = share @ x
        b = np.maximum((curves * share) @ (x - center) / (share @ (x - center) ** 2), 0)
        a = middle - b * center
        # Where the limit would be above 1 it is 1, and only b is left to fit.
        held = (curves - 1) * share @ x / (share @ x**2)
        a, b = np.where(a > 1, 1.0, a), np.where(a > 1, np.maximum(held, 0), b)
        wrong = ((curves - a[:, None] - b[:, None] * x) ** 2) @ share
        better = wrong < best
        best = np.where(better, wrong, best)
        for kept, new in zip(found, (a, b, np.full(len(curves), c)), strict=True):
            kept[better] = new[better]
    return found[0], found[1], found[2]
