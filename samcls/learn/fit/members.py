"""Many heads of one architecture trained in one pass over the data: what sweeps are made of.

Members may differ in learning rate, warm-up, decay, dropout, loss, epochs, patience and seed. Each
draws its numbers as if it were alone, so on a CPU its weights are those of a single run, bit for
bit; members of one seed share what they read. A member that stops early leaves the others running.

    loop = Loop(MemberTrainer(features, [config, other]))
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from samcls.config import values_of
from samcls.device import autocast, training_dtype
from samcls.learn.features.batches import batch_size, mean_features, select
from samcls.learn.features.tensors import Features
from samcls.learn.fit.adamw import StackedAdamW
from samcls.learn.fit.loop import Trainer
from samcls.learn.fit.losses import Criterion
from samcls.learn.fit.prediction import merge_views, shape_of
from samcls.learn.fit.schedule import learning_rate, streams
from samcls.learn.fit.stacked import stack_of
from samcls.learn.heads.base import Head
from samcls.learn.heads.registry import build_head, head_class
from samcls.learn.settings import TrainConfig

__all__ = ["MemberTrainer", "architecture"]


def architecture(config: TrainConfig) -> tuple[object, ...]:
    """Return what configs must agree in to be trained together: the shapes of weights and of a step."""
    return tuple(values_of(config, "data", "form", "step").values())


@dataclass(eq=False)
class _Member:
    """What is drawn for one config, and how it is judged."""

    config: TrainConfig
    criterion: Criterion
    weighed: Criterion  # the same on the device of the features
    drop: torch.Generator


class MemberTrainer(Trainer):
    """Heads trained side by side, each as if it were alone.

    Args:
        features: Standardised features with rows in `train` and `val`.
        configs: Of one `architecture`; more than one only of heads that can be stacked.
    """

    def __init__(self, features: Features, configs: Sequence[TrainConfig]) -> None:
        if head_class(configs[0].head).means_suffice:
            features = mean_features(features)
        self.configs, self.features = configs, features
        self.train, self.val = features.rows("train"), features.rows("val")
        self.steps = math.ceil(len(self.train) / configs[0].batch_size)
        classes = [len(names) for names in features.tasks.values()]
        labels = features.labels[self.train]
        losses: dict[tuple[object, ...], Criterion] = {}
        there: dict[tuple[object, ...], Criterion] = {}
        self._orders: dict[int, torch.Generator] = {}
        self._views: dict[int, torch.Generator] = {}
        drops: dict[tuple[int, float], torch.Generator] = {}
        heads: list[Head] = []
        self._left: list[_Member] = []
        for config in configs:
            initial, order, drop, view = streams(config.seed)
            heads.append(build_head(config, shape_of(features), initial))
            self._orders.setdefault(config.seed, order)
            self._views.setdefault(config.seed, view)
            # Members of one seed and rate drop the same values, so these are drawn once.
            drop = drops.setdefault((config.seed, config.dropout), drop)
            criterion = Criterion.of(labels, classes, config)
            criterion = losses.setdefault(criterion.key, criterion)
            weighed = there.setdefault(criterion.key, criterion.to(features.device))
            self._left.append(_Member(config, criterion, weighed, drop))
        self._dtype = training_dtype(configs[0].precision, features.device)
        mixed = self._dtype != torch.float32
        self.members = stack_of(heads, features.device, autograd=mixed)
        self._optimizer = StackedAdamW(self.members, [c.weight_decay for c in configs])
        # Float16 gradients underflow unless the loss is scaled up; otherwise this does nothing.
        self._scaler = torch.amp.GradScaler(
            features.device.type, enabled=self._dtype == torch.float16
        )
        self._labels = features.labels.to(features.device)
        self._heads = heads

    def training_pass(self, number: int) -> tuple[list[float], list[float]]:
        """One pass over the training split: each member's mean loss and last learning rate."""
        members = self._left
        orders = {
            seed: self.train[torch.randperm(len(self.train), generator=self._orders[seed])]
            for seed in dict.fromkeys(member.config.seed for member in members)
        }
        # Parts of nearly equal size: a last batch of three images would be a noisy step.
        parts = torch.tensor_split(torch.stack(list(orders.values())), self.steps, 1)
        total = torch.zeros(len(members), device=self.features.device)
        rates = [0.0] * len(members)
        for step, rows in enumerate(parts):
            done = (number - 1) * self.steps + step
            rates = [learning_rate(member.config, done, self.steps) for member in members]
            total += self._step(rows, list(orders), rates) * rows.shape[1]
        return (total / len(self.train)).tolist(), rates

    def _step(
        self, rows: Int64[Tensor, "draw row"], seeds: list[int], rates: Sequence[float]
    ) -> Float[Tensor, " member"]:
        """One step for all; `rows` has a line for each seed."""
        members, features = self._left, self.features
        views = [
            features.drawn(own, self._views[seed]) for own, seed in zip(rows, seeds, strict=True)
        ]
        drawn, labelled = torch.stack(views), rows
        which = torch.tensor([seeds.index(member.config.seed) for member in members])
        if len(seeds) > 1:
            drawn, labelled = drawn[which], rows[which]
        with autocast(features.device, self._dtype):
            tokens, counts = _selected(features, drawn)
            logits = self.members.logits(tokens, counts, [member.drop for member in members])
        labels = _rows_of(self._labels, labelled).expand(len(members), -1, -1)
        losses = _losses([member.weighed for member in members], logits.float(), labels)
        self.members.backward(self._scaler.scale(losses))
        # It asks an optimizer for `param_groups` and `step` alone, and hands the rates on.
        self._scaler.step(self._optimizer, rates)  # type: ignore[arg-type]
        self._scaler.update()
        return losses.detach()

    def validation_logits(self) -> Float[Tensor, "member image logit"]:
        """Without dropout; of several views, the logarithms of their mean probabilities."""
        features = self.features
        with torch.no_grad():  # not inference mode: training goes on in the same memory
            parts = [
                self.members.logits(*_selected(features, part[None]), None)
                for part in torch.split(features.flat(self.val), batch_size(features.tokens))
            ]
            logits = torch.cat(parts, 1)
            classes = [len(names) for names in features.tasks.values()]
            merged = [merge_views(one, features.views, classes) for one in logits]
            return torch.stack(merged).cpu()

    def validation_losses(self, logits: Float[Tensor, "member image logit"]) -> list[float]:
        """Each by its own criterion."""
        labels = self.features.labels[self.val].expand(len(self._left), -1, -1)
        found: list[float] = _losses([m.criterion for m in self._left], logits, labels).tolist()
        return found

    def weights(self, i: int) -> Float[Tensor, " value"]:
        """Return a row of the members' values."""
        return self.members.values[i].detach().clone()

    def keep(self, left: list[int]) -> None:
        """Go on with these of those that are left."""
        self.members = self.members.keep(left)
        self._optimizer.keep(left, self.members)
        self._left = [self._left[i] for i in left]

    def head(self, place: int, weights: Float[Tensor, " value"]) -> Head:
        """Return the head of a config, given its weights."""
        return self.members.store(self._heads[place], weights)


def _selected(
    features: Features, rows: Int64[Tensor, "draw row"]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Tokens "draw row token channel" and counts "draw row token" of each level."""
    found = select(features, rows.flatten())
    tokens, counts = (
        {level: values.view(*rows.shape, *values.shape[1:]) for level, values in one.items()}
        for one in found
    )
    return tokens, counts


def _rows_of(
    labels: Int64[Tensor, "image task"], rows: Int64[Tensor, "draw row"]
) -> Int64[Tensor, "draw row task"]:
    return labels[rows.to(labels.device, non_blocking=True)]


def _losses(
    criteria: Sequence[Criterion],
    logits: Float[Tensor, "member image logit"],
    labels: Int64[Tensor, "member image task"],
) -> Float[Tensor, " member"]:
    """Each member's loss by its own criterion; in one go where they share it."""
    if all(criterion is criteria[0] for criterion in criteria):
        return criteria[0].of_members(logits, labels)
    losses = [
        criterion.of_members(logits[i : i + 1], labels[i : i + 1])
        for i, criterion in enumerate(criteria)
    ]
    return torch.cat(losses)
