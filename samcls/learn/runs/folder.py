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
believed, and can be started again. A single run's files are written beside their place, flushed and
moved into it; a sweep's folder is moved into place whole and not flushed: a killed process loses no
written file, and after a power cut the checksums tell that a run is to be done again.

    run = load_run("run")
    run.metrics["test"]["auc"], run.model.probabilities(tokens, counts)
"""

import csv
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from samcls.config import digest, load_toml, to_toml
from samcls.errors import InputError, OverwriteRefused
from samcls.files import PART, few, to_json, write_whole
from samcls.learn.features.tensors import Features
from samcls.learn.fit.prediction import Model, load_model, load_tasks, model_files
from samcls.learn.fit.schedule import Epoch
from samcls.learn.runs.environment import environment
from samcls.learn.runs.history import history_csv, parse_history
from samcls.learn.runs.known import KNOWN, Known, parse_known
from samcls.learn.runs.predictions import (
    Predictions,
    parse_controls,
    parse_predictions,
    prediction_table,
)
from samcls.learn.score.headline import headlines
from samcls.learn.settings import TrainConfig

__all__ = [
    "CONTROLS",
    "Run",
    "begin_run",
    "load_run",
    "load_runs",
    "place_run",
    "refuse_overwrite",
    "run_files",
    "write_run",
]

MARK = "COMPLETE"
SUMMARY = "summary.json"  # of a folder of several runs, written after the last of them
CONTROLS = "controls.csv"
CHECKPOINT = "checkpoint.pt"  # of a long training that is not finished; gone with the mark
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
MEDMNIST = re.compile(r"\w+_\[AUC\].*@.*\.csv")

Log = Callable[[str], None]


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
        name = "predictions.csv"
        said = parse_predictions(self.tables[name], self.tasks, split, f"{self.path / name}")
        if not said.ids:
            raise InputError(
                f"{self.path} says nothing of split {split}: runs of a sweep are scored on val alone, "
                "and its winner on test; compare on --split val, or name the sweep's folder for its "
                "winner"
            )
        return said

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


def refuse_overwrite(path: str | Path) -> None:
    """Make sure that a run may be written to a folder.

    Raises:
        OverwriteRefused: where a finished run is there, or anything that no run has written.
    """
    path = Path(path)
    if (path / MARK).exists():
        raise OverwriteRefused(
            f"{path} holds a finished run; name another folder, or remove this one first"
        )
    if path.exists() and not path.is_dir():
        raise OverwriteRefused(f"{path} is a file; name a folder for the run")
    strange = sorted(p.name for p in path.iterdir() if not _own(p)) if path.exists() else []
    if strange:
        raise OverwriteRefused(
            f"{path} holds {few(strange)}, which no run wrote; name a new or empty folder"
        )


def begin_run(path: str | Path, config: TrainConfig, log: Log = lambda _: None) -> None:
    """Make a run's folder, cleared of what an unfinished run left there, and write its config.

    The checkpoint of an unfinished run with the same config stays: its training goes on from there.

    Raises:
        OverwriteRefused: as `refuse_overwrite`; or the folder holds the checkpoint of an unfinished
            run with other settings, hours of work perhaps.
    """
    refuse_overwrite(path)
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    left, text = list(path.iterdir()), to_toml(config).encode()
    old = path / "config.toml"
    goes_on = (path / CHECKPOINT).exists() and old.exists() and old.read_bytes() == text
    if (path / CHECKPOINT).exists() and not goes_on:
        raise OverwriteRefused(
            f"{path} holds an unfinished run with other settings{_differing(old, text)}; run the same "
            "command as before to go on with it, or name another folder, or remove this one first"
        )
    if goes_on:
        log(f"{path} holds an unfinished run; going on with it")
    elif left:
        log(f"{path} holds an unfinished run; starting it again from the beginning")
    for file in left:
        if not (goes_on and file.name == CHECKPOINT):
            file.unlink()
    write_whole(path / "config.toml", text)


def _differing(old: Path, text: bytes) -> str:
    """Return the lines of two configs that are not in both, in parentheses; empty where one is missing."""
    if not old.exists():
        return ""
    before, now = old.read_text(encoding="utf-8").splitlines(), text.decode().splitlines()
    lost, new = ([x for x in a if x not in b] for a, b in ((before, now), (now, before)))
    return f" ({', '.join(lost) or 'nothing'} there, {', '.join(new) or 'nothing'} now)"


def write_run(path: str | Path, files: Mapping[str, bytes]) -> None:
    """Write all files of a run that has begun, then the mark.

    Args:
        path: The folder that `begin_run` made.
        files: Contents by file name, as `run_files` gives them.
    """
    path = Path(path)
    for name, content in files.items():
        write_whole(path / name, content)
    write_whole(path / MARK, _mark(files))
    (path / CHECKPOINT).unlink(missing_ok=True)


def place_run(path: str | Path, files: Mapping[str, bytes], *, mark: bool = True) -> None:
    """Put a whole folder in place at once, unless a finished run is there already.

    Args:
        path: The folder; what an unfinished run left there is removed.
        files: Contents by file name.
        mark: Whether they are those of a finished run.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}{PART}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    for name, content in {**files, **({MARK: _mark(files)} if mark else {})}.items():
        (part / name).write_bytes(content)
    while True:
        try:
            part.rename(path)
        except OSError:
            if not path.exists():
                raise
            if _is_finished(path):
                shutil.rmtree(part)
                return
            shutil.rmtree(path, ignore_errors=True)
        else:
            return


def run_files(
    model: Model,
    features: Features,
    probabilities: Mapping[str, Float[np.ndarray, "image _class"]],
    history: Sequence[Epoch],
    metrics: Mapping[str, Any],
    split: str | None = None,
) -> dict[str, bytes]:
    """Return the contents of a run's files, by name, without the mark.

    Args:
        model: The selected model.
        features: What it was trained on.
        probabilities: Of every image, by task, or of those of `split`.
        history: Every epoch.
        metrics: The figures.
        split: The only one that was scored; None means all.
    """
    return {
        "config.toml": to_toml(model.config).encode(),
        "fingerprint.json": to_json(features.fingerprint),
        "metrics.json": to_json(metrics),
        "predictions.csv": prediction_table(features, probabilities, split),
        "history.csv": history_csv(history),
        **model_files(model),
        "environment.json": to_json(environment()),
    }


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


def _is_finished(path: Path) -> bool:
    try:
        load_run(path)
    except InputError:
        return False
    return True


def _own(file: Path) -> bool:
    """Whether a run wrote the file, or was writing it when it was cut off."""
    name = file.name.removesuffix(PART)
    return file.is_file() and (
        name in {*FILES, *OPTIONAL, MARK, CHECKPOINT} or MEDMNIST.fullmatch(name) is not None
    )


def _mark(files: Mapping[str, bytes]) -> bytes:
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    return to_json({"sha256": sums})
