"""The reason of an image that fails is true: damaged, unsupported, too large, empty, or no image."""

import io
import os
import subprocess
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image
from support.dicoms import dicom

from samcls.data.arrays import MAX_BYTES, MAX_PIXELS, check_size, read_row
from samcls.data.images import read_image
from samcls.errors import ImageError

STRANGERS = {
    b"<!DOCTYPE html>\n<html><title>Sign in</title></html>": r"a web page \(HTML\)",
    b"\n  <HTML lang='en'><body>404</body></html>": r"a web page \(HTML\)",
    b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>": "an XML document",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n": "git lfs pull",
    b"/annex/objects/MD5E-s1234--abc.png\n": "git annex get",
    b'{"error": "quota exceeded"}': "JSON text",
    b"%PDF-1.7\n": "a PDF document",
    b"\0\0\0\x18ftypheic\0\0\0\0": "a HEIC photograph: save it as PNG",
    b"\x1f\x8b\x08\0\0\0\0\0": "compressed with gzip: unpack it",
    b"PK\x03\x04\x14\0\0\0": "a ZIP archive",
    b"\x93NUMPY\x01\0": r"a NumPy array \(\.npy\)",
    b"\0\x05\x16\7\0\2\0\0Mac OS X        ": "a companion file of macOS",
    bytes(2000): "all zero",
    b"not a picture": "no image of a known kind",
}


@pytest.mark.parametrize(("content", "says"), STRANGERS.items(), ids=range(len(STRANGERS)))
@pytest.mark.parametrize("name", ["a.png", "a.dcm", "a"])
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes, says: str, name: str) -> None:
    """A web page, a pointer or an archive in an image's place, whatever its suffix."""
    (tmp_path / name).write_bytes(content)
    if name == "a.dcm" and says.startswith("no image"):
        says = "not a DICOM file"
    with pytest.raises(ImageError, match=says):
        read_image(str(tmp_path / name))


def big_tiff(path: Path) -> str:
    """One row of a TIFF whose header promises far more."""
    tifffile.imwrite(path, np.zeros((1, 10), dtype=np.uint8), photometric="minisblack")
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages[0].tags["ImageWidth"].overwrite(100_000)
        tiff.pages[0].tags["ImageLength"].overwrite(100_000)
    return str(path)


def big_volume(path: Path) -> str:
    """A page of many planes, each within the limit."""
    volume = np.zeros((16, 16, 16), dtype=np.uint8)
    tifffile.imwrite(path, volume, photometric="minisblack", volumetric=True, tile=(16, 16, 16))
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages[0].tags["ImageDepth"].overwrite(60_000)
        tiff.pages[0].tags["ImageLength"].overwrite(600)
    return str(path)


def big_jp2(path: Path, dtype: type) -> str:
    data = bytearray(imagecodecs.jpeg2k_encode(np.zeros((64, 64), dtype=dtype), level=0))
    size = np.array([60_000, 60_000], dtype=">u4").tobytes()
    siz = data.find(b"\xff\x4f\xff\x51")
    data[siz + 8 : siz + 16] = size
    box = data.find(b"ihdr")
    data[box + 4 : box + 12] = size
    path.write_bytes(data)
    return str(path)


def big_npz(path: Path) -> str:
    """As many pixels as a header says, none of them on the disk."""
    header = io.BytesIO()
    shape = (1, 10_000, 10_000)
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    import zipfile

    with zipfile.ZipFile(path, "w") as archive, archive.open("x.npy", "w", force_zip64=True) as x:
        x.write(header.getvalue())
        for _ in range(100):
            x.write(bytes(10**6))
    return f"{path}#x"


def big_pnm(path: Path, top: int) -> str:
    path.write_bytes(f"P6\n60000 60000\n{top}\n".encode() + bytes(100))
    return str(path)


def big_gif(path: Path) -> str:
    Image.new("P", (8, 8)).save(path)
    data = bytearray(path.read_bytes())
    data[6:10] = np.array([60_000, 60_000], dtype="<u2").tobytes()
    path.write_bytes(data)
    return str(path)


