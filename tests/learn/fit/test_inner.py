"""Inner selection: what is chosen by folds of all but the test split, and who saw what."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from samcls.errors import ConfigError
from samcls.learn.features.targets import targets_of
from samcls.learn.features.tensors import ChannelScaler, Features, load_features
from samcls.learn.fit.fit import fit, fit_together
from samcls.learn.fit.inner import inner_features
from samcls.learn.fit.members import MemberTrainer
from samcls.learn.fit.prediction import predict_logits, to_probabilities
from samcls.learn.fit.schedule import Fitted
from samcls.learn.fit.solve import solve_with
from samcls.learn.runs.folder import load_run
from samcls.learn.runs.inputs import check
from samcls.learn.runs.repeats import train_repeats
from samcls.learn.runs.train import train
from samcls.learn.score.scoring import auc
from samcls.learn.settings import TrainConfig
from samcls.store.feature_store import FeatureStore
from samcls.sweep.space import parse_space
from samcls.sweep.sweep import sweep

MakeStore = Callable[..., FeatureStore]
TASKS = {"melanoma": ("no", "yes"), "grade": ("low", "mid", "high")}
CONFIG = TrainConfig(
    head="slca", select="inner:3x2", epochs=5, batch_size=16, learning_rate=1e-2, reduction=2,
    intervals=0,
)  # fmt: skip
HEADS = ("slca", "linear", "logistic", "knn", "ensemble:slca")


@pytest.fixture
def features(make_store: MakeStore) -> Features:
    """Two tasks, two views; patients of two images each."""
    groups = tuple(f"p{i // 2}" for i in range(90))
    splits = ["train"] * 50 + ["val"] * 20 + ["test"] * 20
    views = ("identity", "hflip")
    store = make_store(90, tasks=TASKS, views=views, strength=2.0, groups=groups, splits=splits)
    found = load_features(store, targets=targets_of(store, CONFIG))
    assert set(found.splits) == {"train", "test"}
    return found.standardised(ChannelScaler.fit(found, found.rows("train")))


@pytest.mark.parametrize("head", HEADS)
def test_no_outer_image_is_seen(features: Features, head: str) -> None:
    """Whatever stands in the test split, features and labels, nothing that is fitted changes by a bit."""
    config = replace(CONFIG, head=head, select="inner:2", epochs=2)
    before = fit(features, config)
    rows = features.rows("test")
    for tokens in features.tokens.values():
        tokens[features.flat(rows)] = float("nan")
    features.labels[rows] = 1 - features.labels[rows].clamp(max=1)
    after = fit(features, config)
    for name, value in before.head.state_dict().items():
        assert torch.equal(after.head.state_dict()[name], value)
    assert before.held is not None
    assert after.held is not None
    for task, held in before.held.items():
        np.testing.assert_array_equal(after.held[task], held)
    assert (before.history, before.chosen) == (after.history, after.chosen)


def test_folds_are_stratified_and_hold_groups_whole(features: Features) -> None:
    """Each repeat tests every image once, divided otherwise; the test split takes no part."""
    folds = list(inner_features(features, 3, 2))
    labels, groups = features.labels.numpy()[:, 0], np.array(features.groups)
    held = [fold.rows("val").numpy() for fold in folds]
    assert len(folds) == 6
    for repeat in (held[:3], held[3:]):
        assert sorted(np.concatenate(repeat)) == features.rows("train").tolist()
    assert {tuple(rows) for rows in held[:3]} != {tuple(rows) for rows in held[3:]}
    for fold, rows in zip(folds, held, strict=True):
        assert set(fold.splits) == {"train", "val", "unused"}
        assert not set(groups[rows]) & set(groups[fold.rows("train").numpy()])
        assert abs(labels[rows].mean() - labels[features.rows("train").numpy()].mean()) < 0.12


def test_a_strength_is_the_one_with_the_best_mean_over_folds(features: Features) -> None:
    """Recomputed fold by fold; what is held is what those heads said, and the head is fitted on all."""
    config = replace(CONFIG, head="logistic")
    fitted = fit(features, config)
    folds = list(inner_features(features, 3, 2))
    plain = replace(config, select="holdout")
    labels = features.labels.numpy()
    said, means = {}, {}
    for C in (1e-4, 1e-3, 1e-2, 1e-1, 1.0):
        found = []
        for fold in folds:
            rows = fold.rows("val")
            head = solve_with(fold, plain, dict.fromkeys(TASKS, C)).head
            found.append(to_probabilities(predict_logits(head, fold, rows), TASKS))
        said[C] = found
        for i, task in enumerate(TASKS):
            each = [
                auc(labels[fold.rows("val").numpy()][:, [i]], {task: one[task]})
                for fold, one in zip(folds, found, strict=True)
            ]
            means[task, C] = np.mean([-1.0 if a is None else a for a in each])
    places = {row: place for place, row in enumerate(features.rows("train").tolist())}
    assert fitted.held is not None
    for task in TASKS:
        C = fitted.chosen[task]
        assert means[task, C] == pytest.approx(max(means[task, c] for c in said))
        total = np.zeros_like(fitted.held[task])
        for fold, one in zip(folds, said[C], strict=True):
            total[[places[row] for row in fold.rows("val").tolist()]] += one[task] / 2
        np.testing.assert_allclose(fitted.held[task], total, atol=2e-5)
    whole = solve_with(features, plain, fitted.chosen).head
    for name, value in whole.state_dict().items():
        assert torch.equal(fitted.head.state_dict()[name], value)


def test_an_epoch_is_chosen_and_trained_for_on_all_images(features: Features) -> None:
    """As many passes over everything as the folds' mean liked best; the history is their mean."""
    fitted = fit(features, CONFIG)
    trainer = MemberTrainer(features, [replace(CONFIG, select="holdout")])
    for number in range(1, fitted.best.epoch + 1):
        trainer.training_pass(number)
    head = trainer.head(0, trainer.weights(0))
    for name, value in head.state_dict().items():
        assert torch.equal(fitted.head.state_dict()[name], value)
    assert len(fitted.history) == fitted.best.epoch
    aucs = [epoch.val_auc or 0 for epoch in fitted.history[:-1]]
    assert all(np.isfinite(epoch.val_loss) for epoch in fitted.history)
    assert len(aucs) == fitted.best.epoch - 1
    rows = features.rows("train").numpy()
    assert fitted.held is not None
    assert fitted.best.val_auc == auc(features.labels.numpy()[rows], fitted.held)


