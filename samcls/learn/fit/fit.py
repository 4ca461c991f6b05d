"""One config or several of one architecture, fitted: solved, or trained with the epoch chosen on validation.

Equal seeds give equal heads, bit for bit, alone or with others, at the same number of threads;
nothing global is touched. How a head is fitted it says itself (`Head.fitting`).

    fitted = fit(features.standardised(scaler), config)
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from samcls.errors import RunError
from samcls.learn.features.tensors import Features
from samcls.learn.fit.ensemble import Known, fit_ensembles
from samcls.learn.fit.inner import fit_inner
from samcls.learn.fit.loop import Log, Loop, Trainer
from samcls.learn.fit.members import MemberTrainer
from samcls.learn.fit.schedule import Fitted
from samcls.learn.fit.solve import solve
from samcls.learn.heads.registry import head_class
from samcls.learn.settings import TrainConfig

__all__ = ["fit", "fit_together", "steady_threads", "trainer_of"]

LARGE_STEP = 16_000_000  # token values in a step from which a second thread pays


def fit(
    features: Features,
    config: TrainConfig,
    log: Log = lambda _: None,
    checkpoint: Path | None = None,
    seconds: float | None = None,
    known: Known | None = None,
) -> Fitted:
    """Fit a head on the training split and choose its epoch on the validation split.

    Args:
        features: Standardised features with rows in `train` and `val`; `test` is never looked at.
            Training runs on their device, where the head then is.
        config: How to train.
        log: Called with a line of progress now and then.
        checkpoint: File that a long training is put away in and goes on from: a network's.
        seconds: Least time between two checkpoints; None means `loop.CHECKPOINT_SECONDS`.
        known: What was fitted on these features before: neither it nor a part of it is fitted again.

    Raises:
        ConfigError: where the head cannot be built for the features.
        WeightsError: where pretrained weights cannot be had.
        RunError: where the loss stops being a finite number.
    """
    if known and config in known:
        return known[config]
    (fitted,) = fit_together(features, [config], log, lambda _: checkpoint, seconds, known)
    if isinstance(fitted, RunError):
        raise fitted
    return fitted


def fit_together(
    features: Features,
    configs: Sequence[TrainConfig],
    log: Log = lambda _: None,
    checkpoint: Callable[[TrainConfig], Path | None] = lambda _: None,
    seconds: float | None = None,
    known: Known | None = None,
) -> list[Fitted | RunError]:
    """Fit one head for each config, in one pass over the data where the head can.

    Args:
        features: As for `fit`.
        configs: Of one `architecture`.
        log: As for `fit`.
        checkpoint: File for each config's training, where it is long.
        seconds: As for `fit`.
        known: As for `fit`.

    Returns:
        For each config what its training left, or why it failed; one that diverges does not stop
        the others.
    """
    with steady_threads(features, configs[0]) as lanes:
        fitting = head_class(configs[0].head).fitting
        if fitting == "ensemble":
            return fit_ensembles(features, configs, fit_together, log, lanes, known)
        if configs[0].inner and fitting != "network":
            return fit_inner(features, configs, log)
        if fitting == "solution":
            return [solve(features, config) for config in configs]
        groups = [configs] if fitting == "members" else [[config] for config in configs]
        found: list[Fitted | RunError] = []
        for group in groups:
            trainer = trainer_of(features, group, log)
            loop = Loop(trainer, log, checkpoint(group[0]), seconds)
            loop.run()
            found += loop.results()
        return found


def trainer_of(
    features: Features, configs: Sequence[TrainConfig], log: Log = lambda _: None
) -> Trainer:
    """Return what trains heads of these configs, which are not of one that is solved.

    Args:
        features: Standardised features with rows in `train` and `val`.
        configs: Of one `architecture`; one alone of a network.
        log: Told what there is to say before the first epoch.
    """
    kind = head_class(configs[0].head)
    if kind.fitting == "ensemble":
        configs = [part for config in configs for part in head_class(config.head).heads(config)]
    if kind.fitting in {"members", "ensemble"}:
        return MemberTrainer(features, configs)
    from samcls.learn.fit.network import NetworkTrainer

    (config,) = configs
    return NetworkTrainer(features, config, log)


@contextmanager
def steady_threads(features: Features, config: TrainConfig) -> Iterator[int]:
    """Run small steps on one thread, and put the number of threads back afterwards.

    Beside another process on the same 2 cores, a step on 64 images of 16 tokens x 256 channels took
    4 ms on one thread and 10 ms on two, which wait for each other at every operation. The choice
    depends on sizes alone, so that equal runs stay equal. A network's steps are never small.

    Yields:
        How many such trainings the threads serve side by side.
    """
    before = torch.get_num_threads()
    if head_class(config.head).fitting == "network":
        yield 1
        return
    values = sum(rows * cols * features.channels[k] for k, (rows, cols) in features.grids.items())
    alone = config.batch_size * values > LARGE_STEP or features.device.type != "cpu"
    torch.set_num_threads(before if config.batch_size * values > LARGE_STEP else 1)
    try:
        yield 1 if alone else before
    finally:
        torch.set_num_threads(before)
