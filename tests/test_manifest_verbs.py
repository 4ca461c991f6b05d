"""`samcls manifest NAME` is made from the source's own signature, and shows what became of each file."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from samcls.cli.inputs import register
from samcls.data import sources
from samcls.data.manifest import Row, read_manifest
from samcls.data.sources.options import Out, Overwrite
from samcls.data.summary import Summary, finish

app = typer.Typer(rich_markup_mode=None)
register(app)


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["manifest", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


def test_every_source_is_a_verb_with_help() -> None:
    """The registry's names, each with the first sentence of its document and its options."""
    listed = run("--help").partition("Commands:")[2].splitlines()[1:]
    assert [line.split()[0] for line in listed if line.strip()] == list(sources.SOURCES)
    shown = run("table", "--help")
    for option in ("--path", "--images", "--label", "--id ", "--group", "--split-column", "--meta"):
        assert option in shown
    assert CliRunner().invoke(app, ["manifest", "nothing"]).exit_code == 2


def test_a_table_is_summarised_by_images_patients_and_classes(tmp_path: Path) -> None:
    """What is printed is what is in the manifest; --json says the same."""
    lines = ["who,file,dx,age"]
    for i in range(30):
        Image.new("L", (4, 4), i).save(tmp_path / f"{i:02}.png")
        lines.append(f"P{i // 3},{i:02}.png,{'mel' if i // 3 % 2 else 'nev'},{i}")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    options = ["--path", "file", "--label", "dx", "--group", "who", "--meta", "age"]
    shown = run("table", tmp_path / "t.csv", tmp_path / "m.csv", *options, "--positive", "mel")
    table = [line.split() for line in shown.splitlines()]
    assert shown.startswith(f"{tmp_path / 'm.csv'}: 30 images of 10 groups\n")
    assert ["images", "18", "6", "6"] in table
    assert ["groups", "(patients)", "6", "2", "2"] in table
    assert ["dx", "=", "mel", "9", "3", "3"] in table
    assert "dx: scores are those of 'mel', the last class" in shown
    assert "kept and never learned: age" in shown
    values = json.loads(
        run("table", tmp_path / "t.csv", tmp_path / "m.csv", *options, "--overwrite", "--json")
    )
    assert values["groups"] == {"train": 6, "val": 2, "test": 2}
    assert values["counts"]["dx"]["val"] == {"mel": 3, "nev": 3}


def twins_manifest(
    file: Annotated[str | Path, "A list of names."],
    out: Out,
    *,
    colours: Annotated[Sequence[str], "--colour", "Colours to draw."] = (),
    overwrite: Overwrite = False,
) -> Summary:
    """From a list of names, two pictures each."""
    names = Path(file).read_text(encoding="utf-8").split()
    rows = [
        Row(f"{name}_{colour}", f"/{name}.png", None, "train", name, (colour,))
        for name in names
        for colour in colours
    ]
    return finish(rows, ["colour"], Path(out), overwrite=overwrite)


def test_a_new_source_is_a_function_and_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its annotations become arguments, options, their names and their help."""
    monkeypatch.setattr(sources, "SOURCES", {**sources.SOURCES, "twins": twins_manifest})
    assert "From a list of names, two pictures each." in run("--help")
    assert "Colours to draw." in run("twins", "--help")
    (tmp_path / "names.txt").write_text("ada grace")
    shown = run(
        "twins", tmp_path / "names.txt", tmp_path / "m.csv", "--colour", "red", "--colour", "blue"
    )
    assert "4 images of 2 groups" in shown
    assert read_manifest(tmp_path / "m.csv").tasks == {"colour": ("blue", "red")}
