"""The training loop: minibatches of cached features, model choice on validation alone.

A step is an index_select for each level, the head, and AdamW over one flat buffer, all on the device
that the features are on. On one CPU core
an epoch over 546 images with five levels of 16 tokens x 256 channels takes 0.08 s. Equal seeds give
equal heads, bit for bit, at the same number of threads; nothing global is touched.

    fitted = fit(features.standardised(standardiser), config)
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from threadpoolctl import threadpool_limits
from torch import Tensor

from samcls.config import TrainConfig
from samcls.errors import RunError
from samcls.learn.adamw import FlatAdamW
from samcls.learn.device import autocast, choose_precision
from samcls.learn.features import Features
from samcls.learn.heads import ClosedHead, Head, Shape, build_head
from samcls.learn.layers import SMALLEST
from samcls.learn.losses import Criterion
from samcls.learn.metrics import auc
from samcls.learn.model import predict_logits, select, to_probabilities

__all__ = [
    "Epoch",
    "Fitted",
    "fit",
    "learning_rate",
    "shape_of",
    "steady_threads",
    "train_pass",
]

Log = Callable[[str], None]

LOG_EVERY = 10  # epochs between two lines of the log
LARGE_STEP = 16_000_000  # token values in a step from which a second thread pays
BLOCK_IMAGES = 256  # images pooled at once for heads that are solved


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
        history: Every epoch that ran; one entry, at rate 0, for a head that is solved.
        tried: Models between which validation chose, epochs of one training counting as one.
        chosen: For a head that is solved, the number chosen for each task.
    """

    head: Head
    best: Epoch
    history: tuple[Epoch, ...]
    tried: int
    chosen: Mapping[str, float]


def fit(features: Features, config: TrainConfig, log: Log = lambda _: None) -> Fitted:
    """Train a head on the training split and choose its epoch on the validation split.

    Args:
        features: Standardised features with rows in `train` and `val`; `test` is never looked at.
            Training runs on their device, where the head then is.
        config: How to train.
        log: Called with a line of progress now and then.

    Raises:
        RunError: where the loss stops being a finite number.
    """
    initial, *streams = _generators(config.seed)
    head = build_head(config, shape_of(features), initial)
    with steady_threads(features, config):
        if isinstance(head, ClosedHead):
            return _solve(head, features, config)
        return _descend(_Trainer(head, features, config, *streams), config, log)


def _descend(trainer: "_Trainer", config: TrainConfig, log: Log) -> Fitted:
    history: list[Epoch] = []
    best, chosen = None, trainer.optimizer.copy()
    for number in range(1, config.epochs + 1):
        epoch = trainer.epoch(number)
        history.append(epoch)
        if best is None or epoch.rank() > best.rank():
            best, chosen = epoch, trainer.optimizer.copy()
        if number % LOG_EVERY == 0:
            log(f"epoch {number} of {config.epochs}: {epoch}; best so far {best}")
        if config.patience and number - best.epoch >= config.patience:
            log(f"epoch {number}: no better since epoch {best.epoch}, stopping")
            break
    trainer.optimizer.restore(chosen)
    trainer.optimizer.release()
    return Fitted(trainer.head, best or history[0], tuple(history), 1, {})


def train_pass(features: Features, config: TrainConfig) -> Callable[[], object]:
    """A function that trains for one pass without a look at validation, to be timed.

    Args:
        features: Standardised features with rows in `train`.
        config: How to train.
    """
    initial, *streams = _generators(config.seed)
    head = build_head(config, shape_of(features), initial)
    trainer = _Trainer(head, features, config, *streams)
    return lambda: trainer.training_pass(1)


def shape_of(features: Features) -> Shape:
    """What a head on these features is given and what it answers."""
    classes = {task: len(names) for task, names in features.tasks.items()}
    return Shape(features.channels, classes, features.grids, features.window)


