"""Heads that are solved instead of trained: one number a task, chosen on validation.

fitted = solve(features, config)
"""

from collections.abc import Callable
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
from samcls.learn.heads.base import Head, SolvedHead
from samcls.learn.heads.layers import SMALLEST
from samcls.learn.heads.registry import build_head
from samcls.learn.score.scoring import auc
from samcls.learn.settings import TrainConfig

__all__ = ["outcome", "solve"]


def solve(features: Features, config: TrainConfig) -> Fitted:
    """Solve a head that needs no descent, its one number chosen on validation.

    Args:
        features: Standardised features with rows in `train` and `val`.
        config: Of a head whose `fitting` is `solution`.
    """
    initial, *_ = streams(config.seed)
    head = cast("SolvedHead", build_head(config, shape_of(features), initial))
    train, val = features.rows("train"), features.rows("val")
    labels = features.labels[train].repeat_interleave(features.views, 0).numpy()
    judges = {i: _judge(features, val, i) for i in range(len(features.tasks))}
    # One thread: these products are small, and beside another process on 2 cores the two threads
    # of OpenBLAS took 4.6 s where one took 0.1 s.
    with threadpool_limits(1, user_api="blas"):
        head.prepare(lambda rows: select(features, rows), features.flat(train))
        reduced = [_reduced(head, features, rows) for rows in (train, val)]
        chosen = head.solve(reduced[0], labels, reduced[1], judges)
    head.to(features.device)
    epoch = outcome(head, features, config)
    named = {task: chosen[i] for i, task in enumerate(features.tasks)}
    return Fitted(head, epoch, (epoch,), len(head.grid) * len(features.tasks), named)


def outcome(head: Head, features: Features, config: TrainConfig) -> Epoch:
    """Return losses and validation AUC of a head that is fitted, as its only epoch.

    Args:
        head: On the features' device.
        features: Standardised features with rows in `train` and `val`.
        config: Its loss and class weights.
    """
    train, val = features.rows("train"), features.rows("val")
    criterion = Criterion.of(
        features.labels[train], [len(names) for names in features.tasks.values()], config
    )
    losses = []
    for rows in (train, val):
        logits = predict_logits(head, features, rows)
        losses.append(criterion(logits, features.labels[rows]).item())
    found = auc(features.labels[val].numpy(), to_probabilities(logits, features.tasks))
    return Epoch(1, 0.0, losses[0], losses[1], found)


def _reduced(head: SolvedHead, features: Features, rows: Tensor) -> Float[Tensor, "view value"]:
    size = batch_size(features.tokens)
    return batched(lambda part: head.reduced(*select(features, part)), features.flat(rows), size)


def _judge(
    features: Features, val: Tensor, task: int
) -> Callable[[np.ndarray], tuple[float, float]]:
    """Return a function from probabilities of validation images under each view to their rank."""
    labels = features.labels[val, task].numpy()
    known = labels >= 0

    def judge(probabilities: np.ndarray) -> tuple[float, float]:
        means = probabilities.reshape(-1, features.views, probabilities.shape[1]).mean(1)
        found = auc(labels[:, None], {"task": means})
        log_likelihoods = np.log(np.clip(means[known, labels[known]], SMALLEST, 1))
        return -1.0 if found is None else found, float(
            log_likelihoods.mean()
        ) if known.any() else 0.0

    return judge
