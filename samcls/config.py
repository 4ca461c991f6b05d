"""Settings as frozen dataclasses, read from and written to TOML, each with one digest.

A configuration is parsed once, at the edge, into a value that cannot be wrong: every problem of a
file is reported in one error, before any work begins. Reading one takes under a millisecond and
imports nothing heavy.

    config = load_toml(TrainConfig, "train.toml")
    print(to_toml(config), digest(config))
"""

import difflib
import hashlib
import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from samcls.errors import ConfigError

__all__ = [
    "Config",
    "Control",
    "Gate",
    "Loss",
    "Precision",
    "TrainConfig",
    "Upsampling",
    "digest",
    "load_toml",
    "option",
    "parse",
    "to_dict",
    "to_toml",
]

C = TypeVar("C", bound="Config")
T = TypeVar("T")
Limit = int | float | None
Control = Literal["none", "plain", "shuffled", "se"]
Gate = Literal["multiply", "residual"]
Loss = Literal["cross_entropy", "focal"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
Upsampling = Literal["nearest", "bilinear"]

NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def option(
    default: T,
    *,
    at_least: Limit = None,
    at_most: Limit = None,
    above: Limit = None,
    below: Limit = None,
    distinct: bool = False,
    former: str | None = None,
) -> T:
    """A field of a `Config` with the range of its values.

    Args:
        default: The value where none is given. A field that may be None must default to None, since
            TOML has no null: an unset field is a key left out.
        at_least: Lowest value allowed.
        at_most: Highest value allowed.
        above: Every value must exceed this.
        below: Every value must stay under this.
        distinct: For a list: no entry may stand in it twice.
        former: The key's name in files of earlier versions, which are still read.
    """
    limits = {"at least": at_least, "at most": at_most, "above": above, "below": below}
    chosen: T = field(
        default=default, metadata={"limits": limits, "distinct": distinct, "former": former}
    )
    return chosen


class Config:
    """Base of the frozen dataclasses of settings: cannot hold a wrong value.

    Fields are bool, int, float, str, `Literal` of texts, `tuple[X, ...]`, or one of these `| None`.

    Raises:
        ConfigError: naming every field that is wrong, what was got and what was expected.
    """

    def __post_init__(self) -> None:
        values, problems = _examine(
            type(self), {f.name: getattr(self, f.name) for f in _fields(self)}
        )
        if problems:
            raise ConfigError(_report(type(self).__name__, problems))
        for name, value in values.items():
            object.__setattr__(self, name, value)


@dataclass(frozen=True)
class TrainConfig(Config):
    """One run of stage two: which features, which head, how it is trained.

    The defaults were chosen on the validation AUC of BreastMNIST and RetinaMNIST under an untrained
    miniature encoder, among rates of 0.001 to 0.03, dropout of 0 to 0.5, decay of 0.01 to 1.

    Attributes:
        head: Name of the head, as in `samcls.learn.heads.HEADS`, or `guided:` and a timm model.
        levels: Levels of the store that the head sees; empty means all of them.
        tasks: Label columns to learn; empty means all of them.
        labels: CSV with a column `id` and one for each task, in place of the store's labels.
        missing: What means that a label is missing in that CSV, besides an empty cell.
        ordinal: Tasks whose classes are learned as ordered, by a cumulative link; empty means those
            that the manifest declares, `none` none of them.
        positive: Class of each task of two that scores, sensitivity and its like are of, as `CLASS` or
            `TASK=CLASS`; the last one where none is named.
        folds: Divide all images into so many group-aware, stratified folds in place of the stored
            splits; 0 keeps the splits.
        fold: Which of the folds is the test split, from 0.
        train_fraction: Share of the training split that is learned from, above 0; validation and
            test stay whole. Shares of one seed are nested, stratified by class, groups whole.
        window: Side of SLCA's pooling window in cells of the encoder's map. Unset means the window
            that the store was pooled with; otherwise a multiple of that.
        reduction: SLCA's bottleneck: channels / reduction hidden channels.
        gate: `multiply` gives x * A, `residual` gives x + x * A.
        upsampling: `nearest` gives every cell its window's gate; `bilinear` interpolates between
            windows, which needs a store of whole maps (window 1).
        gate_bias: Whether SLCA's two layers have biases.
        gate_channels: Channels of SLCA's gate (C_out), each for a run of neighbouring channels; 0
            gives every channel its own.
        hidden: Width of the hidden layer after pooling; 0 means a linear classifier, and for the
            `mlp` head 256.
        dropout: Share of pooled features dropped in training, in [0, 1).
        epochs: Most passes over the training split.
        patience: Epochs without a better validation AUC before training stops; 0 means never.
        batch_size: Images a step.
        learning_rate: AdamW's peak rate, reached after the warm-up and then lowered along a cosine.
        warmup: Share of all steps over which the rate rises from zero, in [0, 1).
        weight_decay: AdamW's decoupled decay, on weights and not on biases.
        loss: `focal` weighs an image down by (1 - p) ** focal_gamma, p being its class's
            probability.
        focal_gamma: The focal loss's exponent.
        label_smoothing: Share of each label that is spread over all classes, in [0, 1).
        class_weights: `balanced` weighs each class by the inverse of its share in training.
        precision: Of training's matrix products; `auto` is bfloat16 on GPUs that multiply it
            natively and float32 elsewhere. Weights, loss and all figures stay in float32.
        stages: Of a `guided:` network, which points are gated (`stem`, `stage1` to `stage4`); empty
            means the last ones, one for each level.
        guided_gate: `gate` for a guided network.
        guided_control: What stands in for its gates: `plain` has none; `se` has gates of as many
            parameters on the network's own features; `shuffled` feeds them other images' features.
        pretrained: Whether the network starts from timm's pretrained weights.
        freeze_backbone: Whether only its gates and its classifier learn.
        backbone_learning_rate: The network's own peak rate; `learning_rate` is its gates' and its
            classifier's.
        accumulate: Parts in which a step's images pass through the network, for want of memory.
        channels_last: Whether the network's maps lie in memory with their channels innermost.
        compile: Whether the network is compiled, which costs a minute before the first step.
        jitter: Most by which brightness and contrast of training images are changed, in [0, 1).
        intervals: Most parts of the images (groups, where there are not more of them) that are left
            out in turn for the intervals; 0 means no intervals.
        seed: Of initial weights, order of images, dropout and the training share.
    """

    head: str = "slca"
    levels: tuple[str, ...] = option((), distinct=True)
    tasks: tuple[str, ...] = option((), distinct=True)
    labels: str | None = None
    missing: tuple[str, ...] = option((), distinct=True)
    ordinal: tuple[str, ...] = option((), distinct=True)
    positive: tuple[str, ...] = option((), distinct=True)
    folds: int = option(0, at_least=0)
    fold: int = option(0, at_least=0)
    train_fraction: float = option(1.0, above=0.0, at_most=1.0)
    window: int | None = option(None, at_least=1)
    reduction: int = option(16, at_least=1)
    gate: Gate = "multiply"
    upsampling: Upsampling = "nearest"
    gate_bias: bool = True
    gate_channels: int = option(0, at_least=0)
    hidden: int = option(0, at_least=0)
    dropout: float = option(0.2, at_least=0.0, below=1.0)
    epochs: int = option(60, at_least=1)
    patience: int = option(20, at_least=0)
    batch_size: int = option(64, at_least=1)
    learning_rate: float = option(5e-3, above=0.0)
    warmup: float = option(0.05, at_least=0.0, below=1.0)
    weight_decay: float = option(0.1, at_least=0.0)
    loss: Loss = "cross_entropy"
    focal_gamma: float = option(2.0, at_least=0.0)
    label_smoothing: float = option(0.0, at_least=0.0, below=1.0)
    class_weights: Literal["none", "balanced"] = "none"
    precision: Precision = "float32"
    stages: tuple[str, ...] = option((), distinct=True)
    guided_gate: Gate = "residual"
    guided_control: Control = "none"
    pretrained: bool = True
    freeze_backbone: bool = False
    backbone_learning_rate: float = option(3e-4, above=0.0)
    accumulate: int = option(1, at_least=1)
    channels_last: bool = False
    compile: bool = False
    jitter: float = option(0.0, at_least=0.0, below=1.0)
    intervals: int = option(1000, at_least=0, former="bootstrap")
    seed: int = option(0, at_least=0, at_most=2**63 - 1)


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
    plain = {f.name: getattr(config, f.name) for f in _fields(config)}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in plain.items()}


