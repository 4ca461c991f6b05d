"""Sweeps on the command line: many configurations over one store, one winner."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from samcls.cli.fields import Grouped, options_from
from samcls.cli.options import ALLOW_LEAK, DEVICE, STRICT
from samcls.cli.shell import Outcome, number, progress_bar, say, show_table, verb
from samcls.cli.tables import show_figures
from samcls.config import options_of
from samcls.learn.settings import TrainConfig

if TYPE_CHECKING:
    from samcls.sweep.estimate import SweepPlan
    from samcls.sweep.space import Space

__all__ = ["register"]

SHOWN = 10  # rows of the leaderboard on the terminal; leaderboard.json holds all


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("sweep", cls=Grouped)(verb(_sweep))


# What a sweep sets itself: how the images are divided.
DIVIDED = {
    name for name, one in options_of(TrainConfig).items() if one.repeats and one.role == "data"
}


@options_from(TrainConfig, without=DIVIDED)
def _sweep(
    store: Annotated[str, typer.Argument(help="Feature store, extracted to the end.")],
    folder: Annotated[Path, typer.Argument(help="Folder to make, or to go on with.")],
    given: dict[str, Any],
    space: Annotated[Path, typer.Option(help="TOML with what is fixed and what varies.")],
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Processes of this machine, which share one copy of features; its cores by default.",
            rich_help_panel="Machine",
        ),
    ] = None,
    dask: Annotated[
        str | None,
        typer.Option(
            help="Address of a running Dask scheduler; paths must be shared.",
            rich_help_panel="Machine",
        ),
    ] = None,
    device: Annotated[str, DEVICE] = "auto",
    plots: Annotated[
        bool, typer.Option("--plots", help="Draw pictures into the folder; needs matplotlib.")
    ] = False,
    allow_leak: Annotated[bool, ALLOW_LEAK] = False,
    strict: Annotated[bool, STRICT] = False,
    retry: Annotated[
        bool, typer.Option("--retry", help="Try runs that failed before once more.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the runs and estimate the time; train nothing.")
    ] = False,
) -> Outcome:
    """Many heads on one store: ranked on validation, the test split opened once, for the winner.

    Settings given here are fixed for all configurations, in place of those under [fixed].
    """
    from samcls.sweep.space import load_space

    found = load_space(space, given)
    from samcls.sweep.executors import workers_here

    workers = workers or workers_here(device)
    if dry_run:
        return _planned(store, folder, found, workers, device)
    from samcls.sweep.sweep import sweep

    with progress_bar("sweep", "runs") as progress:
        result = sweep(
            store,
            folder,
            found,
            workers=workers,
            dask=dask,
            device=device,
            plots=plots,
            retry=retry,
            allow_leak=allow_leak,
            strict=strict,
            log=say,
            progress=progress,
        )
    values = result.to_dict()

    def show() -> None:
        _show_leaderboard(values, found)
        _show_winner(values)

    return Outcome(values, show, exit_status=3 if result.failed else 0)


def _planned(store: str, folder: Path, space: "Space", workers: int, device: str) -> Outcome:
    from samcls.sweep.sweep import plan_sweep

    plan = plan_sweep(store, folder, space, workers=workers, device=device)
    values = asdict(plan)

    def show() -> None:
        _show_plan(plan, space, workers)

    return Outcome(values, show)


def _show_plan(plan: "SweepPlan", space: "Space", workers: int) -> None:
    configurations = {space.neutral(config): config for config in plan.configs}
    keys = list(space.varied)
    show_table(
        ["configuration", *keys],
        [
            [str(place), *_settings(vars(config), space)]
            for place, config in enumerate(configurations, 1)
        ],
    )
    for place, stage in enumerate(plan.rounds, 1):
        typer.echo(
            f"round {place}: {stage.configurations} configurations, {stage.runs} runs, at most "
            f"{stage.epochs} epochs"
        )
    time = "unknown" if plan.seconds is None else _duration(plan.seconds)
    typer.echo(
        f"{len(plan.configs)} runs to make now in {plan.groups} groups on {workers} processes; at "
        f"most about {time} (an epoch was timed; early stopping shortens it). Nothing was trained"
    )


def _show_leaderboard(values: Mapping[str, Any], space: "Space") -> None:
    keys = space.varied
    rows = [row for row in values["rows"] if row["rank"] is not None]
    several = any(row["n"] > 1 for row in rows)
    header = ["rank", "val. AUC", *(["± std"] if several else []), "val. ACC", "parameters", *keys]
    show_table(
        header,
        [
            [
                str(row["rank"]),
                number(row["auc"], 4),
                *([number(row["auc_std"], 4)] if several else []),
                number(row["accuracy"]),
                f"{row['parameters']:,}",
                *_settings(row["configuration"], space),
            ]
            for row in rows[:SHOWN]
        ],
    )
    if len(rows) > SHOWN:
        typer.echo(f"... and {len(rows) - SHOWN} more in {values['sweep']}/leaderboard.json")


def _show_winner(values: Mapping[str, Any]) -> None:
    chosen, best = values["selection"], values["best"]
    low_high = chosen["interval"]
    around = " (no interval: too few groups of a class)"
    if low_high is not None:
        around = f" (95 % interval {low_high[0]:.3f} to {low_high[1]:.3f})"
    alone = chosen["groups"] == chosen["images"]
    of_groups = "" if alone else f" of {chosen['groups']} groups"
    typer.echo(
        f"\nbest of {chosen['tried']} configurations on {chosen['images']} validation images"
        f"{of_groups}: AUC "
        f"{number(chosen['auc'])}; corrected for having chosen it: {number(chosen['corrected'])}"
        f"{around}\n"
    )
    show_figures(best["figures"])
    if isinstance(best["config"], list):
        _show_nested(best, chosen)
    opened = best["test_opened"]
    times = (
        "for the winner" if opened == 1 else f"for {opened} winners, which a reader should be told"
    )
    if values["efficiency"]:
        for one in values["efficiency"]["outlook"]:
            typer.echo(one["said"])
        times += ", and by the heads of the training shares, between which it chose nothing"
    speed = values["runs_a_minute"]
    typer.echo(
        f"this sweep scored the test split {times}; the winner is {best['run']}\n"
        f"{values['finished']} runs, {values['failed']} failed, {values['made']} made now"
        + ("" if speed is None else f" in {_duration(values['seconds'])}, {speed:.0f} a minute")
    )


def _show_nested(best: Mapping[str, Any], chosen: Mapping[str, Any]) -> None:
    """Show what nesting found beside what the folds that chose would have said."""
    pooled = best["figures"]["pooled"][0]["auc"]
    mean = best["figures"]["test"]["auc"]
    typer.echo(
        f"nested: each fold's configuration was chosen without its images; mean test AUC {number(mean)}, "
        f"all folds' images together {number(pooled)}. The folds that chose would have said "
        f"{number(chosen['auc'])}"
    )
    for fold, configuration in enumerate(best["config"]):
        settings = ", ".join(f"{name} {_setting(value)}" for name, value in configuration.items())
        typer.echo(f"fold {fold}: {settings}")


def _settings(configuration: Mapping[str, Any], space: "Space") -> list[str]:
    """Return what was varied; a dash for what the configuration's own head knows nothing of."""
    own = space.varied_for(configuration.get("head", ""))  # else it is the same for all
    return [_setting(configuration[key]) if key in own else "-" for key in space.varied]


def _setting(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(str(entry) for entry in value) or "all"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
