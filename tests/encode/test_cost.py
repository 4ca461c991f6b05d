"""Plans and precision checks say what they promise."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from samcls.data.manifest import read_manifest
from samcls.encode.check import check_precision
from samcls.encode.cost import encoder_macs, matmul_rate, peak_memory
from samcls.encode.extract import ExtractOptions, extract
from samcls.encode.plan import plan
from samcls.encode.precision import choose_precision
from samcls.encode.specs import ENCODERS
from samcls.errors import ConfigError, WeightsError

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "at_1024", "at_512", "at_224"),
    [("vit_b", 486, 113, 17.7), ("vit_l", 1494, 397, 61.5), ("vit_h", 2982, 820, 127)],
)
def test_counts_agree_with_published_ones(
    name: str, at_1024: float, at_512: float, at_224: float
) -> None:
    """Counting the reference's padded products gives the published GMACs to half a per cent."""
    for size, expected in ((1024, at_1024), (512, at_512), (224, at_224)):
        counted = encoder_macs(ENCODERS[name], size, 99, padded=True) / 1e9
        assert counted == pytest.approx(expected, rel=5e-3)


def test_a_quarter_of_the_blocks_costs_a_quarter() -> None:
    """ViT-H up to `early` is a quarter of the whole."""
    spec = ENCODERS["vit_h"]
    share = encoder_macs(spec, 1024, 8) / encoder_macs(spec, 1024, spec.depth + 1)
    assert 0.24 < share < 0.26


def test_peak_memory_sees_what_is_held() -> None:
    """A block of work that holds 200 MB is measured as some 200 MB."""
    with peak_memory(CPU) as peak:
        held = torch.ones(50_000_000)
        for _ in range(5):
            held.add_(1)
    assert 150e6 < peak.bytes < 300e6


def test_a_plan_prices_cheaper_choices_and_writes_nothing(tmp_path: Path) -> None:
    """Fewer levels take less time, wider windows less disk, and no checkpoint is needed."""
    options = ExtractOptions(encoder="vit_b", size=128, window=2, views="flip", precision="float32")
    rows = {row.choice: row for row in plan(1000, options)}
    asked = rows["as asked"]
    assert rows["--levels early"].minutes < asked.minutes
    assert rows["--views none"].minutes == pytest.approx(asked.minutes / 2)
    assert rows["--window 4"].bytes * 4 == asked.bytes
    assert asked.bytes == 1000 * 2 * (4 * 768 + 256) * 4 * 4 * 2
    assert asked.memory > 12 * 12 * 768**2 * 4
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["lite0", "timm:resnet18"])
def test_any_encoder_can_be_planned(name: str) -> None:
    """One that is not SAM's is timed as a whole; its disk is that of its own maps."""
    options = ExtractOptions(encoder=name, size=64, window=2, levels="late,neck", views="flip")
    rows = {row.choice: row for row in plan(100, options)}
    shapes = {"lite0": (112, 320), "timm:resnet18": (256, 512)}[name]
    cells = sum(channels * side * side for channels, side in zip(shapes, (2, 1), strict=True))
    assert rows["as asked"].bytes == 100 * 2 * cells * 2
    assert rows["--views none"].seconds_per_image * 2 == rows["as asked"].seconds_per_image
    assert rows["as asked"].memory > 1e6


def test_weights_that_are_missing_are_priced_beside_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default SAM's ViT-B is asked for; the error comes before a store, with three ways on."""
    monkeypatch.setenv("SAMCLS_WEIGHTS", str(tmp_path / "weights"))
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "m.csv").write_text("id,path,split,label\na,a.png,train,x\n")
    options = ExtractOptions(size=64)
    assert options.encoder == "vit_b"
    with pytest.raises(WeightsError, match=r"there is none at .*sam_vit_b") as caught:
        extract(read_manifest(tmp_path / "m.csv"), tmp_path / "s.zarr", options)
    for way in (
        "weights fetch vit_b",
        "375 MB, Apache-2.0",
        "--checkpoint FILE",
        "--encoder lite0",
    ):
        assert way in str(caught.value)
    assert str(caught.value).count("s each)") == 2
    assert not (tmp_path / "s.zarr").exists()


def test_the_check_measures_both_precisions(tmp_path: Path) -> None:
    """float32 arithmetic has no error of its own; bfloat16 has; float16 storage adds rounding."""
    rng = np.random.default_rng(0)
    lines = ["id,path,split,label"]
    for i in range(5):
        Image.fromarray(rng.integers(0, 256, (40, 64, 3), np.uint8)).save(tmp_path / f"{i}.png")
        lines.append(f"{i},{i}.png,train,{i % 2}")
    (tmp_path / "m.csv").write_text("\n".join(lines))
    manifest = read_manifest(tmp_path / "m.csv")
    exact = ExtractOptions(
        encoder="vit_t", size=64, window=2, levels="early,neck", precision="float32"
    )
    found = {}
    for precision in ("float32", "bfloat16"):
        options = replace(exact, precision=precision)
        store = str(tmp_path / f"{precision}.zarr")
        extract(manifest, store, options)
        errors = check_precision(manifest, store, options, images=3)
        found[precision] = {(error.level, error.what): error for error in errors}
    assert found["float32"]["neck", "compute"].relative == 0
    assert 1e-5 < found["float32"]["neck", "stored"].relative < 1e-3
    assert 1e-4 < found["bfloat16"]["neck", "compute"].relative < 3e-2
    assert found["bfloat16"]["neck", "compute"].cosine > 0.999
    assert found["bfloat16"]["early", "stored"].worst < 0.2
    with pytest.raises(ConfigError, match="expected at least 1"):
        check_precision(manifest, store, options, images=0)


def test_auto_is_float32_unless_bfloat16_is_native_and_faster() -> None:
    """The choice agrees with what this machine says and measures."""
    native = getattr(torch.cpu, "get_capabilities", dict)()
    native = native.get("avx512_bf16") or native.get("amx_bf16")
    chosen = choose_precision(CPU)
    assert chosen in {"float32", "bfloat16"}
    assert native or chosen == "float32"
    assert matmul_rate(64, 64, torch.float32, CPU) > 0
