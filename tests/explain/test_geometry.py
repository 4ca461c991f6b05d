"""Windows lie where the picture is: turned back, summed without loss, drawn in the picture's own pixels."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samcls.data.images import make_frame, read_image
from samcls.explain.geometry import Place, common_side, on_grid, overlap, turned_back
from samcls.explain.maps import centre, deleted_shares, edges, shown
from samcls.explain.overlay import coloured, overlay, places_in, shrunk
from samcls.views import VIEWS, symmetry

SIDE = 64  # of the frame, in pixels
PLACES = {
    "fine": Place(8, 8, 4 / SIDE, 2),
    "odd": Place(3, 3, 8 / SIDE, 3),
    "coarse": Place(2, 2, 8 / SIDE, 4),
}


@given(
    st.sampled_from(sorted(VIEWS)),
    st.integers(1, 64),
    st.integers(1, 64),
    st.sampled_from(sorted(PLACES)),
)
def test_turning_back_undoes_a_view_cell_by_cell(
    view: str, height: int, width: int, level: str
) -> None:
    """Sums over windows of a turned map, turned back, are sums over windows of the map where windows divide it."""
    place = PLACES[level]
    rng = np.random.default_rng(0)
    extents = np.array([[height / SIDE, width / SIDE]])
    rows, cols = place.cells(extents)[0].tolist()
    cells = rng.normal(size=(rows, cols))
    turns, mirrored = symmetry(view)
    turned = np.rot90(cells[:, ::-1] if mirrored else cells, turns)
    k = place.window

    def windows(values: np.ndarray) -> np.ndarray:
        whole = np.zeros((place.rows * k, place.cols * k))
        whole[: values.shape[0], : values.shape[1]] = values
        return whole.reshape(place.rows, k, place.cols, k).sum((1, 3))

    found = turned_back(windows(turned)[None, None], place, extents, view)[0, 0]
    assert found.sum() == pytest.approx(cells.sum())
    if rows % k == 0 and cols % k == 0:
        np.testing.assert_allclose(found, windows(cells), atol=1e-9)
    beyond = np.ones_like(found, dtype=bool)
    beyond[: -(-rows // k), : -(-cols // k)] = False
    assert not found[beyond].any()


@given(st.floats(0.02, 1), st.floats(0.02, 1))
def test_levels_are_summed_without_loss(height: float, width: float) -> None:
    """Of any extent, what windows add is what the common windows add, and nothing lies on padding."""
    rng = np.random.default_rng(1)
    extents = np.array([[height, width], [1.0, 0.5]])
    maps = {}
    for level, place in PLACES.items():
        values = rng.normal(size=(2, place.rows, place.cols))
        maps[level] = values * shown(extents, place.side, place.rows)
    side = common_side(PLACES)
    assert side == PLACES["fine"].side
    found = on_grid(maps, PLACES, extents, side)
    np.testing.assert_allclose(
        found.sum((1, 2)), sum(values.sum((1, 2)) for values in maps.values()), atol=1e-9
    )
    assert not found[~shown(extents, side, found.shape[1])].any()


def test_the_common_windows_are_the_finest_that_are_few_enough() -> None:
    """Sixteen a side at most, or else the coarsest."""
    assert common_side(PLACES, most=4) == PLACES["odd"].side
    assert common_side(PLACES, most=1) == PLACES["coarse"].side


def test_shares_of_windows_that_are_gone() -> None:
    """All of what lies under them, and of a window half under them a half."""
    gone = np.zeros((1, 8, 8), bool)
    gone[0, :4, :2] = True
    extents = np.array([[1.0, 1.0]])
    coarse = deleted_shares(gone, 1 / 2, (2, 2), 1 / 8, extents)[0]
    np.testing.assert_allclose(coarse, [[0.5, 0], [0, 0]])
    halved = np.array([[1.0, 0.25]])
    np.testing.assert_allclose(deleted_shares(gone, 1 / 2, (2, 2), 1 / 8, halved)[0, 0, 0], 1)
    assert overlap(1 / 2, 2, 1 / 8, 8, 0.3).sum(1).tolist() == pytest.approx([1, 0])


def test_overlays_lie_on_the_picture() -> None:
    """A window's colour covers its own pixels, of pictures of any shape, and only these."""
    for height, width in ((40, 320), (321, 41), (64, 64), (7, 5), (200, 199)):
        frame = make_frame(np.zeros((height, width, 3), np.uint8), SIDE)
        extent = np.array(frame.valid) / SIDE
        picture = np.full((height, width, 3), 90, np.uint8)
        values = np.zeros((8, 8))
        rows, cols = places_in((height, width), values.shape, 1 / 8, extent)
        at = (rows[height // 2], cols[width // 3])
        values[at] = 2.0
        drawn = overlay(picture, values, 1 / 8, extent, 1.0).astype(int)
        plain = overlay(picture, values * 0, 1 / 8, extent, 1.0)
        assert len(np.unique(plain)) == 1
        marked = (drawn != plain).any(2)
        assert marked[height // 2, width // 3]
        np.testing.assert_array_equal(marked, (rows == at[0])[:, None] & (cols == at[1]))


def test_colours_stay_apart_in_grey_print() -> None:
    """What speaks for is lighter than grey, what speaks against darker, and nothing is left as it was."""
    grey = np.full((1, 3, 3), 128.0)
    dark, same, light = coloured(np.array([[-1.0, 0.0, 1.0]]), 1.0, grey)[0].astype(int) @ [
        0.299,
        0.587,
        0.114,
    ]
    assert dark < same - 50
    assert same + 30 < light


def test_maps_that_know_nothing() -> None:
    """The centre is nearest in the middle of the picture, not of the frame; edges are where brightness changes."""
    extents = np.array([[1.0, 0.5]])
    nearest = np.unravel_index(centre(extents, 1 / 8, 8)[0].argmax(), (8, 8))
    assert nearest in {(3, 1), (3, 2), (4, 1), (4, 2)}
    picture = np.zeros((64, 32, 3), np.uint8)
    picture[8:12, 24:28] = 255
    found = edges({0: picture}, extents, 1 / 8, 8)[0]
    assert np.unravel_index(found.argmax(), (8, 8)) == (1, 3)
    assert shrunk(picture, 16).shape == (16, 8, 3)


@pytest.mark.parametrize("kind", ["jpeg turned by EXIF", "png of 16 bits", "dicom"])
def test_files_of_all_kinds_are_drawn_upright(kind: str, tmp_path: Path) -> None:
    """A bright square of a file that is decoded in a way of its own is where its brightest window is drawn."""
    from PIL import Image

    wide = np.full((30, 90), 60, np.uint8)
    wide[3:9, 70:80] = 250  # upper right, as it is to be seen
    if kind == "dicom":
        pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed")
        from pydicom.dataset import FileDataset, FileMetaDataset
        from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
        meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
        data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID, data.SOPInstanceUID = (
            SecondaryCaptureImageStorage,
            meta.MediaStorageSOPInstanceUID,
        )
        data.Rows, data.Columns, data.SamplesPerPixel = 30, 90, 1
        data.PhotometricInterpretation = "MONOCHROME2"
        data.BitsAllocated = data.BitsStored = 8
        data.HighBit, data.PixelRepresentation = 7, 0
        data.PixelData = wide.tobytes()
        path = tmp_path / "a.dcm"
        data.save_as(path, enforce_file_format=True)
    elif kind.startswith("png"):
        path = tmp_path / "a.png"
        Image.fromarray(wide.astype(np.uint16) * 257).save(path)
    else:
        path = tmp_path / "a.jpg"
        exif = Image.Exif()
        exif[274] = 6  # to be turned clockwise
        Image.fromarray(np.rot90(wide)).save(path, quality=95, exif=exif)
    picture = read_image(str(path))
    assert picture.shape == (30, 90, 3)
    frame = make_frame(picture, SIDE)
    extent = np.array(frame.valid) / SIDE
    count = 16
    bright = np.zeros((count, count))
    mean = frame.pixels[: frame.valid[0], : frame.valid[1]].mean(2)
    for row in range(count):
        for col in range(count):
            part = mean[row * 4 : row * 4 + 4, col * 4 : col * 4 + 4]
            bright[row, col] = part.mean() if part.size else 0
    rows, cols = places_in(picture.shape[:2], bright.shape, 1 / count, extent)
    at = np.unravel_index(bright.argmax(), bright.shape)
    down, across = np.flatnonzero(rows == at[0]).mean(), np.flatnonzero(cols == at[1]).mean()
    cell = 90 / 64 * 4
    assert abs(down - 5.5) < cell / 2 + 3
    assert abs(across - 74.5) < cell / 2 + 5
