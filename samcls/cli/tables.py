"""How figures are shown: one table for each task, baselines beside the head."""

from collections.abc import Mapping
from typing import Any

import typer

from samcls.cli.shell import number, show_table

__all__ = ["show_figures"]

_HEADER = ["test split", "AUC", "95 % interval", "ACC", "95 % interval", "bal. ACC", "val. AUC"]
_MEANINGS = {"majority": "majority class", "logistic": "logistic regression"}


def show_figures(result: Mapping[str, Any]) -> None:
    """Print the figures of a run, in MedMNIST's sense of AUC and ACC."""
    tasks = list(result["test"].get("tasks", {})) or [None]
    for task in tasks:
        if task is not None:
            typer.echo(f"\n{task}")
        rows = [
            _row(_MEANINGS.get(name, name), baseline, task)
            for name, baseline in result["baselines"].items()
        ]
        show_table(_HEADER, [*rows, _row(f"{result['head']} head", result, task)])
    images = result["images"]
    typer.echo(
        f"\ntrained on {images['train']} images, chosen on {images['val']}, tested once on "
        f"{images['test']}; models tried: {result['models_tried']}"
    )


def _row(name: str, tables: Mapping[str, Any], task: str | None) -> list[str]:
    validation, test = tables["validation"], tables["test"]
    if task is not None:
        validation, test = validation["tasks"][task], test["tasks"][task]
    return [
        name,
        number(test["auc"]),
        _interval(test.get("auc_interval")),
        number(test["accuracy"]),
        _interval(test.get("accuracy_interval")),
        number(test["balanced_accuracy"]),
        number(validation["auc"]),
    ]


def _interval(pair: list[float] | None) -> str:
    return "-" if pair is None else f"{pair[0]:.3f} to {pair[1]:.3f}"