@contextmanager
def steady_threads(features: Features, config: TrainConfig) -> Iterator[None]:
    """Run small steps on one thread, and put the number of threads back afterwards.

    Beside another process on the same 2 cores, a step on 64 images of 16 tokens x 256 channels took
    4 ms on one thread and 10 ms on two, which wait for each other at every operation. The choice
    depends on sizes alone, so that equal runs stay equal.
    """
    values = sum(rows * cols * features.channels[k] for k, (rows, cols) in features.grids.items())
    before = torch.get_num_threads()
    torch.set_num_threads(before if config.batch_size * values > LARGE_STEP else 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _solve(head: ClosedHead, features: Features, config: TrainConfig) -> Fitted:
    """Solve a head that needs no descent, its one number chosen on validation."""
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


def _means(head: ClosedHead, features: Features, rows: Tensor) -> Float[Tensor, "view feature"]:
    parts = torch.split(features.flat(rows), BLOCK_IMAGES)
    return torch.cat([head.means(*select(features, part)) for part in parts]).cpu()


def _judge(
    features: Features, val: Tensor, task: int
) -> Callable[[np.ndarray], tuple[float, float]]:
    """A function from probabilities of validation images under each view to their rank."""
    labels = features.labels[val, task].numpy()
    known = labels >= 0

    def judge(probabilities: np.ndarray) -> tuple[float, float]:
        means = probabilities.reshape(-1, features.views, probabilities.shape[1]).mean(1)
        found = auc(labels[:, None], {"task": means})
        surprises = np.log(np.clip(means[known, labels[known]], SMALLEST, 1))
        return -1.0 if found is None else found, float(surprises.mean()) if known.any() else 0.0

    return judge


class _Trainer:
    """The moving parts of one run: head, optimizer, generators."""

    def __init__(
        self,
        head: Head,
        features: Features,
        config: TrainConfig,
        order: torch.Generator,
        drop: torch.Generator,
        view: torch.Generator,
    ) -> None:
        self.head, self.features, self.config = head.to(features.device), features, config
        self.order, self.drop, self.view = order, drop, view
        classes = [len(names) for names in features.tasks.values()]
        self.train, self.val = features.rows("train"), features.rows("val")
        self.criterion = Criterion.of(features.labels[self.train], classes, config)
        self.weighed = self.criterion.to(features.device)
        self.labels = features.labels.to(features.device)
        self.optimizer = FlatAdamW(head.parameters(), config.weight_decay)
        self.dtype = choose_precision(config.precision, features.device)
        # Float16 gradients underflow unless the loss is scaled up; otherwise this does nothing.
        self.scaler = torch.amp.GradScaler(
            features.device.type, enabled=self.dtype == torch.float16
        )
        self.steps = math.ceil(len(self.train) / config.batch_size)

    def epoch(self, number: int) -> Epoch:
        """One pass over the training split in a fresh order, then a look at validation."""
        train_loss, rate = self.training_pass(number)
        logits = predict_logits(self.head, self.features, self.val)
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

    def training_pass(self, number: int) -> tuple[float, float]:
        """One pass over the training split: its mean loss and its last learning rate."""
        shuffled = self.train[torch.randperm(len(self.train), generator=self.order)]
        total = torch.zeros((), device=self.features.device)
        rate = 0.0
        # Parts of nearly equal size: a last batch of three images would be a noisy step.
        for step, rows in enumerate(torch.tensor_split(shuffled, self.steps)):
            rate = learning_rate(self.config, (number - 1) * self.steps + step, self.steps)
            total += self.step(rows, rate) * len(rows)
        return total.item() / len(self.train), rate

    def step(self, rows: Int64[Tensor, " row"], rate: float) -> Float[Tensor, ""]:
        """One step on some images, each under one of its views."""
        tokens, counts = select(self.features, self.features.drawn(rows, self.view))
        with autocast(self.features.device, self.dtype):
            logits = self.head(tokens, counts, self.drop)
        labels = self.labels.index_select(0, rows.to(self.labels.device, non_blocking=True))
        loss = self.weighed(logits.float(), labels)
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        # It asks an optimizer for `param_groups` and `step` alone, and hands the rate on.
        self.scaler.step(self.optimizer, rate)  # type: ignore[arg-type]
        self.scaler.update()
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
    """Independent streams for initial weights, order of images, dropout and views, from one seed."""
    for state in np.random.SeedSequence(seed).generate_state(4, np.uint64):
        yield torch.Generator().manual_seed(int(state))
