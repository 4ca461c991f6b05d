"""Folders of classes become manifests: each picture once, and every other file counted."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from samcls.data.images import read_image
from samcls.data.manifest import read_manifest
from samcls.data.sources import folder_manifest
from samcls.errors import ConfigError, ManifestError

SYSTEM = "system files (._*, .DS_Store, Thumbs.db, desktop.ini, __MACOSX)"


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
    assert summary.notes == ("the splits were drawn: classes even, each image by itself, seed 3",)
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
    with pytest.raises(ConfigError, match=r"--split 0.6,0.2,0.2 has nothing to draw: the folders"):
        folder_manifest(root, tmp_path / "n.csv", split="0.6,0.2,0.2")


def test_a_missing_val_is_drawn_from_train(tmp_path: Path) -> None:
    """Train and test alone, a common layout, leave test as it is; the summary says what was done."""
    root = tmp_path / "root"
    for name in ("a", "b"):
        touch(root, *many(f"train/{name}", 16), *many(f"test/{name}", 5))
    summary = folder_manifest(root, tmp_path / "m.csv")
    assert summary.splits == {"train": 28, "val": 4, "test": 10}
    assert summary.notes == (
        "there is no val: it was drawn from train, classes even, each image by itself, seed 0",
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


def picture(path: Path, level: int = 0) -> Path:
    """A picture of one grey level, in the format of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = {".jfif": "JPEG", ".jpe": "JPEG", ".j2k": "JPEG2000"}.get(path.suffix)
    Image.new("L", (8, 8), level).save(path, format=kind)
    return path


def two_classes(root: Path, count: int = 6) -> Path:
    for i in range(count):
        picture(root / "a" / f"p{i}.png", i)
        picture(root / "b" / f"p{i}.png", 100 + i)
    return root


