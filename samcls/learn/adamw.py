"""AdamW over one flat buffer: a step costs the same few operations however many tensors there are.

Small heads have many small tensors, and PyTorch's own optimizer spends 0.2 ms a step on looking
after them, as much as SLCA's arithmetic over 16 tokens; this one takes 0.03 ms for 45,000 values.

    optimizer = FlatAdamW(head.parameters(), weight_decay=0.1)
    optimizer.zero_grad(); loss.backward(); optimizer.step(rate)
    optimizer.release()
"""

import math
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

__all__ = ["FlatAdamW", "StackedAdamW"]

BETAS = (0.9, 0.999)
EPSILON = 1e-8


class FlatAdamW:
    """AdamW (1711.05101) with decoupled decay on weights, which have two axes, and not on biases.

    While it is in use the parameters and their gradients are views of two flat buffers.

    Args:
        parameters: What is trained.
        weight_decay: The decay, times the learning rate, a step.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], weight_decay: float) -> None:
        self.parameters = sorted(parameters, key=lambda p: p.ndim <= 1)
        self.weight_decay = weight_decay
        self.values = torch.cat([p.detach().flatten() for p in self.parameters])
        rows = self.values.new_zeros(4, len(self.values))
        self.gradients, self.first, self.second, self.work = rows
        self.decayed = self.values[: sum(p.numel() for p in self.parameters if p.ndim > 1)]
        self.steps = 0
        start = 0
        for parameter in self.parameters:
            end = start + parameter.numel()
            parameter.data = self.values[start:end].view_as(parameter)
            parameter.grad = self.gradients[start:end].view_as(parameter)
            start = end

    @property
    def param_groups(self) -> list[dict[str, list[nn.Parameter]]]:
        """The parameters as `torch.amp.GradScaler` asks an optimizer for them."""
        return [{"params": self.parameters}]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self.gradients.zero_()

    def step(self, rate: float) -> None:
        """Move every parameter once, at a learning rate."""
        self.steps += 1
        one, two = BETAS
        self.first.lerp_(self.gradients, 1 - one)
        self.second.mul_(two).addcmul_(self.gradients, self.gradients, value=1 - two)
        self.decayed.mul_(1 - rate * self.weight_decay)
        scale = math.sqrt(1 - two**self.steps)
        torch.sqrt(self.second, out=self.work)
        self.work.div_(scale).add_(EPSILON)
        self.values.addcdiv_(self.first, self.work, value=-rate / (1 - one**self.steps))

    def copy(self) -> Float[Tensor, " value"]:
        """All parameters as they are now, to be given back to `restore`."""
        return self.values.clone()

    def restore(self, values: Float[Tensor, " value"]) -> None:
        """Set all parameters to what they were."""
        self.values.copy_(values)

    def release(self) -> None:
        """Give each parameter memory of its own again, without a gradient."""
        for parameter in self.parameters:
            parameter.data = parameter.detach().clone()
            parameter.grad = None


class StackedAdamW:
    """AdamW (1711.05101) for members that share a buffer, each with a rate and a decay of its own.

    Args:
        values: What is trained; changed in place.
        gradients: Of the values; read at each step.
        decayed: Which values are weights, on which the decay acts, rather than biases.
        weight_decay: Each member's decay, times its learning rate, a step.
    """

    def __init__(
        self,
        values: Float[Tensor, "member value"],
        gradients: Float[Tensor, "member value"],
        decayed: Bool[Tensor, " value"],
        weight_decay: Sequence[float],
    ) -> None:
        self.values, self.gradients = values, gradients
        self.first, self.second, self.work = (torch.zeros_like(values) for _ in range(3))
        self.decays = values.new_tensor(weight_decay)[:, None] * decayed
        self.steps = 0

    def step(self, rates: Sequence[float]) -> None:
        """Move every member once, each at its learning rate."""
        self.steps += 1
        one, two = BETAS
        rate = self.values.new_tensor(rates)[:, None]
        self.first.lerp_(self.gradients, 1 - one)
        self.second.mul_(two).addcmul_(self.gradients, self.gradients, value=1 - two)
        torch.mul(self.decays, self.values, out=self.work)
        self.values.addcmul_(self.work, rate, value=-1)
        torch.sqrt(self.second, out=self.work)
        self.work.div_(math.sqrt(1 - two**self.steps)).add_(EPSILON)
        torch.div(self.first, self.work, out=self.work)
        self.values.addcmul_(self.work, rate, value=-1 / (1 - one**self.steps))

    def keep(
        self,
        members: Sequence[int],
        values: Float[Tensor, "member value"],
        gradients: Float[Tensor, "member value"],
    ) -> None:
        """Go on with some of the members alone.

        Args:
            members: Which, by their place until now.
            values: Their values' new buffer.
            gradients: Likewise.
        """
        chosen = list(members)
        self.values, self.gradients = values, gradients
        self.first, self.second, self.work, self.decays = (
            state[chosen] for state in (self.first, self.second, self.work, self.decays)
        )
