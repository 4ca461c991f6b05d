"""Stores as the first version made them: they open, read, go on, and are verified and repaired.

`data/first.zip` holds two of `vit_t` at 64 px, with their images: one finished, with a file that is no
picture; one with images kept, cut off after five rows.
"""

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from samcls.data.images import PREPROCESSING_VERSION
from samcls.data.manifest import Manifest, read_manifest
from samcls.encode.changes import table_of
from samcls.encode.extract import ExtractOptions, extract
from samcls.errors import StoreError
from samcls.store.feature_store import FeatureStore
from samcls.store.repair import repair
from samcls.store.schema import DONE, FAILED, PENDING
from samcls.store.verify import verify

OPTIONS = ExtractOptions(
    encoder="vit_t", size=64, window=2, batch=4, precision="float32", levels="early,neck"
)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    with zipfile.ZipFile(Path(__file__).parent / "data" / "first.zip") as packed:
        packed.extractall(tmp_path)
    return tmp_path


@pytest.fixture
def manifest(place: Path) -> Manifest:
    return read_manifest(place / "manifest.csv")


def digests(store: FeatureStore) -> dict[str, str]:
    values = {name: store.read(name) for name in store.levels}
    if store.pixel_size:
        values["pixels"] = store.pixels()
    return {name: hashlib.sha256(x.tobytes()).hexdigest() for name, x in values.items()}


@pytest.mark.parametrize("name", ["plain", "pixels"])
def test_it_opens_and_reads_as_it_was_written(place: Path, name: str) -> None:
    """Every value is what the first version read, and verify says what it cannot check."""
    store = FeatureStore.open(place / f"{name}.zarr")
    assert digests(store) == json.loads((place / f"{name}.json").read_text())
    done = [DONE] * 7 + [FAILED] if name == "plain" else [DONE] * 5 + [PENDING] * 3
    assert store.status.tolist() == done
    assert store.ids == [f"image-{i}" for i in range(8)]
    assert store.groups == [f"patient-{i // 2}" for i in range(8)]
    assert store.labels[:, 0].tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    assert store.splits == ["train", "train", "val", "test"] * 2
    report = verify(store.path)
    assert report.ok
    assert any("do not say where they belong" in note for note in report.notes)


@pytest.mark.skipif(PREPROCESSING_VERSION != 1, reason="images are prepared otherwise now")
@pytest.mark.parametrize("name", ["plain", "pixels"])
def test_it_goes_on_and_is_repaired(place: Path, manifest: Manifest, name: str) -> None:
    """Extract finishes it, a table is followed, and rows that are lost are encoded again."""
    path = place / f"{name}.zarr"
    summary = extract(manifest, path, OPTIONS, allow_leak=True)
    assert (summary.done, summary.failed) == (7, 1)
    whole = {level: FeatureStore.open(path).read(level) for level in ("early", "neck")}
    next((path / "features/neck/c").rglob("0/0/0/0/0")).unlink()
    assert len(repair(path, verify(path))) == (7 if name == "plain" else 1)
    extract(manifest, path, OPTIONS, allow_leak=True)
    fewer = replace(manifest, rows=manifest.rows[:6])
    extract(fewer, path, replace(OPTIONS, removed="keep"), allow_leak=True)
    extract(manifest, path, OPTIONS, allow_leak=True)
    store = FeatureStore.open(path)
    for level, values in whole.items():
        np.testing.assert_allclose(store.read(level), values, atol=1e-3)
    assert store.splits == ["train", "train", "val", "test"] * 2
    assert verify(path).ok
    new = extract(fewer, place / "new.zarr", replace(OPTIONS, reuse=(str(path),)), allow_leak=True)
    assert (new.done, new.reused) == (6, 6)
    assert verify(new.store).notes == ()  # copied, it is as a new one


DAMAGE: dict[str, Callable[[Path], object]] = {
    "attributes": lambda p: (p / "zarr.json").write_text(
        (p / "zarr.json").read_text().replace('"a"', '"c"')
    ),
    "description": lambda p: (p / "zarr.json").unlink(),
    "array": lambda p: (p / "label/zarr.json").write_text(
        (p / "label/zarr.json").read_text().replace("int16", "uint16")
    ),
    "labels": lambda p: (p / "label/c/0/0").unlink(),
    "marks": lambda p: (p / "status/c/0").unlink(),
    "extents": lambda p: (p / "valid/c/0/0").write_bytes(b""),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_its_damage_is_refused_and_repaired(place: Path, manifest: Manifest, name: str) -> None:
    """What its copy and its checksums tell is an error on reading, and nothing is made anew."""
    path = place / "plain.zarr"
    shutil.copytree(path, place / "sound.zarr")
    DAMAGE[name](path)

    def read() -> tuple[object, ...]:
        store = FeatureStore.open(path)
        return store.tasks, store.labels.tolist(), store.status.tolist(), store.valid.tolist()

    with pytest.raises(StoreError):
        read()
    with pytest.raises(StoreError):
        extract(manifest, path, OPTIONS, allow_leak=True)
    report = verify(path)
    assert not report.ok
    lost = repair(path, report, table_of(manifest))
    assert len(lost) == (7 if name == "extents" else 0)
    assert verify(path).ok
    if name != "extents":
        found, path = read(), place / "sound.zarr"
        assert found == read()
