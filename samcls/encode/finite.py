"""Features that are not finite: whose fault it is, an image's or the run's, and what to do about it.

One such image costs its row. Where no image before it was finite, and the next, or a frame of noise, is not
either, the weights or the precision are at fault: the run stops instead of failing every row.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from samcls.errors import NotFiniteError

__all__ = ["FiniteGuard", "largest_stored", "not_finite"]

LARGEST_EXPONENT = {"float16": 15, "float32": 127}
LARGEST = {"float16": "65,504", "float32": "3.4e38"}
MANTISSA_BITS = {"float16": 10, "float32": 23}
ENOUGH = 2  # images that are not finite, before any that is, blame the run


def largest_stored(storage: str, keep_bits: int | None) -> float:
    """Return the value from which on rounding to the storage type, or to fewer bits, gives infinity."""
    bits = keep_bits or MANTISSA_BITS[storage]
    return float((2 - 2.0 ** -(bits + 1)) * 2.0 ** LARGEST_EXPONENT[storage])


def not_finite(peaks: Mapping[str, float], storage: str, precision: str, limit: float) -> str:
    """Say which level is not finite, and the remedy.

    Args:
        peaks: Largest magnitude in each level before it was stored.
        storage: Type of stored values.
        precision: Of the encoder's arithmetic.
        limit: From `largest_stored`.
    """
    level, peak = next(((k, p) for k, p in peaks.items() if not p < limit), ("", 0.0))
    if limit <= peak < float("inf"):
        return (
            f"level {level} reaches {peak:,.0f}, beyond {storage}'s {LARGEST[storage]}; extract with "
            "--storage float32 into a new store"
        )
    if precision != "float32":
        return (
            f"level {level} is not finite (NaN or infinity) in {precision} arithmetic; extract with "
            "--precision float32 into a new store"
        )
    return (
        f"level {level} is not finite (NaN or infinity) in float32 arithmetic too: the weights are at "
        "fault; name another checkpoint"
    )


@dataclass
class FiniteGuard:
    """Tells an image that is at fault from a run that is.

    Attributes:
        proven: Whether some image has been finite under these very settings.
        probe: Says whether a frame of noise gives finite features.
    """

    proven: bool
    probe: Callable[[], bool]
    _bad: int = 0

    def saw(self, finite: int, reasons: list[str]) -> None:
        """Take note of a batch's encoded images.

        Args:
            finite: How many were finite.
            reasons: Of those that were not.

        Raises:
            NotFiniteError: none was so far, and it is not this image's fault.
        """
        self.proven = self.proven or finite > 0
        self._bad += len(reasons)
        if self.proven or not reasons:
            return
        if self._bad >= ENOUGH or not self.probe():
            raise NotFiniteError(
                f"no image so far gives finite features, so none would: {reasons[0]}"
            )
