"""Several seeds, folds, baselines and streaming: whole runs again."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from samcls.errors import ConfigError, OverwriteRefused
from samcls.learn.features.tensors import load_features
from samcls.learn.heads.registry import HEADS, head_class
from samcls.learn.runs.folder import load_run
from samcls.learn.runs.repeats import train_repeats
from samcls.learn.runs.train import train
from samcls.learn.settings import TrainConfig
from samcls.store.feature_store import FeatureStore

MakeStore = Callable[..., FeatureStore]
CONFIG = TrainConfig(
    head="slca", epochs=6, batch_size=16, learning_rate=1e-2, reduction=2, intervals=20
)


def test_seeds_give_mean_and_spread(make_store: MakeStore, tmp_path: Path) -> None:
    """Each seed is the run that `train` gives; the summary holds their mean and deviation."""
    store = make_store(100, strength=2.0)
    result = train_repeats(store, CONFIG, tmp_path / "many", seeds=3)
    single = [train(store, replace(CONFIG, seed=seed)) for seed in range(3)]
    aucs = [one.test["auc"] for one in single]
    assert result["test"]["auc"] == pytest.approx(np.mean(aucs))
    assert result["test"]["auc_std"] == pytest.approx(np.std(aucs, ddof=1))
    assert [one["test_auc"] for one in result["runs"]] == aucs
    assert {"run", "head", "epochs", "seconds", "parameters", "validation"} <= set(result)
    low, high = result["test"]["auc_interval"]
    assert low < result["test"]["auc"] < high
    assert json.loads((tmp_path / "many" / "summary.json").read_text()) == result
    lines: list[str] = []
    again = train_repeats(store, CONFIG, tmp_path / "many", lines.append, seeds=3)
    assert again["test"] == result["test"]
    assert sum("is finished already" in line for line in lines) == 3
    with pytest.raises(OverwriteRefused, match="a finished run of other settings"):
        train_repeats(store, replace(CONFIG, epochs=2), tmp_path / "many", seeds=3)


def test_folds_test_every_image_once(make_store: MakeStore, tmp_path: Path) -> None:
    """The pooled table is of all images, each said by the run that had it in its test fold."""
    store = make_store(90, strength=4.0)
    result = train_repeats(store, CONFIG, tmp_path / "cv", folds=3)
    assert len(result["runs"]) == 3
    (pooled,) = result["pooled"]
    assert pooled["images"] == 90
    low, high = pooled["auc_interval"]
    assert low <= pooled["auc"] <= high
    seen: list[str] = []
    for fold in range(3):
        run = load_run(tmp_path / "cv" / f"seed-0-fold-{fold}")
        assert (run.config.folds, run.config.fold) == (3, fold)
        with (run.path / "predictions.csv").open(newline="") as file:
            seen += [row["id"] for row in csv.DictReader(file) if row["split"] == "test"]
    assert sorted(seen) == sorted(store.ids)


def test_one_switch_adds_every_control(make_store: MakeStore) -> None:
    """All controls have tables, and SLCA on shuffled features finds nothing."""
    store = make_store(300, strength=8.0)
    result = train(store, CONFIG, every_baseline=True)
    regressions = ["logistic", "logistic-statistics", "logistic-windows", "regressions"]
    names = ["majority", *regressions, "linear", "se", "slca, shuffled"]
    assert list(result.baselines) == names
    assert result.baselines["linear"]["test"]["auc"] > 0.8
    assert abs(result.baselines["slca, shuffled"]["test"]["auc"] - 0.5) < 0.25
    assert result.models_tried == 1 + 3 * 5 + 3


@pytest.mark.parametrize(
    "head", [*sorted(name for name in HEADS if name[-1] != ":"), "ensemble:slca"]
)
def test_every_head_makes_a_run_that_can_be_read_back(
    head: str, make_store: MakeStore, tmp_path: Path
) -> None:
    """Two views, two tasks, one of them ordinal where the head can: figures, and the same again."""
    tasks = {"melanoma": ("no", "yes"), "grade": ("low", "mid", "high")}
    ordinal = ("grade",) if head_class(head).learns_order else ()
    config = replace(CONFIG, head=head, ordinal=ordinal)
    store = make_store(100, tasks=tasks, views=("identity", "hflip"), strength=6.0)
    result = train(store, config, tmp_path / "run")
    assert result.test["tasks"]["grade"]["kappa"] is not None
    assert result.test["tasks"]["melanoma"]["ece_scaled"] is not None
    run, features = load_run(tmp_path / "run"), load_features(store)
    given = run.model.probabilities(features.tokens, features.counts, features.views)
    with (tmp_path / "run" / "predictions.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["task"] == "grade"]
    written = [[float(row[f"p_{name}"]) for name in tasks["grade"]] for row in rows]
    np.testing.assert_allclose(given["grade"], written, atol=1e-5)
    np.testing.assert_allclose(given["grade"].sum(1), 1, atol=1e-5)


def test_views_are_averaged_and_drawn(make_store: MakeStore) -> None:
    """Equal views change no probability; a view's row holds that view's map and counts."""
    valid = np.full((20, 2), (128, 64))
    store = make_store(20, views=("identity", "transpose"), valid=valid)
    features = load_features(store)
    assert features.views == 2
    assert features.tokens["neck"].shape == (40, 16, 4)
    maps = store.read("neck").astype(np.float32)
    np.testing.assert_array_equal(features.tokens["neck"][7, 6], maps[3, 1, :, 1, 2])
    assert not torch.equal(features.counts["neck"][6], features.counts["neck"][7])
    rows = torch.tensor([3, 5])
    assert features.flat(rows).tolist() == [6, 7, 10, 11]
    drawn = [features.drawn(rows, torch.Generator().manual_seed(s)).tolist() for s in range(20)]
    assert sorted({row for row, _ in drawn}) == [6, 7]
    assert sorted({row for _, row in drawn}) == [10, 11]


def test_streamed_is_as_in_memory(make_store: MakeStore, tmp_path: Path) -> None:
    """With a limit that the features exceed, every file of the run is the same, byte for byte."""
    store = make_store(100, strength=1.0)
    for window in (None, 4):
        config = replace(CONFIG, window=window)
        a, b = (tmp_path / f"{name}-{window}" for name in ("memory", "streamed"))
        first, second = train(store, config, a), train(store, config, b, memory=1000)
        for name in ("head.safetensors", "predictions.csv", "history.csv"):
            assert (a / name).read_bytes() == (b / name).read_bytes()
        assert first.test == second.test


def test_bilinear_upsampling_needs_whole_maps(make_store: MakeStore) -> None:
    """On whole maps it trains; on pooled maps the error says what to do."""
    config = replace(CONFIG, upsampling="bilinear", window=2, epochs=2)
    whole = train(make_store(60, window=1, input_size=64), config)
    assert whole.test["auc"] is not None
    with pytest.raises(ConfigError, match="pooled over window 2; extract with --window 1, or take"):
        train(make_store(60, name="pooled.zarr"), config)
