"""One role for every field, and no second list of fields: what is trained together follows from roles."""

import ast
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args

import pytest

from samcls.config import (
    Config,
    Group,
    Role,
    digest,
    documented,
    names_of,
    option,
    options_of,
    parse,
    present_name,
)
from samcls.errors import ConfigError
from samcls.learn.fit.members import architecture
from samcls.learn.settings import TrainConfig
from samcls.sweep.shared import division
from samcls.sweep.space import parse_space

PACKAGE = Path(__file__).parent.parent / "samcls"
# Formats of files, some of whose keys are called as fields are.
FORMATS = {"learn/fit/prediction.py", "learn/runs/result.py"}
# The defaults that `defaults_version` counts: a digest names only what differs from them.
DEFAULTS = {
    "head": "slca", "members": 2, "select": "holdout", "with_meta": (), "levels": (), "tasks": (), "labels": None, "missing": (), "ordinal": (),
    "positive": (), "folds": 0, "fold": 0, "train_fraction": 1.0, "window": None, "reduction": 16,
    "gate": None, "upsampling": "nearest", "gate_bias": True, "gate_channels": 0, "hidden": 0,
    "dropout": 0.2, "epochs": 60, "patience": 20, "batch_size": 64, "learning_rate": 5e-3,
    "warmup": 0.05, "weight_decay": 0.1, "loss": "cross_entropy", "focal_gamma": 2.0,
    "label_smoothing": 0.0, "class_weights": "none", "precision": "float32", "stages": (),
    "control": "none", "pretrained": True, "freeze_backbone": False,
    "backbone_learning_rate": 3e-4, "accumulate": 1, "channels_last": False, "compile": False,
    "jitter": 0.0, "intervals": 1000, "seed": 0,
}  # fmt: skip


@dataclass(frozen=True)
class Toy(TrainConfig):
    """The settings and a new one of each role."""

    shift: int = option(0, "Of the images.", role="data", group="Data")
    width: int = option(0, "Of what is built.", role="form", group="Head")
    parts: int = option(1, "Of a step.", role="step", group="Machine")
    push: float = option(0.0, "Of the weights.", role="member", group="Optimiser")
    digits: int = option(3, "Of figures.", role="figures", group="Evaluation")


@pytest.mark.parametrize("name", [f.name for f in fields(TrainConfig)])
def test_every_field_says_what_it_is(name: str) -> None:
    """A field has one role, one group and a sentence, which stands in the class's documentation."""
    known = options_of(TrainConfig)[name]
    assert known.role in get_args(Role)
    assert known.group in get_args(Group)
    assert known.text.endswith(".")
    assert f"        {name}: {known.text[:20]}" in (TrainConfig.__doc__ or "")


def test_roles_divide_the_fields() -> None:
    """Every field is of one role alone."""
    named = [name for role in get_args(Role) for name in names_of(TrainConfig, role)]
    assert sorted(named) == sorted(names_of(TrainConfig))
    assert len(set(named)) == len(named)


@pytest.mark.parametrize(("name", "value"), [("shift", 1), ("width", 1), ("parts", 2)])
def test_a_new_option_of_data_form_or_step_keeps_heads_apart(name: str, value: int) -> None:
    """Heads that differ in it are never trained as one stack, with no list to be kept."""
    assert architecture(Toy()) != architecture(replace(Toy(), **{name: value}))


@pytest.mark.parametrize(("name", "value"), [("push", 0.5), ("digits", 4)])
def test_a_new_option_of_a_member_or_of_figures_does_not(name: str, value: float) -> None:
    """Heads that differ in it are trained together, as those of other rates are."""
    assert architecture(Toy()) == architecture(replace(Toy(), **{name: value}))


def test_a_new_option_of_data_divides_shared_features() -> None:
    """Features made under another value of it are never taken for these."""
    assert division(Toy()) != division(Toy(shift=1))
    assert division(Toy()) == division(Toy(width=1, parts=2, push=0.5, digits=4))
    assert division(Toy(levels=("neck",))) == division(Toy())  # a level is a file of its own


