"""Losses, the cumulative link and the flat optimizer: equal to PyTorch's and to closed forms."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.testing import assert_close

from samcls.config import TrainConfig
from samcls.learn.layers import CumulativeLink
from samcls.learn.losses import Criterion


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


LOGITS = torch.randn(50, 3, generator=seeded(1))
LABELS = torch.tensor([0] * 30 + [1] * 15 + [2] * 5)


@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_smoothing_is_pytorchs(weights: str) -> None:
    """Label smoothing, with class weights or not, is that of cross_entropy."""
    config = TrainConfig(label_smoothing=0.2, class_weights=weights)
    criterion = Criterion.of(LABELS[:, None], [3], config)
    expected = functional.cross_entropy(LOGITS, LABELS, criterion.weights[0], label_smoothing=0.2)
    assert_close(criterion(LOGITS, LABELS[:, None]), expected)


def test_focal_loss_is_its_formula() -> None:
    """Each image weighs (1 - p) ** gamma, and gamma 0 is cross-entropy."""
    config = TrainConfig(loss="focal", focal_gamma=1.5)
    got = Criterion.of(LABELS[:, None], [3], config)(LOGITS, LABELS[:, None])
    p = LOGITS.softmax(1)[torch.arange(50), LABELS]
    assert_close(got, (-((1 - p) ** 1.5) * p.log()).mean())
    plain = Criterion.of(LABELS[:, None], [3], TrainConfig(loss="focal", focal_gamma=0.0))
    assert_close(plain(LOGITS, LABELS[:, None]), functional.cross_entropy(LOGITS, LABELS))


def test_focal_loss_leaves_missing_labels_out() -> None:
    """An image without a label adds neither loss nor gradient."""
    config = TrainConfig(loss="focal", label_smoothing=0.1)
    labels = LABELS.clone()
    labels[::3] = -1
    logits = LOGITS.clone().requires_grad_()
    loss = Criterion.of(LABELS[:, None], [3], config)(logits, labels[:, None])
    kept = labels >= 0
    alone = Criterion.of(LABELS[:, None], [3], config)(LOGITS[kept], labels[kept][:, None])
    assert_close(loss, alone)
    loss.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert not logits.grad[~kept].any()


def test_the_cumulative_link_is_proportional_odds() -> None:
    """P(class > k) is a sigmoid of score minus a threshold that rises with k; rows sum to 1."""
    link = CumulativeLink(5)
    score = torch.linspace(-4, 4, 9)[:, None]
    chances = link(score).exp()
    assert_close(chances.sum(1), torch.ones(9))
    thresholds = link.thresholds()
    assert (thresholds.diff() > 0).all()
    assert_close(thresholds, torch.tensor([-1.0, -1 / 3, 1 / 3, 1.0]))
    for k in range(4):
        above = chances[:, k + 1 :].sum(1)
        assert_close(above, torch.sigmoid(score[:, 0] - thresholds[k]))
    assert (chances.argmax(1).diff() >= 0).all()


def test_a_link_of_two_classes_is_a_sigmoid() -> None:
    """Two ordered classes are a binary task."""
    link: nn.Module = CumulativeLink(2)
    score = torch.tensor([[-1.0], [2.0]])
    expected = 1 / (1 + np.exp([1.0, -2.0]))
    np.testing.assert_allclose(link(score).exp()[:, 1].detach(), expected, rtol=1e-6)
