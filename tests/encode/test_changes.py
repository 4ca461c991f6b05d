"""A data set whose images go, move or change is followed as the user says, and encoded no more than it must."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from support.extracting import SMALL, features, image_folder
from typer.testing import CliRunner

from samcls.cli import stages
from samcls.cli import store as store_verbs
from samcls.data.manifest import Manifest, read_manifest
from samcls.encode.changes import in_store_order, look_for_changes
from samcls.encode.check import check_precision
from samcls.encode.extract import extract
from samcls.errors import ConfigError, RunError, StoreError
from samcls.store.feature_store import FeatureStore
from samcls.store.repair import repair
from samcls.store.schema import DONE, PENDING, REMOVED
from samcls.store.verify import verify

OPTIONS = replace(SMALL, levels="neck")


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return read_manifest(image_folder(tmp_path, [(30 + i, 64 - i) for i in range(9)]))


def picked(manifest: Manifest, rows: list[int]) -> Manifest:
    return replace(manifest, rows=tuple(manifest.rows[row] for row in rows))


def repaint(path: Path, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def run(*arguments: str) -> tuple[int, str, str]:
    app = typer.Typer()
    stages.register(app)
    store_verbs.register(app)
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stdout, result.stderr


def test_rows_are_kept_followed_by_id_and_taken_back(manifest: Manifest, tmp_path: Path) -> None:
    """With keep, a manifest that lost, moved and gained rows encodes only the new ones, by their ids."""
    path = str(tmp_path / "s.zarr")
    whole = FeatureStore.open(extract(manifest, tmp_path / "whole.zarr", OPTIONS).store)
    extract(picked(manifest, [0, 1, 2, 3, 4, 5]), path, OPTIONS)
    later = picked(manifest, [8, 5, 0, 3, 7])
    with pytest.raises(StoreError, match="3 ids are gone"):
        extract(later, path, OPTIONS)
    summary = extract(later, path, replace(OPTIONS, removed="keep"))
    assert (summary.images, summary.done, summary.skipped, summary.removed) == (8, 5, 3, 3)
    store = FeatureStore.open(path)
    assert store.ids == [f"image{i}" for i in (0, 1, 2, 3, 4, 5, 8, 7)]
    assert np.flatnonzero(store.status == REMOVED).tolist() == [1, 2, 4]
    rows = [0, 1, 2, 3, 4, 5, 8, 7]
    np.testing.assert_allclose(
        store.read("neck"), whole.read("neck", rows), rtol=2**-10, atol=2**-12
    )
    placed = in_store_order(later, store)
    assert [row.id for row in placed.rows] == [
        "image0",
        "",
        "",
        "image3",
        "",
        "image5",
        "image8",
        "image7",
    ]
    assert max(error.relative for error in check_precision(placed, path, OPTIONS, 5)) < 1e-3
    back = extract(manifest, path, replace(OPTIONS, removed="keep"))
    assert (back.done, back.skipped, back.removed) == (9, 8, 0)


def test_a_store_with_kept_rows_is_repaired(manifest: Manifest, tmp_path: Path) -> None:
    """A lost shard costs the rows that the manifest has, in the store's order; the removed stay so."""
    path = str(tmp_path / "s.zarr")
    extract(manifest, path, OPTIONS)
    later = picked(manifest, [7, 3, 1, 0])
    extract(later, path, replace(OPTIONS, removed="keep"))
    before = FeatureStore.open(path).read("neck")
    next(f for f in (tmp_path / "s.zarr/features/neck/c").rglob("*") if f.is_file()).unlink()
    lost = repair(path, verify(path))
    assert lost.tolist() == [0, 1, 3, 7]
    assert extract(later, path, replace(OPTIONS, removed="keep")).done == 4
    assert verify(path).ok
    rows = [0, 1, 3, 7]
    np.testing.assert_array_equal(FeatureStore.open(path).read("neck", rows), before[rows])
    assert (FeatureStore.open(path).status == REMOVED).sum() == 5


def test_changed_images_are_looked_for_only_when_asked(manifest: Manifest, tmp_path: Path) -> None:
    """A file written again is no change; other pixels are reported with exit 1, or encoded again."""
    path = str(tmp_path / "s.zarr")
    extract(manifest, path, OPTIONS)
    before = FeatureStore.open(path).read("neck")
    Image.open(tmp_path / "1.png").save(tmp_path / "1.png", compress_level=1)
    repaint(tmp_path / "3.png", 3)
    repaint(tmp_path / "8.png", 8)
    (tmp_path / "5.png").unlink()
    assert extract(manifest, path, OPTIONS).skipped == 9
    said: list[str] = []
    with pytest.raises(RunError, match=r"2 images .* image3, image8. .*--changed encode") as caught:
        extract(manifest, path, replace(OPTIONS, changed="report"), log=said.append)
    assert caught.value.exit_status == 1
    assert said[0].startswith("1 images that are done cannot be read now")
    np.testing.assert_array_equal(FeatureStore.open(path).read("neck"), before)
    assert (FeatureStore.open(path).status == DONE).all()
    summary = extract(manifest, path, replace(OPTIONS, changed="encode"))
    assert (summary.done, summary.skipped, summary.failed) == (9, 7, 0)
    store = FeatureStore.open(path)
    same = [0, 1, 2, 4, 5, 6, 7]
    np.testing.assert_array_equal(store.read("neck", same), before[same])
    shutil.copy(tmp_path / "0.png", tmp_path / "5.png")
    anew = FeatureStore.open(extract(manifest, tmp_path / "anew.zarr", OPTIONS).store)
    np.testing.assert_array_equal(store.read("neck", [3, 8]), anew.read("neck", [3, 8]))
    np.testing.assert_array_equal(store.sha256[[3, 8]], anew.sha256[[3, 8]])
    assert not len(look_for_changes(manifest, anew).changed)


