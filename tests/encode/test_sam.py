"""The encoder gives what segment_anything gives, at every depth."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from segment_anything import sam_model_registry
from segment_anything.modeling import Sam
from segment_anything.modeling.image_encoder import ImageEncoderViT
from segment_anything.utils.transforms import ResizeLongestSide

from samcls.data.images import make_frame
from samcls.encode import sam as module
from samcls.encode.base import LEVELS
from samcls.encode.sam import load_encoder
from samcls.encode.specs import ENCODERS, parse_levels, resolve_level
from samcls.errors import ConfigError, WeightsError
from samcls.pooling import pool_valid, valid_cells


def hooked(body: ImageEncoderViT, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Run the reference whole, taking every depth by hooks."""
    found: dict[str, torch.Tensor] = {}
    handles = []
    for i, block in enumerate(body.blocks):

        def keep(_m: object, _i: object, output: torch.Tensor, name: str = f"block:{i}") -> None:
            found[name] = output.permute(0, 3, 1, 2)

        handles.append(block.register_forward_hook(keep))

    def before(_m: object, inputs: tuple[torch.Tensor, ...]) -> None:
        found["patch"] = inputs[0].permute(0, 3, 1, 2)

    handles.append(body.blocks[0].register_forward_pre_hook(before))
    with torch.inference_mode():
        found["neck"] = body(pixels)
    for handle in handles:
        handle.remove()
    return found


def test_every_level_equals_hooks_on_the_reference() -> None:
    """All five levels and every block equal the reference encoder's own intermediate values."""
    names = (*LEVELS, *(f"block:{i}" for i in range(8)))
    encoder = load_encoder("vit_t", levels=names)
    generator = torch.Generator().manual_seed(1)
    frames = torch.randint(0, 256, (2, 256, 256, 3), dtype=torch.uint8, generator=generator)
    valid = [(256, 256), (256, 190)]
    frames[1, :, 190:] = 0
    reference = hooked(encoder.body, encoder.normalise(frames, valid))
    maps = encoder(frames, valid)
    assert tuple(maps) == names
    for name, block in zip(("early", "middle", "late"), (1, 3, 5), strict=True):
        reference[name] = reference[f"block:{block}"]
    for name in names:
        torch.testing.assert_close(maps[name], reference[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(300, 200), (64, 64), (1500, 1100), (97, 1024)])
def test_preprocessing_equals_sams_own(shape: tuple[int, int]) -> None:
    """File to encoder input equals ResizeLongestSide, then Sam.preprocess, value for value."""
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    encoder = load_encoder("vit_t", levels=("patch",))
    frame = make_frame(image, 256)
    ours = encoder.normalise(torch.from_numpy(frame.pixels)[None], [frame.valid])
    resized = ResizeLongestSide(256).apply_image(image)
    sam = Sam(encoder.body, torch.nn.Identity(), torch.nn.Identity())
    theirs = sam.preprocess(torch.from_numpy(resized).permute(2, 0, 1))
    assert torch.equal(ours[0], theirs)


@pytest.mark.parametrize("name", ["vit_b", "vit_l", "vit_h"])
def test_an_official_checkpoint_round_trips(name: str, tmp_path: Path, shallow: None) -> None:
    """A file in the official format loads for each size, and gives the reference's features."""
    del shallow
    torch.manual_seed(0)
    sam = sam_model_registry[name]()
    for key, parameter in sam.image_encoder.named_parameters():
        if "pos" in key:
            parameter.data.normal_(0, 0.02)
    path = tmp_path / "sam.pth"
    torch.save(sam.state_dict(), path)
    encoder = load_encoder(name, path, levels=("patch", "block:0", "block:1"), input_size=1024)
    assert len(encoder.weights_sha256) == 64
    for key, value in sam.image_encoder.state_dict().items():
        assert torch.equal(encoder.body.state_dict()[key], value)


@pytest.mark.parametrize(
    ("name", "size", "images"),
    [
        ("vit_b", 224, 5),
        ("vit_b", 512, 1),
        ("vit_b", 1024, 1),
        ("vit_l", 224, 1),
        ("vit_l", 512, 1),
        ("vit_h", 224, 5),
        ("vit_h", 512, 1),
    ],
)
def test_other_sizes_equal_the_reference(name: str, size: int, images: int, shallow: None) -> None:
    """At any input size the fast path equals segment_anything with interpolated positions."""
    del shallow
    levels = ("patch", "block:0", "block:1", "neck")
    encoder = load_encoder(name, levels=levels, input_size=size, random_weights=True)
    generator = torch.Generator().manual_seed(1)
    shape = (images, size, size, 3)
    frames = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    valid = [(size, size - 40 * i) for i in range(images)]
    maps = encoder(frames, valid)
    encoder.body.pos_embed = torch.nn.Parameter(encoder.position, requires_grad=False)
    reference = hooked(encoder.body, encoder.normalise(frames, valid))
    for level in levels:
        difference = (maps[level] - reference[level]).norm() / reference[level].norm()
        assert difference < 1e-5, level


