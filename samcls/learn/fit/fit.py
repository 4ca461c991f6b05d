"""One config, one head: solved, or trained with its epoch chosen on validation alone.

A single training is a population of one (`population`), so that sweeps and single runs agree. Equal
seeds give equal heads, bit for bit, at the same number of threads; nothing global is touched. On one
CPU core an epoch over 546 images with five levels of 16 tokens x 256 channels takes 0.05 s.

    fitted = fit(features.standardised(standardiser), config)
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from samcls.learn.features.tensors import Features
from samcls.learn.fit.loop import Log, Population, fit_together
from samcls.learn.fit.prediction import shape_of
from samcls.learn.fit.schedule import Fitted, streams
from samcls.learn.fit.solve import solve
from samcls.learn.heads import HEADS, ClosedHead, build_head
from samcls.learn.settings import TrainConfig

__all__ = ["fit", "steady_threads", "train_pass"]

LARGE_STEP = 16_000_000  # token values in a step from which a second thread pays


def fit(
    features: Features,
    config: TrainConfig,
    log: Log = lambda _: None,
    checkpoint: Path | None = None,
) -> Fitted:
    """Train a head on the training split and choose its epoch on the validation split.

    Args:
        features: Standardised features with rows in `train` and `val`; `test` is never looked at.
            Training runs on their device, where the head then is.
        config: How to train.
        log: Called with a line of progress now and then.
        checkpoint: File that a long training is put away in and goes on from: a guided network's.

    Raises:
        RunError: where the loss stops being a finite number.
    """
    if HEADS[config.head].sees_pixels:
        # timm takes seconds to import, which no other head should wait for.
        from samcls.learn.fit.network import fit_guided

        return fit_guided(features, config, log, checkpoint)
    initial, *_ = streams(config.seed)
    head = build_head(config, shape_of(features), initial)
    with steady_threads(features, config):
        if isinstance(head, ClosedHead):
            return solve(head, features, config)
        (fitted,) = fit_together(features, [config], log)
        if isinstance(fitted, Fitted):
            return fitted
        raise fitted


def train_pass(features: Features, config: TrainConfig) -> Callable[[], object]:
    """A function that trains for one pass without a look at validation, to be timed.

    Args:
        features: Standardised features with rows in `train`.
        config: How to train.
    """
    if HEADS[config.head].sees_pixels:
        from samcls.learn.fit.network import Training

        training = Training(features, config)
        return lambda: training.training_pass(1)
    population = Population(features, [config])
    return lambda: population.training_pass(1)


@contextmanager
def steady_threads(features: Features, config: TrainConfig) -> Iterator[None]:
    """Run small steps on one thread, and put the number of threads back afterwards.

    Beside another process on the same 2 cores, a step on 64 images of 16 tokens x 256 channels took
    4 ms on one thread and 10 ms on two, which wait for each other at every operation. The choice
    depends on sizes alone, so that equal runs stay equal. A guided network's steps are never small.
    """
    if HEADS[config.head].sees_pixels:
        yield
        return
    values = sum(rows * cols * features.channels[k] for k, (rows, cols) in features.grids.items())
    before = torch.get_num_threads()
    torch.set_num_threads(before if config.batch_size * values > LARGE_STEP else 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
