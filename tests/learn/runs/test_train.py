"""One config, one run: honest, reproducible, and refused before any work where it cannot be."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from samcls.errors import ConfigError, InputError, OverwriteRefused
from samcls.learn.features.tensors import load_features
from samcls.learn.runs.folder import load_run
from samcls.learn.runs.train import train
from samcls.learn.settings import TrainConfig
from samcls.store.feature_store import FeatureStore
from samcls.store.schema import DONE, FAILED, PENDING

MakeStore = Callable[..., FeatureStore]
CONFIG = TrainConfig(
    head="slca", epochs=12, batch_size=16, learning_rate=1e-2, reduction=2, intervals=50
)
TWO_TASKS = {"melanoma": ("no", "yes"), "grade": ("low", "mid", "high")}


def test_a_run_has_every_promised_figure(make_store: MakeStore, tmp_path: Path) -> None:
    """The result has the keys that scripts rely on, tables with intervals, and the baselines."""
    result = train(make_store(200, strength=12.0), CONFIG, tmp_path / "run").to_dict()
    assert result["run"] == str(tmp_path / "run")
    assert result["head"] == "slca"
    assert result["images"] == {"train": 120, "val": 40, "test": 40, "failed": 0}
    assert 1 <= result["best_epoch"] <= result["epochs"] <= 12
    assert result["seconds"] > 0
    assert list(result["seconds_by_stage"]) == ["load", "train", "baselines", "score"]
    # Levels of 6 and 4 channels: bottlenecks of 3 and 2, then a linear layer from 10 to 2.
    assert result["parameters"] == (6 * 3 + 3 + 3 * 6 + 6) + (4 * 2 + 2 + 2 * 4 + 4) + 22
    assert result["models_tried"] == 1 + 3 * 5
    tables = [result["validation"], result["test"]]
    for name in ("majority", "logistic"):
        tables += [result["baselines"][name]["validation"], result["baselines"][name]["test"]]
    for table in tables:
        for figure in ("auc", "accuracy", "balanced_accuracy"):
            low, high = table[f"{figure}_interval"]
            assert low - 1e-12 <= table[figure] <= high + 1e-12
        assert table["images"] == 40
    assert result["test"]["auc"] > 0.9
    assert result["baselines"]["majority"]["test"]["accuracy"] == result["test"]["majority"]
    assert result["baselines"]["majority"]["test"]["auc"] == 0.5
    json.dumps(result, allow_nan=False)


def test_the_folder_holds_the_run(make_store: MakeStore, tmp_path: Path) -> None:
    """The folder's model gives the folder's predictions, and those give the folder's figures."""
    store = make_store(100, strength=2.0)
    result = train(store, CONFIG, tmp_path / "run")
    run = load_run(tmp_path / "run")
    assert run.config == CONFIG
    assert run.fingerprint == store.fingerprint.to_dict()
    assert run.metrics == {k: v for k, v in result.to_dict().items() if k != "run"}
    assert run.model.parameters == result.parameters
    with (tmp_path / "run" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    features = load_features(store)
    given = run.model.probabilities(features.tokens, features.counts)["malignancy"]
    written = np.array([[row["p_benign"], row["p_malignant"]] for row in rows], dtype=np.float32)
    assert np.array_equal(given, written)
    right = [
        (float(row["p_malignant"]) > 0.5) == (row["label"] == "malignant")
        for row in rows
        if row["split"] == "test"
    ]
    assert np.mean(right) == result.test["accuracy"]
    history = (tmp_path / "run" / "history.csv").read_text().splitlines()
    assert len(history) == 1 + result.epochs


def test_equal_seeds_give_equal_runs(make_store: MakeStore, tmp_path: Path) -> None:
    """Two runs of one config write the same model, predictions and figures, byte for byte."""
    store = make_store(100, strength=1.0)
    first, second = (train(store, CONFIG, tmp_path / name) for name in ("a", "b"))
    for name in ("head.safetensors", "predictions.csv", "history.csv", "config.toml", "head.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert first.test == second.test
    assert first.baselines == second.baselines


def test_test_labels_change_nothing_but_the_test_figures(make_store: MakeStore) -> None:
    """With the test labels turned round, epoch, C and validation figures are the same."""
    store = make_store(100, strength=1.0)
    maps = {level: store.read(level) for level in store.levels}
    labels = store.labels.copy()
    test = np.array(store.splits) == "test"
    labels[test] = 1 - labels[test]
    turned = make_store(100, name="turned.zarr", labels=labels, features=maps)
    first, second = train(store, CONFIG), train(turned, CONFIG)
    assert first.best_epoch == second.best_epoch
    assert first.validation == second.validation
    for name in ("majority", "logistic"):
        assert first.baselines[name]["validation"] == second.baselines[name]["validation"]
    assert first.baselines["logistic"]["chosen"] == second.baselines["logistic"]["chosen"]
    assert second.test["auc"] == pytest.approx(1 - first.test["auc"])


def test_several_tasks_have_a_table_each(make_store: MakeStore, tmp_path: Path) -> None:
    """Two tasks with missing labels learn together: a table each, and the means on top."""
    generator = np.random.default_rng(0)
    labels = np.stack([generator.integers(0, 2, 300), generator.integers(0, 3, 300)], axis=1)
    labels[::4, 0] = -1
    store = make_store(300, tasks=TWO_TASKS, labels=labels, strength=6.0)
    result = train(store, CONFIG, tmp_path / "run")
    tables = result.test["tasks"]
    assert set(tables) == set(TWO_TASKS)
    assert tables["melanoma"]["images"] < tables["grade"]["images"] == 60
    assert result.test["auc"] == pytest.approx(np.mean([t["auc"] for t in tables.values()]))
    assert all(table["auc"] > 0.8 for table in tables.values())
    assert set(result.baselines["logistic"]["chosen"]) == set(TWO_TASKS)
    assert result.models_tried == 1 + 3 * 2 * 5
    assert load_run(tmp_path / "run").model.tasks == TWO_TASKS


def test_one_task_of_several_can_be_learned_alone(make_store: MakeStore) -> None:
    """Naming one task gives that task's figures, without a table of tasks."""
    store = make_store(100, tasks=TWO_TASKS)
    config = TrainConfig(tasks=("grade",), epochs=1, intervals=0)
    result = train(store, config)
    assert "tasks" not in result.test
    assert "auc_interval" not in result.test


def test_failed_images_are_left_out_and_counted(make_store: MakeStore) -> None:
    """A store with failed rows can be trained on; the failed ones are counted and never seen."""
    status = np.full(60, DONE, dtype=np.uint8)
    status[[0, 7, 14]] = FAILED
    lines: list[str] = []
    result = train(make_store(60, status=status), CONFIG, log=lines.append)
    assert result.images == {"train": 34, "val": 12, "test": 11, "failed": 3}
    assert lines[0] == (
        "images: 34 train, 12 val, 11 test, 3 failed; levels (channels): block:1 (6), neck (4); "
        "window 2"
    )


def test_everything_that_stands_against_a_run_is_said_at_once(
    make_store: MakeStore, tmp_path: Path
) -> None:
    """One error names all wrong options and what the store lacks; no folder is made."""
    labels = np.zeros((9, 2), dtype=np.int64)
    labels[3:6] = (1, -1)
    store = make_store(
        9, tasks=TWO_TASKS, labels=labels, splits=["train"] * 3 + ["val"] * 3 + ["train"] * 3
    )
    config = TrainConfig(head="slac", levels=("late",), tasks=("grade", "age"), window=5)
    with pytest.raises(ConfigError) as caught:
        train(store, config, tmp_path / "run")
    first, *lines = str(caught.value).splitlines()
    assert first == f"cannot train on {store.path}:"
    starts = [
        "unknown level late; the store has block:1, neck",
        "window 5 is no multiple of 2",
        "unknown task age; the store has melanoma, grade",
        "unknown head slac; known heads: slca",
        "no image in split test; give the manifest rows of split test and extract again",
        "task grade: every training label is low; training needs images of at least two classes",
        "task grade: no image of split val has a label; leave the task out",
    ]
    assert len(lines) == len(starts)
    for line, start in zip(lines, starts, strict=True):
        assert line.strip().startswith(start)
    assert not (tmp_path / "run").exists()


def test_a_store_with_pending_images_is_not_trained_on(make_store: MakeStore) -> None:
    """An unfinished extract is finished first; the error says how many images wait."""
    status = np.full(50, DONE, dtype=np.uint8)
    status[30:] = PENDING
    with pytest.raises(
        ConfigError, match=r"20 of 50 images are pending; run the same samcls extra"
    ):
        train(make_store(50, status=status), CONFIG)


def test_a_finished_run_is_not_overwritten(make_store: MakeStore, tmp_path: Path) -> None:
    """The refusal comes before any work, and the run is as it was."""
    store = make_store(50)
    train(store, CONFIG, tmp_path / "run")
    before = (tmp_path / "run" / "predictions.csv").read_bytes()
    lines: list[str] = []
    with pytest.raises(OverwriteRefused, match="run holds a finished run"):
        train(store, TrainConfig(seed=5), tmp_path / "run", lines.append)
    assert lines == []
    assert (tmp_path / "run" / "predictions.csv").read_bytes() == before


def test_an_unfinished_run_is_started_again(make_store: MakeStore, tmp_path: Path) -> None:
    """A folder without its mark is trained again from the beginning, and gives the same run."""
    store = make_store(50)
    train(store, CONFIG, tmp_path / "run")
    before = (tmp_path / "run" / "head.safetensors").read_bytes()
    (tmp_path / "run" / "COMPLETE").unlink()
    (tmp_path / "run" / "head.safetensors").write_bytes(before[:100])
    lines: list[str] = []
    train(store, CONFIG, tmp_path / "run", lines.append)
    assert "unfinished run; starting it again from the beginning" in "".join(lines)
    assert (tmp_path / "run" / "head.safetensors").read_bytes() == before
    assert load_run(tmp_path / "run").config == CONFIG


def test_larger_windows_train_from_the_same_store(make_store: MakeStore) -> None:
    """One store serves every multiple of its window, down to one window over the whole map."""
    store = make_store(60)
    for window in (2, 4, 8):
        result = train(store, TrainConfig(window=window, epochs=2, intervals=0))
        assert result.test["auc"] is not None


def test_labels_outside_the_classes_are_refused(make_store: MakeStore) -> None:
    """The error says how many there are, names one image, and which labels there may be."""
    labels = np.arange(20)[:, None] % 2
    labels[[3, 8]] = 5
    with pytest.raises(ConfigError) as caught:
        train(make_store(20, labels=labels), CONFIG)
    assert (
        "task malignancy: 2 images have a label outside its 2 classes, such as 5 of image-3;"
        in (str(caught.value))
    )
    assert "expected 0 (benign) to 1 (malignant), or -1 where it is missing" in str(caught.value)


def test_a_split_without_a_class_is_said(make_store: MakeStore) -> None:
    """The log names the class and the split, and the run goes on without a NaN."""
    tasks = {"grade": ("low", "mid", "high")}
    labels = np.arange(60)[:, None] % 3
    splits = np.array([("train", "train", "val", "test")[i // 15] for i in range(60)])
    labels[(splits == "train") & (labels[:, 0] == 2)] = 0
    labels[(splits == "test") & (labels[:, 0] == 1)] = 0
    lines: list[str] = []
    store = make_store(60, tasks=tasks, labels=labels, splits=splits.tolist())
    result = train(store, CONFIG, log=lines.append)
    assert lines[1:3] == [
        "task grade: no image of class high in split train; it cannot be learned",
        "task grade: no image of class mid in split test; its AUC is not defined",
    ]
    assert result.test["absent_classes"] == ["mid"]
    json.dumps(result.to_dict(), allow_nan=False)


def test_an_interrupted_run_is_unfinished_and_can_be_started_again(
    make_store: MakeStore, tmp_path: Path
) -> None:
    """Stopped in the middle of training, a run is not believed; the same command ends it as ever."""
    store = make_store(50)

    def stop(line: str) -> None:
        if line.startswith("epoch 10"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(store, CONFIG, tmp_path / "run", stop)
    with pytest.raises(InputError, match="is unfinished: it has no COMPLETE mark; train it again"):
        load_run(tmp_path / "run")
    train(store, CONFIG, tmp_path / "run")
    train(store, CONFIG, tmp_path / "whole")
    for name in ("head.safetensors", "predictions.csv"):
        files = [(tmp_path / run / name).read_bytes() for run in ("run", "whole")]
        assert files[0] == files[1]


def test_a_share_of_the_training_split_is_a_run_of_its_own(
    make_store: MakeStore, tmp_path: Path
) -> None:
    """Fewer images train, as many are scored, and a share that loses a class is refused."""
    store = make_store(100, strength=8.0)
    config = replace(CONFIG, train_fraction=0.2)
    result = train(store, config, tmp_path / "run")
    assert 10 <= result.images["train"] <= 14  # groups of two are whole
    assert (result.images["val"], result.images["test"]) == (20, 20)
    assert load_run(tmp_path / "run").config == config
    with pytest.raises(ConfigError, match=r"cannot train on .*\n  train_fraction 0.001 of 60 "):
        train(store, replace(CONFIG, train_fraction=0.001))