def test_a_changed_image_does_not_change_its_twin(manifest: Manifest, tmp_path: Path) -> None:
    """Of two equal images one changes: the other keeps its features; equal again, they are shared."""
    shutil.copy(tmp_path / "0.png", tmp_path / "6.png")
    path = str(tmp_path / "s.zarr")
    extract(manifest, path, OPTIONS)
    before = FeatureStore.open(path).read("neck")
    np.testing.assert_array_equal(before[0], before[6])
    repaint(tmp_path / "0.png", 1)
    shutil.copy(tmp_path / "2.png", tmp_path / "7.png")
    extract(manifest, path, replace(OPTIONS, changed="encode"))
    after = FeatureStore.open(path).read("neck")
    np.testing.assert_array_equal(after[6], before[6])
    assert (after[0] != before[0]).any()
    np.testing.assert_array_equal(after[7], before[2])
    digests = {row.tobytes() for row in FeatureStore.open(path).sha256}
    assert len(digests) == 8


def test_changed_images_that_were_not_encoded_yet_are_not_forgotten(
    manifest: Manifest, tmp_path: Path
) -> None:
    """Marked and then cut off, the changed rows are pending, so that any later run encodes them."""
    path = str(tmp_path / "s.zarr")
    extract(manifest, path, OPTIONS)
    repaint(tmp_path / "4.png", 4)

    def cut_off(done: int, _total: int, _failed: int, _written: int) -> None:
        assert done == 8
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(manifest, path, replace(OPTIONS, changed="encode"), cut_off)
    assert np.flatnonzero(FeatureStore.open(path).status == PENDING).tolist() == [4]
    extract(manifest, path, OPTIONS)
    anew = FeatureStore.open(extract(manifest, tmp_path / "anew.zarr", OPTIONS).store)
    for level, values in features(anew).items():
        np.testing.assert_array_equal(FeatureStore.open(path).read(level), values)


def test_the_verbs_follow_and_report(manifest: Manifest, tmp_path: Path) -> None:
    """The command line takes the options, exits 1 on a change, and verify compares with the manifest."""
    path, source = str(tmp_path / "s.zarr"), manifest.source
    command = [
        "extract",
        str(source),
        path,
        "--encoder",
        "vit_t",
        "--size",
        "64",
        "--levels",
        "neck",
        "--json",
    ]
    header, *rows = source.read_text().splitlines()
    lines = [header, *(row[:-1] + "ab"[i % 2] for i, row in enumerate(rows))]
    source.write_text("\n".join(lines) + "\n")
    assert run(*command)[0] == 0
    source.write_text("\n".join([lines[0], *lines[2:], "new,0.png,train,a"]) + "\n")
    repaint(tmp_path / "4.png", 4)
    (tmp_path / "6.png").unlink()
    status, out, _ = run("store", "verify", path, "--manifest", str(source), "--json")
    assert status == 1
    assert {(p["kind"], p["id"]) for p in json.loads(out)["problems"]} == {
        ("not in the manifest", "image0"),
        ("not in the store", "new"),
        ("image changed", "image4"),
        ("image unreadable", "image6"),
    }
    _, out, err = run("store", "verify", path, "--manifest", str(source))
    assert "image changed: sha256, row 4 (image4)" in err
    assert f"samcls extract M.csv {path} --changed encode" in out
    assert "damaged images" not in out
    status, _, err = run(*command)
    assert (status, "--removed keep" in err) == (2, True)
    status, _, err = run(*command, "--removed", "keep", "--changed", "report")
    assert (status, "image4" in err) == (1, True)
    status, out, _ = run(*command, "--changed", "encode")
    values = json.loads(out)
    assert (status, values["done"], values["removed"], values["skipped"]) == (0, 9, 1, 7)
    status, out, _ = run("store", "info", path)
    assert "10 images: 9 done, 0 failed, 0 pending, 1 removed and unused" in out
    shutil.copy(tmp_path / "5.png", tmp_path / "6.png")
    assert run(*command, "--removed", "keep", "--changed", "encode")[0] == 0
    other = str(tmp_path / "other.zarr")
    command = [other if part == path else part for part in command]
    status, out, _ = run(*command, "--reuse", path)
    assert (status, json.loads(out)["reused"]) == (0, 9)
    assert run("store", "verify", other, "--manifest", str(source))[0] == 0
    assert len(FeatureStore.open(other)) == 9
    assert verify(other).ok


def test_options_that_are_none_are_refused() -> None:
    """Each of the two options names what it was given and what it takes."""
    with pytest.raises(ConfigError, match=r"removed is 'drop', which is no more.*--reuse"):
        replace(SMALL, removed="drop")
    with pytest.raises(ConfigError, match="removed is 'delete'; expected refuse or keep"):
        replace(SMALL, removed="delete")
    with pytest.raises(
        ConfigError, match="changed is 'maybe'; expected ignore or report or encode"
    ):
        replace(SMALL, changed="maybe")
