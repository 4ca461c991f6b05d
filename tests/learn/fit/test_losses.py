"""Losses, the cumulative link and the flat optimizer: equal to PyTorch's and to closed forms."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.testing import assert_close

from samcls.learn.fit.losses import Criterion
from samcls.learn.heads.layers import CumulativeLink
from samcls.learn.settings import TrainConfig


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


def wrong_side(
    classes: int, score: float, dtype: torch.dtype
) -> tuple[CumulativeLink, torch.Tensor]:
    """A link with uneven thresholds, and one score."""
    link = CumulativeLink(classes).to(dtype)
    with torch.no_grad():
        link.steps += 0.3 * torch.arange(classes - 2, dtype=dtype)
    return link, torch.tensor([[score]], dtype=dtype, requires_grad=True)


@pytest.mark.parametrize("score", [-30.0, 30.0, -90.0, 90.0])
@pytest.mark.parametrize("label", [0, 1, 3])
def test_a_confidently_wrong_score_keeps_its_gradient(score: float, label: int) -> None:
    """Far from the class's thresholds t the loss is the distance to them, and its slope is 1.

    Beyond both thresholds of a middle class, s > t' > t, its probability tends to
    exp(-s) (exp(t') - exp(t)); on the other side, to exp(s) (exp(-t) - exp(-t')).
    """
    link, given = wrong_side(4, score, torch.float32)
    loss = functional.cross_entropy(link(given), torch.tensor([label]))
    loss.backward()  # type: ignore[no-untyped-call]
    edges = np.r_[-np.inf, link.thresholds().detach().double().numpy(), np.inf]
    side = np.sign(score)
    ends = np.sort(side * edges[label : label + 2])
    right = np.isinf(ends[1])  # the score lies in the outermost class, which is the label
    with np.errstate(over="ignore"):
        expected = 0.0 if right else abs(score) - np.log(np.exp(ends[1]) - np.exp(ends[0]))
    assert loss.item() == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert given.grad is not None
    assert given.grad.item() == pytest.approx(0.0 if right else side, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("loss", ["cross_entropy", "focal"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_gradients_of_ordered_classes_are_finite_differences(
    classes: int, loss: str, smoothing: float
) -> None:
    """Of scores from -30 to 30 and of the thresholds, whatever the loss made of the link."""
    config = TrainConfig(loss=loss, label_smoothing=smoothing)  # type: ignore[arg-type]
    link, _ = wrong_side(classes, 0.0, torch.float64)
    scores = torch.tensor([-30.0, -3.0, 0.1, 4.0, 30.0], dtype=torch.float64)
    scores = scores.repeat_interleave(classes)[:, None].requires_grad_()
    labels = torch.arange(classes).repeat(5)[:, None]
    criterion = Criterion.of(labels, [classes], config)
    criterion.weights = tuple(weight.double() for weight in criterion.weights)

    def value(scores: torch.Tensor, first: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        given = {"first": first, "steps": steps}
        return criterion(torch.func.functional_call(link, given, (scores,)), labels)

    assert torch.autograd.gradcheck(value, (scores, link.first, link.steps))


def test_steps_that_have_closed_leave_finite_losses() -> None:
    """Thresholds that have run together give a middle class a small probability, and no NaN."""
    link = CumulativeLink(3)
    with torch.no_grad():
        link.steps.fill_(-200.0)
    loss = functional.cross_entropy(link(torch.tensor([[0.0]])), torch.tensor([1]))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(200 + 0.3133 * 2 + 1, abs=0.1)
    assert link.steps.grad is not None
    assert link.steps.grad.item() == pytest.approx(-1.0)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("scale", [30.0, 1000.0])
def test_focal_gradients_are_finite_at_both_ends(gamma: float, scale: float) -> None:
    """An image that is surely right adds nothing, one that is surely wrong what cross-entropy does."""
    criterion = Criterion([torch.ones(3)], gamma=gamma)
    for label, expected in ((0, [0.0, 0.0, 0.0]), (1, [1.0, -1.0, 0.0])):
        logits = torch.tensor([[scale, 0.0, 0.0]], requires_grad=True)
        loss = criterion(logits, torch.tensor([[label]]))
        loss.backward()  # type: ignore[no-untyped-call]
        assert loss.item() == pytest.approx(label * scale, abs=1e-5)
        assert logits.grad is not None
        assert_close(logits.grad[0], torch.tensor(expected), atol=1e-5, rtol=0)


def test_a_link_of_two_classes_is_a_sigmoid() -> None:
    """Two ordered classes are a binary task."""
    link: nn.Module = CumulativeLink(2)
    score = torch.tensor([[-1.0], [2.0]])
    expected = 1 / (1 + np.exp([1.0, -2.0]))
    np.testing.assert_allclose(link(score).exp()[:, 1].detach(), expected, rtol=1e-6)
