"""Many heads of one architecture trained in one pass over the data: what sweeps are made of.

Members may differ in learning rate, warm-up, decay, dropout, loss, epochs, patience and seed. Each
draws its numbers as if it were alone, so on a CPU its weights are those of a single run, bit for
bit; members of one seed share what they read. A member that stops early leaves the others running.

    fitted = fit_together(features, [config, other])
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from samcls.config import values_of
from samcls.device import autocast, training_dtype
from samcls.errors import RunError
from samcls.learn.features.tensors import Features
from samcls.learn.fit.adamw import StackedAdamW
from samcls.learn.fit.losses import Criterion
from samcls.learn.fit.prediction import (
    batch_size,
    batched,
    merge_views,
    select,
    shape_of,
    to_probabilities,
)
from samcls.learn.fit.schedule import Epoch, Fitted, learning_rate, streams
from samcls.learn.fit.stacked import can_stack, stack_of
from samcls.learn.heads import HEADS, Head, SEHead, build_head
from samcls.learn.heads.pooled import LinearHead
from samcls.learn.score.scoring import auc
from samcls.learn.settings import TrainConfig
from samcls.pooling import masked_mean

__all__ = ["Population", "architecture", "fit_together", "together"]

Log = Callable[[str], None]

LOG_EVERY = 10  # epochs between two lines of the log


def architecture(config: TrainConfig) -> tuple[object, ...]:
    """What configs must agree in to be trained together: the shapes of weights and of a step."""
    return tuple(values_of(config, "data", "form", "step").values())


def fit_together(
    features: Features, configs: Sequence[TrainConfig], log: Log = lambda _: None
) -> list[Fitted | RunError]:
    """Train one head for each config, choosing each one's epoch on the validation split.

    Args:
        features: Standardised features with rows in `train` and `val`; `test` is never looked at.
        configs: Of one `architecture`.
        log: Called with a line of progress now and then.

    Returns:
        For each config what its training left, or why it failed; one that diverges does not stop
        the others.
    """
    population = Population(features, configs)
    number = 0
    while population.running:
        number += 1
        population.epoch(number, log)
    return population.results()


@dataclass(eq=False)
class _Member:
    """One config's training: what is drawn for it, and what it has come to."""

    config: TrainConfig
    criterion: Criterion
    weighed: Criterion  # the same on the device of the features
    drop: torch.Generator
    history: list[Epoch] = field(default_factory=list)
    best: Epoch | None = None
    chosen: Tensor | None = None
    error: RunError | None = None

    def note(self, epoch: Epoch, values: Tensor, log: Log) -> bool:
        """Take an epoch's outcome; whether training is to go on."""
        self.history.append(epoch)
        if self.best is None or epoch.rank() > self.best.rank():
            self.best, self.chosen = epoch, values.clone()
        number, patience = epoch.epoch, self.config.patience
        if number % LOG_EVERY == 0:
            log(f"epoch {number} of {self.config.epochs}: {epoch}; best so far {self.best}")
        if patience and number - self.best.epoch >= patience:
            log(f"epoch {number}: no better since epoch {self.best.epoch}, stopping")
            return False
        return number < self.config.epochs


