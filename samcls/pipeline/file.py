"""A pipeline's file: steps, each of them a samcls command as it is typed.

    [[step]]
    run = "manifest medmnist breastmnist_64.npz breast.csv"

    [[step]]
    run = "extract breast.csv breast.zarr --encoder lite0"

    [[step]]
    name = "slca"
    run = "train breast.zarr breast-slca --head slca --seeds 5"

Paths are relative to the file. A step needs the steps that make what it names; what a command makes its verb says
(`VERBS`). All that is wrong with a file is said at once, before anything is done.
"""

import os
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from samcls.errors import ConfigError
from samcls.files import meant

__all__ = ["VERBS", "Pipeline", "Step", "Verb", "lies_in", "load_pipeline"]


@dataclass(frozen=True)
class Verb:
    """What a verb makes.

    Attributes:
        words: Of the command: `manifest medmnist` has two.
        place: Which argument after them names what it makes; None where an option does.
        option: The option that does.
        usual: What it makes where the option is left out.
        resumes: Whether it goes on with what is there whatever has changed, as `extract` does, or replaces it.
    """

    words: int = 1
    place: int | None = 1
    option: str = "--out"
    usual: str | None = None
    resumes: bool = False


# A verb that a step may run, and a line.
VERBS: Mapping[str, Verb] = {
    "manifest folder": Verb(2),
    "manifest table": Verb(2),
    "manifest medmnist": Verb(2),
    "manifest isic2017": Verb(2),
    "audit": Verb(place=None),
    "extract": Verb(resumes=True),
    "train": Verb(),
    "sweep": Verb(resumes=True),
    "compare": Verb(place=None),
    "table": Verb(place=None),
    "evaluate": Verb(place=None),
    "predict": Verb(place=None),
    "explain": Verb(place=None),
    "report": Verb(place=None, usual="report.html", resumes=True),
    "plot": Verb(place=None, usual="figure.pdf", resumes=True),
    "export": Verb(),
    "card": Verb(),
}


@dataclass(frozen=True)
class Step:
    """A command of a pipeline.

    Attributes:
        name: Its own, or its verb with a number.
        arguments: As typed, without `samcls`.
        verb: Its key in `VERBS`.
        makes: Path that it makes, as typed; None of one that prints alone.
        needs: Names of the steps that make what it names.
    """

    name: str
    arguments: tuple[str, ...]
    verb: str
    makes: str | None
    needs: tuple[str, ...] = ()

    @property
    def kind(self) -> Verb:
        """What its verb makes."""
        return VERBS[self.verb]


@dataclass(frozen=True)
class Pipeline:
    """Steps in the order of the file.

    Attributes:
        path: Of the file.
        steps: Each after those that it needs.
    """

    path: Path
    steps: tuple[Step, ...] = field(default_factory=tuple)

    @property
    def folder(self) -> Path:
        """Where paths start."""
        return self.path.resolve().parent


def load_pipeline(path: str | Path) -> Pipeline:
    """Read a pipeline.

    Raises:
        ConfigError: with all that is wrong, one a line.
    """
    path = Path(path)
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the pipeline {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not a TOML file: {error}") from error
    tables = found.get("step")
    if not isinstance(tables, list) or not tables or set(found) - {"step"}:
        strange = ", ".join(sorted(set(found) - {"step"})) or "no [[step]]"
        raise ConfigError(f'{path}: got {strange}; expected tables [[step]], each with run = "..."')
    steps: list[Step] = []
    problems: list[str] = []
    for number, table in enumerate(tables, 1):
        step, wrong = _step(table, number, steps)
        problems += [f"step {number}: {one}" for one in wrong]
        if step is not None:
            steps.append(step)
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise ConfigError(f"{path}: {count}\n" + "\n".join(f"  {one}" for one in problems))
    return Pipeline(path, tuple(steps))


def _step(table: Any, number: int, before: Sequence[Step]) -> tuple[Step | None, list[str]]:
    if not isinstance(table, dict) or not isinstance(table.get("run"), str):
        return None, ['it has no run; expected run = "train features.zarr run" or its like']
    wrong = [
        f"{key}: unknown key; known are name and run" for key in table if key not in ("name", "run")
    ]
    try:
        arguments = shlex.split(table["run"])
    except ValueError as error:
        return None, [*wrong, f"run cannot be read: {error}"]
    arguments = arguments[1:] if arguments[:1] == ["samcls"] else arguments
    verb = next(
        (
            name
            for name in (" ".join(arguments[:2]), arguments[0] if arguments else "")
            if name in VERBS
        ),
        None,
    )
    if verb is None:
        asked = " ".join(arguments[:1]) or "nothing"
        return None, [
            *wrong,
            f"there is no step {asked}{meant(asked, VERBS)}; known are {', '.join(VERBS)}",
        ]
    kind = VERBS[verb]
    name = table.get("name", verb.replace(" ", "-"))
    taken = [one.name for one in before]
    if "name" in table and (not isinstance(name, str) or not name or name in taken):
        return None, [*wrong, f"name: got {name!r}, expected a text that no other step has"]
    while name in taken:
        name = f"{verb.replace(' ', '-')}-{number}"
    makes = _made(arguments, kind)
    if kind.place is not None and makes is None:
        return None, [
            *wrong,
            f"{verb} names nothing that it makes; expected samcls {verb} with all its arguments",
        ]
    if makes in [one.makes for one in before] and makes is not None:
        wrong.append(
            f"{makes} is made by step {next(one.name for one in before if one.makes == makes)} already"
        )
    needs = tuple(
        one.name
        for one in before
        if one.makes is not None
        and one.makes != makes
        and any(lies_in(text, one.makes) for text in _named(arguments))
    )
    return Step(name, tuple(arguments), verb, makes, needs), wrong


def _made(arguments: Sequence[str], kind: Verb) -> str | None:
    """Return what a command makes, as typed."""
    if kind.place is not None:
        plain = _plain(arguments[kind.words :])
        return plain[kind.place] if len(plain) > kind.place else None
    for place, text in enumerate(arguments):
        if text == kind.option and place + 1 < len(arguments):
            return arguments[place + 1]
        if text.startswith(f"{kind.option}="):
            return text.partition("=")[2]
    return kind.usual


def _plain(arguments: Sequence[str]) -> list[str]:
    """Return the arguments before the first option: options with values cannot be told from flags here."""
    found = []
    for text in arguments:
        if text.startswith("-") and len(text) > 1:
            break
        found.append(text)
    return found


def lies_in(text: str, place: str) -> bool:
    """Whether a text names a path, or one inside it, however it is spelled.

    Args:
        text: That may name something.
        place: The path.
    """
    one, other = os.path.normpath(text), os.path.normpath(place)
    return one == other or one.startswith(other + os.sep)


def _named(arguments: Sequence[str]) -> set[str]:
    """Return every text that may name a path: arguments, and the values of options."""
    return {part for text in arguments for part in (text, text.partition("=")[2]) if part}
