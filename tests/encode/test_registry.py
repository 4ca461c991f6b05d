"""A new encoder is one module and one line in the registry."""

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN
from torch import Tensor

from samcls.data.manifest import read_manifest
from samcls.encode.base import Encoder, EncoderChoice, MapShape
from samcls.encode.catalogue import catalogue
from samcls.encode.extract import ExtractOptions, extract
from samcls.encode.registry import REGISTRY, Entry
from samcls.encode.specs import ENCODERS
from samcls.encode.weights import CHECKPOINTS
from samcls.errors import ConfigError
from samcls.store.feature_store import FeatureStore


class Colours(Encoder):
    """Gives each pixel's own colour as the map of its only level."""

    def shape(self, level: str) -> MapShape:
        """Return one cell a pixel."""
        assert level in self.levels
        return MapShape(3, self.input_size, self.input_size, 1)

    def forward(self, frames: Tensor, valid: Sequence[tuple[int, int]]) -> dict[str, Tensor]:
        """Return the pixels."""
        assert len(valid) == len(frames)
        return {"colour": frames.permute(0, 3, 1, 2).float()}


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> str:
    """The module and the line of an encoder of ours."""

    def check(choice: EncoderChoice) -> None:
        if choice.levels not in {"all", "colour"}:
            raise ConfigError(f"levels is {choice.levels!r}; expected colour")

    def build(choice: EncoderChoice, log: Callable[[str], None]) -> Colours:
        log("a toy")
        zero, one = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        return Colours(
            choice.name, ("colour",), "0" * 64, 8, zero, one, choice.precision, trained=False
        )

    module = ModuleType("colours")
    module.check, module.build = check, build  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "colours", module)
    monkeypatch.setitem(REGISTRY, "colours", Entry("colours"))
    return "colours"


def test_a_toy_encoder_is_extracted_by_one_module_and_one_line(toy: str, tmp_path: Path) -> None:
    """Its options are checked by it, and its features land in a store like any other's."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    lines = ["id,path,split,label"]
    for row, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{row}.png")
        lines.append(f"{row},{row}.png,train,{'ab'[row]}")
    (tmp_path / "m.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(ConfigError, match="expected colour"):
        ExtractOptions(encoder=toy, levels="neck")
    options = ExtractOptions(encoder=toy, window=2, precision="float32", device="cpu")
    extract(read_manifest(tmp_path / "m.csv"), tmp_path / "s.zarr", options)
    means = torch.nn.functional.avg_pool2d(torch.from_numpy(pixels).permute(0, 3, 1, 2).float(), 2)
    found = FeatureStore.open(tmp_path / "s.zarr").read("colour")
    np.testing.assert_allclose(found[:, 0], means.numpy(), rtol=1e-3)


def test_an_unknown_encoder_is_refused_with_the_known_ones() -> None:
    """The error names every encoder, timm's models by how they are written, and the nearest of all."""
    with pytest.raises(
        ConfigError, match=r"unknown encoder 'vit_x'; expected.*lite0.*vit_t.*timm:<model>"
    ):
        ExtractOptions(encoder="vit_x")
    for meant, near in {
        "vit-b": "vit_b",
        "lite": "lite0",
        "vit_small_patch14_dinov2": "vit_small_patch14_dinov2.lvd142m",
    }.items():
        with pytest.raises(ConfigError, match=f"did you mean (timm:)?{near}"):
            ExtractOptions(encoder=meant)
    assert set(ENCODERS) <= set(REGISTRY)


def test_every_encoder_says_what_it_is_and_under_which_licence() -> None:
    """What a user chooses by stands in the registry; nothing that cannot be used freely is unnamed."""
    for one in catalogue():
        entry = one.entry
        assert all([entry.about, entry.licence, entry.source, entry.levels, entry.normalisation])
        assert entry.parameters is not None
        assert entry.size is not None
    shown = {one.name: one for one in catalogue()}
    assert shown["lite0"].state == "here"
    assert shown["lite0"].sha256 == CHECKPOINTS["lite0"].sha256
    assert "UNTRAINED" in shown["vit_t"].entry.about


@pytest.mark.parametrize("name", [key for key in REGISTRY if re.match("timm:.", key)])
def test_what_is_said_of_timms_models_is_so(name: str) -> None:
    """Licence, input and number of values are those of timm's own record and model."""
    entry, model = REGISTRY[name], name.partition(":")[2]
    known = timm.get_pretrained_cfg(model)
    assert known.input_size[1] == entry.size
    assert known.license.replace("-", " ").lower() == entry.licence.replace("-", " ").lower()
    assert known.mean == IMAGENET_DEFAULT_MEAN
    with torch.device("meta"):
        values = sum(
            p.numel() for p in timm.create_model(model.split(".")[0], num_classes=0).parameters()
        )
    assert round(values / 1e6, 1) == entry.parameters
