"""Published data sets become manifests, and what is left out of them is said."""

from pathlib import Path

import numpy as np
import pytest

from samcls.data.images import read_image
from samcls.data.manifest import read_manifest
from samcls.data.sources import folder_manifest, isic2017_manifest, medmnist_manifest
from samcls.errors import ManifestError, OverwriteRefused

ISIC_FILES = {
    "train": "ISIC-2017_Training_Part3_GroundTruth.csv",
    "val": "ISIC-2017_Validation_Part3_GroundTruth.csv",
    "test": "ISIC-2017_Test_v2_Part3_GroundTruth.csv",
}


def medmnist(path: Path, **changes: object) -> Path:
    """A miniature MedMNIST file of 6, 3 and 4 images; None leaves an array out."""
    random = np.random.default_rng(0)
    arrays: dict[str, object] = {}
    for split, count in (("train", 6), ("val", 3), ("test", 4)):
        arrays[f"{split}_images"] = random.integers(0, 256, (count, 5, 7), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(count, dtype=np.uint8)[:, None] % 2
    arrays |= changes
    np.savez_compressed(path, **{k: v for k, v in arrays.items() if v is not None})
    return path


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_medmnist_keeps_its_splits_labels_and_pixels(tmp_path: Path) -> None:
    """Each row leads to its own pixels and bears its own label."""
    npz = medmnist(tmp_path / "d.npz")
    summary = medmnist_manifest(npz, tmp_path / "m.csv")
    assert summary.splits == {"train": 6, "val": 3, "test": 4}
    assert summary.tasks == {"label": ("0", "1")}
    assert summary.counts["label"]["val"] == {"0": 2, "1": 1}
    assert "d.npz#val_images,1,val,1" in (tmp_path / "m.csv").read_text()
    manifest = read_manifest(tmp_path / "m.csv")
    assert manifest.ids[:2] == ["train_00000", "train_00001"]
    with np.load(npz) as arrays:
        for row in manifest.rows:
            pixels = arrays[f"{row.split}_images"][row.index]
            np.testing.assert_array_equal(read_image(row.path, row.index)[:, :, 0], pixels)
            assert row.labels == (str(arrays[f"{row.split}_labels"][row.index][0]),)


def test_the_positive_class_of_published_labels_is_a_choice(tmp_path: Path) -> None:
    """BreastMNIST's 0 is malignant; a task is named where several have the class."""
    summary = medmnist_manifest(
        medmnist(tmp_path / "d.npz"), tmp_path / "m.csv", positive=["0"], ordinal=["label"]
    )
    assert summary.tasks == {"label": ("1", "0")}
    manifest = read_manifest(tmp_path / "m.csv")
    assert (manifest.tasks, manifest.ordinal) == (summary.tasks, ("label",))
    isic2017_manifest(isic(tmp_path / "isic"), tmp_path / "i.csv", positive=["melanoma=0"])
    assert read_manifest(tmp_path / "i.csv").tasks == {
        "melanoma": ("1", "0"),
        "seborrheic_keratosis": ("0", "1"),
    }


def test_medmnist_takes_rgb_and_flat_labels(tmp_path: Path) -> None:
    """Labels of shape (N,) are one task, as those of shape (N, 1) are."""
    changes: dict[str, object] = {}
    for split, count in (("train", 6), ("val", 3), ("test", 4)):
        changes[f"{split}_images"] = np.zeros((count, 5, 7, 3), dtype=np.uint8)
        changes[f"{split}_labels"] = np.arange(count) % 3
    npz = medmnist(tmp_path / "d.npz", **changes)
    summary = medmnist_manifest(npz, tmp_path / "m.csv")
    assert summary.tasks == {"label": ("0", "1", "2")}


def test_medmnist_multi_label_makes_one_task_a_column(tmp_path: Path) -> None:
    """ChestMNIST's kind of labels become several binary tasks."""
    labels = {
        f"{split}_labels": np.eye(2, dtype=np.uint8)[np.arange(count) % 2]
        for split, count in (("train", 6), ("val", 3), ("test", 4))
    }
    npz = medmnist(tmp_path / "d.npz", **labels)
    summary = medmnist_manifest(npz, tmp_path / "m.csv")
    assert summary.tasks == {"label_0": ("0", "1"), "label_1": ("0", "1")}
    assert read_manifest(tmp_path / "m.csv").labels()[:2].tolist() == [[1, 0], [0, 1]]


def test_an_npz_behind_a_link_is_named_by_the_link(tmp_path: Path) -> None:
    """Download caches keep the bytes under another name, without the suffix."""
    medmnist(tmp_path / "blob.npz").rename(tmp_path / "blob")
    (tmp_path / "d.npz").symlink_to("blob")
    medmnist_manifest(tmp_path / "d.npz", tmp_path / "m.csv")
    row = read_manifest(tmp_path / "m.csv").rows[0]
    assert read_image(row.path, row.index).shape == (5, 7, 3)


MEDMNIST_WRONG = {
    "a missing array": ({"val_labels": None}, r"lacks val_labels and holds train_images,"),
    "other lengths": (
        {"val_labels": np.zeros((2, 1), dtype=np.uint8)},
        r"val_labels has shape \(2, 1\) for 3 images, expected \(3,\) or \(3, tasks\)",
    ),
    "fractions": ({"val_labels": np.zeros((3, 1))}, "float64, expected integers"),
    "volumes": (
        {"train_images": np.zeros((6, 5, 7, 9), dtype=np.uint8)},
        r"train_images has shape \(6, 5, 7, 9\).*volumes",
    ),
    "columns": ({"val_labels": np.zeros((3, 2), dtype=np.uint8)}, "differ in their number"),
    "an unknown class": (
        {"test_labels": np.full((4, 1), 7, dtype=np.uint8)},
        "unknown label '7' in 4 test",
    ),
}


@pytest.mark.parametrize("case", MEDMNIST_WRONG, ids=str)
def test_a_wrong_medmnist_file_is_explained(tmp_path: Path, case: str) -> None:
    """The message names the array, what it holds and what was expected; nothing is written."""
    changes, says = MEDMNIST_WRONG[case]
    npz = medmnist(tmp_path / "d.npz", **changes)
    with pytest.raises(ManifestError, match=says):
        medmnist_manifest(npz, tmp_path / "m.csv")
    assert not (tmp_path / "m.csv").exists()


def test_what_is_no_npz_is_explained(tmp_path: Path) -> None:
    """A missing file and another kind of file are told apart."""
    with pytest.raises(ManifestError, match=r"gone\.npz does not exist"):
        medmnist_manifest(tmp_path / "gone.npz", tmp_path / "m.csv")
    (tmp_path / "d.npz").write_text("text")
    with pytest.raises(ManifestError, match=r"cannot be used as a MedMNIST file: it is not an"):
        medmnist_manifest(tmp_path / "d.npz", tmp_path / "m.csv")


def test_an_existing_manifest_is_refused_before_any_work(tmp_path: Path) -> None:
    """Every source leaves a manifest that is there, unless asked to replace it."""
    touch(tmp_path, "m.csv")
    for source in (medmnist_manifest, isic2017_manifest, folder_manifest):
        with pytest.raises(OverwriteRefused, match=r"m\.csv is already there"):
            source(tmp_path / "gone", tmp_path / "m.csv")
    medmnist_manifest(medmnist(tmp_path / "d.npz"), tmp_path / "m.csv", overwrite=True)
    assert len(read_manifest(tmp_path / "m.csv")) == 13


def isic(root: Path, images: bool = True) -> Path:
    """A miniature ISIC 2017: four images a split, published line ends."""
    for split, name in ISIC_FILES.items():
        lines = ["image_id,melanoma,seborrheic_keratosis"]
        for i, (m, k) in enumerate([(0, 0), (1, 0), (0, 1), (0, 0)]):
            lines.append(f"{split}_{i},{m:.1f},{k:.1f}")
            if images:
                touch(root, f"pictures/{split}/{split}_{i}.jpg")
        root.mkdir(exist_ok=True)
        (root / name).write_bytes("\r\n".join([*lines, ""]).encode())
    return root


def test_isic2017_has_two_binary_tasks(tmp_path: Path) -> None:
    """The published files become 0 and 1 for each task, in the challenge's splits."""
    root = isic(tmp_path / "isic")
    touch(root, "readme.txt", "pictures/train/train_0_superpixels.png")
    summary = isic2017_manifest(root, tmp_path / "m.csv")
    assert summary.splits == {"train": 4, "val": 4, "test": 4}
    assert summary.counts["melanoma"]["test"] == {"0": 3, "1": 1}
    assert summary.counts["seborrheic_keratosis"]["val"] == {"0": 3, "1": 1}
    assert summary.ignored == {"files ending in .txt": 1}
    assert summary.notes == ("1 image(s) have no label, first train_0_superpixels",)
    manifest = read_manifest(tmp_path / "m.csv")
    assert manifest.rows[1].id == "train_1"
    assert manifest.rows[1].labels == ("1", "0")
    assert manifest.rows[1].path == str(root.resolve() / "pictures/train/train_1.jpg")


def test_isic2017_counts_images_that_are_missing(tmp_path: Path) -> None:
    """A download that is not complete gives a manifest of what is there, and says so."""
    root = isic(tmp_path / "isic")
    (root / "pictures/val/val_3.jpg").unlink()
    summary = isic2017_manifest(root, tmp_path / "m.csv")
    assert summary.images == 11
    assert summary.notes == ("1 labelled image(s) have no file, first val_3",)


def test_isic2017_explains_what_is_wrong(tmp_path: Path) -> None:
    """A missing CSV, a changed one, no images and two copies are told apart."""
    out = tmp_path / "m.csv"
    with pytest.raises(ManifestError, match="is not a folder"):
        isic2017_manifest(tmp_path / "gone", out)
    with pytest.raises(ManifestError, match="none of the 12 labelled images"):
        isic2017_manifest(isic(tmp_path / "bare", images=False), out)
    root = isic(tmp_path / "isic")
    touch(root, "copy/val_1.png")
    with pytest.raises(ManifestError, match="val_1 is there 2 times"):
        isic2017_manifest(root, out)
    (root / "copy/val_1.png").unlink()
    (root / ISIC_FILES["val"]).write_text("image_id,melanoma,seborrheic_keratosis\nx,0.5,0.0\n")
    with pytest.raises(ManifestError, match=r"line 2: 'x,0\.5,0\.0' is not"):
        isic2017_manifest(root, out)
    (root / ISIC_FILES["val"]).write_text("name,melanoma\n")
    with pytest.raises(ManifestError, match="expected the header image_id,melanoma,"):
        isic2017_manifest(root, out)
    (root / ISIC_FILES["test"]).unlink()
    (root / ISIC_FILES["val"]).unlink()
    with pytest.raises(ManifestError, match="ISIC-2017_Validation_Part3_GroundTruth"):
        isic2017_manifest(root, out)
    assert not out.exists()
