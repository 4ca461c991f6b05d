"""What fitting costs: how many heads at once, how long an epoch.

How many heads pay in one pass is measured by `samcls bench sweep`: on a CPU their gates in a step should
stay in the processor's cache, on a GPU in half of its free memory. An epoch is priced by training one.

    members_at_once(config, shape, device)
    epoch_seconds(features, configs)
"""

import time
from collections.abc import Sequence
from dataclasses import replace

import torch

from samcls.device import training_dtype
from samcls.learn.features.tensors import Features
from samcls.learn.fit.fit import steady_threads, trainer_of
from samcls.learn.fit.inner import inner_features
from samcls.learn.fit.loop import Loop
from samcls.learn.heads.base import Shape
from samcls.learn.heads.registry import build_head, head_class
from samcls.learn.settings import TrainConfig

__all__ = ["epoch_seconds", "members_at_once", "solution_seconds"]

# Of all members' gates in a step; beyond it memory, not arithmetic, sets the pace.
CPU_BYTES = 48_000_000
MOST = 64  # members of a group: what is lost where a process dies
SOLVED_IN = 0.5  # seconds


def members_at_once(config: TrainConfig, shape: Shape, device: torch.device) -> int:
    """How many heads of a config's architecture are fitted in one pass.

    Args:
        config: One of them.
        shape: What they are given.
        device: Where they train.
    """
    kind = head_class(config.head)
    if kind.fitting == "network":
        return 1
    if kind.fitting == "solution":
        return MOST if device.type == "cpu" else 1
    if kind.fitting == "ensemble":
        heads = kind.heads(config)
        return max(1, members_at_once(heads[0], shape, device) // len(heads)) if heads else MOST
    mixed = training_dtype(config.precision, device) != torch.float32
    if mixed or not build_head(config, shape, torch.Generator()).stacks:
        return 1
    tokens = {
        k: 1 if kind.means_suffice else rows * cols for k, (rows, cols) in shape.grids.items()
    }
    values = sum(tokens[level] * channels for level, channels in shape.channels.items())
    room = CPU_BYTES
    if device.type == "cuda":
        room = torch.cuda.mem_get_info(device)[0] // 2
    most = MOST if device.type == "cpu" else 16 * MOST
    return max(1, min(most, room // (4 * config.batch_size * values)))


def solution_seconds(config: TrainConfig) -> float | None:
    """About how long a head takes that is solved; None for one that is trained by the epoch."""
    kind = head_class(config.head)
    solved = kind.fitting == "solution" or (kind.fitting == "ensemble" and not kind.heads(config))
    return SOLVED_IN if solved else None


def epoch_seconds(features: Features, configs: Sequence[TrainConfig]) -> float:
    """How long an epoch of heads that are trained takes, here and now; 0 where all diverge at once.

    Args:
        features: Standardised, where they will be trained.
        configs: Of one architecture, of as many as are trained at once.
    """
    if configs[0].inner:
        folds, repeats = configs[0].inner
        inside = next(inner_features(features, folds, repeats))
        plain = [replace(config, select="holdout") for config in configs]
        return epoch_seconds(inside, plain) * (folds * repeats + 1)
    with steady_threads(features, configs[0]):
        trainer = trainer_of(features, configs)
        if trainer.slow:
            start = time.perf_counter()
            trainer.training_pass(1)
            return time.perf_counter() - start
        loop = Loop(trainer)
        loop.epoch()
        if not loop.running:
            return 0.0
        start = time.perf_counter()
        loop.epoch()
        return time.perf_counter() - start
