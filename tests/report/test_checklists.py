"""TRIPOD+AI and CLAIM 2024: all items once, filled no further than a run's files go; and the paragraphs."""

import re
from dataclasses import replace

import pytest

from samcls.report.report import _about
from samcls.report.sections.checklists import NAMES, checklist, checklists, paragraphs
from samcls.report.settings import ReportConfig
from samcls.report.words import FACTS, METHODS, RESULTS, facts_of


def about_of(path, store=None):
    return _about(path, store, None, None, ReportConfig(), lambda _: None)


def test_the_published_numbers_are_all_there() -> None:
    """TRIPOD+AI: items 1 to 27 with their parts, 52 in all; CLAIM 2024: 1 to 44."""
    tripod = [item["number"] for item in checklist("tripod_ai")["item"]]
    assert len(tripod) == len(set(tripod)) == 52
    assert {int(re.match(r"\d+", one)[0]) for one in tripod} == set(range(1, 28))
    assert [item["number"] for item in checklist("claim_2024")["item"]] == [
        str(i) for i in range(1, 45)
    ]


@pytest.mark.parametrize("name", NAMES)
def test_items_say_what_is_left_to_write(name: str) -> None:
    """An item that no fact answers is the author's; one that is filled leaves nothing; facts are known ones."""
    for item in checklist(name)["item"]:
        assert set(item["facts"]) <= set(FACTS), item["number"]
        assert (item["state"] == "you") == (not item["facts"]), item["number"]
        assert (item["state"] == "filled") == (item["you"] == ""), item["number"]
        assert len(item["asks"].split()) <= 32, item["number"]


def states(about) -> dict[str, str]:
    tables = [block for block in checklists(about) if block.block == "table"]
    return {f"{table.title} {row[0]}": row[2].mark for table in tables for row in table.rows}


def test_a_run_fills_some_items_and_an_unfinished_one_none(made, tmp_path) -> None:
    """What files cannot hold is never filled: titles, ethics, funding."""
    own = states(about_of(made["run"], made.stores["run"]))
    assert len(own) == 96
    assert {"filled", "partly", "you"} == set(own.values())
    assert own["TRIPOD+AI 1 Title"] == "you"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml").write_text((made["run"] / "config.toml").read_text())
    assert set(states(about_of(tmp_path / "run")).values()) == {"you"}


def test_an_item_whose_fact_is_not_there_is_filled_no_more(made) -> None:
    """Without controls, an item that asks for them is partly answered or the author's."""
    about = about_of(made["run"], made.stores["run"])
    runs = tuple(
        replace(run, tables={**run.tables, "controls.csv": b""}) for run in about.subject.runs
    )
    without = replace(about, subject=replace(about.subject, runs=runs))
    assert "baselines" in facts_of(about)
    assert "baselines" not in facts_of(without)
    rank = {"you": 0, "partly": 1, "filled": 2}
    before, after = states(about), states(without)
    assert all(rank[after[key]] <= rank[before[key]] for key in before)
    assert any(rank[after[key]] < rank[before[key]] for key in before)


@pytest.mark.parametrize(
    "kind", ["run", "tasks", "ordinal", "seeds", "folds", "sweep", "evaluation"]
)
def test_paragraphs_hold_the_figures_of_the_table(made, kind: str) -> None:
    """Methods and results of every kind of run, plain text, with its AUC."""
    about = about_of(made[kind])
    texts = [
        "".join(part if isinstance(part, str) else part.text for part in block.parts)
        for block in paragraphs(about)
    ]
    methods, results = texts[1], texts[3]
    assert "odels were chosen" in methods
    task = next(iter(about.subject.tasks))
    assert f"AUC of {task} was {about.subject.figures(task)[0]['auc']:.3f}" in results
    assert "<" not in methods + results
    assert set(METHODS) | set(RESULTS) <= set(FACTS)
