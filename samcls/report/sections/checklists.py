"""TRIPOD+AI and CLAIM 2024, item by item, and the paragraphs of methods and results that the files allow."""

import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from samcls.report.about import About
from samcls.report.blocks import Block, Cell, Listing, Part, Table, Text
from samcls.report.words import METHODS, RESULTS, facts_of

__all__ = ["NAMES", "checklist", "checklists", "paragraphs"]

NAMES = ("tripod_ai", "claim_2024")
STATES = {"filled": "filled", "partly": "partly", "you": "you must write this"}


@cache
def checklist(name: str) -> Mapping[str, Any]:
    """Return a checklist: its title, its source, and items with `number`, `asks`, `facts`, `state` and `you`.

    Args:
        name: One of `NAMES`.
    """
    text = (files("samcls.report") / "checklists" / f"{name}.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def paragraphs(about: About) -> Iterator[Block]:
    """Yield what can be written of methods and of results, to copy; each number has its source."""
    facts = facts_of(about)
    for title, names in (("Methods", METHODS), ("Results", RESULTS)):
        parts: list[Part] = []
        for name in names:
            if name in facts:
                parts += [*facts[name], " "]
        if parts:
            yield Text((Cell(title, mark="strong"),))
            yield Text(tuple(parts), "copy")
    yield Text(
        ("Only what the files hold is written here. Read it, and put your own words to it.",),
        "note",
    )


def checklists(about: About) -> Iterator[Block]:
    """Yield both tables."""
    facts = facts_of(about)
    for name in NAMES:
        known = checklist(name)
        rows, states = [], []
        for item in known["item"]:
            here = [fact for fact in item["facts"] if fact in facts]
            state = _state(item, here)
            states.append(state)
            told: list[Part] = []
            for fact in here:
                told += [*facts[fact], " "]
            rows.append((item, state, here))
        counted = {title: states.count(key) for key, title in STATES.items()}
        yield Text(
            (
                Cell(known["title"], mark="strong"), f" ({known['source']}): ",
                ", ".join(f"{number} {title}" for title, number in counted.items()),
                f", of {len(rows)} items. What an item asks is told in our own words; read the paper for its own.",
            )
        )  # fmt: skip
        yield Table(
            known["title"],
            ("item", "asks for", "state", "from this run", "yours to write"),
            tuple(
                (
                    f"{item['number']} {item['topic']}", item["asks"], Cell(STATES[state], mark=state),
                    ", ".join(one.replace("_", " ") for one in here) or "\N{EN DASH}", _yours(item, state),
                )
                for item, state, here in rows
            ),
            "The names in the fourth column are those of the sentences below.",
            (0, 1, 2, 3, 4),
        )  # fmt: skip
    yield Text(("Sentences that the tables name:",))
    yield Listing(
        tuple(
            (Cell(f"{name.replace('_', ' ')}: ", mark="strong"), *parts)
            for name, parts in facts.items()
        )
    )


def _state(item: Mapping[str, Any], here: list[str]) -> str:
    """Return how far an item is answered: its own state where all its facts are there."""
    if not here:
        return "you"
    return str(item["state"]) if len(here) == len(item["facts"]) else "partly"


def _yours(item: Mapping[str, Any], state: str) -> str:
    if state == "filled":
        return ""
    if item["you"]:
        return str(item["you"])
    return "Write what this run does not hold of it."
