"""What training is made of and leaves behind: epochs, their learning rates, random streams.

Nothing here costs anything worth a number.

    rate = learning_rate(config, step=30, steps=9)
    initial, order, drop, view = streams(config.seed)
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from samcls.learn.heads.base import Head
from samcls.learn.settings import TrainConfig

__all__ = ["Epoch", "Fitted", "learning_rate", "streams"]


@dataclass(frozen=True)
class Epoch:
    """One pass over the training split.

    Attributes:
        epoch: From 1.
        learning_rate: Of the pass's last step.
        train_loss: Mean over the pass, dropout and class weights included.
        val_loss: After the pass, class weights included.
        val_auc: After the pass, mean over tasks; None where validation has one class only.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    val_loss: float
    val_auc: float | None

    def __str__(self) -> str:
        val_auc = "undefined" if self.val_auc is None else f"{self.val_auc:.4f}"
        return f"validation AUC {val_auc}, loss {self.val_loss:.4f} (epoch {self.epoch})"

    def rank(self) -> tuple[float, float]:
        """Greater is better: validation AUC, then a lower validation loss."""
        return (-1.0 if self.val_auc is None else self.val_auc, -self.val_loss)


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a loop leaves behind.

    Attributes:
        head: The head as it was after the best epoch.
        best: The epoch chosen.
        history: Every epoch that ran; one entry, at rate 0, for a head that is solved.
        tried: Models between which validation chose, epochs of one training counting as one.
        chosen: For a head that is solved, the number chosen for each task; of an ensemble, each part's.
        parts: Of an ensemble, what each part's fitting left.
        held: Under inner folds, what was said of each training image by heads that had not seen it,
            "image class" by task; None where a validation split chose.
        trail: Where it was asked for, what was said of the validation images by every number that was
            to be chosen: the epoch, or for a head that is solved each task's own.
    """

    head: Head
    best: Epoch
    history: tuple[Epoch, ...]
    tried: int
    chosen: Mapping[str, float]
    parts: "Mapping[TrainConfig, Fitted]" = field(default_factory=dict)
    held: Mapping[str, np.ndarray] | None = None
    trail: Mapping[str, Mapping[float, Mapping[str, np.ndarray]]] = field(default_factory=dict)


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """Return the rate of a step: a linear rise over the warm-up, then half a cosine down to zero.

    Args:
        config: Peak rate, share of warm-up and number of epochs.
        step: From 0, over all epochs.
        steps: Steps in an epoch.
    """
    total = config.epochs * steps
    rise = config.warmup * total
    if step < rise:
        return config.learning_rate * (step + 1) / (rise + 1)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - rise) / (total - rise)))


def streams(seed: int) -> tuple[torch.Generator, ...]:
    """Independent streams for initial weights, order of images, dropout and views, from one seed."""
    states = np.random.SeedSequence(seed).generate_state(4, np.uint64)
    return tuple(torch.Generator().manual_seed(int(state)) for state in states)
