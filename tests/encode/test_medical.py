"""Encoders trained on medical images: their files as published, their pixels, and what is said without them."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from samcls.encode.base import EncoderChoice
from samcls.encode.medical import MODELS, build, check
from samcls.encode.timm_encoder import TimmEncoder, create_body
from samcls.errors import ConfigError, WeightsError

IMAGES = 2


def frames(size: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (IMAGES, size, size, 3), dtype=torch.uint8, generator=generator)


def built(name: str, checkpoint: Path, size: int) -> TimmEncoder:
    choice = EncoderChoice(name, "patch,middle,neck", size=size, checkpoint=str(checkpoint))
    check(choice)
    return build(choice, print)


@pytest.fixture
def four_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shrink timm's models in depth, not in any other shape: twelve blocks at 518 pixels take half a minute."""
    monkeypatch.setattr(timm, "create_model", partial(timm.create_model, depth=4))


@pytest.mark.usefixtures("four_blocks")
def test_rad_dino_is_read_as_transformers_saves_it(tmp_path: Path) -> None:
    """The published layout, whose positions are for 518 pixels: every level equals transformers' own."""
    transformers = pytest.importorskip(
        "transformers", reason='not installed: pip install "samcls[references]"'
    )
    torch.manual_seed(0)
    reference: Any = transformers.Dinov2Model(
        transformers.Dinov2Config(image_size=518, patch_size=14, num_hidden_layers=4)
    ).eval()
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.add_(torch.randn(parameter.shape), alpha=0.02)
    reference.save_pretrained(tmp_path)
    encoder = built("rad-dino", tmp_path / "model.safetensors", 518)
    assert encoder.trained
    size, valid = 518, [(518, 518)] * IMAGES
    pixels = (frames(size).permute(0, 3, 1, 2) / 255 - 0.5307) / 0.2583
    with torch.inference_mode():
        states = reference(pixels, output_hidden_states=True).hidden_states
    found = encoder(frames(size), valid)
    for level, depth in {"patch": 0, "middle": 2, "neck": 4}.items():
        expected = states[depth][:, 1:].transpose(1, 2).reshape(IMAGES, -1, 37, 37)
        assert (found[level] - expected).norm() / expected.norm() < 1e-5


def test_biomedclip_is_read_from_open_clips_file(tmp_path: Path) -> None:
    """The image tower under `visual.trunk`, beside a text tower; pixels as CLIP takes them."""
    body = create_body("vit_base_patch16_224", None, pretrained=False, seed=3)
    table = {f"visual.trunk.{key}": value for key, value in body.state_dict().items()}
    table |= {"visual.head.proj.weight": torch.zeros(512, 768), "logit_scale": torch.zeros(1)}
    table["text.transformer.embeddings.LayerNorm.weight"] = torch.zeros(768)
    torch.save(table, tmp_path / "open_clip_pytorch_model.bin")
    encoder = built("biomedclip", tmp_path / "open_clip_pytorch_model.bin", 224)
    assert encoder.source["holds"] == (
        "vit_base_patch16_224: 150 tensors, float32, under 'visual.trunk.'"
    )
    white = torch.full((1, 224, 224, 3), 255, dtype=torch.uint8)
    values = encoder.normalise(white, [(224, 224)])[0, :, 0, 0]
    assert torch.allclose(values, torch.tensor([1.9303, 2.0749, 2.1459]), atol=1e-4)
    state = encoder.body.state_dict()
    assert all(torch.equal(state[key], value) for key, value in body.state_dict().items())


@pytest.mark.parametrize("name", MODELS)
def test_without_its_file_the_address_is_named(name: str) -> None:
    """At once, and before anything is built; drawn weights go without."""
    with pytest.raises(
        WeightsError, match=r"needs --checkpoint FILE: .* of huggingface\.co/microsoft"
    ):
        check(EncoderChoice(name))
    with pytest.raises(ConfigError, match="leave one of them out"):
        check(EncoderChoice(name, checkpoint="a.bin", random_weights=True))
    check(EncoderChoice(name, random_weights=True))


def test_another_models_file_is_refused(tmp_path: Path) -> None:
    torch.save({"layer1.0.conv1.weight": torch.zeros(1)}, tmp_path / "a.bin")
    with pytest.raises(WeightsError, match="does not hold vit_base_patch14_dinov2"):
        built("rad-dino", tmp_path / "a.bin", 518)
