"""Terms of windows sum with the bias to the logit, and what shows padding has none."""

from typing import Any

import pytest
import torch

from samcls.errors import InputError
from samcls.learn.features.pixels import Images
from samcls.learn.heads.base import NetworkHead, Shape
from samcls.learn.heads.contributions import EXACT, GRADIENTS, MEAN_OF_MEMBERS
from samcls.learn.heads.registry import build_head
from samcls.learn.settings import TrainConfig

SHAPE = Shape(
    {"a": 8, "b": 12}, {"one": 2, "two": 3}, {"a": (4, 4), "b": (6, 6)}, window=2, pixels=32
)
ADDITIVE: dict[str, dict[str, Any]] = {
    "slca": {"head": "slca"},
    "slca, residual": {"head": "slca", "gate": "residual"},
    "slca, few gates": {"head": "slca", "gate_channels": 4},
    "slca, whole maps": {"head": "slca", "window": 4},
    "slca, bilinear": {"head": "slca", "upsampling": "bilinear"},
    "se": {"head": "se"},
    "attention-pool": {"head": "attention-pool"},
    "linear": {"head": "linear"},
    "logistic": {"head": "logistic"},
    "logistic-statistics": {"head": "logistic-statistics"},
    "logistic-windows": {"head": "logistic-windows"},
}


def inputs(seed: int = 0) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Standardised tokens of five images; two are padded on the right, one below."""
    generator = torch.Generator().manual_seed(seed)
    tokens, counts = {}, {}
    for level, (rows, cols) in SHAPE.grids.items():
        size = (5, rows * cols, SHAPE.channels[level])
        tokens[level] = torch.randn(size, generator=generator)
        cells = torch.full((5, rows, cols), 4.0)
        cells[1, :, cols // 2 :] = 0
        cells[2, :, -1], cells[3, rows // 2 :] = 2, 0
        counts[level] = cells.flatten(1)
    return tokens, counts


def head_of(options: dict[str, Any], shape: Shape = SHAPE) -> Any:
    """A head whose every value is drawn, the solved ones' too."""
    generator = torch.Generator().manual_seed(1)
    head = build_head(TrainConfig(**options), shape, generator)
    if "logistic" in str(options.get("head")):
        for value in head.state_dict().values():
            value.normal_(generator=generator)
    return head


@pytest.mark.parametrize("name", ADDITIVE)
def test_terms_and_bias_are_the_logit(name: str) -> None:
    """To rounding, of every level, grid and gate; where only padding is shown a term is 0."""
    tokens, counts = inputs()
    options = ADDITIVE[name]
    shape = (
        SHAPE
        if options.get("upsampling") is None
        else Shape(SHAPE.channels, SHAPE.classes, SHAPE.grids, window=1)
    )
    head = head_of(options, shape)
    with torch.no_grad():
        expected = head(tokens, counts)
    found = head.contributions(tokens, counts)
    assert found.method == EXACT
    assert found.error.max() < 1e-5
    torch.testing.assert_close(found.logits.float(), expected)
    for level, values in found.maps.items():
        assert values.shape == (5, 5, tokens[level].shape[1])
        assert not values.transpose(1, 2)[counts[level] == 0].any()
        assert values.any()


def test_larger_windows_are_divided_among_the_cells_under_them() -> None:
    """Of `logistic-windows` on maps of too many values, whose windows are averaged first."""
    shape = Shape({"a": 4}, {"one": 2}, {"a": (130, 130)}, window=1)
    tokens = {"a": torch.randn(2, 130 * 130, 4, generator=torch.Generator().manual_seed(2))}
    counts = {"a": torch.ones(2, 130, 130)}
    counts["a"][1, 51:] = 0
    counts = {"a": counts["a"].flatten(1)}
    head = head_of({"head": "logistic-windows"}, shape)
    assert head.factor == 2
    assert head.contributions(tokens, counts).error.max() < 1e-4


@pytest.mark.parametrize(
    "options",
    [{"head": "mlp"}, {"head": "slca", "hidden": 16}, {"head": "slca", "ordinal": ("two",)}],
)
def test_what_is_not_linear_is_integrated(options: dict[str, Any]) -> None:
    """The method is named, the sum is near, and how near is told."""
    tokens, counts = inputs()
    found = head_of(options).contributions(tokens, counts)
    assert found.method == GRADIENTS
    assert found.error.max() < 2e-2
    assert not found.maps["a"].transpose(1, 2)[counts["a"] == 0].any()


def test_an_ensemble_is_the_mean_of_its_members() -> None:
    """Its terms are the members', by their shares, and sum to the mean of their logits."""
    tokens, counts = inputs()
    head = head_of({"head": "ensemble:slca", "members": 2})
    found = head.contributions(tokens, counts)
    parts = [part.contributions(tokens, counts) for part in head.parts_]
    expected = sum(s * part.maps["b"] for s, part in zip(head.shares, parts, strict=True))
    torch.testing.assert_close(found.maps["b"], expected)
    assert found.method == MEAN_OF_MEMBERS
    assert found.error.max() < 1e-5


def test_votes_of_whole_images_are_refused() -> None:
    """Neighbours vote as wholes: the error names heads that can be explained."""
    with pytest.raises(InputError, match="linear, logistic"):
        head_of({"head": "knn"}).contributions(*inputs())


def test_a_network_is_divided_among_the_cells_of_its_last_map() -> None:
    """Where a mean and a linear layer follow it the terms sum to the logit, padding counting as bias."""
    pytest.importorskip("timm")
    tokens, counts = inputs()
    head = head_of({"head": "guided:test_resnet", "pretrained": False, "dropout": 0.5})
    assert isinstance(head, NetworkHead)
    shown = torch.ones(5, 1, 32, 32, dtype=torch.bool)
    shown[1, :, :, 16:] = False
    values = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(3)) * shown
    images = Images(values, shown)
    found = head.contributions_of(tokens, counts, images)
    with torch.no_grad():
        expected = head.eval()(tokens, counts, pixels=head.normalise(images))
    torch.testing.assert_close(found.logits.float(), expected)
    assert found.error.max() < 1e-5
