"""A run's model card: Markdown with the front matter that the Hugging Face Hub reads.

Every number is of the run's files; what they do not hold is said to be unknown. Names come from a data set, and
stand in the text with Markdown's and HTML's signs escaped.

    Path("card.md").write_text(card_of("run"))
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from samcls.data.manifest import SPLITS
from samcls.encode.registry import REGISTRY, Entry
from samcls.learn.runs.folder import Run, load_runs
from samcls.learn.runs.operating import operating_points
from samcls.learn.runs.page import (
    FIGURES,
    class_counts,
    environment_of,
    group_counts,
    summary_of,
    tests_opened,
)
from samcls.learn.runs.text import around, number, pair, printable
from samcls.learn.score.headline import of_task

__all__ = ["card_of"]

SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&$])")
METRICS = {
    "auc": "roc_auc",
    "accuracy": "accuracy",
    "f1": "f1",
    "average_precision": "average_precision",
}

INTENDED = """\
Research on images like those that it was trained and tested on: the same modality, views and population. It
answers one question of an image, with probabilities."""

NOT_INTENDED = """\
- Not a medical device: not for diagnosis, triage, screening or any other decision about a patient.
- Not for images of other scanners, sites, populations or file formats before it was evaluated on labelled ones
  of them (`samcls evaluate`).
- Not as evidence that a method works in care: the figures below are of one division of one data set."""


def card_of(path: str | Path, name: str | None = None) -> str:
    """Return a run's card.

    Args:
        path: A run, a folder of seeds or folds, or a sweep, whose winner is taken.
        name: Of the model; the folder's by default.

    Raises:
        InputError: as `load_runs`.
    """
    runs = load_runs(path)
    metrics = summary_of(runs)
    title = name or Path(path).resolve().name
    parts = [
        _front(runs, metrics, title),
        f"# {_text(title)}",
        _model(runs, metrics),
        f"## Intended use\n\n{INTENDED}",
        f"## What it must not be used for\n\n{NOT_INTENDED}",
        _data(runs[0], metrics),
        *(_figures(runs, metrics, task) for task in runs[0].tasks),
        _beside(runs, metrics),
        _choice(runs, metrics),
        _notes(metrics),
        _cost(runs),
        USE,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


USE = """\
## How to use it

```bash
samcls predict RUN IMAGE... --out predictions.csv
samcls evaluate RUN OTHER.zarr
```

## Source

