"""The epoch loop, the same for every head that is trained: history, choice of epoch, patience, divergence.

A `Trainer` knows how to pass over the training split, alone or for many heads at once; the loop judges
each head by validation after every pass, keeps the weights of its best epoch, and stops it when it has
waited too long. A trainer whose epochs are long is put away between two of them and goes on from there.

    loop = Loop(trainer, log)
    loop.run()
    fitted = loop.results()
"""

import hashlib
import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Int64
from torch import Tensor

from samcls.config import digest
from samcls.errors import RunError
from samcls.learn.features.tensors import Features
from samcls.learn.fit.checkpoint import read_checkpoint, write_checkpoint
from samcls.learn.fit.prediction import to_probabilities
from samcls.learn.fit.schedule import Epoch, Fitted
from samcls.learn.heads.base import Head
from samcls.learn.score.scoring import auc
from samcls.learn.settings import TrainConfig

__all__ = ["CHECKPOINT_SECONDS", "EPOCH", "Log", "Loop", "Trainer", "diverged"]

Log = Callable[[str], None]

CHECKPOINT_SECONDS = 30.0  # a killed run loses at most this and one epoch
EPOCH = "epoch"  # what a training chooses
LOG_EVERY = 10  # epochs between two lines of the log, where epochs are short


class Trainer(ABC):
    """Heads in training, whose places are those of their configs.

    Attributes:
        configs: How each is trained.
        features: Standardised features with rows in `train` and `val`.
        train: Images to learn from.
        val: Images to choose by.
        slow: Whether an epoch takes so long that each is logged, and the training put away between.
        rates: Settings to lower where training diverges.
    """

    slow: ClassVar[bool] = False
    rates: ClassVar[tuple[str, ...]] = ("learning_rate",)
    configs: Sequence[TrainConfig]
    features: Features
    train: Int64[Tensor, " row"]
    val: Int64[Tensor, " row"]

    @abstractmethod
    def training_pass(self, number: int) -> tuple[list[float], list[float]]:
        """One pass over the training split: mean loss and last learning rate of all that are left.

        Args:
            number: Of the epoch, from 1.
        """

    @abstractmethod
    def validation_logits(self) -> Float[Tensor, "member image logit"]:
        """Logits of the validation images, on the CPU, of all that are left."""

    @abstractmethod
    def validation_losses(self, logits: Float[Tensor, "member image logit"]) -> list[float]:
        """Each one's loss.

        Args:
            logits: From `validation_logits`.
        """

    @abstractmethod
    def weights(self, i: int) -> Any:
        """Return a copy of the weights of the i-th of those that are left."""

    @abstractmethod
    def keep(self, left: list[int]) -> None:
        """Go on with these of those that are left."""

    @abstractmethod
    def head(self, place: int, weights: Any) -> Head:
        """Return the head of a config with weights that it once had."""

    def state(self) -> dict[str, Any]:
        """Everything that the next epoch depends on, of a slow one."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        del state


@dataclass(eq=False)
class _Progress:
    """What one config's training has come to."""

    config: TrainConfig
    history: list[Epoch] = field(default_factory=list)
    best: Epoch | None = None
    chosen: Any = None
    error: RunError | None = None
    trail: dict[float, dict[str, np.ndarray]] = field(default_factory=dict)

    def note(self, epoch: Epoch, weights: Callable[[], Any]) -> None:
        """Take an epoch's outcome."""
        self.history.append(epoch)
        if self.best is None or epoch.rank() > self.best.rank():
            self.best, self.chosen = epoch, weights()

    @property
    def waited(self) -> bool:
        """Whether nothing has become better for too long."""
        since = len(self.history) - self.best.epoch if self.best else 0
        return bool(self.config.patience and since >= self.config.patience)

    @property
    def ended(self) -> bool:
        """Whether there is nothing more to train."""
        return self.error is not None or len(self.history) >= self.config.epochs or self.waited

    def lines(self, every: int) -> list[str]:
        """Return what the log says after an epoch."""
        if self.error is not None:
            return []
        epoch, total = self.history[-1], self.config.epochs
        told = f"epoch {epoch.epoch} of {total}: {epoch}; best so far {self.best}"
        found = [] if epoch.epoch % every else [told]
        if self.waited and self.best is not None:
            found.append(f"epoch {epoch.epoch}: no better since epoch {self.best.epoch}, stopping")
        return found


