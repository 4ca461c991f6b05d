"""The data set cards are complete, agree with themselves, and are true of the real files."""

import hashlib
import tomllib
from pathlib import Path
from typing import Any

import pytest
from support.data import DATA
from support.paths import ROOT

from samcls.data.images import read_image
from samcls.data.manifest import check_files, check_labels, read_manifest
from samcls.data.sources import Summary, isic2017_manifest, medmnist_manifest

CARDS = sorted((ROOT / "data_manifests").glob("*.toml"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the real data are not in {DATA}")


def card(name: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / "data_manifests" / f"{name}.toml").read_text())


def test_there_is_a_card_for_each_data_set() -> None:
    """The three data sets of the paper are described."""
    assert {path.stem for path in CARDS} == {"breastmnist", "retinamnist", "isic2017"}


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_a_card_is_complete(path: Path) -> None:
    """Every card has the keys that SCHEMA.md promises, and every checksum names its file's variant."""
    content = tomllib.loads(path.read_text())
    texts = ("name", "description", "source", "homepage", "record", "licence")
    assert all(isinstance(content[key], str) and content[key] for key in texts)
    assert content["citation"]
    assert set(content["splits"]) == {"train", "val", "test"}
    for file in content["files"]:
        assert file["url"].startswith("https://")
        assert file["url"].endswith(file["name"])
        assert file["variant"]
    assert any("md5" in file for file in content["files"])


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_a_cards_counts_add_up(path: Path) -> None:
    """Each split's class counts name every class and sum to the split's size."""
    content = tomllib.loads(path.read_text())
    for task in content["tasks"].values():
        assert task["kind"] in {"binary", "multiclass", "ordinal"}
        for split, size in content["splits"].items():
            assert set(task["counts"][split]) == set(task["classes"])
            assert sum(task["counts"][split].values()) == size


def agrees(summary: Summary, content: dict[str, Any]) -> None:
    assert summary.splits == content["splits"]
    assert summary.ignored == {}
    assert summary.notes == ()
    assert summary.counts == {name: task["counts"] for name, task in content["tasks"].items()}
    manifest = read_manifest(summary.manifest)
    check_labels(manifest)
    assert check_files(manifest) == []
    for row in (manifest.rows[0], manifest.rows[-1]):
        assert read_image(row.path, row.index).ndim == 3


def check_file(path: Path, content: dict[str, Any]) -> None:
    file = next(file for file in content["files"] if file["name"] == path.name)
    assert hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() == file["md5"]
    assert path.stat().st_size == file["bytes"]


@needs_data
@pytest.mark.parametrize("name", ["breastmnist", "breastmnist_64", "retinamnist"])
def test_medmnist_cards_are_true(tmp_path: Path, name: str) -> None:
    """Checksum, splits and class counts are those of the official file."""
    content = card(name.removesuffix("_64"))
    npz = DATA / "medmnist" / f"{name}.npz"
    check_file(npz, content)
    agrees(medmnist_manifest(npz, tmp_path / "m.csv"), content)


@needs_data
def test_the_isic2017_card_is_true(tmp_path: Path) -> None:
    """Checksums, splits and the counts of both tasks are those of the published label files."""
    content = card("isic2017")
    for file in sorted((DATA / "isic2017").glob("*.csv")):
        check_file(file, content)
    agrees(isic2017_manifest(DATA / "isic2017", tmp_path / "m.csv"), content)
