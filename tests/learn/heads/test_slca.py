"""SLCA: the pooled cache is exact, pools compose, and the arithmetic is the formula's."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from samcls.learn.heads.base import Shape
from samcls.learn.heads.registry import build_head
from samcls.learn.heads.slca import SLCA
from samcls.learn.heads.slca_head import SLCAHead
from samcls.learn.settings import Gate, TrainConfig
from samcls.pooling import masked_mean, pool, to_map, to_tokens

SIDES = st.integers(1, 13)
SEEDS = st.integers(0, 2**31)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def picture(rows: int, cols: int, shown: list[tuple[int, int]]) -> Tensor:
    """Cells of each image that show picture, padded right and bottom as SAM pads."""
    valid = torch.zeros(len(shown), rows, cols, dtype=torch.bool)
    for image, (height, width) in enumerate(shown):
        valid[image, :height, :width] = True
    return valid


@dataclass(frozen=True)
class Case:
    """Random maps of several levels with the cells that show picture."""

    maps: dict[str, Tensor]
    valid: dict[str, Tensor]
    window: int
    seed: int


@st.composite
def cases(draw: st.DrawFn) -> Case:
    images = draw(st.integers(1, 3))
    seed, window = draw(SEEDS), draw(st.integers(1, 6))
    generator = seeded(seed)
    maps, valid = {}, {}
    for level in draw(st.sampled_from([("neck",), ("patch", "block:3"), ("a", "b", "c")])):
        rows, cols, channels = draw(SIDES), draw(SIDES), draw(st.integers(1, 40))
        shown = [(draw(st.integers(1, rows)), draw(st.integers(1, cols))) for _ in range(images)]
        valid[level] = picture(rows, cols, shown)
        # Padding is not zero in a transformer's maps: it must not count, whatever it holds.
        maps[level] = torch.randn(images, channels, rows, cols, generator=generator)
        maps[level] += 100 * ~valid[level][:, None]
    return Case(maps, valid, window, seed)


@given(
    case=cases(),
    gate=st.sampled_from(["multiply", "residual"]),
    reduction=st.integers(1, 16),
    hidden=st.sampled_from([0, 5]),
)
def test_pooled_logits_equal_full_map_logits(
    case: Case, gate: Gate, reduction: int, hidden: int
) -> None:
    """A head on the pooled cache gives the logits of the same head on whole maps, to 1e-6."""
    config = TrainConfig(head="slca", reduction=reduction, gate=gate, hidden=hidden)
    channels = {level: maps.shape[1] for level, maps in case.maps.items()}
    grids = {level: maps.shape[2:] for level, maps in case.maps.items()}
    shape = Shape(channels, {"task": 3}, grids, case.window)
    head = build_head(config, shape, seeded(case.seed))
    assert isinstance(head, SLCAHead)
    tokens, counts = {}, {}
    for level, maps in case.maps.items():
        pooled, count = pool(maps, case.valid[level].float(), case.window)
        tokens[level], counts[level] = to_tokens(pooled), count.flatten(1)
    with torch.no_grad():
        full, fast = head.from_maps(case.maps, case.valid), head(tokens, counts)
    assert_close(fast, full, rtol=1e-6, atol=1e-6)


@given(
    seed=SEEDS,
    rows=SIDES,
    cols=SIDES,
    first=st.integers(1, 5),
    second=st.integers(1, 4),
    height=st.floats(0, 1),
    width=st.floats(0, 1),
)
def test_pools_compose(
    seed: int, rows: int, cols: int, first: int, second: int, height: float, width: float
) -> None:
    """Pooling by a and then by b is pooling by a x b, means and counts, padding and all."""
    maps = torch.randn(2, 3, rows, cols, generator=seeded(seed))
    shown = (max(1, round(height * rows)), max(1, round(width * cols)))
    valid = picture(rows, cols, [shown, (rows, cols)]).float()
    in_steps, steps_counts = pool(*pool(maps, valid, first), second)
    at_once, once_counts = pool(maps, valid, first * second)
    assert_close(in_steps, at_once, rtol=1e-6, atol=1e-6)
    assert torch.equal(steps_counts, once_counts)


def test_pool_is_the_mean_over_valid_cells() -> None:
    """Each window holds the mean of the cells that show picture, and how many those are."""
    generator = np.random.default_rng(0)
    maps = generator.normal(size=(1, 2, 7, 5)).astype(np.float32)
    valid = picture(7, 5, [(5, 4)])
    means, counts = pool(torch.from_numpy(maps), valid.float(), 3)
    assert means.shape == (1, 2, 3, 2)
    for row in range(3):
        for col in range(2):
            window = np.s_[3 * row : min(3 * row + 3, 5), 3 * col : min(3 * col + 3, 4)]
            cells = maps[0][:, *window].reshape(2, -1)
            expected = cells.mean(1, dtype=np.float64) if cells.size else np.zeros(2)
            np.testing.assert_allclose(means[0, :, row, col], expected, rtol=1e-5, atol=1e-6)
            assert counts[0, row, col] == cells.shape[1]


def test_a_whole_map_agrees_with_average_pooling() -> None:
    """Without padding, on a grid that the window divides, pooling is PyTorch's own."""
    maps = torch.randn(2, 4, 8, 12, generator=seeded(0))
    means, counts = pool(maps, torch.ones(2, 8, 12), 4)
    assert_close(means, torch.nn.functional.avg_pool2d(maps, 4), rtol=1e-6, atol=1e-6)
    assert torch.equal(counts, torch.full((2, 2, 3), 16.0))


