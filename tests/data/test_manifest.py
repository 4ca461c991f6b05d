"""A manifest reads back as written, and a wrong one says everything that is wrong with it."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samcls.data.labels import canonical
from samcls.data.manifest import (
    Row,
    check_files,
    check_labels,
    file_of,
    missing_files,
    read_manifest,
)
from samcls.data.manifest_file import write_manifest
from samcls.errors import ManifestError, OverwriteRefused


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "m.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_plain_manifest_is_read_in_order(tmp_path: Path) -> None:
    """Rows keep the file's order; paths start from the manifest's folder; groups are optional."""
    path = written(
        tmp_path,
        "id,path,split,group,diagnosis\na,x/1.png,train,p1,benign\nb,/abs/2.png,test,,malignant\n"
        "c,../3.png,val,p2,\n",
    )
    manifest = read_manifest(path)
    assert len(manifest) == 3
    assert manifest.ids == ["a", "b", "c"]
    assert manifest.splits == ["train", "test", "val"]
    assert manifest.groups == ["p1", "", "p2"]
    assert manifest.tasks == {"diagnosis": ("benign", "malignant")}
    assert [row.path for row in manifest.rows] == [
        str(tmp_path.resolve() / "x/1.png"),
        "/abs/2.png",
        str(tmp_path.resolve().parent / "3.png"),
    ]


def test_labels_are_class_indices_with_missing_ones_at_minus_one(tmp_path: Path) -> None:
    """An empty cell is -1 in its own task and leaves the other tasks alone."""
    path = written(
        tmp_path, "id,path,split,label:m,label:k\na,1,train,0,b\nb,2,train,,a\nc,3,train,1,\n"
    )
    labels = read_manifest(path).labels()
    assert labels.dtype == np.int16
    assert labels.tolist() == [[0, 1], [-1, 0], [1, -1]]


def test_a_column_without_any_label_is_a_task_without_classes(tmp_path: Path) -> None:
    """Images that have no labels yet can still be encoded."""
    manifest = read_manifest(written(tmp_path, "id,path,split,label\na,1,test,\nb,2,test,\n"))
    assert manifest.tasks == {"label": ()}
    assert manifest.labels().tolist() == [[-1], [-1]]
    check_labels(manifest)


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        (["10", "9", "2"], ("2", "9", "10")),
        (["10", "9", "x"], ("10", "9", "x")),
        (["-1", "1", "0"], ("-1", "0", "1")),
        (["10", "2.5", "-0.5"], ("-0.5", "2.5", "10")),
    ],
)
def test_classes_stand_in_numeric_order_where_all_are_numbers(
    tmp_path: Path, values: list[str], classes: tuple[str, ...]
) -> None:
    """Grade 10 follows grade 9; names of any other kind are sorted as text."""
    lines = "".join(f"{i},{i}.png,train,{value}\n" for i, value in enumerate(values))
    assert read_manifest(written(tmp_path, f"id,path,split,g\n{lines}")).tasks["g"] == classes


def test_excel_files_are_read(tmp_path: Path) -> None:
    """A byte order mark, CRLF line ends, blank lines and spaces around cells make no difference."""
    path = written(tmp_path, b"\xef\xbb\xbfid, path,split,y\r\n\r\na, 1.png ,train, b \r\n,,,\r\n")
    row = read_manifest(path).rows[0]
    assert (row.id, Path(row.path).name, row.labels) == ("a", "1.png", ("b",))


def test_relative_paths_start_from_root(tmp_path: Path) -> None:
    """--root moves relative paths and leaves absolute ones."""
    path = written(tmp_path, "id,path,split,y\na,1.png,train,0\nb,/d/2.png,train,1\n")
    rows = read_manifest(path, root=tmp_path / "images").rows
    assert rows[0].path == str(tmp_path.resolve() / "images" / "1.png")
    assert rows[1].path == "/d/2.png"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/x/a.npz#train_images", ("/x/a.npz", "train_images")),
        ("/x/A.NPZ#t", ("/x/A.NPZ", "t")),
        ("/x/scan#2.png", ("/x/scan#2.png", None)),
        ("/x/a.npz", ("/x/a.npz", None)),
    ],
)
def test_only_an_npz_holds_arrays(path: str, expected: tuple[str, str | None]) -> None:
    """A # in another file's name is part of the name."""
    assert file_of(path) == expected


@dataclass(frozen=True)
class Wrong:
    """A manifest, and what its error must say."""

    name: str
    text: str | bytes
    says: tuple[str, ...]


