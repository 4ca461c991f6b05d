"""SLCA of several heads at once on one level: the gated means and, by hand, their gradients.

Tokens are worked on in parts that a cache holds, the same parts for any number of members, so that a
member's numbers do not depend on its neighbours. `learn/fit/stacked.py` makes whole heads of these.

    gates = MemberGates((w1, b1, e), (d_w1, d_b1, d_e))
    mean = gates.forward(tokens, shares, training=True)     # "member image channel"
    gates.backward(slope)                                   # adds to d_w1, d_b1, d_e
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["MemberGates"]

PART = 131_072  # values worked on at once on a CPU: three such tensors fit a 2 MB cache


class MemberGates:
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
        """Return the gated means; in training, what `backward` needs is kept."""
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
        length = unit * (images or _piece_images(count, self.channels, self._e.device))
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
        """Return the piece of `size` images from `start` on."""
        unit = self.members * self.count * self.width
        start = start * unit if self.apart else 0
        piece = self.memory[start : start + size * unit]
        return piece.view(self.members, size * self.count, self.width)


def _piece_images(count: int, channels: int, device: torch.device) -> int:
    return max(1, (PART if device.type == "cpu" else 64 * PART) // (count * channels))


def _pieces(tokens: Tensor) -> Iterator[tuple[int, int]]:
    """Start and size of each piece; they depend on no member, so neither do any sums."""
    images, count, channels = tokens.shape[1:]
    step = _piece_images(count, channels, tokens.device)
    for start in range(0, images, step):
        yield start, min(step, images - start)