def dicom(path: Path, frames: np.ndarray | None) -> Path:
    """A DICOM file of (frame, row, col), or a report without pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3"
    if frames is not None:
        dataset.NumberOfFrames, dataset.Rows, dataset.Columns = frames.shape
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated = dataset.BitsStored = 8
        dataset.HighBit, dataset.PixelRepresentation = 7, 0
        dataset.PixelData = frames.astype(np.uint8).tobytes()
        dataset["PixelData"].VR = "OB"
    dataset.save_as(path, enforce_file_format=True)
    return path


def flat(*levels: int) -> np.ndarray:
    """Frames of one grey level each."""
    return np.ones((len(levels), 4, 6), np.uint8) * np.array(levels)[:, None, None]


def test_a_link_to_the_root_does_not_multiply_pictures(tmp_path: Path) -> None:
    """Each picture is a row once and under its own class, whatever links lead to its folder."""
    root = two_classes(tmp_path / "root")
    (root / "a" / "up").symlink_to("..", target_is_directory=True)
    (root / "b" / "self").symlink_to(".", target_is_directory=True)
    (root / "b" / "other").symlink_to("../a", target_is_directory=True)
    summary = folder_manifest(root, tmp_path / "m.csv")
    manifest = read_manifest(tmp_path / "m.csv")
    assert sorted(manifest.ids) == sorted(f"{c}/p{i}.png" for c in "ab" for i in range(6))
    assert all(row.labels == (row.id[0],) for row in manifest.rows)
    assert summary.ignored == {
        "links to a folder above them": 2,
        "links to folders, whose files are found under their own names": 1,
    }


def test_no_link_leads_out_of_the_folder(tmp_path: Path) -> None:
    """What lies outside is left out with its names, as are links to nothing and to files met anyway."""
    root = two_classes(tmp_path / "root")
    outside = two_classes(tmp_path / "outside")
    (root / "c").symlink_to(outside / "a", target_is_directory=True)
    (root / "a" / "above").symlink_to(tmp_path, target_is_directory=True)
    (root / "a" / "out.png").symlink_to(outside / "a" / "p0.png")
    (root / "b" / "again.png").symlink_to("p0.png")
    (root / "b" / "gone.png").symlink_to("nowhere.png")
    (root / "b" / "round.png").symlink_to("round.png")
    summary = folder_manifest(root, tmp_path / "m.csv")
    assert summary.images == 12
    assert summary.tasks == {"label": ("a", "b")}
    assert summary.ignored == {
        "links that lead nowhere": 2,
        "links that lead out of the folder": 2,
        "links to a folder above them": 1,
        "links to files that are there anyway": 1,
    }
    assert "left out, links that lead out of the folder: c, a/out.png" in summary.notes


def test_a_split_behind_a_link_is_named_in_the_error(tmp_path: Path) -> None:
    """Where what is missing was left out, the message says so and gives the remedy."""
    root = two_classes(tmp_path / "root" / "train").parent
    (root / "val").symlink_to(two_classes(tmp_path / "val"), target_is_directory=True)
    with pytest.raises(
        ManifestError, match=r"(?s)holds train: expected.*out of the folder: val.*cp"
    ):
        folder_manifest(root, tmp_path / "m.csv")


def test_a_link_is_a_picture_where_nothing_else_leads_to_it(tmp_path: Path) -> None:
    """git-annex keeps the bytes in a hidden folder of the data set, and links as the files."""
    root = tmp_path / "root"
    for i in range(6):
        picture(root / ".git" / "annex" / f"key{i}.png", i)
        link = root / "ab"[i % 2] / f"p{i}.png"
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(f"../.git/annex/key{i}.png")
    (root / "b" / "twice.png").symlink_to("../.git/annex/key0.png")
    summary = folder_manifest(root, tmp_path / "m.csv")
    assert (summary.images, summary.ignored) == (
        6,
        {
            "hidden files, or files in hidden folders": 6,
            "links to files that are there anyway": 1,
        },
    )
    rows = {row.id: row for row in read_manifest(tmp_path / "m.csv").rows}
    assert read_image(rows["a/p4.png"].path)[0, 0].tolist() == [4, 4, 4]


def test_system_companions_are_counted_as_left_out(tmp_path: Path) -> None:
    """What macOS and Windows leave beside pictures is no picture, whatever its suffix says."""
    root = two_classes(tmp_path / "root")
    for folder in ("a", "b"):
        for i in range(6):
            (root / folder / f"._p{i}.png").write_bytes(b"\0\5\x16\7")
    touch(root, ".DS_Store", "a/.DS_Store", "a/Thumbs.db", "b/THUMBS.DB", "b/desktop.ini")
    touch(root, "__MACOSX/a/._p0.png", "__MACOSX/a/p0.png")
    summary = folder_manifest(root, tmp_path / "m.csv")
    assert (summary.images, summary.ignored) == (12, {SYSTEM: 19})


def test_every_file_is_a_row_or_counted(tmp_path: Path) -> None:
    """Rows and files left out add up to what lies below the root."""
    root = two_classes(tmp_path / "root")
    touch(root, "a/x.xml", "a/.hidden.png", ".git/config", ".git/a/b/c.png", "top.png", "README")
    touch(root, "a/deep/er/y.nii.gz", "b/.x/z.png", "a/Icon\r", "b/two\nlines.png")
    dicom(root / "b" / "report.dcm", None)
    os.mkfifo(root / "b" / "pipe.png")
    summary = folder_manifest(root, tmp_path / "m.csv")
    found = sum(len(files) for _, _, files in os.walk(root))
    assert summary.images + sum(summary.ignored.values()) == found
    assert summary.ignored["pipes, sockets and devices"] == 1
    assert summary.ignored["DICOM files without pixels (reports, DICOMDIR)"] == 1


def test_dicom_is_found_by_what_it_holds(tmp_path: Path) -> None:
    """Scanners name files IM000001, 1.2.840.113 or .IMA; a directory of them is no picture."""
    root = tmp_path / "root"
    for folder in ("a", "b"):
        for i, name in enumerate(("IM000001", "1.2.840.113619", "scan.IMA", "scan.dcm")):
            dicom(root / folder / name, flat(i))
    dicom(root / "a" / "DICOMDIR", None)
    touch(root, "a/VERSION")
    (root / "b" / "notes").write_text("DICOM, but in words alone. " * 20)
    summary = folder_manifest(root, tmp_path / "m.csv")
    assert summary.images == 8
    assert summary.ignored == {
        "DICOM files without pixels (reports, DICOMDIR)": 1,
        "files without a suffix": 2,
    }
    for row in read_manifest(tmp_path / "m.csv").rows:
        assert read_image(row.path, row.index).shape == (4, 6, 3)


def test_rarer_suffixes_are_images_too(tmp_path: Path) -> None:
    """JFIF, JPE and J2K, in any letters, are read as well as listed."""
    for folder in ("a", "b"):
        for name in ("1.jfif", "2.jpe", "3.j2k"):
            picture(tmp_path / "root" / folder / name)
        (tmp_path / "root" / folder / "2.jpe").rename(tmp_path / "root" / folder / "2.JPE")
    assert folder_manifest(tmp_path / "root", tmp_path / "m.csv").images == 6
    for row in read_manifest(tmp_path / "m.csv").rows:
        assert read_image(row.path).shape == (8, 8, 3)


def frames_folder(root: Path) -> Path:
    """Four files of three frames a class, beside pictures of one."""
    two_classes(root, 3)
    for c, folder in enumerate(("a", "b")):
        dicom(root / folder / "scan.dcm", flat(10 + c, 20 + c, 30 + c))
        pages = [Image.new("L", (4, 4), 40 + c + 10 * i) for i in range(3)]
        pages[0].save(root / folder / "stack.tif", save_all=True, append_images=pages[1:])
    return root


def test_each_frame_of_a_file_is_a_row_and_all_stay_together(tmp_path: Path) -> None:
    """A file of three frames is three rows with an index, one group and one split."""
    root = frames_folder(tmp_path / "root")
    summary = folder_manifest(root, tmp_path / "m.csv")
    assert "4 file(s) hold several frames, as a row each: 12 rows" in summary.notes
    rows = [row for row in read_manifest(tmp_path / "m.csv").rows if row.group]
    assert len(rows) == 12
    assert (summary.images, summary.group_count) == (18, 4 + 6)
    for group in ("a/scan.dcm", "b/scan.dcm", "a/stack.tif", "b/stack.tif"):
        own = [row for row in rows if row.group == group]
        assert [(row.id, row.index) for row in own] == [(f"{group}#{i}", i) for i in range(3)]
        assert len({row.split for row in own}) == 1
        levels = [int(read_image(row.path, row.index)[0, 0, 0]) for row in own]
        assert np.diff(levels).tolist() == [10, 10]


@pytest.mark.parametrize(("which", "index", "level"), [("first", 0, 10), ("middle", 1, 20)])
def test_one_frame_of_a_file_can_be_chosen(
    tmp_path: Path, which: str, index: int, level: int
) -> None:
    """The first or the middle frame alone is a row, under the file's own name."""
    root = frames_folder(tmp_path / "root")
    assert folder_manifest(root, tmp_path / "m.csv", frames=which).images == 10
    rows = {row.id: row for row in read_manifest(tmp_path / "m.csv").rows}
    row = rows["a/scan.dcm"]
    assert (row.index, row.group) == (index, "")
    assert int(read_image(row.path, row.index)[0, 0, 0]) == level
    assert rows["a/p0.png"].index is None
    with pytest.raises(ConfigError, match="expected all, first, middle"):
        folder_manifest(root, tmp_path / "n.csv", frames="last")