class Loop:
    """Training, an epoch at a time.

    Args:
        trainer: Fresh.
        log: Called with a line of progress now and then.
        checkpoint: File to put a slow training away in, and to go on from; None keeps none.
        seconds: Least time between two checkpoints; None means `CHECKPOINT_SECONDS`.
        trail: Whether what each epoch said of the validation images is kept.

    Attributes:
        running: Places of the configs whose training has not ended.
        done: Epochs that are over.
    """

    def __init__(
        self,
        trainer: Trainer,
        log: Log = lambda _: None,
        checkpoint: Path | None = None,
        seconds: float | None = None,
        *,
        trail: bool = False,
    ) -> None:
        self.trainer = trainer
        self._trail = trail
        self._log = log
        self._pause = CHECKPOINT_SECONDS if seconds is None else seconds
        self._all = [_Progress(config) for config in trainer.configs]
        self.running, self.done = list(range(len(self._all))), 0
        self._labels = trainer.features.labels[trainer.val]
        self._file = checkpoint if trainer.slow else None
        self._run = "" if self._file is None else _identity(trainer)
        self._written = time.monotonic()
        if self._file is not None and self._file.exists():
            self._go_on(self._file)

    def run(self) -> None:
        """Every epoch that is left."""
        while self.running:
            self.epoch()

    def epoch(self) -> None:
        """One pass over the training split for all that are running, and a look at validation."""
        trainer, members = self.trainer, [self._all[place] for place in self.running]
        number = self.done + 1
        losses, rates = trainer.training_pass(number)
        logits = trainer.validation_logits()
        val_losses = trainer.validation_losses(logits)
        for i, member in enumerate(members):
            if not math.isfinite(losses[i] + val_losses[i]):
                found = losses[i], val_losses[i]
                member.error = diverged(member.config, trainer.rates, number, *found)
                continue
            probabilities = to_probabilities(logits[i], trainer.features.tasks)
            val_auc = auc(self._labels.numpy(), probabilities)
            if self._trail:
                member.trail[float(number)] = probabilities
            epoch = Epoch(number, rates[i], losses[i], val_losses[i], val_auc)
            member.note(epoch, lambda i=i: trainer.weights(i))  # type: ignore[misc]
        self.done = number
        self._stop([i for i, member in enumerate(members) if not member.ended])
        if self._file is not None and time.monotonic() - self._written >= self._pause:
            write_checkpoint(self._file, self._run, self._state())
            self._written = time.monotonic()
        for member in members:
            for line in member.lines(1 if trainer.slow else LOG_EVERY):
                self._log(line)

    def results(self) -> list[Fitted | RunError]:
        """Return what each config's training left, in the order of the configs, or why it failed."""
        return [self._result(place, member) for place, member in enumerate(self._all)]

    def _result(self, place: int, member: _Progress) -> Fitted | RunError:
        if member.error is not None or member.best is None:
            return member.error or RunError("no epoch was trained")
        head = self.trainer.head(place, member.chosen)
        trail = {EPOCH: member.trail} if member.trail else {}
        return Fitted(head, member.best, tuple(member.history), 1, {}, trail=trail)

    def _stop(self, left: list[int]) -> None:
        """Go on with these alone, by their places among the running."""
        if 0 < len(left) < len(self.running):
            self.trainer.keep(left)
        self.running = [self.running[i] for i in left]

    def _state(self) -> dict[str, Any]:
        (member,) = self._all  # slow ones are trained alone
        return {
            "history": [list(astuple(epoch)) for epoch in member.history],
            "best": member.best.epoch if member.best else 0,
            "chosen": member.chosen,
            **self.trainer.state(),
        }

    def _go_on(self, file: Path) -> None:
        """From where an earlier run of the same training was put away."""
        (member,) = self._all
        state = read_checkpoint(file, self._run)
        if state is None:
            self._log(
                "its images, labels or features have changed since: it starts from the beginning"
            )
            return
        member.history = [Epoch(*values) for values in state["history"]]
        member.best = member.history[state["best"] - 1] if state["best"] else None
        member.chosen, self.done = state["chosen"], len(member.history)
        self.trainer.restore(state)
        self._stop([] if member.ended else [0])
        self._log(f"going on after epoch {self.done} of {member.config.epochs}")


def diverged(
    config: TrainConfig, rates: Sequence[str], number: int, train: float, val: float | None
) -> RunError:
    """Return what is said of a loss that is no finite number, with its remedy.

    Args:
        config: How it was trained.
        rates: Settings to lower.
        number: Of the epoch.
        train: Loss in training.
        val: Loss in validation, where there is any.
    """
    first, *others = rates
    lower = " or ".join([f"{first} ({getattr(config, first):g})", *others])
    beside = "" if val is None else f" and {val:g} in validation"
    return RunError(
        f"training diverged: the loss is {train:g} in training{beside} after epoch {number}; lower "
        f"{lower}"
    )


def _identity(trainer: Trainer) -> str:
    """Return what tells a training from others: its settings, its images and what made their features."""
    features = trainer.features
    told = json.dumps(
        [
            *(digest(config) for config in trainer.configs),
            features.ids,
            features.splits,
            features.labels.tolist(),
            features.fingerprint,
        ],
        sort_keys=True,
        default=str,
    )
    return hashlib.sha256(told.encode()).hexdigest()
