"""A run in a page of text: what it is, on what, chosen how, its figures, its files. Nothing is scored anew.

Of several seeds or folds the figures are those of their summary. Names are shown without control characters.

    print(page_of("run"))
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from samcls.data.manifest import SPLITS
from samcls.errors import InputError
from samcls.learn.runs.folder import SUMMARY, Run, load_runs
from samcls.learn.runs.gain import gain_sentences
from samcls.learn.runs.operating import operating_points
from samcls.learn.runs.text import aligned, around, number, pair, printable
from samcls.learn.score.headline import of_task

__all__ = [
    "FIGURES",
    "class_counts",
    "environment_of",
    "facts_of_runs",
    "group_counts",
    "page_of",
    "summary_of",
    "tests_opened",
]

WIDTH = 100

# Figures of a page, by their names in a table.
FIGURES = {
    "auc": "AUC",
    "average_precision": "average precision",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "f1": "F1",
    "brier": "Brier score",
    "ece": "calibration error",
    "ece_scaled": "  at the temperature",
    "sensitivity_at_threshold": "sensitivity at the threshold",
    "specificity_at_threshold": "specificity at the threshold",
}


def page_of(path: str | Path) -> str:
    """Return a run's page, at most 100 columns wide where its names allow.

    Args:
        path: A run, a folder of seeds or folds, or a sweep, whose winner is taken.

    Raises:
        InputError: as `load_runs`.
    """
    runs = load_runs(path)
    metrics = summary_of(runs)
    lines = [
        *_what(runs, metrics),
        "",
        *_images(runs[0], metrics),
        "",
        *_chosen(runs, metrics),
    ]
    for task in runs[0].tasks:
        lines += ["", *_figures(runs, metrics, task)]
    lines += ["", *_beside(runs, metrics)]
    notes = [*metrics.get("notes", [])]
    gains = gain_sentences(runs[0].config.head, metrics.get("gain", {}))
    lines += ["", "Notes", *(_wrapped(note) for note in [*gains, *notes])] if gains or notes else []
    lines += ["", *_files(runs)]
    return "\n".join(_plain(lines)) + "\n"


def facts_of_runs(path: str | Path) -> dict[str, Any]:
    """Return what the page is made of, as JSON knows it.

    Args:
        path: As for `page_of`.

    Raises:
        InputError: as `load_runs`.
    """
    runs = load_runs(path)
    points = operating_points(runs)
    return {
        "runs": [str(run.path) for run in runs],
        "head": runs[0].config.head,
        "tasks": {task: list(names) for task, names in runs[0].tasks.items()},
        "fingerprint": dict(runs[0].fingerprint),
        "metrics": summary_of(runs),
        "operating": {task: vars(point) for task, point in points.items()},
        "files": {str(run.path): _sizes(run.path) for run in runs},
        "environment": environment_of(runs[0].path),
    }


def summary_of(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the figures of one run, or the summary of several.

    Raises:
        InputError: the summary is damaged.
    """
    if len(runs) == 1:
        return dict(runs[0].metrics)
    path = runs[0].path.parent / SUMMARY
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        folds = found.get("pooled")
        if folds and len(folds) == 1:
            found["test"] = folds[0]
        found["validation"], found["test"] = dict(found["validation"]), dict(found["test"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged: {error}; train the runs again") from error
    return found


def tests_opened(runs: Sequence[Run]) -> int:
    """Return how often the test split was opened: once for a run, and for each winner that a sweep has had."""
    for folder in runs[0].path.resolve().parents[:3]:
        if folder.name == "winner":
            return 1 + len(list(folder.parent.glob("winner-*")))
    return 1


def _what(runs: Sequence[Run], metrics: Mapping[str, Any]) -> list[str]:
    run, made = runs[0], runs[0].fingerprint
    config, shape = run.config, run.model.shape
    several = ""
    if len(runs) > 1:
        seeds = len({one.config.seed for one in runs})
        folds = f", {config.folds} folds each" if config.folds else ""
        several = f": {len(runs)} runs, of {seeds} seed{'s' if seeds > 1 else ''}{folds}"
    path = run.path.parent if len(runs) > 1 else run.path
    weights = run.metrics.get("weights", {})
    source = weights.get("untrained") or (
        "published weights" if weights.get("official") else weights.get("file") or ""
    )
    levels = ", ".join(f"{level} ({channels})" for level, channels in shape.channels.items())
    rows = [
        ("head", f"{config.head}, {metrics['parameters']:,} parameters"),
        ("encoder", f"{made.get('encoder')}{f' ({source})' if source else ''}"),
        ("", f"sha256 {made.get('checkpoint_sha256')}"),
        ("input", f"{made.get('input_size')} px, {made.get('resize')}, {made.get('precision')}"),
        ("levels (channels)", f"{levels}; window {shape.window}"),
        ("views", ", ".join(made.get("views", ()))),
    ]
    return [f"Run {path}{several}", *_pairs(rows)]


def _images(run: Run, metrics: Mapping[str, Any]) -> list[str]:
    images, labelled = metrics["images"], metrics.get("labelled", {})
    rows = [["Images", *SPLITS]]
    rows.append(["images", *(str(images[split]) for split in SPLITS)])
    groups = group_counts(run)
    if groups:
        rows.append(["groups (patients)", *(str(groups[split]) for split in SPLITS)])
    for task, names in run.tasks.items():
        counts = class_counts(run, task)
        rows += [[f"{task}: {name}", *(str(counts[k][name]) for k in SPLITS)] for name in names]
        if task in labelled and any(labelled[task][split] < images[split] for split in SPLITS):
            missing = (str(images[split] - labelled[task][split]) for split in SPLITS)
            rows.append([f"{task}: no label", *missing])
    lines = aligned([[printable(cell) for cell in row] for row in rows])
    if run.config.folds:
        lines.append(f"of fold {run.config.fold} of {run.config.folds}")
    if images.get("failed"):
        lines.append(f"{images['failed']} images could not be encoded and were left out")
    return lines


def _chosen(runs: Sequence[Run], metrics: Mapping[str, Any]) -> list[str]:
    run = runs[0]
    how = "on the validation split"
    if run.config.inner:
        how = f"by {run.config.select}: folds of train and validation, groups whole"
    rows = [("chosen", f"{how}, between {metrics['models_tried']} models, baselines included")]
    if len(runs) == 1 and metrics["epochs"] > 1:
        rows.append(("epoch", f"{metrics['best_epoch']} of {metrics['epochs']}"))
    numbers = ", ".join(f"{k} {v:g}" for k, v in metrics.get("chosen", {}).items())
    rows += [("numbers", numbers)] if numbers else []
    for task, point in operating_points(runs).items():
        threshold = "the most probable class is answered"
        if point.threshold is not None:
            threshold = f"{run.tasks[task][-1]} is answered above {point.threshold:.4f}"
        told = f"{threshold}; temperature {point.temperature:.3f}; fixed on validation"
        rows.append((f"answer, {task}" if len(run.tasks) > 1 else "answer", told))
    rows.append(("test split", _opened(runs)))
    return ["Choice", *_pairs(rows)]


def _opened(runs: Sequence[Run]) -> str:
    if not runs[0].scored:
        return "not opened"
    times = tests_opened(runs)
    return (
        "opened once, after all this"
        if times == 1
        else f"opened {times} times, for as many winners"
    )


def _figures(runs: Sequence[Run], metrics: Mapping[str, Any], task: str) -> list[str]:
    tables = {
        name: of_task(metrics[name], task) for name in ("validation", "test") if name in metrics
    }
    header = [f"Figures of {task}", *tables, *(["95 % interval"] if "test" in tables else [])]
    rows = [header]
    for name, title in FIGURES.items():
        if all(table.get(name) is None for table in tables.values()):
            continue
        cells = [around(one.get(name), one.get(f"{name}_std"), None) for one in tables.values()]
        interval = [pair(tables["test"].get(f"{name}_interval"))] if "test" in tables else []
        rows.append([title, *cells, *interval])
    lines = aligned([[printable(cell) for cell in row] for row in rows])
    names = runs[0].tasks[task]
    if len(names) == 2:
        lines.append(_wrapped(f"sensitivity, F1 and their like are of class {names[-1]}"))
    if "threshold" not in tables["validation"] and len(names) == 2:
        lines.append("no figures at the threshold: the run is of an earlier version")
    return lines


def _beside(runs: Sequence[Run], metrics: Mapping[str, Any]) -> list[str]:
    found = {k: one["test"] for k, one in metrics.get("baselines", {}).items() if "test" in one}
    lines: list[str] = []
    if found and "test" in metrics:
        rows = [["Beside it, test", "AUC", "95 % interval", "accuracy"]]
        for name, table in {f"this run: {runs[0].config.head}": metrics["test"], **found}.items():
            auc = around(table.get("auc"), table.get("auc_std"), None)
            interval = pair(table.get("auc_interval"))
            rows.append([printable(name), auc, interval, number(table.get("accuracy"))])
        lines = aligned(rows)
    if len(runs) > 1:
        rows = [["Runs", "validation AUC", "test AUC"]]
        for run in runs:
            test = run.metrics.get("test", {}).get("auc")
            rows.append([run.path.name, number(run.auc), number(test)])
        lines += ["", *aligned(rows)] if lines else aligned(rows)
    return lines


def _files(runs: Sequence[Run]) -> list[str]:
    path = runs[0].path.parent if len(runs) > 1 else runs[0].path
    seconds = sum(run.metrics.get("seconds", 0.0) for run in runs)
    rows = [["Files", "bytes"], *([name, f"{size:,}"] for name, size in _sizes(path).items())]
    found = environment_of(runs[0].path)
    packages = ", ".join(f"{k} {v}" for k, v in found.get("packages", {}).items() if v)
    made = f"{seconds:.1f} s on {runs[0].metrics.get('device', 'cpu')}; {found.get('platform', '')}"
    command = " ".join(map(str, found.get("command", [])))
    return [
        *aligned([[printable(cell) for cell in row] for row in rows]),
        "",
        *_pairs([("made in", made), ("command", command), ("versions", packages)]),
    ]


def group_counts(run: Run) -> dict[str, int]:
    """Return how many groups each split has; nothing where no image has one."""
    found = {split: set(run_groups) for split, run_groups in _by_split(run, "groups").items()}
    named = any(group for groups in found.values() for group in groups)
    return {split: len(groups - {""}) for split, groups in found.items()} if named else {}


def class_counts(run: Run, task: str) -> dict[str, dict[str, int]]:
    """Return how many images of each split have each class."""
    column, names = list(run.tasks).index(task), run.tasks[task]
    return {
        split: {name: int((labels[:, column] == i).sum()) for i, name in enumerate(names)}
        for split, labels in _by_split(run, "labels").items()
    }


def _by_split(run: Run, what: str) -> dict[str, Any]:
    """Return labels or groups of each split; where inner folds chose, `val` is all that was learned from."""
    found = {}
    for split in SPLITS:
        try:
            found[split] = getattr(run.predictions(split), what)
        except InputError:  # a split that was not scored, or is part of another
            found[split] = getattr(run.said, what)[:0]
    return found


def _sizes(folder: Path) -> dict[str, int]:
    return {one.name: one.stat().st_size for one in sorted(folder.iterdir()) if one.is_file()}


def environment_of(folder: Path) -> dict[str, Any]:
    """Return what a run says of the machine it was made on; of that file no checksum is kept."""
    try:
        found = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    good = isinstance(found, dict) and isinstance(found.get("packages", {}), dict)
    return found if good and isinstance(found.get("command", []), list) else {}


def _pairs(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Return names and what is said of them, which goes on in lines of its own where it is long."""
    width = max(len(printable(name)) for name, _ in rows) + 2
    lines = []
    for name, text in rows:
        first = printable(name).ljust(width)
        for part in _lines(printable(text), WIDTH - 2 - width) or [""]:
            lines.append(f"  {first}{part}".rstrip())
            first = " " * width
    return lines


def _wrapped(text: str) -> str:
    return "\n".join(f"  {line}" for line in _lines(printable(text), WIDTH - 2))


def _lines(text: str, width: int) -> list[str]:
    """Return a text in lines of at most so many signs, cut at spaces; a longer word keeps its line."""
    found: list[str] = []
    for word in text.split():
        if found and len(found[-1]) + 1 + len(word) <= width:
            found[-1] += f" {word}"
        else:
            found.append(word)
    return found


def _plain(lines: Sequence[str]) -> Iterator[str]:
    """Yield the lines, no two of them empty one after another."""
    last = ""
    for line in "\n".join(lines).split("\n"):
        if line or last:
            yield line
        last = line
