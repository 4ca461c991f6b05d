"""Heads: built by name, seeded, several levels and tasks."""

import pytest
import torch
from torch.testing import assert_close

from samcls.errors import ConfigError
from samcls.learn.heads.base import Head, Shape, split_logits
from samcls.learn.heads.layers import dropout, linear
from samcls.learn.heads.registry import HEADS, build_head, head_class
from samcls.learn.settings import TrainConfig

CHANNELS = {"patch": 12, "neck": 8}
GRIDS = {"patch": (2, 3), "neck": (2, 3)}
DESCENDED = sorted(name for name in HEADS if head_class(name).fitting == "members")


def build(config: TrainConfig, classes: int = 2, seed: int = 0) -> Head:
    return build_head(config, Shape(CHANNELS, {"task": classes}, GRIDS, 4), seeded(seed))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def inputs(images: int = 5, tokens: int = 6) -> tuple[dict[str, torch.Tensor], ...]:
    generator = seeded(1)
    return (
        {k: torch.randn(images, tokens, c, generator=generator) for k, c in CHANNELS.items()},
        {k: torch.full((images, tokens), 16.0) for k in CHANNELS},
    )


@pytest.mark.parametrize("name", DESCENDED)
@pytest.mark.parametrize("hidden", [0, 7])
def test_every_head_learns_to_tell_two_images_apart(name: str, hidden: int) -> None:
    """A few steps of plain descent lower the loss, and every parameter has a gradient."""
    config = TrainConfig(
        head=name, hidden=0 if name == "linear" else hidden, reduction=4, dropout=0.0
    )
    head = build(config)
    tokens, counts = inputs(images=2)
    labels = torch.tensor([0, 1])
    losses = []
    for _ in range(30):
        loss = torch.nn.functional.cross_entropy(head(tokens, counts), labels)
        head.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.item())
        with torch.no_grad():
            for parameter in head.parameters():
                assert parameter.grad is not None
                parameter.sub_(parameter.grad)
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("name", DESCENDED)
def test_equal_seeds_give_equal_heads(name: str) -> None:
    """Weights depend on the generator alone, and making a head leaves the global stream alone."""
    config = TrainConfig(head=name)
    state = torch.random.get_rng_state()
    a, b, c = (build(config, seed=s) for s in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), state)
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    assert all(torch.equal(p, q) for p, q in pairs)
    assert not torch.equal(next(a.parameters()), next(c.parameters()))


def test_the_order_of_levels_is_the_channels_order() -> None:
    """Levels are found by name, whatever the order in which their tokens are handed over."""
    head = build(TrainConfig(), 3)
    tokens, counts = inputs()
    turned = dict(reversed(tokens.items()))
    assert torch.equal(head(tokens, counts), head(turned, counts))


def test_an_unknown_head_is_refused_with_the_known_ones() -> None:
    """The error names the heads that there are."""
    with pytest.raises(ConfigError, match="unknown head slac; known heads: slca"):
        build(TrainConfig(head="slac"))


def test_logits_split_by_task() -> None:
    """Each task gets its own classes' logits, in order."""
    logits = torch.arange(14.0).reshape(2, 7)
    first, second, third = split_logits(logits, [2, 3, 2])
    assert torch.equal(first, logits[:, :2])
    assert torch.equal(second, logits[:, 2:5])
    assert torch.equal(third, logits[:, 5:])


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    """About the asked share is zero, the rest is scaled up, and evaluation changes nothing."""
    ones = torch.ones(200, 500)
    dropped = dropout(ones, 0.3, seeded())
    assert abs((dropped == 0).float().mean().item() - 0.3) < 0.01
    assert_close(dropped[dropped != 0], torch.full_like(dropped[dropped != 0], 1 / 0.7))
    assert dropout(ones, 0.3, None) is ones
    assert torch.equal(dropped, dropout(ones, 0.3, seeded()))


def test_linear_starts_in_pytorchs_usual_range() -> None:
    """Weights and biases fill the range +-1 / sqrt(inputs)."""
    layer = linear(64, 100, seeded())
    for parameter in (layer.weight, layer.bias):
        assert 0.11 < parameter.abs().max().item() <= 0.125