def test_a_name_that_is_not_utf8_costs_its_own_row(tmp_path: Path) -> None:
    """The file is left out and named with its bytes escaped; a class cannot be lost that way."""
    root = two_classes(tmp_path / "root")
    try:
        (root / "a" / os.fsdecode(b"caf\xe9.png")).touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    touch(root, "b/two\nlines.png")
    dicom(root / "b" / "IM1 ", flat(1))
    summary = folder_manifest(root, tmp_path / "m.csv")
    assert summary.images == 12
    (reason,) = summary.ignored
    assert summary.ignored[reason] == 3
    assert reason.startswith("files whose name is not UTF-8, holds a line break or ends in white")
    assert summary.notes[-1].endswith("space: a/caf\\xe9.png, b/IM1 , b/two\\nlines.png")
    touch(root, os.fsdecode(b"caf\xe9") + "/0.png")
    with pytest.raises(ManifestError, match=r"the folder caf\\xe9 in .* is not UTF-8 .* rename it"):
        folder_manifest(root, tmp_path / "n.csv")


@pytest.mark.skipif(os.getuid() == 0, reason="root may read anything")
def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """It costs its own pictures, and the summary says which it was and why."""
    root = two_classes(tmp_path / "root")
    touch(root, "a/locked/0.png")
    (root / "a" / "locked").chmod(0)
    summary = folder_manifest(root, tmp_path / "m.csv")
    (root / "a" / "locked").chmod(0o700)
    assert summary.ignored == {"folders that cannot be read": 1}
    assert "folders that cannot be read: a/locked (Permission denied)" in summary.notes[-1]


def patients(root: Path) -> Path:
    """Eight patients of three pictures, every second one of class b; each in its own folder too."""
    for patient in range(8):
        for i in range(3):
            picture(root / "ab"[patient % 2] / f"P{patient}" / f"P{patient}_{i}.png")
    return root


