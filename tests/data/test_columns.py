"""A header says what is learned, what is only kept, and nothing is learned by accident."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samcls.data.columns import TaskColumn, parse_header
from samcls.data.manifest import Row, read_manifest
from samcls.data.manifest_file import write_manifest
from samcls.errors import ManifestError

OWN = ["id", "path", "split"]


def read(folder: Path, header: str, *lines: str) -> object:
    path = folder / "m.csv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return read_manifest(path)


@pytest.mark.parametrize(
    ("cell", "task"),
    [
        ("label:diagnosis", TaskColumn("diagnosis")),
        (" Label : diagnosis ", TaskColumn("diagnosis")),
        ("label:d[positive=melanoma]", TaskColumn("d", "melanoma")),
        ("label:d [ positive = non-melanoma, other ]", TaskColumn("d", "non-melanoma, other")),
        ("label:grade[ordinal]", TaskColumn("grade", None, True)),
        ("label:g[ordinal,positive=high]", TaskColumn("g", "high", True)),
        ("label:d[positive=a]b[c]]", TaskColumn("d", "a]b[c]")),
        ("label:size [mm][]", TaskColumn("size [mm]")),
        ("label:size [mm][ordinal]", TaskColumn("size [mm]", None, True)),
        ("label:a:b", TaskColumn("a:b")),
    ],
)
def test_a_declared_task_says_its_options(cell: str, task: TaskColumn) -> None:
    """Name, positive class and order stand in the column's header."""
    header = parse_header([*OWN, cell])
    assert header.problems == ()
    assert header.tasks == (task,)


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        (
            ["label:d[postive=x]"],
            "unknown option [postive=x]; expected [ordinal], [positive=CLASS]",
        ),
        (["label:d[positive=]"], "names no class"),
        (["label:"], "has no name"),
        (["meta: ", "label:y"], "has no name"),
        (["label:group"], "no task can be named 'group'"),
        (["label:y", "Label:y"], "task 'y' stands there 2 times"),
        (["label:y", "label:y[ordinal]"], "task 'y' stands there 2 times"),
        (["label:y", "meta:a", "META:a"], "meta column 'a' stands there 2 times"),
        (["y", "y"], "'y' stands there 2 times"),
        (["Group"], "did you mean 'group'?"),
        (["grade[ordinal]"], "has options but is not declared: expected label:grade[ordinal]"),
        (["label:y", "age"], "column 'age' is neither declared nor reserved"),
        (["y", "age"], "label:NAME (label:y), and what is only to be kept to meta:NAME (meta:age)"),
        (["y", "sex", "meta:age"], "columns 'y', 'sex' are neither declared nor reserved"),
    ],
)
def test_a_header_that_may_mean_two_things_is_refused(cells: list[str], says: str) -> None:
    """Nothing is guessed; the sentence says what to write."""
    assert says in " ".join(parse_header([*OWN, *cells]).problems)


@given(
    name=st.text(min_size=1).filter(lambda t: t == t.strip()),
    positive=st.none() | st.text(min_size=1).filter(lambda t: t == t.strip()),
    ordinal=st.booleans(),
)
def test_a_header_that_is_written_is_read_or_refused(
    name: str, positive: str | None, ordinal: bool
) -> None:
    """A task's header is read as that task, or as one that differs and is refused in writing."""
    task = TaskColumn(name, positive, ordinal)
    header = parse_header([*OWN, task.text])
    strange = any(mark in name for mark in "[]") or name.lower() in {*OWN, "group", "index"}
    assert strange or (header.tasks == (task,) and not header.problems)


def test_meta_columns_are_kept_and_are_no_tasks(tmp_path: Path) -> None:
    """What stands beside a label is of the row, and the one undeclared column is the task."""
    manifest = read(
        tmp_path, "id,path,split,meta:age,y,meta:sex", "a,1,train,40,0,F", "b,2,val,,1,M"
    )
    assert manifest.tasks == {"y": ("0", "1")}
    assert manifest.meta == ("age", "sex")
    assert [row.meta for row in manifest.rows] == [("40", "F"), ("", "M")]


