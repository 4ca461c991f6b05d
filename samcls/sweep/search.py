"""How a sweep goes through its space: in one round, in rounds of growing epochs, or by learning.

A strategy is asked for runs, given what has ended so far, until it names none. What it answers
hangs on the outcomes alone, never on their order, on workers or on where a sweep was cut off, so
that a resumed sweep makes the runs of an uninterrupted one.

    strategy = strategy_of(space, folder)
    while configs := strategy.propose(outcomes):
        ...  # run them, and add each record or failure to outcomes by the digest of its config

Halving trains a configuration anew in each round: with more epochs it has another cosine schedule
and another digest, so each of its runs is one that `samcls train` would repeat.
"""

import hashlib
import json
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from samcls.config import digest, parse, to_dict
from samcls.errors import ConfigError
from samcls.learn.settings import TrainConfig
from samcls.sweep.axes import Axis, Between
from samcls.sweep.leaderboard import trial_score
from samcls.sweep.outcomes import Outcome
from samcls.sweep.space import Space, Trial

__all__ = ["STRATEGIES", "Round", "Strategy", "strategy_of"]

JOURNAL = "tpe.journal"
KEY = "configuration"  # a trial's attribute: the configuration, as JSON


@dataclass(frozen=True)
class Round:
    """What a strategy means to run, as far as can be said beforehand.

    Attributes:
        configurations: At most so many.
        runs: Of all their seeds, folds and shares together.
        epochs: Most epochs of any run.
    """

    configurations: int
    runs: int
    epochs: int


class Strategy(ABC):
    """A way through a space.

    Attributes:
        foreseen: Whether its first runs are known before any has ended, and can be listed.
        in_rounds: Whether the best of each round go on for more epochs, and so rank first.
    """

    foreseen = True
    in_rounds = False

    @abstractmethod
    def __init__(self, space: Space, folder: Path) -> None:
        """Made of the space, and of the sweep's folder for what must be kept there."""

    @property
    @abstractmethod
    def planned(self) -> tuple[Round, ...]:
        """The rounds, for a plan and a progress bar."""

    @abstractmethod
    def propose(self, outcomes: Mapping[str, Outcome]) -> list[TrainConfig]:
        """Return the runs to make next; none when the search is over.

        Args:
            outcomes: Everything that has ended, by the digest of its config. A run that stands in
                it, finished or failed, is not proposed again.
        """


class AllAtOnce(Strategy):
    """Grid and random search: every run is known beforehand."""

    def __init__(self, space: Space, folder: Path) -> None:
        del folder
        self._trials = space.trials()

    @property
    def planned(self) -> tuple[Round, ...]:
        """One round."""
        return (_round(self._trials),)

    def propose(self, outcomes: Mapping[str, Outcome]) -> list[TrainConfig]:
        """Everything that has not ended."""
        return _open(self._trials, outcomes)


class Halving(Strategy):
    """Successive halving on epochs (Jamieson and Talwalkar, 1502.07943).

    All configurations train for a few epochs; the best 1/factor of them go on with `factor` times
    as many, and so on up to the most. Smaller training shares are run in the last round alone.
    """

    in_rounds = True

    def __init__(self, space: Space, folder: Path) -> None:
        del folder
        self._space = space
        self._first = space.configurations()
        self._epochs = _rungs(space.min_epochs, space.base.epochs, space.factor)

    @property
    def planned(self) -> tuple[Round, ...]:
        """A round for each number of epochs."""
        counts = [len(self._first)]
        while len(counts) < len(self._epochs):
            counts.append(math.ceil(counts[-1] / self._space.factor))
        return tuple(
            _round(self._trials(self._first[:count], epochs))
            for count, epochs in zip(counts, self._epochs, strict=True)
        )

    def propose(self, outcomes: Mapping[str, Outcome]) -> list[TrainConfig]:
        """Return what has not ended of the first round that is not over."""
        left: Sequence[TrainConfig] = self._first
        for epochs in self._epochs:
            trials = self._trials(left, epochs)
            waiting = _open(trials, outcomes)
            if waiting:
                return waiting
            left = self._best(trials, outcomes)
        return []

    def _trials(self, configurations: Sequence[TrainConfig], epochs: int) -> list[Trial]:
        last = epochs == self._epochs[-1]
        shares = self._space.fractions if last else self._space.fractions[-1:]
        return [self._space.trial(replace(c, epochs=epochs), shares) for c in configurations]

    def _best(self, trials: Sequence[Trial], outcomes: Mapping[str, Outcome]) -> list[TrainConfig]:
        """Return the configurations that go on, the best first; equals in the order of their digests."""
        scores = [(_score(self._space, trial, outcomes), trial) for trial in trials]
        ranked = sorted(
            ((score, trial) for score, trial in scores if score is not None),
            key=lambda pair: (-pair[0][0], -pair[0][1], pair[1].key),
        )
        kept = ranked[: math.ceil(len(trials) / self._space.factor)]
        return [trial.configuration for _, trial in kept]


