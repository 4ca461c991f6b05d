"""DICOM files become the picture that a viewer shows, and nothing of their header leaves."""

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from support.dicoms import NAME, dicom

from samcls.data.images import read_image
from samcls.errors import ImageError

CT = np.array([[-1000, 0], [40, 3000]], dtype=np.int16)


def grey(path: str, index: int | None = None) -> list[list[int]]:
    rgb = read_image(path, index)
    assert (rgb == rgb[:, :, :1]).all()
    return rgb[:, :, 0].tolist()


def test_without_a_window_the_whole_range_is_shown(tmp_path: Path) -> None:
    """Minimum to 0, maximum to 255."""
    assert grey(dicom(tmp_path / "a.dcm", CT)) == [[0, 64], [66, 255]]


def test_the_window_is_applied_after_the_rescale(tmp_path: Path) -> None:
    """Stored values 0..4000 with intercept -1000 and a window of -160..240 show soft tissue."""
    stored = (CT.astype(np.int32) + 1000).astype(np.uint16)
    path = dicom(
        tmp_path / "a.dcm",
        stored,
        RescaleSlope=1,
        RescaleIntercept=-1000,
        WindowCenter=[40, 500],
        WindowWidth=[401, 2000],
    )
    assert grey(path) == [[0, 102], [128, 255]]


@pytest.mark.parametrize(
    ("function", "expected"), [("LINEAR_EXACT", [0, 128, 255]), ("SIGMOID", [30, 128, 225])]
)
def test_the_other_window_functions(tmp_path: Path, function: str, expected: list[int]) -> None:
    """Exact linear and sigmoid windows follow the standard's formulas."""
    values = np.array([[50, 100, 150]], dtype=np.uint16)
    path = dicom(
        tmp_path / "a.dcm", values, WindowCenter=100, WindowWidth=100, VOILUTFunction=function
    )
    assert grey(path) == [expected]


def test_a_voi_table_is_looked_up(tmp_path: Path) -> None:
    """Each value shows the table's entry, from the first mapped value on."""
    table = Dataset()
    table.LUTDescriptor = [3, 10, 8]
    table.add_new("LUTData", "US", [0, 200, 255])
    values = np.array([[9, 10, 11, 12]], dtype=np.uint16)
    assert grey(dicom(tmp_path / "a.dcm", values, VOILUTSequence=[table])) == [[0, 0, 200, 255]]


def test_eight_bit_values_stay_as_they_are(tmp_path: Path) -> None:
    """An ultrasound frame reads as its PNG would, with or without an identity rescale."""
    values = np.array([[7, 8], [90, 200]], dtype=np.uint8)
    assert grey(dicom(tmp_path / "a.dcm", values)) == values.tolist()
    path = dicom(tmp_path / "b.dcm", values, RescaleSlope=1, RescaleIntercept=0)
    assert grey(path) == values.tolist()


def test_a_mask_of_few_bits_is_scaled(tmp_path: Path) -> None:
    """Values of 0 and 1 in one stored bit show black and white."""
    values = np.array([[0, 1]], dtype=np.uint8)
    assert grey(dicom(tmp_path / "a.dcm", values, BitsStored=1, HighBit=0)) == [[0, 255]]


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    """Where the smallest value is white, white is shown."""
    path = dicom(tmp_path / "a.dcm", CT, PhotometricInterpretation="MONOCHROME1")
    assert grey(path) == [[255, 191], [189, 0]]


