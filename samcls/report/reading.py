"""Reading what is to be reported, and what lies beside it: its store, its board, an audit.

    subject = subject_of("run", manifest="manifest.csv")

What is not there is said in the subject; what was named and cannot be read is refused.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from samcls.deploy.evaluate import EVALUATION, load_evaluation
from samcls.errors import InputError, SamclsError
from samcls.learn.runs.folder import SUMMARY, Run, load_runs
from samcls.learn.runs.page import environment_of, summary_of
from samcls.report.subject import Subject
from samcls.store.feature_store import FeatureStore
from samcls.sweep.winner import WINNER

__all__ = ["subject_of"]

LEADERBOARD = "leaderboard.json"


def subject_of(
    path: str | Path,
    *,
    store: str | Path | None = None,
    manifest: str | Path | None = None,
    audit: str | Path | None = None,
) -> Subject:
    """Read what is to be reported.

    Args:
        path: A run, a folder of seeds or folds, a sweep, or an evaluation.
        store: Of its images; the one that the command named, if it lies there still.
        manifest: Where the pictures are.
        audit: Folder that `samcls audit --out` made, or its `audit.json`.

    Raises:
        InputError: there is nothing of the kind, or what was named cannot be read.
    """
    path = Path(path)
    if not path.is_dir():
        raise InputError(
            f"{path} is no folder; name a run, a folder of seeds or folds, a sweep, or an evaluation"
        )
    findings = {} if audit is None else _findings(Path(audit))
    given: dict[str, Any] = {"audit": findings, "manifest": manifest}
    if (path / EVALUATION).exists():
        found = load_evaluation(path)
        runs = _runs_of(found, path)
        opened, unknown = _store(store, [str(found.get("store", ""))], path)
        return Subject(
            path, "evaluation", runs, found, EVALUATION, opened, unknown, evaluation=found, **given
        )
    try:
        runs = tuple(load_runs(path))
    except InputError as error:
        if not _begun(path):
            raise
        raw = _raw(path)
        return Subject(
            path,
            "unfinished",
            (),
            raw,
            "metrics.json",
            None,
            str(error),
            reason=str(error),
            **given,
        )
    board = _raw(path, LEADERBOARD)
    named = [str(one) for one in environment_of(runs[0].path).get("command", [])]
    opened, unknown = _store(store, named, path)
    several = len(runs) > 1
    kind = (
        "sweep"
        if board
        else "folds"
        if runs[0].config.folds and several
        else "seeds"
        if several
        else "run"
    )
    base = f"{WINNER}/run/" if board else ""
    file = f"{base}{SUMMARY if several else 'metrics.json'}"
    return Subject(path, kind, runs, summary_of(runs), file, opened, unknown, board=board, **given)


def _begun(path: Path) -> bool:
    """Whether a folder holds a run that is unfinished or damaged."""
    return any(path.glob("config.toml")) or any(path.glob("seed-*/config.toml"))


def _raw(path: Path, name: str = "metrics.json") -> dict[str, Any]:
    try:
        found = json.loads((path / name).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _runs_of(found: Mapping[str, Any], path: Path) -> tuple[Run, ...]:
    """Return the runs that an evaluation is of, if they lie where it says, or beside it."""
    named = Path(str(found.get("run", "")))
    for place in (named, path.parent / named.name):
        try:
            return tuple(load_runs(place))
        except SamclsError:
            continue
    return ()


def _findings(path: Path) -> dict[str, Any]:
    file = path / "audit.json" if path.is_dir() else path
    try:
        found = json.loads(file.read_bytes())
        if isinstance(found, dict) and {"counts", "problems", "images"} <= set(found):
            return found
    except (OSError, ValueError) as error:
        raise InputError(
            f"{file} is no audit: {error}; make one with samcls audit STORE --out DIR"
        ) from error
    raise InputError(f"{file} is no audit; make one with: samcls audit STORE --out DIR")


def _store(
    given: str | Path | None, named: Sequence[str], path: Path
) -> tuple[FeatureStore | None, str]:
    """Return the store, or why there is none."""
    if given is not None:
        return FeatureStore.open(given), ""
    places = [
        place
        for text in named
        if text
        for place in (Path(text), path.parent / text, path.parent / Path(text).name)
    ]
    for place in places:
        if (place / "zarr.json").is_file():
            try:
                return FeatureStore.open(place), ""
            except SamclsError as error:
                return None, f"the feature store {place} cannot be read: {error}"
    return None, "the feature store is not where the run's command named it; name it with --store"
