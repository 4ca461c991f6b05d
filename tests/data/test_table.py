"""Any table of images becomes a manifest: whole patients in one split, and nothing guessed unsaid."""

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from samcls.data.images import read_image
from samcls.data.manifest import check_files, check_labels, read_manifest
from samcls.data.sources import table_manifest
from samcls.errors import ConfigError, ManifestError, OverwriteRefused

HEADER = ["patient_id", "file", "diagnosis", "sex", "age"]


def hospital(root: Path, patients: int = 10, **changes: Any) -> Path:
    """Three images a patient, every second one with a melanoma; changes are of line and cell."""
    (root / "img").mkdir(parents=True, exist_ok=True)
    lines = [HEADER]
    for i in range(3 * patients):
        Image.new("L", (4, 4), i).save(root / "img" / f"p{i:02}.png")
        name = "melanoma" if i // 3 % 2 else "nevus"
        lines.append([f"P{i // 3:03}", f"p{i:02}.png", name, "FM"[i % 2], str(40 + i)])
    for place, text in changes.items():
        column, _, line = place.rpartition("_")
        lines[int(line) - 1][HEADER.index(column)] = text
    return write(root / "hospital.csv", lines)


def write(file: Path, lines: list[list[str]]) -> Path:
    with file.open("w", newline="", encoding="utf-8") as opened:
        csv.writer(opened).writerows(lines)
    return file


def make(table: Path, **options: Any) -> Any:
    chosen = {"path": "file", "images": str(table.parent / "img"), "label": ["diagnosis"]} | options
    return table_manifest(table, table.parent / "m.csv", **chosen)


def test_whole_patients_are_split_with_classes_even(tmp_path: Path) -> None:
    """One command turns what a hospital hands over into a manifest that every verb takes."""
    table = hospital(tmp_path)
    summary = make(table, group="patient_id", meta=["sex,age"], positive=["melanoma"])
    assert summary.splits == {"train": 18, "val": 6, "test": 6}
    assert summary.groups == {"train": 6, "val": 2, "test": 2}
    for split, each in (("train", 9), ("val", 3), ("test", 3)):
        assert summary.counts["diagnosis"][split] == {"nevus": each, "melanoma": each}
    manifest = read_manifest(tmp_path / "m.csv")
    check_labels(manifest)
    assert check_files(manifest) == []
    assert len({(row.group, row.split) for row in manifest.rows}) == 10
    assert manifest.tasks == {"diagnosis": ("nevus", "melanoma")}
    assert manifest.meta == ("sex", "age")
    row = manifest.rows[4]
    assert (row.id, row.group, row.labels, row.meta) == ("p04", "P001", ("melanoma",), ("F", "44"))
    assert read_image(row.path)[0, 0].tolist() == [4, 4, 4]


def test_the_draw_is_seeded_and_its_shares_are_chosen(tmp_path: Path) -> None:
    """The same table and seed give the same bytes."""
    table = hospital(tmp_path, 20)
    make(table, group="patient_id", seed=3)
    first = (tmp_path / "m.csv").read_bytes()
    make(table, group="patient_id", seed=3, overwrite=True)
    assert (tmp_path / "m.csv").read_bytes() == first
    make(table, group="patient_id", seed=4, overwrite=True)
    assert (tmp_path / "m.csv").read_bytes() != first
    summary = make(table, group="patient_id", split="0.5,0.2,0.3", overwrite=True)
    assert summary.groups == {"train": 10, "val": 4, "test": 6}


def test_given_splits_are_kept_in_any_spelling(tmp_path: Path) -> None:
    """The column's own splits stand; a patient in several is told with the counts."""
    table = hospital(tmp_path)
    lines = [line.split(",") for line in table.read_text().splitlines()]
    spelled = ["Training", "TRAIN", "Valid", "test", "train", "testing"]
    lines = [[*line, spelled[i % 6] if i >= 0 else "set"] for i, line in enumerate(lines, -1)]
    summary = make(write(table, lines), group="patient_id", split_column="set")
    assert summary.splits == {"train": 15, "val": 5, "test": 10}
    assert "WARNING: 10 group(s) lie in several splits" in summary.notes[0]
    assert "diagnosis: no image of class 'melanoma' in val" in summary.notes
    with pytest.raises(ConfigError, match="do not go together"):
        make(table, split="0.7,0.1,0.2", split_column="set", overwrite=True)


