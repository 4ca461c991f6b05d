"""The loss of several tasks at once: cross-entropy or focal, weighted, smoothed, labels missing.

Each task's loss is the mean over its labelled images, weighted by class; the whole is the mean over
tasks.

    criterion = Criterion.of(labels, [2, 5], config)
    loss = criterion(logits, labels)
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from samcls.learn.heads.base import split_logits
from samcls.learn.settings import TrainConfig

__all__ = ["Criterion"]


class Criterion:
    """What training lowers.

    Args:
        weights: For each task, the weight of each class.
        smoothing: Share of each label that is spread over all classes.
        gamma: Exponent of the focal factor (1 - p) ** gamma; 0 is cross-entropy (1708.02002).
    """

    def __init__(
        self,
        weights: Sequence[Float[Tensor, " _class"]],
        smoothing: float = 0.0,
        gamma: float = 0.0,
    ) -> None:
        self.weights = tuple(weights)
        self.smoothing = smoothing
        self.gamma = gamma

    @classmethod
    def of(
        cls, labels: Int64[Tensor, "image task"], classes: Sequence[int], config: TrainConfig
    ) -> "Criterion":
        """Return the config's loss, with class weights from training labels.

        Args:
            labels: Class indices of the training split; -1 where a label is missing.
            classes: Number of classes of each task.
            config: `balanced` class weights are the inverse of each class's share.
        """
        weights = []
        for column, number in zip(labels.T, classes, strict=True):
            counts = torch.bincount(column[column >= 0], minlength=number).float()
            balanced = torch.where(counts > 0, counts.sum() / (number * counts), 0.0)
            weights.append(balanced if config.class_weights == "balanced" else torch.ones(number))
        gamma = config.focal_gamma if config.loss == "focal" else 0.0
        return cls(weights, config.label_smoothing, gamma)

    @property
    def key(self) -> tuple[object, ...]:
        """Equal keys, equal losses."""
        return self.smoothing, self.gamma, *(tuple(w.tolist()) for w in self.weights)

    def to(self, device: torch.device) -> "Criterion":
        """Return the same on a device."""
        return Criterion([w.to(device) for w in self.weights], self.smoothing, self.gamma)

    def __call__(
        self,
        logits: Float[Tensor, "image logit"],
        labels: Int64[Tensor, "image task"],
        whole: Int64[Tensor, "whole task"] | None = None,
    ) -> Float[Tensor, ""]:
        """Return the loss of a batch; a task that the batch has no label of adds nothing.

        Args:
            logits: Of the batch.
            labels: Of the batch; -1 where one is missing.
            whole: Labels of a larger batch of which this is a part, the parts' losses adding up to
                its loss; None means that it is no part.
        """
        return self.of_members(logits[None], labels[None], whole)[0]

    def of_members(
        self,
        logits: Float[Tensor, "member image logit"],
        labels: Int64[Tensor, "member image task"],
        whole: Int64[Tensor, "whole task"] | None = None,
    ) -> Float[Tensor, " member"]:
        """Return the loss of each member's batch, as each alone would have it; a part's, as for a call."""
        flat = logits.flatten(0, 1)
        parts = split_logits(flat, [len(w) for w in self.weights])
        columns = labels.flatten(0, 1).unbind(1)
        wholes = [None] * len(columns) if whole is None else whole.unbind(1)
        losses = [
            self._of_task(part, column, weights, len(logits), of)
            for part, column, weights, of in zip(parts, columns, self.weights, wholes, strict=True)
        ]
        return losses[0] if len(losses) == 1 else torch.stack(losses).mean(0)

    def _of_task(
        self,
        logits: Tensor,
        labels: Tensor,
        weights: Tensor,
        members: int,
        whole: Tensor | None = None,
    ) -> Tensor:
        if self.gamma:
            known = labels.clamp(min=0)[:, None]
            log_probabilities = logits.log_softmax(1)
            # 1 - p as the other classes' sum: exact near p = 1, where a power of 1 - p below the
            # first has no gradient that a number could hold.
            own = torch.zeros_like(log_probabilities, dtype=torch.bool).scatter(
                1, known, value=True
            )
            rest = log_probabilities.masked_fill(own, -torch.inf).logsumexp(1)
            factor = (self.gamma * rest).exp()
            each = functional.nll_loss(
                log_probabilities, labels, weights, ignore_index=-1, reduction="none"
            )
            if self.smoothing:
                even = -(log_probabilities * weights).mean(1) * (labels >= 0)
                each = (1 - self.smoothing) * each + self.smoothing * even
            each = factor * each
        else:
            each = functional.cross_entropy(
                logits,
                labels,
                weights,
                ignore_index=-1,
                reduction="none",
                label_smoothing=self.smoothing,
            )
        # PyTorch's own mean is 0 / 0 where a batch has no label of the task.
        counted = labels if whole is None else whole.repeat(members)
        share = weights[counted.clamp(min=0)] * (counted >= 0)
        total: Tensor = each.view(members, -1).sum(1)
        return total / share.view(members, -1).sum(1).clamp(min=1e-12)