@pytest.mark.parametrize("rule", ["folder", "/P([0-9])_", "^(P[0-9])"])
def test_images_of_a_patient_stay_in_one_split(tmp_path: Path, rule: str) -> None:
    """The rule reads the patient from the path below the class."""
    summary = folder_manifest(patients(tmp_path / "root"), tmp_path / "m.csv", group=rule)
    assert summary.groups == {"train": 4, "val": 2, "test": 2}
    manifest = read_manifest(tmp_path / "m.csv")
    assert set(Counter(manifest.groups).values()) == {3}
    assert len({(row.group, row.split) for row in manifest.rows}) == 8
    for split in ("val", "test"):
        assert summary.counts["label"][split] == {"a": 3, "b": 3}


def test_a_rule_that_misses_an_image_is_refused(tmp_path: Path) -> None:
    """An image that might be anyone's is named, and so is a rule that names no patient."""
    root = patients(tmp_path / "root")
    touch(root, "a/stray.png")
    for rule in ("folder", "(P[0-9])"):
        with pytest.raises(
            ManifestError, match=r"no patient for 1 of 25 images, first a/stray\.png"
        ):
            folder_manifest(root, tmp_path / "m.csv", group=rule)
    with pytest.raises(ConfigError, match="no regular expression"):
        folder_manifest(root, tmp_path / "m.csv", group="(P")
    with pytest.raises(ConfigError, match="has no bracket"):
        folder_manifest(root, tmp_path / "m.csv", group="P[0-9]")


def test_too_few_patients_to_split_are_refused(tmp_path: Path) -> None:
    """Many images of two patients cannot fill three splits."""
    root = two_classes(tmp_path / "root", 8)
    for i in range(8):
        (root / "b" / f"p{i}.png").rename(root / "b" / f"q{i % 2}_{i}.png")
    with pytest.raises(ManifestError, match=r"too few groups of images .*: b \(2\); expected at"):
        folder_manifest(root, tmp_path / "m.csv", group="^([pq][0-9])")


def test_patients_in_several_split_folders_are_told(tmp_path: Path) -> None:
    """Published splits that divide a patient are kept, with a warning that names them."""
    root = tmp_path / "root"
    for i in range(4):
        touch(root, f"train/a/P{i}_0.png", f"train/b/Q{i}_0.png", f"val/a/P{i}_1.png")
        touch(root, f"val/b/R{i}.png", f"test/a/S{i}.png", f"test/b/P{i}_2.png")
    summary = folder_manifest(root, tmp_path / "m.csv", group="([A-Z][0-9])")
    (note,) = summary.notes
    assert "WARNING: 4 group(s) lie in several splits" in note
    assert "P0 (train, val, test), P1" in note


def test_images_named_like_masks_are_told(tmp_path: Path) -> None:
    """BUSI keeps masks beside its pictures; they stay rows, and the summary says so."""
    root = two_classes(tmp_path / "root")
    touch(root, "a/p0_mask.png", "a/p0_mask_1.png", "b/p1_mask.png", "b/gas_mask.png")
    summary = folder_manifest(root, tmp_path / "m.csv")
    assert summary.images == 16
    assert any("3 image(s) are named like masks of others" in note for note in summary.notes)


def test_the_positive_class_and_the_scale_are_declared(tmp_path: Path) -> None:
    """The positive class is the last of the task, in the manifest as in the summary."""
    root = two_classes(tmp_path / "root")
    summary = folder_manifest(root, tmp_path / "m.csv", positive=["a"])
    assert summary.tasks == {"label": ("b", "a")}
    manifest = read_manifest(tmp_path / "m.csv")
    assert manifest.tasks == {"label": ("b", "a")}
    assert (tmp_path / "m.csv").read_text().startswith("id,path,split,label:label[positive=a]\n")
    with pytest.raises(ConfigError, match=r"label has no class 'A'; its classes are a, b; did you"):
        folder_manifest(root, tmp_path / "n.csv", positive=["A"])
    with pytest.raises(ConfigError, match="of which the order is not known: write them as numbers"):
        folder_manifest(root, tmp_path / "n.csv", ordinal=["label"])
    for i, name in enumerate("ab"):
        (root / name).rename(root / str(i))
    folder_manifest(root, tmp_path / "n.csv", ordinal=["label"])
    assert read_manifest(tmp_path / "n.csv").ordinal == ("label",)
