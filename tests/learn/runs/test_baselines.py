"""Baselines: what a reviewer would compare with."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from samcls.learn.features.tensors import Features, load_features
from samcls.learn.heads.closed import GRID
from samcls.learn.runs.baselines import Answer, baselines, majority_answer
from samcls.learn.score.scoring import score
from samcls.learn.settings import TrainConfig
from samcls.store.feature_store import FeatureStore

MakeStore = Callable[..., FeatureStore]
CONFIG = TrainConfig()


def regression(features: Features, config: TrainConfig = CONFIG) -> Answer:
    return dict(baselines(features, config))["logistic"]


def test_logistic_regression_is_scikit_learns_with_the_best_c(make_store: MakeStore) -> None:
    """A pipeline written out with scikit-learn gives the same probabilities and C."""
    features = load_features(make_store(200, strength=2.0, valid=np.full((200, 2), (128, 90))))
    answer = regression(features)
    probabilities, chosen = answer.probabilities, answer.chosen
    pooled = np.concatenate(
        [
            np.stack(
                [
                    np.average(features.tokens[level][i], axis=0, weights=features.counts[level][i])
                    for i in range(200)
                ]
            )
            for level in features.tokens
        ],
        axis=1,
    )
    y, split = features.labels[:, 0].numpy(), np.array(features.splits)
    aucs, answers = [], []
    for C in GRID:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=C, tol=1e-8, max_iter=5000))
        model.fit(pooled[split == "train"], y[split == "train"])
        answers.append(model.predict_proba(pooled))
        aucs.append(roc_auc_score(y[split == "val"], answers[-1][split == "val", 1]))
    best = int(np.argmax(aucs))
    assert chosen == {"malignancy": GRID[best]}
    np.testing.assert_allclose(probabilities["malignancy"], answers[best], atol=2e-3)
    assert max(aucs) > 0.7


def test_each_task_has_its_own_regression(make_store: MakeStore) -> None:
    """Missing labels are left out, absent classes get probability 0, and rows sum to 1."""
    tasks = {"a": ("no", "yes"), "b": ("x", "y", "z")}
    generator = np.random.default_rng(0)
    labels = np.stack([generator.integers(0, 2, 60), 2 * generator.integers(0, 2, 60)], axis=1)
    labels[:20, 0] = -1
    features = load_features(make_store(60, tasks=tasks, labels=labels))
    answer = regression(features, TrainConfig(class_weights="balanced"))
    probabilities, chosen = answer.probabilities, answer.chosen
    assert set(chosen) == {"a", "b"}
    assert probabilities["b"].shape == (60, 3)
    assert not probabilities["b"][:, 1].any()
    for values in probabilities.values():
        np.testing.assert_allclose(values.sum(1), 1, atol=1e-6)


def test_validation_without_an_auc_chooses_by_loss(make_store: MakeStore) -> None:
    """Where validation has one class only, the C with the lowest validation loss is taken."""
    splits = ["train"] * 40 + ["val"] * 5 + ["test"] * 5
    labels = np.array([0, 1] * 20 + [1] * 10)[:, None]
    features = load_features(make_store(50, splits=splits, labels=labels, strength=12.0))
    assert regression(features).chosen == {"malignancy": GRID[-1]}


def test_regression_leaves_features_and_threads_alone(make_store: MakeStore) -> None:
    """The features are the same after the baselines, and so is the number of threads."""
    threadpoolctl = pytest.importorskip("threadpoolctl")
    features = load_features(make_store(50))
    before = {level: tokens.clone() for level, tokens in features.tokens.items()}
    threads = [pool["num_threads"] for pool in threadpoolctl.threadpool_info()]
    regression(features)
    assert all(torch.equal(before[level], features.tokens[level]) for level in before)
    assert [pool["num_threads"] for pool in threadpoolctl.threadpool_info()] == threads


def test_the_majority_answer_scores_the_majority_rate(make_store: MakeStore) -> None:
    """Always answering the training majority has AUC 0.5 and the split's majority rate."""
    tasks = {"grade": ("low", "mid", "high")}
    features = load_features(make_store(60, tasks=tasks))
    answer = majority_answer(features, {"grade": 2})
    table = score(features.labels.numpy(), answer, features.tasks, {"grade": 2}, parts=50)
    assert table["auc"] == 0.5
    assert table["auc_interval"] == [0.5, 0.5]
    assert table["accuracy"] == table["majority"]
    assert table["majority"] == np.mean(features.labels[:, 0].numpy() == 2)
    assert table["balanced_accuracy"] == pytest.approx(1 / 3)
