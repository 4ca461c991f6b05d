"""What a sweep runs: configurations drawn from a space, each with its seeds, folds and shares.

    for trial in load_space("space.toml").trials():
        trial.key, trial.members

Nothing here depends on what the runs find.
"""

import itertools
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from sklearn.model_selection import ParameterGrid, ParameterSampler

from samcls.config import defaults_of, digest, options_of
from samcls.errors import ConfigError
from samcls.learn.heads.registry import learns_order
from samcls.learn.settings import TrainConfig
from samcls.sweep.axes import Axis, Between, Choices, attempt

__all__ = ["Search", "Space", "Trial", "neutral"]

Search = Literal["grid", "random", "halving", "tpe"]

STALE = 1000  # draws without a new configuration before a space is taken to be used up


@dataclass(frozen=True)
class Trial:
    """One configuration and its runs.

    Attributes:
        configuration: As `neutral` gives it: the first seed, no fold, the whole training split.
        members: A config for each training share, seed and fold.
    """

    configuration: TrainConfig
    members: tuple[TrainConfig, ...]

    @property
    def key(self) -> str:
        """Digest of the configuration."""
        return digest(self.configuration)


@dataclass(frozen=True)
class Space:
    """What a sweep runs; made by `load_space`.

    Attributes:
        name: What the file calls it.
        search: How configurations are found: a name of `search.STRATEGIES`.
        runs: Number of configurations; 0 under grid search.
        seed: Of the draw.
        seeds: Seeds of every configuration.
        folds: Folds of every configuration; 0 keeps the stored splits.
        nested: Whether each fold's configuration is chosen without a look at that fold.
        fractions: Shares of the training split, rising; (1.0,) where the file names none.
        fixed: Values that all configurations share.
        parts: A table of axes for each [space] or [[space]].
        factor: Of halving: one in so many goes on, with so many times the epochs.
        min_epochs: Of halving: epochs of the first round.
        batch: Of tpe: configurations proposed at a time.
        text: The file as given.
        ordinal: Tasks that the store, or the file of labels, declares as ordered.
    """

    name: str
    search: str
    runs: int
    seed: int
    seeds: int
    folds: int
    nested: bool
    fractions: tuple[float, ...]
    fixed: Mapping[str, Any]
    parts: tuple[Mapping[str, Axis], ...]
    factor: int
    min_epochs: int
    batch: int
    text: str
    ordinal: tuple[str, ...] = ()

    @property
    def first_seed(self) -> int:
        """Seed of every configuration's first run."""
        return self.base.seed

    @cached_property
    def base(self) -> TrainConfig:
        """The fixed values, and defaults for all others."""
        return TrainConfig(**self.fixed)

    @property
    def varied(self) -> tuple[str, ...]:
        """Keys that differ between configurations, in the file's order."""
        return tuple(dict.fromkeys(name for part in self.parts for name in part))

    def varied_for(self, head: str) -> frozenset[str]:
        """Keys that differ between configurations of one head."""
        parts = [(part.get("head"), part) for part in self.parts]
        return frozenset(
            name
            for heads, part in parts
            if not isinstance(heads, Choices) or head in heads.values
            for name in part
        )

    @property
    def logarithmic(self) -> frozenset[str]:
        """Varied keys that are drawn on a logarithmic scale."""
        return frozenset(
            name
            for part in self.parts
            for name, axis in part.items()
            if isinstance(axis, Between) and axis.log
        )

    @property
    def size(self) -> int | None:
        """Number of different configurations; None where there is a continuum of them."""
        sizes = [[axis.size for axis in part.values()] for part in self.parts]
        total = 0
        for part in sizes:
            product = 1
            for size in part:
                if size is None:
                    return None
                product *= size
            total += product
        return total

    @property
    def members(self) -> int:
        """Runs of every configuration."""
        return len(self.fractions) * self.seeds * max(1, self.folds)

    def configurations(self) -> tuple[TrainConfig, ...]:
        """Return the configurations known before anything has run; none under tpe.

        A random draw with a higher `runs` begins with the same configurations. Duplicates are
        dropped; a finite space can hold fewer than `runs`.

        Raises:
            ConfigError: with everything that `TrainConfig` refuses of what was drawn.
        """
        if self.search == "tpe":
            return ()
        drawn = self._grid() if self.search == "grid" else self._sample()
        made = [attempt(lambda v=values: self.configuration(v)) for values in drawn]  # type: ignore[misc]
        problems = list(dict.fromkeys(line for _, wrong in made for line in wrong))
        if problems:
            raise ConfigError("these configurations are refused:\n  " + "\n  ".join(problems))
        return tuple(config for config, _ in made if config is not None)

    def configuration(self, values: Mapping[str, Any]) -> TrainConfig:
        """Return the configuration of some values of the varied keys."""
        config = TrainConfig(**{**self.fixed, **values})
        if config.ordinal or not self.ordinal or not learns_order(config.head):
            return config
        return replace(config, ordinal=self.ordinal)

    def trial(
        self, configuration: TrainConfig, fractions: tuple[float, ...] | None = None
    ) -> Trial:
        """Return a configuration with its runs: every training share, seed and fold.

        Args:
            configuration: Neutral, as `configurations` gives it.
            fractions: In place of the space's own.
        """
        seeds = range(self.first_seed, self.first_seed + self.seeds)
        axes = itertools.product(fractions or self.fractions, seeds, range(max(1, self.folds)))
        members = (
            replace(configuration, train_fraction=share, seed=seed, folds=self.folds, fold=fold)
            for share, seed, fold in axes
        )
        return Trial(configuration, tuple(members))

    def trials(self) -> tuple[Trial, ...]:
        """Return the configurations known before anything has run, each with its runs."""
        return tuple(self.trial(configuration) for configuration in self.configurations())

    def neutral(self, config: TrainConfig) -> TrainConfig:
        """Return the configuration that a run's config belongs to."""
        return neutral(config, self.first_seed)

    def _grid(self) -> list[dict[str, Any]]:
        # Of a grid every axis is a list of choices: reading the file saw to that.
        lists = [
            {name: axis.values for name, axis in part.items() if isinstance(axis, Choices)}
            for part in self.parts
        ]
        return list(_distinct(ParameterGrid(lists)))

    def _sample(self) -> list[dict[str, Any]]:
        # Each axis draws by itself, also one that is a list: of lists alone the sampler would draw
        # without replacement, and differently for every `runs`.
        sampler = ParameterSampler(list(self.parts), sys.maxsize, random_state=self.seed)
        wanted = self.runs if self.size is None else min(self.runs, self.size)
        return list(itertools.islice(_distinct(sampler), wanted))


def neutral(config: TrainConfig, seed: int) -> TrainConfig:
    """Return the config with a given seed, no fold and the whole training split."""
    usual = defaults_of(TrainConfig)
    alike = {name: usual[name] for name, known in options_of(TrainConfig).items() if known.repeats}
    return replace(config, **alike | {"seed": seed})


def _distinct(drawn: Any) -> Iterator[dict[str, Any]]:
    """Each set of values once, until nothing new has come for long."""
    seen: set[tuple[tuple[str, Any], ...]] = set()
    stale = 0
    for values in drawn:
        key = tuple(sorted(values.items()))
        if key not in seen:
            seen.add(key)
            stale = 0
            yield values
        elif (stale := stale + 1) > STALE + 20 * len(seen):
            return
