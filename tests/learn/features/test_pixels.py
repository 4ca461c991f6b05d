"""Pixels under the views of their features, and jitter that moves nothing."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from samcls.data.images import make_frame
from samcls.errors import RunError
from samcls.learn.features.mapped import scratch_tensor
from samcls.learn.features.pixels import Images, Pixels, extents_of, jittered
from samcls.views import VIEW_SETS, transform

CPU = torch.device("cpu")


@given(height=st.integers(1, 6), width=st.integers(1, 6), seed=st.integers(0, 99))
def test_every_view_is_the_padded_frame_of_the_turned_picture(
    height: int, width: int, seed: int
) -> None:
    """Pixels of a view are what framing the transformed picture gives: turned first, padded after."""
    picture = np.random.default_rng(seed).integers(1, 256, (height, width, 3), dtype=np.uint8)
    frame = np.zeros((1, 6, 6, 3), np.uint8)
    frame[0, :height, :width] = picture
    extents = torch.tensor([[height, width]])
    pixels = Pixels(torch.from_numpy(frame), extents, VIEW_SETS["d4"])
    found = pixels.batch(torch.arange(8), CPU)
    for view, name in enumerate(VIEW_SETS["d4"]):
        turned = transform(picture, name)
        expected = np.zeros((6, 6, 3), np.uint8)
        expected[: turned.shape[0], : turned.shape[1]] = turned
        got = found.values[view].permute(1, 2, 0).numpy()
        np.testing.assert_allclose(got, expected / 255, atol=1e-6)
        shown = found.shown[view, 0].numpy()
        assert (shown == (expected > 0).all(2)).all()


@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    size=st.integers(1, 70),
    input_size=st.sampled_from([16, 48, 64]),
)
def test_extents_are_those_of_the_frame_that_was_kept(
    height: int, width: int, size: int, input_size: int
) -> None:
    """Whatever both sides are rounded to; a picture that fills the encoder's frame fills its own."""
    picture = np.random.default_rng(size).integers(1, 256, (height, width, 3), dtype=np.uint8)
    kept, own = make_frame(picture, size), make_frame(picture, input_size)
    found = extents_of(torch.from_numpy(kept.pixels)[None], torch.tensor([own.valid]), input_size)
    full = own.valid == (input_size, input_size)
    assert found.tolist() == [[size, size] if full else list(kept.valid)]
    kept.pixels[kept.valid[0] - 1], kept.pixels[:, kept.valid[1] - 1] = 0, 0
    dark = extents_of(torch.from_numpy(kept.pixels)[None], torch.tensor([own.valid]), input_size)
    assert max(dark[0]) == size  # of the longer side the last row may be black


def test_rows_are_images_under_their_views() -> None:
    """Row i * views + v is view v of image i, in whatever order rows are asked for."""
    values = torch.zeros(2, 2, 2, 3, dtype=torch.uint8)
    values[0, 0, 0] = 255
    values[1, 1, 1] = 51
    pixels = Pixels(values, torch.full((2, 2), 2), VIEW_SETS["flip"])
    found = pixels.batch(torch.tensor([3, 0, 1]), CPU).values[:, 0]
    torch.testing.assert_close(found[0], torch.tensor([[0.0, 0], [0.2, 0]]))
    torch.testing.assert_close(found[1], torch.tensor([[1.0, 0], [0, 0]]))
    torch.testing.assert_close(found[2], torch.tensor([[0.0, 1], [0, 0]]))


def images(size: int = 8) -> Images:
    generator = torch.Generator().manual_seed(0)
    shown = torch.ones(3, 1, size, size, dtype=torch.bool)
    shown[0, :, 5:] = False
    return Images(torch.rand(3, 3, size, size, generator=generator) * shown, shown)


def test_jitter_changes_light_and_not_place() -> None:
    """Brighter stays brighter in each image, padding stays 0, and images differ in their factors."""
    before = images()
    after = jittered(before, 0.2, torch.Generator().manual_seed(1))
    assert (after.values[0, :, 5:] == 0).all()
    assert not torch.equal(after.values, before.values)
    for old, new, shown in zip(before.values, after.values, before.shown, strict=True):
        order = old[:, shown[0]].flatten().argsort()
        assert (new[:, shown[0]].flatten()[order].diff() >= -1e-6).all()
    assert float(after.values.min()) >= 0
    assert float(after.values.max()) <= 1


def test_no_jitter_draws_nothing() -> None:
    """At 0 the images and the generator are left alone."""
    generator = torch.Generator().manual_seed(1)
    state, given = generator.get_state(), images()
    assert jittered(given, 0.0, generator) is given
    assert torch.equal(generator.get_state(), state)


def test_a_constant_image_keeps_its_contrast() -> None:
    """Contrast is taken about the mean of what shows picture, padding left out."""
    shown = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    shown[:, :, 2:] = False
    given = Images(0.5 * shown.float().expand(-1, 3, -1, -1), shown)
    after = jittered(given, 0.3, torch.Generator().manual_seed(1)).values[0, :, :2]
    assert float(after.std()) == pytest.approx(0, abs=1e-6)


def test_a_scratch_file_without_room_is_refused() -> None:
    """Before anything is written to it, since a mapped file that fills the disk ends the process."""
    with pytest.raises(RunError, match=r"needs .* MB of scratch space in .*; set TMPDIR"):
        scratch_tensor((1 << 60,), torch.uint8)
