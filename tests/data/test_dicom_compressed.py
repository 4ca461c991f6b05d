"""Compressed DICOM opens after the plain installation, and damage or an unknown compression is named."""

from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from support.dicoms import dicom

from samcls.data.images import read_image
from samcls.errors import ImageError


def noise(low: int, high: int, dtype: type, *more: int) -> np.ndarray:
    shape = (64, 72, *more)
    return np.random.default_rng(0).integers(low, high, shape, endpoint=True).astype(dtype)


PICTURES = {
    "8 bits": (noise(0, 255, np.uint8), {}),
    "12 bits": (noise(0, 4095, np.uint16), {"BitsStored": 12, "HighBit": 11}),
    "16 bits": (noise(0, 65535, np.uint16), {}),
    "signed": (noise(-2000, 2000, np.int16), {}),
    "RGB": (noise(0, 255, np.uint8, 3), {}),
}
SYNTAXES = [
    RLELossless, JPEGLSLossless, JPEG2000Lossless, JPEGLosslessSV1, JPEGLossless, HTJ2KLossless,
]  # fmt: skip


def repacked(plain: str, path: Path, syntax: UID, frames: list[bytes], **elements: object) -> str:
    """A plain file with compressed frames in place of its pixels."""
    dataset = pydicom.dcmread(plain)
    dataset.PixelData = encapsulate(frames)
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = syntax
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path, enforce_file_format=True)
    return str(path)


def compressed(plain: str, path: Path, syntax: UID, values: np.ndarray) -> str:
    dataset = pydicom.dcmread(plain)
    if syntax in (RLELossless, JPEGLSLossless, JPEG2000Lossless):
        dataset.compress(syntax)
        dataset.save_as(path, enforce_file_format=True)
        return str(path)
    unsigned = values.view(np.uint16) if values.dtype == np.int16 else values
    if syntax == HTJ2KLossless:
        if not hasattr(imagecodecs, "htj2k_encode"):
            pytest.skip("this imagecodecs writes no HTJ2K; from 2026.1 on it does")
        data = imagecodecs.htj2k_encode(values, level=0, reversible=True)
    else:
        data = imagecodecs.ljpeg_encode(unsigned, bitspersample=dataset.BitsStored)
    return repacked(plain, path, syntax, [bytes(data)])


PAIRS = [  # no encoder of lossless JPEG in colour is at hand
    (syntax, kind)
    for syntax in SYNTAXES
    for kind in PICTURES
    if kind != "RGB" or syntax not in (JPEGLossless, JPEGLosslessSV1)
]


@pytest.mark.parametrize(("syntax", "kind"), PAIRS)
def test_lossless_compressions_show_what_the_plain_file_shows(
    tmp_path: Path, syntax: UID, kind: str
) -> None:
    """RLE, JPEG-LS, JPEG 2000 and its fast form, lossless JPEG: pixel for pixel."""
    values, elements = PICTURES[kind]
    plain = dicom(tmp_path / "a.dcm", values, **elements)
    path = compressed(plain, tmp_path / "b.dcm", syntax, values)
    np.testing.assert_array_equal(read_image(path), read_image(plain))


@pytest.mark.parametrize("kind", ["12 bits", "16 bits", "signed"])
def test_lossless_jpeg_of_another_writer_is_read(tmp_path: Path, kind: str) -> None:
    """What gdcm writes, with the predictor that scanners use."""
    import gdcm

    values, elements = PICTURES[kind]
    plain = dicom(tmp_path / "a.dcm", values, **elements)
    reader = gdcm.ImageReader()
    reader.SetFileName(plain)
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFile(reader.GetFile())
    writer.SetFileName(str(tmp_path / "b.dcm"))
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    np.testing.assert_array_equal(read_image(str(tmp_path / "b.dcm")), read_image(plain))


def jpeg(values: np.ndarray, path: Path, **options: object) -> bytes:
    Image.fromarray(values).save(path, "JPEG", quality=95, **options)
    return path.read_bytes()


