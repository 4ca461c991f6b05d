"""Stage two on the command line: train a head, compare two runs."""

from pathlib import Path
from typing import Annotated, Any

import typer

from samcls.cli.fields import Grouped, options_from
from samcls.cli.options import ALLOW_LEAK, DEVICE, STRICT
from samcls.cli.shell import Outcome, say, verb
from samcls.cli.tables import show_comparison, show_figures
from samcls.config import load_toml, parse, to_dict
from samcls.errors import ConfigError
from samcls.learn.settings import TrainConfig

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command("train", cls=Grouped)(verb(_train))
    app.command("compare")(verb(_compare))
    app.command("table")(verb(_table))


@options_from(TrainConfig)
def _train(
    store: Annotated[str, typer.Argument(help="Feature store, extracted to the end.")],
    run: Annotated[Path, typer.Argument(help="Folder to make for the run.")],
    given: dict[str, Any],
    config: Annotated[
        Path | None, typer.Option(help="TOML with any setting; options given here win over it.")
    ] = None,
    seeds: Annotated[
        int,
        typer.Option(
            min=1,
            help="Train so many seeds; figures are mean and spread.",
            rich_help_panel="Evaluation",
        ),
    ] = 1,
    baselines: Annotated[
        bool,
        typer.Option(
            "--baselines",
            help="Train linear, se and SLCA on shuffled images too.",
            rich_help_panel="Evaluation",
        ),
    ] = False,
    device: Annotated[str, DEVICE] = "auto",
    memory: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="MB for features; above it they are streamed.",
            rich_help_panel="Machine",
        ),
    ] = None,
    allow_leak: Annotated[bool, ALLOW_LEAK] = False,
    strict: Annotated[bool, STRICT] = False,
    medmnist: Annotated[
        str | None,
        typer.Option(
            help="Keep predictions as MedMNIST does: breastmnist_64, ...",
            rich_help_panel="Evaluation",
        ),
    ] = None,
) -> Outcome:
    """Stage two: train one head on cached features; validation chooses, test is scored once."""
    # Folds of which none is named are all run, one after another.
    folds = 0 if "fold" in given else given.pop("folds", 0)
    settings = _settings(config, given)
    from samcls.api import train

    result = train(
        _opened(store),
        run,
        settings,
        seeds=seeds,
        baselines=baselines,
        memory=memory,
        medmnist=medmnist,
        device=device,
        allow_leak=allow_leak,
        strict=strict,
        log=say,
        **({"folds": folds} if folds else {}),
    )
    values = result if isinstance(result, dict) else result.to_dict()

    def show() -> None:
        show_figures(values)
        best = ""
        if values["epochs"] > 1 and "best_epoch" in values:
            best = f", best of {values['epochs']} epochs is {values['best_epoch']}"
        typer.echo(f"{run}: {values['parameters']:,} parameters{best}, {values['seconds']:.1f} s")

    return Outcome(values, show)


def _opened(store: str) -> Any:
    from samcls.store.feature_store import FeatureStore

    opened = FeatureStore.open(store)
    if opened.provenance:
        say(opened.provenance)
    return opened


def _settings(path: Path | None, given: dict[str, Any]) -> TrainConfig:
    """Return the file's settings with those given on the command line in their place."""
    base = to_dict(load_toml(TrainConfig, path)) if path else {}
    return parse(TrainConfig, {**base, **given}, "the options")


def _compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN_A RUN_B [RUN_C]...",
            help="Runs, folders of seeds or of folds, or sweeps, on the same images; the first is "
            "compared with every other.",
        ),
    ],
    split: Annotated[str, typer.Option(help="test or val.")] = "test",
    resamples: Annotated[int, typer.Option(min=100, help="Paired resamples.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the resamples.")] = 0,
) -> Outcome:
    """Differences of runs on the same images, groups drawn whole: bootstrap, DeLong's test of AUCs."""
    if split not in {"test", "val"}:
        raise ConfigError(f"--split is {split!r}; expected test or val")
    if not 2 <= len(runs) <= 26:
        raise ConfigError(
            f"got {len(runs)} to compare; expected 2 to 26: samcls compare RUN_A RUN_B"
        )
    from samcls.learn.runs.compare import compare_runs
    from samcls.learn.runs.folder import load_runs

    arms = [load_runs(path) for path in runs]
    values = compare_runs(*arms, split=split, resamples=resamples, seed=seed)
    return Outcome(values, lambda: show_comparison(values))


def _table(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="Runs, folders of seeds or of folds, sweeps, or folders that hold any of these.",
        ),
    ],
    form: Annotated[str, typer.Option("--format", help="md, latex (booktabs) or csv.")] = "md",
) -> Outcome:
    """Show finished runs as a table for the paper, a line for each run and task."""
    from samcls.learn.runs.overview import FORMATS, runs_of, table_text

    if form not in FORMATS:
        raise ConfigError(f"--format is {form!r}; expected {', '.join(FORMATS)}")
    paths = [found for path in runs for found in runs_of(path)]
    text = table_text(paths, form)
    return Outcome(
        {"runs": [str(path) for path in paths], "format": form, "table": text},
        lambda: typer.echo(text, nl=False),
    )
