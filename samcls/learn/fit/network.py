"""Train a head around an image network: minibatches of pixels and cached features.

Everything random comes from the run's seed: weights, order, views, jitter and the network's own dropped
paths. Between epochs the training can be put away, and go on from there. The frozen encoder is never
called.

    loop = Loop(NetworkTrainer(features, config), checkpoint=Path("run/checkpoint.pt"))
"""

import math
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from samcls.device import autocast, training_dtype
from samcls.errors import InputError
from samcls.learn.features.batches import select
from samcls.learn.features.pixels import jittered
from samcls.learn.features.tensors import Features
from samcls.learn.fit.loop import Log, Trainer
from samcls.learn.fit.losses import Criterion
from samcls.learn.fit.prediction import merge_views, shape_of
from samcls.learn.fit.schedule import learning_rate, streams
from samcls.learn.heads.base import Head, NetworkHead
from samcls.learn.heads.registry import build_head
from samcls.learn.settings import TrainConfig

__all__ = ["NetworkTrainer"]


class NetworkTrainer(Trainer):
    """A head around a network, in training.

    Args:
        features: Standardised features with pixels.
        config: How to train.
        log: Told once what the head adds to its network.

    Raises:
        ConfigError: where the features have no pixels, or the network cannot be built.
        WeightsError: where pretrained weights cannot be had.
    """

    slow = True
    rates = ("learning_rate", "backbone_learning_rate")

    def __init__(self, features: Features, config: TrainConfig, log: Log = lambda _: None) -> None:
        self.config, self.configs = config, (config,)
        self.train, self.val = features.rows("train"), features.rows("val")
        self.steps = math.ceil(len(self.train) / config.batch_size)
        initial, self._order, self._drop, self._view = streams(config.seed)
        states = np.random.SeedSequence(config.seed).generate_state(6, np.uint64)[4:]
        self._jitter = torch.Generator().manual_seed(int(states[0]))
        self._inner = int(states[1] >> np.uint64(2))
        shape = shape_of(features)
        self.net = cast("NetworkHead", build_head(config, shape, initial))
        if features.pixels is None:
            raise InputError(f"head {config.head} is trained on pixels, and the features have none")
        added = self.net.added(shape)
        if added:
            log(added)
        self.features, self.pixels = features, features.pixels
        self._feeding = self.net.feeding(features)
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

    def training_pass(self, number: int) -> tuple[list[float], list[float]]:
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
        return [float(total / len(self.train))], [rate]

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

    def validation_logits(self) -> Float[Tensor, "member image logit"]:
        """Without dropout; of several views, the logarithms of their mean probabilities."""
        features = self.features
        rows = features.flat(self.val)
        logits = self.net.answer(features.tokens, features.counts, rows, self.pixels, self._feeding)
        return merge_views(logits, features.views, self._classes)[None]

    def validation_losses(self, logits: Float[Tensor, "member image logit"]) -> list[float]:
        """Class weights included."""
        return [float(self._criterion(logits[0], self.features.labels[self.val]))]

    def weights(self, i: int) -> dict[str, Tensor]:
        """Return the network's, on the CPU."""
        del i
        return {name: value.detach().cpu().clone() for name, value in self.net.state_dict().items()}

    def keep(self, left: list[int]) -> None:
        """There is but one."""
        del left

    def head(self, place: int, weights: dict[str, Tensor]) -> Head:
        """Return the network, given those weights."""
        del place
        self.net.load_state_dict(weights)
        return self.net.eval()

    def state(self) -> dict[str, Any]:
        """Everything that the next epoch depends on."""
        return {
            "net": self.weights(0),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "streams": [generator.get_state() for generator in self._streams],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.net.load_state_dict(state["net"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        for generator, kept in zip(self._streams, state["streams"], strict=True):
            generator.set_state(kept)

    @property
    def _streams(self) -> tuple[torch.Generator, ...]:
        return self._order, self._drop, self._view, self._jitter


def _optimizer(net: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW with the network's own rate for its weights; no decay on biases, norms, and what timm says."""
    share = config.backbone_learning_rate / config.learning_rate
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    body: Any = net.body
    spared = body.no_weight_decay() if hasattr(body, "no_weight_decay") else ()
    for name, value in net.named_parameters():
        if value.requires_grad:
            own = share if name.startswith("body.") else 1.0
            inner = name.removeprefix("body.")
            named = any(inner == one or inner.startswith(f"{one}.") for one in spared)
            decays = value.dim() > 1 and not named
            decay = config.weight_decay if decays else 0.0
            groups.setdefault((own, decay), []).append(value)
    return torch.optim.AdamW(
        [
            {"params": values, "lr": 0.0, "weight_decay": decay, "share": own}
            for (own, decay), values in groups.items()
        ]
    )
