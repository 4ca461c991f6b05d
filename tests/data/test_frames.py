"""How many pictures a file holds, and whether it is DICOM, by what its header says."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
import tifffile
from PIL import Image
from pydicom.uid import ImplicitVRLittleEndian, JPEGLSLossless
from support.dicoms import dicom

from samcls.data.frames import frames_of, holds_dicom
from samcls.data.images import read_image
from samcls.errors import ImageError

FRAMES = np.random.default_rng(0).integers(0, 256, (3, 24, 24), dtype=np.uint8)


def write_bare(path: Path, dataset: pydicom.Dataset, implicit: bool, little: bool) -> None:
    buffer = pydicom.filebase.DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = implicit, little
    del dataset.file_meta
    pydicom.filewriter.write_dataset(buffer, dataset)
    path.write_bytes(buffer.getvalue())


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_the_frames_counted_are_those_that_can_be_read(tmp_path: Path, suffix: str) -> None:
    """As many indices as are counted, and no more."""
    path = tmp_path / f"a.{suffix}"
    first, *others = map(Image.fromarray, FRAMES)
    first.save(path, save_all=True, append_images=others)
    assert frames_of(path) == 3
    for index in range(3):
        read_image(str(path), index)
    with pytest.raises(ImageError, match="index 3 is outside its 3"):
        read_image(str(path), 3)


def test_most_files_hold_one_picture(tmp_path: Path) -> None:
    """A photograph, a phone's photograph with its depth map, and a TIFF with a thumbnail."""
    first, second = map(Image.fromarray, FRAMES[:2])
    first.save(tmp_path / "a.jpg")
    first.save(tmp_path / "b.mpo", save_all=True, append_images=[second])
    with tifffile.TiffWriter(tmp_path / "c.tif") as writer:
        writer.write(FRAMES[0], photometric="minisblack")
        writer.write(FRAMES[0][::2, ::2], photometric="minisblack", subfiletype=1)
    assert [frames_of(tmp_path / name) for name in ("a.jpg", "b.mpo", "c.tif")] == [1, 1, 1]


def test_frames_of_a_dicom_are_counted(tmp_path: Path) -> None:
    """Plain or compressed; a file without pixels holds none."""
    assert frames_of(dicom(tmp_path / "a.dcm", FRAMES)) == 3
    assert frames_of(dicom(tmp_path / "b.dcm", FRAMES, syntax=JPEGLSLossless)) == 3
    assert frames_of(dicom(tmp_path / "c", FRAMES[0])) == 1
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    del dataset.PixelData
    dataset.save_as(tmp_path / "d.dcm")
    assert frames_of(tmp_path / "d.dcm") == 0
    with pytest.raises(ImageError, match="holds no picture: it has no pixel data"):
        read_image(str(tmp_path / "d.dcm"))


def test_more_frames_than_the_file_can_hold_are_damage(tmp_path: Path) -> None:
    """A number gone wrong does not become a thousand rows."""
    path = dicom(tmp_path / "a.dcm", FRAMES, NumberOfFrames="3000")
    assert frames_of(path) == 1
    with pytest.raises(ImageError, match="3000 frames are promised"):
        read_image(path, 0)


def test_a_file_that_cannot_be_read_counts_as_one(tmp_path: Path) -> None:
    """It keeps a row, which fails with its reason."""
    (tmp_path / "a.png").write_bytes(b"nothing")
    assert frames_of(tmp_path / "a.png") == frames_of(tmp_path / "gone.png") == 1


def test_dicom_is_known_by_content_alone(tmp_path: Path) -> None:
    """With a preamble or without, under any name; nothing else is DICOM, whatever it is called."""
    plain = Path(dicom(tmp_path / "IM000000", FRAMES[0], syntax=ImplicitVRLittleEndian))
    assert holds_dicom(plain)
    Image.fromarray(FRAMES[0]).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.dcm")
    (tmp_path / "b.dcm").write_bytes(b"\x08\0\x05\0" + bytes(range(256)))
    assert not holds_dicom(tmp_path / "a.dcm")
    assert not holds_dicom(tmp_path / "b.dcm")
    assert not holds_dicom(tmp_path / "gone.dcm")
    np.testing.assert_array_equal(read_image(str(tmp_path / "a.dcm"))[:, :, 0], FRAMES[0])


@pytest.mark.parametrize(("implicit", "little"), [(True, True), (False, True), (False, False)])
def test_a_data_set_without_a_preamble_is_read(
    tmp_path: Path, implicit: bool, little: bool
) -> None:
    """As old scanners leave it on the disk."""
    values = np.array([[0, 100], [400, 200]], dtype=np.uint16)
    dataset = pydicom.dcmread(dicom(tmp_path / "a.dcm", values))
    if not little:
        dataset.PixelData = values.astype(">u2").tobytes()
    bare = tmp_path / "slice.IMA"
    write_bare(bare, dataset, implicit, little)
    assert holds_dicom(bare)
    assert frames_of(bare) == 1
    assert read_image(str(bare))[:, :, 0].tolist() == [[0, 64], [255, 128]]
