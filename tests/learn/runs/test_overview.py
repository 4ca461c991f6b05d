"""Runs as lines of a table: the runs' own figures, in every format."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from support.planted import planted_store
from typer.testing import CliRunner

import samcls
from samcls.cli import app
from samcls.errors import InputError
from samcls.learn.runs.folder import load_run
from samcls.learn.runs.overview import lines_of, runs_in, table_text
from samcls.learn.runs.repeats import train_repeats
from samcls.learn.runs.train import train
from samcls.learn.settings import TrainConfig
from samcls.sweep.space import parse_space
from samcls.sweep.sweep import sweep

TASKS = {"melanoma": ("no", "yes"), "grade_1": ("low", "mid", "high")}
CONFIG = TrainConfig(head="logistic", intervals=50)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two tasks, seeds, folds with and without seeds, and a sweep."""
    labels = np.random.default_rng(0).integers(0, 2, (120, 2))
    labels[::7, 1] = -1
    place = tmp_path_factory.mktemp("overview")
    store = planted_store(place, 120, tasks=TASKS, labels=labels, strength=2.0)
    runs = place / "runs"
    train(store, CONFIG, runs / "one")
    config = TrainConfig(head="linear", epochs=2, intervals=50)
    train_repeats(store, config, runs / "seeds", seeds=2)
    train_repeats(store, CONFIG, runs / "folds", folds=2)
    train_repeats(store, CONFIG, runs / "both", seeds=2, folds=2)
    space = 'search = "grid"\n[fixed]\nintervals = 0\n[space]\nhead = ["logistic", "knn"]\n'
    sweep(store.path, runs / "sweep", parse_space(space))
    return runs


def test_every_run_is_found_once(folder: Path) -> None:
    """A folder of seeds or folds as one, a sweep by its winner; what is not tested is left out."""
    found = [str(path.relative_to(folder)) for path in runs_in(folder)]
    assert found == ["both", "folds", "one", "seeds", "sweep/winner/run"]
    assert samcls.runs(folder) == runs_in(folder)
    with pytest.raises(InputError, match="is not a folder"):
        runs_in(folder / "none")
    run = next(
        path.parent for path in (folder / "sweep").rglob("COMPLETE") if "winner" not in str(path)
    )
    with pytest.raises(InputError, match="was not scored on a test split"):
        lines_of(run)


def test_figures_are_the_runs_own(folder: Path) -> None:
    """Of one run with its interval; of seeds mean and deviation; of folds all images together."""
    (first, second) = lines_of(folder / "one")
    metrics = load_run(folder / "one").metrics["test"]["tasks"]
    assert (first.task, second.task) == ("melanoma", "grade_1")
    assert first.figures["AUC"].value == metrics["melanoma"]["auc"]
    assert list(first.figures["AUC"].interval or ()) == metrics["melanoma"]["auc_interval"]
    assert first.figures["AUC"].spread is None
    assert second.images == metrics["grade_1"]["images"] < first.images
    assert (
        first.groups == len(set(load_run(folder / "one").predictions("test").groups)) < first.images
    )
    seeds = lines_of(folder / "seeds")[0]
    each = [
        load_run(folder / "seeds" / f"seed-{i}").metrics["test"]["tasks"]["melanoma"]
        for i in (0, 1)
    ]
    values = [one["auc"] for one in each]
    assert seeds.figures["AUC"].value == pytest.approx(np.mean(values))
    assert seeds.figures["AUC"].spread == pytest.approx(np.std(values, ddof=1))
    folds = lines_of(folder / "folds")[0]
    pooled = json.loads((folder / "folds" / "summary.json").read_text())["pooled"]
    assert (folds.runs, folds.folds, folds.images) == (2, 2, 120)
    assert folds.figures["AUC"].value == pooled[0]["tasks"]["melanoma"]["auc"]
    both = lines_of(folder / "both")[0]
    assert (both.runs, both.folds, both.images) == (4, 2, 120)
    assert both.figures["AUC"].interval is None


def test_every_format_says_the_same(folder: Path) -> None:
    """As many lines; CSV with every digit; LaTeX with its signs escaped."""
    paths = [folder / "one", folder / "seeds"]
    markdown = table_text(paths)
    assert len(markdown.splitlines()) == 2 + 4
    rows = list(csv.DictReader(io.StringIO(table_text(paths, "csv"))))
    assert float(rows[0]["auc"]) == lines_of(folder / "one")[0].figures["AUC"].value
    assert f"{float(rows[2]['auc']):.3f} ± {float(rows[2]['auc_std']):.3f}" in markdown
    latex = table_text(paths, "latex")
    assert r"grade\_1" in latex
    assert latex.count(r"\\") == 1 + 4
    shown = CliRunner().invoke(app, ["table", *map(str, paths), "--format", "latex"])
    assert shown.output == latex
    whole = CliRunner().invoke(app, ["table", str(folder)])
    assert len(whole.output.splitlines()) == 2 + 2 * 5
    assert CliRunner().invoke(app, ["table", str(folder / "one"), "--format", "pdf"]).exit_code == 2
