"""Every kind of file becomes the RGB it shows, and every bad one an error with its reason."""

import io
import struct
import threading
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from samcls.data.images import MAX_PIXELS, SUFFIXES, make_frame, pixel_digest, read_image
from samcls.errors import ImageError


def picture(height: int = 40, width: int = 56, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def saved(path: Path, image: Image.Image, **options: object) -> str:
    image.save(path, **options)
    return str(path)


LOSSLESS = [".png", ".bmp", ".ppm", ".tif", ".tiff"]


@pytest.mark.parametrize("suffix", LOSSLESS)
@pytest.mark.parametrize("grey", [False, True])
def test_lossless_files_give_their_pixels(tmp_path: Path, suffix: str, grey: bool) -> None:
    """RGB comes back as it was; grey is repeated in three channels."""
    pixels = picture()
    image = Image.fromarray(pixels[:, :, 0] if grey else pixels)
    expected = np.repeat(pixels[:, :, :1], 3, axis=2) if grey else pixels
    np.testing.assert_array_equal(read_image(saved(tmp_path / f"a{suffix}", image)), expected)


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".gif", ".jp2"])
def test_lossy_files_give_what_pillow_gives(tmp_path: Path, suffix: str) -> None:
    """Nothing is added to Pillow's own decoding."""
    path = saved(tmp_path / f"a{suffix}", Image.fromarray(picture()))
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(read_image(path), expected)


def test_every_suffix_is_lower_case_with_a_dot() -> None:
    """Folder sources compare lower-cased suffixes with this set."""
    assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in SUFFIXES)
    assert {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".bmp"} <= SUFFIXES


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_exif_orientation_is_applied(tmp_path: Path, suffix: str) -> None:
    """A picture taken on its side is read upright."""
    exif = Image.Exif()
    exif[274] = 6  # the top of the picture is at the right
    pixels = np.zeros((16, 32, 3), dtype=np.uint8)
    pixels[:, :16] = 255
    path = saved(tmp_path / f"a{suffix}", Image.fromarray(pixels), exif=exif)
    upright = read_image(path)
    assert upright.shape == (32, 16, 3)
    assert upright[:12].min() > 200
    assert upright[20:].max() < 50


def test_palettes_are_resolved(tmp_path: Path) -> None:
    """A palette's colours come out, not its indices."""
    image = Image.fromarray(np.array([[0, 1], [2, 1]], dtype=np.uint8)).convert("P")
    image.putpalette([10, 20, 30, 200, 100, 50, 1, 2, 3])
    rgb = read_image(saved(tmp_path / "a.png", image))
    assert rgb.tolist() == [[[10, 20, 30], [200, 100, 50]], [[1, 2, 3], [200, 100, 50]]]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_over_black(tmp_path: Path, mode: str) -> None:
    """Opaque pixels keep their colour, transparent ones become 0, half of them half."""
    bands = len(mode)
    values = np.full((1, 3, bands), 200, dtype=np.uint8)
    values[0, :, -1] = [255, 128, 0]
    rgb = read_image(saved(tmp_path / "a.png", Image.fromarray(values)))
    assert rgb[0, :, 0].tolist() == [200, 100, 0]


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    """Full black ink is black, no ink is white."""
    inks = np.zeros((16, 32, 4), dtype=np.uint8)
    inks[:, 16:, 3] = 255
    image = Image.frombytes("CMYK", (32, 16), inks.tobytes())
    rgb = read_image(saved(tmp_path / "a.jpg", image))
    assert rgb[:, :14].min() > 240
    assert rgb[:, 18:].max() < 15


def test_the_first_picture_of_a_phone_file_is_read(tmp_path: Path) -> None:
    """A JPEG with further frames (depth, gain map) needs no index."""
    first, second = (Image.new("RGB", (16, 16), colour) for colour in ("white", "black"))
    path = saved(tmp_path / "a.mpo", first, save_all=True, append_images=[second])
    Path(path).rename(tmp_path / "a.jpg")
    assert read_image(str(tmp_path / "a.jpg")).min() > 250


def test_one_bit_images_are_black_and_white(tmp_path: Path) -> None:
    """A mask of one bit a pixel becomes 0 and 255."""
    mask = Image.fromarray(np.array([[True, False]]))
    assert read_image(saved(tmp_path / "a.png", mask))[0, :, 0].tolist() == [255, 0]


DEEP = [
    (np.uint16, ".png"),
    (np.uint16, ".tif"),
    (np.int32, ".tif"),
    (np.float32, ".tif"),
]


