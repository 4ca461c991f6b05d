"""Images kept beside their features: the same picture, whatever becomes of the store."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from support.extracting import SMALL, image_folder
from typer.testing import CliRunner

from samcls.cli.stages import register as register_stages
from samcls.cli.store import register as register_store
from samcls.data.images import make_frame, read_image
from samcls.data.manifest import Manifest, read_manifest
from samcls.encode.extract import extract
from samcls.errors import ConfigError, StoreError
from samcls.learn.features.pixels import Pixels
from samcls.store.feature_store import FeatureStore
from samcls.store.repair import repair
from samcls.store.verify import verify

KEEPING = replace(SMALL, keep_pixels=32)
SIZES = [(40, 40), (30, 50), (64, 20), (64, 64), (100, 90), (17, 80)]


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return read_manifest(image_folder(tmp_path, SIZES))


def framed(manifest: Manifest, resize: str = "longest") -> np.ndarray:
    frames = [make_frame(read_image(row.path), 32, resize) for row in manifest.rows]  # type: ignore[arg-type]
    return np.stack([frame.pixels for frame in frames])


def picked(manifest: Manifest, rows: Sequence[int]) -> Manifest:
    return replace(manifest, rows=tuple(manifest.rows[row] for row in rows))


@pytest.mark.parametrize("resize", ["longest", "stretch"])
def test_pixels_are_the_images_in_the_encoders_frame(
    manifest: Manifest, tmp_path: Path, resize: str
) -> None:
    """Each is the picture resized and padded as the encoder's own frame, and features stay the same."""
    path = tmp_path / "s.zarr"
    options = replace(KEEPING, resize=resize)
    extract(manifest, path, options)
    store = FeatureStore.open(path)
    assert store.pixel_size == 32
    np.testing.assert_array_equal(store.pixels(), framed(manifest, resize))
    np.testing.assert_array_equal(store.pixels([4, 1]), framed(manifest, resize)[[4, 1]])
    extract(manifest, tmp_path / "bare.zarr", replace(options, keep_pixels=None))
    bare = FeatureStore.open(tmp_path / "bare.zarr")
    for level in store.levels:
        np.testing.assert_array_equal(store.read(level), bare.read(level))
    with pytest.raises(StoreError, match=r"keeps no images; .* --keep-pixels"):
        bare.pixels()


def test_an_extract_goes_on_with_what_the_store_keeps(manifest: Manifest, tmp_path: Path) -> None:
    """A bad image costs its row; more rows are appended with pixels; another size is refused."""
    path = tmp_path / "s.zarr"
    whole, expected = Path(manifest.rows[1].path), framed(manifest)
    content = whole.read_bytes()
    whole.write_bytes(b"")
    extract(picked(manifest, range(4)), path, KEEPING)
    assert not FeatureStore.open(path).pixels([1]).any()
    whole.write_bytes(content)
    extract(manifest, path, replace(KEEPING, keep_pixels=None))
    np.testing.assert_array_equal(FeatureStore.open(path).pixels(), expected)
    with pytest.raises(ConfigError, match=r"--keep-pixels is 16, and .* images of 32 pixels"):
        extract(manifest, path, replace(KEEPING, keep_pixels=16))


@pytest.mark.parametrize("kept", [32, 8, None])
def test_rows_that_are_reused_have_their_pixels(
    manifest: Manifest, tmp_path: Path, kept: int | None
) -> None:
    """Whatever images the other store keeps, this one's are of its own size, in its own order."""
    path, rows = tmp_path / "s.zarr", [5, 0, 3]
    extract(manifest, tmp_path / "old.zarr", replace(KEEPING, keep_pixels=kept))
    options = replace(KEEPING, reuse=(str(tmp_path / "old.zarr"),))
    assert extract(picked(manifest, rows), path, options).reused == 3
    np.testing.assert_array_equal(FeatureStore.open(path).pixels(), framed(manifest)[rows])
    assert verify(path).ok


@pytest.mark.parametrize("damage", ["byte", "file"])
def test_damaged_pixels_are_named_and_encoded_again(
    manifest: Manifest, tmp_path: Path, damage: str
) -> None:
    """Verify names the images, reading refuses, and repair makes the store whole."""
    path = tmp_path / "s.zarr"
    extract(manifest, path, KEEPING)
    shard = path / "pixels" / "c" / "0" / "0" / "0" / "0"
    content = bytearray(shard.read_bytes())
    if damage == "byte":
        content[50] ^= 0xFF
        shard.write_bytes(content)
    else:
        shard.unlink()
    hit = verify(path)
    assert {problem.level for problem in hit.problems} == {"pixels"}
    assert len(hit.rows) > 0
    with pytest.raises(StoreError, match="samcls store"):
        FeatureStore.open(path).pixels()
    assert repair(path, hit).tolist() == hit.rows.tolist()
    extract(manifest, path, KEEPING)
    assert verify(path).ok
    np.testing.assert_array_equal(FeatureStore.open(path).pixels(), framed(manifest))


