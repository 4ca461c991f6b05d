"""Finished runs as lines of a table for the paper: Markdown, LaTeX or CSV.

A folder of seeds is one line, figures being means with their standard deviation; of folds the figures are
those of all folds' test images together. Nothing is scored anew: every figure is the run's own.

    for path in runs_in("runs"):
        print(table_text([path], "md"))
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from samcls.errors import InputError
from samcls.learn.runs.folder import MARK, SUMMARY, Run, load_runs
from samcls.learn.score.delong import places_of

__all__ = ["FIGURES", "FORMATS", "Line", "lines_of", "runs_in", "runs_of", "table_text"]

FORMATS = ("md", "latex", "csv")

# Figures of a line, by what heads its column.
FIGURES = {
    "AUC": "auc",
    "average precision": "average_precision",
    "accuracy": "accuracy",
    "balanced accuracy": "balanced_accuracy",
    "F1": "f1",
    "Brier": "brier",
}
SPECIAL = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}"}


@dataclass(frozen=True)
class Figure:
    """One figure of a line.

    Attributes:
        value: On the test images, over several seeds their mean; None where it is not defined.
        spread: Standard deviation over seeds; None of one run.
        interval: 95 %, over other test images; None where there is none.
    """

    value: float | None
    spread: float | None
    interval: tuple[float, float] | None

    def __str__(self) -> str:
        """`0.931 ± 0.002 (0.837 to 0.972)`, or a dash."""
        if self.value is None:
            return "-"
        spread = "" if self.spread is None else f" ± {self.spread:.3f}"
        around = (
            "" if self.interval is None else f" ({self.interval[0]:.3f} to {self.interval[1]:.3f})"
        )
        return f"{self.value:.3f}{spread}{around}"


@dataclass(frozen=True)
class Line:
    """What one run, or folder of runs, found for one task.

    Attributes:
        run: Its folder.
        head: Name of the head.
        encoder: What made the features.
        task: Name of the task.
        runs: Number of runs behind the figures.
        folds: Number of folds that were put together; 0 where there are none.
        images: Test images with a label.
        groups: Groups (patients) that these form, an image without one being its own.
        figures: By the names of `FIGURES`.
    """

    run: str
    head: str
    encoder: str
    task: str
    runs: int
    folds: int
    images: int
    groups: int
    figures: Mapping[str, Figure]


def runs_in(folder: str | Path) -> list[Path]:
    """Return every finished run under a folder, a folder of seeds or folds once, in the order of their paths.

    A sweep's own runs have no test split, so of a sweep there is the winner alone.

    Raises:
        InputError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; name one that holds runs")
    found = []
    for path in sorted({mark.parent for mark in folder.rglob(MARK)}):
        several = path.parent / SUMMARY
        found.append(path.parent if path.name.startswith("seed-") and several.exists() else path)
    return [path for path in dict.fromkeys(found) if _tested(path)]


def runs_of(path: str | Path) -> list[Path]:
    """Return a run, a folder of seeds or folds, or a sweep, as it is; of any other folder the runs in it.

    Raises:
        InputError: there is nothing of the kind, or it is unfinished or damaged.
    """
    path = Path(path)
    try:
        load_runs(path)
    except InputError:
        found = runs_in(path) if path.is_dir() else []
        if not found:
            raise
        return found
    return [path]


def lines_of(path: str | Path) -> list[Line]:
    """Return a line for each task of a run, or of a folder of seeds or folds, or of a sweep's winner.

    Raises:
        InputError: as `load_runs`; or the run's test split was not scored.
    """
    runs = load_runs(path)
    first = runs[0]
    if not all(run.scored for run in runs):
        raise InputError(
            f"{path} was not scored on a test split: runs of a sweep are scored on val alone; name the "
            "sweep's folder for its winner"
        )
    folds = first.config.folds if len(runs) > 1 else 0
    test = _test(first.path.parent, runs, folds)
    groups, known = _groups(runs, folds)
    lines = []
    for column, task in enumerate(first.tasks):
        table = test.get("tasks", {}).get(task, test)
        labelled = known[column]
        alike = [group for group, there in zip(groups, labelled, strict=True) if there]
        lines.append(
            Line(
                run=str(path),
                head=first.config.head,
                encoder=str(first.fingerprint.get("encoder", "unknown")),
                task=task,
                runs=len(runs),
                folds=folds,
                images=len(alike),
                groups=len(set(places_of(alike).tolist())) if alike else 0,
                figures={title: _figure(table, name) for title, name in FIGURES.items()},
            )
        )
    return lines


