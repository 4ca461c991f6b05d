"""The command line is made from the settings: every field, its spellings, its default, its near misses."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from samcls.cli import app
from samcls.cli.fields import Grouped, options_from
from samcls.cli.shell import Outcome, verb
from samcls.config import Config, option, options_of
from samcls.encode.options import ExtractOptions
from samcls.encode.registry import encoder_module
from samcls.encode.specs import encoder_spec, parse_levels
from samcls.errors import ConfigError
from samcls.learn.heads.guided.backbone import backbone_problems
from samcls.learn.heads.guided.net import paired_levels
from samcls.learn.heads.registry import unknown_head
from samcls.learn.settings import TrainConfig
from samcls.sweep.space import load_space, parse_space


@dataclass(frozen=True)
class Toy(Config):
    """A verb's settings."""

    rate: float = option(0.5, "Of change.", group="Optimiser", flags=("--change-rate", "--rate"))
    parts: tuple[str, ...] = option((), "Of it.", group="Data")
    quick: bool = option(False, "Whether it hurries.", group="Machine")
    side: int | None = option(None, "In cells.", group="Head")
    inner: int = 3  # says nothing of itself, so that it is no option


def toy() -> tuple[typer.Typer, list[dict[str, Any]]]:
    calls: list[dict[str, Any]] = []
    made = typer.Typer(add_completion=False, rich_markup_mode=None)

    @options_from(Toy)
    def run(name: str, given: dict[str, Any], times: int = 1) -> Outcome:
        """Run it."""
        calls.append({"name": name, "times": times, "given": given})
        return Outcome({}, lambda: None)

    made.command("run", cls=Grouped)(verb(run))
    return made, calls


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        ([], {}),
        (["--rate", "0.25", "--side", "4"], {"rate": 0.25, "side": 4}),
        (["--change-rate", "1", "--quick"], {"rate": 1.0, "quick": True}),
        (["--no-quick", "--parts", "a, b"], {"quick": False, "parts": ("a", "b")}),
        (["--parts", ""], {"parts": ()}),
    ],
)
def test_what_is_given_arrives_and_nothing_else(
    arguments: list[str], given: dict[str, Any]
) -> None:
    """A field that was not named is not in what the verb is given, whatever its default."""
    made, calls = toy()
    done = CliRunner().invoke(made, ["x", "--times", "2", *arguments])
    assert done.exit_code == 0, done.output
    assert calls == [{"name": "x", "times": 2, "given": given}]


def test_help_lists_options_under_headings_with_their_defaults() -> None:
    """Headings come in one order, each with its own fields, and a default is shown where there is one."""
    made, _ = toy()
    lines = CliRunner().invoke(made, ["--help"]).output.splitlines()
    said = [line.strip() for line in lines]
    headings = [line for line in said if line.endswith(":") and not line.startswith("Usage")]
    assert headings == ["Arguments:", "Options:", "Data:", "Head:", "Optimiser:", "Machine:"]
    assert "--change-rate, --rate <float>  Of change. [default: 0.5]" in said
    assert "--quick / --no-quick  Whether it hurries. [default: no]" in said
    assert said[said.index("Head:") + 1].startswith("--side")
    assert not any("inner" in line for line in said)


@pytest.mark.parametrize(
    ("name", "settings"),
    [("train", TrainConfig), ("sweep", TrainConfig), ("extract", ExtractOptions)],
)
def test_every_setting_is_an_option(name: str, settings: type) -> None:
    """Each field of the settings stands in the verb's help, under its first spelling."""
    said = CliRunner().invoke(app, [name, "--help"]).output
    assert len(options_of(settings)) == len(fields(settings))
    for field, known in options_of(settings).items():
        assert known.text
        if name == "sweep" and known.repeats and known.role == "data":
            continue  # how the images are divided is the space's own affair
        flag = known.flags[0] if known.flags else f"--{field.replace('_', '-')}"
        assert f"  {flag}" in said


def test_the_usual_spellings_are_known(tmp_path: Path) -> None:
    """Users of other tools find the rate and the batch where they look for them; a miss is pointed at."""
    wrong = ["--lr", "-1", "--batch-size", "0", "--backbone-lr", "0", "--gate", "add"]
    done = CliRunner().invoke(app, ["train", "store", str(tmp_path / "run"), *wrong])
    assert done.exit_code == 2
    for name in ("learning_rate", "batch_size", "backbone_learning_rate", "gate"):
        assert f"  {name}: got " in done.stderr
    near = CliRunner().invoke(app, ["train", "store", "run", "--bach-size", "3"])
    assert "--batch-size" in near.stderr


def test_settings_given_with_a_sweep_are_fixed(tmp_path: Path) -> None:
    """They stand in place of those of the file, are checked as those are, and are written down."""
    path = tmp_path / "space.toml"
    path.write_text("search = 'grid'\n[fixed]\nepochs = 3\n[space]\ndropout = [0.0, 0.1]\n")
    space = load_space(path, {"epochs": 5, "batch_size": 8})
    assert {(c.epochs, c.batch_size) for c in space.configurations()} == {(5, 8)}
    assert '# in place of what stands under [fixed]: {"epochs": 5, "batch_size": 8}' in space.text
    assert parse_space(space.text).base == TrainConfig(epochs=3)
    with pytest.raises(ConfigError, match=r"space\.dropout: stands under \[fixed\] too"):
        load_space(path, {"dropout": 0.5})
    with pytest.raises(ConfigError, match=r"fixed\.epochs: got 0"):
        load_space(path, {"epochs": 0})


def test_no_field_hides_an_option_of_the_verb() -> None:
    """The verb's own options and the settings have different names."""
    own = {"store", "run", "config", "seeds", "baselines", "device", "memory", "medmnist"}
    assert not own & {field.name for field in fields(TrainConfig)}


def test_every_name_has_its_near_misses() -> None:
    """A misspelt head, level, encoder, model or stage is answered with the one that was meant."""
    assert unknown_head("slac")[0].endswith("; did you mean slca?")
    assert "no model 'resnt50'; it knows resnet50, " in backbone_problems("resnt50")[0]
    with pytest.raises(ConfigError, match=r"block:0 to block:11; did you mean neck\?"):
        parse_levels("nekc", encoder_spec("vit_b"))
    with pytest.raises(ConfigError, match=r"; did you mean vit_h\?"):
        encoder_module("vit_hh")
    with pytest.raises(ConfigError, match=r"has stem, stage1; did you mean stage1\?"):
        paired_levels(("neck",), ("stgae1",), ("stem", "stage1"))