HEAD = "id,path,split,y\n"
WRONG = [
    Wrong("empty file", "", ("is empty", "id,path,split,<task>")),
    Wrong("only blank lines", "\n\n", ("is empty",)),
    Wrong("header only", HEAD, ("a header and no rows",)),
    Wrong("binary", b"\x89PNG\r\n\x1a\n\xff", ("not a CSV in UTF-8", "CSV UTF-8")),
    Wrong("utf-16", HEAD.encode("utf-16"), ("not a CSV in UTF-8",)),
    Wrong("open quote", HEAD + '"a,1,train,0\n', ("not a CSV",)),
    Wrong(
        "missing columns",
        "name,file,y\n1,2,3\n",
        ("'id' is missing", "'path' is missing", "'split' is missing", "found: name, file, y"),
    ),
    Wrong("semicolons", "id;path;split;y\na;b;train;0\n", ("separated by ';'", "expected ','")),
    Wrong("no task", "id,path,split,group\na,1,train,p\n", ("no label column",)),
    Wrong("twice a column", "id,path,split,y,y\na,1,train,0,0\n", ("'y' stands there 2 times",)),
    Wrong("nameless column", ",id,path,split,y\n0,a,1,train,0\n", ("column 1 has no name",)),
    Wrong("duplicate ids", HEAD + "a,1,train,0\na,2,train,1\n", ("line 3", "'a', first on line 2")),
    Wrong("empty id", HEAD + ",1,train,0\n", ("line 2: the id is empty",)),
    Wrong("empty path", HEAD + "a,,train,0\n", ("line 2: the path is empty",)),
    Wrong("valid", HEAD + "a,1,valid,0\n", ("unknown split 'valid'", "did you mean 'val'?")),
    Wrong("Train", HEAD + "a,1,Train,0\n", ("unknown split 'Train'", "did you mean 'train'?")),
    Wrong("typo", HEAD + "a,1,tset,0\n", ("did you mean 'test'?",)),
    Wrong("no split", HEAD + "a,1,,0\n", ("unknown split '': expected train, val or test",)),
    Wrong("bad index", "id,path,split,index,y\na,1,train,-2,0\n", ("index '-2'", "whole number")),
    Wrong("no index", HEAD + "a,d.npz#x,train,0\n", ("'d.npz#x' names an array", "'index'")),
    Wrong("short row", HEAD + "a,1,train\n", ("line 2: 3 cells, expected 4",)),
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.name)
def test_a_wrong_manifest_says_what_is_wrong(tmp_path: Path, wrong: Wrong) -> None:
    """The error names the manifest, the line and what was expected."""
    path = written(tmp_path, wrong.text)
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    for words in (str(path), *wrong.says):
        assert words in str(caught.value)


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    """The count is of all problems; ten are listed, in the order of the lines."""
    lines = "a,1,valid,0\n,2,train,0\n" + "".join(f"r{i},3,x,0\n" for i in range(12))
    with pytest.raises(ManifestError) as caught:
        read_manifest(written(tmp_path, HEAD + lines))
    message = str(caught.value).splitlines()
    assert "14 problem(s)" in message[0]
    assert [line.split(":")[0].strip() for line in message[1:11]] == [
        f"line {number}" for number in range(2, 12)
    ]
    assert message[11].strip() == "... and 4 more"


