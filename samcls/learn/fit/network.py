"""Train a guided network: minibatches of pixels and cached features, its epoch chosen on validation.

Everything random comes from the run's seed: weights, order, views, jitter and the network's own dropped
paths. Between epochs the training is put away, and a run that was cut off goes on from there. The
frozen encoder is never called.

    fitted = fit_guided(features, config, checkpoint=Path("run/checkpoint.pt"))
"""

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from samcls.config import digest
from samcls.device import autocast, training_dtype
from samcls.errors import ConfigError, RunError
from samcls.learn.features.pixels import jittered
from samcls.learn.features.tensors import Features
from samcls.learn.fit.checkpoint import read_checkpoint, write_checkpoint
from samcls.learn.fit.losses import Criterion
from samcls.learn.fit.prediction import merge_views, select, shape_of, to_probabilities
from samcls.learn.fit.schedule import Epoch, Fitted, learning_rate, streams
from samcls.learn.heads.guided.answer import answered, feeding
from samcls.learn.heads.guided.cost import cost_of
from samcls.learn.heads.guided.net import GuidedNet, no_pixels
from samcls.learn.score.scoring import auc
from samcls.learn.settings import TrainConfig

__all__ = ["Training", "fit_guided"]

Log = Callable[[str], None]

CHECKPOINT_SECONDS = 30.0  # a killed run loses at most this and one epoch


def fit_guided(
    features: Features,
    config: TrainConfig,
    log: Log = lambda _: None,
    checkpoint: Path | None = None,
    seconds: float | None = None,
) -> Fitted:
    """Train a guided network on the training split and choose its epoch on the validation split.

    Args:
        features: Standardised features with pixels; `test` is never looked at.
        config: How to train.
        log: Called with a line of progress after each epoch.
        checkpoint: File to put the training away in, and to go on from; None keeps none.
        seconds: Least time between two checkpoints; None means `CHECKPOINT_SECONDS`.

    Raises:
        ConfigError: where the features have no pixels, or the network cannot be built.
        WeightsError: where pretrained weights cannot be had.
        RunError: where the loss stops being a finite number.
    """
    training = Training(features, config, log)
    run = _identity(features, config)
    kept = read_checkpoint(checkpoint, run) if checkpoint is not None else None
    if kept is None and checkpoint is not None and checkpoint.exists():
        log("its images, labels or features have changed since: it starts from the beginning")
    if kept is not None:
        training.restore(kept)
        log(f"going on after epoch {len(training.history)} of {config.epochs}")
    written, pause = time.monotonic(), CHECKPOINT_SECONDS if seconds is None else seconds
    while not training.ended:
        training.epoch()
        if checkpoint is not None and time.monotonic() - written >= pause:
            write_checkpoint(checkpoint, run, training.state())
            written = time.monotonic()
        log(f"epoch {len(training.history)} of {config.epochs}: {training.history[-1]}")
    return training.fitted()


