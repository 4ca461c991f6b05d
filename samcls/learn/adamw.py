"""AdamW over one flat buffer: a step costs the same few operations however many tensors there are.

Small heads have many small tensors, and PyTorch's own optimizer spends 0.2 ms a step on looking
after them, as much as SLCA's arithmetic over 16 tokens; this one takes 0.03 ms for 45,000 values.

    optimizer = FlatAdamW(head.parameters(), weight_decay=0.1)
    optimizer.zero_grad(); loss.backward(); optimizer.step(rate)
    optimizer.release()
"""

import math
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["FlatAdamW"]

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
        self.gradients, self.first, self.second, self.work = torch.zeros(4, len(self.values))
        self.decayed = self.values[: sum(p.numel() for p in self.parameters if p.ndim > 1)]
        self.steps = 0
        start = 0
        for parameter in self.parameters:
            end = start + parameter.numel()
            parameter.data = self.values[start:end].view_as(parameter)
            parameter.grad = self.gradients[start:end].view_as(parameter)
            start = end

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
