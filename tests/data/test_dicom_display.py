"""What DICOM PS3.3 says of display, element by element, with values worked out by hand."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from support.dicoms import dicom

from samcls.data.frames import frames_of
from samcls.data.images import read_image
from samcls.errors import ImageError

RAMP = (np.add.outer(np.arange(12), np.arange(16)) * 4095 // 26).astype(np.uint16)
TWELVE = {"BitsStored": 12, "HighBit": 11}


def grey(path: str, index: int | None = None) -> list[list[int]]:
    rgb = read_image(path, index)
    assert (rgb == rgb[:, :, :1]).all()
    return rgb[:, :, 0].tolist()


def item(**elements: object) -> Dataset:
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def table(descriptor: list[int], data: object, vr: str = "US") -> Dataset:
    dataset = item(LUTDescriptor=descriptor)
    dataset.add_new("LUTData", vr, data)
    return dataset


BLANK = [
    "WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept", "VOILUTFunction",
    "NumberOfFrames", "PixelPaddingValue", "PixelPaddingRangeLimit", "PlanarConfiguration",
    "ModalityLUTSequence", "VOILUTSequence", "PresentationLUTShape", "HighBit",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "SamplesPerPixel",
    "PixelRepresentation",
]  # fmt: skip


@pytest.mark.parametrize("name", BLANK)
def test_a_blank_element_is_an_absent_one(tmp_path: Path, name: str) -> None:
    """Whichever it is, the picture is that of a file without it."""
    plain = grey(dicom(tmp_path / "a.dcm", RAMP, **TWELVE))
    blank: object = [] if name.endswith("Sequence") else None
    assert grey(dicom(tmp_path / "b.dcm", RAMP, **(TWELVE | {name: blank}))) == plain
    assert plain[0][0] == 0
    assert plain[-1][-1] == 255


@pytest.mark.parametrize("missing", ["WindowCenter", "WindowWidth"])
def test_half_a_window_is_none(tmp_path: Path, missing: str) -> None:
    """A centre without a width windows nothing."""
    window = {"WindowCenter": 40, "WindowWidth": 400} | {missing: None}
    plain = grey(dicom(tmp_path / "a.dcm", RAMP, **TWELVE))
    assert grey(dicom(tmp_path / "b.dcm", RAMP, **TWELVE, **window)) == plain


def test_half_a_rescale_is_the_other_half(tmp_path: Path) -> None:
    """An intercept without a slope shifts, a slope without an intercept stretches."""
    values = np.array([[0, 100, 200]], dtype=np.uint16)
    window = {"WindowCenter": 0.5, "WindowWidth": 101}
    path = dicom(tmp_path / "a.dcm", values, RescaleIntercept=-100, RescaleSlope=None, **window)
    assert grey(path) == [[0, 128, 255]]
    path = dicom(tmp_path / "b.dcm", values, RescaleSlope=0.25, **window)
    assert grey(path) == [[128, 191, 255]]


@pytest.mark.parametrize("blank", ["PhotometricInterpretation", "Rows"])
def test_what_cannot_be_done_without_is_named(tmp_path: Path, blank: str) -> None:
    """A blank size or colour space is no picture."""
    path = dicom(tmp_path / "a.dcm", RAMP, **{blank: None})
    with pytest.raises(ImageError, match=f"holds no picture: it has no {blank}"):
        read_image(path)


def groups(window: dict | None = None, rescale: dict | None = None) -> Dataset:
    dataset = Dataset()
    if window is not None:
        dataset.FrameVOILUTSequence = [item(**window)]
    if rescale is not None:
        dataset.PixelValueTransformationSequence = [item(**rescale)]
    return dataset


def test_shared_functional_groups_window_as_the_file_itself_would(tmp_path: Path) -> None:
    """An enhanced object is shown as its flat twin, pixel for pixel."""
    window = {"WindowCenter": 0, "WindowWidth": 400}
    rescale = {"RescaleIntercept": -1024, "RescaleSlope": 1}
    flat = dicom(tmp_path / "a.dcm", RAMP, **TWELVE, **window, **rescale)
    shared = [groups(window, rescale)]
    path = dicom(tmp_path / "b.dcm", RAMP, **TWELVE, SharedFunctionalGroupsSequence=shared)
    assert grey(path) == grey(flat)
    assert len(np.unique(grey(path))) > 3


def test_functional_groups_of_a_frame_come_before_those_of_all(tmp_path: Path) -> None:
    """Each frame has its own window and rescale, and a blank one leaves it to the shared."""
    frames = np.array([[[0, 50, 100, 100]]] * 3, dtype=np.uint16)
    own = [
        groups({"WindowCenter": 50.5, "WindowWidth": 101}, {"RescaleSlope": 1}),
        groups({"WindowCenter": 100.5, "WindowWidth": 201}, {"RescaleSlope": 2}),
        groups({"WindowCenter": None, "WindowWidth": None}),
    ]
    shared = [groups({"WindowCenter": 25.5, "WindowWidth": 51}, {"RescaleSlope": 0.5})]
    path = dicom(
        tmp_path / "a.dcm",
        frames,
        PerFrameFunctionalGroupsSequence=own,
        SharedFunctionalGroupsSequence=shared,
        WindowCenter=0,
        WindowWidth=1,
    )
    assert [grey(path, index) for index in range(3)] == [[[0, 128, 255, 255]]] * 3


def test_the_first_window_that_is_there_counts(tmp_path: Path) -> None:
    """Several windows are alternatives, and blank ones are none."""
    values = np.array([[0, 50, 100]], dtype=np.uint16)
    path = dicom(tmp_path / "a.dcm", values, WindowCenter=["", 50.5, 9], WindowWidth=["", 101, 9])
    assert grey(path) == [[0, 128, 255]]


def test_a_window_of_one_is_a_step(tmp_path: Path) -> None:
    """Up to half below its centre black, above white."""
    values = np.array([[8, 9, 10, 11]], dtype=np.uint16)
    assert grey(dicom(tmp_path / "a.dcm", values, WindowCenter=10, WindowWidth=1)) == [
        [0, 0, 255, 255]
    ]
    path = dicom(tmp_path / "b.dcm", values, WindowCenter=10.5, WindowWidth=1)
    assert grey(path) == [[0, 0, 0, 255]]


@pytest.mark.parametrize("width", [0, 0.5, -3])
def test_a_window_without_a_width_is_refused(tmp_path: Path, width: float) -> None:
    """A picture of nothing is not shown."""
    path = dicom(tmp_path / "a.dcm", RAMP, WindowCenter=40, WindowWidth=width)
    with pytest.raises(ImageError, match="shows nothing: expected a width of 1 or more"):
        read_image(path)


def test_padding_takes_no_part_and_is_black(tmp_path: Path) -> None:
    """The range is that of the picture; its surroundings are black, also where black is high."""
    values = np.array([[-2000, 0, 50, 100]], dtype=np.int16)
    path = dicom(tmp_path / "a.dcm", values, PixelPaddingValue=-2000)
    assert grey(path) == [[0, 0, 128, 255]]
    inverted = {"PhotometricInterpretation": "MONOCHROME1", "PixelPaddingValue": -2000}
    assert grey(dicom(tmp_path / "b.dcm", values, **inverted)) == [[0, 255, 127, 0]]
    window = {"WindowCenter": 50, "WindowWidth": 101}
    path = dicom(tmp_path / "c.dcm", -values, PixelPaddingValue=2000, **window)
    assert grey(path)[0][0] == 0


def test_a_range_of_padding_is_padding(tmp_path: Path) -> None:
    """From the padding value to its limit, whichever is larger."""
    values = np.array([[3000, 3500, 4000, 0, 100]], dtype=np.uint16)
    for value, limit in ((3000, 4000), (4000, 3000)):
        path = dicom(
            tmp_path / "a.dcm", values, PixelPaddingValue=value, PixelPaddingRangeLimit=limit
        )
        assert grey(path) == [[0, 0, 0, 0, 255]]


def test_padding_written_with_the_other_sign_is_found(tmp_path: Path) -> None:
    """63536 in a signed picture is -2000."""
    values = np.array([[-2000, 0, 100]], dtype=np.int16)
    dataset = pydicom.dcmread(dicom(tmp_path / "a.dcm", values))
    dataset.add_new("PixelPaddingValue", "US", 63536)
    dataset.save_as(tmp_path / "a.dcm")
    assert grey(str(tmp_path / "a.dcm")) == [[0, 0, 255]]


def test_overlays_in_unused_bits_are_cut_off(tmp_path: Path) -> None:
    """Only the bits stored count, whether they lie at the bottom or at the top."""
    values = np.array([[0, 100, 200]], dtype=np.uint16)
    plain = grey(dicom(tmp_path / "a.dcm", values, **TWELVE))
    dirty = values | np.array([[0x8000, 0x1000, 0xF000]], dtype=np.uint16)
    assert grey(dicom(tmp_path / "b.dcm", dirty, **TWELVE)) == plain
    high = (values << 4) | np.array([[1, 15, 8]], dtype=np.uint16)
    for rle in (False, True):
        path = dicom(tmp_path / "c.dcm", high, rle=rle, BitsStored=12, HighBit=15)
        assert grey(path) == plain
    signed = np.array([[-100, 0, 100]], dtype=np.int16)
    assert grey(
        dicom(tmp_path / "d.dcm", signed & np.int16(0x0FFF), **TWELVE, PixelRepresentation=1)
    ) == [[0, 128, 255]]


@pytest.mark.parametrize(
    "syntax",
    [
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32])
def test_byte_order_and_sign_are_the_files_affair(
    tmp_path: Path, syntax: pydicom.uid.UID, dtype: type
) -> None:
    """Every plain transfer syntax and integer shows the same picture."""
    low = -100 if np.dtype(dtype).kind == "i" else 0
    values = np.array([[low, low + 50], [low + 100, low + 25]]).astype(dtype)
    path = dicom(tmp_path / "a.dcm", values, syntax=syntax, PixelPaddingValue=None)
    expected = values.tolist() if dtype is np.uint8 else [[0, 128], [255, 64]]
    assert grey(path) == expected


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_signed_padding_and_tables_are_read_in_every_syntax(
    tmp_path: Path, syntax: pydicom.uid.UID
) -> None:
    """Elements whose sign hangs on another element keep it."""
    values = np.array([[-2000, -3, -2, -1]], dtype=np.int16)
    path = dicom(tmp_path / "a.dcm", values, syntax=syntax, PixelPaddingValue=-2000)
    assert grey(path) == [[0, 0, 128, 255]]
    order = ">u2" if syntax == ExplicitVRBigEndian else "<u2"
    words = np.array([10, 20, 255], dtype=order).tobytes()
    lut = table([3, -3, 8], words, "OW")
    lut["LUTDescriptor"].VR = "SS"
    path = dicom(tmp_path / "b.dcm", values, syntax=syntax, VOILUTSequence=[lut])
    assert grey(path) == [[10, 10, 20, 255]]
    path = dicom(tmp_path / "c.dcm", values, syntax=syntax, ModalityLUTSequence=[lut])
    assert grey(path) == [[10, 10, 20, 255]]


def test_packed_and_full_tables_are_looked_up(tmp_path: Path) -> None:
    """Two entries a word, 65536 entries written as 0, and a start beyond 32767."""
    values = np.array([[0, 1, 2, 3]], dtype=np.uint16)
    packed = table([4, 0, 8], bytes([9, 80, 7, 250]), "OW")
    assert grey(dicom(tmp_path / "a.dcm", values, VOILUTSequence=[packed])) == [[9, 80, 7, 250]]
    full = np.zeros(65536, dtype="<u2")
    full[[0, 65535]] = [65535, 257]
    ends = np.array([[0, 1, 65535]], dtype=np.uint16)
    path = dicom(tmp_path / "b.dcm", ends, VOILUTSequence=[table([0, 0, 16], full.tobytes(), "OW")])
    assert grey(path) == [[255, 0, 1]]
    late = np.array([[40000, 40001]], dtype=np.uint16)
    path = dicom(tmp_path / "c.dcm", late, VOILUTSequence=[table([2, 40000, 8], [5, 6])])
    assert grey(path) == [[5, 6]]


def test_a_modality_table_comes_before_the_window(tmp_path: Path) -> None:
    """Its entries are what the window is about."""
    values = np.array([[0, 1, 2]], dtype=np.uint16)
    path = dicom(
        tmp_path / "a.dcm",
        values,
        ModalityLUTSequence=[table([3, 0, 16], [1000, 1050, 1100])],
        WindowCenter=1050.5,
        WindowWidth=101,
    )
    assert grey(path) == [[0, 128, 255]]


def test_a_table_cut_short_is_damage(tmp_path: Path) -> None:
    """A missing entry is not made up."""
    path = dicom(tmp_path / "a.dcm", RAMP, VOILUTSequence=[table([9, 0, 12], [1, 2, 3])])
    with pytest.raises(ImageError, match="table of 9 entries holds 3 of them"):
        read_image(path)


@pytest.mark.parametrize(
    ("space", "shape", "expected"),
    [
        ("MONOCHROME2", "INVERSE", [[255, 0]]),
        ("MONOCHROME2", "IDENTITY", [[0, 255]]),
        ("MONOCHROME1", "INVERSE", [[255, 0]]),
        ("MONOCHROME1", None, [[255, 0]]),
    ],
)
def test_an_inverse_presentation_inverts_once(
    tmp_path: Path, space: str, shape: str | None, expected: list[list[int]]
) -> None:
    """MONOCHROME1 and INVERSE say the same thing."""
    values = np.array([[0, 900]], dtype=np.uint16)
    path = dicom(
        tmp_path / "a.dcm", values, PhotometricInterpretation=space, PresentationLUTShape=shape
    )
    assert grey(path) == expected


PALETTE = np.array([[1, 2, 3], [200, 100, 50], [255, 0, 9]], dtype=np.uint16)


def palette(entries: np.ndarray, bits: int, start: int = 0, order: str = "<") -> dict[str, object]:
    """Elements of a palette, (entry, colour)."""
    elements: dict[str, object] = {}
    for colour, values in zip(("Red", "Green", "Blue"), entries.T, strict=True):
        elements[f"{colour}PaletteColorLookupTableDescriptor"] = [len(values), start, bits]
        words = values.astype(f"{order}u2").tobytes()
        elements[f"{colour}PaletteColorLookupTableData"] = words
    return elements


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize(
    ("factor", "bits"), [(1, 8), (257, 16), (256, 16), (1, 16)], ids=["8", "16", "high", "low"]
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_palettes_of_any_depth_and_byte_order(
    tmp_path: Path, syntax: pydicom.uid.UID, factor: int, bits: int, dtype: type
) -> None:
    """The high byte of an entry, or the low one where no entry has a high one."""
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    path = dicom(
        tmp_path / "a.dcm",
        np.array([[4, 5], [6, 9]], dtype=dtype),
        syntax=syntax,
        PhotometricInterpretation="PALETTE COLOR",
        **palette(PALETTE * factor, bits, 4, order),
    )
    assert read_image(path).tolist() == [
        [[1, 2, 3], [200, 100, 50]],
        [[255, 0, 9], [255, 0, 9]],
    ]


def test_a_long_palette_of_bytes_is_looked_up(tmp_path: Path) -> None:
    """More than 256 entries of 8 bits, packed in words: entry 300 is not entry 44."""
    levels = (np.arange(400) // 2).astype(np.uint8)
    elements: dict[str, object] = {}
    for colour in ("Red", "Green", "Blue"):
        elements[f"{colour}PaletteColorLookupTableDescriptor"] = [400, 0, 8]
        elements[f"{colour}PaletteColorLookupTableData"] = levels.tobytes()
    values = np.array([[44, 300]], dtype=np.uint16)
    path = dicom(tmp_path / "a.dcm", values, PhotometricInterpretation="PALETTE COLOR", **elements)
    assert read_image(path)[0, :, 0].tolist() == [22, 150]


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_segmented_palette_is_unfolded(tmp_path: Path, order: str) -> None:
    """A discrete, a linear and a repeated segment, by PS3.3 C.7.9.2."""
    segments = np.array(
        [0, 2, 0, 0x1000, 1, 4, 0x5000, 0, 1, 0xFF00, 2, 1, 0, 0], dtype=f"{order}u2"
    )
    elements: dict[str, object] = {}
    for colour in ("Red", "Green", "Blue"):
        elements[f"{colour}PaletteColorLookupTableDescriptor"] = [9, 0, 16]
        elements[f"Segmented{colour}PaletteColorLookupTableData"] = segments.tobytes()
    path = dicom(
        tmp_path / "a.dcm",
        np.arange(9, dtype=np.uint8)[None],
        syntax=ExplicitVRBigEndian if order == ">" else ExplicitVRLittleEndian,
        PhotometricInterpretation="PALETTE COLOR",
        **elements,
    )
    expected = [0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0xFF, 0x00, 0x10]
    assert read_image(path)[0, :, 0].tolist() == expected


@pytest.mark.parametrize(("dtype", "prefix"), [(np.float32, "Float"), (np.float64, "DoubleFloat")])
def test_float_pixels_are_scaled_from_their_own_range(
    tmp_path: Path, dtype: type, prefix: str
) -> None:
    """Padding that is no number takes no part either; without it, no such value is shown."""
    values = np.array([[np.nan, -1.5, 0.0, 1.5]], dtype=dtype)
    dataset = pydicom.dcmread(dicom(tmp_path / "a.dcm", np.zeros((1, 4), dtype=np.uint16)))
    for name in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
        del dataset[name]
    dataset.BitsAllocated = values.dtype.itemsize * 8
    setattr(dataset, f"{prefix}PixelData", values.tobytes())
    dataset.save_as(tmp_path / "a.dcm")
    with pytest.raises(ImageError, match="NaN or infinite"):
        read_image(str(tmp_path / "a.dcm"))
    setattr(dataset, f"{prefix}PixelPaddingValue", float("nan"))
    dataset.save_as(tmp_path / "b.dcm")
    assert grey(str(tmp_path / "b.dcm")) == [[0, 0, 128, 255]]


def test_colours_of_each_layout_agree(tmp_path: Path) -> None:
    """Planes of their own, 16 bits, and YBR with halved chroma show the same colours."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    pixels[0, 0], pixels[0, 1] = 0, 255
    planes = np.ascontiguousarray(np.moveaxis(pixels, -1, 0)).reshape(4, 6, 3)
    path = dicom(tmp_path / "a.dcm", planes, PlanarConfiguration=1)
    np.testing.assert_array_equal(read_image(path), pixels)
    path = dicom(tmp_path / "b.dcm", pixels.astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_image(path), pixels)
    halved = np.array([[[60, 60, 128], [128, 90, 90]]], dtype=np.uint8)  # Y1 Y2 B R Y1 Y2 ...
    dataset = pydicom.dcmread(
        dicom(tmp_path / "c.dcm", halved, PhotometricInterpretation="YBR_FULL_422")
    )
    dataset.PixelData = bytes([60, 200, 128, 128])
    dataset.save_as(tmp_path / "c.dcm")
    assert grey(str(tmp_path / "c.dcm")) == [[60, 200]]


