"""MedMNIST's prediction files: what its evaluator reads, and what could only mislead it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import medmnist
import medmnist.evaluator
import numpy as np
import pytest
from support.data import DATA as REAL

from samcls.errors import ConfigError
from samcls.learn.runs.folder import load_run
from samcls.learn.runs.medmnist import PUBLISHED
from samcls.learn.runs.repeats import train_repeats
from samcls.learn.runs.train import train
from samcls.learn.settings import TrainConfig
from samcls.store.feature_store import FeatureStore
from samcls.store.schema import DONE, FAILED

MakeStore = Callable[..., FeatureStore]
CONFIG = TrainConfig(
    head="slca", epochs=2, batch_size=16, learning_rate=1e-2, reduction=2, intervals=20
)
DATA = REAL / "medmnist"


def breast(**changes: Any) -> dict[str, Any]:
    """Options of a store with as many images and classes as BreastMNIST, fewer to train on."""
    splits = ["train"] * 40 + ["val"] * 78 + ["test"] * 156
    numbers = [*range(40), *range(78), *range(156)]
    ids = [f"{split}_{i:05}" for split, i in zip(splits, numbers, strict=True)]
    options = {"images": 274, "ids": ids, "splits": splits, "tasks": {"label": ("0", "1")}}
    return options | {"strength": 3.0} | changes


def test_the_published_numbers_are_medmnists() -> None:
    """Images of val and test, classes and tasks of every two-dimensional set."""
    flat = {flag: info for flag, info in medmnist.INFO.items() if not flag.endswith("3d")}
    assert set(PUBLISHED) == set(flat)
    for flag, info in flat.items():
        several = "multi-label" in info["task"]
        named = len(info["label"])
        found = (2, named) if several else (named, 1)
        sizes = info["n_samples"]
        assert PUBLISHED[flag] == (sizes["val"], sizes["test"], *found), flag


def test_what_the_evaluator_could_not_judge_is_refused_before_training(
    make_store: MakeStore, tmp_path: Path
) -> None:
    """Other splits, orders, classes, labels and failed images, each in words; no folder is made."""
    good = breast()
    ids, splits = list(good["ids"]), good["splits"]
    labels = np.random.default_rng(0).integers(0, 2, (274, 1))
    unlabelled = labels.copy()
    unlabelled[100] = -1
    status = np.full(274, DONE, dtype=np.uint8)
    status[3] = FAILED
    cases = {
        "split val has 77 images; breastmnist has 78 there": {
            "splits": [*splits[:117], "test", *splits[118:]]
        },
        "split test is not in MedMNIST's order: its row 0 is test_00155": {
            "ids": ids[:118] + ids[:117:-1]
        },
        "task label has the classes 1, 0; breastmnist has 0, 1, in that order": {
            "tasks": {"label": ("1", "0")}
        },
        "task label has the classes benign, malignant": {
            "tasks": {"label": ("benign", "malignant")}
        },
        r"2 tasks are learned \(label_0, label_1\); breastmnist has 1": {
            "tasks": {"label_0": ("0", "1"), "label_1": ("0", "1")}
        },
        "1 images of val and test have no label": {"labels": unlabelled},
        "1 images could not be encoded": {"status": status},
    }
    for number, (words, changes) in enumerate(cases.items()):
        store = make_store(name=f"{number}.zarr", **breast(**changes))
        with pytest.raises(ConfigError, match=words):
            train(store, CONFIG, tmp_path / "run", medmnist="breastmnist_64")
    store = make_store(**good)
    with pytest.raises(ConfigError, match="split val has 78 images; retinamnist has 120"):
        train(store, CONFIG, tmp_path / "run", medmnist="retinamnist")
    for flag, words in {
        "breastmist": "MedMNIST's breastmist; did you mean breastmnist",
        "breastmnist_32": "did you mean breastmnist",
        "isic": "expected one of pathmnist, chestmnist",
    }.items():
        with pytest.raises(ConfigError, match=words):
            train(store, CONFIG, tmp_path / "run", medmnist=flag)
    with pytest.raises(ConfigError, match="3 folds were asked for"):
        train_repeats(store, CONFIG, tmp_path / "run", folds=3, medmnist="breastmnist")
    table = tmp_path / "labels.csv"
    rows = [f"{one},{label}" for one, label in zip(ids, labels[:, 0], strict=True)]
    table.write_text("\n".join(["id,label", *rows]))
    other = replace(CONFIG, labels=str(table))
    with pytest.raises(ConfigError, match=r"the labels are those of .*labels\.csv"):
        train(store, other, tmp_path / "run", medmnist="breastmnist")
    assert not (tmp_path / "run").exists()


def test_seeds_and_a_share_of_the_training_images_are_fine(
    make_store: MakeStore, tmp_path: Path
) -> None:
    """Each seed's files are numbered by it; validation and test stay whole under a share."""
    config = replace(CONFIG, train_fraction=0.5)
    train_repeats(
        make_store(**breast()), config, tmp_path / "many", seeds=2, medmnist="breastmnist"
    )
    for seed in (0, 1):
        (test,) = (tmp_path / "many" / f"seed-{seed}").glob(f"breastmnist_test_*@{seed}.csv")
        assert len(test.read_text().splitlines()) == 156


@pytest.mark.parametrize(("flag", "classes"), [("breastmnist", 2), ("retinamnist", 5)])
def test_medmnists_evaluator_reads_the_predictions(
    flag: str, classes: int, make_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its figures from our file are ours, and the name is the one it would give."""
    if not (DATA / f"{flag}.npz").exists():
        pytest.skip(f"needs {flag}.npz in {DATA}")

    arrays = np.load(DATA / f"{flag}.npz")
    splits = ("train", "val", "test")
    labels = np.concatenate([arrays[f"{split}_labels"] for split in splits])
    names = [split for split in splits for _ in arrays[f"{split}_labels"]]
    tasks = {"label": tuple(str(c) for c in range(classes))}
    ids = [f"{split}_{i:05}" for split in splits for i in range(names.count(split))]
    store = make_store(len(labels), ids=ids, tasks=tasks, labels=labels, splits=names, strength=1.0)
    result = train(store, CONFIG, tmp_path / "run", medmnist=flag)
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
