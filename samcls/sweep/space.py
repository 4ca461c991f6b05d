"""The space of a sweep: one TOML file, checked as a whole before any work begins.

name = "breast"              # optional
search = "random"            # grid, random, halving (on epochs) or tpe (needs samcls[sweep-tpe])
runs = 200                   # configurations; of halving, in its first round; not for grid
seed = 0                     # of the draw
seeds = 1                    # runs of every configuration: fixed.seed, the next, ...
folds = 0                    # cross-validate every configuration over so many folds
fractions = [0.25, 0.5, 1.0] # train on nested shares of the training split, crossed with all

[fixed]                      # any key of `samcls train --config`
epochs = 30

[space]                      # see `axes`; several [[space]] tables give each head its own keys
head = ["slca", "linear"]
learning_rate = {low = 1e-4, high = 3e-2, log = true}

[halving]
factor = 3                   # the best third goes on, with three times the epochs
min_epochs = 5

[tpe]
batch = 16                   # configurations proposed at a time

space = load_space("space.toml")
for trial in space.trials():
    trial.key, trial.members
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samcls.config import Config, option, options_of, parse, present_name, to_dict
from samcls.errors import ConfigError
from samcls.learn.heads.registry import unknown_head
from samcls.learn.settings import TrainConfig
from samcls.sweep.axes import Axis, Between, Choices, attempt, read_axis, read_values
from samcls.sweep.trials import Search, Space, Trial, neutral

__all__ = ["Search", "Space", "Trial", "load_space", "neutral", "parse_space"]

KNOWN = options_of(TrainConfig)
# What stays equal over a sweep, and why; of which a sweep sets itself what divides the images.
EQUAL = {name: known.unswept for name, known in KNOWN.items() if known.unswept}
OWN = {
    name: why for name, why in EQUAL.items() if KNOWN[name].repeats and KNOWN[name].role == "data"
}


@dataclass(frozen=True)
class _Options(Config):
    """The file's own keys."""

    name: str = ""
    search: Search = "random"
    runs: int = option(0, at_least=0)
    seed: int = option(0, at_least=0, at_most=2**32 - 1)
    seeds: int = option(1, at_least=1)
    folds: int = option(0, at_least=0)
    nested: bool = option(False)
    fractions: tuple[float, ...] = option((), distinct=True)


@dataclass(frozen=True)
class _Halving(Config):
    factor: int = option(3, at_least=2)
    min_epochs: int = option(5, at_least=1)


@dataclass(frozen=True)
class _TPE(Config):
    batch: int = option(16, at_least=1)


TABLES: dict[str, type[Config]] = {"halving": _Halving, "tpe": _TPE}


def load_space(path: str | Path, fixed: Mapping[str, Any] | None = None) -> Space:
    """Read a space.

    Args:
        path: The file.
        fixed: As for `parse_space`.

    Raises:
        ConfigError: where the file is missing, is not TOML, or holds anything wrong; all that is
            wrong with it is said at once.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"cannot read the space {path}: {reason}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not a TOML file: {error}") from error
    return parse_space(text, str(path), fixed)


def parse_space(
    text: str, where: str = "the space", fixed: Mapping[str, Any] | None = None
) -> Space:
    """Return a space from its text.

    Args:
        text: TOML.
        where: What error messages call it.
        fixed: Values in place of those of its table [fixed], or beside them.

    Raises:
        ConfigError: as `load_space`.
    """
    try:
        given = tomllib.loads(text)
    except ValueError as error:
        raise ConfigError(f"{where} is not a TOML file: {error}") from error
    tables = {name: given.pop(name, {}) for name in ("fixed", *TABLES)}
    parts = given.pop("space", {})
    problems = [
        f"{name}: got {value!r}, expected a table [{name}]"
        for name, value in tables.items()
        if not isinstance(value, dict)
    ]
    tables = {name: value if isinstance(value, dict) else {} for name, value in tables.items()}
    if fixed:
        tables["fixed"] = TrainConfig.renewed(tables["fixed"]) | TrainConfig.renewed(fixed)
        text += f"\n# in place of what stands under [fixed]: {json.dumps(dict(fixed))}\n"
    options, wrong = attempt(lambda: parse(_Options, given, ""))
    problems += wrong
    chosen = {}
    for name, table in TABLES.items():
        chosen[name], wrong = attempt(lambda t=table, n=name: parse(t, tables[n], ""))  # type: ignore[misc]
        problems += [f"{name}.{line}" for line in wrong]
    shared, wrong = _fixed(tables["fixed"])
    problems += wrong
    axes, wrong = _parts(parts, tables["fixed"])
    problems += wrong
    search = given.get("search", "random")
    problems += _search_problems(search, axes)
    if options is not None:
        problems += _option_problems(options, given)
    if search == "halving" and chosen["halving"] is not None:
        problems += _halving_problems(chosen["halving"], axes, shared)
    if problems:
        raise ConfigError(_report(where, problems))
    own = {k: v for k, v in vars(options).items() if k != "fractions"}
    fractions = tuple(sorted(options.fractions)) if options and options.fractions else (1.0,)
    more = {k: v for config in chosen.values() if config for k, v in to_dict(config).items()}
    return Space(**own, fractions=fractions, fixed=shared, parts=axes, **more, text=text)


def _fixed(given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    fixed, problems = read_values({k: v for k, v in given.items() if k not in OWN})
    problems += [f"{name}: {reason}" for name, reason in OWN.items() if name in given]
    if "head" in fixed:
        problems += [f"head: {line}" for line in unknown_head(fixed["head"])]
    return fixed, [f"fixed.{line}" for line in problems]


def _parts(
    given: Any, fixed: Mapping[str, Any]
) -> tuple[tuple[Mapping[str, Axis], ...], list[str]]:
    """Every [space] table's axes, and what is wrong with them."""
    tables = given if isinstance(given, list) else [given]
    if not tables or not all(isinstance(table, dict) and table for table in tables):
        return (), ["space: expected a table [space] with a key at least, or several [[space]]"]
    axes, problems = [], []
    for number, table in enumerate(tables):
        where = "space" if len(tables) == 1 else f"space[{number}]"
        part, wrong = _part(table, fixed)
        axes.append(part)
        problems += [f"{where}.{line}" for line in wrong]
    return tuple(axes), problems


