"""Columns of the manifest beside the image: what they become, who learns them, and what they are worth."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from samcls.errors import ConfigError
from samcls.learn.features.columns import with_columns
from samcls.learn.features.meta import encode, learn_columns, meta_width, unseen
from samcls.learn.fit.fit import fit
from samcls.learn.runs.folder import load_run
from samcls.learn.runs.inputs import check, features_for
from samcls.learn.runs.train import train
from samcls.learn.settings import TrainConfig
from samcls.store.feature_store import FeatureStore
from samcls.sweep.space import parse_space
from samcls.sweep.sweep import sweep

MakeStore = Callable[..., FeatureStore]
TEXTS = {
    "age": ["40", "", "60.0", "50", "nan"],
    "sex": ["f", "m", "", "f", "x"],
    "site": ["1", "2", "1", "2", "1"],
    "mixed": ["1", "2", "old", "3", "4"],
    "empty": ["", "na", "", "NaN", "N/A"],
    "name": ["a", "b", "c", "d", "e"],
}
TRAIN = np.arange(4)
CONFIG = TrainConfig(
    head="slca", epochs=4, batch_size=16, learning_rate=1e-2, reduction=2, intervals=0,
    with_meta=("age", "sex"),
)  # fmt: skip


def test_numbers_and_categories_are_learned_from_training_images() -> None:
    """A missing number is the mean and is marked; a category that training lacks counts as missing."""
    columns = learn_columns(TEXTS, ["age", "sex", "site=category"], TRAIN)
    assert [column.categories for column in columns] == [None, ("f", "m"), ("1", "2")]
    assert columns[0].middle == 50
    assert meta_width(columns) == 2 + 3 + 3
    expected = [
        [40, 0, 1, 0, 0, 1, 0, 0],
        [50, 1, 0, 1, 0, 0, 1, 0],
        [60, 0, 0, 0, 1, 1, 0, 0],
        [50, 0, 1, 0, 0, 0, 1, 0],
        [50, 1, 0, 0, 1, 1, 0, 0],
    ]
    np.testing.assert_array_equal(encode(columns, TEXTS), expected)
    assert unseen(columns, TEXTS) == [
        "column sex: 1 images have x, which no training image has; it counts as missing"
    ]
    assert learn_columns(TEXTS, ["site"], TRAIN)[0].categories is None


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("agee", "no column agee; the store has age, sex, .* did you mean age"),
        ("mixed", "column mixed has numbers and old; mend those cells, or .* mixed=category"),
        ("sex=number", "column sex has numbers and f, m, x; mend"),
        ("empty", "column empty is missing for every training image"),
        ("name", "column name has 4 categories in 4 training images, so it names images"),
    ],
)
def test_what_cannot_be_taken_is_said(wanted: str, said: str) -> None:
    """By name, with what to do."""
    with pytest.raises(ConfigError, match=said):
        learn_columns(TEXTS, [wanted], TRAIN)


@pytest.fixture
def store(make_store: MakeStore) -> FeatureStore:
    """Images that say little, and an age that says much."""
    images = 120
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, (images, 1))
    age = [f"{50 + 10 * label + generator.normal(0, 6):.1f}" for label in labels[:, 0]]
    sex = [("f", "m", "")[i % 3] for i in range(images)]
    views = ("identity", "hflip")
    meta = {"age": age, "sex": sex}
    return make_store(
        images, strength=0.3, labels=labels, meta=meta, views=views, groups=[""] * images
    )


@pytest.mark.parametrize("head", ["slca", "se", "attention-pool", "mlp", "knn", "ensemble:slca"])
def test_every_head_takes_them_in(store: FeatureStore, head: str) -> None:
    """What images do not say, columns do; the table has each alone and both."""
    result = train(store, replace(CONFIG, head=head, epochs=20, patience=0))
    tables = {name: one["test"]["auc"] for name, one in result.baselines.items()}
    assert tables["columns alone"] > 0.75
    assert result.test["auc"] > tables["image alone"] + 0.04
    assert result.test["auc"] > 0.65


def test_the_image_alone_is_the_run_without_them(store: FeatureStore) -> None:
    """To the last figure; off by default."""
    both = train(store, CONFIG)
    plain = train(store, replace(CONFIG, with_meta=()))
    assert both.baselines["image alone"]["test"] == plain.test
    assert "image alone" not in plain.baselines
    assert TrainConfig().with_meta == ()


def test_a_run_keeps_what_it_learned_of_them(store: FeatureStore, tmp_path: Path) -> None:
    """Read back, the model encodes other rows as training rows were."""
    train(store, CONFIG, tmp_path / "run")
    run = load_run(tmp_path / "run")
    targets = check(store, CONFIG)
    features = features_for(store, CONFIG, targets)
    assert run.model.meta == features.meta
    again = with_columns(
        features_for(store, replace(CONFIG, with_meta=()), targets), store, run.model.meta
    )
    assert torch.equal(again.tokens["meta"], features.tokens["meta"])
    said = run.model.probabilities(again.tokens, again.counts, again.views)["malignancy"]
    rows = features.rows("test").numpy()
    np.testing.assert_allclose(
        said[rows], run.predictions("test").probabilities["malignancy"], atol=1e-6
    )


def test_test_rows_teach_nothing(store: FeatureStore) -> None:
    """Other ages in the test split change no weight."""
    targets = check(store, CONFIG)
    features = features_for(store, CONFIG, targets)
    before = fit(features, CONFIG).head.state_dict()
    features.tokens["meta"][features.flat(features.rows("test"))] = 1e6
    for name, value in fit(features, CONFIG).head.state_dict().items():
        assert torch.equal(before[name], value)


def test_a_sweep_takes_them_in(store: FeatureStore, tmp_path: Path) -> None:
    """Its runs are those of train, also on shares, whose own columns score the test split."""
    text = (
        'search = "grid"\nseeds = 2\nfractions = [0.5, 1.0]\n[fixed]\nhead = "logistic"\nintervals = 0\n'
        '[space]\nwith_meta = [[], ["age", "sex"]]\n'
    )
    result = sweep(store.path, tmp_path / "sweep", parse_space(text))
    assert result.failed == 0
    assert result.best["config"]["with_meta"] == ["age", "sex"]
    alone = train(store, TrainConfig(head="logistic", intervals=0, with_meta=("age", "sex")))
    assert result.best["test"]["auc"] == pytest.approx(alone.test["auc"], abs=1e-6)
    assert result.efficiency["test"][-1]["auc"] == pytest.approx(alone.test["auc"], abs=1e-6)


def test_networks_take_none(store: FeatureStore) -> None:
    """Their gates are on features of the image."""
    with pytest.raises(ConfigError, match="networks over pixels take no columns"):
        check(store, TrainConfig(head="guided:resnet18", with_meta=("age",)))