The features are cached and the head trained by samcls. The attention is its reading of *Adapting a Segmentation
Foundation Model for Medical Image Classification* ([arXiv 2505.06217](https://arxiv.org/abs/2505.06217)), not a
reproduction of its numbers."""


def _front(runs: Sequence[Run], metrics: Mapping[str, Any], title: str) -> str:
    """Return the YAML between dashes; every text of it is a JSON string, which YAML reads as it is."""
    run = runs[0]
    results: list[str] = []
    for task in run.tasks:
        table = of_task(metrics["test"], task) if "test" in metrics else {}
        told = [(kind, table[key]) for key, kind in METRICS.items() if table.get(key) is not None]
        if not told:
            continue
        results += [
            "  - task:",
            "      type: image-classification",
            f"      name: {json.dumps(task, ensure_ascii=False)}",
            "    dataset:",
            "      type: private",
            '      name: "the test split of the data set that it was trained on"',
            "      split: test",
            "    metrics:",
        ]
        for kind, value in told:
            results += [f"    - type: {kind}", f"      value: {value:.4f}"]
    lines = [
        "---",
        f"license: {_licence_tag(_entry(run))}",
        "library_name: samcls",
        "pipeline_tag: image-classification",
        "tags:",
        "- medical",
        "- image-classification",
        f"- {json.dumps(str(run.fingerprint.get('encoder')))}",
        "metrics:",
        *(f"- {kind}" for kind in METRICS.values()),
    ]
    if results:
        lines += ["model-index:", f"- name: {json.dumps(title, ensure_ascii=False)}", "  results:"]
        lines += results
    return "\n".join([*lines, "---"])


def _model(runs: Sequence[Run], metrics: Mapping[str, Any]) -> str:
    run, made = runs[0], runs[0].fingerprint
    entry, weights = _entry(run), runs[0].metrics.get("weights", {})
    shape = run.model.shape
    source = weights.get("untrained") or weights.get("file") or "unknown file"
    levels = ", ".join(f"{level} ({channels})" for level, channels in shape.channels.items())
    about = f"{made.get('encoder')}" + (f" ({entry.about})" if entry and entry.about else "")
    lines = [
        f"- Head: {_code(run.config.head)}, {metrics['parameters']:,} parameters",
        f"- Encoder, frozen: {_text(about)}; weights {_text(source)}, sha256 {_code(made.get('checkpoint_sha256'))}",
        f"- Licence of the encoder's weights: {_text(entry.licence if entry else 'unknown')}",
        (
            f"- Input: RGB, {_text(made.get('input_size'))} px, resize {_code(made.get('resize'))}; levels (channels) "
            f"{_text(levels)}, window {shape.window}, views {_text(', '.join(made.get('views', ())))}"
        ),
    ]
    if len(runs) > 1:
        seeds = len({one.config.seed for one in runs})
        folds = f" and {run.config.folds} folds" if run.config.folds else ""
        lines.append(f"- The mean of {len(runs)} runs: {seeds} seeds{folds}")
    return "## Model\n\n" + "\n".join(lines)


def _data(run: Run, metrics: Mapping[str, Any]) -> str:
    rows = [["", *SPLITS], ["images", *(str(metrics["images"][split]) for split in SPLITS)]]
    groups = group_counts(run)
    if groups:
        rows.append(["groups (patients)", *(str(groups[split]) for split in SPLITS)])
    for task, names in run.tasks.items():
        counts = class_counts(run, task)
        rows += [[f"{task}: {name}", *(str(counts[k][name]) for k in SPLITS)] for name in names]
    said = [
        "Groups are kept in one split each." if groups else "No groups (patients) were named.",
        f"{metrics['images'].get('failed', 0)} images could not be encoded and were left out.",
    ]
    leaks = [f"{leak} ({count})" for leak, count in _leaks(metrics).items()]
    said.append(f"Found in several splits: {', '.join(leaks) or 'nothing'}.")
    return "## Data\n\n" + _table(rows) + "\n\n" + " ".join(said)


def _leaks(metrics: Mapping[str, Any]) -> dict[str, int]:
    found = metrics.get("leaks", {})
    names = {
        "groups": "groups",
        "equal": "equal pictures",
        "contradictory": "equal pictures with other labels",
    }
    return {
        title: int(found[key]["count"])
        for key, title in names.items()
        if isinstance(found.get(key), Mapping) and found[key].get("count")
    }


def _figures(runs: Sequence[Run], metrics: Mapping[str, Any], task: str) -> str:
    tables = {k: of_task(metrics[k], task) for k in ("validation", "test") if k in metrics}
    rows = [["", *tables, "95 % interval, test"]]
    for key, title in FIGURES.items():
        if all(table.get(key) is None for table in tables.values()):
            continue
        cells = [around(one.get(key), one.get(f"{key}_std"), None) for one in tables.values()]
        rows.append([title.strip(), *cells, pair(tables.get("test", {}).get(f"{key}_interval"))])
    point = operating_points(runs)[task]
    names = runs[0].tasks[task]
    answer = "The most probable class is answered."
    if point.threshold is not None:
        answer = (
            f"The positive class is {_text(names[-1])}: it is answered above a probability of "
            f"{point.threshold:.4f}, fixed on validation."
        )
    units = tables.get("test", {}).get("units")
    unit = "Intervals: none were asked for."
    if units:
        whole = f" of {units['groups']} groups, each taken as a whole" if units["grouped"] else ""
        unit = f"Intervals rest on {units['images']} labelled test images{whole}."
    return (
        f"## Figures of {_text(task)}\n\n{_table(rows)}\n\n{answer} Temperature {point.temperature:.3f}, fixed on "
        f"validation. {unit}"
    )


def _beside(runs: Sequence[Run], metrics: Mapping[str, Any]) -> str:
    found = {k: one["test"] for k, one in metrics.get("baselines", {}).items() if "test" in one}
    if not found or "test" not in metrics:
        return ""
    rows = [["test split", "AUC", "95 % interval", "accuracy"]]
    for name, table in {f"this model ({runs[0].config.head})": metrics["test"], **found}.items():
        auc = around(table.get("auc"), table.get("auc_std"), None)
        rows.append([name, auc, pair(table.get("auc_interval")), number(table.get("accuracy"))])
    return "## Baselines on the same features\n\n" + _table(rows)


def _choice(runs: Sequence[Run], metrics: Mapping[str, Any]) -> str:
    run = runs[0]
    how = "the validation split"
    if run.config.inner:
        how = f"inner folds of all that was learned from ({_code(run.config.select)})"
    opened = tests_opened(runs)
    test = f"The test split was opened {opened} time{'s' if opened > 1 else ''}, after everything was chosen."
    return (
        f"## Selection\n\nChosen by {how}, between {metrics['models_tried']} models, baselines included. "
        + (test if run.scored else "The test split was not opened.")
    )


def _notes(metrics: Mapping[str, Any]) -> str:
    notes = [f"- {_text(note)}" for note in metrics.get("notes", [])]
    return "## Known limits\n\n" + "\n".join(notes) if notes else ""


def _cost(runs: Sequence[Run]) -> str:
    found = environment_of(runs[0].path)
    seconds = sum(run.metrics.get("seconds", 0.0) for run in runs)
    packages = ", ".join(f"{k} {v}" for k, v in found.get("packages", {}).items() if v)
    device = runs[0].metrics.get("device", "cpu")
    return (
        f"## Cost\n\nTraining, scoring and baselines: {seconds:.1f} s on {_text(device)} "
        f"({_text(found.get('platform', 'unknown machine'))}). Energy was not measured. Encoding the images is not "
        f"in these seconds. Versions: {_text(packages or 'unknown')}."
    )


def _entry(run: Run) -> Entry | None:
    """Return what is known of the run's encoder; of a model that only timm knows, nothing of its own."""
    return REGISTRY.get(str(run.fingerprint.get("encoder")))


def _licence_tag(entry: Entry | None) -> str:
    known = {"Apache-2.0": "apache-2.0", "MIT": "mit"}
    return known.get(entry.licence if entry else "", "other")


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join("| " + " | ".join(_text(cell) for cell in line) + " |" for line in lines)


def _text(text: object) -> str:
    """Return a text that Markdown and HTML show as it is."""
    plain = printable(text)
    return plain if plain == "---" else SPECIAL.sub(r"\\\1", plain)


def _code(text: object) -> str:
    """Return a text between backticks, of which it has none itself."""
    return f"`{printable(text).replace('`', chr(39))}`"
