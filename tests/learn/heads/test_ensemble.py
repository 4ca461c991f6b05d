"""Ensembles: the mean of what their parts say, each part as if it were alone."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from samcls.errors import ConfigError, RunError
from samcls.learn.features.tensors import ChannelScaler, Features, load_features
from samcls.learn.fit import ensemble as fitting
from samcls.learn.fit import fit as fitting_all
from samcls.learn.fit.fit import fit, fit_together
from samcls.learn.fit.prediction import predict_logits, to_probabilities
from samcls.learn.fit.schedule import Fitted
from samcls.learn.heads.controls import judges
from samcls.learn.heads.ensemble import EnsembleHead
from samcls.learn.heads.registry import head_class
from samcls.learn.runs.train import train
from samcls.learn.settings import TrainConfig
from samcls.store.feature_store import FeatureStore

MakeStore = Callable[..., FeatureStore]
CONFIG = TrainConfig(epochs=4, batch_size=16, learning_rate=1e-2, reduction=2, intervals=0)
TASKS = {"melanoma": ("no", "yes"), "grade": ("low", "mid", "high")}
Said = dict[str, np.ndarray]


@pytest.fixture
def features(make_store: MakeStore) -> Features:
    """Two tasks under two views."""
    found = load_features(make_store(80, tasks=TASKS, views=("identity", "hflip"), strength=3.0))
    return found.standardised(ChannelScaler.fit(found, found.rows("train")))


def said(fitted: Fitted | RunError, features: Features) -> Said:
    assert isinstance(fitted, Fitted)
    return to_probabilities(predict_logits(fitted.head, features), features.tasks)


@pytest.mark.parametrize("members", [1, 3])
def test_it_says_the_mean_of_its_parts(features: Features, members: int) -> None:
    """A quarter each for the three regressions and for all heads together."""
    config = replace(CONFIG, members=members)
    parts = EnsembleHead.parts(config)
    alone = [said(fit(features, part), features) for part in parts]
    for task, found in said(fit(features, config), features).items():
        heads = np.mean([one[task] for one in alone[:members]], axis=0)
        expected = np.mean([heads, *(one[task] for one in alone[members:])], axis=0)
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_its_first_head_is_the_one_that_is_trained_alone(features: Features) -> None:
    """To the last bit; the others have seeds of their own."""
    config = replace(CONFIG, members=3)
    heads = EnsembleHead.heads(config)
    assert heads[0] == replace(CONFIG, head="slca")
    assert len({part.seed for part in heads}) == 3
    parts = fit(features, config).parts
    alone = fit(features, heads[0])
    for name, value in alone.head.state_dict().items():
        assert torch.equal(parts[heads[0]].head.state_dict()[name], value)
    assert parts[heads[0]].history == alone.history
    other = replace(config, seed=1)
    assert EnsembleHead.heads(other)[0].seed == 1
    assert not {part.seed for part in EnsembleHead.heads(other)} & {part.seed for part in heads}


def test_its_bits_do_not_depend_on_the_number_of_threads(features: Features) -> None:
    """Parts side by side, or one after another."""
    found = [
        fitting.fit_ensembles(features, [CONFIG], fit_together, lanes=lanes)[0] for lanes in (1, 2)
    ]
    first, second = (said(one, features) for one in found)
    for task in TASKS:
        np.testing.assert_array_equal(first[task], second[task])


def test_regressions_are_solved_once(features: Features, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ensembles ask for them; and what is known is not fitted again."""
    asked = []
    solve = fitting_all.solve

    def counted(features: Features, config: TrainConfig) -> Fitted:
        asked.append(config.head)
        return solve(features, config)

    monkeypatch.setattr(fitting_all, "solve", counted)
    configs = [replace(CONFIG, learning_rate=rate) for rate in (1e-3, 1e-2)]
    together = fit_together(features, configs)
    assert sorted(asked) == ["logistic", "logistic-statistics", "logistic-windows"]
    one = fit(features, configs[1])
    for task, found in said(together[1], features).items():
        np.testing.assert_allclose(found, said(one, features)[task], atol=1e-6)
    asked.clear()
    again = fit(features, configs[1], known=one.parts)
    assert not asked
    assert again.tried == 0
    assert one.tried == 2 + 3 * 5 * len(TASKS)


