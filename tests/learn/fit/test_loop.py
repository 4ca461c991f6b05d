"""Training many heads together: each member comes out as if it had been trained alone."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from samcls.errors import RunError
from samcls.learn.features.batches import mean_features
from samcls.learn.features.tensors import Features
from samcls.learn.fit.adamw import StackedAdamW
from samcls.learn.fit.fit import fit_together
from samcls.learn.fit.losses import Criterion
from samcls.learn.fit.schedule import Fitted
from samcls.learn.fit.stacked import stack_of
from samcls.learn.heads.base import Shape
from samcls.learn.heads.registry import build_head
from samcls.learn.settings import TrainConfig

BASE = TrainConfig(head="slca", epochs=3, patience=0, batch_size=16, reduction=4, intervals=0)


def drawn(images: int = 60, views: int = 1, cells: int = 4, seed: int = 0) -> Features:
    """Features of two levels, of which the first tells the class, with some windows invalid."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (images, 1), generator=generator)
    sides = {"early": 32, "neck": 64}
    tokens = {
        level: torch.randn(images * views, cells, width, generator=generator)
        for level, width in sides.items()
    }
    tokens["early"][:, :, 0] += labels.repeat_interleave(views, 0)
    counts = torch.randint(0, 17, (images * views, cells), generator=generator).float()
    splits = ["train", "train", "val", "test"] * (images // 4 + 1)
    side = (1, cells)
    return Features(
        tokens=tokens,
        counts=dict.fromkeys(sides, counts),
        labels=labels,
        ids=tuple(f"i{i}" for i in range(images)),
        splits=tuple(splits[:images]),
        groups=("",) * images,
        tasks={"grade": ("a", "b", "c")},
        window=4,
        grids=dict.fromkeys(sides, side),
        views=views,
        fingerprint={},
        failed=0,
    )


def weights(fitted: Fitted | RunError) -> list[torch.Tensor]:
    assert isinstance(fitted, Fitted), fitted
    return list(fitted.head.state_dict().values())


def assert_equal(one: Fitted | RunError, other: Fitted | RunError) -> None:
    for a, b in zip(weights(one), weights(other), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert isinstance(one, Fitted)
    assert isinstance(other, Fitted)
    assert one.history == other.history
    assert one.best == other.best


HEADS = [
    replace(BASE, head="slca"),
    replace(BASE, head="slca", gate="residual", hidden=6),
    replace(BASE, head="slca", gate_bias=False),
    replace(BASE, head="se", gate="residual"),
    replace(BASE, head="linear"),
    replace(BASE, head="mlp", hidden=5),
]


@pytest.mark.parametrize("base", HEADS, ids=lambda c: f"{c.head}-{c.gate}-{c.gate_bias}")
@pytest.mark.parametrize("views", [1, 2])
def test_a_member_is_what_it_is_alone(base: TrainConfig, views: int) -> None:
    """Whatever its neighbours' rates, decays, dropouts, losses and seeds: bit for bit."""
    features = drawn(views=views)
    configs = [
        base,
        replace(base, learning_rate=0.02, weight_decay=0.0, dropout=0.5),
        replace(base, dropout=0.0, loss="focal", label_smoothing=0.1),
        replace(base, seed=7, warmup=0.3),
        replace(base, class_weights="balanced", epochs=2),
    ]
    together = fit_together(features, configs)
    for config, member in zip(configs, together, strict=True):
        (alone,) = fit_together(features, [config])
        assert_equal(member, alone)


def test_a_member_that_stops_early_leaves_the_others_as_they_are() -> None:
    """Patience ends one training and no other."""
    features = drawn()
    eager = replace(BASE, patience=1, epochs=12, learning_rate=1e-6)
    steady = replace(BASE, epochs=12)
    early, late = fit_together(features, [eager, steady])
    (alone,) = fit_together(features, [steady])
    assert isinstance(early, Fitted)
    assert isinstance(late, Fitted)
    assert len(early.history) < 12 == len(late.history)
    assert_equal(late, alone)


def test_a_member_that_diverges_fails_alone() -> None:
    """A loss that is no number is that member's error, with the rate that it was given."""
    features = drawn()
    wild, calm = replace(BASE, learning_rate=1e30, weight_decay=1.0), BASE
    failed, fine = fit_together(features, [wild, calm])
    assert isinstance(failed, RunError)
    assert "lower learning_rate (1e+30)" in str(failed)
    (alone,) = fit_together(features, [calm])
    assert_equal(fine, alone)


@settings(max_examples=20)
@given(
    base=st.sampled_from(HEADS),
    images=st.integers(1, 40),
    cells=st.sampled_from([1, 3, 40]),
    seed=st.integers(0, 1000),
)
def test_logits_and_gradients_are_those_of_the_head_itself(
    base: TrainConfig, images: int, cells: int, seed: int
) -> None:
    """The hand-written passes equal the module's own forward pass and autograd to rounding."""
    features = drawn(images, cells=cells, seed=seed)
    shape = Shape(features.channels, {"grade": 3}, features.grids, features.window)
    config = replace(base, dropout=0.0)
    generators = [torch.Generator().manual_seed(seed + i) for i in range(2)]
    heads = [build_head(config, shape, generator) for generator in generators]
    twins = [build_head(config, shape, torch.Generator().manual_seed(seed + i)) for i in range(2)]
    members = stack_of(heads)
    tokens = {k: v[None] for k, v in features.tokens.items()}
    counts = {k: v[None] for k, v in features.counts.items()}
    logits = members.logits(tokens, counts, generators)
    criterion = Criterion([torch.ones(3)])
    members.backward(criterion.of_members(logits, features.labels.expand(2, -1, -1)))
    for i, twin in enumerate(twins):
        own = twin(features.tokens, features.counts)
        torch.testing.assert_close(logits[i], own, rtol=1e-4, atol=1e-5)
        criterion(own, features.labels).backward()
        slopes = {name: p.grad.clone() for name, p in twin.named_parameters() if p.grad is not None}
        found = members.store(heads[i], members.gradients[i])
        for name, value in found.named_parameters():
            torch.testing.assert_close(value.detach(), slopes[name], rtol=1e-3, atol=1e-5)


def test_members_move_as_pytorchs_adamw_moves_them() -> None:
    """Over many steps each follows torch.optim.AdamW at its own rate and decay, biases undecayed."""
    features = drawn()
    shape = Shape(features.channels, {"grade": 3}, features.grids, features.window)
    config = replace(BASE, dropout=0.0)
    heads, twins = (
        [build_head(config, shape, torch.Generator().manual_seed(i)) for i in range(2)]
        for _ in range(2)
    )
    decays, members = [0.3, 0.01], stack_of(heads)
    mover = StackedAdamW(members, decays)
    references = [
        torch.optim.AdamW(
            [
                {"params": [p for p in twin.parameters() if p.ndim > 1], "weight_decay": decay},
                {"params": [p for p in twin.parameters() if p.ndim <= 1], "weight_decay": 0.0},
            ]
        )
        for twin, decay in zip(twins, decays, strict=True)
    ]
    tokens = {k: v[None] for k, v in features.tokens.items()}
    counts = {k: v[None] for k, v in features.counts.items()}
    criterion = Criterion([torch.ones(3)])
    for step in range(30):
        rates = [0.001 * (1 + step % 3), 0.0005]
        logits = members.logits(tokens, counts, [torch.Generator()] * 2)
        members.backward(criterion.of_members(logits, features.labels.expand(2, -1, -1)))
        mover.step(rates)
        for twin, reference, rate in zip(twins, references, rates, strict=True):
            for group in reference.param_groups:
                group["lr"] = rate
            reference.zero_grad()
            criterion(twin(features.tokens, features.counts), features.labels).backward()
            reference.step()
    for i, twin in enumerate(twins):
        moved = members.store(heads[i], members.values[i])
        for name, value in moved.named_parameters():
            expected = twin.get_parameter(name)
            torch.testing.assert_close(value, expected, rtol=1e-3, atol=1e-5)


def test_evaluation_drops_nothing_and_leaves_training_untouched() -> None:
    """Logits without generators are the same at every call, whatever was trained in between."""
    features = drawn()
    shape = Shape(features.channels, {"grade": 3}, features.grids, features.window)
    members = stack_of([build_head(BASE, shape, torch.Generator().manual_seed(0))])
    tokens = {k: v[None] for k, v in features.tokens.items()}
    counts = {k: v[None] for k, v in features.counts.items()}
    with torch.no_grad():
        before = members.logits(tokens, counts, None)
        after = members.logits(tokens, counts, None)
    torch.testing.assert_close(before, after, rtol=0, atol=0)


@pytest.mark.parametrize(
    "config",
    [
        replace(BASE, head="attention-pool"),
        replace(BASE, gate_channels=4),
        replace(BASE, ordinal=("grade",)),
    ],
    ids=["attention-pool", "gate_channels", "ordinal"],
)
def test_what_cannot_be_stacked_trains_alone(config: TrainConfig) -> None:
    """Other heads are stacks of one, and several of them are refused."""
    features = drawn()
    shape = Shape(features.channels, {"grade": 3}, features.grids, features.window)
    heads = [build_head(config, shape, torch.Generator().manual_seed(i)) for i in range(2)]
    assert not heads[0].stacks
    with pytest.raises(ValueError, match="trains alone"):
        stack_of(heads)
    (fitted,) = fit_together(features, [config])
    assert isinstance(fitted, Fitted)
    assert fitted.best.val_loss < 1.5


def test_mean_features_hold_each_levels_mean_over_valid_cells() -> None:
    """An image without a valid cell has a mean of zeros."""
    features = drawn()
    features.counts["early"][3] = 0
    means = mean_features(features)
    weights = features.counts["early"][5]
    expected = (features.tokens["early"][5] * weights[:, None]).sum(0) / weights.sum()
    torch.testing.assert_close(means.tokens["early"][5, 0], expected)
    assert not means.tokens["early"][3].any()
    assert means.grids == {"early": (1, 1), "neck": (1, 1)}