LARGE = {
    "TIFF": lambda folder: big_tiff(folder / "a.tif"),
    "TIFF of many planes": lambda folder: big_volume(folder / "a.tif"),
    "JPEG 2000": lambda folder: big_jp2(folder / "a.jp2", np.uint8),
    "JPEG 2000, 16 bits": lambda folder: big_jp2(folder / "a.jp2", np.uint16),
    "PPM": lambda folder: big_pnm(folder / "a.ppm", 255),
    "PPM, 16 bits": lambda folder: big_pnm(folder / "a.ppm", 65535),
    "GIF": lambda folder: big_gif(folder / "a.gif"),
    "DICOM": lambda folder: dicom(
        folder / "a.dcm", np.zeros((2, 2), dtype=np.uint16), Rows=60_000, Columns=60_000
    ),
}


@pytest.mark.parametrize("kind", LARGE)
def test_what_is_too_large_says_so_in_every_format(tmp_path: Path, kind: str) -> None:
    """By the same documented limit, from the header, before anything is decoded."""
    with pytest.raises(ImageError, match=f"too large: .* exceed the limit of {MAX_PIXELS}"):
        read_image(LARGE[kind](tmp_path))


def test_a_row_of_an_npz_that_is_too_large_says_so(tmp_path: Path) -> None:
    """An array of more pixels an image than the limit is not copied."""
    path = big_npz(tmp_path / "a.npz")
    with pytest.raises(ImageError, match=f"too large: .* exceed the limit of {MAX_PIXELS}"):
        read_row(*path.split("#"), 0)


def test_depth_counts_towards_the_size() -> None:
    """Within the limit of pixels, but too many bytes for each of them."""
    check_size(9_000, 9_000, 12)
    with pytest.raises(ImageError, match=f"24 bytes each exceed the limit of {MAX_BYTES} bytes"):
        check_size(9_000, 9_000, 24)


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path: Path) -> None:
    """The system's own reason is passed on."""
    path = tmp_path / "a.png"
    Image.new("L", (4, 4)).save(path)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("the superuser may read everything")
    with pytest.raises(ImageError, match="Permission denied"):
        read_image(str(path))


def test_damage_is_called_damage(tmp_path: Path) -> None:
    """A file whose header is right and whose content is not."""
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for suffix in ("png", "jpg", "webp", "tif", "bmp"):
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(picture).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(ImageError, match=r"damaged|cut short"):
            read_image(str(path))


def test_decoders_say_nothing_on_standard_error(tmp_path: Path) -> None:
    """Neither warnings, nor logs, nor C libraries: the progress line stays whole."""
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    rng = np.random.default_rng(1)
    grey = picture[:, :, 0].astype(np.uint16)
    dicom(tmp_path / "a.dcm", grey, rle=True)
    dicom(tmp_path / "b.dcm", grey, NumberOfFrames="0")
    for compression in (None, "lzw", "deflate", "jpeg"):
        name = tmp_path / f"{compression}.tif"
        tifffile.imwrite(name, picture, compression=compression, photometric="rgb")
    for suffix in ("png", "jpg", "webp", "gif", "jp2", "bmp"):
        Image.fromarray(picture).save(tmp_path / f"a.{suffix}")
    (tmp_path / "d.jp2").write_bytes(imagecodecs.jpeg2k_encode(grey, level=0))
    for path in sorted(tmp_path.iterdir()):
        data = path.read_bytes()
        for place in range(6):
            broken = bytearray(data)
            for _ in range(20):
                broken[rng.integers(len(broken))] = rng.integers(256)
            (tmp_path / f"{place}{path.name}").write_bytes(broken)
        (tmp_path / f"9{path.name}").write_bytes(data[: len(data) // 2])
    program = (
        "import sys, pathlib\n"
        "from samcls.data.frames import frames_of, holds_dicom\n"
        "from samcls.data.images import read_image\n"
        "from samcls.errors import ImageError\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):\n"
        "    frames_of(path), holds_dicom(path)\n"
        "    try:\n"
        "        read_image(str(path))\n"
        "    except ImageError:\n"
        "        pass\n"
        "print('done')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("done\n", "")
