"""Tables are read in any dress that programs give them, and what was guessed is said."""

from pathlib import Path
from typing import Any

import pytest

from samcls.data.tabular import read_table
from samcls.errors import ManifestError

TEXT = 'id,diagnosis\n1,naevus\n2,"bénin, sûr"\n'
ROWS = (("1", "naevus"), ("2", "bénin, sûr"))


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_separators_and_line_ends_are_found(tmp_path: Path, separator: str, end: str) -> None:
    """Commas, semicolons, tabs and bars; a separator within quotes is none."""
    text = TEXT.replace("id,", f"id{separator}").replace("1,", f"1{separator}")
    text = text.replace("2,", f"2{separator}").replace("\n", end)
    (tmp_path / "t.csv").write_bytes(text.encode())
    table = read_table(tmp_path / "t.csv")
    assert (table.columns, table.rows) == (("id", "diagnosis"), ROWS)


@pytest.mark.parametrize(
    ("encoding", "says"),
    [
        ("utf-8", None),
        ("utf-8-sig", None),
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16"),
        ("utf-16-be", "UTF-16"),
        ("cp1252", "Windows-1252; see that '2,\"bénin, sûr\"' is right"),
    ],
)
def test_encodings_are_found_and_said(tmp_path: Path, encoding: str, says: str | None) -> None:
    """Excel writes UTF-8 with a mark, UTF-16 or Windows-1252; all but UTF-8 are noted."""
    (tmp_path / "t.csv").write_bytes(TEXT.encode(encoding))
    table = read_table(tmp_path / "t.csv")
    assert (table.columns, table.rows) == (("id", "diagnosis"), ROWS)
    assert [says in note for note in table.notes] == [True] if says else not table.notes


def test_excels_own_first_line_and_empty_columns_are_understood(tmp_path: Path) -> None:
    """`sep=;` names the separator, and empty cells at the end of lines are no columns."""
    (tmp_path / "t.csv").write_text('sep=;\na;b;;\n\n 1 ;"x\ny";;\n;;;\n2;z\n')
    table = read_table(tmp_path / "t.csv")
    assert table.columns == ("a", "b")
    assert table.rows == (("1", "x y"), ("2", "z"))
    assert table.column("b") == ["x y", "z"]


def test_what_is_no_table_is_explained(tmp_path: Path) -> None:
    """Each kind of wrong file has its own words; lines of another length are named together."""
    file = tmp_path / "t.csv"
    for content, says in (
        (b"", "is empty"),
        (b"a,b\n", "has a header and no row"),
        (b"a,b\n1\n1,2,3\n1,2\n", r"2 problem\(s\):\n  line 2: 1 cells, expected 2\n  line 3: 3"),
        (b'a,b\n"1,2\n', "is no CSV"),
        (b"\x89PNG\r\n\0\0\0", "is not text"),
        (b"\xd0\xcf\x11\xe0" + b"\0" * 99, "Excel workbook of before 2007"),
        (b"PK\x03\x04" + b"\0" * 99, "is no Excel workbook, or a damaged one"),
        (b"PAR1" + b"\0" * 99, "is a damaged Parquet file"),
    ):
        file.write_bytes(content)
        with pytest.raises(ManifestError, match=says):
            read_table(file)
    with pytest.raises(ManifestError, match="does not exist: name a CSV, Excel or Parquet"):
        read_table(tmp_path / "gone.csv")
    with pytest.raises(ManifestError, match="is a folder"):
        read_table(tmp_path)


def workbook(path: Path, rows: list[list[Any]], *, merge: str = "", sheets: int = 1) -> Path:
    openpyxl = pytest.importorskip("openpyxl", reason="openpyxl is not installed")
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    if merge:
        book.active.merge_cells(merge)
    for i in range(1, sheets):
        book.create_sheet(f"more{i}").append(["other", i])
        book[f"more{i}"].append([i, i])
    book.save(path)
    return path


def test_a_workbook_is_read_as_it_is_seen(tmp_path: Path) -> None:
    """Whole numbers have no `.0`, and a merged cell counts for every row that it spans."""
    rows = [["patient", "grade", "seen"], [7, 1.0, True], [None, 2.5, False], [8, None, True]]
    table = read_table(workbook(tmp_path / "t.xlsx", rows, merge="A2:A3"))
    assert table.columns == ("patient", "grade", "seen")
    assert table.rows == (("7", "1", "True"), ("7", "2.5", "False"), ("8", "", "True"))
    assert table.notes == ("1 merged cell(s) count for every row that they span",)


def test_a_sheet_is_chosen_and_said(tmp_path: Path) -> None:
    """The first sheet is read unless another is named."""
    file = workbook(tmp_path / "t.xlsx", [["a", "b"], [1, 2]], sheets=2)
    assert read_table(file).notes == (
        "sheet 'Sheet' was read, the first of Sheet, more1; see --sheet",
    )
    assert read_table(file, "more1").columns == ("other", "1")
    with pytest.raises(ManifestError, match="has no sheet 'x'; it has Sheet, more1"):
        read_table(file, "x")


def test_cells_without_a_value_are_faults_of_their_column(tmp_path: Path) -> None:
    """A formula whose value was never stored would be read as an empty cell; an error is a class."""
    file = workbook(tmp_path / "t.xlsx", [["a", "b", "c"], [1, "=A2+1", 5], ["#N/A", 3, 6]])
    (formula, error) = read_table(file).faults
    assert formula[0] == "b"
    assert formula[1].startswith("cell B2 holds a formula without its value: open the workbook in")
    assert error == ("a", "cell A3 holds the error #N/A")


def test_parquet_is_read_as_text(tmp_path: Path) -> None:
    """Numbers that pandas made doubles for the sake of a gap are whole again."""
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    columns = {
        "id": pa.array([1, 2, 3]),
        "grade": pa.array([1.0, None, float("nan")]),
        "name": pa.array(["a", "b", None]).dictionary_encode(),
        "image": pa.array([b"\x89PNG"] * 3),
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet")
    assert table.columns == ("id", "grade", "name", "image")
    assert table.rows == (("1", "1", "a", ""), ("2", "", "b", ""), ("3", "", "", ""))
    assert table.faults == (("image", "column 'image' holds binary: expected text or numbers"),)
