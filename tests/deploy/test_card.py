"""The model card: every number is of the run's files, and names cannot break it."""

import re
from pathlib import Path

import pytest
import yaml
from support.deployed import Deployed

import samcls
from samcls.deploy.card import card_of
from samcls.learn.runs.text import printable


def numbers(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w.])\d\.\d{3,4}(?![\d])", text))


def known(values: object) -> set[str]:
    """Every number in some JSON, at three digits and at four."""
    if isinstance(values, dict):
        return set().union(*map(known, values.values()), set())
    if isinstance(values, list | tuple):
        return set().union(*map(known, values), set())
    if isinstance(values, float):
        return {f"{values:.3f}", f"{values:.4f}"}
    return set()


def test_every_figure_of_the_card_is_of_the_runs_files(made: Deployed) -> None:
    run = samcls.load_run(made.run("slca", head="slca"))
    card = card_of(run.path)
    found = numbers(card)
    assert len(found) > 20
    assert found <= known(dict(run.metrics))


def test_the_front_matter_is_yaml_with_the_test_figures(made: Deployed) -> None:
    run = samcls.load_run(made.run("slca", head="slca"))
    _, front, _ = card_of(run.path, 'a "name": of my own').split("---\n", 2)
    values = yaml.safe_load(front)
    assert values["library_name"] == "samcls"
    assert values["pipeline_tag"] == "image-classification"
    (entry,) = values["model-index"]
    assert entry["name"] == 'a "name": of my own'
    told = {one["type"]: one["value"] for one in entry["results"][0]["metrics"]}
    assert told["roc_auc"] == pytest.approx(run.metrics["test"]["auc"], abs=5e-5)


def test_it_says_what_it_is_for_and_how_often_the_test_split_was_opened(made: Deployed) -> None:
    card = card_of(made.run("slca", head="slca"))
    for said in (
        "Not a medical device",
        "The test split was opened 1 time",
        "each taken as a whole",
        "Energy was not measured",
        "UNTRAINED",
        "The positive class is malignant",
        "| images | 31 | 16 | 16 |",
    ):
        assert said in card


def test_seeds_have_a_card_together(made: Deployed) -> None:
    card = card_of(made.run("seeds", head="linear", seeds=3))
    assert "The mean of 3 runs: 3 seeds" in card
    assert "±" in card


def test_names_from_a_data_set_stay_text(tmp_path: Path) -> None:
    from support.planted import planted_store

    store = planted_store(tmp_path, 60, tasks={"<b>t|1</b>": ("a\n# x", "`[l](u)`")})
    samcls.train(store, tmp_path / "run", head="linear", epochs=1, intervals=0)
    card = card_of(tmp_path / "run")
    assert "<b>" not in card.replace("\\<b", "").split("---", 2)[2]
    assert printable("a\n# x").replace("\\", "\\\\").replace("#", "\\#") in card
    yaml.safe_load(card.split("---\n", 2)[1])
