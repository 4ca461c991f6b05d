"""Several heads of one architecture as one: stacked weights, one pass over the tokens for all.

A small head spends as long on calling operations as in them; here one call serves every member, and
gradients are written by hand. On a CPU a member's numbers do not depend on its neighbours, bit for
bit where every level's channels are a multiple of 32, so a single run is a stack of one. `samcls bench sweep` measures what stacking gains.

    members = stack_of([build_head(config, shape, generator) for config in configs])
    logits = members.logits(tokens, counts, drops)      # "member image logit"
    members.backward(loss_of_each_member(logits))       # fills members.gradients, "member value"
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from samcls.learn.heads import Head, SEHead, SLCAHead
from samcls.learn.heads.base import Classifier
from samcls.learn.heads.pooled import LinearHead
from samcls.learn.slca import SLCA, masked_mean, shares_of

__all__ = ["Counts", "Members", "Tokens", "can_stack", "stack_of"]

ALIGNED = 32  # values: what vector instructions take at once
HOST = torch.device("cpu")
PART = 512  # tokens worked on at once on a CPU: three tensors of 256 channels fit a 2 MB cache

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
        """The same with some of the members alone, at the values where they stand."""


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
    if not autograd and all(can_stack(head) for head in heads):
        return _Stack(list(heads), device)
    if len(heads) > 1:
        raise ValueError(f"{type(heads[0]).__name__} with these options trains alone")
    return _Alone(heads[0].to(device))


def can_stack(head: Head) -> bool:
    """Whether several such heads can be stacked; others are stacks of one."""
    if not isinstance(head, LinearHead | SLCAHead | SEHead) or head.classifier.links:
        return False
    pooled = head.pooled if isinstance(head, SLCAHead) else True
    return pooled and all(slca.spread == 1 for slca in _slcas(head))


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
        self._local = isinstance(first, SLCAHead)
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
            _Gate(weights[3 * i : 3 * i + 3], slopes[3 * i : 3 * i + 3]) for i in range(count)
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


class _Gate:
    """One level's SLCA of every member: the gated mean and, by hand, its gradients.

    With h = relu(x W1' + b1), 1 appended, and A = sigmoid(h E), E holding W2' above b2, the mean is the
    sum over tokens of share x token x A. Without biases no 1 is appended.

    Args:
        weights: W1 "member hidden channel", b1 "member hidden" and E "member row channel".
        slopes: Where their gradients are added up.
    """

    def __init__(self, weights: Sequence[Tensor], slopes: Sequence[Tensor]) -> None:
        self._w1, self._b1, self._e = weights
        self._d_w1, self._d_b1, self._d_e = slopes
        self._biased = self._b1.shape[1] > 0
        self._inner = self._w1.shape[1]
        self._memory: dict[str, Tensor] = {}
        self._seen: tuple[Tensor, Tensor, _Parts, _Parts] | None = None

    def forward(
        self,
        tokens: Float[Tensor, "draw image token channel"],
        shares: Float[Tensor, "draw image token"],
        training: bool,
    ) -> Float[Tensor, "member image channel"]:
        """The gated means; in training, what `backward` needs is kept."""
        members, (images, count, channels) = len(self._e), tokens.shape[1:]
        hidden = self._parts("hidden", images if training else 0, count, self._e.shape[1])
        gates = self._parts("gates", images if training else 0, count, channels)
        work = self._parts("work", 0, count, channels)
        mean = tokens.new_empty(members, images, channels)
        for start, size in _pieces(tokens):
            x = self._piece(tokens, start, size)
            h, a = hidden.at(start, size), gates.at(start, size)
            inner = torch.bmm(x, self._w1.transpose(1, 2))
            if self._biased:
                inner.add_(self._b1[:, None])
                h[:, :, -1] = 1
            torch.clamp_min(inner, 0, out=h[:, :, : self._inner])
            torch.bmm(h, self._e, out=a).sigmoid_()
            gated = torch.mul(a, x, out=work.at(start, size))
            share = shares[:, start : start + size].expand(members, -1, -1)
            whole = torch.bmm(share.reshape(-1, 1, count), gated.view(-1, count, channels))
            mean[:, start : start + size] = whole.view(members, size, channels)
        self._seen = (tokens, shares, hidden, gates) if training else None
        return mean

    def backward(self, slope: Float[Tensor, "member image channel"]) -> None:
        """Add the gradients of what `forward` computed last.

        Args:
            slope: Of the loss, by the gated means.
        """
        if self._seen is None:
            raise RuntimeError("backward needs a forward pass in training before it")
        tokens, shares, hidden, gates = self._seen
        count, channels = tokens.shape[2:]
        work = self._parts("work", 0, count, channels)
        down = self._e[:, : self._inner].transpose(1, 2)
        for start, size in _pieces(tokens):
            at = slice(start, start + size)
            x, h = self._piece(tokens, start, size), hidden.at(start, size)
            d = work.at(start, size)
            by_image = d.view(-1, size, count, channels)
            torch.mul(tokens[:, at], slope[:, at, None], out=by_image)
            torch.ops.aten.sigmoid_backward.grad_input(d, gates.at(start, size), grad_input=d)
            # A token's share scales its whole row, so it may wait until the rows are narrow.
            share = shares[:, at].flatten(1)[:, :, None]
            self._d_e.baddbmm_((h * share).transpose(1, 2), d)
            d_h = torch.bmm(d, down).mul_(share)
            d_h = torch.ops.aten.threshold_backward(d_h, h[:, :, : self._inner], 0)
            self._d_w1.baddbmm_(d_h.transpose(1, 2), x)
            if self._biased:
                self._d_b1.add_(d_h.sum(1))

    @property
    def channels(self) -> int:
        """Channels of the level."""
        return self._e.shape[2]

    def _piece(self, tokens: Tensor, start: int, size: int) -> Tensor:
        """Tokens of some images for every member, "member token channel", without a copy."""
        return tokens[:, start : start + size].flatten(1, 2).expand(len(self._e), -1, -1)

    def _parts(self, name: str, images: int, count: int, width: int) -> "_Parts":
        """Memory for so many images, or for one piece at a time; what it held before is lost."""
        unit = len(self._e) * count * width
        length = unit * (images or _piece_images(count, self._e.device))
        found = self._memory.get(name)
        if found is None or len(found) < length:
            found = self._memory[name] = self._e.new_empty(length)
        return _Parts(found, len(self._e), count, width, images > 0)


@dataclass(frozen=True, eq=False)
class _Parts:
    """Memory in which each piece of the images is one contiguous "member token value"."""

    memory: Float[Tensor, " value"]
    members: int
    count: int
    width: int
    apart: bool  # else every piece takes the place of the one before

    def at(self, start: int, size: int) -> Float[Tensor, "member token value"]:
        """The piece of `size` images from `start` on."""
        unit = self.members * self.count * self.width
        start = start * unit if self.apart else 0
        piece = self.memory[start : start + size * unit]
        return piece.view(self.members, size * self.count, self.width)


def _piece_images(count: int, device: torch.device) -> int:
    return max(1, (PART if device.type == "cpu" else 64 * PART) // count)


def _pieces(tokens: Tensor) -> Iterator[tuple[int, int]]:
    """Start and size of each piece; they depend on no member, so neither do any sums."""
    images, count = tokens.shape[1:3]
    step = _piece_images(count, tokens.device)
    for start in range(0, images, step):
        yield start, min(step, images - start)


def _blocks(head: Head) -> list[Tensor]:
    """A head's weights in the order and shape in which members hold them."""
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
    """Views of the values as blocks, each with the member axis in front; padding is left out."""
    used = values[:, : sum(shape.numel() for shape in shapes)]
    parts = torch.split(used, [shape.numel() for shape in shapes], 1)
    return [part.view(len(values), *shape) for part, shape in zip(parts, shapes, strict=True)]


def _bias(layer: nn.Linear) -> Tensor:
    bias: Tensor | None = layer.bias  # which nn.Linear declares as always there
    return layer.weight.new_empty(0) if bias is None else bias.detach()


def _slcas(head: Head) -> list[SLCA]:
    return [module for module in head.modules() if isinstance(module, SLCA)]


def _layers(head: Head) -> list[nn.Linear]:
    """The classifier's layers, from the features to the logits."""
    classifier = cast("Classifier", head.classifier)
    return [layer for layer in (classifier.hidden, classifier.output) if layer is not None]
