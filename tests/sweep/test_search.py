"""Strategies: what is run next hangs on what was found, and on nothing else."""

import itertools
import math
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.sweeps import record

from samcls.config import digest
from samcls.errors import ConfigError
from samcls.learn.settings import TrainConfig
from samcls.sweep.outcomes import Outcome, RunFailure
from samcls.sweep.search import STRATEGIES, Round, Strategy, strategy_of
from samcls.sweep.space import Space, parse_space

Judge = Callable[[TrainConfig], float | None]

TEMPLATE = record(TrainConfig(epochs=1), images=8)
GRID = "search = 'grid'\nseeds = 2\n[fixed]\nepochs = 2\n[space]\ndropout = [0.0, 0.1, 0.2]\n"
HALVING = (
    "search = 'halving'\nruns = {runs}\nseed = 1\nseeds = {seeds}\nfractions = {fractions}\n"
    "[fixed]\nepochs = 20\n[halving]\nfactor = 3\nmin_epochs = 4\n"
    "[space]\ndropout = {{low = 0.0, high = 0.6}}\n"
)
TPE = (
    "search = 'tpe'\nruns = {runs}\nseed = 3\n[fixed]\nepochs = 2\n[tpe]\nbatch = 4\n"
    "[[space]]\nhead = ['slca']\nreduction = [4, 8, 16]\nlevels = [['neck'], ['early', 'neck']]\n"
    "learning_rate = {{low = 1e-4, high = 1e-1, log = true}}\n"
    "[[space]]\nhead = ['linear']\nhidden = {{low = 0, high = 20}}\n"
    "batch_size = {{low = 8, high = 64, log = true}}\ndropout = {{low = 0.0, high = 0.5}}\n"
)


def smaller_is_better(config: TrainConfig) -> float:
    return 1 - config.dropout


def ended(config: TrainConfig, judge: Judge) -> Outcome:
    """The outcome of a run whose AUC a function knows; None is a failure."""
    value = judge(config)
    if value is None:
        return RunFailure(config, "diverged")
    metrics = {**TEMPLATE.metrics, "validation": {"auc": value}}
    return replace(TEMPLATE, config=config, metrics=metrics)


def whole(space: Space, judge: Judge, folder: Path) -> list[list[TrainConfig]]:
    """The rounds of a search that is never cut off."""
    strategy, outcomes, rounds = strategy_of(space, folder), dict[str, Outcome](), []
    while configs := strategy.propose(outcomes):
        rounds.append(configs)
        outcomes |= {digest(one): ended(one, judge) for one in configs}
        assert len(rounds) < 100
    return rounds


def cut_off(space: Space, judge: Judge, folder: Path, seed: int) -> set[str]:
    """Digests of all runs of a search that is begun anew after every few runs."""
    generator = np.random.default_rng(seed)
    outcomes: dict[str, Outcome] = {}
    for _ in range(500):
        configs = strategy_of(space, folder).propose(outcomes)
        if not configs:
            return set(outcomes)
        some = generator.permutation(len(configs))[: generator.integers(1, 6)]
        outcomes |= {digest(configs[i]): ended(configs[i], judge) for i in some}
    raise AssertionError("the search does not end")


def halving(runs: int = 20, seeds: int = 1, fractions: str = "[1.0]") -> Space:
    return parse_space(HALVING.format(runs=runs, seeds=seeds, fractions=fractions))


def test_a_grid_is_one_round_of_all_that_has_not_ended(tmp_path: Path) -> None:
    """Finished and failed runs are not made again; a failure that is taken out is."""
    strategy = strategy_of(parse_space(GRID), tmp_path)
    everything = strategy.propose({})
    assert len(everything) == 6
    (planned,) = strategy.planned
    assert (planned.configurations, planned.runs, planned.epochs) == (3, 6, 2)
    failed, finished, *rest = everything
    outcomes: dict[str, Outcome] = {
        digest(failed): RunFailure(failed, "diverged"),
        digest(finished): ended(finished, smaller_is_better),
    }
    assert strategy.propose(outcomes) == rest
    del outcomes[digest(failed)]
    assert strategy.propose(outcomes) == [failed, *rest]
    assert (
        strategy.propose({digest(one): ended(one, smaller_is_better) for one in everything}) == []
    )
    assert not list(tmp_path.iterdir())


