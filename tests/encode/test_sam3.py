"""SAM 3's encoder against its authors' own modules and against transformers', on random weights."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from samcls.encode.base import LEVELS, EncoderChoice, draw_weights
from samcls.encode.sam3 import SPEC, Sam3Body, Sam3Encoder, build, check
from samcls.errors import ConfigError, WeightsError

SMALL = replace(SPEC, depth=8, global_blocks=(1, 3, 5, 7), width=128)
HIDDEN, IMAGES = 592, 2  # 4.625 times the width


@pytest.fixture(scope="module")
def body() -> Sam3Body:
    body = Sam3Body(SMALL, HIDDEN)
    draw_weights(body, 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # no bias, scale or position where a mistake would not show
        for parameter in body.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return body


def maps(body: Sam3Body, size: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Return what goes in after normalisation, and what comes out."""
    encoder = Sam3Encoder(body, LEVELS, "0" * 64, size, spec=SMALL)
    generator = torch.Generator().manual_seed(2)
    frames = torch.randint(0, 256, (IMAGES, size, size, 3), dtype=torch.uint8, generator=generator)
    valid = [(size, size)] * IMAGES
    found = encoder(frames, valid)
    for level, value in found.items():
        shape = encoder.shape(level)
        assert value.shape == (IMAGES, shape.channels, shape.rows, shape.cols)
    pixels = encoder.normalise(frames, valid)
    assert torch.allclose(pixels, frames.permute(0, 3, 1, 2) / 127.5 - 1, atol=1e-6)
    return pixels, found


