"""Pictures of other than 8 bits keep all their bits, scaled by one rule whatever the format."""

import io
import struct
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from samcls.data.images import read_image
from samcls.errors import ImageError

HEIGHT, WIDTH = 12, 16
RAMP = np.add.outer(np.arange(HEIGHT), np.arange(WIDTH)) * 4095 // (HEIGHT + WIDTH - 2)
COLOURS = np.dstack([RAMP, RAMP[::-1], RAMP[:, ::-1]]).astype(np.uint16)
EXPECTED = np.rint(COLOURS / 4095 * 255).astype(np.uint8)
GREY = np.repeat(EXPECTED[:, :, :1], 3, axis=2)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(path: Path, samples: np.ndarray, *before: tuple[bytes, bytes]) -> str:
    """Write 16 bits a sample: grey, grey and alpha, RGB or RGBA."""
    channels = 1 if samples.ndim == 2 else samples.shape[2]
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    head = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], 16, colour, 0, 0, 0)
    chunks = [(b"IHDR", head), *before, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks))
    return str(path)


def pnm(path: Path, samples: np.ndarray, top: int, *, plain: bool = False) -> str:
    kind = {(2, True): 2, (3, True): 3, (2, False): 5, (3, False): 6}[samples.ndim, plain]
    head = f"P{kind}\n# a comment\n{samples.shape[1]} {samples.shape[0]}\n{top}\n".encode()
    words = " ".join(map(str, samples.ravel())).encode()
    path.write_bytes(head + (words if plain else samples.astype(">u2").tobytes()))
    return str(path)


def jp2(path: Path, samples: np.ndarray, bits: int, codec: str = "jp2") -> str:
    data = imagecodecs.jpeg2k_encode(
        samples, level=0, reversible=True, bitspersample=bits, codecformat=codec, mct=False
    )
    path.write_bytes(data)
    return str(path)


def tiff(path: Path, samples: np.ndarray, **options: object) -> str:
    tifffile.imwrite(path, samples, photometric="rgb" if samples.ndim == 3 else None, **options)
    return str(path)


OPAQUE = np.full((HEIGHT, WIDTH, 1), 65535, dtype=np.uint16)
WRITERS = {
    "png": lambda folder: png(folder / "a.png", COLOURS),
    "png with alpha": lambda folder: png(folder / "a.png", np.dstack([COLOURS, OPAQUE])),
    "ppm of 12 bits": lambda folder: pnm(folder / "a.ppm", COLOURS, 4095),
    "ppm of 16 bits": lambda folder: pnm(folder / "a.ppm", COLOURS, 65535),
    "ppm in words": lambda folder: pnm(folder / "a.ppm", COLOURS, 4095, plain=True),
    "jp2": lambda folder: jp2(folder / "a.jp2", COLOURS, 12),
    "j2k": lambda folder: jp2(folder / "a.j2k", COLOURS, 16, "j2k"),
    "tiff": lambda folder: tiff(folder / "a.tif", COLOURS),
    "tiff with alpha": lambda folder: tiff(
        folder / "a.tif", np.dstack([COLOURS, OPAQUE]), extrasamples=["unassalpha"]
    ),
    "npz": lambda folder: npz(folder / "a.npz", COLOURS),
}


def npz(path: Path, samples: np.ndarray) -> str:
    np.savez(path, x=samples[None])
    return f"{path}#x"


@pytest.mark.parametrize("kind", WRITERS)
def test_deep_colour_keeps_all_its_bits(tmp_path: Path, kind: str) -> None:
    """The full range to 0..255, all channels alike: more than 24 levels, where high bytes show 16."""
    path = WRITERS[kind](tmp_path)
    rgb = read_image(path, 0 if "#" in path else None)
    np.testing.assert_array_equal(rgb, EXPECTED)
    assert len(np.unique(rgb)) > 24


GREY_WRITERS = {
    "png": lambda folder, values: png(folder / "a.png", values),
    "png with alpha": lambda folder, values: png(folder / "a.png", np.dstack([values, OPAQUE])),
    "pgm": lambda folder, values: pnm(folder / "a.pgm", values, 4095),
    "pgm in words": lambda folder, values: pnm(folder / "a.pgm", values, 4095, plain=True),
    "jp2": lambda folder, values: jp2(folder / "a.jp2", values, 12),
    "tiff": lambda folder, values: tiff(folder / "a.tif", values),
}


@pytest.mark.parametrize("kind", GREY_WRITERS)
def test_deep_grey_is_scaled_as_deep_colour_is(tmp_path: Path, kind: str) -> None:
    """The same levels, whatever the format."""
    path = GREY_WRITERS[kind](tmp_path, COLOURS[:, :, 0])
    np.testing.assert_array_equal(read_image(path), GREY)


