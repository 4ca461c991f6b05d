"""Channels that storage rounds too coarsely are counted, level by level, with the remedy."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.extracting import SMALL, image_folder
from support.stores import batch, make

from samcls.data.manifest import read_manifest
from samcls.encode.coarse import coarse_levels, rounding_steps
from samcls.encode.extract import extract


def drawn(mean: float, spread: float, cells: int = 4000) -> np.ndarray:
    values = np.random.default_rng(0).normal(mean, spread, (cells, 1))
    return values.astype(np.float16).astype(np.float32)


@pytest.mark.parametrize(
    ("mean", "spread", "steps"),
    [(0, 1.2, 1229), (30, 1, 64), (30, 0.5, 32), (1000, 1, 2), (1e-6, 1e-6, 16.8)],
)
def test_steps_are_spread_over_float16s_own_spacing(
    mean: float, spread: float, steps: float
) -> None:
    """A standard deviation is counted in spacings of float16 at the channel's magnitude, subnormals too."""
    assert rounding_steps(drawn(mean, spread), "float16")[0] == pytest.approx(steps, rel=0.1)


def test_a_channel_rounded_to_a_constant_has_no_step_left() -> None:
    """A constant beside channels that vary is coarse; a channel of zeros has nothing to lose."""
    values = np.concatenate([np.full((50, 1), 30.0), np.zeros((50, 1)), drawn(0, 1, 50)], axis=1)
    steps = rounding_steps(values.astype(np.float32), "float16")
    assert steps[0] == 0
    assert steps[1] == np.inf
    assert steps[2] > 64


def test_fewer_bits_and_float32_have_their_own_steps() -> None:
    """Kept bits coarsen the step by powers of two; float32 leaves every usual channel fine."""
    values = drawn(30, 1)
    fine = rounding_steps(values, "float16")[0]
    assert rounding_steps(values, "float16", keep_bits=6)[0] == fine / 16
    assert rounding_steps(values, "float32")[0] == fine * 2**13
    assert rounding_steps(values, "float32", keep_bits=6)[0] == fine / 16


def test_a_level_is_judged_by_the_cells_that_show_picture(tmp_path: Path) -> None:
    """One channel of large mean is found, its padding left out of the count."""
    store = make(tmp_path / "s.zarr", 9)
    given = batch(0, 9)
    rng = np.random.default_rng(1)
    neck = given.features["neck"]
    neck[:, 0, 2] = rng.normal(30, 0.1, neck[:, 0, 2].shape).astype(np.float16)
    neck[..., 1] = 0
    store.write(replace(given, valid=np.tile(np.array([64, 32], dtype=np.uint16), (9, 1))))
    first, second = coarse_levels(store)
    assert (first.level, first.channels, first.coarse) == ("block:0", 3, 0)
    assert (second.level, second.coarse, second.worst) == ("neck", 1, 2)
    spread = neck[:, 0, 2, :, 0].astype(np.float64).std()
    assert second.fewest == pytest.approx(spread / 2.0**-6, rel=1e-3)
    assert "level neck: 1 of 5 channels keep fewer than 64 rounding steps" in second.sentence(
        "float16", None
    )


def test_extract_says_which_channels_storage_rounds_away(tmp_path: Path) -> None:
    """With too few bits the log and the summary count the channels, again when nothing is left to do."""
    manifest = read_manifest(image_folder(tmp_path, [(40 + i, 60) for i in range(4)]))
    options = replace(SMALL, keep_bits=2)
    for _ in range(2):
        said: list[str] = []
        summary = extract(manifest, tmp_path / "s.zarr", options, log=said.append)
        assert summary.coarse_channels["neck"] == 256
        assert any("256 of 256 channels" in s and "extract with no --keep-bits" in s for s in said)
