"""The fast block gives what segment_anything's own block gives, in less time and memory."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from segment_anything.modeling.image_encoder import Block, get_rel_pos
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from samcls.encode.attention import Scratch, relative_table, window_index
from samcls.encode.block import FastBlock

SHAPES = {"vit_b": (768, 12), "vit_l": (1024, 16), "vit_h": (1280, 16), "small": (64, 2)}


def block_of(
    shape: tuple[int, int], window: int, table_grid: tuple[int, int], seed: int = 0, **options: Any
) -> Block:
    """Build a block whose every parameter matters: the builders leave most of them at zero."""
    dim, heads = shape
    options = {"use_rel_pos": True} | options
    block = Block(dim, heads, window_size=window, input_size=table_grid, **options)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in block.named_parameters():
            spread = 0.5 if "rel_pos" in name else 0.1 if parameter.ndim == 1 else dim**-0.5
            parameter.normal_(0, spread, generator=generator)
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1)
    return block.eval()


def tokens_of(images: int, grid: tuple[int, int], dim: int, seed: int = 1) -> Tensor:
    return torch.randn(images, *grid, dim, generator=torch.Generator().manual_seed(seed))


def relative_difference(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


def update(block: Block, tokens: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
    """Return what the block adds to its input, found and expected: the input hides no error."""
    with torch.no_grad():
        return out - tokens, block(tokens) - tokens


CASES = [
    ("vit_b", 14, (64, 64), (64, 64), 1),
    ("vit_l", 14, (32, 32), (64, 64), 1),
    ("vit_h", 14, (14, 14), (64, 64), 5),
    ("vit_b", 0, (32, 32), (32, 32), 1),
    ("vit_l", 0, (14, 14), (14, 14), 5),
    ("vit_h", 0, (14, 22), (14, 22), 1),
    ("small", 0, (64, 64), (64, 64), 1),
    ("small", 0, (14, 14), (64, 64), 2),
    ("small", 0, (20, 33), (64, 64), 2),
    ("small", 0, (40, 8), (16, 16), 2),
    ("small", 14, (64, 40), (64, 64), 5),
    ("small", 14, (9, 33), (64, 64), 2),
    ("small", 4, (16, 16), (16, 16), 2),
]


@pytest.mark.parametrize("method", ["tiled", "appended"])
@pytest.mark.parametrize(("name", "window", "grid", "table_grid", "images"), CASES)
def test_float32_equals_the_reference(
    name: str,
    window: int,
    grid: tuple[int, int],
    table_grid: tuple[int, int],
    images: int,
    method: Any,
) -> None:
    """Windowed or global, padded or not, interpolated or not: the same result to 1e-5."""
    block = block_of(SHAPES[name], window, table_grid)
    tokens = tokens_of(images, grid, SHAPES[name][0])
    found, expected = update(block, tokens, FastBlock(block, grid, method=method).forward(tokens))
    assert relative_difference(found, expected) <= 1e-5


@given(
    heads=st.integers(1, 3),
    head_dim=st.sampled_from([4, 8, 10]),
    window=st.integers(0, 6),
    grid=st.tuples(st.integers(1, 13), st.integers(1, 13)),
    table=st.integers(1, 9),
    images=st.integers(1, 3),
    tile_bytes=st.integers(1, 20_000),
    method=st.sampled_from(["tiled", "appended"]),
    relative=st.booleans(),
    qkv_bias=st.booleans(),
)
def test_any_small_shape_equals_the_reference(
    heads: int,
    head_dim: int,
    window: int,
    grid: tuple[int, int],
    table: int,
    images: int,
    tile_bytes: int,
    method: Any,
    relative: bool,
    qkv_bias: bool,
) -> None:
    """No grid, window, table, tile or batch changes the result."""
    options = {"use_rel_pos": relative, "qkv_bias": qkv_bias}
    block = block_of((heads * head_dim, heads), window, (table, table), **options)
    tokens = tokens_of(images, grid, heads * head_dim)
    fast = FastBlock(block, grid, method=method, tile_bytes=tile_bytes)
    found, expected = update(block, tokens, fast.forward(tokens))
    assert relative_difference(found, expected) <= 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("window", [0, 14])
@pytest.mark.parametrize("method", ["tiled", "appended"])
def test_sixteen_bits_stay_close(dtype: torch.dtype, window: int, method: Any) -> None:
    """In bfloat16 and float16 each token's direction keeps a cosine of at least 0.999."""
    block = block_of(SHAPES["vit_b"], window, (16, 16))
    tokens = tokens_of(2, (16, 16), 768)
    out = FastBlock(block, (16, 16), dtype, method).forward(tokens)
    assert out.dtype == torch.float32
    found, expected = update(block, tokens, out)
    assert torch.cosine_similarity(found, expected, dim=-1).min() > 0.999


