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
from samcls.learn.heads.base import SolvedHead
from samcls.learn.heads.layers import SMALLEST
from samcls.learn.heads.registry import build_head
from samcls.learn.score.scoring import auc
from samcls.learn.settings import TrainConfig

__all__ = ["solve"]


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
    means = [_means(head, features, rows) for rows in (train, val)]
    # One thread: these products are small, and beside another process on 2 cores the two threads
    # of OpenBLAS took 4.6 s where one took 0.1 s.
    with threadpool_limits(1, user_api="blas"):
        chosen = head.solve(means[0], labels, means[1], judges)
    head.to(features.device)
    classes = [len(names) for names in features.tasks.values()]
    criterion = Criterion.of(features.labels[train], classes, config)
    logits = {
        name: predict_logits(head, features, rows) for name, rows in (("t", train), ("v", val))
    }
    found = auc(features.labels[val].numpy(), to_probabilities(logits["v"], features.tasks))
    losses = [
        criterion(logits[k], features.labels[r]).item() for k, r in (("t", train), ("v", val))
    ]
    epoch = Epoch(1, 0.0, losses[0], losses[1], found)
    named = {task: chosen[i] for i, task in enumerate(features.tasks)}
    return Fitted(head, epoch, (epoch,), len(head.grid) * len(features.tasks), named)


def _means(head: SolvedHead, features: Features, rows: Tensor) -> Float[Tensor, "view feature"]:
    size = batch_size(features.tokens)
    return batched(lambda part: head.means(*select(features, part)), features.flat(rows), size)


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