def _part(table: Mapping[str, Any], fixed: Mapping[str, Any]) -> tuple[dict[str, Axis], list[str]]:
    axes: dict[str, Axis] = {}
    problems: list[str] = []
    for given, value in table.items():
        name = present_name(TrainConfig, given)
        if name in axes:
            problems.append(f"{given}: stands there as {name} too; take out one of them")
        if name in EQUAL:
            problems.append(f"{name}: {EQUAL[name]}")
            continue
        axis, wrong = read_axis(name, value)
        problems += wrong
        if name in fixed:
            problems.append(f"{name}: stands under [fixed] too; take out one of them")
        if axis is not None:
            axes[name] = axis
    heads = axes.get("head")
    for head in heads.values if isinstance(heads, Choices) else ():
        problems += [f"head: {line}" for line in unknown_head(head)]
    return axes, problems


def _search_problems(search: Any, parts: tuple[Mapping[str, Axis], ...]) -> list[str]:
    if search != "grid":
        return []
    return [
        f"space.{name}: a distribution has no grid; give a list or a step, or another search"
        for name in dict.fromkeys(
            n for part in parts for n, a in part.items() if isinstance(a, Between)
        )
    ]


def _option_problems(options: _Options, given: Mapping[str, Any]) -> list[str]:
    problems = []
    if options.search == "grid" and "runs" in given:
        problems.append("runs: a grid runs all its points; take the key out, or use another search")
    if options.search != "grid" and not options.runs:
        problems.append(f"runs: expected a number of configurations for search {options.search}")
    if options.folds == 1:
        problems.append("folds: got 1, expected 0 (the stored splits) or at least 2")
    if options.nested:
        problems += _nested_problems(options)
    problems += [
        f"fractions: got {fraction:g}, expected above 0 and at most 1"
        for fraction in options.fractions
        if not 0 < fraction <= 1
    ]
    return problems


def _nested_problems(options: _Options) -> list[str]:
    problems = []
    if options.folds < 2:
        problems.append("nested: each fold chooses for itself, and there are none; give folds = 5")
    if options.search not in {"grid", "random"}:
        problems.append(
            f"nested: search {options.search} lets the images of all folds decide what is tried; take "
            "grid or random"
        )
    if len(options.fractions) > 1:
        problems.append("nested: not with several fractions; take out one of the two")
    return problems


def _halving_problems(
    halving: Config, parts: tuple[Mapping[str, Axis], ...], fixed: Mapping[str, Any]
) -> list[str]:
    problems = []
    if any("epochs" in part for part in parts):
        problems.append("space.epochs: halving raises epochs itself; fix the most under [fixed]")
    most = fixed.get("epochs", TrainConfig().epochs)
    least = to_dict(halving)["min_epochs"]
    if least >= most:
        problems.append(
            f"halving.min_epochs: got {least}, expected fewer than fixed.epochs ({most})"
        )
    return problems


def _report(where: str, problems: list[str]) -> str:
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return f"{where}: {count}\n" + "\n".join(f"  {problem}" for problem in problems)
