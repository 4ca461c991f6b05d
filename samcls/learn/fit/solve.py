"""Heads that are solved instead of trained: one number a task, chosen on validation.

fitted = solve(features, config)
"""

import math
from collections.abc import Mapping
from typing import cast

import numpy as np
from jaxtyping import Float
from threadpoolctl import threadpool_limits
from torch import Tensor

from samcls.learn.features.batches import batch_size, batched, select
from samcls.learn.features.tensors import Features
from samcls.learn.fit.losses import Criterion
from samcls.learn.fit.prediction import predict_logits, shape_of, to_probabilities
from samcls.learn.fit.schedule import Epoch, Fitted, streams
from samcls.learn.heads.base import Head, Judge, SolvedHead
from samcls.learn.heads.registry import build_head
from samcls.learn.score.scoring import auc, log_loss
from samcls.learn.settings import TrainConfig

__all__ = ["outcome", "solve", "solve_with", "training_loss"]


def solve(features: Features, config: TrainConfig) -> Fitted:
    """Solve a head that needs no descent, its one number chosen on validation.

    Args:
        features: Standardised features with rows in `train` and `val`.
        config: Of a head whose `fitting` is `solution`.
    """
    rows = features.rows("val")
    judges = {i: _Judge(features, rows, i) for i in range(len(features.tasks))}
    head, chosen = _solved(features, config, rows, judges)
    epoch = outcome(head, features, config)
    trail = {
        task: {
            float(number): {task: said}
            for number, said in zip(head.grid, judges[i].said, strict=False)
        }
        for i, task in enumerate(features.tasks)
    }
    tried = len(head.grid) * len(features.tasks)
    return Fitted(head, epoch, (epoch,), tried, chosen, trail=trail)


def solve_with(features: Features, config: TrainConfig, numbers: Mapping[str, float]) -> Fitted:
    """Solve a head on the training images with numbers that were chosen before.

    Args:
        features: Standardised features with rows in `train`.
        config: As for `solve`.
        numbers: Of its grid, for each task.

    Returns:
        Its epoch has the training loss alone.
    """
    rows = features.rows("train")
    initial, *_ = streams(config.seed)
    grid = cast("SolvedHead", build_head(config, shape_of(features), initial)).grid
    places = {i: grid.index(numbers[task]) for i, task in enumerate(features.tasks)}
    judges = {i: _Given(place) for i, place in places.items()}
    head, chosen = _solved(features, config, rows[:1], judges)
    epoch = Epoch(1, 0.0, training_loss(head, features, config), math.nan, None)
    return Fitted(head, epoch, (epoch,), len(head.grid) * len(features.tasks), chosen)


def _solved(
    features: Features, config: TrainConfig, val: Tensor, judges: Mapping[int, Judge]
) -> tuple[SolvedHead, dict[str, float]]:
    """Return a solved head, and the number chosen for each task."""
    initial, *_ = streams(config.seed)
    head = cast("SolvedHead", build_head(config, shape_of(features), initial))
    train = features.rows("train")
    labels = features.labels[train].repeat_interleave(features.views, 0).numpy()
    # One thread: these products are small, and beside another process on 2 cores the two threads
    # of OpenBLAS took 4.6 s where one took 0.1 s.
    with threadpool_limits(1, user_api="blas"):
        head.prepare(lambda rows: select(features, rows), features.flat(train))
        reduced = [_reduced(head, features, rows) for rows in (train, val)]
        chosen = head.solve(reduced[0], labels, reduced[1], judges)
    head.to(features.device)
    return head, {task: chosen[i] for i, task in enumerate(features.tasks)}


def outcome(head: Head, features: Features, config: TrainConfig) -> Epoch:
    """Return losses and validation AUC of a head that is fitted, as its only epoch.

    Args:
        head: On the features' device.
        features: Standardised features with rows in `train` and `val`.
        config: Its loss and class weights.
    """
    train, val = features.rows("train"), features.rows("val")
    criterion = _criterion(features, config)
    losses = []
    for rows in (train, val):
        logits = predict_logits(head, features, rows)
        losses.append(criterion(logits, features.labels[rows]).item())
    found = auc(features.labels[val].numpy(), to_probabilities(logits, features.tasks))
    return Epoch(1, 0.0, losses[0], losses[1], found)


def training_loss(head: Head, features: Features, config: TrainConfig) -> float:
    """Return a fitted head's loss on the training images.

    Args:
        head: On the features' device.
        features: Standardised features with rows in `train`.
        config: Its loss and class weights.
    """
    rows = features.rows("train")
    logits = predict_logits(head, features, rows)
    return float(_criterion(features, config)(logits, features.labels[rows]).item())


def _criterion(features: Features, config: TrainConfig) -> Criterion:
    classes = [len(names) for names in features.tasks.values()]
    return Criterion.of(features.labels[features.rows("train")], classes, config)


def _reduced(head: SolvedHead, features: Features, rows: Tensor) -> Float[Tensor, "view value"]:
    size = batch_size(features.tokens)
    return batched(lambda part: head.reduced(*select(features, part)), features.flat(rows), size)


class _Judge:
    """Ranks probabilities of validation images under each view, and keeps them.

    Args:
        features: What they are of.
        val: The images.
        task: Whose probabilities they are.
    """

    def __init__(self, features: Features, val: Tensor, task: int) -> None:
        self.labels = features.labels[val, task].numpy()
        self.views = features.views
        self.said: list[np.ndarray] = []

    def __call__(self, probabilities: np.ndarray) -> tuple[float, float]:
        means = probabilities.reshape(-1, self.views, probabilities.shape[1]).mean(1)
        self.said.append(means)
        found = auc(self.labels[:, None], {"task": means})
        loss = log_loss(self.labels[:, None], {"task": means})
        return -1.0 if found is None else found, -loss


class _Given:
    """Prefers the number at one place of the grid, whatever it says.

    Args:
        place: From 0.
    """

    def __init__(self, place: int) -> None:
        self.place, self.seen = place, -1

    def __call__(self, probabilities: np.ndarray) -> tuple[float, float]:
        del probabilities
        self.seen += 1
        return float(self.seen == self.place), 0.0
