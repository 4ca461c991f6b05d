"""The training loop: minibatches of cached features, model choice on validation alone.

The whole split lies in memory; a step is an index_select for each level, the head, and a fused
AdamW. On one CPU core an epoch over 546 images with five levels of 16 tokens x 256 channels takes
0.11 s. Equal seeds give equal heads, bit for bit, at the same number of threads; nothing global is
touched.

    fitted = fit(features.standardised(standardiser), config)
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from samcls.config import TrainConfig
from samcls.errors import RunError
from samcls.learn.features import Features
from samcls.learn.heads import Head, build_head, split_logits
from samcls.learn.metrics import auc
from samcls.learn.model import predict_logits, select, to_probabilities

__all__ = ["Criterion", "Epoch", "Fitted", "fit", "learning_rate"]

Log = Callable[[str], None]

LOG_EVERY = 10  # epochs between two lines of the log


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
        area = "undefined" if self.val_auc is None else f"{self.val_auc:.4f}"
        return f"validation AUC {area}, loss {self.val_loss:.4f} (epoch {self.epoch})"

    def rank(self) -> tuple[float, float]:
        """Greater is better: validation AUC, then a lower validation loss."""
        return (-1.0 if self.val_auc is None else self.val_auc, -self.val_loss)


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a loop leaves behind.

    Attributes:
        head: The head as it was after the best epoch.
        best: The epoch chosen.
        history: Every epoch that ran.
    """

    head: Head
    best: Epoch
    history: tuple[Epoch, ...]


def fit(features: Features, config: TrainConfig, log: Log = lambda _: None) -> Fitted:
    """Train a head on the training split and choose its epoch on the validation split.

    Args:
        features: Standardised features with rows in `train` and `val`; `test` is never looked at.
        config: How to train.
        log: Called with a line of progress now and then.

    Raises:
        RunError: where the loss stops being a finite number.
    """
    trainer = _Trainer(features, config)
    history: list[Epoch] = []
    best, chosen = None, trainer.head.state_dict()
    for number in range(1, config.epochs + 1):
        epoch = trainer.epoch(number)
        history.append(epoch)
        if best is None or epoch.rank() > best.rank():
            best, chosen = epoch, copy.deepcopy(trainer.head.state_dict())
        if number % LOG_EVERY == 0:
            log(f"epoch {number} of {config.epochs}: {epoch}; best so far {best}")
        if config.patience and number - best.epoch >= config.patience:
            log(f"epoch {number}: no better since epoch {best.epoch}, stopping")
            break
    trainer.head.load_state_dict(chosen)
    return Fitted(trainer.head, best or history[0], tuple(history))


class Criterion:
    """Cross-entropy: the mean over each task's labelled images, then over tasks.

    Args:
        weights: For each task, the weight of each class.
    """

    def __init__(self, weights: Sequence[Float[Tensor, " _class"]]) -> None:
        self.weights = tuple(weights)

    @classmethod
    def of(
        cls, labels: Int64[Tensor, "image task"], classes: Sequence[int], kind: str
    ) -> "Criterion":
        """Weights from training labels.

        Args:
            labels: Class indices of the training split; -1 where a label is missing.
            classes: Number of classes of each task.
            kind: `balanced` weighs a class by the inverse of its share, `none` weighs all alike.
        """
        weights = []
        for column, number in zip(labels.T, classes, strict=True):
            counts = torch.bincount(column[column >= 0], minlength=number).float()
            balanced = torch.where(counts > 0, counts.sum() / (number * counts), 0.0)
            weights.append(balanced if kind == "balanced" else torch.ones(number))
        return cls(weights)

    def __call__(
        self, logits: Float[Tensor, "image logit"], labels: Int64[Tensor, "image task"]
    ) -> Float[Tensor, ""]:
        """The loss of a batch; a task that the batch has no label of adds nothing."""
        parts = split_logits(logits, [len(w) for w in self.weights])
        losses = []
        for part, column, weights in zip(parts, labels.T, self.weights, strict=True):
            total = functional.cross_entropy(
                part, column, weights, ignore_index=-1, reduction="sum"
            )
            # PyTorch's own mean is 0 / 0 where a batch has no label of the task.
            share = (weights[column.clamp(min=0)] * (column >= 0)).sum()
            losses.append(total / share.clamp(min=1e-12))
        return torch.stack(losses).mean()


class _Trainer:
    """The moving parts of one run: head, optimizer, generators."""

    def __init__(self, features: Features, config: TrainConfig) -> None:
        initial, self.order, self.drop = _generators(config.seed)
        classes = [len(names) for names in features.tasks.values()]
        self.features, self.config = features, config
        self.train, self.val = features.rows("train"), features.rows("val")
        self.criterion = Criterion.of(features.labels[self.train], classes, config.class_weights)
        self.head = build_head(config, features.channels, sum(classes), features.window, initial)
        self.optimizer = _optimizer(self.head, config.weight_decay)
        self.steps = math.ceil(len(self.train) / config.batch_size)

    def epoch(self, number: int) -> Epoch:
        """One pass over the training split in a fresh order, then a look at validation."""
        shuffled = self.train[torch.randperm(len(self.train), generator=self.order)]
        total = torch.zeros(())
        rate = 0.0
        # Parts of nearly equal size: a last batch of three images would be a noisy step.
        for step, rows in enumerate(torch.tensor_split(shuffled, self.steps)):
            rate = learning_rate(self.config, (number - 1) * self.steps + step, self.steps)
            total += self._step(rows, rate) * len(rows)
        train_loss = total.item() / len(self.train)
        logits = predict_logits(
            self.head, self.features.tokens, self.features.counts, self.val, self.config.batch_size
        )
        labels = self.features.labels[self.val]
        val_loss = self.criterion(logits, labels).item()
        if not math.isfinite(train_loss + val_loss):
            raise RunError(
                f"training diverged: the loss is {train_loss:g} in training and {val_loss:g} in "
                f"validation after epoch {number}; lower learning_rate "
                f"({self.config.learning_rate:g})"
            )
        probabilities = to_probabilities(logits, self.features.tasks)
        return Epoch(number, rate, train_loss, val_loss, auc(labels.numpy(), probabilities))

    def _step(self, rows: Int64[Tensor, " row"], rate: float) -> Float[Tensor, ""]:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        tokens, counts = select(self.features.tokens, self.features.counts, rows)
        loss = self.criterion(self.head(tokens, counts, self.drop), self.features.labels[rows])
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.detach()


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """The rate of a step: a linear rise over the warm-up, then half a cosine down to zero.

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


def _generators(seed: int) -> Iterator[torch.Generator]:
    """Independent streams for initial weights, order of images and dropout, from one seed."""
    for state in np.random.SeedSequence(seed).generate_state(3, np.uint64):
        yield torch.Generator().manual_seed(int(state))


def _optimizer(head: Head, weight_decay: float) -> torch.optim.AdamW:
    """AdamW that decays weights, which have two axes, and leaves biases alone."""
    decayed = [p for p in head.parameters() if p.ndim > 1]
    kept = [p for p in head.parameters() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": kept, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, fused=True)
