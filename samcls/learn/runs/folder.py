"""One folder a run: everything that a run was and found, and a completion mark written last.

    config.toml                    how it was trained
    fingerprint.json               what made the features
    metrics.json                   every figure
    predictions.csv, history.csv   a row an image and task; a row an epoch
    head.json, head.safetensors    the model
    environment.json               versions and machine
    *_[AUC]*_[ACC]*@*.csv          on request, predictions in MedMNIST's format
    COMPLETE                       checksums of all these; the mark

A folder without the mark is an unfinished run: it is never believed, and can be started again.
Files are written beside their place and moved into it; a run of 780 images takes some 0.05 s to
write.

    run = load_run("run")
    run.metrics["test"]["auc"], run.model.probabilities(tokens, counts)
"""

import hashlib
import json
import os
import platform
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from samcls.config import TrainConfig, load_toml, to_toml
from samcls.errors import InputError, OverwriteRefused
from samcls.learn.features.tensors import Features
from samcls.learn.fit.prediction import Model, load_model, load_tasks, model_files
from samcls.learn.fit.schedule import Epoch
from samcls.learn.runs.predictions import csv_bytes, prediction_table
from samcls.learn.score.headline import headlines

__all__ = [
    "Run",
    "begin_run",
    "load_run",
    "load_runs",
    "refuse_overwrite",
    "run_files",
    "write_run",
]

MARK = "COMPLETE"
SUMMARY = "summary.json"  # of a folder of several runs, written after the last of them
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
CHECKED = tuple(name for name in FILES if name not in {"history.csv", "environment.json"})
MEDMNIST = re.compile(r"\w+_\[AUC\].*@.*\.csv")
PACKAGES = ("samcls", "torch", "numpy", "scikit-learn", "safetensors", "zarr")

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
    """

    path: Path
    config: TrainConfig
    fingerprint: Mapping[str, Any]
    metrics: Mapping[str, Any]
    tasks: Mapping[str, tuple[str, ...]]

    def __repr__(self) -> str:
        """Its head, what made its features, and its figures."""
        encoder = self.fingerprint.get("encoder", "an unknown encoder")
        first = f"Run {self.path}: {self.config.head} head on {encoder}, seed {self.config.seed}"
        tasks = (f"label {task}: {', '.join(names)}" for task, names in self.tasks.items())
        return "\n  ".join([first, *tasks, *headlines(self.metrics)])

    @cached_property
    def model(self) -> Model:
        """Standardiser and head, read when they are first asked for.

        Raises:
            InputError: as `load_model`.
        """
        return load_model(self.path)


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
            f"{path} holds {', '.join(strange[:5])}, which no run wrote; name a new or empty folder"
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
    _write(path / "config.toml", text)


def _differing(old: Path, text: bytes) -> str:
    """The lines of two configs that are not in both, in parentheses; empty where one is missing."""
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
        _write(path / name, content)
    checksums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    _write(path / MARK, _json({"sha256": checksums}))
    (path / CHECKPOINT).unlink(missing_ok=True)


def run_files(
    model: Model,
    features: Features,
    probabilities: Mapping[str, Float[np.ndarray, "image _class"]],
    history: Sequence[Epoch],
    metrics: Mapping[str, Any],
) -> dict[str, bytes]:
    """The contents of a run's files, by name, without the mark.

    Args:
        model: The selected model.
        features: What it was trained on.
        probabilities: Of every image, by task.
        history: Every epoch.
        metrics: The figures.
    """
    return {
        "config.toml": to_toml(model.config).encode(),
        "fingerprint.json": _json(features.fingerprint),
        "metrics.json": _json(metrics),
        "predictions.csv": prediction_table(features, probabilities),
        "history.csv": _history(history),
        **model_files(model),
        "environment.json": _json(environment()),
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
        contents = {name: (path / name).read_bytes() for name in CHECKED}
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
        fingerprint=json.loads(contents["fingerprint.json"]),
        metrics=json.loads(contents["metrics.json"]),
        tasks=load_tasks(path),
    )


def environment() -> dict[str, Any]:
    """Versions, machine and command line, without the user's and the machine's name."""
    return {
        "command": [_anonymous(argument) for argument in _command()],
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _command() -> list[str]:
    return [Path(sys.argv[0]).name, *sys.argv[1:]] if sys.argv else []


def _anonymous(argument: str) -> str:
    """The argument with the home folder as ~, and `user` for folders named as the user is."""
    home = Path.home()
    shortened = argument.replace(str(home), "~") if home.name else argument
    return "/".join("user" if part == home.name else part for part in shortened.split("/"))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _own(file: Path) -> bool:
    """Whether a run wrote the file, or was writing it when it was cut off."""
    name = file.name.removesuffix(".part")
    return file.is_file() and (
        name in {*FILES, MARK, CHECKPOINT} or MEDMNIST.fullmatch(name) is not None
    )


def _history(history: Sequence[Epoch]) -> bytes:
    header = [f.name for f in fields(Epoch)]
    cells = ([getattr(epoch, name) for name in header] for epoch in history)
    return csv_bytes(header, [["" if v is None else repr(v) for v in row] for row in cells])


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode()


def _write(path: Path, content: bytes) -> None:
    """Write beside the path and move into place: a file that is there is whole."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