def test_several_undeclared_columns_are_refused_by_line_one(tmp_path: Path) -> None:
    """Sex, age and site are not learned by accident: both remedies are named."""
    with pytest.raises(ManifestError) as caught:
        read(tmp_path, "id,path,split,label,sex,age,site", "a,1,train,neg,F,40,s0")
    message = str(caught.value)
    assert "line 1: columns 'label', 'sex', 'age', 'site' are neither declared" in message
    assert "label:NAME" in message
    assert "meta:NAME" in message


def test_meta_columns_alone_leave_nothing_to_learn(tmp_path: Path) -> None:
    """A reserved name that is declared as meta does not stand for the reserved column."""
    with pytest.raises(ManifestError, match="no label column"):
        read(tmp_path, "id,path,split,meta:age", "a,1,train,40")
    with pytest.raises(ManifestError, match="'id' is missing"):
        read(tmp_path, "meta:id,path,split,y", "a,1,train,40")


def test_the_positive_class_stands_last(tmp_path: Path) -> None:
    """Scores and figures are those of the last class, whatever the alphabet says."""
    lines = ["a,1,train,melanoma", "b,2,train,nevus"]
    manifest = read(tmp_path, "id,path,split,label:d[positive=melanoma]", *lines)
    assert manifest.tasks == {"d": ("nevus", "melanoma")}
    assert manifest.labels().tolist() == [[1], [0]]
    assert read(tmp_path, "id,path,split,label:d", *lines).tasks == {"d": ("melanoma", "nevus")}


def test_a_positive_class_that_cannot_be_is_refused(tmp_path: Path) -> None:
    """An unknown class is answered with what may be meant; a task of three classes has none."""
    two = ["a,1,train,melanoma", "b,2,train,nevus"]
    with pytest.raises(ManifestError, match=r"no class 'Melanoma'.*did you mean 'melanoma'"):
        read(tmp_path, "id,path,split,label:d[positive=Melanoma]", *two)
    with pytest.raises(ManifestError, match=r"has 3 classes .* a task of two"):
        read(tmp_path, "id,path,split,label:d[positive=nevus]", *two, "c,3,train,other")


def test_an_ordinal_task_is_of_the_manifest(tmp_path: Path) -> None:
    """The header says which tasks are ordered."""
    lines = ["a,1,train,0,x", "b,2,train,1,y"]
    manifest = read(tmp_path, "id,path,split,label:grade[ordinal],label:k", *lines)
    assert manifest.ordinal == ("grade",)


def test_what_is_declared_is_written_and_read_back(tmp_path: Path) -> None:
    """Options and meta columns survive in a file."""
    rows = [
        Row("a", "/d/1.png", None, "train", "", ("no", "0"), ("40", "F")),
        Row("b", "/d/2.png", None, "train", "", ("yes", "2"), ("", "M")),
    ]
    tasks = [TaskColumn("d, all", "no"), TaskColumn("grade [x]", ordinal=True)]
    manifest = read_manifest(write_manifest(rows, tasks, tmp_path / "m.csv", meta=["age", "sex"]))
    assert manifest.rows == tuple(rows)
    assert manifest.tasks == {"d, all": ("yes", "no"), "grade [x]": ("0", "2")}
    assert (manifest.ordinal, manifest.meta) == (("grade [x]",), ("age", "sex"))


def test_a_header_that_would_read_otherwise_is_not_written(tmp_path: Path) -> None:
    """A name that no header can hold is refused before anything is written."""
    rows = [Row("a", "/d/1.png", None, "train", "", ("0",))]
    with pytest.raises(ManifestError, match=r"cannot be written: .*no task can be named 'split'"):
        write_manifest(rows, ["split"], tmp_path / "m.csv")
    assert list(tmp_path.iterdir()) == []
