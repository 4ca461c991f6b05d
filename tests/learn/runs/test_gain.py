"""What a head gains over a control of the same windows: chosen on validation, judged in pairs, said in words."""

from collections.abc import Callable
from pathlib import Path

import pytest

from samcls.learn.heads.controls import REGRESSIONS, SAME_WINDOWS
from samcls.learn.runs.compare import compare_runs
from samcls.learn.runs.folder import load_run, load_runs
from samcls.learn.runs.gain import best_controls, gain_sentences
from samcls.learn.runs.repeats import train_repeats
from samcls.learn.runs.train import train
from samcls.learn.score.paired import against_first
from samcls.learn.settings import TrainConfig
from samcls.store.feature_store import FeatureStore

MakeStore = Callable[..., FeatureStore]
CONFIG = TrainConfig(head="slca", epochs=3, reduction=2, intervals=100)


def test_the_control_is_validations_choice() -> None:
    """Of several runs by their mean, for each task; the first of equals."""
    tables = {
        "majority": [{"auc": 0.99}],
        "logistic-statistics": [{"tasks": {"a": {"auc": 0.7}, "b": {"auc": 0.6}}}] * 2,
        "logistic-windows": [
            {"tasks": {"a": {"auc": 0.9}, "b": {"auc": 0.6}}},
            {"tasks": {"a": {"auc": 0.6}, "b": {"auc": None}}},
        ],
    }
    assert best_controls(["a", "b"], SAME_WINDOWS, tables) == {
        "a": "logistic-windows",
        "b": "logistic-statistics",
    }


def test_a_runs_gain_is_the_paired_difference(make_store: MakeStore, tmp_path: Path) -> None:
    """Recomputed from the folder's own files, groups whole; a head without windows has none."""
    groups = tuple(f"p{i // 2}" for i in range(240))
    splits = ["train"] * 120 + ["val"] * 60 + ["test"] * 60
    store = make_store(240, strength=2.0, splits=splits, groups=groups)
    result = train(store, CONFIG, tmp_path / "run")
    gain = result.gain["malignancy"]
    run = load_run(tmp_path / "run")
    controls = run.controls("test")
    assert list(controls) == ["majority", *REGRESSIONS, "regressions"]
    said, beside = run.predictions("test"), controls[gain["control"]]
    assert beside.ids == said.ids
    assert run.controls("val")["logistic"].ids == run.predictions("val").ids
    (expected,) = against_first(
        said.labels[:, 0],
        [[said.probabilities["malignancy"]], [beside.probabilities["malignancy"]]],
        groups=said.groups,
    )
    assert gain["difference"] == pytest.approx(expected["auc"]["difference"], abs=1e-6)
    assert gain["p"] == pytest.approx(expected["auc"]["p"], abs=1e-3)
    assert gain["difference"] == pytest.approx(
        result.test["auc"] - result.baselines[gain["control"]]["test"]["auc"], abs=1e-6
    )
    assert "slca minus " in repr(result)
    assert train(store, TrainConfig(head="linear", epochs=2)).gain == {}


@pytest.mark.parametrize("folds", [0, 3])
def test_several_runs_gain_together(folds: int, make_store: MakeStore, tmp_path: Path) -> None:
    """The mean over seeds of both, on the same images; folds are put together first."""
    store = make_store(150, strength=2.0)
    result = train_repeats(store, CONFIG, tmp_path / "runs", seeds=2, folds=folds)
    gain = result["gain"]["malignancy"]
    runs = load_runs(tmp_path / "runs")
    beside = compare_runs(runs, runs)["tasks"]["malignancy"]["auc"]["first"]
    assert gain["first"] == pytest.approx(beside, abs=1e-6)
    assert gain["difference"] == pytest.approx(gain["first"] - gain["second"])
    low, high = gain["difference_interval"]
    assert low < gain["difference"] < high


def test_noise_is_called_noise() -> None:
    """By whether the interval holds 0; nothing is judged where too few groups are."""
    one = {"control": "logistic-windows", "difference": 0.012, "p": 0.41}
    (said,) = gain_sentences("slca", {"a": one | {"difference_interval": [-0.01, 0.034]}})
    assert said.endswith("+0.012 (-0.010 to +0.034), p 0.410: not more than noise")
    (said,) = gain_sentences("slca", {"a": one | {"difference_interval": [0.002, 0.034]}})
    assert said.endswith(": more than noise")
    none = one | {"difference_interval": None, "p": None}
    assert "too few groups" in gain_sentences("slca", {"a": none})[0]
    assert gain_sentences("slca", {"a": one | {"difference": None}}) == []