def test_a_missing_manifest_and_a_folder_are_named(tmp_path: Path) -> None:
    """What is not there, or is no file, is said to be so."""
    with pytest.raises(ManifestError, match=r"gone\.csv does not exist"):
        read_manifest(tmp_path / "gone.csv")
    with pytest.raises(ManifestError, match="is a folder"):
        read_manifest(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_an_unreadable_manifest_is_named(tmp_path: Path) -> None:
    """A file without permission is an input error, not a traceback."""
    path = written(tmp_path, HEAD)
    path.chmod(0)
    with pytest.raises(ManifestError, match="cannot be read: Permission denied"):
        read_manifest(path)


def test_a_class_that_training_lacks_is_an_unknown_label(tmp_path: Path) -> None:
    """Each unknown value is named once, with its split, its count and the known values."""
    path = written(
        tmp_path,
        "id,path,split,label:y,label:z\na,1,train,0,u\nb,2,train,1,v\nc,3,val,2,u\nd,4,val,2,\ne,5,test,0,w\n",
    )
    with pytest.raises(ManifestError) as caught:
        check_labels(read_manifest(path))
    message = str(caught.value)
    assert "2 problem(s)" in message
    assert "column 'y': unknown label '2' in 2 val row(s), first 'c'" in message
    assert "column 'z': unknown label 'w' in 1 test row(s), first 'e'" in message
    assert "the training rows hold 'u', 'v'" in message


def test_a_manifest_without_training_rows_has_no_unknown_labels(tmp_path: Path) -> None:
    """Images for prediction may carry labels that nothing was trained on."""
    check_labels(read_manifest(written(tmp_path, HEAD + "a,1,test,0\nb,2,val,1\n")))


def test_missing_files_are_the_rows_whose_file_is_not_there(tmp_path: Path) -> None:
    """An array's rows share one file; a missing image costs its own row alone."""
    (tmp_path / "there.png").touch()
    (tmp_path / "a.npz").touch()
    path = written(
        tmp_path,
        "id,path,split,index,y\na,gone.png,train,,0\nb,there.png,train,,1\nc,a.npz#x,train,3,1\n",
    )
    assert missing_files(read_manifest(path)) == [0]
    assert check_files(read_manifest(path)) == [0]


def test_all_files_missing_is_an_error_that_names_root(tmp_path: Path) -> None:
    """Where no path leads anywhere, the folder that they start from is wrong."""
    path = written(tmp_path, HEAD + "a,1.png,train,0\nb,2.png,train,1\n")
    with pytest.raises(ManifestError, match=r"none of the 2 images .*1\.png.* --root"):
        check_files(read_manifest(path))


def test_an_existing_manifest_is_not_overwritten_unasked(tmp_path: Path) -> None:
    """The refusal names the file and leaves it as it was; asked for, it is replaced whole."""
    path = written(tmp_path, "mine")
    rows = [Row("a", "/d/1.png", None, "train", "", ("0",))]
    with pytest.raises(OverwriteRefused, match=r"m\.csv is already there"):
        write_manifest(rows, ["y"], path)
    assert path.read_text() == "mine"
    write_manifest(rows, ["y"], path, overwrite=True)
    assert read_manifest(path).ids == ["a"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.csv"]


@pytest.mark.parametrize("name", ["a ", "a\nb", "a\rb"])
def test_a_row_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path, name: str) -> None:
    """What would be lost in reading is refused before anything is written."""
    out = tmp_path / "m.csv"
    rows = [Row(name, "/d/1.png", None, "train", "", ("0",))]
    with pytest.raises(
        ManifestError, match=f"{re.escape(repr(name))} holds a line break or starts or ends with"
    ):
        write_manifest(rows, ["y"], out)
    assert list(tmp_path.iterdir()) == []


def test_paths_are_written_relative_to_the_manifest(tmp_path: Path) -> None:
    """A folder that holds the manifest and its images can be moved as a whole."""
    home = tmp_path.resolve()
    rows = [
        Row("a", str(home / "images/1.png"), None, "train", "", ("0",)),
        Row("b", str(home / "d.npz#x"), 4, "train", "", ("1",)),
    ]
    path = write_manifest(rows, ["y"], home / "lists" / "m.csv")
    assert "../images/1.png," in path.read_text()
    assert "../d.npz#x,4," in path.read_text()
    assert read_manifest(path).rows == tuple(rows)


CELLS = st.text(
    st.characters(codec="utf-8", exclude_characters="\0\r\n"), min_size=1, max_size=8
).filter(lambda text: text == text.strip())
NAMES = CELLS.filter(lambda text: "/" not in text and text not in {".", ".."})


FIELDS = st.tuples(
    CELLS,
    st.builds("/nowhere/{}.png".format, NAMES),
    st.none() | st.integers(0, 10**6),
    st.sampled_from(["train", "val", "test"]),
    CELLS | st.just(""),
    st.tuples(CELLS, CELLS | st.just("")),
)


@given(fields=st.lists(FIELDS, min_size=1, max_size=5, unique_by=lambda field: field[0]))
def test_what_is_written_reads_back_equal(
    tmp_path_factory: pytest.TempPathFactory, fields: list[tuple]
) -> None:
    """Commas, quotes and any script survive in ids, paths, groups and labels."""
    rows = [Row(*field[:5], tuple(map(canonical, field[5]))) for field in fields]
    path = write_manifest(rows, ["y", "z"], tmp_path_factory.mktemp("m") / "m.csv")
    manifest = read_manifest(path)
    assert manifest.rows == tuple(rows)
    assert list(manifest.tasks) == ["y", "z"]
