"""How settings are laid out on an axis: which vary, where, on which scale, and in which words.

A setting is drawn for the configurations that read it: of several [[space]] tables each has its own
keys. Numbers of more than a few values lie on a scale, everything else is a category.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from samcls.config import options_of
from samcls.learn.settings import TrainConfig
from samcls.sweep.axes import Axis, Between, Choices
from samcls.sweep.leaderboard import Row
from samcls.sweep.space import Space

__all__ = [
    "is_log",
    "label",
    "on_scale",
    "ordered",
    "reads",
    "round_ticks",
    "shown",
    "varied",
]

FEW = 8  # different values up to which a number is shown as a category


def varied(rows: Sequence[Row], space: Space) -> list[str]:
    """Return settings of which the rows have more than one value."""
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


def round_ticks(low: float, high: float, log: bool) -> list[float]:
    """Return some five readable numbers from low to high, ends included."""
    middle = np.geomspace(low, high, 5) if log else np.linspace(low, high, 5)
    rounded = [float(f"{value:.1g}") if log else float(f"{value:.2g}") for value in middle]
    inner = [value for value in rounded[1:-1] if low < value < high]
    return list(dict.fromkeys([low, *inner, high]))


def label(key: str) -> str:
    """Return a setting's name with its unit."""
    unit, name = options_of(TrainConfig)[key].unit, key.replace("_", " ")
    return f"{name} ({unit})" if unit else name


def shown(value: Any) -> str:
    """Return a value in few characters."""
    if value is None:
        return "unset"
    if isinstance(value, tuple):
        return " +\n".join(str(v) for v in value) or "all"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value).replace("_", " ")