@pytest.mark.parametrize("gate", ["multiply", "residual"])
def test_full_form_is_the_formula(gate: Gate) -> None:
    """Written out with convolutions and interpolation, the formula gives the module's output."""
    slca = SLCA(32, window=4, reduction=8, gate=gate, generator=seeded(1))
    maps = torch.randn(2, 32, 16, 8, generator=seeded(2))
    f = torch.nn.functional
    with torch.no_grad():
        hidden = f.relu(
            f.conv2d(
                f.avg_pool2d(maps, 4), slca.squeeze.weight[:, :, None, None], slca.squeeze.bias
            )
        )
        weights = f.conv2d(hidden, slca.excite.weight[:, :, None, None], slca.excite.bias)
        up = f.interpolate(torch.sigmoid(weights), scale_factor=4, mode="nearest")
        expected = maps * up if gate == "multiply" else maps + maps * up
        gated = slca.gate_maps(maps, torch.ones(2, 16, 8, dtype=torch.bool))
    assert slca.squeeze.weight.shape == (4, 32)
    assert_close(gated, expected, rtol=1e-6, atol=1e-6)


def test_padding_never_reaches_the_gate() -> None:
    """What padded cells hold changes neither the gate of shown cells nor the mean over them."""
    slca = SLCA(6, window=3, reduction=2, gate="multiply", generator=seeded(0))
    valid = picture(7, 7, [(4, 5)])
    maps = torch.randn(1, 6, 7, 7, generator=seeded(1))
    other = torch.where(valid[:, None], maps, torch.full_like(maps, 7.0))
    with torch.no_grad():
        gated, gated_other = slca.gate_maps(maps, valid), slca.gate_maps(other, valid)
    shown = valid[:, None].expand_as(maps)
    assert torch.equal(gated[shown], gated_other[shown])


def test_one_window_over_all_is_squeeze_and_excitation() -> None:
    """With a window as large as the map, every cell of a channel has one gate."""
    slca = SLCA(5, window=9, reduction=1, gate="multiply", generator=seeded(0))
    maps = torch.randn(1, 5, 6, 9, generator=seeded(1))
    with torch.no_grad():
        gate = slca.gate_maps(maps, torch.ones(1, 6, 9, dtype=torch.bool)) / maps
        expected = slca.attention(maps.mean((2, 3))[:, None])[:, 0]
    assert_close(gate, expected[:, :, None, None].expand_as(gate), rtol=1e-5, atol=1e-5)


def test_masked_mean_of_an_image_without_picture_is_zero() -> None:
    """An image without one valid cell gives zeros, not a division by zero."""
    tokens = torch.randn(2, 4, 3, generator=seeded(0))
    counts = torch.tensor([[0.0, 0, 0, 0], [1, 3, 0, 0]])
    mean = masked_mean(tokens, counts)
    assert torch.equal(mean[0], torch.zeros(3))
    assert_close(mean[1], 0.25 * tokens[1, 0] + 0.75 * tokens[1, 1])


def test_tokens_go_row_by_row_and_back() -> None:
    """Token t of a map with c columns is the cell at row t // c, column t % c."""
    maps = torch.randn(2, 3, 4, 5, generator=seeded(0))
    tokens = to_tokens(maps)
    assert tokens.is_contiguous()
    assert torch.equal(tokens[:, 7], maps[:, :, 1, 2])
    assert torch.equal(to_map(tokens, 4), maps)