def test_a_new_option_changes_no_digest() -> None:
    """Finished sweeps stay finished: a digest is of what differs from the defaults."""
    assert digest(Toy()) == digest(TrainConfig())
    assert digest(Toy(push=0.5)) != digest(Toy())
    assert digest(Toy(epochs=3)) == digest(TrainConfig(epochs=3))


def test_a_new_default_goes_with_a_new_number() -> None:
    """Where this fails on an old field, raise `defaults_version`: its old digests mean another config."""
    assert TrainConfig.defaults_version == 1
    assert {
        f.name: f.default for f in fields(TrainConfig)
    } | TrainConfig.former_defaults == DEFAULTS

    @dataclass(frozen=True)
    class Later(TrainConfig):
        defaults_version = 2

    assert digest(Later()) != digest(TrainConfig())


def test_what_tells_runs_of_one_configuration_apart() -> None:
    """Seeds, folds and shares are runs of one configuration; a space refuses them with the way to do it."""
    own = {name for name, known in options_of(TrainConfig).items() if known.repeats}
    assert own == {"seed", "fold", "folds", "train_fraction"}
    with pytest.raises(ConfigError, match=r"space\.seed: the file's own key seeds"):
        parse_space("search = 'grid'\n[space]\nseed = [1, 2]\n")


def test_files_of_earlier_versions_are_read() -> None:
    """A guided network's old gate is its gate now; the other one, which it did not read, is not."""
    old: dict[str, Any] = {"gate": "multiply", "guided_gate": "residual", "guided_control": "se"}
    network = parse(TrainConfig, {"head": "guided:resnet18", **old}, "config.toml")
    assert (network.gate, network.control) == ("residual", "se")
    assert parse(TrainConfig, {"head": "slca", **old}, "config.toml").gate == "multiply"
    assert parse(TrainConfig, {"guided_gate": "residual"}, "config.toml").gate == "residual"
    assert parse(TrainConfig, {"bootstrap": 10}, "config.toml").intervals == 10
    assert present_name(TrainConfig, "guided_control") == "control"


def test_spaces_of_earlier_versions_are_read() -> None:
    """A former name in a space is the axis of today, and beside that one it is refused."""
    space = parse_space(
        "search = 'grid'\n[fixed]\nbootstrap = 0\n[space]\nguided_gate = ['residual']\n"
    )
    assert space.varied == ("gate",)
    assert space.base.intervals == 0
    with pytest.raises(ConfigError, match="guided_gate: stands there as gate too"):
        parse_space(
            "search = 'grid'\n[space]\ngate = ['residual']\nguided_gate = ['multiply', 'residual']\n"
        )


def test_a_documented_class_carries_its_sentences() -> None:
    """The documentation of any config is made from its fields."""

    @documented
    @dataclass(frozen=True)
    class Small(Config):
        """Of nothing."""

        size: int = option(1, "Of all.")

    assert Small.__doc__ == "Of nothing.\n\n    Attributes:\n        size: Of all.\n    "


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_no_second_list_of_fields(path: Path) -> None:
    """Outside the settings themselves nothing lists three of their fields, as names or as reads."""
    if str(path.relative_to(PACKAGE)) in FORMATS:
        return
    names = set(names_of(TrainConfig))
    for node in ast.walk(ast.parse(path.read_text())):
        entries: list[Any] = []
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            entries = node.elts
        elif isinstance(node, ast.Dict):
            entries = [key for key in node.keys if key is not None]
        found = {e.value for e in entries if isinstance(e, ast.Constant)} & names
        found |= {e.attr for e in entries if isinstance(e, ast.Attribute)} & names
        where = f"{path.name}:{getattr(node, 'lineno', 0)}"
        assert len(found) < 3, f"{where} lists {sorted(found)}; derive it from the fields' roles"
