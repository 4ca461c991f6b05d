"""The documentation is run: every block of commands and of Python, in order, on tiny images."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from samcls.cli import app

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<why>.*) -->\n)?```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.M | re.S
)


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    kind: str
    text: str
    left_out: bool

    @property
    def commands(self) -> list[list[str]]:
        """Each line's words, without comments; a line that ends in a backslash goes on."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def blocks(page: Path) -> Iterator[Block]:
    for found in BLOCK.finditer(page.read_text()):
        yield Block(found["kind"], found["text"], found["why"] is not None)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the pages speak of: photos of 20 patients, their table, and a folder by class."""
    rng, rows = np.random.default_rng(0), ["file,patient,diagnosis,sex"]
    (tmp_path / "photos").mkdir()
    for patient in range(20):
        name, level = ("benign", 90) if patient % 2 else ("malignant", 150)
        for side in ("left", "right"):
            file = f"p{patient:02}-{side}.png"
            pixels = np.clip(rng.normal(level, 40, (40, 30, 3)), 0, 255).astype(np.uint8)
            (tmp_path / "by-class" / name).mkdir(parents=True, exist_ok=True)
            for folder in (tmp_path / "photos", tmp_path / "by-class" / name):
                Image.fromarray(pixels).save(folder / file)
            rows.append(f"{file},p{patient:02},{name},{'fm'[patient // 2 % 2]}")
    (tmp_path / "patients.csv").write_text("\n".join(rows))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", ["start.md", "how-to.md"])
def test_a_page_can_be_followed(page: str, place: Path) -> None:
    """Every block that is not marked as left out runs as it stands, after those before it."""
    names: dict[str, object] = {}
    for block in blocks(ROOT / "docs" / page):
        named = re.match(r"# (\w+\.toml)\b", block.text)
        if block.kind == "toml" and named:
            (place / named[1]).write_text(block.text)
        elif block.left_out:
            continue
        elif block.kind == "bash":
            for words in block.commands:
                assert words[0] == "samcls", words
                done = CliRunner().invoke(app, words[1:])
                assert done.exit_code == 0, (words, done.output)
        elif block.kind == "python":
            exec(compile(block.text, page, "exec"), names)  # noqa: S102 # the page's own text


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_commands_that_are_not_run_exist(page: Path) -> None:
    """Whatever a page shows of the command line is a verb of it, with options that it has."""
    for block in blocks(page):
        for words in block.commands if block.kind == "bash" else ():
            if words[0] == "samcls" and "..." not in words:
                verb = [word for word in words[1:3] if re.fullmatch(r"[a-z]+", word)]
                shown = CliRunner().invoke(app, [*verb[: 2 if _is_group(verb[0]) else 1], "--help"])
                known = set(re.findall(r"--[a-z-]+", shown.output))
                assert shown.exit_code == 0, words
                assert {word for word in words if word.startswith("--")} <= known, words


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Each link to a file or a heading finds it."""
    for target in re.findall(r"\]\((?!http)([^)\s]+)\)", page.read_text()):
        file, _, heading = target.partition("#")
        found = (page.parent / file) if file else page
        assert found.exists(), target
        assert not heading or heading in _headings(found), target


def test_files_that_recipes_name_exist() -> None:
    """The contributing page names files that are there."""
    text = (ROOT / "docs" / "contributing.md").read_text()
    for name in re.findall(r"`((?:samcls|tests|docs|\.ci)/[\w./-]+)`", text):
        assert "NAME" in name or (ROOT / name).exists(), name


def test_the_readme_is_short() -> None:
    """The first page stays one that is read to its end."""
    assert len((ROOT / "README.md").read_text().splitlines()) <= 160


def _is_group(name: str) -> bool:
    return name in {"bench", "manifest", "store", "weights"}


def _headings(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
