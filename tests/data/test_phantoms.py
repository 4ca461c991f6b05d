"""Phantoms are seeded, kept apart by patient, and show what they claim to show."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from samcls.data.images import read_image
from samcls.data.manifest import check_files, check_labels, read_manifest
from samcls.data.phantoms import _draw_lesion, phantom, write_phantoms
from samcls.errors import ConfigError, OverwriteRefused


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder, n=30, seed=1)
    return folder


def test_the_manifest_is_ready_for_extraction(folder: Path) -> None:
    """Every file is there, every label known, and all three splits hold both classes."""
    manifest = read_manifest(folder / "manifest.csv")
    check_labels(manifest)
    assert check_files(manifest) == []
    assert len(manifest) == 30
    assert manifest.tasks == {"diagnosis": ("benign", "malignant")}
    pairs = {(row.split, row.labels[0]) for row in manifest.rows}
    assert len(pairs) == 6


def test_no_patient_lies_in_two_splits(folder: Path) -> None:
    """Some patients have two pictures, of one class and in one split."""
    manifest = read_manifest(folder / "manifest.csv")
    assert max(Counter(manifest.groups).values()) == 2
    for group in set(manifest.groups):
        rows = [row for row in manifest.rows if row.group == group]
        assert len({(row.split, row.labels) for row in rows}) == 1


def test_files_are_png_and_jpeg_of_differing_sizes(folder: Path) -> None:
    """The demo meets both formats and pictures that are not square."""
    rows = read_manifest(folder / "manifest.csv").rows
    assert {Path(row.path).suffix for row in rows} == {".png", ".jpg"}
    shapes = {read_image(row.path).shape[:2] for row in rows}
    assert len(shapes) > 15
    assert all(150 <= height <= 240 and 170 <= width <= 270 for height, width in shapes)


def test_the_same_seed_writes_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    """A demo can be repeated; another seed gives other pictures."""
    write_phantoms(tmp_path / "same", n=30, seed=1)
    write_phantoms(tmp_path / "other", n=20, seed=2)
    for file in sorted((folder / "images").iterdir()):
        assert (tmp_path / "same/images" / file.name).read_bytes() == file.read_bytes()
    same, other = (tmp_path / name / "manifest.csv" for name in ("same", "other"))
    assert same.read_bytes() == (folder / "manifest.csv").read_bytes()
    assert other.read_bytes() != same.read_bytes()


def test_written_phantoms_are_not_replaced_unasked(folder: Path) -> None:
    """The refusal comes before any picture is drawn."""
    with pytest.raises(OverwriteRefused, match=r"manifest\.csv is already there"):
        write_phantoms(folder, n=20)


def test_too_few_phantoms_are_refused(tmp_path: Path) -> None:
    """Each split needs both classes."""
    with pytest.raises(ConfigError, match=r"19 phantoms are too few .* 20 or more"):
        write_phantoms(tmp_path, n=19)
    write_phantoms(tmp_path, n=20)
    pairs = {(r.split, r.labels) for r in read_manifest(tmp_path / "manifest.csv").rows}
    assert len(pairs) == 6


def test_a_phantom_follows_its_generator() -> None:
    """The same state of the generator draws the same picture."""
    first, again, other = (phantom(np.random.default_rng(seed), True) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert first.shape != other.shape or (first != other).any()
    assert first.std() > 20


def test_the_classes_overlap_as_documented() -> None:
    """Even the hidden character separates the classes with an AUC of 0.96, not 1."""
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    truth = [False, True] * 1500
    characters = [_draw_lesion(rng, malignant).character for malignant in truth]
    assert roc_auc_score(truth, characters) == pytest.approx(0.96, abs=0.01)


def test_speckle_is_like_ultrasound() -> None:
    """Neighbours are correlated, and more along the rows, where the beam is wide, than in depth."""
    correlations = []
    for seed in range(4):
        pixels = phantom(np.random.default_rng(seed), False).astype(float)
        fine = pixels - np.apply_along_axis(
            lambda line: np.convolve(line, np.ones(15) / 15, "same"), 1, pixels
        )
        across = np.corrcoef(fine[:, 20:-21].ravel(), fine[:, 21:-20].ravel())[0, 1]
        down = np.corrcoef(fine[20:-21].ravel(), fine[21:-20].ravel())[0, 1]
        correlations.append((across, down))
    across, down = np.mean(correlations, axis=0)
    assert across > down > 0.3
