"""The rows of an .npz are read exactly, and a damaged .npz fails with its reason."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from samcls.data import arrays
from samcls.data.arrays import array_shapes, load_array, read_row, to_rgb
from samcls.data.images import read_image
from samcls.errors import ImageError

SAVERS = [np.savez, np.savez_compressed]


def images(count: int = 5, channels: tuple[int, ...] = ()) -> np.ndarray:
    shape = (count, 6, 9, *channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("save", SAVERS)
@pytest.mark.parametrize("channels", [(), (1,), (3,)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_rows_come_back_as_rgb(
    tmp_path: Path, save: object, channels: tuple[int, ...], order: str
) -> None:
    """Grey or RGB, stored or compressed, in either memory order: the same pixels."""
    rows = images(channels=channels)
    save(tmp_path / "d.npz", other=np.zeros(3), x=np.asarray(rows, order=order))
    for index, row in enumerate(rows):
        expected = np.broadcast_to(row if row.ndim == 3 else row[:, :, None], (6, 9, 3))
        np.testing.assert_array_equal(read_image(f"{tmp_path}/d.npz#x", index), expected)


def test_a_stored_array_is_mapped_and_a_compressed_one_is_held(tmp_path: Path) -> None:
    """A large uncompressed file costs no memory; neither array can be written to by accident."""
    np.savez(tmp_path / "stored.npz", x=images())
    np.savez_compressed(tmp_path / "packed.npz", x=images())
    assert isinstance(load_array(str(tmp_path / "stored.npz"), "x"), np.memmap)
    assert not isinstance(load_array(str(tmp_path / "packed.npz"), "x"), np.memmap)
    for name in ("stored.npz", "packed.npz"):
        assert not load_array(str(tmp_path / name), "x").flags.writeable


def test_a_rewritten_file_is_read_anew(tmp_path: Path) -> None:
    """The cache is keyed on size and time, so that new pixels under an old name are seen."""
    path = tmp_path / "d.npz"
    np.savez_compressed(path, x=images())
    before = read_row(str(path), "x", 0)
    np.savez_compressed(path, x=255 - images())
    os.utime(path, ns=(1, 1))
    np.testing.assert_array_equal(read_row(str(path), "x", 0), 255 - before)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0.0, 0.5], [1.0, 0.25]]), [[0, 128], [255, 64]]),
        (np.array([[-100, 0], [100, 0]], dtype=np.int8), [[0, 128], [255, 128]]),
        (np.array([[True, False]]), [[255, 0]]),
        (np.array([[-1e308, 1e308]]), [[0, 255]]),
        (np.array([[7, 7]], dtype=np.int64), [[0, 0]]),
    ],
)
def test_other_types_are_scaled_from_their_own_range(
    values: np.ndarray, expected: list[list[int]]
) -> None:
    """Minimum to 0, maximum to 255, whatever the type; a constant picture is black."""
    assert to_rgb(values)[:, :, 0].tolist() == expected


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (np.zeros((2, 2, 4), dtype=np.uint8), r"shape is \(2, 2, 4\): expected \(row, col\)"),
        (np.zeros((0, 5), dtype=np.uint8), "no pixels"),
        (np.array([[1 + 2j]]), "type complex128: expected numbers"),
        (np.array([[np.nan, 1.0]]), "NaN or infinite"),
    ],
)
def test_what_is_no_picture_is_refused(values: np.ndarray, says: str) -> None:
    """Another shape or kind of value is named."""
    with pytest.raises(ImageError, match=says):
        to_rgb(values)


def test_a_row_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Index, array and number of images stand in the message, and so do the arrays there are."""
    np.savez(tmp_path / "d.npz", x=images(), y=np.zeros((5, 1)))
    file = str(tmp_path / "d.npz")
    with pytest.raises(ImageError, match="index 5 is outside array 'x', which holds 5 images"):
        read_row(file, "x", 5)
    with pytest.raises(ImageError, match="index -1 is outside"):
        read_row(file, "x", -1)
    with pytest.raises(ImageError, match="'x' holds 5 images: column 'index' must name one"):
        read_row(file, "x", None)
    with pytest.raises(ImageError, match="no array 'z', only x, y"):
        read_row(file, "z", 0)
    with pytest.raises(ImageError, match=r"'y' has shape \(5, 1\): expected \(image, row, col\)"):
        read_row(file, "y", 0)


@pytest.mark.parametrize("save", SAVERS)
def test_a_flipped_byte_is_found(tmp_path: Path, save: object) -> None:
    """The checksum of the whole array is compared before its first row is served."""
    path = tmp_path / "d.npz"
    save(path, x=images(50))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(ImageError, match="array 'x' cannot be read"):
        read_row(str(path), "x", 0)


@pytest.mark.parametrize("save", SAVERS)
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.95])
def test_an_npz_cut_short_fails(tmp_path: Path, save: object, kept: float) -> None:
    """An interrupted download is no .npz."""
    path = tmp_path / "d.npz"
    save(path, x=images(50))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(ImageError, match="not a zip file"):
        read_row(str(path), "x", 0)
    with pytest.raises(ImageError, match=r"not an \.npz"):
        array_shapes(str(path))


def test_python_objects_are_never_loaded(tmp_path: Path) -> None:
    """A pickle inside an .npz could run anything."""
    np.savez(tmp_path / "d.npz", x=np.array([{}, {}], dtype=object))
    with pytest.raises(ImageError, match="Python objects, which are not loaded"):
        load_array(str(tmp_path / "d.npz"), "x")


def test_a_header_that_promises_too_much_is_refused(tmp_path: Path) -> None:
    """The shape must agree with the bytes that are there before any memory is asked for."""
    np.save(tmp_path / "x.npy", images())
    content = (tmp_path / "x.npy").read_bytes().replace(b"(5, 6, 9)", b"(9, 6, 9)")
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x.npy", content)
    with pytest.raises(ImageError, match="not as long as its header says"):
        load_array(str(tmp_path / "d.npz"), "x")


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the size where it matters, a thousandfold compression is not unpacked."""
    np.savez_compressed(tmp_path / "d.npz", x=np.zeros((40, 256, 256), dtype=np.uint8))
    file = str(tmp_path / "d.npz")
    assert read_row(file, "x", 0).shape == (256, 256)
    monkeypatch.setattr(arrays, "BOMB_BYTES", 2**20)
    arrays._open.cache_clear()
    with pytest.raises(ImageError, match="unpacks to 2621568 bytes: a decompression bomb"):
        load_array(file, "x")


def test_shapes_are_read_from_the_headers(tmp_path: Path) -> None:
    """Every array is named with its shape."""
    np.savez_compressed(tmp_path / "d.npz", x=images(), y=np.zeros((5, 1)))
    assert array_shapes(str(tmp_path / "d.npz")) == {"x": (5, 6, 9), "y": (5, 1)}