def test_colour_is_shown_as_rgb(tmp_path: Path) -> None:
    """RGB stays, YBR is converted."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    np.testing.assert_array_equal(read_image(dicom(tmp_path / "a.dcm", pixels)), pixels)
    neutral = np.full((2, 2, 3), 128, dtype=np.uint8)
    neutral[:, :, 0] = 60
    path = dicom(tmp_path / "b.dcm", neutral, PhotometricInterpretation="YBR_FULL")
    assert grey(path) == [[60, 60], [60, 60]]


def test_palette_colours_are_looked_up(tmp_path: Path) -> None:
    """A 16-bit palette shows the high byte of each channel."""
    palettes = {
        f"{name}PaletteColorLookupTableData": (np.array(values, dtype=np.uint16) << 8).tobytes()
        for name, values in {"Red": [1, 200], "Green": [2, 100], "Blue": [3, 50]}.items()
    }
    descriptors = {key.replace("Data", "Descriptor"): [2, 0, 16] for key in palettes}
    path = dicom(
        tmp_path / "a.dcm",
        np.array([[0, 1]], dtype=np.uint8),
        PhotometricInterpretation="PALETTE COLOR",
        **descriptors,
        **palettes,
    )
    assert read_image(path).tolist() == [[[1, 2, 3], [200, 100, 50]]]


@pytest.mark.parametrize("rle", [False, True])
def test_a_frame_is_chosen_by_index(tmp_path: Path, rle: bool) -> None:
    """Several frames need an index, and the error says how many there are."""
    frames = np.random.default_rng(0).integers(0, 256, (3, 4, 6), dtype=np.uint8)
    path = dicom(tmp_path / "a.dcm", frames, rle=rle)
    assert grey(path, 2) == frames[2].tolist()
    with pytest.raises(ImageError, match="holds 3 frames"):
        read_image(path)
    with pytest.raises(ImageError, match="index 3 is outside its 3 frame"):
        read_image(path, 3)


def test_a_dicom_is_known_by_its_content(tmp_path: Path) -> None:
    """Files without a suffix, as scanners write them, are read too."""
    assert grey(dicom(tmp_path / "IM0001", CT))[0][0] == 0


@pytest.mark.parametrize("kept", [0.05, 0.5, 0.98])
def test_a_dicom_cut_short_fails_without_quoting_its_header(tmp_path: Path, kept: float) -> None:
    """The reason is given; the patient is not."""
    path = Path(dicom(tmp_path / "a.dcm", np.zeros((64, 64), dtype=np.uint16)))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(ImageError) as caught:
        read_image(str(path))
    error: BaseException | None = caught.value
    while error is not None:
        assert NAME not in str(error)
        error = error.__cause__
    assert "a.dcm cannot be read" in str(caught.value)


def test_a_damaged_element_is_not_quoted(tmp_path: Path) -> None:
    """A name that stands where a number belongs does not reach the message."""
    path = Path(dicom(tmp_path / "a.dcm", CT, WindowCenter="12345678", WindowWidth=1))
    path.write_bytes(path.read_bytes().replace(b"12345678", NAME.encode()))
    with pytest.raises(ImageError) as caught:
        read_image(str(path))
    assert NAME not in str(caught.value)
    assert NAME not in str(caught.value.__cause__)


def test_a_dicom_without_a_picture_says_so(tmp_path: Path) -> None:
    """A report or a directory has no pixels to show."""
    path = Path(dicom(tmp_path / "a.dcm", CT))
    import pydicom

    dataset = pydicom.dcmread(path)
    del dataset.PixelData, dataset.Rows, dataset.Columns
    dataset.save_as(path)
    with pytest.raises(ImageError, match="holds no picture: it has no Rows, Columns"):
        read_image(str(path))


def test_another_kind_of_file_named_dcm_says_so(tmp_path: Path) -> None:
    """A suffix does not make a DICOM file."""
    (tmp_path / "a.dcm").write_bytes(b"x" * 500)
    with pytest.raises(ImageError, match="not a DICOM file"):
        read_image(str(tmp_path / "a.dcm"))


def test_an_absurd_size_is_refused(tmp_path: Path) -> None:
    """Rows and columns are checked before anything is decoded."""
    path = dicom(tmp_path / "a.dcm", CT, Rows=60_000, Columns=60_000)
    with pytest.raises(ImageError, match="60000 x 60000 pixels exceed the limit"):
        read_image(path)
