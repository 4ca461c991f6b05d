"""How the runs of a sweep ended: folders of `learn.runs.folder`, and reasons where there is none.

    runs/<digest of config>/    a run, of which validation alone was scored
                            FAILED.json      with config.toml, where the run failed

A sweep reads each run once, when it has ended.

    read_runs(folder)[digest(config)].auc
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from samcls.config import digest, load_toml, to_toml
from samcls.errors import InputError
from samcls.files import PART, to_json
from samcls.learn.runs.folder import Run, load_run
from samcls.learn.runs.writing import place_run
from samcls.learn.settings import TrainConfig

__all__ = [
    "Outcome",
    "RunFailure",
    "read_failures",
    "read_run",
    "read_runs",
    "run_path",
    "sweep_away",
    "write_failure",
]

RUNS = "runs"
FAILED = "FAILED.json"


@dataclass(frozen=True)
class RunFailure:
    """A run that could not be finished.

    Attributes:
        config: How it was to be trained.
        reason: In words.
    """

    config: TrainConfig
    reason: str

    @property
    def key(self) -> str:
        """Digest of the config."""
        return digest(self.config)


Outcome = Run | RunFailure


def run_path(folder: str | Path, config: TrainConfig) -> Path:
    """Return the folder of a config's run."""
    return Path(folder) / RUNS / digest(config)


def write_failure(folder: str | Path, failure: RunFailure) -> None:
    """Write down why a run failed; a finished run is left as it is."""
    reason = to_json({"reason": failure.reason})
    files = {"config.toml": to_toml(failure.config).encode(), FAILED: reason}
    place_run(run_path(folder, failure.config), files, mark=False)


def read_runs(folder: str | Path) -> dict[str, Run]:
    """Every finished run by the digest of its config, in the order of the digests.

    A folder that is unfinished, damaged or misnamed is not there: its run is done again.
    """
    found = ((path.name, read_run(path)) for path in _folders(folder))
    return {name: run for name, run in found if run is not None}


def read_run(path: Path) -> Run | None:
    """Return a finished run whose folder is named by the digest of its config; None where there is none."""
    try:
        run = load_run(path)
    except (InputError, ValueError, TypeError):
        return None
    return run if run.key == path.name and "validation" in run.metrics else None


def read_failures(folder: str | Path) -> dict[str, RunFailure]:
    """Every failed run by the digest of its config."""
    failures = {}
    for path in _folders(folder):
        try:
            reason = json.loads((path / FAILED).read_bytes())["reason"]
            config = load_toml(TrainConfig, path / "config.toml")
        except (OSError, ValueError, KeyError, TypeError, InputError):
            continue
        if isinstance(reason, str) and digest(config) == path.name:
            failures[path.name] = RunFailure(config, reason)
    return failures


def sweep_away(folder: str | Path) -> None:
    """Remove what killed writers left beside the runs; for the one process that owns the sweep."""
    runs = Path(folder) / RUNS
    for path in runs.glob(f".*{PART}") if runs.is_dir() else ():
        shutil.rmtree(path, ignore_errors=True)


def _folders(folder: str | Path) -> Iterator[Path]:
    runs = Path(folder) / RUNS
    if runs.is_dir():
        yield from sorted(p for p in runs.iterdir() if not p.name.startswith("."))
