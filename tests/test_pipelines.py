"""Pipelines, the README and the list of commands are kept true."""

import re
from pathlib import Path

import pytest
from support.cli import samcls
from support.paths import ROOT

from samcls import __version__
from samcls.config import load_toml
from samcls.learn.settings import TrainConfig
from samcls.sweep.space import load_space

README = (ROOT / "README.md").read_text()
HOW_TO = (ROOT / "docs" / "how-to.md").read_text()


@pytest.mark.parametrize("path", sorted((ROOT / "pipelines").glob("*.toml")), ids=lambda p: p.stem)
def test_a_pipeline_loads_and_its_header_says_how_to_run_it(path: Path) -> None:
    """Each pipeline is a valid config or space whose header holds commands, hardware, time and figures."""
    space = path.stem.endswith("_space")
    if space:
        assert load_space(path).trials()
    else:
        load_toml(TrainConfig, path)
    header = path.read_text().split("\n\nname" if space else "\n\nhead")[0]
    verb = "samcls sweep" if space else "samcls train"
    for part in (f"pipelines/{path.name}", "samcls extract", verb, "Hardware:", "Time:", "AUC"):
        assert part in header


def test_the_citation_names_this_version() -> None:
    """Whoever cites, cites what is installed."""
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_sweep_of_controls_that_is_shown_is_a_space(tmp_path: Path) -> None:
    """The file that it shows can be swept as it stands."""
    (shown,) = re.findall(r'```toml\n(name = "controls".*?)```', HOW_TO, flags=re.DOTALL)
    path = tmp_path / "controls.toml"
    path.write_text(shown)
    trials = load_space(path).trials()
    assert [len(trial.members) for trial in trials] == [5] * 4


def test_every_verb_stands_in_the_list_and_has_help() -> None:
    """A command that exists is documented, and one that is documented exists."""
    verbs = _verbs("")
    for group in ("bench", "manifest", "store", "weights"):
        verbs.remove(group)
        verbs |= {f"{group} {name}" for name in _verbs(group)}
    documented = set(re.findall(r"`samcls ((?:bench|manifest|store|weights) \w+|\w+)", HOW_TO))
    documented |= {f"weights {name}" for name in re.findall(r"`(fetch|verify) NAME", HOW_TO)}
    assert verbs == documented


def _verbs(group: str) -> set[str]:
    shown = samcls(*group.split(), "--help").stdout
    return set(re.findall(r"^  ([a-z]\w+) ", shown.split("Commands:")[1], flags=re.MULTILINE))


def test_the_readmes_tree_is_the_folder() -> None:
    """What the layout names is there, and what is there is named, the rooms of learn/ among it."""
    tree = README.split("## Layout")[1].split("```")[1]
    named = set(re.findall(r"^  (\w+(?:\.py|/))", tree, flags=re.MULTILINE))
    found = {
        f"{path.name}/" if path.is_dir() else path.name
        for path in (ROOT / "samcls").iterdir()
        if not path.name.startswith("_") and path.suffix in {"", ".py"}
    }
    assert named == found
    rooms = re.search(r"^  learn/ .*: (.*), and", tree, flags=re.MULTILINE)
    assert rooms is not None
    folders = {f"{path.name}/" for path in (ROOT / "samcls" / "learn").iterdir() if path.is_dir()}
    assert set(rooms[1].split()) == {name for name in folders if not name.startswith("_")}