@pytest.mark.parametrize(("dtype", "suffix"), DEEP)
def test_deep_grey_is_scaled_from_its_own_range(tmp_path: Path, dtype: type, suffix: str) -> None:
    """The minimum becomes 0, the maximum 255, and what lies between stays in proportion."""
    values = np.array([[1000, 2000], [3000, 1500]], dtype=dtype)
    rgb = read_image(saved(tmp_path / f"a{suffix}", Image.fromarray(values)))
    assert rgb[:, :, 0].tolist() == [[0, 128], [255, 64]]
    assert (rgb == rgb[:, :, :1]).all()


TIFF_TYPES = [np.uint16, np.int16, np.uint32, np.int32, np.float32, np.float64]


@pytest.mark.parametrize("dtype", TIFF_TYPES)
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_tiffs_of_every_type_show_the_same_picture(
    tmp_path: Path, dtype: type, byteorder: str, photometric: str
) -> None:
    """Byte order, sign and whether white is zero are the file's affair, not the picture's."""
    top = 2**32 - 1 if dtype is np.uint32 else 30_000
    values = np.array([[0, top // 2], [top, top // 4]], dtype=dtype)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values, photometric=photometric, byteorder=byteorder)
    expected = np.array([[0, 127], [255, 64]])
    if photometric == "miniswhite":
        expected = 255 - expected
    assert np.abs(read_image(str(path))[:, :, 0] - expected).max() <= 1


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_deep_rgb_tiffs_are_scaled_all_channels_alike(tmp_path: Path, planar: str) -> None:
    """Sixteen bits a channel keep their hue."""
    values = picture().astype(np.uint16) * 257
    values[0, 0] = [0, 0, 65535]
    stored = values if planar == "contig" else np.moveaxis(values, -1, 0)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stored, photometric="rgb", planarconfig=planar)
    np.testing.assert_array_equal(read_image(str(path)), values // 257)


def test_a_constant_deep_image_is_black(tmp_path: Path) -> None:
    """No range, no division by zero."""
    path = saved(tmp_path / "a.png", Image.fromarray(np.full((4, 4), 700, dtype=np.uint16)))
    assert read_image(path).max() == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(tmp_path: Path, dtype: type, bad: float) -> None:
    """A NaN cannot be shown, so its image fails."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.array([[1, bad]], dtype=dtype))
    with pytest.raises(ImageError, match="NaN or infinite"):
        read_image(str(path))


def test_a_page_of_a_tiff_is_chosen_by_index(tmp_path: Path) -> None:
    """One page needs no index; with several, the error says how many there are."""
    pages = [picture(seed=seed) for seed in range(3)]
    first, *others = map(Image.fromarray, pages)
    path = saved(tmp_path / "a.tif", first, save_all=True, append_images=others)
    np.testing.assert_array_equal(read_image(path, 2), pages[2])
    with pytest.raises(ImageError, match=r"holds 3 pages: name one of 0\.\.2"):
        read_image(path)
    with pytest.raises(ImageError, match="index 3 is outside its 3"):
        read_image(path, 3)


def encoded(suffix: str) -> bytes:
    buffer = io.BytesIO()
    formats = {".jpg": "JPEG", ".tif": "TIFF", ".jp2": "JPEG2000", ".ppm": "PPM"}
    image = Image.fromarray(picture(64, 64))
    image.save(buffer, formats.get(suffix, suffix[1:].upper()))
    return buffer.getvalue()


CUTTABLE = [".png", ".jpg", ".bmp", ".gif", ".webp", ".tif", ".ppm", ".jp2"]


@pytest.mark.parametrize("suffix", CUTTABLE)
@pytest.mark.parametrize("kept", [0.01, 0.3, 0.6, 0.9])
def test_a_file_cut_short_fails(tmp_path: Path, suffix: str, kept: float) -> None:
    """No missing pixel is ever filled in."""
    whole = encoded(suffix)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(ImageError, match=r"a\.\w+ cannot be read: ."):
        read_image(str(path))


@pytest.mark.parametrize("dtype", [np.float64, np.uint16])
def test_a_tiff_beyond_pillow_cut_short_fails(tmp_path: Path, dtype: type) -> None:
    """tifffile would fill the missing rows in."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, picture(64, 64).astype(dtype), photometric="rgb")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ImageError, match="cut short"):
        read_image(str(path))


def test_bad_files_say_why(tmp_path: Path) -> None:
    """Missing, empty, a folder and another kind of file are told apart."""
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "page.ps.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    reasons = {
        "gone.png": "does not exist",
        "empty.png": "is empty (0 bytes)",
        ".": "is a folder",
        "text.png": "no image of a known kind",
        "page.ps.png": "no image of a known kind",
    }
    for name, reason in reasons.items():
        path = str(tmp_path / name)
        with pytest.raises(ImageError) as caught:
            read_image(path)
        assert str(caught.value).startswith(f"the image {path} cannot be read: ")
        assert reason in str(caught.value)


def bomb(side: int) -> bytes:
    """A PNG's header that promises side x side pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    checksum = struct.pack(">I", __import__("zlib").crc32(header))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + checksum


@pytest.mark.parametrize("side", [9_500, 60_000])
def test_absurd_sizes_are_refused_before_they_are_decoded(tmp_path: Path, side: int) -> None:
    """A few bytes that promise gigabytes cost a message."""
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb(side) + encoded(".png")[33:])
    with pytest.raises(ImageError, match="exceed"):
        read_image(str(path))


def test_the_size_limit_counts_pixels(tmp_path: Path) -> None:
    """A long, narrow picture below the limit is read."""
    image = Image.new("L", (20_000, 2))
    assert MAX_PIXELS > 20_000 * 2
    assert read_image(saved(tmp_path / "a.png", image)).shape == (2, 20_000, 3)


def test_threads_read_the_same_pixels(tmp_path: Path) -> None:
    """Eight threads over the same files agree with one."""
    rows = np.random.default_rng(0).integers(0, 256, (16, 9, 7), dtype=np.uint8)
    np.savez_compressed(tmp_path / "d.npz", x=rows)
    path = saved(tmp_path / "a.png", Image.fromarray(picture()))
    failures: list[str] = []

    def read() -> None:
        for index in range(16):
            row = read_image(f"{tmp_path / 'd.npz'}#x", index)
            if not (row[:, :, 1] == rows[index]).all() or not (read_image(path) == picture()).all():
                failures.append(str(index))

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_the_digest_is_of_shape_and_pixels(tmp_path: Path) -> None:
    """The same pixels in another file agree; another pixel or another shape does not."""
    pixels = picture()
    same = read_image(saved(tmp_path / "a.bmp", Image.fromarray(pixels)))
    assert pixel_digest(pixels) == pixel_digest(same)
    assert len(pixel_digest(pixels)) == 64
    changed = pixels.copy()
    changed[3, 4, 0] ^= 1
    assert pixel_digest(changed) != pixel_digest(pixels)
    assert pixel_digest(pixels.reshape(56, 40, 3)) != pixel_digest(pixels)


def reference(image: np.ndarray, size: int) -> np.ndarray:
    from segment_anything.utils.transforms import ResizeLongestSide

    return ResizeLongestSide(size).apply_image(image)


@pytest.mark.parametrize("size", [256, 1024])
@given(height=st.integers(1, 400), width=st.integers(1, 400), seed=st.integers(0, 99))
def test_frames_equal_segment_anything_pixel_for_pixel(
    size: int, height: int, width: int, seed: int
) -> None:
    """The picture is ResizeLongestSide's, at the top left, and all else is zero."""
    image = picture(height, width, seed)
    if min(height, width) * size < max(height, width):
        return  # the reference would ask Pillow for a side of 0 pixels
    expected = reference(image, size)
    frame = make_frame(image, size)
    assert frame.valid == expected.shape[:2]
    np.testing.assert_array_equal(frame.pixels[: frame.valid[0], : frame.valid[1]], expected)
    assert not frame.pixels[frame.valid[0] :].any()
    assert not frame.pixels[:, frame.valid[1] :].any()


def test_a_frame_shows_at_least_one_row() -> None:
    """A picture 2,000 times as wide as high keeps a row, where rounding would leave none."""
    frame = make_frame(np.full((1, 2000, 3), 9, dtype=np.uint8), 256)
    assert frame.valid == (1, 256)
    assert (frame.pixels[0] == 9).all()


def test_stretching_fills_the_frame() -> None:
    """Both sides are brought to the size and nothing is padding."""
    image = picture(30, 60)
    frame = make_frame(image, 64, "stretch")
    assert frame.valid == (64, 64)
    expected = Image.fromarray(image).resize((64, 64), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(frame.pixels, np.asarray(expected))