@pytest.mark.parametrize("colour", [False, True])
def test_jpeg_baseline_shows_what_the_jpeg_shows(tmp_path: Path, colour: bool) -> None:
    """Grey and YBR, as Pillow decodes them."""
    values = noise(0, 255, np.uint8, 3) if colour else noise(0, 255, np.uint8)
    data = jpeg(values, tmp_path / "a.jpg")
    space = {"PhotometricInterpretation": "YBR_FULL_422"} if colour else {}
    plain = dicom(tmp_path / "a.dcm", values)
    path = repacked(plain, tmp_path / "b.dcm", JPEGBaseline8Bit, [data], **space)
    shown, expected = read_image(path).astype(int), read_image(str(tmp_path / "a.jpg")).astype(int)
    assert np.abs(shown - expected).max() <= 2


def test_jpeg_of_twelve_bits_is_read(tmp_path: Path) -> None:
    """The extended process, which pydicom's own permissive decoders leave out."""
    ramp = (np.add.outer(np.arange(24), np.arange(40)) * 4095 // 62).astype(np.uint16)
    plain = dicom(tmp_path / "a.dcm", ramp, BitsStored=12, HighBit=11)
    data = imagecodecs.jpeg8_encode(ramp, bitspersample=12, level=100)
    path = repacked(plain, tmp_path / "b.dcm", JPEGExtended12Bit, [data])
    assert np.abs(read_image(path).astype(int) - read_image(plain)).max() <= 1


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_each_compressed_frame_is_found(tmp_path: Path, syntax: UID) -> None:
    """By its index, whatever the length of those before it."""
    frames = np.stack([noise(0, 255 >> shift, np.uint8) for shift in (0, 4, 1)])
    path = dicom(tmp_path / "a.dcm", frames, syntax=syntax)
    for index, frame in enumerate(frames):
        np.testing.assert_array_equal(read_image(path, index)[:, :, 0], frame)


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("kept", [0.4, 0.9])
def test_a_compressed_frame_cut_short_fails(
    tmp_path: Path, syntax: UID, kept: float, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whether the file ends early or its frame does; and no decoder speaks on standard error."""
    values, elements = PICTURES["16 bits"]
    plain = dicom(tmp_path / "a.dcm", values, **elements)
    whole = Path(compressed(plain, tmp_path / "b.dcm", syntax, values))
    frame = pydicom.encaps.get_frame(pydicom.dcmread(whole).PixelData, 0, number_of_frames=1)
    cut = repacked(plain, tmp_path / "c.dcm", syntax, [frame[: int(kept * len(frame))]])
    whole.write_bytes(whole.read_bytes()[: int(kept * whole.stat().st_size)])
    for path in (str(whole), cut):
        with pytest.raises(ImageError, match=r"damaged|cut short"):
            read_image(path)
    assert capfd.readouterr().err == ""


def test_a_frame_of_another_size_is_damage(tmp_path: Path) -> None:
    """What the compressed pixels promise is compared before they are decoded."""
    values, _ = PICTURES["8 bits"]
    plain = dicom(tmp_path / "a.dcm", values)
    data = jpeg(np.zeros((8, 9), dtype=np.uint8), tmp_path / "a.jpg")
    path = repacked(plain, tmp_path / "b.dcm", JPEGBaseline8Bit, [data])
    with pytest.raises(ImageError, match="not of the size in its header"):
        read_image(path)


@pytest.mark.parametrize(
    ("syntax", "says"),
    [
        ("1.2.840.10008.1.2.4.102", "MPEG-4 AVC/H.264 High Profile"),
        ("1.2.3.4", "number 1.2.3.4"),
    ],
)
def test_a_compression_that_nothing_decodes_is_named(
    tmp_path: Path, syntax: str, says: str
) -> None:
    """Its name or number, and that no package is known."""
    plain = dicom(tmp_path / "a.dcm", PICTURES["8 bits"][0])
    path = repacked(plain, tmp_path / "b.dcm", UID(syntax), [b"\0" * 64])
    with pytest.raises(ImageError, match=f"compression, ({says}).*no package is known"):
        read_image(path)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it."""
    from pydicom.pixels.decoders import JPEGLSLosslessDecoder

    path = dicom(tmp_path / "a.dcm", PICTURES["8 bits"][0], syntax=JPEGLSLossless)
    monkeypatch.setattr(JPEGLSLosslessDecoder, "_available", {})
    with pytest.raises(ImageError, match=r"JPEG-LS .* not installed: pip install pyjpegls"):
        read_image(path)
