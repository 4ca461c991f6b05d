"""Nested selection says what the chosen heads are worth; the folds that chose say more."""

import numpy as np
import pytest
import torch

from samcls.learn.features.folds import divisions
from samcls.learn.features.tensors import ChannelScaler, Features
from samcls.learn.fit.fit import fit
from samcls.learn.fit.prediction import predict_logits, to_probabilities
from samcls.learn.score.scoring import auc
from samcls.learn.settings import TrainConfig

HEADS = ("logistic", "logistic-statistics", "logistic-windows", "knn")
IMAGES, FRESH, FOLDS, SAMPLES = 90, 1000, 5, 400
TASKS = {"t": ("a", "b")}


def drawn(seed: int) -> Features:
    """Images to learn from and to test on by folds, and many fresh ones behind them; a weak signal."""
    generator = np.random.default_rng(seed)
    number = IMAGES + FRESH
    labels = generator.integers(0, 2, number)
    tokens = generator.normal(size=(number, 4, 5))
    tokens[:, 0, :2] += 0.5 * labels[:, None]
    return Features(
        tokens={"x": torch.from_numpy(tokens).float()},
        counts={"x": torch.ones(number, 4)},
        labels=torch.from_numpy(labels)[:, None],
        ids=tuple(map(str, range(number))),
        splits=("train",) * number,
        groups=("",) * number,
        tasks=TASKS,
        window=1,
        grids={"x": (2, 2)},
        views=1,
        fingerprint={},
        failed=0,
    )


def worth(head: torch.nn.Module, features: Features, rows: np.ndarray) -> float:
    logits = predict_logits(head, features, torch.from_numpy(rows))  # type: ignore[arg-type]
    found = auc(features.labels.numpy()[rows], to_probabilities(logits, TASKS))
    assert found is not None
    return found


@pytest.mark.slow
def test_nested_estimates_are_not_biased() -> None:
    """Within 0.005 on the mean, where the best validation figure is too high by several times that."""
    nested, flat = [], []
    fresh = np.arange(IMAGES, IMAGES + FRESH)
    for sample in range(SAMPLES):
        whole = drawn(sample)
        labels, groups = whole.labels.numpy()[:IMAGES], [""] * IMAGES
        for rest, test in divisions(labels, groups, FOLDS, 0):
            splits = np.full(IMAGES + FRESH, "unused", dtype=object)
            splits[rest], splits[test] = "train", "test"
            features = Features(**{**vars(whole), "splits": tuple(splits.tolist())})
            features = features.standardised(ChannelScaler.fit(features, features.rows("train")))
            found = [fit(features, TrainConfig(head=head, select="inner:3")) for head in HEADS]
            best = max(found, key=lambda one: one.best.val_auc or 0)
            truth = worth(best.head, features, fresh)
            nested.append(worth(best.head, features, test) - truth)
            flat.append((best.best.val_auc or 0) - truth)
    errors = np.reshape(nested, (SAMPLES, FOLDS)).mean(1)
    print(  # noqa: T201 - shown by pytest -s
        f"nested {errors.mean():+.4f} (standard error {errors.std() / SAMPLES**0.5:.4f}), "
        f"the folds that chose {np.mean(flat):+.4f}"
    )
    assert abs(errors.mean()) < 0.005
    assert np.mean(flat) > 0.01