def test_an_unknown_colour_space_is_named(tmp_path: Path) -> None:
    """Colours are never shown as what they are not."""
    pixels = np.zeros((2, 2, 3), dtype=np.uint8)
    path = dicom(tmp_path / "a.dcm", pixels, PhotometricInterpretation="HSV")
    with pytest.raises(ImageError, match="interpretation HSV are not supported"):
        read_image(path)
    path = dicom(tmp_path / "b.dcm", pixels, PhotometricInterpretation="YBR_RCT")
    with pytest.raises(ImageError, match="YBR_RCT does not go with its compression"):
        read_image(path)


def test_one_bit_a_pixel_is_black_and_white(tmp_path: Path) -> None:
    """Bits are packed across the frames, and a mask of ones alone is white."""
    frames = np.array([[[1, 0, 1, 0, 1]], [[1] * 5], [[0, 0, 1, 1, 0]]], dtype=np.uint8)
    dataset = pydicom.dcmread(dicom(tmp_path / "a.dcm", frames))
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 1, 1, 0
    dataset.PixelData = np.packbits(frames.ravel(), bitorder="little").tobytes()
    dataset.save_as(tmp_path / "a.dcm")
    path = str(tmp_path / "a.dcm")
    assert [grey(path, index) for index in range(3)] == (frames * 255).tolist()
    assert frames_of(path) == 3