class Training:
    """A guided network in training, an epoch at a time.

    Args:
        features: Standardised features with pixels.
        config: How to train.
        log: Told once what the gates add.
    """

    def __init__(self, features: Features, config: TrainConfig, log: Log = lambda _: None) -> None:
        if features.pixels is None:
            raise ConfigError(no_pixels(config))
        self.config = config
        self.train, self.val = features.rows("train"), features.rows("val")
        self.steps = math.ceil(len(self.train) / config.batch_size)
        initial, self._order, self._drop, self._view = streams(config.seed)
        states = np.random.SeedSequence(config.seed).generate_state(6, np.uint64)[4:]
        self._jitter = torch.Generator().manual_seed(int(states[0]))
        self._inner = int(states[1] >> np.uint64(2))
        shape = shape_of(features)
        self.net = GuidedNet.build(config, shape, initial)
        if self.net.gates:
            log(str(cost_of(self.net, shape)))
        self.features, self.pixels = features, features.pixels
        self._feeding = feeding(self.net, features)
        self.device = features.device
        layout = torch.channels_last if config.channels_last else torch.contiguous_format
        self.net.to(self.device)
        self.net.body.to(memory_format=layout)
        self._layout = layout
        if config.compile:
            self.net.body.compile()
        classes = [len(names) for names in features.tasks.values()]
        self._classes = classes
        self._criterion = Criterion.of(features.labels[self.train], classes, config)
        self._weighed = self._criterion.to(self.device)
        self._dtype = training_dtype(config.precision, self.device)
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=self._dtype == torch.float16)
        self._optimizer = _optimizer(self.net, config)
        self.history: list[Epoch] = []
        self._best: Epoch | None = None
        self._chosen: dict[str, Tensor] = {}

    @property
    def ended(self) -> bool:
        """Whether the last epoch is done, or nothing has become better for too long."""
        done, patience = len(self.history), self.config.patience
        waited = done - self._best.epoch if self._best else 0
        return done >= self.config.epochs or bool(patience and waited >= patience)

    def epoch(self) -> None:
        """One pass over the training split, and a look at validation.

        Raises:
            RunError: where a loss is not finite.
        """
        number = len(self.history) + 1
        train_loss, rate = self.training_pass(number)
        logits = self._validation_logits()
        labels = self.features.labels[self.val]
        val_loss = float(self._criterion(logits, labels))
        if not math.isfinite(train_loss + val_loss):
            raise RunError(
                f"training diverged: the loss is {train_loss:g} in training and {val_loss:g} in "
                f"validation after epoch {number}; lower learning_rate "
                f"({self.config.learning_rate:g}) or backbone_learning_rate"
            )
        area = auc(labels.numpy(), to_probabilities(logits, self.features.tasks))
        epoch = Epoch(number, rate, train_loss, val_loss, area)
        self.history.append(epoch)
        if self._best is None or epoch.rank() > self._best.rank():
            self._best = epoch
            self._chosen = _copied(self.net)

    def training_pass(self, number: int) -> tuple[float, float]:
        """One pass over the training split: its mean loss and the gates' last learning rate.

        Args:
            number: Of the epoch, from 1.
        """
        self.net.learning()
        order = self.train[torch.randperm(len(self.train), generator=self._order)]
        total = torch.zeros((), device=self.device)
        rate = 0.0
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            # Networks that drop paths draw from PyTorch's global stream.
            torch.manual_seed(self._inner + number)
            for step, rows in enumerate(torch.tensor_split(order, self.steps)):
                done = (number - 1) * self.steps + step
                rate = learning_rate(self.config, done, self.steps)
                total += self.step(rows, rate) * len(rows)
        return float(total / len(self.train)), rate

    def step(self, rows: Int64[Tensor, " row"], rate: float) -> Float[Tensor, ""]:
        """One optimizer step, in as many parts as the config says; its loss.

        Args:
            rows: Images.
            rate: Of the gates and the classifier; the network's own keeps its proportion.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["share"]
        self._optimizer.zero_grad(set_to_none=True)
        drawn = self.features.drawn(rows, self._view)
        total = torch.zeros((), device=self.device)
        parts = min(self.config.accumulate, len(rows))
        whole = self.features.labels[rows].to(self.device, non_blocking=True)
        for part, own in zip(
            torch.tensor_split(drawn, parts), torch.tensor_split(rows, parts), strict=True
        ):
            images = jittered(
                self.pixels.batch(part, self.device), self.config.jitter, self._jitter
            )
            pixels = self.net.normalise(images).contiguous(memory_format=self._layout)
            with autocast(self.device, self._dtype):
                tokens, counts = self._fed(part)
                logits = self.net(tokens, counts, self._drop, pixels)
            labels = self.features.labels[own].to(self.device, non_blocking=True)
            loss = self._weighed(logits.float(), labels, whole)
            torch.autograd.backward(self._scaler.scale(loss))
            total += loss.detach()
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return total

    def _fed(self, rows: Int64[Tensor, " row"]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Tokens and counts for the gates; none where the network looks at pixels alone."""
        if not self.net.needs_features:
            return {}, {}
        return select(self.features, rows if self._feeding is None else self._feeding[rows])

    def fitted(self) -> Fitted:
        """What the training left: the network after its best epoch."""
        if self._best is None:
            raise RunError("no epoch was trained")
        self.net.load_state_dict(self._chosen)
        return Fitted(self.net.eval(), self._best, tuple(self.history), 1, {})

    def state(self) -> dict[str, Any]:
        """Everything that the next epoch depends on."""
        return {
            "history": [list(astuple(epoch)) for epoch in self.history],
            "best": self._best.epoch if self._best else 0,
            "net": _copied(self.net),
            "chosen": self._chosen,
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "streams": [generator.get_state() for generator in self._streams],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.history = [Epoch(*values) for values in state["history"]]
        self._best = self.history[state["best"] - 1] if state["best"] else None
        self.net.load_state_dict(state["net"])
        self._chosen = state["chosen"]
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        for generator, kept in zip(self._streams, state["streams"], strict=True):
            generator.set_state(kept)

    @property
    def _streams(self) -> tuple[torch.Generator, ...]:
        return self._order, self._drop, self._view, self._jitter

    def _validation_logits(self) -> Float[Tensor, "image logit"]:
        features = self.features
        logits = answered(
            self.net,
            features.tokens,
            features.counts,
            self.pixels,
            features.flat(self.val),
            self._feeding,
        )
        return merge_views(logits, features.views, self._classes)


def _optimizer(net: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW with the network's own rate for its weights; no decay on biases, norms, and what timm says."""
    share = config.backbone_learning_rate / config.learning_rate
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    body: Any = net.body
    spared = body.no_weight_decay() if hasattr(body, "no_weight_decay") else ()
    for name, value in net.named_parameters():
        if value.requires_grad:
            own = share if name.startswith("body.") else 1.0
            decays = value.dim() > 1 and name.removeprefix("body.") not in spared
            decay = config.weight_decay if decays else 0.0
            groups.setdefault((own, decay), []).append(value)
    return torch.optim.AdamW(
        [
            {"params": values, "lr": 0.0, "weight_decay": decay, "share": own}
            for (own, decay), values in groups.items()
        ]
    )


def _copied(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in net.state_dict().items()}


def _identity(features: Features, config: TrainConfig) -> str:
    """What tells a training from others: its settings, its images and what made their features."""
    told = json.dumps(
        [
            digest(config),
            features.ids,
            features.splits,
            features.labels.tolist(),
            features.fingerprint,
        ],
        sort_keys=True,
        default=str,
    )
    return hashlib.sha256(told.encode()).hexdigest()