class Population:
    """Heads in training, an epoch at a time.

    Args:
        features: Standardised features with rows in `train` and `val`.
        configs: Of one `architecture`; more than one only of heads that can be stacked.
    """

    def __init__(self, features: Features, configs: Sequence[TrainConfig]) -> None:
        features = features if sees_tokens(configs[0].head) else mean_features(features)
        self.features = features
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
        self._all: list[_Member] = []
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
            self._all.append(_Member(config, criterion, weighed, drop))
        self._dtype = training_dtype(configs[0].precision, features.device)
        mixed = self._dtype != torch.float32
        self.members = stack_of(heads, features.device, autograd=mixed)
        self.running = list(range(len(configs)))
        self._optimizer = StackedAdamW(self.members, [c.weight_decay for c in configs])
        # Float16 gradients underflow unless the loss is scaled up; otherwise this does nothing.
        self._scaler = torch.amp.GradScaler(
            features.device.type, enabled=self._dtype == torch.float16
        )
        self._labels = features.labels.to(features.device)
        self._heads = heads

    def results(self) -> list[Fitted | RunError]:
        """What each config's training left, in the order of the configs."""
        return [self._result(place, member) for place, member in enumerate(self._all)]

    def epoch(self, number: int, log: Log = lambda _: None) -> None:
        """One pass over the training split for all that are running, and a look at validation."""
        losses, rates = self.training_pass(number)
        logits = self._validation_logits().cpu()
        labels = self.features.labels[self.val]
        every = labels.expand(len(self.running), -1, -1)
        criteria = [member.criterion for member in self._members()]
        val_losses = _losses(criteria, logits, every).tolist()
        left = []
        for i, place in enumerate(self.running):
            member = self._all[place]
            if not math.isfinite(losses[i] + val_losses[i]):
                member.error = _diverged(member.config, number, losses[i], val_losses[i])
                continue
            chances = to_probabilities(logits[i], self.features.tasks)
            area = auc(labels.numpy(), chances)
            epoch = Epoch(number, rates[i], losses[i], val_losses[i], area)
            if member.note(epoch, self.members.values[i].detach(), log):
                left.append(i)
        self._keep(left)

    def training_pass(self, number: int) -> tuple[list[float], list[float]]:
        """One pass over the training split: each member's mean loss and last learning rate."""
        members = self._members()
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
        members, features = self._members(), self.features
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

    def _validation_logits(self) -> Float[Tensor, "member image logit"]:
        features = self.features
        with torch.no_grad():  # not inference mode: training goes on in the same memory
            parts = [
                self.members.logits(*_selected(features, part[None]), None)
                for part in torch.split(features.flat(self.val), batch_size(features.tokens))
            ]
            logits = torch.cat(parts, 1)
            classes = [len(names) for names in features.tasks.values()]
            merged = [merge_views(one, features.views, classes) for one in logits]
            return torch.stack(merged)

    def _keep(self, left: list[int]) -> None:
        """Go on with those members, by their places among the running."""
        if len(left) < len(self.running) and left:
            self.members = self.members.keep(left)
            self._optimizer.keep(left, self.members)
        self.running = [self.running[i] for i in left]

    def _members(self) -> list[_Member]:
        return [self._all[place] for place in self.running]

    def _result(self, place: int, member: _Member) -> Fitted | RunError:
        if member.error is not None or member.best is None or member.chosen is None:
            return member.error or RunError("no epoch was trained")
        head = self.members.store(self._heads[place], member.chosen)
        return Fitted(head, member.best, tuple(member.history), 1, {})


def sees_tokens(head: str) -> bool:
    """Whether a head looks at single tokens, rather than at each level's mean alone."""
    return not issubclass(HEADS[head], LinearHead | SEHead)


def mean_features(features: Features) -> Features:
    """Features with one token a level, the mean over valid cells: all that some heads look at."""
    rows = torch.arange(len(features.ids) * features.views)

    def means(part: Tensor) -> Tensor:
        found, counts = select(features, part)
        return torch.cat([masked_mean(found[k], counts[k]) for k in features.tokens], 1)

    widths = list(features.channels.values())
    parts = torch.split(
        batched(means, rows, batch_size(features.tokens))[:, None].to(features.device), widths, 2
    )
    tokens = dict(zip(features.tokens, (part.contiguous() for part in parts), strict=True))
    counts = {level: torch.ones_like(values[:, :1]) for level, values in features.counts.items()}
    grids = dict.fromkeys(tokens, (1, 1))
    return replace(features, tokens=tokens, counts=counts, grids=grids)


def together(features: Features, config: TrainConfig) -> bool:
    """Whether heads of the config's architecture can be trained together."""
    head = build_head(config, shape_of(features), torch.Generator())
    return can_stack(head)


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


def _diverged(config: TrainConfig, number: int, train: float, val: float) -> RunError:
    return RunError(
        f"training diverged: the loss is {train:g} in training and {val:g} in validation after epoch "
        f"{number}; lower learning_rate ({config.learning_rate:g})"
    )