class TPE(Strategy):
    """Optuna's tree-structured Parzen estimator, in batches, its study in a journal file.

    Every draw has its own seed, of the space's seed and its place among the draws, and a batch is
    drawn on the outcomes of whole batches: so what is proposed does not hang on who asks, when, or
    after which interruption. The journal lies in the sweep's folder, for any process that goes on
    with the sweep and for Optuna's own tools.
    """

    foreseen = False

    def __init__(self, space: Space, folder: Path) -> None:
        self._space, journal = space, folder / JOURNAL
        self._optuna = _optuna()
        journal.parent.mkdir(parents=True, exist_ok=True)
        _mend(journal)
        backend = self._optuna.storages.journal.JournalFileBackend(str(journal))
        self._study = self._optuna.create_study(
            storage=self._optuna.storages.JournalStorage(backend),
            study_name=_study_name(space),
            direction="maximize",
            load_if_exists=True,
        )

    @property
    def planned(self) -> tuple[Round, ...]:
        """One round: how many batches there are does not matter to a plan."""
        runs = self._space.runs * self._space.members
        return (Round(self._space.runs, runs, _most_epochs(self._space)),)

    def propose(self, outcomes: Mapping[str, Outcome]) -> list[TrainConfig]:
        """Return what has not ended of the present batch, or of the next one that has anything new."""
        while True:
            drawn = self._drawn()
            while len(drawn) % self._space.batch and len(drawn) < self._space.runs:
                drawn.append(self._ask(len(drawn)))
            waiting = _open([one.trial for one in drawn], outcomes)
            if waiting:
                return waiting
            for one in drawn:
                if not one.told:
                    self._tell(one, outcomes)
            if len(drawn) >= self._space.runs:
                return []
            self._ask(len(drawn))

    def _drawn(self) -> list["_Draw"]:
        """Everything drawn so far, in order.

        A draw that a killed process left without its configuration is no draw.
        """
        found = []
        for one in self._study.get_trials(deepcopy=False):
            if KEY in one.user_attrs:
                values = {k: v for k, v in json.loads(one.user_attrs[KEY]).items() if v is not None}
                trial = self._space.trial(parse(TrainConfig, values, JOURNAL))
                found.append(_Draw(one.number, trial, one.state.is_finished()))
        return found

    def _ask(self, place: int) -> "_Draw":
        state = np.random.SeedSequence([self._space.seed, place]).generate_state(1)
        self._study.sampler = self._optuna.samplers.TPESampler(seed=int(state[0]))
        asked = self._study.ask()
        parts = self._space.parts
        number = asked.suggest_categorical("space", range(len(parts))) if len(parts) > 1 else 0
        values = {
            name: _suggest(asked, f"{number}.{name}", axis) for name, axis in parts[number].items()
        }
        config = self._space.configuration(values)
        asked.set_user_attr(KEY, json.dumps(to_dict(config)))
        return _Draw(asked.number, self._space.trial(config), False)

    def _tell(self, draw: "_Draw", outcomes: Mapping[str, Outcome]) -> None:
        score = _score(self._space, draw.trial, outcomes)
        if score is None:
            self._study.tell(draw.number, state=self._optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(draw.number, score[0])


# A strategy is a class and a line here; for space files its name stands in `trials.Search`.
STRATEGIES: dict[str, type[Strategy]] = {
    "grid": AllAtOnce,
    "random": AllAtOnce,
    "halving": Halving,
    "tpe": TPE,
}


def strategy_of(space: Space, folder: str | Path) -> Strategy:
    """Return the strategy that the space asks for.

    Args:
        space: What to search.
        folder: The sweep's.

    Raises:
        ConfigError: where tpe is asked for and Optuna is not installed, or `TrainConfig` refuses
            what was drawn.
    """
    return STRATEGIES[space.search](space, Path(folder))


@dataclass(frozen=True)
class _Draw:
    """A configuration that Optuna drew: its number in the study, and whether it knows the score."""

    number: int
    trial: Trial
    told: bool


def _suggest(drawn: Any, name: str, axis: Axis) -> Any:
    """One axis's value: neighbours among ordered choices are alike to the sampler, others not."""
    if not isinstance(axis, Between):
        last = len(axis.values) - 1
        if axis.ordered and last:
            return axis.values[drawn.suggest_int(name, 0, last)]
        return axis.values[drawn.suggest_categorical(name, range(last + 1))]
    if axis.whole:
        return drawn.suggest_int(name, int(axis.low), int(axis.high), log=axis.log)
    return axis.fitted(drawn.suggest_float(name, axis.low, axis.high, log=axis.log))


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ConfigError(
            'search = "tpe" needs Optuna, which is not installed; install it with: '
            'pip install "samcls[sweep-tpe]", or choose another search'
        ) from error
    # It logs each study that it makes or finds, which is no news here.
    if optuna.logging.get_verbosity() == optuna.logging.INFO:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _study_name(space: Space) -> str:
    """Return a space that draws otherwise, or scores otherwise, is another study in the same journal."""
    parts = [{name: repr(axis) for name, axis in part.items()} for part in space.parts]
    fixed = to_dict(space.base)
    scored = [space.seeds, space.folds, space.fractions[-1]]
    text = json.dumps([parts, fixed, scored, space.seed, space.batch], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _mend(journal: Path) -> None:
    """Cut off a line that a killed process left half written: nothing could be added after it."""
    if not journal.exists():
        return
    with journal.open("rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
            file.flush()
            os.fsync(file.fileno())


def _rungs(least: int, most: int, factor: int) -> tuple[int, ...]:
    """Epochs of each round: from the least, times the factor, to the most."""
    epochs = [least]
    while epochs[-1] < most:
        epochs.append(min(most, epochs[-1] * factor))
    return tuple(epochs)


def _most_epochs(space: Space) -> int:
    axes = [part["epochs"] for part in space.parts if "epochs" in part]
    ends = [int(a.high) if isinstance(a, Between) else max(a.values) for a in axes]
    return max([space.base.epochs, *ends] if len(axes) < len(space.parts) else ends)


def _round(trials: Sequence[Trial]) -> Round:
    runs = [member for trial in trials for member in trial.members]
    return Round(len(trials), len(runs), max((run.epochs for run in runs), default=0))


def _open(trials: Sequence[Trial], outcomes: Mapping[str, Outcome]) -> list[TrainConfig]:
    """Return the runs that have not ended, each once."""
    runs = {digest(member): member for trial in trials for member in trial.members}
    return [member for key, member in runs.items() if key not in outcomes]


def _score(
    space: Space, trial: Trial, outcomes: Mapping[str, Outcome]
) -> tuple[float, float] | None:
    """As `trial_score`, of the runs on the largest training share."""
    largest = space.fractions[-1]
    return trial_score([m for m in trial.members if m.train_fraction == largest], outcomes)