def test_heads_together_are_those_alone(features: Features) -> None:
    """Of other rates and lengths, each with its own epoch."""
    configs = [replace(CONFIG, learning_rate=rate, epochs=n) for rate, n in ((1e-2, 5), (1e-3, 3))]
    for one, config in zip(fit_together(features, configs), configs, strict=True):
        alone = fit(features, config)
        assert isinstance(one, Fitted)
        assert one.best.epoch == alone.best.epoch
        for name, value in alone.head.state_dict().items():
            torch.testing.assert_close(one.head.state_dict()[name], value)


def test_a_run_says_what_chose(make_store: MakeStore, tmp_path: Path) -> None:
    """Validation figures are of all that was learned from, out of fold, and so are the predictions kept."""
    store = make_store(90, strength=2.0)
    config = replace(CONFIG, head="ensemble:slca")
    result = train(store, config, tmp_path / "run")
    learned = sum(split != "test" for split in store.splits)
    assert result.images == {"train": learned, "val": 0, "test": 90 - learned, "failed": 0}
    assert result.select == "inner:3x2"
    run = load_run(tmp_path / "run")
    said = run.predictions("val")
    assert len(said.ids) == learned
    assert auc(said.labels, said.probabilities) == pytest.approx(result.validation["auc"], abs=1e-6)
    assert run.loss == pytest.approx(run.history[-1].val_loss)
    assert result.validation["auc"] < 0.9999  # not what heads say of images that they have seen
    assert len(run.controls("val")["logistic"].ids) == learned


def test_outer_folds_are_nested(make_store: MakeStore, tmp_path: Path) -> None:
    """Each outer fold chooses by inner folds of the others."""
    store = make_store(90, strength=2.0)
    config = replace(CONFIG, head="logistic")
    result = train_repeats(store, config, tmp_path / "runs", folds=3)
    assert result["select"] == "inner:3x2"
    assert result["pooled"][0]["images"] == 90
    for run in (load_run(tmp_path / "runs" / f"seed-0-fold-{fold}") for fold in range(3)):
        tested = set(run.predictions("test").ids)
        assert set(run.predictions("val").ids) == set(store.ids) - tested


def test_a_sweep_chooses_by_inner_folds(make_store: MakeStore, tmp_path: Path) -> None:
    """Its runs are those that train makes, their validation figures out of fold."""
    store = make_store(90, strength=2.0)
    space = (
        'search = "grid"\n[fixed]\nhead = "slca"\nselect = "inner:3"\nepochs = 3\nreduction = 2\n'
        "intervals = 0\n[space]\nlearning_rate = [0.01, 0.001]\n"
    )
    sweep(store.path, tmp_path / "sweep", parse_space(space))
    config = TrainConfig(
        head="slca", select="inner:3", epochs=3, reduction=2, intervals=0, learning_rate=0.01
    )
    alone = train(store, config)
    runs = [load_run(path.parent) for path in (tmp_path / "sweep" / "runs").rglob("COMPLETE")]
    (same,) = [run for run in runs if run.config == config]
    assert same.auc == pytest.approx(alone.validation["auc"], abs=1e-6)
    assert len(same.said.ids) == sum(split != "test" for split in store.splits)


@pytest.mark.parametrize("text", ["inner", "inner:1", "inner:5x0", "outer:5", "inner:5x"])
def test_a_wrong_selection_is_said(text: str) -> None:
    """With what was got and what there is."""
    with pytest.raises(ConfigError, match=f'select: got "{text}", expected holdout, inner:FOLDS'):
        TrainConfig(select=text)


def test_what_cannot_be_chosen_so_is_refused(make_store: MakeStore) -> None:
    """Networks over pixels, and fewer groups than folds; a validation split is not needed."""
    store = make_store(30, strength=2.0)
    with pytest.raises(ConfigError, match="networks over pixels are chosen by holdout alone"):
        check(store, TrainConfig(head="guided:resnet18", select="inner:3"))
    with pytest.raises(ConfigError, match="select is inner:40, and train and validation have"):
        check(store, TrainConfig(select="inner:40"))
    labels = np.array([[int(i % 6 == 0)] for i in range(30)])
    few = make_store(30, labels=labels, groups=[""] * 30, name="few.zarr")
    with pytest.raises(
        ConfigError, match=r"without a class \(groups or images: benign \d+, malignant 4"
    ):
        check(few, TrainConfig(select="inner:5"))
    splits = ["train"] * 20 + ["test"] * 10
    train(
        make_store(30, strength=2.0, splits=splits, name="no-val.zarr"), replace(CONFIG, head="knn")
    )
