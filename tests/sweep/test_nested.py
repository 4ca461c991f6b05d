"""Nested sweeps: each fold's configuration is chosen without that fold."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from samcls.config import digest
from samcls.errors import ConfigError
from samcls.learn.runs.compare import compare_runs
from samcls.learn.runs.folder import load_runs
from samcls.learn.runs.repeats import train_repeats
from samcls.learn.score.resampled import corrected_mean
from samcls.learn.score.scoring import auc
from samcls.learn.settings import TrainConfig
from samcls.store.feature_store import FeatureStore
from samcls.sweep.leaderboard import leaderboard
from samcls.sweep.nested import chosen_by_fold
from samcls.sweep.outcomes import read_runs
from samcls.sweep.space import parse_space
from samcls.sweep.sweep import sweep

MakeStore = Callable[..., FeatureStore]
SPACE = """
search = "grid"
folds = 3
nested = true
[fixed]
epochs = 2
intervals = 0
reduction = 2
[space]
head = ["logistic", "linear", "slca"]
learning_rate = [0.01, 0.0001]
"""


def test_each_fold_takes_what_its_own_validation_likes_best(
    make_store: MakeStore, tmp_path: Path
) -> None:
    """Recomputed from the runs' figures; its test images are scored by that configuration alone."""
    store = make_store(90, strength=1.0)
    result = sweep(store.path, tmp_path / "sweep", parse_space(SPACE))
    runs, space = read_runs(tmp_path / "sweep"), parse_space(SPACE)
    assert isinstance(result.best["config"], list)
    assert len(result.best["config"]) == 3
    tested = load_runs(result.best["run"])
    for fold, run in enumerate(tested):
        assert run.config.fold == fold
        own = [one for one in runs.values() if one.config.fold == fold]
        assert run.auc == pytest.approx(max(one.auc or 0 for one in own), abs=1e-6)
        assert not set(run.predictions("test").ids) & set(own[0].said.ids)
    rows = leaderboard(runs, space, {})
    chosen = chosen_by_fold(rows, runs, space)
    assert [digest(row.configuration) for row, _ in chosen.values()] == [
        row.key for row, _ in chosen.values()
    ]
    pooled = result.best["figures"]["pooled"][0]
    assert pooled["images"] == 90
    assert result.best["figures"]["models_tried"] > 3 * 6
    again = sweep(store.path, tmp_path / "sweep", parse_space(SPACE))
    assert again.made == 0
    assert again.best["test"] == result.best["test"]
    assert again.best["test_opened"] == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("folds = 3", "folds = 0"),
        ('search = "grid"', 'search = "halving"\nruns = 4'),
        ("folds = 3", "folds = 3\nfractions = [0.5, 1.0]"),
    ],
)
def test_what_cannot_be_nested_is_refused(text: str, said: str) -> None:
    """No folds, a search that all folds steer, several shares."""
    with pytest.raises(ConfigError, match="nested: "):
        parse_space(SPACE.replace(text, said))


def test_equal_folds_are_compared_fold_by_fold(make_store: MakeStore, tmp_path: Path) -> None:
    """With the corrected t test, from the folders' own predictions."""
    store = make_store(120, strength=1.0)
    for head in ("logistic", "knn"):
        train_repeats(store, TrainConfig(head=head, intervals=0), tmp_path / head, folds=4)
    first, second = (load_runs(tmp_path / head) for head in ("logistic", "knn"))
    found = compare_runs(first, second)["tasks"]["malignancy"]["over_folds"]
    values = []
    for a, b in zip(first, second, strict=True):
        said = [one.predictions("test") for one in (a, b)]
        aucs = [auc(one.labels, one.probabilities) for one in said]
        values.append(np.subtract(*np.array(aucs, dtype=np.float64)))
    assert found == corrected_mean(values, train=3.0, test=1.0)
    seeds = TrainConfig(head="knn", intervals=0)
    train_repeats(store, seeds, tmp_path / "other", folds=3)
    other = compare_runs(first, load_runs(tmp_path / "other"))["tasks"]["malignancy"]
    assert "over_folds" not in other