@pytest.mark.parametrize("name", ["vit_b", "vit_l", "vit_h"])
def test_full_depth_key_sets_are_the_builders(name: str) -> None:
    """The unshrunk builder gives the names and depths that the official file has."""
    body = module.empty_body(name)
    spec = ENCODERS[name]
    assert len(body.blocks) == spec.depth
    assert body.pos_embed.shape == (1, 64, 64, spec.width)
    found = tuple(i for i, block in enumerate(body.blocks) if block.window_size == 0)
    assert found == spec.global_blocks


def test_wrong_checkpoints_are_refused(
    tmp_path: Path, shallow: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of another size, a missing one and a needless one each say what to do."""
    del shallow
    path = tmp_path / "sam.pth"
    torch.save(sam_model_registry["vit_b"]().state_dict(), path)
    with pytest.raises(WeightsError, match="vit_b"):
        load_encoder("vit_l", path, levels=("patch",))
    with pytest.raises(WeightsError, match="samcls weights fetch vit_b"):
        monkeypatch.setenv("SAMCLS_WEIGHTS", str(tmp_path / "empty"))
        load_encoder("vit_b")
    with pytest.raises(ConfigError, match="takes no checkpoint"):
        load_encoder("vit_t", path)


def test_the_miniature_is_seeded_and_leaves_global_state_alone() -> None:
    """Equal seeds give equal weights whatever was drawn before; another seed gives others."""
    before = torch.random.get_rng_state()
    first = load_encoder("vit_t", seed=3).weights_sha256
    torch.rand(5)
    assert load_encoder("vit_t", seed=3).weights_sha256 == first
    assert load_encoder("vit_t", seed=4).weights_sha256 != first
    torch.random.set_rng_state(before)
    load_encoder("vit_t")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_miniature_has_about_four_million_parameters() -> None:
    """The size that the documentation names is the size that is built."""
    encoder = load_encoder("vit_t")
    assert 4.0e6 < sum(p.numel() for p in encoder.body.parameters()) < 4.8e6


def test_levels_are_parsed_with_the_known_ones_named() -> None:
    """Unknown, repeated and out-of-range levels are refused in words."""
    spec = ENCODERS["vit_h"]
    assert parse_levels("all", spec) == LEVELS
    assert parse_levels("late, block:0", spec) == ("late", "block:0")
    assert [resolve_level(n, spec) for n in LEVELS] == [0, 8, 16, 24, 33]
    with pytest.raises(ConfigError, match="block:0 to block:31"):
        parse_levels("block:32", spec)
    with pytest.raises(ConfigError, match="twice"):
        parse_levels("neck,neck", spec)
    with pytest.raises(ConfigError, match="expected one of vit_t"):
        load_encoder("vit_x")
    with pytest.raises(ConfigError, match="multiple of 16"):
        load_encoder("vit_t", input_size=100)


@given(
    rows=st.integers(1, 9),
    cols=st.integers(1, 9),
    window=st.integers(1, 5),
    data=st.data(),
)
def test_pooling_is_the_mean_over_valid_cells(
    rows: int, cols: int, window: int, data: st.DataObject
) -> None:
    """Each pooled value equals a brute-force mean over its window's valid cells."""
    height = data.draw(st.integers(1, rows * 16))
    width = data.draw(st.integers(1, cols * 16))
    maps = torch.randn(1, 2, rows, cols, generator=torch.Generator().manual_seed(0))
    cells = valid_cells([(height, width)], (rows, cols), 16)
    pooled = pool_valid(maps, cells, window)
    assert pooled.shape[2:] == (-(-rows // window), -(-cols // window))
    for r in range(pooled.shape[2]):
        for c in range(pooled.shape[3]):
            window_rows = slice(r * window, (r + 1) * window)
            window_cols = slice(c * window, (c + 1) * window)
            mask = cells[0, window_rows, window_cols]
            inside = maps[0, :, window_rows, window_cols][:, mask]
            expected = inside.mean(dim=1) if mask.any() else torch.zeros(2)
            torch.testing.assert_close(pooled[0, :, r, c], expected, rtol=1e-5, atol=1e-6)