def test_black_images_are_no_damage(tmp_path: Path) -> None:
    """A picture may be all zeros; what is absent is told from it."""
    manifest = read_manifest(image_folder(tmp_path, SIZES))
    Image.new("RGB", (40, 40)).save(manifest.rows[0].path)
    extract(manifest, tmp_path / "s.zarr", KEEPING)
    assert verify(tmp_path / "s.zarr").ok


@pytest.mark.slow
def test_several_workers_keep_the_same_pixels(manifest: Manifest, tmp_path: Path) -> None:
    """A cluster's store equals one process's."""
    extract(manifest, tmp_path / "s.zarr", replace(KEEPING, workers=2))
    np.testing.assert_array_equal(FeatureStore.open(tmp_path / "s.zarr").pixels(), framed(manifest))


@pytest.mark.parametrize("resize", ["longest", "stretch"])
@pytest.mark.parametrize(("height", "width"), [(192, 128), (64, 96), (96, 96)])
def test_map_and_pixels_show_a_mark_at_the_same_place(
    tmp_path: Path, height: int, width: int, resize: str
) -> None:
    """Under every view the cells that a bright square changes are the ones that its pixels lie in."""
    plain = np.zeros((2, height, width, 3), np.uint8)
    unit = max(height, width) // 6  # a cell of the map, in pixels of the picture
    if resize == "stretch":
        down, across = height // 6, width // 6
    else:
        down = across = unit
    plain[1, 2 * down : 3 * down, across : 2 * across] = 255
    lines = ["id,path,split,label"]
    for i, picture in enumerate(plain):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
        lines.append(f"i{i},{i}.png,train,{'ab'[i]}")
    (tmp_path / "m.csv").write_text("\n".join(lines) + "\n")
    options = replace(
        SMALL, size=96, window=1, levels="patch", views="d4", keep_pixels=48, resize=resize
    )
    extract(read_manifest(tmp_path / "m.csv"), tmp_path / "s.zarr", options)
    store = FeatureStore.open(tmp_path / "s.zarr")
    maps = store.read("patch").astype(np.float32)
    changed = np.abs(maps[1] - maps[0]).max(1)  # view row col
    pixels = Pixels.load(store, torch.arange(2))
    found = pixels.batch(torch.arange(8, 16), torch.device("cpu")).values
    bright = torch.nn.functional.avg_pool2d(found[:, :1], 8)[:, 0].numpy()
    places = set()
    for view in range(8):
        place = np.unravel_index(changed[view].argmax(), (6, 6))
        others = np.delete(changed[view].flatten(), changed[view].argmax())
        assert others.max() < 0.5 * changed[view].max()  # resizing bleeds a little into neighbours
        assert np.unravel_index(bright[view].argmax(), (6, 6)) == place
        assert bright[view][place] > 0.7
        places.add(tuple(int(x) for x in place))
    assert len(places) > 3


def test_the_verbs_keep_and_show_pixels(tmp_path: Path) -> None:
    """`extract --keep-pixels` fills the array, `store info` says its size."""
    manifest, path = image_folder(tmp_path, SIZES[:2]), str(tmp_path / "s.zarr")
    app = typer.Typer()
    register_stages(app)
    register_store(app)
    size = ["--encoder", "vit_t", "--size", "64", "--window", "2", "--levels", "patch"]
    size += ["--keep-pixels"]
    made = CliRunner().invoke(app, ["extract", str(manifest), path, *size, "16"])
    assert made.exit_code == 0, made.stderr
    assert FeatureStore.open(path).pixels().shape == (2, 16, 16, 3)
    shown = CliRunner().invoke(app, ["store", "info", path])
    assert "pixels: each image at 16 x 16" in shown.stdout


@pytest.mark.parametrize(("size", "said"), [(0, "at least 1"), (5000, "at most 4096, such as 224")])
def test_sizes_that_cannot_be_kept_are_refused(size: int, said: str) -> None:
    """Before any file is touched."""
    with pytest.raises(ConfigError, match=f"keep_pixels is {size}.* expected {said}"):
        replace(SMALL, keep_pixels=size)