def test_halving_keeps_the_best_third_for_three_times_the_epochs(tmp_path: Path) -> None:
    """Each round trains the best of the last one for longer; the last for the most epochs."""
    space = halving(20)
    rounds = whole(space, smaller_is_better, tmp_path)
    assert [len(configs) for configs in rounds] == [20, 7, 3]
    assert [{c.epochs for c in configs} for configs in rounds] == [{4}, {12}, {20}]
    for before, after in itertools.pairwise(rounds):
        best = sorted(before, key=lambda c: c.dropout)[: math.ceil(len(before) / 3)]
        assert [c.dropout for c in after] == [c.dropout for c in best]
    planned = strategy_of(space, tmp_path).planned
    assert [(one.configurations, one.runs, one.epochs) for one in planned] == [
        (20, 20, 4), (7, 7, 12), (3, 3, 20),
    ]  # fmt: skip


def test_halving_ranks_means_over_seeds_and_drops_failures(tmp_path: Path) -> None:
    """One lucky seed does not carry a configuration on, and a failed one is out."""
    space = halving(6, seeds=2)
    configurations = space.configurations()
    order = sorted(configurations, key=lambda c: c.dropout)
    lucky, broken = order[-1].dropout, order[0].dropout

    def judge(config: TrainConfig) -> float | None:
        if config.dropout == broken and config.seed == 1:
            return None
        return 0.99 if config.dropout == lucky and config.seed == 1 else 0.9 - config.dropout

    rounds = whole(space, judge, tmp_path)
    assert [c.dropout for c in rounds[1]] == [d.dropout for d in order[1:3] for _ in range(2)]
    assert Counter(c.seed for c in rounds[1]) == {0: 2, 1: 2}


def test_smaller_shares_wait_for_the_last_round(tmp_path: Path) -> None:
    """Halving chooses on the largest share, and draws the curve of those that are left."""
    rounds = whole(halving(9, fractions="[0.5, 1.0]"), smaller_is_better, tmp_path)
    shares = [Counter(c.train_fraction for c in configs) for configs in rounds]
    assert shares == [{1.0: 9}, {1.0: 3}, {0.5: 1, 1.0: 1}]


@settings(max_examples=4)
@given(st.integers(0, 2**31))
def test_halving_goes_on_where_it_was_cut_off(seed: int) -> None:
    """Whatever was finished when it stopped, the runs are those of an uninterrupted search."""
    space = halving(6, seeds=2)
    folder = Path()
    expected = {digest(c) for configs in whole(space, smaller_is_better, folder) for c in configs}
    assert cut_off(space, smaller_is_better, folder, seed) == expected


def test_when_every_run_fails_halving_ends(tmp_path: Path) -> None:
    """Nothing is left to go on with."""
    assert len(whole(halving(9), lambda _: None, tmp_path)) == 1


def rate_matters(config: TrainConfig) -> float | None:
    """Best at a rate of 0.003 with slca; a linear head with dropout fails now and then."""
    if config.head == "linear":
        return None if config.dropout > 0.4 else 0.4
    return 1 - 0.1 * abs(math.log10(config.learning_rate / 0.003))


def test_tpe_draws_from_every_kind_of_axis(tmp_path: Path) -> None:
    """Each head has its own keys, within their ends; batches are of the size asked for."""
    space = parse_space(TPE.format(runs=22))
    rounds = whole(space, rate_matters, tmp_path)
    drawn = [config for configs in rounds for config in configs]
    assert [len(configs) for configs in rounds] == [4, 4, 4, 4, 4, 2]
    assert {c.head for c in drawn} == {"slca", "linear"}
    for c in drawn:
        assert c.epochs == 2
        if c.head == "slca":
            assert c.reduction in {4, 8, 16}
            assert c.levels in {("neck",), ("early", "neck")}
            assert 1e-4 <= c.learning_rate <= 1e-1
        else:
            assert 0 <= c.hidden <= 20
            assert 8 <= c.batch_size <= 64
            assert 0 <= c.dropout <= 0.5
    (planned,) = strategy_of(space, tmp_path).planned
    assert (planned.configurations, planned.runs, planned.epochs) == (22, 22, 2)


