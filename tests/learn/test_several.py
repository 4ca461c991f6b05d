"""Several seeds, folds, baselines, streaming and MedMNIST's files: whole runs again."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from samcls.config import TrainConfig
from samcls.errors import ConfigError, InputError, OverwriteRefused
from samcls.learn.compare import compare_runs, compare_seeds
from samcls.learn.features import load_features
from samcls.learn.heads import HEADS
from samcls.learn.runs import load_run, load_runs
from samcls.learn.several import train_several
from samcls.learn.train import train
from samcls.store.feature_store import FeatureStore

MakeStore = Callable[..., FeatureStore]
CONFIG = TrainConfig(epochs=6, batch_size=16, learning_rate=1e-2, reduction=2, intervals=20)
DATA = Path(__file__).parents[2].parent / "shared" / "data" / "medmnist"


def test_seeds_give_mean_and_spread(make_store: MakeStore, tmp_path: Path) -> None:
    """Each seed is the run that `train` gives; the summary holds their mean and deviation."""
    store = make_store(100, strength=2.0)
    result = train_several(store, CONFIG, tmp_path / "many", seeds=3)
    single = [train(store, replace(CONFIG, seed=seed)) for seed in range(3)]
    areas = [one.test["auc"] for one in single]
    assert result["test"]["auc"] == pytest.approx(np.mean(areas))
    assert result["test"]["auc_std"] == pytest.approx(np.std(areas, ddof=1))
    assert [one["test_auc"] for one in result["runs"]] == areas
    assert {"run", "head", "epochs", "seconds", "parameters", "validation"} <= set(result)
    low, high = result["test"]["auc_interval"]
    assert low < result["test"]["auc"] < high
    assert json.loads((tmp_path / "many" / "summary.json").read_text()) == result
    lines: list[str] = []
    again = train_several(store, CONFIG, tmp_path / "many", lines.append, seeds=3)
    assert again["test"] == result["test"]
    assert sum("is finished already" in line for line in lines) == 3
    with pytest.raises(OverwriteRefused, match="a finished run of other settings"):
        train_several(store, replace(CONFIG, epochs=2), tmp_path / "many", seeds=3)


def test_folds_test_every_image_once(make_store: MakeStore, tmp_path: Path) -> None:
    """The pooled table is of all images, each said by the run that had it in its test fold."""
    store = make_store(90, strength=4.0)
    result = train_several(store, CONFIG, tmp_path / "cv", folds=3)
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
    names = ["majority", "logistic", "linear", "se", "slca, shuffled"]
    assert list(result.baselines) == names
    assert result.baselines["linear"]["test"]["auc"] > 0.8
    assert abs(result.baselines["slca, shuffled"]["test"]["auc"] - 0.5) < 0.25
    assert result.models_tried == 1 + 5 + 3


@pytest.mark.parametrize("head", sorted(HEADS))
def test_every_head_makes_a_run_that_can_be_read_back(
    head: str, make_store: MakeStore, tmp_path: Path
) -> None:
    """Two views, two tasks, one of them ordinal where the head can: figures, and the same again."""
    tasks = {"melanoma": ("no", "yes"), "grade": ("low", "mid", "high")}
    ordinal = () if head in {"knn", "logistic"} else ("grade",)
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


def test_runs_are_compared_on_the_same_images(make_store: MakeStore, tmp_path: Path) -> None:
    """Two heads of one store are compared image by image; other images are refused."""
    store = make_store(200, strength=6.0)
    train(store, CONFIG, tmp_path / "slca")
    train(store, replace(CONFIG, head="linear"), tmp_path / "linear")
    train(store, replace(CONFIG, folds=2), tmp_path / "fold")
    slca, linear, fold = (load_run(tmp_path / name) for name in ("slca", "linear", "fold"))
    result = compare_runs(slca, linear)
    auc = result["tasks"]["malignancy"]["auc"]
    assert auc["first"] == pytest.approx(slca.metrics["test"]["auc"], abs=1e-9)
    assert auc["second"] == pytest.approx(linear.metrics["test"]["auc"], abs=1e-9)
    assert auc["difference"] == pytest.approx(auc["first"] - auc["second"])
    assert result["images"] == 40
    with pytest.raises(InputError, match="were not scored on the same test images and labels"):
        compare_runs(slca, fold)


def test_folders_of_seeds_are_compared_seed_by_seed(make_store: MakeStore, tmp_path: Path) -> None:
    """The means are those of each folder's summary; other seeds, or folds, have no partners."""
    store = make_store(100, strength=4.0)
    config = replace(CONFIG, epochs=2)
    means = {}
    for head in ("slca", "linear"):
        result = train_several(store, replace(config, head=head), tmp_path / head, seeds=2)
        means[head] = result["test"]["auc"]
    slca, linear = load_runs(tmp_path / "slca"), load_runs(tmp_path / "linear")
    result = compare_seeds(slca, linear[::-1])
    assert result["seeds"] == [0, 1]
    assert result["runs"] == [str(tmp_path / "slca"), str(tmp_path / "linear")]
    auc = result["tasks"]["malignancy"]["auc"]
    assert auc["first"] == pytest.approx(means["slca"])
    assert auc["second"] == pytest.approx(means["linear"])
    with pytest.raises(InputError, match="got runs of the seeds 0, 1 and of 0; expected the same"):
        compare_seeds(slca, linear[:1])
    train_several(store, config, tmp_path / "cv", seeds=1, folds=2)
    with pytest.raises(InputError, match="one run each and no folds"):
        compare_seeds(load_runs(tmp_path / "cv"), load_runs(tmp_path / "cv"))
    with pytest.raises(InputError, match="is not a run folder"):
        load_runs(tmp_path)


@pytest.mark.parametrize(("flag", "classes"), [("breastmnist", 2), ("retinamnist", 5)])
def test_medmnists_evaluator_reads_the_predictions(
    flag: str, classes: int, make_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its figures from our file are ours, and the name is the one it would give."""
    if not (DATA / f"{flag}.npz").exists():
        pytest.skip(f"needs {flag}.npz in {DATA}")
    import medmnist.evaluator

    arrays = np.load(DATA / f"{flag}.npz")
    splits = ("train", "val", "test")
    labels = np.concatenate([arrays[f"{split}_labels"] for split in splits])
    names = [split for split in splits for _ in arrays[f"{split}_labels"]]
    tasks = {"label": tuple(str(c) for c in range(classes))}
    store = make_store(len(labels), tasks=tasks, labels=labels, splits=names, strength=1.0)
    result = train(store, replace(CONFIG, epochs=2), tmp_path / "run", medmnist=flag)
    files = sorted(path.name for path in (tmp_path / "run").glob(f"{flag}_*"))
    assert files[0].startswith(f"{flag}_test_[AUC]{result.test['auc']:.3f}_[ACC]")
    assert files[0].endswith("@0.csv")
    monkeypatch.setattr(medmnist.evaluator.Evaluator.__init__, "__defaults__", (None, str(DATA)))
    for name, table in zip(files, (result.test, result.validation), strict=True):
        path = str(tmp_path / "run" / name)
        area, accuracy = medmnist.evaluator.Evaluator.parse_and_evaluate(path)
        assert area == pytest.approx(table["auc"], abs=1e-6)
        assert accuracy == pytest.approx(table["accuracy"], abs=1e-12)
    assert load_run(tmp_path / "run").config.epochs == 2
