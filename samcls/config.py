"""Settings as frozen dataclasses, read from and written to TOML, each with one digest.

A configuration is parsed once, at the edge, into a value that cannot be wrong: every problem of a
file is reported in one error, before any work begins. A field says all that there is to know of it:
its range, its sentence of help, its group and spelling on the command line, and its role, from which
everything else that goes through fields is derived. Reading one imports nothing heavy.

    config = load_toml(TrainConfig, "train.toml")
    print(to_toml(config), digest(config))
    names_of(TrainConfig, "data", "form")
"""

import difflib
import hashlib
import json
import math
import re
import textwrap
import tomllib
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from samcls.errors import ConfigError

__all__ = [
    "Config",
    "Group",
    "Option",
    "Precision",
    "Resize",
    "Role",
    "defaults_of",
    "digest",
    "documented",
    "load_toml",
    "names_of",
    "option",
    "options_of",
    "parse",
    "present_name",
    "to_dict",
    "to_toml",
    "values_of",
]

C = TypeVar("C", bound="Config")
D = TypeVar("D", bound=type)
T = TypeVar("T")
Limit = int | float | None
Role = Literal["data", "form", "step", "member", "figures"]
Group = Literal["Data", "Encoder", "Store", "Head", "Optimiser", "Evaluation", "Guided", "Machine"]

Resize = Literal["longest", "stretch"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]

NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


@dataclass(frozen=True)
class Option:
    """What is known of a field besides its type and its default.

    Attributes:
        text: What it is, in a sentence: in the class's documentation, in `--help` and in the docs.
        role: `data` (which features and targets), `form` (what is built), `step` (what a step costs),
            `member` (what may differ among heads trained together), `figures` (what is reported).
        group: Under which heading `--help` lists it.
        flags: Its spellings on the command line, where they are not its name alone.
        unit: What its numbers count, for pictures.
        heads: The heads that read it, `guided` for all of timm's networks; empty means all.
        repeats: Whether it tells the runs of one configuration of a sweep apart.
        unswept: Why a sweep's space cannot vary it, and what to do instead; empty where it can.
        limits: Range of its values.
        distinct: For a list: no entry may stand in it twice.
        former: Its name in files of earlier versions, which are still read.
        pattern: Of a text: the regular expression that it must match; empty where it may be anything.
        expected: What an error calls such a text.
    """

    text: str = ""
    role: Role | None = None
    group: Group | None = None
    flags: tuple[str, ...] = ()
    unit: str = ""
    heads: tuple[str, ...] = ()
    repeats: bool = False
    unswept: str = ""
    limits: Mapping[str, Limit] = field(default_factory=dict)
    distinct: bool = False
    former: str | None = None
    pattern: str = ""
    expected: str = ""


PLAIN = Option()


def option(
    default: T,
    text: str = "",
    *,
    at_least: Limit = None,
    at_most: Limit = None,
    above: Limit = None,
    below: Limit = None,
    **more: Any,
) -> T:
    """Return a field of a `Config` with all that is known of it.

    Args:
        default: The value where none is given. A field that may be None must default to None, since
            TOML has no null: an unset field is a key left out.
        text: What it is, in a sentence.
        at_least: Lowest value allowed.
        at_most: Highest value allowed.
        above: Every value must exceed this.
        below: Every value must stay under this.
        more: The other attributes of `Option`.
    """
    limits = {"at least": at_least, "at most": at_most, "above": above, "below": below}
    known = Option(text, limits=limits, **more)
    chosen: T = field(default=default, metadata={"option": known})
    return chosen


