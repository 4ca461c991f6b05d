"""Folders of classes become manifests: each picture once, and every other file counted."""

from pathlib import Path

import pytest
from PIL import Image

from samcls.data.images import read_image
from samcls.data.manifest import read_manifest
from samcls.data.sources import folder_manifest
from samcls.errors import ConfigError, ManifestError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def many(folder: str, count: int, suffix: str = ".png") -> list[str]:
    return [f"{folder}/{i}{suffix}" for i in range(count)]


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
    assert summary.notes == ("the splits were drawn: classes even and groups whole, seed 3",)
    folder_manifest(root, tmp_path / "again.csv", seed=3)
    folder_manifest(root, tmp_path / "other.csv", seed=4)
    first = (tmp_path / "m.csv").read_text()
    assert (tmp_path / "again.csv").read_text() == first
    assert (tmp_path / "other.csv").read_text() != first
    manifest = read_manifest(tmp_path / "m.csv")
    assert "b/deep/0.JPG" in manifest.ids
    assert len(manifest) == 73


def test_the_shares_can_be_chosen(tmp_path: Path) -> None:
    """Shares are of train, val and test, in this order, and must add up."""
    touch(tmp_path / "root", *many("a", 20), *many("b", 20))
    summary = folder_manifest(tmp_path / "root", tmp_path / "m.csv", split="0.5,0.3,0.2")
    assert summary.splits == {"train": 20, "val": 12, "test": 8}
    for wrong in ("0.5,0.3,0.3", "1,0,0", "0.8,0.2", "most,some,few", "nan,0.5,0.5"):
        with pytest.raises(ConfigError, match="three positive shares"):
            folder_manifest(tmp_path / "root", tmp_path / "n.csv", split=wrong)


def test_split_folders_are_known_in_any_spelling(tmp_path: Path) -> None:
    """Training, valid and Testing are splits; nothing is drawn."""
    root = tmp_path / "root"
    touch(root, *many("Training/a", 4), *many("Training/b", 4))
    touch(root, *many("valid/a", 1), *many("valid/b", 1), *many("Testing/a", 2))
    summary = folder_manifest(root, tmp_path / "m.csv")
    assert summary.splits == {"train": 8, "val": 2, "test": 2}
    assert summary.notes == ("label: no image of class 'b' in test",)
    assert read_manifest(tmp_path / "m.csv").rows[0].id == "Training/a/0.png"


def test_a_missing_val_is_drawn_from_train(tmp_path: Path) -> None:
    """Train and test alone, a common layout, leave test as it is; the summary says what was done."""
    root = tmp_path / "root"
    for name in ("a", "b"):
        touch(root, *many(f"train/{name}", 16), *many(f"test/{name}", 5))
    summary = folder_manifest(root, tmp_path / "m.csv")
    assert summary.splits == {"train": 28, "val": 4, "test": 10}
    assert summary.notes == (
        "there is no val: it was drawn from train, classes even and groups whole, seed 0",
    )
    manifest = read_manifest(tmp_path / "m.csv")
    assert {row.split for row in manifest.rows if row.id.startswith("test/")} == {"test"}


def test_files_left_out_are_counted_by_reason(tmp_path: Path) -> None:
    """Nothing disappears silently: not below a class, nor beside the classes."""
    root = tmp_path / "root"
    touch(root, *many("a", 4), *many("b", 4), "a/x.xml", "b/y.XML", "b/README", "list.csv")
    touch(root, "stray.png", ".cache/z.png", "__MACOSX/a/0.png")
    summary = folder_manifest(root, tmp_path / "m.csv")
    assert summary.images == 8
    assert summary.ignored == {
        "files ending in .csv": 1,
        "files ending in .xml": 2,
        "files without a suffix": 1,
        "hidden files, or files in hidden folders": 1,
        "images beside the class folders": 1,
        "system files (._*, .DS_Store, Thumbs.db, desktop.ini, __MACOSX)": 1,
    }


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
