"""TIFF of every layout, depth, compression and orientation shows one and the same picture."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from samcls.data.images import read_image
from samcls.errors import ImageError

TURNED = {  # the picture as it is stored under each orientation
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: np.swapaxes(a, 0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(np.swapaxes(a, 0, 1), 2),
    8: lambda a: np.rot90(a, -1),
}
LAYOUTS = {
    "strips": {"rowsperstrip": 7},
    "one strip": {},
    "tiles": {"tile": (16, 16)},
    "deflate": {"rowsperstrip": 7, "compression": "deflate", "predictor": True},
}


def noise(channels: int, dtype: type = np.uint8, shape: tuple[int, int] = (30, 40)) -> np.ndarray:
    top = np.iinfo(dtype).max
    size = shape if channels == 1 else (*shape, channels)
    values = np.random.default_rng(0).integers(0, top, size, dtype=dtype, endpoint=True)
    values[0, 0], values[-1, -1] = 0, top
    return values


def shown(values: np.ndarray) -> np.ndarray:
    """The picture by the rule of depth, of full range."""
    top = np.iinfo(values.dtype).max
    eight = values if top == 255 else np.rint(values / top * 255).astype(np.uint8)
    return np.repeat(eight[:, :, None], 3, axis=2) if values.ndim == 2 else eight


def written(path: Path, stored: np.ndarray, **options: object) -> str:
    options = {"photometric": "rgb" if stored.ndim == 3 else "minisblack", **options}
    tifffile.imwrite(path, np.ascontiguousarray(stored), **options)
    return str(path)


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_layout_is_shown_upright(
    tmp_path: Path, orientation: int, layout: str, dtype: type, channels: int
) -> None:
    """Grey and colour, 8 and 16 bits, in strips and tiles: equal to the upright picture."""
    picture = noise(channels, dtype)
    path = written(
        tmp_path / "a.tif",
        TURNED[orientation](picture),
        extratags=[(274, "H", 1, orientation, True)],
        **LAYOUTS[layout],
    )
    np.testing.assert_array_equal(read_image(path), shown(picture))


@pytest.mark.parametrize("orientation", [1, 6, 7])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_planes_of_their_own_are_shown_upright(
    tmp_path: Path, orientation: int, dtype: type
) -> None:
    """A plane for each channel is the file's affair."""
    picture = noise(3, dtype)
    stored = np.moveaxis(TURNED[orientation](picture), -1, 0)
    path = written(
        tmp_path / "a.tif",
        stored,
        planarconfig="separate",
        extratags=[(274, "H", 1, orientation, True)],
    )
    np.testing.assert_array_equal(read_image(path), shown(picture))


@pytest.mark.parametrize(
    ("mode", "options"),
    [("L", {}), ("RGB", {}), ("1", {"compression": "group4"}), ("P", {}), ("CMYK", {})],
)
def test_pillows_own_tiffs_are_shown_upright(tmp_path: Path, mode: str, options: dict) -> None:
    """Bits, palettes and inks are turned as the rest is, and agree with Pillow's own colours."""
    image = Image.fromarray(noise(3)).convert(mode)
    path = tmp_path / "a.tif"
    image.save(path, tiffinfo={274: 8}, **options)
    expected = np.rot90(np.asarray(image.convert("RGB")))
    np.testing.assert_array_equal(read_image(str(path)), expected)


def test_signed_bytes_keep_their_sign(tmp_path: Path) -> None:
    """-128 is black, 127 white, and -1 lies just below 0."""
    values = np.tile(np.arange(-128, 128, dtype=np.int8), (4, 1))
    rgb = read_image(written(tmp_path / "a.tif", values))
    assert rgb[0, [0, 127, 128, 255], 0].tolist() == [0, 127, 128, 255]


@pytest.mark.parametrize(
    "compression",
    ["lzw", "deflate", "packbits", "zstd", "lzma", "jpeg2000", "jpegxl", "lerc", "png", "webp"],
)
def test_every_lossless_compression_gives_the_same_pixels(tmp_path: Path, compression: str) -> None:
    """What the plain installation decodes, whoever wrote it."""
    picture = noise(3)
    options = {"compressionargs": {"lossless": True}} if compression == "webp" else {}
    if compression == "jpeg2000":
        options = {"compressionargs": {"level": 0, "reversible": True}}
    path = written(tmp_path / "a.tif", picture, compression=compression, **options)
    np.testing.assert_array_equal(read_image(path), picture)


