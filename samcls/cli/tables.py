"""How figures are shown: one table for each task, baselines beside the head."""

from collections.abc import Mapping
from typing import Any

import typer

from samcls.cli.shell import number, show_table

__all__ = ["show_comparison", "show_figures"]

_MEANINGS = {
    "majority": "majority class",
    "logistic": "logistic regression",
    "linear": "linear head",
    "se": "one global window (se)",
    "slca, shuffled": "slca, shuffled images",
}
_COMPARED = ("auc", "average_precision", "accuracy", "balanced_accuracy", "f1", "kappa", "brier")


def show_figures(result: Mapping[str, Any]) -> None:
    """Print the figures of a run, or of several, in MedMNIST's sense of AUC and ACC, and its notes."""
    _show_tables(result)
    for note in result.get("notes", []):
        typer.echo(note)


def _show_tables(result: Mapping[str, Any]) -> None:
    tasks = list(result["test"].get("tasks", {})) or [None]
    several = "runs" in result
    beside = "std. dev." if several else "95 % interval"
    header = ["test split", "AUC", beside, "ACC", beside, "bal. ACC", "ECE", "val. AUC"]
    for task in tasks:
        if task is not None:
            typer.echo(f"\n{task}")
        rows = [
            _row(_MEANINGS.get(name, name), baseline, task)
            for name, baseline in result["baselines"].items()
        ]
        show_table(header, [*rows, _row(f"{result['head']} head", result, task)])
        test = result["test"] if task is None else result["test"]["tasks"][task]
        if several and test.get("auc_interval"):
            typer.echo(
                f"{result['head']} head, mean AUC of the {len(result['runs'])} runs on other test "
                f"images: 95 % interval {_pair(test['auc_interval'])}"
            )
    typer.echo("")
    for line in _used(result):
        typer.echo(line)
    for pooled in result.get("pooled", []):
        around = _around(pooled, "auc")
        typer.echo(f"all folds' images together: AUC {number(pooled['auc'])}, {around}")


def _used(result: Mapping[str, Any]) -> list[str]:
    """How many labelled images there were, and how often the test split was scored: what is known."""
    tried = f"models tried: {result['models_tried']}"
    runs = len(result.get("runs", []))
    if "pooled" in result:
        images, seeds = result["pooled"][0]["images"], len(result["pooled"])
        times = "once" if seeds == 1 else f"once for each of {seeds} seeds"
        return [
            f"mean of {runs} runs; {tried}",
            f"each of {images} images was tested {times}, by a run that had not seen it",
        ]
    counts = {
        task: f"trained on {of['train']} labelled images, chosen on {of['val']}, tested on {of['test']}"
        for task, of in (result.get("labelled") or {"": result["images"]}).items()
    }
    alike = len(set(counts.values())) == 1
    lines = (
        list(dict.fromkeys(counts.values()))
        if alike
        else [f"{task}: {line}" for task, line in counts.items()]
    )
    if runs:
        times = f"each of these {runs} runs scored the test split once; figures are their means"
    else:
        times = "this run scored the test split once"
    return [*lines, f"{times}; {tried}"]


def show_comparison(result: Mapping[str, Any]) -> None:
    """Print two runs' figures with their differences, for each task."""
    first, second = result["runs"]
    typer.echo(f"A: {first}\nB: {second}\n{result['images']} images of split {result['split']}")
    seeds = result.get("seeds", [])
    columns = ["figure", "A", "B", "A - B", "95 % interval", "p"]
    if seeds:
        typer.echo(f"means over {len(seeds)} seeds; p seeds: paired t-test over them")
        columns.append("p seeds")
    for task, figures in result["tasks"].items():
        typer.echo(f"\n{task}")
        rows = [
            [name.replace("_", " "), *_compared(figures[name])][: len(columns)]
            for name in _COMPARED
            if figures[name]["difference"] is not None
        ]
        show_table(columns, rows)
        if figures.get("delong", {}).get("p") is not None:
            test = figures["delong"]
            typer.echo(
                f"DeLong's test of the AUCs: z {test['z']:.3f}, p {test['p']:.4f}, "
                f"95 % interval {_pair(test['difference_interval'])}"
            )


def _compared(figure: Mapping[str, Any]) -> list[str]:
    return [
        number(figure["first"]),
        number(figure["second"]),
        number(figure["difference"]),
        _pair(figure["difference_interval"]),
        number(figure["p"]),
        number(figure.get("seeds_p")),
    ]


def _row(name: str, tables: Mapping[str, Any], task: str | None) -> list[str]:
    validation, test = tables["validation"], tables["test"]
    if task is not None:
        validation, test = validation["tasks"][task], test["tasks"][task]
    return [
        name,
        number(test["auc"]),
        _around(test, "auc"),
        number(test["accuracy"]),
        _around(test, "accuracy"),
        number(test["balanced_accuracy"]),
        number(test["ece"]),
        number(validation["auc"]),
    ]


def _around(table: Mapping[str, Any], figure: str) -> str:
    """A figure's spread over runs where there is one, else its interval."""
    spread = table.get(f"{figure}_std")
    return _pair(table.get(f"{figure}_interval")) if spread is None else f"± {spread:.3f}"


def _pair(pair: list[float] | None) -> str:
    return "-" if pair is None else f"{pair[0]:.3f} to {pair[1]:.3f}"
