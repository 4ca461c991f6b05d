"""Published data sets become manifests, and what is left out of them is said."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from samcls.data.images import read_image
from samcls.data.manifest import read_manifest
from samcls.data.sources import folder_manifest, isic2017_manifest, medmnist_manifest
from samcls.errors import ConfigError, ManifestError, OverwriteRefused

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


def many(folder: str, count: int, suffix: str = ".png") -> list[str]:
    return [f"{folder}/{i}{suffix}" for i in range(count)]


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
    assert summary.ignored == {".txt": 1}
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


def test_class_folders_are_split_within_each_class(tmp_path: Path) -> None:
    """Every class is shared out 70:10:20, and the same seed gives the same splits."""
    root = tmp_path / "root"
    touch(root, *many("a", 50), *many("b/deep", 20, ".JPG"), *many("c", 3))
    summary = folder_manifest(root, tmp_path / "m.csv", seed=3)
    assert summary.tasks == {"label": ("a", "b", "c")}
    assert summary.counts["label"] == {
        "train": {"a": 35, "b": 14, "c": 1},
        "val": {"a": 5, "b": 2, "c": 1},
        "test": {"a": 10, "b": 4, "c": 1},
    }
    assert summary.notes == ("no split folders: split at random within each class, seed 3",)
    folder_manifest(root, tmp_path / "again.csv", seed=3)
    folder_manifest(root, tmp_path / "other.csv", seed=4)
    first = (tmp_path / "m.csv").read_text()
    assert (tmp_path / "again.csv").read_text() == first
    assert (tmp_path / "other.csv").read_text() != first
    manifest = read_manifest(tmp_path / "m.csv")
    assert "b/deep/0.JPG" in manifest.ids
    assert len(manifest) == 73


def test_the_shares_can_be_chosen(tmp_path: Path) -> None:
    """Fractions are of train, val and test, in this order, and must add up."""
    touch(tmp_path / "root", *many("a", 20), *many("b", 20))
    summary = folder_manifest(tmp_path / "root", tmp_path / "m.csv", fractions=(0.5, 0.3, 0.2))
    assert summary.splits == {"train": 20, "val": 12, "test": 8}
    for wrong in ((0.5, 0.3, 0.3), (1.0, 0.0, 0.0)):
        with pytest.raises(ConfigError, match="three positive shares"):
            folder_manifest(tmp_path / "root", tmp_path / "n.csv", fractions=wrong)


def test_split_folders_are_known_in_any_spelling(tmp_path: Path) -> None:
    """Training, valid and Testing are splits; nothing is drawn."""
    root = tmp_path / "root"
    touch(root, *many("Training/a", 4), *many("Training/b", 4))
    touch(root, *many("valid/a", 1), *many("valid/b", 1), *many("Testing/a", 2))
    summary = folder_manifest(root, tmp_path / "m.csv")
    assert summary.splits == {"train": 8, "val": 2, "test": 2}
    assert summary.notes == ()
    assert read_manifest(tmp_path / "m.csv").rows[0].id == "Training/a/0.png"


def test_a_missing_val_is_drawn_from_train(tmp_path: Path) -> None:
    """Train and test alone, a common layout, leave test as it is; the summary says what was done."""
    root = tmp_path / "root"
    for name in ("a", "b"):
        touch(root, *many(f"train/{name}", 16), *many(f"test/{name}", 5))
    summary = folder_manifest(root, tmp_path / "m.csv")
    assert summary.splits == {"train": 28, "val": 4, "test": 10}
    assert summary.notes == ("no val folder: val was drawn from train within each class, seed 0",)
    manifest = read_manifest(tmp_path / "m.csv")
    assert {row.split for row in manifest.rows if row.id.startswith("test/")} == {"test"}


def test_files_left_out_are_counted_by_suffix(tmp_path: Path) -> None:
    """Nothing disappears silently: not below a class, nor beside the classes."""
    root = tmp_path / "root"
    touch(root, *many("a", 4), *many("b", 4), "a/x.xml", "b/y.XML", "b/README", "list.csv")
    touch(root, "stray.png", ".cache/z.png", "__MACOSX/a/0.png")
    summary = folder_manifest(root, tmp_path / "m.csv")
    assert summary.images == 8
    assert summary.ignored == {"(none)": 1, ".csv": 1, ".png": 1, ".xml": 2}


FOLDERS_WRONG = {
    "no folders": (["x.png"], r"no class folders: expected root/<class>/<image>"),
    "one class": (many("a", 5), "one class only, a: expected at least two"),
    "a small class": ([*many("a", 5), *many("b", 2)], r"b \(2\); expected at least 3"),
    "an empty class": ([*many("a", 5), "b/x.txt"], r"class folder\(s\) b .*\.png"),
    "splits beside classes": (
        [*many("train/a", 5), *many("test/a", 5), *many("more/a", 5)],
        "holds more, test, train: expected split folders alone",
    ),
    "train alone": (many("train/a", 5), "train and one more are needed"),
    "no train": ([*many("val/a", 5), *many("test/a", 5)], "train among them"),
    "a split twice": ([*many("train/a", 5), *many("val/a", 5), *many("valid/a", 5)], "one folder"),
    "no classes in splits": (["train/x.png", "test/y.png"], "no class folders"),
    "an unknown class": (
        [*many("train/a", 5), *many("train/b", 5), *many("val/a", 2), *many("test/c", 2)],
        "unknown label 'c' in 2 test row",
    ),
}


@pytest.mark.parametrize("case", FOLDERS_WRONG, ids=str)
def test_a_wrong_folder_is_explained(tmp_path: Path, case: str) -> None:
    """The message names the folders found and the layout expected; nothing is written."""
    names, says = FOLDERS_WRONG[case]
    touch(tmp_path / "root", *names)
    with pytest.raises(ManifestError, match=says):
        folder_manifest(tmp_path / "root", tmp_path / "m.csv")
    assert not (tmp_path / "m.csv").exists()


def test_a_folder_can_be_moved_with_its_manifest(tmp_path: Path) -> None:
    """Paths inside a data set's own folder are relative, so they survive."""
    for name in ("a", "b"):
        (tmp_path / "old" / name).mkdir(parents=True)
        for i in range(3):
            Image.new("L", (4, 4), i).save(tmp_path / "old" / name / f"{i}.png")
    folder_manifest(tmp_path / "old", tmp_path / "old" / "m.csv")
    (tmp_path / "old").rename(tmp_path / "new")
    manifest = read_manifest(tmp_path / "new" / "m.csv")
    assert {read_image(row.path).shape for row in manifest.rows} == {(4, 4, 3)}