def test_numbers_of_folds_are_no_splits(tmp_path: Path) -> None:
    """The message names the values with their counts, and says what to do instead."""
    table = hospital(tmp_path, **{f"sex_{i + 2}": str(i % 5) for i in range(30)})
    with pytest.raises(ManifestError, match=r"'0' \(6\), '1' \(6\).*numbers of folds.*--folds"):
        make(table, split_column="sex")
    with pytest.raises(ManifestError, match=r"'F' \(15\), 'M' \(15\): expected train, val or test"):
        make(hospital(tmp_path), split_column="sex")


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    """Columns that are not there come with near misses; wrong rows with their lines."""
    table = hospital(tmp_path)
    with pytest.raises(ManifestError) as caught:
        make(table, path="File", label=["diagnose"], meta=["sexes"], group="patient", id_column="x")
    text = str(caught.value)
    assert "has 5 problem(s)" in text
    assert "--path File: there is no such column; did you mean 'file'?" in text
    assert "--label diagnose: there is no such column; did you mean 'diagnosis'?" in text
    assert text.endswith("Columns found: patient_id, file, diagnosis, sex, age.")
    wrong = {"patient_id_3": "", "file_5": "", "file_7": "p04.png", "diagnosis_7": "nevus"}
    with pytest.raises(ManifestError) as caught:
        make(hospital(tmp_path, **wrong), group="patient_id")
    first, *others = str(caught.value).splitlines()[1:]
    assert first.startswith("  --group patient_id is empty in 1 row(s), lines 3: fill it in")
    assert others[0] == "  line 5: the path is empty"
    assert others[1].startswith("  line 7: the image p04.png stands on line 6 too, with other val")
    assert len(others) == 2
    assert not (tmp_path / "m.csv").exists()


def test_the_columns_must_be_named(tmp_path: Path) -> None:
    """What is learned is no column to keep, and both path and label are asked for together."""
    table = hospital(tmp_path)
    with pytest.raises(
        ManifestError, match=r"(?s)no --path.*no --label.*Columns found: patient_id"
    ):
        table_manifest(table, tmp_path / "m.csv")
    with pytest.raises(ManifestError, match="what is learned is not kept from training"):
        make(table, meta=["diagnosis"])
    with pytest.raises(ManifestError, match="expected two classes or more, got nevus"):
        make(hospital(tmp_path, **{f"diagnosis_{i + 2}": "nevus" for i in range(30)}))


def test_a_column_that_stands_there_twice_is_refused_where_it_is_used(tmp_path: Path) -> None:
    """What is wrong with a column matters where it is asked for."""
    table = hospital(tmp_path)
    lines = [line.split(",") for line in table.read_text().splitlines()]
    write(table, [[*line, line[4]] for line in lines])
    make(table)
    with pytest.raises(ManifestError, match="column 'age' stands there 2 times"):
        make(table, meta=["age"], overwrite=True)


def test_a_task_can_have_another_name_than_its_column(tmp_path: Path) -> None:
    """Several tasks, one of them ordered, each under the name given."""
    table = hospital(tmp_path, **{f"age_{i + 2}": str(i % 3) for i in range(30)})
    summary = make(table, label=["skin=diagnosis", "age"], ordinal=["age"], positive=["nevus"])
    assert summary.tasks == {"skin": ("melanoma", "nevus"), "age": ("0", "1", "2")}
    manifest = read_manifest(tmp_path / "m.csv")
    assert (manifest.tasks, manifest.ordinal) == (summary.tasks, ("age",))
    assert summary.counts["age"]["train"] == {"0": 7, "1": 7, "2": 7}


