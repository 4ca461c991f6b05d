"""AdamW over one flat buffer: a step costs the same few operations however many tensors there are.

Small heads have many small tensors, and PyTorch's own optimizer spends as long on looking after
them as SLCA's arithmetic over 16 tokens takes.

    optimizer = StackedAdamW(members, weight_decay=[0.1, 0.0])
    members.backward(losses); optimizer.step([1e-3, 5e-3])
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from samcls.learn.fit.stacked import Members

__all__ = ["StackedAdamW"]

BETAS = (0.9, 0.999)
EPSILON = 1e-8


class StackedAdamW:
    """AdamW (1711.05101) for members that share a buffer, each with a rate and a decay of its own.

    The decay is decoupled and acts on weights, not on biases.

    Args:
        members: What is trained; their values are changed in place, by their gradients.
        weight_decay: Each member's decay, times its learning rate, a step.
    """

    def __init__(self, members: Members, weight_decay: Sequence[float]) -> None:
        self.values, self.gradients = members.values, members.gradients
        self.first, self.second, self.work = (torch.zeros_like(self.values) for _ in range(3))
        self.decays = self.values.new_tensor(weight_decay)[:, None] * members.decayed
        self.steps = 0

    @property
    def param_groups(self) -> list[dict[str, list[Tensor]]]:
        """The values as `torch.amp.GradScaler` asks an optimizer for them."""
        self.values.grad = self.gradients
        return [{"params": [self.values]}]

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

    def keep(self, kept: Sequence[int], members: Members) -> None:
        """Go on with some of the members alone.

        Args:
            kept: Which, by their place until now.
            members: What is left of them.
        """
        chosen = list(kept)
        self.values, self.gradients = members.values, members.gradients
        self.first, self.second, self.work, self.decays = (
            state[chosen] for state in (self.first, self.second, self.work, self.decays)
        )
