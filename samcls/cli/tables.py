"""How figures are shown: one table for each task, baselines beside the head."""

import string
from collections.abc import Mapping
from typing import Any

import typer

from samcls.cli.shell import number, show_table
from samcls.learn.heads.controls import MEANINGS, SHORT

__all__ = ["show_comparison", "show_figures", "show_side_by_side"]

EXTRA_P = {"p_holm": "p Holm", "seeds_p": "p seeds", "seeds_p_holm": "p seeds Holm"}
COMPARED = ("auc", "average_precision", "accuracy", "balanced_accuracy", "f1", "kappa", "brier")


def show_figures(result: Mapping[str, Any]) -> None:
    """Print the figures of a run, or of several, in MedMNIST's sense of AUC and ACC, and its notes."""
    from samcls.learn.runs.gain import gain_sentences  # which loads numpy: help must be light

    _show_tables(result)
    for note in (*gain_sentences(result["head"], result.get("gain", {})), *result.get("notes", [])):
        typer.echo(note)


def show_side_by_side(results: Mapping[str, Mapping[str, Any]]) -> None:
    """Print runs on the same images under one header, each named and with few baselines, and the last one's notes.

    Args:
        results: Of runs of one task, by what each is called.
    """
    header = ["test split", "AUC", "95 % interval", "ACC", "95 % interval", "val. AUC"]
    rows: list[list[str]] = []
    for name, result in results.items():
        entries = {**result["baselines"], f"{result['head']} head": result}
        for entry, found in entries.items():
            if entry in result["baselines"] and entry not in SHORT:
                continue
            if entry == "majority" and rows:
                continue  # it is the same whatever the features
            title = MEANINGS.get(entry, entry)
            row = _row(title if entry == "majority" else f"{name}: {title}", found, None)
            rows.append([*row[:5], row[-1]])
    show_table(header, rows)
    last = [*results.values()][-1]
    typer.echo("")
    for line in [*_used(last)[:1], *last.get("notes", [])[:3]]:
        typer.echo(line)


def _show_tables(result: Mapping[str, Any]) -> None:
    tasks = list(result["test"].get("tasks", {})) or [None]
    several = "runs" in result
    beside = "std. dev." if several else "95 % interval"
    header = ["test split", "AUC", beside, "ACC", beside, "bal. ACC", "ECE", "val. AUC"]
    for task in tasks:
        if task is not None:
            typer.echo(f"\n{task}")
        rows = [
            _row(MEANINGS.get(name, name), baseline, task)
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
    inner = str(result.get("select", "holdout")).removeprefix("inner:")
    chosen = "chosen on {val}" if inner == "holdout" else f"chosen by inner folds of them ({inner})"
    counts = {
        task: f"trained on {of['train']} labelled images, {chosen.format(**of)}, tested on {of['test']}"
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
    """Print runs' figures with the first's differences from the others', for each task, and notes."""
    letters = string.ascii_uppercase
    for letter, run in zip(letters, result["runs"], strict=False):
        typer.echo(f"{letter}: {run}")
    if result.get("seeds"):
        typer.echo(f"means over {len(result['seeds'])} seeds; p seeds: paired t-test over them")
    one = [{"tasks": result["tasks"]}] if "tasks" in result else []
    for letter, pair in zip(letters[1:], one or result["comparisons"], strict=False):
        for task, figures in pair["tasks"].items():
            title = task if one else f"{task}: A and {letter}"
            typer.echo(f"\n{title}, {_counted(figures)} of split {result['split']}")
            _show_differences(figures, letter)
    for note in result.get("notes", []):
        typer.echo(note)


def _show_differences(figures: Mapping[str, Any], letter: str) -> None:
    found = [(name, figures[name]) for name in COMPARED]
    found = [(name, figure) for name, figure in found if figure["difference"] is not None]
    extra = [
        (key, title)
        for key, title in EXTRA_P.items()
        if any(figure.get(key) is not None for _, figure in found)
    ]
    columns = ["figure", "A", letter, f"A - {letter}", "95 % interval", "p"]
    rows = [
        [name.replace("_", " "), *_compared(figure), *(number(figure.get(key)) for key, _ in extra)]
        for name, figure in found
    ]
    show_table([*columns, *(title for _, title in extra)], rows)
    test = figures.get("delong", {})
    if test.get("p") is not None:
        corrected = f", p Holm {_chance(test['p_holm'])}" if "p_holm" in test else ""
        typer.echo(
            f"DeLong's test of the AUCs: z {test['z']:.3f}, p {_chance(test['p'])}{corrected}, "
            f"95 % interval {_pair(test['difference_interval'])}"
        )
    over = figures.get("over_folds", {})
    if over.get("p") is not None:
        typer.echo(
            f"AUC over {over['divisions']} folds, A - {letter}: {over['mean']:+.3f}, 95 % interval "
            f"{_pair(over['interval'])}, p {_chance(over['p'])} (t test corrected for shared training "
            "images, Nadeau and Bengio 2003)"
        )
    if figures["withheld"]:
        typer.echo(figures["withheld"])


def _chance(p: float) -> str:
    return "below 0.0001" if p < 0.0001 else f"{p:.4f}"


def _counted(figures: Mapping[str, Any]) -> str:
    images, groups = figures["images"], figures["groups"]
    return f"{images} images" + (f" of {groups} groups" if groups < images else "")


def _compared(figure: Mapping[str, Any]) -> list[str]:
    return [
        number(figure["first"]),
        number(figure["second"]),
        number(figure["difference"]),
        _pair(figure["difference_interval"]),
        number(figure["p"]),
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
    """Return a figure's spread over runs where there is one, else its interval."""
    spread = table.get(f"{figure}_std")
    return _pair(table.get(f"{figure}_interval")) if spread is None else f"± {spread:.3f}"


def _pair(pair: list[float] | None) -> str:
    return "-" if pair is None else f"{pair[0]:.3f} to {pair[1]:.3f}"
