"""One parameter of a space: a list of choices, a range with a step, or a distribution.

    head = ["slca", "linear"]                          choices
    levels = [["neck"], ["early", "neck"]]             choices of lists
    hidden = {low = 0, high = 64, step = 16}           the choices 0, 16, 32, 48, 64
    dropout = {low = 0.0, high = 0.5}                  uniform
    learning_rate = {low = 1e-4, high = 3e-2, log = true}

Every value is checked by `TrainConfig` itself, of a distribution both ends: a field's range has no
holes. Drawn numbers are rounded to four significant digits, so that a row of the leaderboard can be
read, typed and run again, and does not hang on the last bit of a logarithm.
"""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from scipy.stats import loguniform, randint, uniform

from samcls.config import Config, option, parse, present_name, to_dict
from samcls.errors import ConfigError
from samcls.learn.settings import TrainConfig

__all__ = ["Axis", "Between", "Choices", "attempt", "read_axis", "read_values"]

DIGITS = 4
MOST_STEPS = 10_000  # a range that names more was meant as a distribution

T = TypeVar("T")


@dataclass(frozen=True)
class Choices:
    """Values between which to choose.

    Attributes:
        values: Distinct, as `TrainConfig` holds them.
    """

    values: tuple[Any, ...]

    @property
    def ordered(self) -> bool:
        """Whether they are numbers in rising order, so that neighbours are alike."""
        if any(isinstance(v, bool) or not isinstance(v, int | float) for v in self.values):
            return False
        return all(a < b for a, b in itertools.pairwise(self.values))

    @property
    def size(self) -> int:
        """Number of values."""
        return len(self.values)

    def rvs(self, random_state: np.random.RandomState) -> Any:
        """One of them, each as likely as another."""
        return self.values[random_state.randint(len(self.values))]


@dataclass(frozen=True)
class Between:
    """A distribution of numbers, both ends included.

    Attributes:
        low: Lowest number.
        high: Highest number.
        log: Whether the logarithm is uniform, and not the number.
        whole: Whether only whole numbers are drawn.
    """

    low: float
    high: float
    log: bool
    whole: bool

    @property
    def size(self) -> int | None:
        """Number of values; None of a continuum."""
        return int(self.high - self.low) + 1 if self.whole else None

    def rvs(self, random_state: np.random.RandomState) -> Any:
        """Return a number."""
        return self.fitted(float(self._distribution.rvs(random_state=random_state)))

    def fitted(self, value: float) -> Any:
        """Return the number as a config holds it: rounded, and between the ends."""
        rounded = round(value) if self.whole else float(f"{value:.{DIGITS}g}")
        return type(rounded)(min(max(rounded, self.low), self.high))

    @cached_property
    def _distribution(self) -> Any:
        if self.log:
            # Half a step beyond the ends, or these would be drawn half as often as their share.
            margin = 0.5 if self.whole else 0.0
            return loguniform(self.low - margin, self.high + margin)
        if self.whole:
            return randint(int(self.low), int(self.high) + 1)
        return uniform(self.low, self.high - self.low)


Axis = Choices | Between


@dataclass(frozen=True)
class _Range(Config):
    """The table `{low, high, step, log}` as it stands in a file."""

    low: float | None = None
    high: float | None = None
    step: float | None = option(None, above=0.0)
    log: bool = False


def read_axis(name: str, given: Any) -> tuple[Axis | None, list[str]]:
    """Return a parameter of the space, or a sentence for everything that is wrong with it.

    Args:
        name: A key of `TrainConfig`.
        given: What stands in the file: a list, or a table.
    """
    if isinstance(given, Mapping) and "choices" in given:
        strange = sorted(set(given) - {"choices"})
        if strange:
            return None, [f"{name}: choices stand alone; take out {', '.join(strange)}"]
        given = given["choices"]
    if isinstance(given, list):
        return _choices(name, given)
    if isinstance(given, Mapping):
        return _range(name, given)
    shown = json.dumps(given, default=str)
    expected = "a list of choices or a table {low, high}; a single value belongs under [fixed]"
    return None, [f"{name}: got {shown}, expected {expected}"]


def read_values(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Values by key as `TrainConfig` holds them, and a sentence for each that it refuses."""
    kept: dict[str, Any] = {}
    problems: list[str] = []
    for name, value in values.items():
        config, wrong = attempt(lambda n=name, v=value: parse(TrainConfig, {n: v}, ""))  # type: ignore[misc]
        problems += wrong
        if config is not None:
            now = present_name(TrainConfig, name)
            kept[now] = getattr(config, now)
    return kept, problems


def attempt(make: Callable[[], T]) -> tuple[T | None, list[str]]:
    """Return what a function makes, or the problems that its ConfigError lists, one a line."""
    try:
        return make(), []
    except ConfigError as error:
        return None, [line.strip() for line in str(error).splitlines()[1:]]


def _choices(name: str, given: list[Any]) -> tuple[Axis | None, list[str]]:
    if not given:
        return None, [f"{name}: the list of choices is empty"]
    values, problems = [], []
    for choice in given:
        kept, wrong = read_values({name: choice})
        problems += wrong
        values += list(kept.values())
    twice = [v for i, v in enumerate(values) if v in values[:i]]
    problems += [f"{name}: the choice {json.dumps(value)} is named twice" for value in twice]
    return (None, list(dict.fromkeys(problems))) if problems else (Choices(tuple(values)), [])


def _range(name: str, given: Mapping[str, Any]) -> tuple[Axis | None, list[str]]:
    table, problems = attempt(lambda: parse(_Range, given, ""))
    if table is None:
        return None, [f"{name}.{problem}" for problem in problems]
    missing = [end for end in ("low", "high") if to_dict(table)[end] is None]
    if missing:
        named = " and ".join(missing)
        return None, [f"{name}: {named} missing; expected a list of choices or {{low, high}}"]
    ends = [read_values({name: given[end]}) for end in ("low", "high")]
    problems = [line for _, wrong in ends for line in wrong]
    values = [kept[name] for kept, _ in ends if name in kept]
    problems += [] if problems else _range_problems(name, values, table)
    if problems:
        return None, list(dict.fromkeys(problems))
    if table.step is not None:
        return _steps(name, values, table.step)
    low, high = values
    return Between(float(low), float(high), table.log, isinstance(low, int)), []


def _range_problems(name: str, ends: Sequence[Any], table: _Range) -> list[str]:
    low, high = ends
    if isinstance(low, bool) or not isinstance(low, int | float):
        return [f"{name}: a range is of numbers; expected a list of choices"]
    problems = []
    if low >= high:
        problems.append(f"{name}: low is {low} and high is {high}; expected low below high")
    if table.log and low <= 0:
        problems.append(f"{name}: low is {low}; a logarithmic range lies above 0")
    if table.log and table.step is not None:
        problems.append(f"{name}: got step and log; a range has one of them")
    if isinstance(low, int) and table.step is not None and not table.step.is_integer():
        problems.append(f"{name}: got step {table.step}, expected a whole number")
    return problems


def _steps(name: str, ends: Sequence[Any], step: float) -> tuple[Axis | None, list[str]]:
    """Return the values between two ends; in decimals, so that 0.1 + 0.2 is 0.3."""
    first, last, width = (Decimal(str(value)) for value in (*ends, step))
    count = int((last - first) / width) + 1
    if count > MOST_STEPS:
        return None, [f"{name}: step {step:g} makes {count:,} values; at most {MOST_STEPS:,}"]
    return Choices(tuple(type(ends[0])(first + i * width) for i in range(count))), []