@pytest.mark.parametrize("subsampling", [(1, 1), (2, 2)])
def test_jpeg_inside_a_tiff_shows_its_colours(tmp_path: Path, subsampling: tuple[int, int]) -> None:
    """YCbCr becomes RGB again, near enough for a lossy compression."""
    picture = np.zeros((32, 32, 3), dtype=np.uint8)
    picture[:, :16] = (200, 30, 60)
    path = written(
        tmp_path / "a.tif",
        picture,
        compression="jpeg",
        subsampling=subsampling,
        compressionargs={"level": 95},
    )
    assert np.abs(read_image(path)[:, [2, 28]].astype(int) - picture[:, [2, 28]]).max() < 8


def test_other_colour_spaces_agree_with_pillow(tmp_path: Path) -> None:
    """CIELAB and plain YCbCr, decoded without libtiff's own words on standard error."""
    for mode in ("LAB", "YCbCr"):
        image = Image.fromarray(noise(3)).convert(mode)
        image.save(tmp_path / "a.tif")
        expected = np.asarray(image.convert("RGB")).astype(int)
        assert np.abs(read_image(str(tmp_path / "a.tif")) - expected).max() <= 1


def test_a_palette_of_bytes_is_not_black(tmp_path: Path) -> None:
    """Writers that leave the high bytes of a palette out are understood."""
    index = np.array([[0, 1]], dtype=np.uint8)
    high = np.zeros((3, 256), dtype=np.uint16)
    high[:, 1] = [200, 100, 50]
    for table in (high, high * 257):
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, index, photometric="palette", colormap=table)
        assert read_image(str(path))[0, 1].tolist() == [200, 100, 50]


def test_deep_inks_become_light(tmp_path: Path) -> None:
    """Sixteen bits of cyan, magenta, yellow and black: no ink is white, full black is black."""
    inks = np.zeros((1, 3, 4), dtype=np.uint16)
    inks[0, 1, 3] = 65535
    inks[0, 2, 0] = 65535
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, inks, photometric="separated")
    assert read_image(str(path))[0].tolist() == [[255, 255, 255], [0, 0, 0], [0, 255, 255]]


def test_premultiplied_alpha_lies_over_black_already(tmp_path: Path) -> None:
    """Associated alpha is not applied twice."""
    values = np.array([[[100, 0, 0, 128]]], dtype=np.uint8)
    for kind, red in (("assocalpha", 100), ("unassalpha", 50)):
        path = written(tmp_path / "a.tif", values, extrasamples=[kind])
        assert read_image(path)[0, 0].tolist() == [red, 0, 0]


def test_what_cannot_be_shown_is_named(tmp_path: Path) -> None:
    """Channels without a meaning, volumes and unknown compressions are refused, not guessed."""
    stack = noise(1, np.uint8, (32, 32))
    path = written(
        tmp_path / "channels.tif",
        np.stack([stack] * 5, axis=-1),
        photometric="minisblack",
        planarconfig="contig",
    )
    with pytest.raises(ImageError, match="5 channels"):
        read_image(path)
    path = written(
        tmp_path / "volume.tif",
        np.stack([stack] * 16),
        photometric="minisblack",
        volumetric=True,
        tile=(16, 16, 16),
    )
    with pytest.raises(ImageError, match="volume of 16 planes"):
        read_image(path)
    whole = Path(written(tmp_path / "odd.tif", stack)).read_bytes()
    entry = np.array([259, 3], dtype="<u2").tobytes() + np.array([1], dtype="<u4").tobytes()
    (tmp_path / "odd.tif").write_bytes(whole.replace(entry + b"\1\0", entry + b"\x65\x87"))
    with pytest.raises(ImageError, match=r"compression, JBIG \(number 34661\), is not supported"):
        read_image(str(tmp_path / "odd.tif"))


def test_thumbnails_and_masks_are_no_pages(tmp_path: Path) -> None:
    """A reduced copy behind the picture asks for no index."""
    picture = noise(3)
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(picture, photometric="rgb")
        writer.write(picture[::2, ::2], photometric="rgb", subfiletype=1)
    np.testing.assert_array_equal(read_image(str(tmp_path / "a.tif")), picture)


@pytest.mark.parametrize("compression", [None, "lzw", "deflate", "jpeg", "zstd"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_a_tiff_cut_short_fails(tmp_path: Path, compression: str | None, kept: float) -> None:
    """No missing strip is filled in, and a list of pages that breaks off is no shorter list."""
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for _ in range(3):
            writer.write(noise(3), photometric="rgb", compression=compression)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(ImageError, match=r"damaged|cut short"):
        read_image(str(path), 2)


def test_an_imagej_stack_behind_one_page_is_refused(tmp_path: Path) -> None:
    """Its first image alone would pass for the whole."""
    stack = noise(1, np.uint16, (20, 30))
    path = written(
        tmp_path / "a.tif", stack, description="ImageJ=1.53t\nimages=4\nslices=4\n", metadata=None
    )
    with pytest.raises(ImageError, match="ImageJ stack of 4 images behind one page"):
        read_image(path)
