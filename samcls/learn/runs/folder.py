"""One folder a run, single or a member of seeds, folds or a sweep; a completion mark written last.

    config.toml                    how it was trained
    fingerprint.json               what made the features
    metrics.json                   every figure
    predictions.csv, history.csv   a row an image and task; a row an epoch
    controls.csv                   what the baselines said, likewise, of images that were not trained on
    known.safetensors              digests of the images' pixels; where training's features lie
    head.json, head.safetensors    the model
    environment.json               versions and machine
    *_[AUC]*_[ACC]*@*.csv          on request, predictions in MedMNIST's format
    COMPLETE                       checksums of all these; the mark

Of a run of a sweep, figures and predictions are of the validation split alone: those of `test`
stand in a run once it was scored. A folder without the mark is an unfinished run: it is never
believed, and can be started again. `writing` makes them.

    run = load_run("run")
    run.metrics["test"]["auc"], run.model.probabilities(tokens, counts)
"""

import csv
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from samcls.config import digest, load_toml
from samcls.errors import InputError
from samcls.learn.fit.prediction import Model, load_model, load_tasks
from samcls.learn.fit.schedule import Epoch
from samcls.learn.runs.history import parse_history
from samcls.learn.runs.known import KNOWN, Known, parse_known
from samcls.learn.runs.predictions import (
    Predictions,
    parse_controls,
    parse_predictions,
)
from samcls.learn.score.headline import headlines
from samcls.learn.settings import TrainConfig

__all__ = [
    "CONTROLS",
    "Run",
    "load_run",
    "load_runs",
]

