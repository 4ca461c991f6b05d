"""How settings are laid out on an axis: which vary, where, on which scale, and in which words.

A setting is drawn for the configurations that read it: of several [[space]] tables each has its own
keys. Numbers of more than a few values lie on a scale, everything else is a category.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from samcls.config import options_of
from samcls.learn.settings import TrainConfig
from samcls.sweep.axes import Axis, Between, Choices
from samcls.sweep.leaderboard import Row
from samcls.sweep.space import Space

__all__ = [
    "Scale",
    "is_log",
    "label",
    "on_scale",
    "ordered",
    "reads",
    "round_ticks",
    "shown",
    "span",
    "varied",
    "wrapped",
]

FEW = 8  # different values up to which a number is shown as a category


class Scale:
    """A setting as a vertical axis from 0 to 1; below it, those of tables that do not vary it."""

    def __init__(self, key: str, rows: Sequence[Row], space: Space) -> None:
        self.key, self.space = key, space
        own = [row.configuration for row in rows if reads(space, row.configuration, key)]
        self.partial = len(own) < len(rows)
        values = ordered([getattr(config, key) for config in own])
        self.numeric = on_scale(key, values, space)
        self.log = self.numeric and is_log(key, values, space)
        if self.numeric:
            self.low, self.high = self._scaled(values[0]), self._scaled(values[-1])
            self.ticks = [
                ((self._scaled(v) - self.low) / (self.high - self.low), f"{v:.2g}")
                for v in round_ticks(values[0], values[-1], self.log)
            ]
        else:
            gaps = max(1, len(values) - 1)
            self.places = {v: i / gaps if len(values) > 1 else 0.5 for i, v in enumerate(values)}
            self.ticks = [(place, shown(v)) for v, place in self.places.items()]
        if self.partial:
            self.ticks.append((-0.12, "not varied"))

    def height(self, row: Row) -> float:
        """Where a configuration crosses the axis; at a category beside others, not on them."""
        # From the digest: the same in each picture, and without a draw.
        aside = 0.06 * (int(row.key[:8], 16) / 16**8 - 0.5)
        if not reads(self.space, row.configuration, self.key):
            return -0.12 + aside
        value = getattr(row.configuration, self.key)
        if not self.numeric:
            return float(self.places[value]) + aside
        return (self._scaled(value) - self.low) / (self.high - self.low)

    def _scaled(self, value: float) -> float:
        return math.log(value) if self.log else float(value)


def varied(rows: Sequence[Row], space: Space) -> list[str]:
    """Settings of which the rows have more than one value."""
    found = []
    for key in space.varied:
        own = {getattr(r.configuration, key) for r in rows if reads(space, r.configuration, key)}
        if len(own) > 1:
            found.append(key)
    return found


def reads(space: Space, config: TrainConfig, key: str) -> bool:
    """Whether a setting was varied in the table of the space that the configuration is of."""
    parts = [
        part
        for part in space.parts
        if all(_holds(axis, getattr(config, name)) for name, axis in part.items())
    ]
    # A configuration of an earlier space in the same folder is of no table: show all it has.
    return not parts or any(key in part for part in parts)


def _holds(axis: Axis, value: Any) -> bool:
    if isinstance(axis, Choices):
        return value in axis.values
    return isinstance(value, int | float) and axis.low <= value <= axis.high


def ordered(values: Sequence[Any]) -> list[Any]:
    """Different values: numbers rising, an unset one first, texts in alphabetical order."""
    unique = list(dict.fromkeys(values))
    try:
        return sorted(unique, key=lambda v: (v is not None, v if v is not None else 0))
    except TypeError:
        return sorted(unique, key=str)


def on_scale(key: str, values: Sequence[Any], space: Space) -> bool:
    """Whether the values are numbers that were drawn, or too many to be categories."""
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    drawn = any(isinstance(part.get(key), Between) for part in space.parts)
    return numbers and len(values) > 1 and (drawn or len(values) > FEW)


def is_log(key: str, values: Sequence[Any], space: Space) -> bool:
    """Whether numbers lie on a logarithmic scale: as they were drawn, and where none is 0."""
    return key in space.logarithmic and min(values) > 0


def span(values: np.ndarray) -> tuple[float, float]:
    """Lowest and highest of some numbers, apart also where all are equal."""
    low, high = float(values.min()), float(values.max())
    return (low, high) if high > low else (low - 0.01, high + 0.01)


def round_ticks(low: float, high: float, log: bool) -> list[float]:
    """Some five readable numbers from low to high, ends included."""
    middle = np.geomspace(low, high, 5) if log else np.linspace(low, high, 5)
    rounded = [float(f"{value:.1g}") if log else float(f"{value:.2g}") for value in middle]
    inner = [value for value in rounded[1:-1] if low < value < high]
    return list(dict.fromkeys([low, *inner, high]))


def label(key: str) -> str:
    """A setting's name with its unit."""
    unit, name = options_of(TrainConfig)[key].unit, key.replace("_", " ")
    return f"{name} ({unit})" if unit else name


def wrapped(key: str) -> str:
    """The same on two lines."""
    name = label(key)
    return name.replace(" (", "\n(") if "(" in name else name.replace(" ", "\n", 1)


def shown(value: Any) -> str:
    """A value in few characters."""
    if value is None:
        return "unset"
    if isinstance(value, tuple):
        return " +\n".join(str(v) for v in value) or "all"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value).replace("_", " ")