def worst(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Return the largest relative difference of any level."""
    assert set(found) == set(expected)
    return max(float((found[k] - expected[k]).norm() / expected[k].norm()) for k in expected)


@pytest.mark.parametrize("size", [336, 420, 1008])
def test_it_is_the_sam3_packages_own(body: Sam3Body, size: int) -> None:
    """Every level, where windows fit the map, where they are padded, and at SAM 3's own size."""
    reason = "the package sam3, or one that it imports, is not installed"
    vitdet = pytest.importorskip("sam3.model.vitdet", reason=reason, exc_type=ImportError)
    necks = pytest.importorskip("sam3.model.necks", reason=reason, exc_type=ImportError)
    trunk = vitdet.ViT(
        img_size=size,
        pretrain_img_size=336,
        patch_size=14,
        embed_dim=SMALL.width,
        depth=SMALL.depth,
        num_heads=SMALL.width // 64,
        mlp_ratio=4.625,
        global_att_blocks=SMALL.global_blocks,
        rel_pos_blocks=(),
        use_rope=True,
        use_interp_rope=True,
        window_size=24,
        retain_cls_token=False,
        ln_pre=True,
        return_interm_layers=True,
        bias_patch_embed=False,
    )
    neck = necks.Sam3DualViTDetNeck(trunk, nn.Identity(), 256).eval()
    missing, unknown = neck.load_state_dict(official(body), strict=False)
    assert not unknown
    assert all(key.startswith("convs.") or key.endswith("freqs_cis") for key in missing)
    pixels, found = maps(body, size)
    first: list[Tensor] = []
    trunk.blocks[0].register_forward_pre_hook(lambda _, inputs: first.append(inputs[0]))
    with torch.inference_mode():
        outputs = trunk(pixels)
        expected = dict(zip(LEVELS[1:4], outputs, strict=False))
        expected["patch"] = first[0].permute(0, 3, 1, 2)
        expected["neck"] = neck.convs[2](outputs[-1])
    assert worst(found, expected) < 1e-5


@pytest.mark.parametrize("size", [336, 420])
def test_it_is_that_of_transformers(body: Sam3Body, size: int) -> None:
    """The blocks over the whole map, by an independent port."""
    transformers = pytest.importorskip(
        "transformers", reason='not installed: pip install "samcls[references]"'
    )
    module = pytest.importorskip("transformers.models.sam3.modeling_sam3", exc_type=ImportError)
    config = transformers.Sam3ViTConfig(
        hidden_size=SMALL.width,
        intermediate_size=HIDDEN,
        num_hidden_layers=SMALL.depth,
        num_attention_heads=SMALL.width // 64,
        image_size=size,
        patch_size=14,
        window_size=24,
        global_attn_indexes=list(SMALL.global_blocks),
        pretrain_image_size=336,
        layer_norm_eps=1e-5,
    )
    layers = [module.Sam3ViTLayer(config, 0 if i in SMALL.global_blocks else 24) for i in range(8)]
    pixels, found = maps(body, size)
    with torch.inference_mode():
        x = body.embed(pixels)
        after = []
        for layer, block in zip(layers, body.blocks, strict=True):
            layer.load_state_dict(for_transformers(block))
            x = layer.eval()(x)
            after.append(x.permute(0, 3, 1, 2))
    expected = {level: after[i] for level, i in zip(LEVELS[1:4], (1, 3, 5), strict=True)}
    assert worst({level: found[level] for level in expected}, expected) < 1e-5


def for_transformers(block: nn.Module) -> dict[str, Tensor]:
    """Give a block's tensors the names of transformers, qkv in three."""
    names = {"norm1": "layer_norm1", "norm2": "layer_norm2", "attn.proj": "attention.o_proj"}
    named: dict[str, Tensor] = {}
    for key, value in block.state_dict().items():
        owner, _, kind = key.rpartition(".")
        if owner == "attn.qkv":
            for part, cut in zip("qkv", value.chunk(3), strict=True):
                named[f"attention.{part}_proj.{kind}"] = cut
        else:
            named[f"{names.get(owner, owner)}.{kind}"] = value
    return named


def official(body: nn.Module) -> dict[str, Tensor]:
    """Give the tensors their names in the official checkpoint, below `vision_backbone`."""
    return {
        f"convs.2.{key.removeprefix('neck.')}" if key.startswith("neck.") else f"trunk.{key}": value
        for key, value in body.state_dict().items()
    }


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a checkpoint of the full size in the official layout, in bfloat16, among other parts."""
    with torch.device("meta"):
        body = Sam3Body()
    path = tmp_path_factory.mktemp("sam3") / "sam3.pt"
    one = torch.zeros(
        1, dtype=torch.bfloat16
    )  # a single value stands for a whole tensor: a small file
    prefix = "detector.backbone.vision_backbone."
    held = {prefix + key: one.expand(value.shape) for key, value in official(body).items()}
    held[prefix + "trunk.blocks.0.attn.freqs_cis"] = torch.zeros(576, 32, dtype=torch.complex64)
    held[prefix + "convs.0.conv_1x1.weight"] = one
    held["detector.backbone.language_backbone.encoder.a"] = one
    held["tracker.maskmem_tpos_enc"] = one
    torch.save({"model": held}, path)
    return path


def test_the_official_layout_is_read(checkpoint: Path) -> None:
    """Trunk and neck are found among text encoder, detector and tracker; angles are computed anew."""
    said: list[str] = []
    choice = EncoderChoice("sam3", "patch", checkpoint=str(checkpoint), size=28)
    check(choice)
    encoder = build(choice, said.append)
    assert encoder.trained
    assert encoder.source["holds"] == "SAM 3's image encoder, bfloat16, 392 tensors"
    assert "knows no digest" in said[0]
    found = encoder(torch.zeros(1, 28, 28, 3, dtype=torch.uint8), [(28, 28)])
    assert not found["patch"].any()


def test_another_file_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    """A part that is missing or of another shape, and a file of another model, are named."""
    held = torch.load(checkpoint, weights_only=True)["model"]
    name = next(key for key in held if key.endswith("blocks.3.mlp.fc1.bias"))
    damaged = {key: value for key, value in held.items() if key != name}
    torch.save(damaged, tmp_path / "a.pt")
    with pytest.raises(WeightsError, match=r"1 missing \(blocks.3.mlp.fc1.bias\)"):
        build(EncoderChoice("sam3", checkpoint=str(tmp_path / "a.pt")), print)
    torch.save({"layer1.0.conv1.weight": torch.zeros(1)}, tmp_path / "b.pt")
    with pytest.raises(WeightsError, match="a ResNet"):
        build(EncoderChoice("sam3", checkpoint=str(tmp_path / "b.pt")), print)


def test_what_cannot_be_is_refused() -> None:
    """No weights, two sources of them, and sizes that the patch does not divide."""
    with pytest.raises(WeightsError, match=r"sam3.pt from huggingface.co/facebook/sam3"):
        check(EncoderChoice("sam3"))
    with pytest.raises(ConfigError, match="expected a multiple of 14"):
        check(EncoderChoice("sam3", size=1024, random_weights=True))
    with pytest.raises(ConfigError, match="leave one of them out"):
        check(EncoderChoice("sam3", checkpoint="a.pt", random_weights=True))
    with pytest.raises(ConfigError, match="1 to 72"):
        check(EncoderChoice("sam3", window=80, random_weights=True))
