"""timm models stand behind the same interface as SAM."""

import pytest
import timm
import torch
from huggingface_hub.errors import GatedRepoError

from samcls.encode.base import LEVELS
from samcls.encode.timm_encoder import load_timm
from samcls.errors import ConfigError, WeightsError


def frames(size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, size, size, 3), dtype=torch.uint8, generator=generator)


def random(name: str, **options: object) -> torch.nn.Module:
    return load_timm(f"timm:{name}", random_weights=True, **options)


def test_a_vision_transformer_gives_its_own_blocks() -> None:
    """Levels of a flat model equal hooks on timm's blocks, prefix tokens taken off."""
    encoder = random("vit_tiny_patch16_224", input_size=64, levels="all")
    assert encoder.levels == LEVELS
    kept: dict[int, torch.Tensor] = {}
    for i, block in enumerate(encoder.body.blocks):
        block.register_forward_hook(lambda _m, _i, out, i=i: kept.__setitem__(i, out))
    maps = encoder(frames(64), [(64, 64), (64, 40)])
    for level, block in {"early": 2, "middle": 5, "late": 8, "neck": 11}.items():
        tokens = kept[block][:, 1:].transpose(1, 2).reshape(2, 192, 4, 4)
        torch.testing.assert_close(maps[level], tokens)
    assert encoder.shape("patch").patch == 16
    assert maps["patch"].shape == (2, 192, 4, 4)


def test_sam_through_timm_ends_in_sams_neck() -> None:
    """timm's SAM ViT gives the five levels of our own, the neck among them."""
    encoder = random("samvit_base_patch16", input_size=64, levels="patch,neck")
    maps = encoder(frames(64), [(64, 64), (64, 64)])
    assert maps["neck"].shape == (2, 256, 4, 4)
    assert maps["patch"].shape == (2, 768, 4, 4)


def test_stages_have_their_own_strides() -> None:
    """A hierarchical model gives its four stages, each with the size of its cells."""
    encoder = random("convnext_atto", input_size=64)
    assert encoder.levels == ("early", "middle", "late", "neck")
    assert [encoder.shape(level).patch for level in encoder.levels] == [4, 8, 16, 32]
    maps = encoder(frames(64), [(64, 64), (64, 64)])
    for level in encoder.levels:
        shape = encoder.shape(level)
        assert maps[level].shape[1:] == (shape.channels, shape.rows, shape.cols)


def test_normalisation_is_the_models_own() -> None:
    """Mean and standard deviation are the model's, in 0..255, and padding becomes zero."""
    encoder = random("vit_tiny_patch16_224", input_size=32, levels="patch")
    config = timm.create_model("vit_tiny_patch16_224").pretrained_cfg
    given = frames(32)
    pixels = encoder.normalise(given, [(32, 32), (32, 20)])
    mean, std = (torch.tensor(config[key]) for key in ("mean", "std"))
    expected = ((given[0] / 255 - mean) / std).permute(2, 0, 1)
    torch.testing.assert_close(pixels[0], expected, rtol=1e-5, atol=1e-5)
    assert not pixels[1, :, :, 20:].any()


def test_random_weights_are_seeded() -> None:
    """Equal seeds give one digest; another seed another; nothing global is drawn from."""
    state = torch.random.get_rng_state()
    digests = [random("convnext_atto", input_size=32, seed=s).weights_sha256 for s in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]
    assert torch.equal(state, torch.random.get_rng_state())


def test_what_cannot_be_had_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unknown models and levels, and pretrained weights without a network, name the remedy."""
    with pytest.raises(ConfigError, match="timm knows no model 'nonsense'"):
        random("nonsense")
    with pytest.raises(ConfigError, match=r"expected one of early, middle.*stage:0"):
        random("convnext_atto", input_size=32, levels="block:0")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="--random-weights"):
        load_timm("timm:convnext_atto.d2_in1k")


def test_a_gated_model_names_the_page_of_its_licence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a token the hub refuses: the answer is what to accept, and how to say who one is."""

    def refuse(*_: object) -> None:
        raise GatedRepoError.__new__(GatedRepoError)  # its arguments differ from version to version

    monkeypatch.setattr("samcls.encode.timm_encoder._sized", refuse)
    monkeypatch.setattr("samcls.encode.timm_encoder.pretrained_overlay", lambda *_: {})
    expected = (
        r"https://huggingface.co/timm/vit_small_patch16_dinov3\.lvd1689m, then run hf auth login"
    )
    with pytest.raises(WeightsError, match=expected):
        load_timm("timm:vit_small_patch16_dinov3.lvd1689m")