def test_alpha_is_no_colour_and_lays_the_picture_over_black(tmp_path: Path) -> None:
    """The range is that of the colours alone, and half an alpha shows half of the light."""
    samples = np.array([[[100, 100, 100, 65535], [300, 300, 300, 32768], [200, 200, 200, 0]]])
    for path in (
        png(tmp_path / "a.png", samples),
        tiff(tmp_path / "a.tif", samples.astype(np.uint16), extrasamples=["unassalpha"]),
    ):
        assert read_image(path)[0, :, 0].tolist() == [0, 128, 0]


def test_a_gamma_chunk_changes_nothing(tmp_path: Path) -> None:
    """A picture is scaled, never bent."""
    gamma = (b"gAMA", struct.pack(">I", 45455))
    np.testing.assert_array_equal(read_image(png(tmp_path / "a.png", COLOURS, gamma)), EXPECTED)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_deep_png_is_turned_by_its_exif(tmp_path: Path, orientation: int) -> None:
    """As a PNG of 8 bits is."""
    exif = Image.Exif()
    exif[274] = orientation
    data = (b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    shallow = io.BytesIO()
    Image.fromarray(EXPECTED).save(shallow, "PNG", exif=exif)
    (tmp_path / "b.png").write_bytes(shallow.getvalue())
    turned = read_image(png(tmp_path / "a.png", COLOURS, data))
    np.testing.assert_array_equal(turned, read_image(str(tmp_path / "b.png")))


def test_signed_jpeg_2000_keeps_its_sign(tmp_path: Path) -> None:
    """-2000 is black and 2000 white."""
    values = np.array([[-2000, 0], [1000, 2000]], dtype=np.int16)
    assert read_image(jp2(tmp_path / "a.jp2", values, 16))[:, :, 0].tolist() == [
        [0, 128],
        [191, 255],
    ]


def test_jpegs_of_twelve_bits_and_lossless_ones_are_read(tmp_path: Path) -> None:
    """Pillow opens neither."""
    values = np.ascontiguousarray(COLOURS[:, :, 0])
    (tmp_path / "a.jpg").write_bytes(imagecodecs.jpeg8_encode(values, bitspersample=12, level=100))
    (tmp_path / "b.jpg").write_bytes(imagecodecs.ljpeg_encode(values, bitspersample=12))
    (tmp_path / "c.jls").write_bytes(imagecodecs.jpegls_encode(values))
    assert np.abs(read_image(str(tmp_path / "a.jpg")).astype(int) - GREY).max() <= 1
    np.testing.assert_array_equal(read_image(str(tmp_path / "b.jpg")), GREY)
    np.testing.assert_array_equal(read_image(str(tmp_path / "c.jls")), GREY)


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("name", ["a.png", "a.ppm", "a.jp2", "a.jpg", "b.jpg", "c.jls"])
def test_a_deep_file_cut_short_fails(tmp_path: Path, name: str, kept: float) -> None:
    """No missing pixel is ever filled in, not even by a decoder that would."""
    noise = np.random.default_rng(0).integers(0, 4096, (32, 32), dtype=np.uint16)
    data = {
        "a.png": lambda: Path(png(tmp_path / "w.png", noise)).read_bytes(),
        "a.ppm": lambda: Path(pnm(tmp_path / "w.ppm", np.dstack([noise] * 3), 4095)).read_bytes(),
        "a.jp2": lambda: Path(jp2(tmp_path / "w.jp2", noise, 12)).read_bytes(),
        "a.jpg": lambda: imagecodecs.jpeg8_encode(noise, bitspersample=12),
        "b.jpg": lambda: imagecodecs.ljpeg_encode(noise, bitspersample=12),
        "c.jls": lambda: imagecodecs.jpegls_encode(noise),
    }[name]()
    (tmp_path / name).write_bytes(data[: int(kept * len(data))])
    with pytest.raises(ImageError, match=r"damaged|cut short"):
        read_image(str(tmp_path / name))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_fewer_bits_are_spread_over_the_range(tmp_path: Path, bits: int) -> None:
    """The largest value is white, whether it occurs or not, in a PNG as in a TIFF."""
    top = 2**bits - 1
    values = np.zeros((2, 8), dtype=np.uint8)
    values[0, 0] = top // 2 or 1
    expected = round(int(values[0, 0]) * 255 / top)
    if 1 < bits < 8 and not _packs():
        pytest.skip("this imagecodecs packs no integers; from 2026.3 on it does")
    packed = (
        imagecodecs.packints_encode(values, bits) if bits > 1 else np.packbits(values).tobytes()
    )
    head = struct.pack(">IIBBBBB", 8, 2, bits, 0, 0, 0, 0)
    rows = b"".join(b"\0" + packed[place : place + bits] for place in (0, bits))
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks))
    tifffile.imwrite(
        tmp_path / "a.tif",
        values.astype(bool) if bits == 1 else values,
        bitspersample=bits,
        photometric="minisblack",
    )
    for name in ("a.png", "a.tif"):
        assert read_image(str(tmp_path / name))[0, :2, 0].tolist() == [expected, 0]


def _packs() -> bool:
    try:
        imagecodecs.packints_encode(np.zeros((1, 8), np.uint8), 4)
    except NotImplementedError:
        return False
    return True
