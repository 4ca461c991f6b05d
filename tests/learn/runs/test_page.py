"""`samcls show`: a run in a page of text, every figure of it the run's own."""

import json
import re
import shutil
from pathlib import Path

import pytest
from support.cli import samcls as command
from support.deployed import Deployed, deployed

import samcls
from samcls.errors import InputError
from samcls.learn.runs.folder import MARK
from samcls.learn.runs.page import facts_of_runs, page_of
from samcls.learn.runs.text import aligned, printable


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    return deployed(tmp_path_factory.mktemp("paged"))


def test_the_page_says_what_on_what_chosen_how_and_how_well(made: Deployed) -> None:
    run = samcls.load_run(made.run("linear", head="linear"))
    page, metrics = page_of(run.path), run.metrics
    assert page.startswith(f"Run {run.path}\n  head")
    assert f"linear, {metrics['parameters']:,} parameters" in page
    assert "vit_t (random weights of seed 0)" in page
    assert re.search(r"images +31 +16 +16", page)
    assert re.search(r"groups \(patients\) +8 +8 +8", page)
    assert re.search(r"grade: malignant +15 +8 +8", page)
    low, high = metrics["test"]["auc_interval"]
    auc = (
        f"{metrics['validation']['auc']:.3f} +{metrics['test']['auc']:.3f} +{low:.3f} to {high:.3f}"
    )
    assert re.search(rf"AUC +{auc}", page)
    assert f"malignant is answered above {metrics['validation']['threshold']:.4f}" in page
    sensitivity = metrics["test"]["sensitivity_at_threshold"]
    assert re.search(rf"sensitivity at the threshold .* {sensitivity:.3f} ", page)
    assert "1 images could not be encoded" in page
    assert "opened once" in page
    assert "head.safetensors" in page
    own = [line for line in page.splitlines() if str(made.root) not in line]
    assert max(map(len, own)) <= 100


def test_several_seeds_are_means_with_their_deviation_and_a_line_each(made: Deployed) -> None:
    page = page_of(made.run("seeds", head="linear", seeds=3))
    assert ": 3 runs, of 3 seeds" in page
    assert re.search(r"AUC +0\.\d{3} ± 0\.\d{3} +0\.\d{3} ± 0\.\d{3}", page)
    assert all(f"seed-{i}" in page for i in range(3))


def test_the_verb_prints_the_page_and_json_what_it_is_made_of(made: Deployed) -> None:
    run = made.run("linear", head="linear")
    assert command("show", run).stdout == page_of(run)
    values = json.loads(command("show", run, "--json").stdout)
    assert values == json.loads(json.dumps(facts_of_runs(run)))
    assert values["operating"]["grade"]["threshold"] == values["metrics"]["validation"]["threshold"]


def test_a_run_of_an_earlier_version_is_shown_without_what_it_lacks(
    made: Deployed, tmp_path: Path
) -> None:
    old = tmp_path / "old"
    shutil.copytree(made.run("linear", head="linear"), old)
    metrics = json.loads((old / "metrics.json").read_text())
    for split in ("validation", "test"):
        metrics[split] = {k: v for k, v in metrics[split].items() if "threshold" not in k}
    del metrics["weights"]
    rewrite(old, "metrics.json", json.dumps(metrics))
    page = page_of(old)
    assert "no figures at the threshold: the run is of an earlier version" in page
    threshold = samcls.load_run(made.run("linear")).metrics["validation"]["threshold"]
    assert f"malignant is answered above {threshold:.4f}" in page  # from its predictions


def test_names_from_a_stranger_cannot_move_the_terminal(made: Deployed, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(made.run("linear", head="linear"), bad)
    metrics = json.loads((bad / "metrics.json").read_text())
    metrics["notes"].append("\x1b[2J\x1b]0;owned\x07 a note\nRun forged")
    rewrite(bad, "metrics.json", json.dumps(metrics))
    rewrite(bad, "environment.json", json.dumps({"platform": "\x1b[31m", "command": 3}))
    page = page_of(bad)
    assert "\x1b" not in page
    assert "\\x1b[2J" in page
    assert "\nRun forged" not in page


def test_what_is_no_run_is_said_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a run folder"):
        page_of(tmp_path)
    (tmp_path / "config.toml").touch()
    with pytest.raises(InputError, match="is unfinished"):
        page_of(tmp_path)


def test_text_is_aligned_and_printable() -> None:
    assert aligned([["a", "b"], ["long", "1"]]) == ["a     b", "long  1"]
    assert printable("é\u202e\t\n") == "é\\u202e\\t\\n"


def rewrite(run: Path, name: str, text: str) -> None:
    """Change a file of a run, and its checksum."""
    import hashlib

    (run / name).write_text(text)
    mark = json.loads((run / MARK).read_text())
    mark["sha256"][name] = hashlib.sha256(text.encode()).hexdigest()
    (run / MARK).write_text(json.dumps(mark))
