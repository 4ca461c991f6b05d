"""Encoders that timm provides, against their authors' architecture as Hugging Face's transformers has it.

Random weights are copied over by name; every level must agree. Skipped where transformers is not installed.
"""

import re
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from samcls.encode.timm_encoder import TimmEncoder, load_timm

transformers = pytest.importorskip(
    "transformers",
    reason='the reference encoders are transformers\': pip install "samcls[references]"',
)

IMAGES = 2


def random_encoder(name: str, size: int, levels: str = "all") -> TimmEncoder:
    """Drawn weights, none of them where a mistake would not show."""
    encoder = load_timm(f"timm:{name}", levels, size, random_weights=True)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in encoder.body.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.02)
    return encoder


def frames(size: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (IMAGES, size, size, 3), dtype=torch.uint8, generator=generator)


def renamed(state: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Give tensors their names in the reference; qkv in one is cut into three where it has three."""
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        key = name
        for pattern, replacement in names.items():
            key = re.sub(pattern, replacement, key)
        if "{qkv}" in key:
            for part, cut in zip(("q", "k", "v"), value.chunk(3), strict=True):
                found[key.replace("{qkv}", part)] = cut
        else:
            found[key] = value
    return found


def loaded(reference: torch.nn.Module, state: Mapping[str, Tensor], absent: set[str]) -> None:
    """Fill a reference; what it has of its own and the encoder does not use is named."""
    missing, unknown = reference.load_state_dict(state, strict=False)
    assert not unknown
    assert {key for key in missing if not re.search("|".join(absent), key)} == set()
    reference.eval()


def worst(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    """Return the largest relative difference of any level."""
    assert set(found) == set(expected)
    return max(float((found[k] - expected[k]).norm() / expected[k].norm()) for k in expected)


def maps(tokens: Tensor, prefix: int) -> Tensor:
    """Tokens of a square grid, behind so many others, as a map."""
    grid = tokens[:, prefix:]
    side = int(grid.shape[1] ** 0.5)
    return grid.transpose(1, 2).reshape(len(grid), -1, side, side)


DINOV2 = {
    r"^cls_token": "embeddings.cls_token",
    r"^reg_token": "embeddings.register_tokens",
    r"^pos_embed": "embeddings.position_embeddings",
    r"^patch_embed\.proj": "embeddings.patch_embeddings.projection",
    r"^blocks\.(\d+)\.": r"encoder.layer.\1.",
    r"attn\.qkv": "attention.{qkv}_proj",
    r"attn\.proj": "attention.o_proj",
    r"ls([12])\.gamma": r"layer_scale\1.lambda1",
    r"^norm\.": "layernorm.",
}


def test_dinov2_is_its_reference() -> None:
    """DINOv2 ViT-S, which RAD-DINO shares at ViT-B: all five levels after the blocks that they name."""
    size = 70
    encoder = random_encoder("vit_small_patch14_dinov2", size)
    config = transformers.Dinov2Config(
        hidden_size=384, num_attention_heads=6, image_size=size, patch_size=14
    )
    reference = transformers.Dinov2Model(config)
    loaded(reference, renamed(encoder.body.state_dict(), DINOV2), {"mask_token"})
    pixels = encoder.normalise(frames(size), [(size, size)] * IMAGES)
    with torch.inference_mode():
        states = reference(pixels, output_hidden_states=True).hidden_states
    depths = {"patch": 0, "early": 3, "middle": 6, "late": 9, "neck": 12}
    expected = {level: maps(states[depth], 1) for level, depth in depths.items()}
    assert worst(encoder(frames(size), [(size, size)] * IMAGES), expected) < 1e-5


DINOV3 = {
    r"^cls_token": "embeddings.cls_token",
    r"^reg_token": "embeddings.register_tokens",
    r"^patch_embed\.proj": "embeddings.patch_embeddings",
    r"^blocks\.(\d+)\.": r"model.layer.\1.",
    r"attn\.qkv": "attention.{qkv}_proj",
    r"attn\.proj": "attention.o_proj",
    r"gamma_([12])": r"layer_scale\1.lambda1",
    r"mlp\.fc1": "mlp.up_proj",
    r"mlp\.fc2": "mlp.down_proj",
    r"^norm\.": "norm.",
}


def test_dinov3_is_its_reference() -> None:
    """DINOv3 ViT-S with its registers and rotary positions."""
    size = 64
    encoder = random_encoder("vit_small_patch16_dinov3", size)
    config = transformers.DINOv3ViTConfig(
        hidden_size=384,
        intermediate_size=1536,
        num_attention_heads=6,
        num_hidden_layers=12,
        image_size=size,
        num_register_tokens=4,
        query_bias=False,
        key_bias=False,
        value_bias=False,
    )
    reference = transformers.DINOv3ViTModel(config)
    loaded(reference, renamed(encoder.body.state_dict(), DINOV3), {"mask_token", "rope", "^norm"})
    pixels = encoder.normalise(frames(size), [(size, size)] * IMAGES)
    with torch.inference_mode():
        states = reference(pixels, output_hidden_states=True).hidden_states
    depths = {"patch": 0, "early": 3, "middle": 6, "late": 9, "neck": 12}
    expected = {level: maps(states[depth], 5) for level, depth in depths.items()}
    assert worst(encoder(frames(size), [(size, size)] * IMAGES), expected) < 1e-5


HIERA = {
    r"^patch_embed\.proj": "patch_embed.projection",
    r"\.norm([12])\.": r".layer_norm\1.",
    r"mlp\.fc1": "mlp.proj_in",
    r"mlp\.fc2": "mlp.proj_out",
}


def test_sam2s_hiera_is_its_reference() -> None:
    """SAM 2's tiny Hiera: the outputs of its four stages."""
    size = 256
    encoder = random_encoder("sam2_hiera_tiny", size)
    assert encoder.levels == ("early", "middle", "late", "neck")
    config = transformers.Sam2HieraDetConfig(image_size=[size, size])
    reference = transformers.Sam2HieraDetModel(config)
    state = {k: v for k, v in encoder.body.state_dict().items() if not k.startswith("head.")}
    loaded(reference, renamed(state, HIERA), {"^$"})
    pixels = encoder.normalise(frames(size), [(size, size)] * IMAGES)
    with torch.inference_mode():
        stages = reference(pixels).intermediate_hidden_states
    expected = {
        level: stage.permute(0, 3, 1, 2)
        for level, stage in zip(encoder.levels, stages, strict=True)
    }
    assert worst(encoder(frames(size), [(size, size)] * IMAGES), expected) < 1e-5
