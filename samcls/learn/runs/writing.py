"""Writing a run's folder: refused where something is, begun, and its completion mark written last.

A single run's files are written beside their place, flushed and moved into it; a sweep's folder is moved into
place whole and not flushed: a killed process loses no written file, and after a power cut the checksums
tell that a run is to be done again.

    begin_run("run", config)
    write_run("run", run_files(model, features, probabilities, history, metrics))
"""

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from samcls.config import to_toml
from samcls.errors import InputError, OverwriteRefused
from samcls.files import PART, few, to_json, write_whole
from samcls.learn.features.tensors import Features
from samcls.learn.fit.prediction import Model, model_files
from samcls.learn.fit.schedule import Epoch
from samcls.learn.runs.environment import environment
from samcls.learn.runs.folder import FILES, MARK, OPTIONAL, load_run
from samcls.learn.runs.history import history_csv
from samcls.learn.runs.predictions import prediction_table
from samcls.learn.settings import TrainConfig

__all__ = [
    "CHECKPOINT",
    "begin_run",
    "place_run",
    "refuse_overwrite",
    "run_files",
    "write_run",
]

CHECKPOINT = "checkpoint.pt"  # of a long training that is not finished; gone with the mark
MEDMNIST = re.compile(r"\w+_\[AUC\].*@.*\.csv")

Log = Callable[[str], None]


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
