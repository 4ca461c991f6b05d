"""Settings: strict, all errors at once, the same text and digest for the same values."""

import subprocess
import sys
from dataclasses import FrozenInstanceError, dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samcls.config import Config, digest, load_toml, parse, to_dict, to_toml
from samcls.errors import ConfigError
from samcls.learn.settings import TrainConfig

WORDS = st.text(st.characters(codec="utf-8"), max_size=12)

# A dictionary, not the config: building one under the type checker draws random numbers, which
# hypothesis forbids inside a strategy.
OPTIONS = st.fixed_dictionaries(
    {
        "head": WORDS,
        "levels": st.lists(WORDS, max_size=4, unique=True).map(tuple),
        "window": st.none() | st.integers(1, 64),
        "gate": st.sampled_from(["multiply", "residual"]),
        "dropout": st.floats(0, 1, exclude_max=True),
        "epochs": st.integers(1, 10**9),
        "learning_rate": st.floats(0, 1e6, exclude_min=True),
        "seed": st.integers(0, 2**63 - 1),
    }
)


@given(options=OPTIONS)
def test_toml_round_trip(tmp_path_factory: pytest.TempPathFactory, options: dict[str, Any]) -> None:
    """Any config written as TOML is read back equal, with the same digest."""
    config = TrainConfig(**options)
    path = tmp_path_factory.mktemp("config") / "train.toml"
    path.write_bytes(to_toml(config).encode())
    again = load_toml(TrainConfig, path)
    assert again == config
    assert digest(again) == digest(config)


def test_every_field_changes_the_digest() -> None:
    """Two configs that differ in any one field have different digests."""
    other = TrainConfig(
        head="linear", members=3, select="inner:5", with_meta=("age",), levels=("neck",), tasks=("grade",), window=8, reduction=4, gate="residual",
        hidden=8, dropout=0.5, epochs=3, patience=2, batch_size=8, learning_rate=0.1, warmup=0.5,
        weight_decay=0.5, class_weights="balanced", intervals=10, seed=1, labels="other.csv",
        ordinal=("grade",), missing=("nan",), positive=("1",), folds=5, fold=1, upsampling="bilinear", gate_bias=False,
        gate_channels=1, loss="focal", focal_gamma=1.0, label_smoothing=0.1, train_fraction=0.5,
        precision="bfloat16", stages=("stage4",), control="se",
        pretrained=False, freeze_backbone=True, backbone_learning_rate=1e-3, accumulate=2,
        channels_last=True, compile=True, jitter=0.1,
    )  # fmt: skip
    base = TrainConfig()
    changed = [replace(base, **{f.name: getattr(other, f.name)}) for f in fields(base)]
    assert len({digest(c) for c in [base, *changed]}) == 1 + len(fields(base))


def test_digest_is_of_the_values_alone() -> None:
    """A whole number given for a fraction is the same config as the fraction."""
    whole = parse(TrainConfig, {"dropout": 0, "learning_rate": 1}, "here")
    assert whole == TrainConfig(dropout=0.0, learning_rate=1.0)
    assert digest(whole) == digest(TrainConfig(dropout=0.0, learning_rate=1.0))


def test_left_out_keys_take_their_defaults(tmp_path: Path) -> None:
    """An empty file is the default config."""
    path = tmp_path / "empty.toml"
    path.write_text("# nothing\n")
    assert load_toml(TrainConfig, path) == TrainConfig()


