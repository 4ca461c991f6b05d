"""SAM's image encoder is found in any file that holds it, and what is not it is named."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from segment_anything.modeling import ImageEncoderViT
from support.layouts import State, as_hugging_face, prefixed
from torch import nn

from samcls.encode.sam import _wanted
from samcls.encode.sam_weights import HeldEncoder, WantedEncoder, read_image_encoder
from samcls.errors import WeightsError


def body(depth: int = 2, width: int = 128, size: int = 64) -> ImageEncoderViT:
    """A miniature of the architecture: window 2, the last block over the whole map."""
    torch.manual_seed(0)
    built = ImageEncoderViT(
        img_size=size,
        embed_dim=width,
        depth=depth,
        num_heads=2,
        out_chans=8,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=2,
        global_attn_indexes=(depth - 1,),
    )
    for parameter in built.parameters():
        nn.init.normal_(parameter, 0, 0.02)
    return built


def wanted(name: str = "vit_b", **options: int) -> WantedEncoder:
    return _wanted(name, body(**options))


def state(**options: int) -> State:
    return {key: value.detach() for key, value in body(**options).state_dict().items()}


def whole_sam(prefix: str = "") -> State:
    rest = {"mask_decoder.iou_token.weight": torch.ones(1), "prompt_encoder.x": torch.ones(1)}
    return prefixed(prefix, prefixed("image_encoder.", state()) | rest | {"hq": torch.ones(1)})


LAYOUTS: dict[str, Callable[[], object]] = {
    "official": whole_sam,
    "encoder alone": state,
    "module": lambda: whole_sam("module."),
    "sam": lambda: whole_sam("sam."),
    "nested prefixes": lambda: whole_sam("module.model.sam_model."),
    "table model": lambda: {"model": whole_sam(), "epoch": 3},
    "table state_dict": lambda: {"state_dict": whole_sam("model."), "lr": 0.1},
    "table in table": lambda: {"checkpoint": {"model_state_dict": whole_sam("module.sam.")}},
    "with optimizer": lambda: {
        "model": whole_sam(),
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}},
    },
    "compiled": lambda: whole_sam("_orig_mod."),
    "hugging face": lambda: prefixed("vision_encoder.", as_hugging_face(state())),
    "hugging face, sam": lambda: prefixed("sam.vision_encoder.", as_hugging_face(state())),
    "hugging face, alone": lambda: as_hugging_face(state()),
    "timm": lambda: {key.replace("mlp.lin", "mlp.fc"): v for key, v in state().items()},
    "same twice": lambda: {"model": whole_sam(), "ema": whole_sam()},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_encoder_is_read_from_every_layout(layout: str, tmp_path: Path) -> None:
    """Whatever prefix, table or naming a file uses, the tensors are the encoder's own, bit for bit."""
    torch.save(LAYOUTS[layout](), tmp_path / "x.pth")
    found = read_image_encoder(tmp_path / "x.pth", wanted()).state
    expected = state()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_hugging_faces_safetensors_are_read(tmp_path: Path) -> None:
    """A .safetensors file in Hugging Face's layout says so, with precision and number of tensors."""
    save_file(prefixed("vision_encoder.", as_hugging_face(state())), tmp_path / "m.safetensors")
    held = read_image_encoder(tmp_path / "m.safetensors", wanted())
    assert str(held).endswith(
        f"in Hugging Face's layout, float32, {len(state())} tensors under 'vision_encoder.'"
    )


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(precision: torch.dtype, tmp_path: Path) -> None:
    """Half, bfloat16 and double are read as float32 of the same values, and are named."""
    saved = {key: value.to(precision) for key, value in state().items()}
    torch.save(saved, tmp_path / "x.pth")
    held = read_image_encoder(tmp_path / "x.pth", wanted())
    assert held.precision == str(precision).removeprefix("torch.")
    for key, value in saved.items():
        assert held.state[key].dtype == torch.float32
        assert torch.equal(held.state[key], value.float())


def test_another_input_size_is_the_same_architecture(tmp_path: Path) -> None:
    """Positions of another grid are handed on as they are, and the grid is known."""
    torch.save(state(size=96), tmp_path / "x.pth")
    held = read_image_encoder(tmp_path / "x.pth", wanted())
    assert held.grid == (6, 6)
    assert held.state["blocks.1.attn.rel_pos_h"].shape == (11, 64)


