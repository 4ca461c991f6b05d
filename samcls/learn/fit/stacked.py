"""Several heads of one architecture as one: stacked weights, one pass over the tokens for all.

A small head spends as long on calling operations as in them; here one call serves every member, and
gradients are written by hand, which on a CPU is faster than `torch.func.vmap` with `torch.optim.AdamW`. A
member's numbers do not depend there on its neighbours, bit for bit where every level's channels are a
multiple of 32, so a single run is a stack of one. `samcls bench sweep` measures what stacking gains, and
what it gains over vmap.

    members = stack_of([build_head(config, shape, generator) for config in configs])
    logits = members.logits(tokens, counts, drops)      # "member image logit"
    members.backward(loss_of_each_member(logits))       # fills members.gradients, "member value"
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from samcls.learn.fit.stacked_gates import MemberGates
from samcls.learn.heads.base import Head
from samcls.learn.heads.classifier import Classifier
from samcls.learn.heads.slca import SLCA
from samcls.pooling import masked_mean, shares_of

__all__ = ["Counts", "Members", "Tokens", "stack_of"]

ALIGNED = 32  # values: what vector instructions take at once
HOST = torch.device("cpu")

# `draw` is 1 where all members see the same images, and the number of members where each its own.
Tokens = Mapping[str, Float[Tensor, "draw image _token _channel"]]
Counts = Mapping[str, Float[Tensor, "draw image _token"]]
Drops = Sequence[torch.Generator]


class Members(ABC):
    """Heads that are trained side by side, all their weights in one buffer.

    Attributes:
        heads: The heads; while they are members their own weights are stale.
        values: Every weight, "member value".
        gradients: Of the values, likewise.
        decayed: Which values are weights, on which AdamW's decay acts, rather than biases.
    """

    heads: list[Head]
    values: Float[Tensor, "member value"]
    gradients: Float[Tensor, "member value"]
    decayed: Bool[Tensor, " value"]

    @abstractmethod
    def logits(
        self, tokens: Tokens, counts: Counts, drops: Drops | None
    ) -> Float[Tensor, "member image logit"]:
        """Logits of every member.

        Args:
            tokens: For each level, standardised window means.
            counts: For each level, number of valid map cells under each token.
            drops: Source of each member's dropout masks in training; members that share one, and a
                rate, share the masks. None means evaluation.
        """

    @abstractmethod
    def backward(self, losses: Float[Tensor, " member"]) -> None:
        """Fill the gradients for what `logits` computed last.

        Args:
            losses: Computed from those logits, each from its own member's alone.
        """

    @abstractmethod
    def store(self, head: Head, values: Float[Tensor, " value"]) -> Head:
        """Give a head its weights and return it.

        Args:
            head: One of these members, or one that was.
            values: A row of `values`, perhaps of an earlier step.
        """

    @abstractmethod
    def keep(self, members: Sequence[int]) -> "Members":
        """Return the same with some of the members alone, at the values where they stand."""


def stack_of(
    heads: Sequence[Head], device: torch.device = HOST, *, autograd: bool = False
) -> Members:
    """Heads of one architecture as members, which may differ in their rate of dropout.

    Args:
        heads: On the CPU, with the weights that training starts from.
        device: Where they are trained.
        autograd: Run the head's own forward pass and autograd, as mixed precision needs.

    Raises:
        ValueError: several heads of a kind whose arithmetic is not stacked: those train one by one.
    """
    if not autograd and all(head.stacks for head in heads):
        return _Stack(list(heads), device)
    if len(heads) > 1:
        raise ValueError(f"{type(heads[0]).__name__} with these options trains alone")
    return _Alone(heads[0].to(device))


class _Alone(Members):
    """One head of any kind, through its own forward pass and autograd."""

    def __init__(self, head: Head) -> None:
        self.heads = [head]
        parameters = list(head.parameters())
        self.values = torch.cat([p.detach().flatten() for p in parameters])[None]
        self.gradients = torch.zeros_like(self.values)
        self.decayed = torch.cat([torch.full((p.numel(),), p.ndim > 1) for p in parameters])
        ends = list(accumulate((p.numel() for p in parameters), initial=0))
        for parameter, (start, end) in zip(parameters, pairwise(ends), strict=True):
            parameter.data = self.values[0, start:end].view_as(parameter)
            parameter.grad = self.gradients[0, start:end].view_as(parameter)

    def logits(
        self, tokens: Tokens, counts: Counts, drops: Drops | None
    ) -> Float[Tensor, "member image logit"]:
        only = {k: v[0] for k, v in tokens.items()}, {k: v[0] for k, v in counts.items()}
        found: Tensor = self.heads[0](*only, drops[0] if drops else None)
        return found[None]

    def backward(self, losses: Float[Tensor, " member"]) -> None:
        self.gradients.zero_()
        losses.sum().backward()  # type: ignore[no-untyped-call]

    def store(self, head: Head, values: Float[Tensor, " value"]) -> Head:
        self.values[0].copy_(values)
        for parameter in head.parameters():
            parameter.data = parameter.detach().clone()
            parameter.grad = None
        return head

    def keep(self, members: Sequence[int]) -> "Members":
        del members
        return self


class _Stack(Members):
    """Heads whose features are means of tokens, gated or not, before one kind of classifier."""

    def __init__(
        self, heads: list[Head], device: torch.device, values: Tensor | None = None
    ) -> None:
        self.heads = heads
        first = heads[0]
        self._levels: tuple[str, ...] = first.levels  # type: ignore[assignment]
        self._local = not first.means_suffice
        self._residual = any(slca.gate == "residual" for slca in _slcas(first))
        self._rates = [cast("Classifier", head.classifier).rate for head in heads]
        if values is None:
            values = torch.stack([_row(_blocks(head)) for head in heads]).to(device)
        self.values, self.gradients = values, torch.zeros_like(values)
        self.decayed = _row(_decayed(first)).to(device)
        shapes = [block.shape for block in _blocks(first)]
        weights, slopes = _cut(self.values, shapes), _cut(self.gradients, shapes)
        count = len(_slcas(first))
        self._gates = [
            MemberGates(weights[3 * i : 3 * i + 3], slopes[3 * i : 3 * i + 3]) for i in range(count)
        ]
        # The classifier goes through autograd, which costs the same for any number of members.
        self._classifier = [weight.requires_grad_() for weight in weights[3 * count :]]
        self._slopes = slopes[3 * count :]
        self._means: Tensor | None = None

    def logits(
        self, tokens: Tokens, counts: Counts, drops: Drops | None
    ) -> Float[Tensor, "member image logit"]:
        training = drops is not None
        means = torch.cat([self._mean(i, tokens[k], counts[k], training)
                           for i, k in enumerate(self._levels)], 2)  # fmt: skip
        self._means = means.requires_grad_() if training and self._gates else None
        features = self._dropped(means.expand(len(self.heads), -1, -1), drops)
        *hidden, weight, bias = self._classifier
        if hidden:
            inner = torch.baddbmm(hidden[1][:, None], features, hidden[0].transpose(1, 2))
            features = self._dropped(torch.relu(inner), drops)
        return torch.baddbmm(bias[:, None], features, weight.transpose(1, 2))

    def backward(self, losses: Float[Tensor, " member"]) -> None:
        self.gradients.zero_()
        means = [] if self._means is None else [self._means]
        found = torch.autograd.grad(losses.sum(), [*self._classifier, *means])
        for slope, one in zip(self._slopes, found, strict=False):
            slope.copy_(one)
        if means:
            widths = [gate.channels for gate in self._gates]
            for gate, part in zip(self._gates, torch.split(found[-1], widths, 2), strict=True):
                gate.backward(part)

    def store(self, head: Head, values: Float[Tensor, " value"]) -> Head:
        shapes = [block.shape for block in _blocks(head)]
        with torch.no_grad():
            _fill(head, [block[0] for block in _cut(values[None], shapes)])
        return head.to(values.device)

    def keep(self, members: Sequence[int]) -> "Members":
        values = self.values.detach()[list(members)]
        return _Stack([self.heads[i] for i in members], values.device, values)

    def _mean(self, level: int, tokens: Tensor, counts: Tensor, training: bool) -> Tensor:
        """Means over valid cells, gated where the head gates: "member-or-1 image channel"."""
        if not self._local:
            flat = masked_mean(tokens.flatten(0, 1), counts.flatten(0, 1))
            tokens = flat.view(*tokens.shape[:2], 1, -1)
            if not self._gates:
                return tokens[:, :, 0]
            counts = counts.new_ones(tokens.shape[:3])
        shares = shares_of(counts.flatten(0, 1)).view_as(counts)
        mean = self._gates[level].forward(tokens, shares, training)
        if self._residual:
            plain = torch.bmm(shares.flatten(0, 1)[:, None], tokens.flatten(0, 1))
            mean = mean + plain.view(*tokens.shape[:2], -1)
        return mean

    def _dropped(self, features: Tensor, drops: Drops | None) -> Tensor:
        """Features after each member's dropout; masks are those of the member trained alone."""
        if drops is None or not any(self._rates):
            return features
        masks: dict[tuple[int, float], Tensor] = {}
        for rate, generator in zip(self._rates, drops, strict=True):
            if (id(generator), rate) not in masks:
                masks[id(generator), rate] = _mask(features[0], rate, generator)
        keys = [(id(g), rate) for rate, g in zip(self._rates, drops, strict=True)]
        if len(masks) == 1:
            return features * masks[keys[0]]
        return features * torch.stack([masks[key] for key in keys])