def test_tpe_learns(tmp_path: Path) -> None:
    """After some rounds draws lie nearer to the best rate than they did at first."""
    space = parse_space(
        "search = 'tpe'\nruns = 48\n[tpe]\nbatch = 8\n[space]\n"
        "learning_rate = {low = 1e-5, high = 1.0, log = true}\n"
    )
    drawn = [c for configs in whole(space, rate_matters, tmp_path) for c in configs]
    distance = [abs(math.log10(c.learning_rate / 0.003)) for c in drawn]
    assert np.median(distance[-24:]) < 0.6 * np.median(distance[:16])


@pytest.mark.parametrize("seed", [0, 1])
def test_tpe_goes_on_where_it_was_cut_off(seed: int, tmp_path: Path) -> None:
    """Begun anew after every few runs, it draws what it would have drawn without a stop."""
    space = parse_space(TPE.format(runs=14))
    expected = whole(space, rate_matters, tmp_path / "whole")
    assert cut_off(space, rate_matters, tmp_path / "cut", seed) == {
        digest(config) for configs in expected for config in configs
    }


def test_tpe_grows(tmp_path: Path) -> None:
    """With more runs the same study goes on; another space begins another study."""
    first = whole(parse_space(TPE.format(runs=8)), rate_matters, tmp_path)
    again = whole(parse_space(TPE.format(runs=12)), rate_matters, tmp_path)
    straight = whole(parse_space(TPE.format(runs=12)), rate_matters, tmp_path / "straight")
    assert [*first, again[-1]] == straight
    assert list(itertools.chain(*again)) == list(itertools.chain(*straight))
    other = parse_space(TPE.format(runs=8).replace("[4, 8, 16]", "[2, 4]"))
    assert {c.reduction for r in whole(other, rate_matters, tmp_path) for c in r} <= {2, 4, 16}


def test_a_torn_journal_is_mended(tmp_path: Path) -> None:
    """A line that a killed process left half written costs that line alone."""
    space = parse_space(TPE.format(runs=8))
    expected = whole(space, rate_matters, tmp_path / "whole")
    journal = tmp_path / "torn" / "tpe.journal"
    drawn = strategy_of(space, journal.parent).propose({})
    with journal.open("ab") as file:
        file.write(b'{"op_code": 4, "wor')
    assert strategy_of(space, journal.parent).propose({}) == drawn == expected[0]
    # Cut in the middle of drawing: what has no configuration yet is drawn again.
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-3]))
    again = whole(space, rate_matters, journal.parent)
    assert again == expected


def test_without_optuna_the_error_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is an extra: other searches do without."""
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r'pip install "samcls\[sweep-tpe\]"'):
        strategy_of(parse_space(TPE.format(runs=8)), tmp_path)
    assert strategy_of(halving(), tmp_path).propose({})


class FirstOnly(Strategy):
    """Runs the space's first configuration and stops."""

    def __init__(self, space: Space, folder: Path) -> None:
        del folder
        self.run = space.trials()[0].members[0]

    @property
    def planned(self) -> tuple[Round, ...]:
        return (Round(1, 1, self.run.epochs),)

    def propose(self, outcomes: Mapping[str, Outcome]) -> list[TrainConfig]:
        return [] if digest(self.run) in outcomes else [self.run]


def test_a_strategy_is_a_class_and_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in the registry goes through a space as the others do."""
    monkeypatch.setitem(STRATEGIES, "first", FirstOnly)
    space = parse_space(
        "runs = 5\n[fixed]\nepochs = 1\n[space]\ndropout = {low = 0.0, high = 0.5}\n"
    )
    rounds = whole(replace(space, search="first"), smaller_is_better, tmp_path)
    assert rounds == [[space.trials()[0].members[0]]]
