"""Files replaced whole, JSON and short lists of names."""

from pathlib import Path

import pytest

from samcls.files import few, to_json, write_whole


def test_a_file_is_replaced_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    """The new content has the name, and no part of it lies about."""
    path = tmp_path / "a.json"
    write_whole(path, b"old")
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    """What cannot be written takes nothing away."""
    path = tmp_path / "a.json"
    write_whole(path, b"old")
    with pytest.raises(TypeError):
        write_whole(path, "text")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_json_keeps_letters_and_refuses_what_is_not_finite() -> None:
    """Names of any language stay readable, and NaN never reaches a file."""
    assert to_json({"name": "Müller"}).decode() == '{\n  "name": "Müller"\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json({"auc": float("nan")})


def test_a_few_names_say_how_many_more_there_are() -> None:
    """Five of seven are named, and all of three."""
    assert few("abcdefg") == "a, b, c, d, e and 2 more"
    assert few([1, 2, 3]) == "1, 2, 3"
    assert few([]) == ""