def _mask(like: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    if rate == 0:
        return torch.ones_like(like)
    mask = torch.empty(like.shape, dtype=like.dtype).bernoulli_(1 - rate, generator=generator)
    return mask.mul_(1 / (1 - rate)).to(like.device)


def _blocks(head: Head) -> list[Tensor]:
    """Return a head's weights in the order and shape in which members hold them."""
    blocks = []
    for slca in _slcas(head):
        excite = slca.excite.weight.detach().t()
        if len(_bias(slca.excite)):
            excite = torch.cat([excite, slca.excite.bias.detach()[None]])
        blocks += [slca.squeeze.weight.detach(), _bias(slca.squeeze), excite]
    for layer in _layers(head):
        blocks += [layer.weight.detach(), _bias(layer)]
    return blocks


def _decayed(head: Head) -> list[Tensor]:
    """For each block, which of its values are weights rather than biases."""
    masks = []
    for slca in _slcas(head):
        inner = torch.ones(slca.squeeze.weight.shape, dtype=torch.bool)
        outer = torch.ones(slca.excite.weight.t().shape, dtype=torch.bool)
        if len(_bias(slca.excite)):
            outer = torch.cat([outer, torch.zeros(1, outer.shape[1], dtype=torch.bool)])
        masks += [inner, torch.zeros(len(_bias(slca.squeeze)), dtype=torch.bool), outer]
    for layer in _layers(head):
        masks += [torch.ones_like(layer.weight, dtype=torch.bool)]
        masks += [torch.zeros_like(layer.bias, dtype=torch.bool)]
    return masks


def _fill(head: Head, blocks: Sequence[Tensor]) -> None:
    """Give a head the weights that `_blocks` took from it."""
    left = iter(blocks)
    for slca in _slcas(head):
        slca.squeeze.weight.copy_(next(left))
        _bias(slca.squeeze).copy_(next(left))
        excite = next(left)
        slca.excite.weight.copy_(excite[: slca.excite.in_features].t())
        if len(_bias(slca.excite)):
            slca.excite.bias.copy_(excite[-1])
    for layer in _layers(head):
        layer.weight.copy_(next(left))
        layer.bias.copy_(next(left))


def _row(blocks: Sequence[Tensor]) -> Tensor:
    """Blocks end to end, padded so that every member's values lie alike in memory.

    How a processor rounds may depend on where in its vectors a number stands.
    """
    flat = torch.cat([block.flatten() for block in blocks])
    return functional.pad(flat, (0, -len(flat) % ALIGNED))


def _cut(values: Float[Tensor, "member value"], shapes: Sequence[torch.Size]) -> list[Tensor]:
    """Return views of the values as blocks, each with the member axis in front; padding is left out."""
    used = values[:, : sum(shape.numel() for shape in shapes)]
    parts = torch.split(used, [shape.numel() for shape in shapes], 1)
    return [part.view(len(values), *shape) for part, shape in zip(parts, shapes, strict=True)]


def _bias(layer: nn.Linear) -> Tensor:
    bias: Tensor | None = layer.bias  # which nn.Linear declares as always there
    return layer.weight.new_empty(0) if bias is None else bias.detach()


def _slcas(head: Head) -> list[SLCA]:
    return [module for module in head.modules() if isinstance(module, SLCA)]


def _layers(head: Head) -> list[nn.Linear]:
    """Return the classifier's layers, from the features to the logits."""
    classifier = cast("Classifier", head.classifier)
    return [layer for layer in (classifier.hidden, classifier.output) if layer is not None]
