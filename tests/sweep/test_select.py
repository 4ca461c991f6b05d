"""Choosing on validation: the vectorised estimate is the loop's, and takes luck off."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from support.sweeps import BINARY, labels_of, record, saying

from samcls.errors import InputError
from samcls.learn.runs.folder import Run
from samcls.learn.runs.predictions import Predictions
from samcls.learn.score.intervals import intervals
from samcls.learn.score.scoring import auc, resample
from samcls.learn.settings import TrainConfig
from samcls.sweep.leaderboard import Row, leaderboard
from samcls.sweep.select import aucs, select
from samcls.sweep.space import Space, parse_space


def space_of(configurations: int, options: str = "") -> Space:
    rates = [0.001 * (i + 1) for i in range(configurations)]
    return parse_space(
        f"search = 'grid'\n{options}\n[fixed]\nepochs = 1\n[space]\nlearning_rate = {rates}"
    )


def sweep(
    strengths: list[float], options: str = "", images: int = 50
) -> tuple[list[Row], dict[str, Run]]:
    """A leaderboard and its records; runs differ in their draws, not in their labels."""
    space = space_of(len(strengths), options)
    records = {}
    for i, (trial, strength) in enumerate(zip(space.trials(), strengths, strict=True)):
        for j, member in enumerate(trial.members):
            one = record(member, strength, images=images, draw=1000 * i + j)
            records[one.key] = one
    return leaderboard(records, space), records


def on(run: Run, weights: np.ndarray) -> float | None:
    """AUC on as many copies of every image as its weight says."""
    rows = np.repeat(np.arange(len(weights)), weights.astype(int))
    said = run.said
    return auc(said.labels[rows], {task: p[rows] for task, p in said.probabilities.items()})


def mean_on(runs: list[Run], weights: list[np.ndarray]) -> float:
    """Mean of the AUCs that are defined."""
    found = [on(run, row) for run, row in zip(runs, weights, strict=True)]
    return float(np.mean([value for value in found if value is not None]))


@given(
    st.integers(0, 2**31),
    st.integers(1, 25),
    st.sampled_from([(2,), (4,), (2, 3)]),
    st.booleans(),
)
def test_areas_are_the_aucs_of_repeated_images(
    seed: int, images: int, classes: tuple[int, ...], ties: bool
) -> None:
    """For each row of weights: the AUC of a table in which images stand so often."""
    tasks = {f"task-{i}": tuple("abcd"[:n]) for i, n in enumerate(classes)}
    generator = np.random.default_rng(seed)
    labels = generator.integers(-1, np.array(classes), (images, len(classes)))
    run = record(TrainConfig(epochs=1), labels=labels, tasks=tasks, draw=seed)
    if ties:
        said = {task: p.round(1) for task, p in run.said.probabilities.items()}
        run = saying(run, replace(run.said, probabilities=said))
    weights = generator.integers(0, 3, (6, images)).astype(np.float64)
    expected = [on(run, row) for row in weights]
    found = [None if np.isnan(value) else value for value in aucs(run, weights)]
    assert found == [None if e is None else pytest.approx(e, abs=1e-12) for e in expected]


@pytest.mark.parametrize("options", ["", "seeds = 3"])
def test_the_estimate_is_that_of_a_loop(options: str) -> None:
    """For each draw the best on drawn images, seeds averaged, is scored on the others."""
    rows, records = sweep([0.2, 0.4, 0.6, 0.5, 0.3], options, images=30)
    found = select(rows, records, 60, 3)
    order = sorted(f"image-{i}" for i in range(30))
    places = [order.index(f"image-{i}") for i in range(30)]
    expected = []
    for drawn in np.concatenate(list(resample(30, 60, 3)))[1:][:, places]:
        inside = [np.mean([on(records[key], drawn) for key in row.runs]) for row in rows]
        best = rows[int(np.argmax(inside))]
        outside = [on(records[key], (drawn == 0).astype(float)) for key in best.runs]
        expected.append(np.mean(outside))
    assert found.corrected == pytest.approx(np.mean(expected), abs=1e-12)
    assert (found.winner, found.auc) == (rows[0].key, rows[0].auc)
    assert (found.tried, found.images, found.resamples, found.undefined) == (5, 30, 60, 0)
    assert found.groups == 30


@pytest.mark.parametrize("options", ["", "seeds = 3"])
def test_the_interval_is_the_winners_own_around_the_corrected_auc(options: str) -> None:
    """Each patient is left out of all the winner's runs in turn; the end reaches up to its AUC."""
    rows, records = sweep([0.2, 0.9, 0.6, 0.5, 0.3], options, images=40)
    patients = {f"image-{i}": f"patient-{i // 2}" for i in range(40)}
    found = select(rows, records, 100, groups=patients)
    assert (found.images, found.groups) == (40, 20)
    values = [found.auc]
    for patient in range(20):
        left = (np.arange(40) // 2 != patient).astype(float)
        values.append(float(np.mean([on(records[key], left) for key in rows[0].runs])))
    ((low, high),) = intervals(
        np.array([values]), np.array([[0.0], [1.0]]), np.array([20]), np.array([found.corrected])
    )
    assert found.interval == pytest.approx((low, max(high, found.auc)), abs=1e-12)


def test_too_few_groups_of_a_class_have_no_interval() -> None:
    """Forty images of five patients, two of them with the disease, say how one fares on no other."""
    rows, records = sweep([0.9, 0.6], images=40)
    (one, *_) = records.values()
    sick = {f"image-{i}": int(one.said.labels[i, 0]) for i in range(40)}
    patients = {name: f"{label}-{int(name[6:]) % 5}" for name, label in sick.items()}
    found = select(rows, records, 100, groups=patients)
    assert found.groups == 10
    assert found.corrected is not None
    assert found.interval is None


def test_an_image_of_two_folds_is_drawn_in_both_or_in_neither() -> None:
    """Folds' validation parts overlap: no image scores a configuration that it helped to choose."""
    space = space_of(2, "folds = 2")
    labels = labels_of(30, BINARY)
    records = {}
    for i, trial in enumerate(space.trials()):
        for fold, member in enumerate(trial.members):
            rows = np.arange(20) + 10 * fold
            one = record(member, 1.0, labels=labels[rows], draw=10 * i + fold)
            ids = tuple(f"image-{r:02d}" for r in rows)
            said = Predictions(ids, labels[rows], one.said.probabilities)
            records[one.key] = saying(one, said)
    board = leaderboard(records, space)
    found = select(board, records, 40, 0)
    expected = []
    for drawn in np.concatenate(list(resample(30, 40, 0)))[1:]:
        parts = [drawn[:20], drawn[10:]]
        score = [
            [mean_on([records[key] for key in row.runs], side) for row in board]
            for side in (parts, [(part == 0).astype(float) for part in parts])
        ]
        expected.append(score[1][int(np.argmax(score[0]))])
    assert found.images == 30
    assert found.corrected == pytest.approx(np.mean(expected), abs=1e-12)


def test_luck_is_taken_off() -> None:
    """The best of 100 configurations that know nothing looks good; the estimate says it is not."""
    rows, records = sweep([0.0] * 100, images=60)
    found = select(rows, records, 500)
    assert found.auc > 0.65
    assert found.corrected == pytest.approx(0.5, abs=0.06)
    assert found.optimism == pytest.approx(found.auc - found.corrected)
    low, high = found.interval or (1, 0)
    assert low < 0.5 < high


def test_what_was_not_chosen_has_no_optimism() -> None:
    """Of one configuration the estimate is its own AUC, and the interval holds it."""
    rows, records = sweep([1.0], images=80)
    found = select(rows, records, 1000)
    assert found.tried == 1
    assert found.optimism == pytest.approx(0.0, abs=0.01)
    low, high = found.interval or (1, 0)
    assert low < found.auc < high


def test_the_same_sweep_gives_the_same_selection() -> None:
    """Neither the order of records nor of ties changes anything; the seed of the draws does."""
    rows, records = sweep([0.5, 1.0, 0.7])
    found = select(rows, records, 200)
    assert select(rows, dict(sorted(records.items(), reverse=True)), 200) == found
    assert select(rows, records, 200, seed=1).corrected != found.corrected
    described = found.to_dict()
    assert described["optimism"] == found.optimism
    assert described["interval"] == list(found.interval or ())


def test_images_of_a_group_are_drawn_together() -> None:
    """Where every image has a copy in its group, draws are as of half as many: a wider interval."""
    rows, records = sweep([0.7], images=80)
    (run,) = records.values()
    pairs = {f"image-{i}": f"patient-{i // 2}" for i in range(80)}
    doubled = {task: np.repeat(p[::2], 2, axis=0) for task, p in run.said.probabilities.items()}
    labels = np.repeat(run.said.labels[::2], 2, axis=0)
    said = Predictions(run.said.ids, labels, doubled)
    copies = {run.key: saying(run, said)}
    apart = select(rows, copies, 2000).interval
    together = select(rows, copies, 2000, groups=pairs).interval
    assert apart is not None
    assert together is not None
    assert together[1] - together[0] > 1.1 * (apart[1] - apart[0])
    one = dict.fromkeys(pairs, "the only patient")
    nothing = select(rows, copies, 50, groups=one)
    assert (nothing.corrected, nothing.interval, nothing.undefined) == (None, None, 50)
    assert nothing.optimism is None


def test_without_a_ranked_configuration_there_is_no_winner() -> None:
    """The error says what to do."""
    with pytest.raises(InputError, match="no configuration of this sweep has finished"):
        select([], {})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("configurations", "images", "spread"),
    [(1, 78, 0.0), (20, 78, 0.3), (20, 156, 0.2), (20, 78, 0)],
)
def test_the_interval_holds_the_winners_auc_on_other_images(
    configurations: int, images: int, spread: float
) -> None:
    """Over 300 sweeps whose scores share half their noise, in 92 to 98 of 100, give or take 3."""
    generator = np.random.default_rng(0)
    space, held = space_of(configurations), 0
    for _ in range(300):
        labels = generator.permutation(np.arange(images) % 4 == 0).astype(np.int64)
        shared, records, truth = generator.normal(size=images), {}, {}
        for trial in space.trials():
            strength = 1.0 + spread * generator.normal()
            scores = strength * labels + np.sqrt(0.5) * (shared + generator.normal(size=images))
            positive = 1 / (1 + np.exp(-scores))
            said = {"malignancy": np.stack([1 - positive, positive], axis=1)}
            one = record(trial.members[0], labels=labels[:, None])
            said_of = replace(one.said, probabilities=said)
            records[one.key] = saying(one, said_of, auc(labels[:, None], said))
            truth[one.key] = norm.cdf(strength / np.sqrt(2))
        rows = leaderboard(records, space)
        low, high = select(rows, records, 200).interval or (1, 0)
        held += bool(low <= truth[rows[0].runs[0]] <= high)
    assert 0.89 <= held / 300 <= 0.995