def table_text(paths: Sequence[str | Path], form: str = "md") -> str:
    """Return runs as a table, a line for each run and task.

    Args:
        paths: As for `lines_of`.
        form: `md`, `latex` (the package booktabs) or `csv`, whose figures have every digit.

    Raises:
        InputError: as `lines_of`.
        ValueError: no such format.
    """
    if form not in FORMATS:
        raise ValueError(f"form is {form!r}; expected {', '.join(FORMATS)}")
    lines = [line for path in paths for line in lines_of(path)]
    if form == "csv":
        return _csv(lines)
    header = ["run", "head", "encoder", "task", "runs", "images", "patients", *FIGURES]
    rows = [
        [
            line.run,
            line.head,
            line.encoder,
            line.task,
            f"{line.runs}" + (f" ({line.folds} folds)" if line.folds else ""),
            str(line.images),
            str(line.groups) if line.groups < line.images else "-",
            *(str(figure) for figure in line.figures.values()),
        ]
        for line in lines
    ]
    return _markdown(header, rows) if form == "md" else _latex(header, rows)


def _tested(path: Path) -> bool:
    try:
        return all(run.scored for run in load_runs(path))
    except InputError:
        return False


def _test(folder: Path, runs: Sequence[Run], folds: int) -> Mapping[str, Any]:
    """Return the table of the test images, of several runs as their summary has it."""
    if len(runs) == 1:
        single: Mapping[str, Any] = runs[0].metrics["test"]
        return single
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        found: Mapping[str, Any] = _mean(summary["pooled"]) if folds else summary["test"]
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise InputError(f"{folder / SUMMARY} is damaged: {error}; train the runs again") from error
    return found


def _mean(tables: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the mean of each seed's table of all folds, which has an interval where there is one seed alone."""
    if len(tables) == 1:
        return tables[0]
    found: dict[str, Any] = {}
    for name in FIGURES.values():
        values = [table[name] for table in tables if table.get(name) is not None]
        if values:
            found[name] = float(np.mean(values))
            found[f"{name}_std"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
    if "tasks" in tables[0]:
        found["tasks"] = {
            task: _mean([table["tasks"][task] for table in tables]) for task in tables[0]["tasks"]
        }
    return found


def _groups(runs: Sequence[Run], folds: int) -> tuple[list[str], list[list[bool]]]:
    """Return the test images' groups, and for each task which of them have a label."""
    tested = [run for run in runs if run.config.seed == runs[0].config.seed] if folds else runs[:1]
    said = [run.predictions("test") for run in tested]
    groups = [group for one in said for group in one.groups]
    known = [
        [bool(label >= 0) for one in said for label in one.labels[:, i]]
        for i in range(len(runs[0].tasks))
    ]
    return groups, known


def _figure(table: Mapping[str, Any], name: str) -> Figure:
    around = table.get(f"{name}_interval")
    interval = (float(around[0]), float(around[1])) if around else None
    return Figure(table.get(name), table.get(f"{name}_std"), interval)


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    cells = (" | ".join(cell.replace("|", r"\|") for cell in line) for line in lines)
    return "".join(f"| {line} |\n" for line in cells)


def _latex(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return " & ".join(_escaped(cell) for cell in cells) + r" \\" + "\n"

    columns = "llll" + "r" * 3 + "l" * len(FIGURES)
    body = "".join(line(row) for row in rows)
    return (
        f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n{line(header)}\\midrule\n{body}\\bottomrule\n"
        "\\end{tabular}\n"
    )


def _escaped(text: str) -> str:
    plain = text.replace("\\", "\x00")
    for sign, written in SPECIAL.items():
        plain = plain.replace(sign, written)
    return plain.replace("\x00", r"\textbackslash{}").replace("±", r"$\pm$")


def _csv(lines: Sequence[Line]) -> str:
    parts = ("", "_std", "_low", "_high")
    header = ["run", "head", "encoder", "task", "runs", "folds", "images", "patients"]
    header += [f"{name}{part}" for name in FIGURES.values() for part in parts]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    for line in lines:
        row: list[object] = [line.run, line.head, line.encoder, line.task, line.runs, line.folds]
        row += [line.images, line.groups]
        for figure in line.figures.values():
            low, high = figure.interval or (None, None)
            values = (figure.value, figure.spread, low, high)
            row += ["" if value is None else repr(value) for value in values]
        writer.writerow(row)
    return out.getvalue()