def test_the_input_is_left_alone_and_the_output_is_new() -> None:
    """A level that was tapped is not overwritten by the blocks after it, scratch or not."""
    block = block_of(SHAPES["small"], 4, (8, 8))
    fast, scratch = FastBlock(block, (8, 8)), Scratch()
    first = tokens_of(2, (8, 8), 64)
    second = fast.forward(first, scratch)
    kept = first.clone(), second.clone()
    third = fast.forward(second, scratch)
    assert torch.equal(first, kept[0])
    assert torch.equal(second, kept[1])
    assert torch.equal(third, fast.forward(second))


def test_the_same_input_gives_the_same_bits() -> None:
    """Two runs of one block agree bit for bit."""
    fast = FastBlock(block_of(SHAPES["small"], 3, (8, 8)), (8, 8), torch.bfloat16)
    tokens = tokens_of(3, (8, 8), 64)
    assert torch.equal(fast.forward(tokens), fast.forward(tokens))


class Largest(TorchDispatchMode):
    """Remember the largest tensor that any operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self.numel = max([self.numel, *sizes])
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_attention_matrix_is_ever_in_memory(dtype: torch.dtype) -> None:
    """In a global block nothing is as large as a tile or the queries, keys and values."""
    grid, tile_bytes = (40, 40), 1 << 20
    block = block_of(SHAPES["small"], 0, grid)
    tokens = tokens_of(1, grid, 64)
    fast = FastBlock(block, grid, dtype, tile_bytes=tile_bytes)
    with Largest() as fast_seen:
        fast.forward(tokens)
    with Largest() as reference_seen, torch.no_grad():
        block(tokens)
    assert reference_seen.numel == 2 * 1600**2
    assert fast_seen.numel <= max(tile_bytes // dtype.itemsize, 1601 * 3 * 64)


def test_windows_of_a_batch_are_attended_a_tile_at_a_time() -> None:
    """The memory of a windowed block does not grow with the windows of a batch, but with tokens."""
    grid, images = (28, 28), 4
    block = block_of(SHAPES["small"], 7, grid)
    tokens = tokens_of(images, grid, 64)
    with Largest() as seen:
        FastBlock(block, grid, tile_bytes=1 << 17).forward(tokens)
    assert seen.numel == (images * 28 * 28 + 1) * 3 * 64


def test_another_grid_is_refused() -> None:
    """Tokens in a grid that the block was not prepared for are an error that names both."""
    fast = FastBlock(block_of(SHAPES["small"], 4, (8, 8)), (8, 8))
    with pytest.raises(ValueError, match=r"grid of \(4, 16\).* prepared for \(8, 8\)"):
        fast.forward(tokens_of(1, (4, 16), 64))


def test_float32_shares_the_weights() -> None:
    """In float32 a fast block holds the block's own weights, not a copy."""
    block = block_of(SHAPES["small"], 0, (8, 8))
    assert FastBlock(block, (8, 8))._qkv[0].data_ptr() == block.attn.qkv.weight.data_ptr()


def test_no_gradient_is_recorded() -> None:
    """The encoder is frozen: its output asks for no gradient, and can be used where others do."""
    block = block_of(SHAPES["small"], 4, (8, 8))
    out = FastBlock(block, (8, 8)).forward(tokens_of(1, (8, 8), 64))
    assert not out.requires_grad
    weight = torch.ones(64, requires_grad=True)
    (out * weight).sum().backward()
    assert weight.grad is not None


@pytest.mark.parametrize("size", [1, 2, 7, 14, 32])
@pytest.mark.parametrize("length", [1, 13, 27, 127])
def test_relative_table_equals_the_reference(size: int, length: int) -> None:
    """Each distance gets segment_anything's embedding, interpolated where the lengths differ."""
    embeddings = torch.randn(length, 5, generator=torch.Generator().manual_seed(0))
    expected = get_rel_pos(size, size, embeddings).transpose(1, 2)
    assert torch.allclose(relative_table(embeddings, size), expected, atol=1e-6)


def test_window_index_numbers_each_token_once() -> None:
    """A 3 x 5 grid in windows of 2: tokens stand in their windows, padding is -1."""
    found = window_index((3, 5), 2).tolist()
    assert found == [
        [0, 1, 5, 6],
        [2, 3, 7, 8],
        [4, -1, 9, -1],
        [10, 11, -1, -1],
        [12, 13, -1, -1],
        [14, -1, -1, -1],
    ]