def without(own: State, *keys: str) -> State:
    return {key: value for key, value in own.items() if key not in keys}


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "another depth": (
        lambda: whole_sam_of(state(depth=3)),
        r"holds an encoder of 3 blocks of 128 channels.*expected vit_b's \(2 blocks of 128 channels\)",
    ),
    "another width": (lambda: state(width=64), "2 blocks of 64 channels"),
    "lora inside": (
        lambda: (
            prefixed("image_encoder.", state())
            | {"image_encoder.blocks.0.attn.qkv.lora_A.weight": torch.ones(1)}
        ),
        r"adapters beside it: 1 tensors \(blocks.0.attn.qkv.lora_A.weight\).*merge_and_unload",
    ),
    "adapter": (
        lambda: state() | {"blocks.0.MLP_Adapter.D_fc1.weight": torch.ones(1)},
        "MLP_Adapter",
    ),
    "prompt generator": (
        lambda: state() | {"prompt_generator.shared_mlp.weight": torch.ones(1)},
        "prompt_generator.shared_mlp",
    ),
    "lora outside": (
        lambda: prefixed("sam.image_encoder.", state()) | {"w_As.0.weight": torch.ones(1)},
        r"adapters beside it: 1 tensors \(w_As.0.weight\)",
    ),
    "unknown": (
        lambda: state() | {"blocks.0.gamma": torch.ones(1)},
        r"1 unknown \(blocks.0.gamma\)",
    ),
    "missing": (lambda: without(state(), "neck.0.weight"), r"1 missing \(neck.0.weight\)"),
    "shape": (
        lambda: state() | {"neck.0.weight": torch.ones(1)},
        r"neck.0.weight \(1,\) instead of \(8, 128, 1, 1\)",
    ),
    "windows": (
        lambda: state() | {"blocks.0.attn.rel_pos_h": torch.zeros(7, 64)},
        "block 0 has 7 relative positions.*windows of 2 x 2 cells",
    ),
    "whole map": (
        lambda: state() | {"blocks.1.attn.rel_pos_h": torch.zeros(3, 64)},
        "in vit_b it attends over the whole map",
    ),
    "not a number": (
        lambda: state() | {"neck.0.weight": torch.full((8, 128, 1, 1), torch.nan)},
        r"not finite \(NaN or infinity\): 1 tensors \(neck.0.weight\)",
    ),
    "beyond float32": (
        lambda: state() | {"neck.1.bias": torch.full((8,), 1e300, dtype=torch.float64)},
        r"not finite.*neck.1.bias",
    ),
    "quantised": (
        lambda: state() | {"neck.0.weight": torch.ones(8, 128, 1, 1, dtype=torch.int8)},
        "neck.0.weight is int8, quantised",
    ),
    "two": (
        lambda: {"model": state(), "ema": {k: v + 1 for k, v in state().items()}},
        r"2 image encoders that differ, under 'model.' and 'ema.'",
    ),
    "sam 2": (
        lambda: {"model": {"image_encoder.trunk.patch_embed.proj.weight": torch.ones(1)}},
        r"holds a SAM 2 model.*1 tensors, float32. Expected SAM's image encoder, vit_b's",
    ),
    "mobile sam": (
        lambda: {"image_encoder.patch_embed.seq.0.c.weight": torch.ones(1)},
        "TinyViT encoder, as MobileSAM",
    ),
    "efficientvit": (
        lambda: {"image_encoder.backbone.input_stem.op_list.0.conv.weight": torch.ones(1)},
        "EfficientViT-SAM",
    ),
    "dino": (
        lambda: {"cls_token": torch.ones(1), "patch_embed.proj.weight": torch.ones(1)},
        "DINO.*--encoder timm:NAME --checkpoint FILE",
    ),
    "adapters alone": (lambda: {"a.lora_A.weight": torch.ones(1)}, "adapters alone, without"),
    "decoder alone": (lambda: {"mask_decoder.x": torch.ones(1)}, "without an image encoder"),
    "something": (lambda: {"a.b": torch.ones(1)}, r"its first names: a.b"),
}


def whole_sam_of(own: State) -> State:
    return prefixed("image_encoder.", own)


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_this_encoder_is_named_and_refused(kind: str, tmp_path: Path) -> None:
    """Another size, adapters, unknown tensors, bad values and other models are each named."""
    made, words = REFUSED[kind]
    torch.save(made(), tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=words) as caught:
        read_image_encoder(tmp_path / "x.pth", wanted())
    assert str(caught.value).startswith(str(tmp_path / "x.pth"))


@pytest.mark.parametrize("key", ["mask_decoder.transformer.lora_A", "mask_decoder.hf_mlp.weight"])
def test_other_parts_may_be_what_they_like(key: str, tmp_path: Path) -> None:
    """Adapters of the mask decoder, and HQ-SAM's additions to it, leave the encoder as it is."""
    torch.save(whole_sam() | {key: torch.ones(1)}, tmp_path / "x.pth")
    assert read_image_encoder(tmp_path / "x.pth", wanted()).depth == 2


def test_sams_own_sizes_are_named_on_both_sides() -> None:
    """Width and depth of an official size give its name, beside the one that was asked for."""
    blocks = {f"blocks.{i}.norm1.weight": torch.empty(0) for i in range(24)}
    large = {"patch_embed.proj.weight": torch.empty(1024, 0)} | blocks
    held = HeldEncoder(large, "segment_anything's", "image_encoder.", "float16")
    assert re.match("vit_l's image encoder .24 blocks of 1024 channels. in", str(held))