def test_a_diverging_head_fails_the_ensemble_and_no_other(features: Features) -> None:
    """With the remedy that the head itself has."""
    configs = [CONFIG, replace(CONFIG, learning_rate=1e30, weight_decay=1e9)]
    good, bad = fit_together(features, configs)
    assert isinstance(good, Fitted)
    assert isinstance(bad, RunError)
    assert "lower learning_rate" in str(bad)


@pytest.mark.parametrize(
    "head", ["ensemble:logistic", "ensemble:guided:resnet18", "ensemble:slco", "ensemble:"]
)
def test_only_heads_that_are_trained_on_features_make_one(head: str, make_store: MakeStore) -> None:
    """Anything else is refused by name, before anything is read."""
    with pytest.raises(
        ConfigError, match=rf"cannot train on .*\n.*{head.removeprefix('ensemble:')}"
    ):
        train(make_store(20), replace(CONFIG, head=head))


def test_a_run_shows_a_head_alone_and_what_heads_add(make_store: MakeStore) -> None:
    """The control that decides whether attention pays is the ensemble without its heads."""
    result = train(make_store(240, strength=2.0), replace(CONFIG, intervals=50))
    regressions = ["logistic", "logistic-statistics", "logistic-windows", "regressions"]
    assert list(result.baselines) == ["majority", *regressions, "slca"]
    assert result.models_tried == 2 + 3 * 5
    gain = result.gain["malignancy"]
    assert gain["control"] == "regressions"
    test = result.baselines["regressions"]["test"]
    assert gain["difference"] == pytest.approx(result.test["auc"] - test["auc"], abs=1e-6)
    assert set(result.chosen) == {
        "slca 1, epoch",
        "slca 2, epoch",
        *(f"{name}, malignancy" for name in regressions[:3]),
    }
    assert "best of" not in repr(result)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ordinal", {"ordinal": ("grade",)}),
        ("missing labels", {}),
        ("class weights", {"class_weights": "balanced"}),
    ],
)
def test_the_recipe_serves_every_kind_of_label(
    make_store: MakeStore, name: str, options: dict[str, Any]
) -> None:
    """Two tasks at once: each has its own control, and parts that keep to what was asked."""
    generator = np.random.default_rng(3)
    labels = np.stack([generator.integers(0, 2, 150), generator.integers(0, 3, 150)], axis=1)
    if name == "missing labels":
        labels[generator.random(labels.shape) < 0.3] = -1
    if name == "class weights":
        labels[:, 0] = generator.random(150) < 0.2
    store = make_store(150, tasks=TASKS, labels=labels, strength=3.0)
    config = replace(CONFIG, intervals=50, epochs=8, **options)
    result = train(store, config)
    assert {task: one["control"] for task, one in result.gain.items()} == {
        "melanoma": "regressions",
        "grade": "regressions",
    }
    assert min(result.test["tasks"][task]["auc"] for task in TASKS) > 0.6
    parts = EnsembleHead.parts(config)
    assert all(part.class_weights == config.class_weights for part in parts)
    assert [bool(part.ordinal) for part in parts] == [bool(config.ordinal)] * 2 + [False] * 3
    if name == "missing labels":
        known = (labels >= 0) & (np.array(store.splits) == "train")[:, None]
        assert [one["train"] for one in result.labelled.values()] == known.sum(0).tolist()


def test_regressions_alone_are_an_ensemble_without_heads(features: Features) -> None:
    """The mean of the three, which learns no order."""
    config = replace(CONFIG, head="regressions")
    alone = [said(fit(features, part), features) for part in EnsembleHead.parts(CONFIG)[2:]]
    for task, found in said(fit(features, config), features).items():
        np.testing.assert_allclose(found, np.mean([one[task] for one in alone], 0), atol=1e-6)
    assert not head_class("regressions").learns_order
    assert judges(config) == ()
    assert (
        judges(CONFIG)
        == judges(replace(CONFIG, head="ensemble:attention-pool"))
        == ("regressions",)
    )
    assert (
        judges(replace(CONFIG, head="ensemble:linear")) == judges(replace(CONFIG, head="se")) == ()
    )