def test_all_problems_of_a_file_come_at_once(tmp_path: Path) -> None:
    """One error lists the unknown key with its neighbour, each wrong type and each bad range."""
    path = tmp_path / "train.toml"
    path.write_text(
        "learningrate = 0.1\nepochs = 0\nbatch_size = true\ngate = 'add'\nlevels = ['neck', 3]\n"
        "dropout = 1.0\nzzz = 1\ntasks = ['a', 'b', 'a']\nlearning_rate = nan\nwindow = '4'\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_toml(TrainConfig, path)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{path}: 10 problems"
    assert [line.strip() for line in lines[1:]] == [
        "learningrate: unknown key; did you mean learning_rate?",
        "epochs: got 0, expected at least 1",
        "batch_size: got true, expected a whole number",
        'gate: got "add", expected "multiply" or "residual"',
        'levels: got ["neck", 3], expected a list, each entry a text',
        "dropout: got 1.0, expected at least 0 and below 1",
        f"zzz: unknown key; known keys: {', '.join(f.name for f in fields(TrainConfig))}",
        "tasks: a is named twice",
        "learning_rate: got nan, expected a finite number",
        'window: got "4", expected a whole number',
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"epochs": 1.0}, "epochs: got 1.0, expected a whole number"),
        ({"head": None}, "head: got null, expected a text"),
        ({"levels": "neck"}, 'levels: got "neck", expected a list, each entry a text'),
        ({"learning_rate": "fast"}, 'learning_rate: got "fast", expected a number'),
        ({"learning_rate": 10**400}, "expected a number"),
        ({"gate": object}, "gate: got <class 'object'>"),
    ],
)
def test_types_are_strict(options: dict[str, object], said: str) -> None:
    """A value of another type is refused, not converted."""
    with pytest.raises(ConfigError) as caught:
        parse(TrainConfig, options, "train.toml")
    assert str(caught.value).startswith("train.toml: 1 problem\n")
    assert said in str(caught.value)


def test_no_config_holds_a_value_out_of_range() -> None:
    """A config made in code is checked as one read from a file is."""
    with pytest.raises(ConfigError) as caught:
        TrainConfig(learning_rate=0.0, window=0, seed=-1, dropout=1.0, levels=("a", "a"))
    assert str(caught.value).splitlines() == [
        "TrainConfig: 5 problems",
        "  levels: a is named twice",
        "  window: got 0, expected at least 1",
        "  dropout: got 1.0, expected at least 0 and below 1",
        "  learning_rate: got 0.0, expected above 0",
        "  seed: got -1, expected at least 0 and at most 9.22337e+18",
    ]
    with pytest.raises(ConfigError, match=r"dropout: got 2\.0"):
        replace(TrainConfig(), dropout=2.0)


def test_lists_become_tuples_and_values_are_frozen() -> None:
    """A config can be a dictionary's key and cannot be changed after it was checked."""
    config = parse(TrainConfig, {"levels": ["neck"]}, "here")
    assert config.levels == ("neck",)
    assert {config: 1}[TrainConfig(levels=("neck",))] == 1
    with pytest.raises(FrozenInstanceError):
        config.epochs = 0  # type: ignore[misc]


def test_unset_fields_are_left_out() -> None:
    """None is null in JSON and a missing key in TOML."""
    assert to_dict(TrainConfig())["window"] is None
    assert "window" not in to_toml(TrainConfig())
    assert "window = 8\n" in to_toml(TrainConfig(window=8))


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"epochs = ", "is not a TOML file"), (b"head = '\xff'", "is not a TOML file")],
)
def test_what_is_not_toml_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    """A file that cannot be parsed is named in the error."""
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"bad.toml {said}"):
        load_toml(TrainConfig, path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A file that is not there is an error of the configuration, with its path and the reason."""
    with pytest.raises(ConfigError, match=r"cannot read .*none\.toml: No such file"):
        load_toml(TrainConfig, tmp_path / "none.toml")


def test_other_parts_can_have_configs_of_their_own() -> None:
    """Any frozen dataclass over Config gets the same checks and the same texts."""

    @dataclass(frozen=True)
    class Other(Config):
        sizes: tuple[int, ...] = (1, 2)
        fast: bool = False

    assert to_toml(Other(fast=True)) == "sizes = [1, 2]\nfast = true\n"
    with pytest.raises(ConfigError, match="fast: got 1, expected true or false"):
        parse(Other, {"fast": 1}, "here")


def test_import_is_light() -> None:
    """Reading a configuration, and the options of both stages, load neither torch nor numpy."""
    code = "import sys, samcls.config, samcls.encode.options, samcls.cli; print({'torch', 'numpy'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