class Config:
    """Base of the frozen dataclasses of settings: cannot hold a wrong value.

    Fields are bool, int, float, str, `Literal` of texts, `tuple[X, ...]`, or one of these `| None`.

    Attributes:
        defaults_version: Number that changes with any field's default, for digests name only what
            differs from the defaults.
        former_defaults: Defaults of earlier versions, by name, that digests go on to be counted from.

    Raises:
        ConfigError: naming every field that is wrong, what was got and what was expected.
    """

    defaults_version: ClassVar[int] = 1
    former_defaults: ClassVar[Mapping[str, Any]] = {}

    def __post_init__(self) -> None:
        values, problems = _examine(
            type(self), {f.name: getattr(self, f.name) for f in _fields(self)}
        )
        if problems:
            raise ConfigError(_report(type(self).__name__, problems))
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @classmethod
    def renewed(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values by the names of today, where a file of an earlier version has former ones."""
        former = {known.former: name for name, known in options_of(cls).items() if known.former}
        return {former.get(name, name): value for name, value in values.items()}


def documented(cls: D) -> D:
    """Class decorator: its docstring goes on with the sentence of each field."""
    wide = {"width": 100, "initial_indent": " " * 8, "subsequent_indent": " " * 12}
    lines = (f"{name}: {known.text}" for name, known in options_of(cls).items())
    said = "\n".join(textwrap.fill(line, **wide) for line in lines)  # type: ignore[arg-type]
    cls.__doc__ = f"{(cls.__doc__ or '').rstrip()}\n\n    Attributes:\n{said}\n    "
    return cls


def parse(cls: type[C], values: Mapping[str, Any], where: str) -> C:
    """Build a `cls` from a mapping, defaults standing in for keys left out.

    Args:
        cls: The dataclass wanted.
        values: Field names to values, lists for tuples.
        where: What error messages call the source, such as the file's name.

    Raises:
        ConfigError: with every unknown key, wrong type and value out of range, one a line.
    """
    parsed, problems = _examine(cls, values)
    if problems:
        raise ConfigError(_report(where, problems))
    return cls(**parsed)


def load_toml(cls: type[C], path: str | Path) -> C:
    """Read a `cls` from a TOML file.

    Raises:
        ConfigError: where the file is missing, is not TOML, or holds anything wrong; all that is
            wrong with its keys is said at once.
    """
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"cannot read the configuration file {path}: {reason}") from error
    except ValueError as error:  # tomllib's own error, and text that is not UTF-8
        raise ConfigError(f"{path} is not a TOML file: {error}") from error
    return parse(cls, values, str(path))


def to_dict(config: Config) -> dict[str, Any]:
    """All fields by name, as JSON knows them: tuples become lists, an unset field None."""
    plain = values_of(config).items()
    return {name: list(v) if isinstance(v, tuple) else v for name, v in plain}


def to_toml(config: Config) -> str:
    """Return the TOML text that `load_toml` reads back as an equal value; unset fields are left out."""
    lines = [f"{name} = {_toml(v)}\n" for name, v in to_dict(config).items() if v is not None]
    return "".join(lines)


def digest(config: Config) -> str:
    """Hexadecimal sha256 over what differs from the defaults: equal configs, equal digests.

    A new field changes no digest of configs that leave it alone; a new default of an old field goes
    with its old one among `former_defaults`, or with another `defaults_version`.
    """
    usual = {**defaults_of(type(config)), **config.former_defaults}
    own = {name: value for name, value in values_of(config).items() if value != usual[name]}
    said = [config.defaults_version, own]
    text = json.dumps(said, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def options_of(cls: type) -> dict[str, Option]:
    """Return what is known of each field, by name, in the class's order."""
    return {f.name: f.metadata.get("option", PLAIN) for f in fields(cls)}


def names_of(cls: type[Config], *roles: Role) -> tuple[str, ...]:
    """Names of the fields of some roles; of all of them where none is named."""
    return tuple(
        name for name, known in options_of(cls).items() if not roles or known.role in roles
    )


def values_of(config: Config, *roles: Role) -> dict[str, Any]:
    """Values by name of the fields of some roles; of all of them where none is named."""
    return {name: getattr(config, name) for name in names_of(type(config), *roles)}


def defaults_of(cls: type[Config], *roles: Role) -> dict[str, Any]:
    """Defaults by name of the fields of some roles; of all of them where none is named."""
    named = names_of(cls, *roles)
    return {f.name: f.default for f in _fields(cls) if f.name in named}


def present_name(cls: type[Config], name: str) -> str:
    """Return a field's name of today, where a former one is given."""
    former = (now for now, known in options_of(cls).items() if known.former == name)
    return next(former, name)


def _fields(config: Config | type[Config]) -> tuple[Field[Any], ...]:
    return fields(config)  # type: ignore[arg-type] # every subclass is a dataclass


def _report(where: str, problems: list[str]) -> str:
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return f"{where}: {count}\n" + "\n".join(f"  {problem}" for problem in problems)


def _examine(cls: type[Config], values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the values converted to their fields' types, and a sentence for each that cannot be."""
    hints = get_type_hints(cls)
    known = options_of(cls)
    parsed: dict[str, Any] = {}
    problems: list[str] = []
    for name, value in cls.renewed(values).items():
        if name not in known:
            problems.append(_unknown(name, list(known)))
            continue
        try:
            parsed[name] = _convert(hints[name], value)
        except TypeError as error:
            problems.append(f"{name}: got {_shown(value)}, expected {error}")
            continue
        problems += [f"{name}: {wrong}" for wrong in _outside(parsed[name], known[name])]
    return parsed, problems


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    advice = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}"
    return f"{name}: unknown key; {advice}"


def _convert(hint: Any, value: Any) -> Any:
    """Return the value as the type asked for; a TypeError's text says what was expected."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in {Union, UnionType}:
        inner = next(a for a in arguments if a is not NoneType)
        return None if value is None else _convert(inner, value)
    if origin is Literal:
        if isinstance(value, str) and value in arguments:
            return value
        raise TypeError(" or ".join(json.dumps(a) for a in arguments))
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise TypeError(f"a list, each entry {NAMES[arguments[0]]}")
        try:
            return tuple(_convert(arguments[0], entry) for entry in value)
        except TypeError as error:
            raise TypeError(f"a list, each entry {error}") from None
    if hint is float and type(value) is int and abs(value) < 2**1023:
        value = float(value)
    # The exact type: Python counts True as an int, and a config must not.
    if type(value) is not hint:
        raise TypeError(NAMES[hint])
    return value


def _outside(value: Any, rules: Option) -> list[str]:
    """Return what of the range, finiteness and distinctness rules the value breaks."""
    wrong = []
    if isinstance(value, float) and not math.isfinite(value):
        return [f"got {value}, expected a finite number"]
    if isinstance(value, str) and rules.pattern and not re.fullmatch(rules.pattern, value):
        wrong.append(f"got {json.dumps(value)}, expected {rules.expected}")
    if isinstance(value, tuple) and rules.distinct:
        twice = sorted({str(entry) for entry in value if value.count(entry) > 1})
        wrong += [f"{entry} is named twice" for entry in twice]
    if isinstance(value, int | float):
        fits = {
            "at least": lambda limit: value >= limit,
            "at most": lambda limit: value <= limit,
            "above": lambda limit: value > limit,
            "below": lambda limit: value < limit,
        }
        limits = {k: v for k, v in rules.limits.items() if v is not None}
        if not all(fits[kind](limit) for kind, limit in limits.items()):
            expected = " and ".join(f"{kind} {limit:g}" for kind, limit in limits.items())
            wrong.append(f"got {value}, expected {expected}")
    return wrong


def _shown(value: Any) -> str:
    try:
        return json.dumps(value)
    except (TypeError, ValueError):
        return repr(value)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        # JSON's escapes are TOML's, except that TOML wants DEL escaped too.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return "[" + ", ".join(_toml(entry) for entry in value) + "]"
    return repr(value)