def to_toml(config: Config) -> str:
    """The TOML text that `load_toml` reads back as an equal value; unset fields are left out."""
    lines = [f"{name} = {_toml(v)}\n" for name, v in to_dict(config).items() if v is not None]
    return "".join(lines)


def digest(config: Config) -> str:
    """Hexadecimal sha256 over the canonical JSON of all fields: equal configs, equal digests."""
    text = json.dumps(to_dict(config), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _fields(config: Config | type[Config]) -> tuple[Any, ...]:
    return fields(config)  # type: ignore[arg-type] # every subclass is a dataclass


def _report(where: str, problems: list[str]) -> str:
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return f"{where}: {count}\n" + "\n".join(f"  {problem}" for problem in problems)


def _examine(cls: type[Config], values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The values converted to their fields' types, and a sentence for each that cannot be."""
    hints = get_type_hints(cls)
    known = {f.name: f.metadata for f in _fields(cls)}
    former = {rules["former"]: name for name, rules in known.items() if rules.get("former")}
    parsed: dict[str, Any] = {}
    problems: list[str] = []
    for given, value in values.items():
        name = former.get(given, given)
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
    """The value as the type asked for; a TypeError's text says what was expected."""
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


def _outside(value: Any, rules: Mapping[str, Any]) -> list[str]:
    """What of the range, finiteness and distinctness rules the value breaks."""
    wrong = []
    if isinstance(value, float) and not math.isfinite(value):
        return [f"got {value}, expected a finite number"]
    if isinstance(value, tuple) and rules.get("distinct"):
        twice = sorted({str(entry) for entry in value if value.count(entry) > 1})
        wrong += [f"{entry} is named twice" for entry in twice]
    if isinstance(value, int | float):
        fits = {
            "at least": lambda limit: value >= limit,
            "at most": lambda limit: value <= limit,
            "above": lambda limit: value > limit,
            "below": lambda limit: value < limit,
        }
        limits = {k: v for k, v in rules.get("limits", {}).items() if v is not None}
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