MARK = "COMPLETE"
SUMMARY = "summary.json"  # of a folder of several runs, written after the last of them
CONTROLS = "controls.csv"
FILES = (
    "config.toml",
    "fingerprint.json",
    "metrics.json",
    "predictions.csv",
    "history.csv",
    "head.json",
    "head.safetensors",
    "environment.json",
)
CHECKED = tuple(name for name in FILES if name != "environment.json")
OPTIONAL = (CONTROLS, KNOWN)  # neither in runs of a sweep, nor of earlier versions
TABLES = ("predictions.csv", "history.csv", *OPTIONAL)


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run, read back.

    Attributes:
        path: Its folder.
        config: How it was trained.
        fingerprint: What made its features; other features must not be given to its model.
        metrics: The figures, as in `metrics.json`.
        tasks: Class names of each task.
        tables: Contents of `predictions.csv`, `history.csv`, `controls.csv` and `known.safetensors`, by
            file name; empty where a run has none.
    """

    path: Path
    config: TrainConfig
    fingerprint: Mapping[str, Any]
    metrics: Mapping[str, Any]
    tasks: Mapping[str, tuple[str, ...]]
    tables: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def key(self) -> str:
        """Digest of the config."""
        return digest(self.config)

    @property
    def validation(self) -> Mapping[str, Any]:
        """The table of the validation split."""
        found: Mapping[str, Any] = self.metrics["validation"]
        return found

    @property
    def auc(self) -> float | None:
        """Validation AUC, the mean over tasks; None where nothing defines it."""
        found: float | None = self.validation["auc"]
        return found

    @property
    def loss(self) -> float:
        """Validation loss after the best epoch."""
        best: int = self.metrics["best_epoch"]
        return self.history[best - 1].val_loss

    @property
    def scored(self) -> bool:
        """Whether the test split was opened for it."""
        return "test" in self.metrics

    @cached_property
    def history(self) -> tuple[Epoch, ...]:
        """Every epoch that ran."""
        return parse_history(self.tables["history.csv"])

    @cached_property
    def said(self) -> Predictions:
        """What it said of the validation images."""
        return self.predictions("val")

    def __repr__(self) -> str:
        """Its head, what made its features, and its figures."""
        encoder = self.fingerprint.get("encoder", "an unknown encoder")
        first = f"Run {self.path}: {self.config.head} head on {encoder}, seed {self.config.seed}"
        tasks = (f"label {task}: {', '.join(names)}" for task, names in self.tasks.items())
        return "\n  ".join([first, *tasks, *headlines(self.metrics)])

    @cached_property
    def model(self) -> Model:
        """ChannelScaler and head, read when they are first asked for.

        Raises:
            InputError: as `load_model`.
        """
        return load_model(self.path)

    @cached_property
    def known(self) -> Known | None:
        """What is kept of its images; None in runs of a sweep and of earlier versions."""
        content = self.tables[KNOWN]
        return parse_known(content, str(self.path / KNOWN)) if content else None

    def predictions(self, split: str) -> Predictions:
        """Return what it said of the images of one split.

        Args:
            split: `train`, `val` or `test`.

        Raises:
            InputError: where the split was not scored, as a sweep scores no test split but its
                winner's.
        """
        said = self._parsed.get(split)
        if said is None:
            name = "predictions.csv"
            said = parse_predictions(self.tables[name], self.tasks, split, f"{self.path / name}")
            self._parsed[split] = said
        if not said.ids:
            raise InputError(
                f"{self.path} says nothing of split {split}: runs of a sweep are scored on val alone, "
                "and its winner on test; compare on --split val, or name the sweep's folder for its "
                "winner"
            )
        return said

    @cached_property
    def _parsed(self) -> dict[str, Predictions]:
        """What was said, by split, as far as it was asked for."""
        return {}

    @property
    def order(self) -> list[str]:
        """Ids of its images, in the order of its predictions and of the digests in `known`."""
        lines = self.tables["predictions.csv"].decode().splitlines()
        return list(dict.fromkeys(row["id"] for row in csv.DictReader(lines)))

    def controls(self, split: str) -> dict[str, Predictions]:
        """Return what its baselines said of the images of one split, by name; none of an earlier version's.

        Args:
            split: `val` or `test`.
        """
        return parse_controls(self.tables[CONTROLS], self.tasks, split, f"{self.path / CONTROLS}")


def load_runs(path: str | Path) -> list[Run]:
    """Read a finished run back, or all of a folder of seeds or folds, or those of a sweep's winner.

    Args:
        path: What `samcls train` or `samcls sweep` made, or a sweep's folder `winner`.

    Raises:
        InputError: as `load_run`, for any of them; or not all seeds or folds are finished.
    """
    path = Path(path)
    for inside in (path / "winner" / "run", path / "run"):
        # A sweep's folder holds no run of its own, and its winner's holds only that one.
        if inside.is_dir() and not (path / "config.toml").exists():
            path = inside
            break
    if (path / MARK).exists() or (path / "config.toml").exists():
        return [load_run(path)]
    folders = sorted(one.parent for one in path.glob("seed-*/config.toml"))
    if folders and not (path / SUMMARY).exists():
        raise InputError(
            f"{path} is unfinished: it has no {SUMMARY}, which is written after its last seed and "
            "fold; run the same samcls train again to finish it"
        )
    return [load_run(folder) for folder in folders] if folders else [load_run(path)]


def load_run(path: str | Path) -> Run:
    """Read a finished run back.

    Raises:
        InputError: where there is no run, where it is unfinished, or where a file has changed
            since it was finished.
    """
    path = Path(path)
    if not (path / MARK).exists():
        if (path / "config.toml").exists():
            raise InputError(
                f"the run {path} is unfinished: it has no {MARK} mark; train it again to finish it"
            )
        raise InputError(f"{path} is not a run folder; make one with: samcls train STORE {path}")
    try:
        checksums = json.loads((path / MARK).read_bytes())["sha256"]
        kept = [name for name in (*CHECKED, *OPTIONAL) if name in CHECKED or name in checksums]
        contents = {name: (path / name).read_bytes() for name in kept}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"the run {path} is damaged: {error}; train it again") from error
    for name, content in contents.items():
        if hashlib.sha256(content).hexdigest() != checksums.get(name):
            raise InputError(
                f"{path / name} is not what the run wrote (its checksum differs); restore it, or "
                "train again"
            )
    return Run(
        path=path,
        config=load_toml(TrainConfig, path / "config.toml"),
        fingerprint=_table(path / "fingerprint.json", contents),
        metrics=_table(path / "metrics.json", contents),
        tasks=load_tasks(path),
        tables={name: contents.get(name, b"") for name in TABLES},
    )


def _table(file: Path, contents: Mapping[str, bytes]) -> dict[str, Any]:
    """Return what a file of JSON holds, which must be named values."""
    try:
        found = json.loads(contents[file.name])
    except ValueError as error:
        raise InputError(f"{file} is damaged: {error}; train the run again") from error
    if not isinstance(found, dict):
        raise InputError(f"{file} is damaged: it holds no named values; train the run again")
    return found
