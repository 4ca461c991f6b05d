"""Spaces: every problem at once, draws that grow, a trial's runs."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samcls.config import digest
from samcls.errors import ConfigError
from samcls.learn.settings import TrainConfig
from samcls.sweep.space import Space, load_space, parse_space

RANDOM = """
name = "breast"
search = "random"
runs = {runs}
seed = {seed}
[fixed]
epochs = 30
seed = 7
[space]
head = ["slca", "linear"]
levels = [["neck"], ["early", "neck"]]
reduction = {{choices = [4, 8, 16]}}
hidden = {{low = 0, high = 64, step = 16}}
batch_size = {{low = 8, high = 64, log = true}}
dropout = {{low = 0.0, high = 0.5}}
learning_rate = {{low = 1e-4, high = 3e-2, log = true}}
"""


def random_space(runs: int = 40, seed: int = 0) -> Space:
    return parse_space(RANDOM.format(runs=runs, seed=seed))


def test_a_grid_is_the_product_of_its_lists() -> None:
    """Every combination of choices and steps is there once, fixed values in each."""
    space = parse_space(
        "search = 'grid'\n[fixed]\nepochs = 3\n[space]\nhead = ['slca', 'linear']\n"
        "levels = [['neck'], ['early', 'neck']]\nhidden = {low = 0, high = 8, step = 4}\n"
        "dropout = {low = 0.1, high = 0.3, step = 0.1}\n"
    )
    found = space.configurations()
    expected = {
        (head, levels, hidden, dropout)
        for head in ("slca", "linear")
        for levels in (("neck",), ("early", "neck"))
        for hidden in (0, 4, 8)
        for dropout in (0.1, 0.2, 0.3)
    }
    assert len(found) == len(expected) == space.size == 36
    assert {(c.head, c.levels, c.hidden, c.dropout) for c in found} == expected
    assert {c.epochs for c in found} == {3}
    assert space.varied == ("head", "levels", "hidden", "dropout")


def test_several_tables_give_each_head_its_own_keys() -> None:
    """[[space]] tables are a union: controls are not multiplied by keys that they do not read."""
    text = (
        "[[space]]\nhead = ['slca']\nreduction = [4, 8, 16]\n"
        "[[space]]\nhead = ['linear', 'se']\ndropout = [0.0, 0.5]\n"
    )
    grid = parse_space("search = 'grid'\n" + text)
    assert Counter(c.head for c in grid.configurations()) == {"slca": 3, "linear": 2, "se": 2}
    drawn = parse_space("search = 'random'\nruns = 50\n" + text).configurations()
    assert set(drawn) == set(grid.configurations())
    assert grid.varied_for("slca") == {"head", "reduction"}
    assert grid.varied_for("linear") == {"head", "dropout"}


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(0, 30))
def test_a_longer_draw_begins_with_the_shorter_one(seed: int, runs: int, more: int) -> None:
    """With a higher `runs` the same configurations come first, all different."""
    short = random_space(runs, seed).configurations()
    long = random_space(runs + more, seed).configurations()
    assert long[:runs] == short
    assert len({digest(c) for c in long}) == runs + more


def test_a_draw_from_lists_alone_grows_too() -> None:
    """Also of lists, of which a sampler without replacement would draw others for each `runs`."""
    text = "search = 'random'\nruns = {}\n[space]\nreduction = {}\nwarmup = [0.0, 0.1, 0.2]\n"
    draws = {
        runs: parse_space(text.format(runs, list(range(1, 21)))).configurations()
        for runs in (5, 30, 60, 100)
    }
    assert draws[60][:5] == draws[5]
    assert draws[60][:30] == draws[30]
    assert draws[100] == draws[60]
    assert len(set(draws[60])) == 60


def test_a_used_up_space_ends_the_draw() -> None:
    """A distribution so narrow that rounding leaves few values gives these and no endless loop."""
    space = parse_space("runs = 9\n[space]\nlearning_rate = {low = 0.1000, high = 0.1002}\n")
    assert sorted(c.learning_rate for c in space.configurations()) == [0.1, 0.1001, 0.1002]


def test_draws_follow_their_distributions() -> None:
    """Values lie between the ends, which are reached; medians are those of the distributions."""
    found = random_space(400).configurations()
    rates = np.array([c.learning_rate for c in found])
    assert 1e-4 <= rates.min() < 2e-4
    assert 2e-2 < rates.max() <= 3e-2
    assert np.median(rates) == pytest.approx(np.sqrt(1e-4 * 3e-2), rel=0.25)
    assert np.median([c.dropout for c in found]) == pytest.approx(0.25, abs=0.04)
    sizes = [c.batch_size for c in found]
    assert 8 <= min(sizes) < 10
    assert 60 < max(sizes) <= 64
    assert np.median(sizes) == pytest.approx(np.sqrt(8 * 64), rel=0.2)
    assert all(float(f"{rate:.4g}") == rate for rate in rates)
    assert {type(c.batch_size) for c in found} == {int}
    assert {c.hidden for c in found} == {0, 16, 32, 48, 64}


def test_a_trial_has_a_run_for_each_share_seed_and_fold() -> None:
    """Members cross fractions, seeds from the fixed one on, and folds; the key knows none of them."""
    space = parse_space(
        "search = 'grid'\nseeds = 2\nfolds = 3\nfractions = [1.0, 0.25]\n"
        "[fixed]\nseed = 7\n[space]\ndropout = [0.0, 0.5]\n"
    )
    first, second = space.trials()
    assert space.members == len(first.members) == 12
    assert [(m.train_fraction, m.seed, m.folds, m.fold) for m in first.members[:4]] == [
        (0.25, 7, 3, 0), (0.25, 7, 3, 1), (0.25, 7, 3, 2), (0.25, 8, 3, 0),
    ]  # fmt: skip
    assert len({digest(m) for m in (*first.members, *second.members)}) == 24
    assert first.configuration == TrainConfig(seed=7, dropout=0.0)
    assert {space.neutral(m) for m in first.members} == {first.configuration}
    assert first.key == digest(first.configuration) != second.key
    (alone,) = parse_space("search = 'grid'\n[space]\ndropout = [0.1]\n").trials()
    assert alone.members == (alone.configuration,)


def test_all_problems_of_a_file_come_at_once(tmp_path: Path) -> None:
    """One error names every wrong key of every table, what was got and what is expected."""
    path = tmp_path / "space.toml"
    path.write_text(
        "serach = 'grid'\nsearch = 'grid'\nruns = 3\nseeds = 0\nfolds = 1\nfractions = [0.5, 2.0]\n"
        "[fixed]\nepochs = 0\nlearning_rat = 0.1\nfold = 2\nhead = 'sclca'\nwarmup = 0.1\n"
        "[space]\nlevels = ['neck']\nhead = ['slca', 'lin']\nhidden = {low = 9, high = 3}\n"
        "reduction = {low = 1, high = 0.5}\ndropout = {low = 0.0, high = 1.0, step = 0.5}\n"
        "loss = 'focal'\nseed = [1, 2]\ntasks = [['a']]\nwarmup = [0.2]\ngate_bias = []\n"
        "batch_size = {lo = 1, high = 3}\nfocal_gamma = {low = -1.0, high = 2.0, log = true}\n"
        "weight_decay = {low = 0.1, high = 0.2}\npatience = [3, 3]\n"
        "gate = {low = 1, high = 2}\ngate_channels = {low = 0, high = 10}\n"
        "[halving]\nfactor = 1\n[tpe]\nbath = 3\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_space(path)
    first, *lines = str(caught.value).splitlines()
    expected = [
        "serach: unknown key; did you mean search?",
        "seeds: got 0, expected at least 1",
        "halving.factor: got 1, expected at least 2",
        "tpe.bath: unknown key; did you mean batch?",
        "fixed.epochs: got 0, expected at least 1",
        "fixed.learning_rat: unknown key; did you mean learning_rate?",
        "fixed.fold: the file's own key folds runs every fold",
        "fixed.head: unknown head sclca; known heads:",
        'space.levels: got "neck", expected a list, each entry a text',
        "space.head: unknown head lin; known heads:",
        "space.head: stands under [fixed] too",
        "space.hidden: low is 9 and high is 3; expected low below high",
        "space.reduction: got 0.5, expected a whole number",
        "space.dropout: got 1.0, expected at least 0 and below 1",
        'space.loss: got "focal", expected a list of choices or a table',
        "space.seed: the file's own key seeds",
        "space.tasks: configurations that learn other tasks cannot be ranked",
        "space.warmup: stands under [fixed] too",
        "space.gate_bias: the list of choices is empty",
        "space.batch_size.lo: unknown key; did you mean low?",
        "space.focal_gamma: got -1.0, expected at least 0",
        "space.patience: the choice 3 is named twice",
        'space.gate: got 1, expected "multiply" or "residual"',
        "space.weight_decay: a distribution has no grid",
        "space.gate_channels: a distribution has no grid",
    ]
    for sentence in expected:
        assert sum(sentence in line for line in lines) == 1, sentence
    assert first == f"{path}: {len(lines)} problems"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[space]\ndropout = [0.1]", "runs: expected a number of configurations for search random"),
        ("runs = 2", r"expected a table \[space\] with a key at least"),
        ("runs = 2\nspace = 3", r"expected a table \[space\] with a key at least"),
        ("runs = 2\nfixed = 3\n[space]\ndropout = [0.1]", r"fixed: got 3, expected a table"),
        ("search = 'grid'\nruns = 3\n[space]\ndropout = [0.1]", "a grid runs all its points"),
        ("runs = 2\nfolds = 1\n[space]\ndropout = [0.1]", "folds: got 1, expected 0"),
        ("runs = 2\nfractions = [0.0]\n[space]\ndropout = [0.1]", "above 0 and at most 1"),
        ("search = 'halving'\nruns = 2\n[space]\nepochs = [3, 5]", "halving raises epochs itself"),
        (
            "search = 'halving'\nruns = 2\n[fixed]\nepochs = 5\n[space]\ndropout = [0.1]",
            "halving.min_epochs: got 5, expected fewer than fixed.epochs",
        ),
        ("runs = 2\n[space]\ndropout = {choices = [0.1], log = true}", "choices stand alone"),
        ("runs = 2\n[space]\ndropout = {low = 0.1}", "high missing"),
        ("runs = 2\n[space]\nwarmup = {low = 0.0, high = 0.1, log = true}", "lies above 0"),
        ("runs = 2\n[space]\nhidden = {low = 1, high = 9, step = 2, log = true}", "one of them"),
        ("runs = 2\n[space]\nhidden = {low = 1, high = 9, step = 0.5}", "got step 0.5, expected a"),
        ("runs = 2\n[space]\nhidden = {low = 0, high = 99999, step = 1}", "makes 100,000 values"),
        ("runs = 2\n[space\n", "is not a TOML file"),
        ("runs = 2\n[[space]]\ndropout = [0.1]\n[[space]]\ndropout = [2.0]", r"space\[1\].dropout"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(text: str, message: str) -> None:
    """Each kind of mistake has its own sentence."""
    with pytest.raises(ConfigError, match=message):
        parse_space(text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The message names the file."""
    with pytest.raises(ConfigError, match=r"cannot read the space .*no\.toml"):
        load_space(tmp_path / "no.toml")


@pytest.mark.parametrize(
    ("axis", "size"),
    [
        ("dropout = {low = 0.0, high = 0.5}", None),
        ("hidden = {low = 1, high = 9}", 9),
        ("hidden = {low = 1, high = 9, step = 4}", 3),
        ("hidden = [1, 2]\nwarmup = [0.0, 0.1]", 4),
    ],
)
def test_the_size_of_a_space(axis: str, size: Any) -> None:
    """Finite spaces know how many configurations they hold."""
    assert parse_space(f"runs = 2\n[space]\n{axis}\n").size == size


def test_under_tpe_nothing_is_known_beforehand() -> None:
    """A search that learns has no configurations before it has seen results."""
    space = parse_space("search = 'tpe'\nruns = 9\n[tpe]\nbatch = 4\n[space]\ndropout = [0.1, 0.2]")
    assert space.configurations() == ()
    assert space.batch == 4