def test_positive_names_the_task_where_both_have_the_class(tmp_path: Path) -> None:
    """`0` of two tasks is refused until the task is named; so is a class of a task of three."""
    lines = [["f", "x", "y", "z"]]
    lines += [[f"p{i:02}.png", str(i % 2), str(i // 2 % 2), "abc"[i % 3]] for i in range(30)]
    hospital(tmp_path)
    table = write(tmp_path / "t.csv", lines)
    three = {"path": "f", "label": ["x", "y", "z"]}
    with pytest.raises(ConfigError, match=r"x and y have this class; .* as --positive x=0"):
        make(table, positive=["0"], **three)
    with pytest.raises(ConfigError, match="z has 3 classes, a, b, c; a positive class is one of"):
        make(table, positive=["c"], **three)
    with pytest.raises(ConfigError, match="names two classes of x: 0 and 1"):
        make(table, positive=["x=0", "x=1"], **three)
    summary = make(table, positive=["x=0"], **three)
    assert summary.tasks == {"x": ("1", "0"), "y": ("0", "1"), "z": ("a", "b", "c")}
    assert read_manifest(tmp_path / "m.csv").tasks == summary.tasks


def test_missing_labels_stay_missing(tmp_path: Path) -> None:
    """Empty cells and the texts that are named so; what merely looks so is a class, and told."""
    wrong = {"diagnosis_2": "", "diagnosis_3": "nan", "diagnosis_20": "NA", "diagnosis_21": "NA"}
    table = hospital(tmp_path, **wrong)
    summary = make(table)
    assert summary.tasks["diagnosis"] == ("NA", "melanoma", "nan", "nevus")
    assert any("--missing" in note and "'NA' (2 images)" in note for note in summary.notes)
    summary = make(table, missing=["nan,NA", "unknown"], overwrite=True)
    assert summary.tasks["diagnosis"] == ("melanoma", "nevus")
    assert sum(summary.missing["diagnosis"].values()) == 4
    assert "diagnosis: 3 label(s) that --missing names were read as missing" in summary.notes
    assert any("no label is spelled 'unknown'" in note for note in summary.notes)
    rows = read_manifest(tmp_path / "m.csv").rows
    assert Counter(row.labels[0] for row in rows)[""] == 4


def test_equal_numbers_are_one_class(tmp_path: Path) -> None:
    """`0` and `0.0` are one class before the splits are drawn, and it is said."""
    table = hospital(
        tmp_path, **{f"diagnosis_{i + 2}": ["0", "1", "0.0"][i % 3] for i in range(30)}
    )
    summary = make(table)
    assert summary.tasks == {"diagnosis": ("0", "1")}
    assert any("equal numbers" in note for note in summary.notes)


def test_images_that_are_absent_are_left_out_and_named(tmp_path: Path) -> None:
    """A missing file costs its row; a table without any image names the option to give."""
    table = hospital(tmp_path)
    for i in (3, 29):
        (tmp_path / "img" / f"p{i:02}.png").unlink()
    summary = make(table)
    assert summary.images == 28
    assert any(
        "WARNING: 2 image(s) are not in" in note and note.endswith("left out: p03.png, p29.png")
        for note in summary.notes
    )
    (tmp_path / "empty").mkdir()
    with pytest.raises(ManifestError, match=r"none of the 30 images is in .*empty.*--images"):
        make(table, images=str(tmp_path / "empty"), overwrite=True)


def test_names_without_a_suffix_are_found_where_one_file_fits(tmp_path: Path) -> None:
    """At any depth, in Windows' spelling and other letters; two that fit are an error."""
    table = hospital(tmp_path, file_2="p00", file_3="sub\\p01", file_4="P02.PNG")
    (tmp_path / "img" / "sub").mkdir()
    (tmp_path / "img" / "p01.png").rename(tmp_path / "img" / "sub" / "p01.png")
    (tmp_path / "img" / "p00.txt").write_text("no picture")
    summary = make(table)
    assert summary.images == 30
    assert any("3 image(s) were found by name" in note for note in summary.notes)
    paths = {row.id: row.path for row in read_manifest(tmp_path / "m.csv").rows}
    assert paths["p01"].endswith("img/sub/p01.png")
    (tmp_path / "img" / "sub" / "p00.jpg").write_bytes(b"")
    with pytest.raises(ManifestError, match=r"line 2: the path 'p00' fits 2 files: p00\.png, sub/"):
        make(table, overwrite=True)


def test_ids_are_stems_where_those_are_unique(tmp_path: Path) -> None:
    """Otherwise paths; a column of ids must hold each once."""
    lines = [["f", "y", "key"]]
    for i in range(12):
        name = f"{'ab'[i % 2]}/{i // 2}.png"
        (tmp_path / "img" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), i).save(tmp_path / "img" / name)
        lines.append([name, str(i % 2), f"k{i}"])
    table = write(tmp_path / "t.csv", lines)
    make(table, path="f", label=["y"])
    assert read_manifest(tmp_path / "m.csv").ids[:2] == ["a/0.png", "b/0.png"]
    make(table, path="f", label=["y"], id_column="key", overwrite=True)
    assert read_manifest(tmp_path / "m.csv").ids[:2] == ["k0", "k1"]
    lines[2][2], lines[3][2] = "k0", ""
    with pytest.raises(ManifestError, match=r"(?s)is empty in 1 row.*'k0' is the id of 2 images"):
        make(write(table, lines), path="f", label=["y"], id_column="key", overwrite=True)


def test_rows_that_repeat_another_are_dropped_and_counted(tmp_path: Path) -> None:
    """An image is one row of the manifest, however often the table says the same of it."""
    table = hospital(tmp_path)
    with table.open("a") as file:
        file.write("P000,p00.png,nevus,F,40\nP000,./p00.png,nevus,F,40\n")
    summary = make(table, group="patient_id")
    assert summary.images == 30
    assert "2 row(s) repeat another and were dropped, lines 32, 33" in summary.notes


def test_frames_of_a_file_are_rows_with_its_labels(tmp_path: Path) -> None:
    """A stack of three pages is three rows of its patient, or of a group of its own."""
    table = hospital(tmp_path, file_2="stack.tif")
    pages = [Image.fromarray(np.full((4, 4), 9 * i, np.uint8)) for i in range(3)]
    pages[0].save(tmp_path / "img" / "stack.tif", save_all=True, append_images=pages[1:])
    assert make(table, group="patient_id").images == 32
    rows = read_manifest(tmp_path / "m.csv").rows[:3]
    assert [(row.id, row.index, row.group) for row in rows] == [
        (f"stack#{i}", i, "P000") for i in range(3)
    ]
    make(table, overwrite=True)
    rows = read_manifest(tmp_path / "m.csv").rows
    assert [row.group for row in rows[:4]] == ["stack"] * 3 + [""]
    assert len({row.split for row in rows[:3]}) == 1
    make(table, frames="middle", overwrite=True)
    assert read_manifest(tmp_path / "m.csv").rows[0].index == 1


def test_measurements_are_told_from_classes(tmp_path: Path) -> None:
    """A column of ages as a task is kept, with a warning that it has too many classes."""
    summary = make(hospital(tmp_path), label=["age"])
    assert any("WARNING: age has 30 classes in 30 labelled images" in n for n in summary.notes)


def test_what_is_there_is_left_alone(tmp_path: Path) -> None:
    """Neither a manifest nor the table itself is replaced unasked."""
    table = hospital(tmp_path)
    text = table.read_text()
    with pytest.raises(ConfigError, match="would replace the table"):
        table_manifest(table, table, path="file", label=["diagnosis"], overwrite=True)
    assert table.read_text() == text
    make(table)
    with pytest.raises(OverwriteRefused, match="is already there"):
        make(table)
