"""Reading what is to be reported, and what lies beside it: its store, its board, an audit.

    subject = subject_of("run", manifest="manifest.csv")

What is not there is said in the subject; what was named and cannot be read is refused.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from samcls.deploy.evaluate import EVALUATION, load_evaluation
from samcls.errors import InputError, SamclsError
from samcls.files import few
from samcls.learn.runs.folder import SUMMARY, Run, load_runs
from samcls.learn.runs.operating import operating_points
from samcls.learn.runs.page import environment_of, summary_of
from samcls.learn.score.headline import of_task
from samcls.report.subject import Subject
from samcls.store.feature_store import FeatureStore
from samcls.sweep.winner import WINNER

__all__ = ["subject_of"]

LEADERBOARD = "leaderboard.json"
ALIKE = 1e-6  # of thresholds and temperatures


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
    if (path / EVALUATION).exists():
        return _evaluation(path, store, audit, manifest)
    try:
        runs = tuple(load_runs(path))
    except InputError as error:
        if not _begun(path):
            raise
        raw, reason = _raw(path), str(error)
        return Subject(path, "unfinished", (), raw, "metrics.json", None, reason, reason=reason)
    board, several = _raw(path, LEADERBOARD), len(runs) > 1
    named = [str(one) for one in environment_of(runs[0].path).get("command", [])]
    opened, unknown = _store(store, named, path, runs)
    kind = "run"
    if several:
        kind = "folds" if runs[0].config.folds else "seeds"
    base = f"{WINNER}/run/" if board else ""
    subject = Subject(
        path=path,
        kind="sweep" if board else kind,
        runs=runs,
        metrics=summary_of(runs),
        file=f"{base}{SUMMARY if several else 'metrics.json'}",
        store=opened,
        unknown=unknown,
        board=board,
        manifest=manifest,
    )
    return subject if audit is None else replace(subject, audit=_findings(Path(audit), subject))


def _evaluation(
    path: Path, store: str | Path | None, audit: str | Path | None, manifest: str | Path | None
) -> Subject:
    if audit is not None:
        raise InputError(
            f"{path} is an evaluation: an audit is of the data that a run was trained on; report the run with it"
        )
    found = load_evaluation(path)
    runs, reason = _runs_of(found, path)
    opened, unknown = _store(store, [str(found.get("store", ""))], path, runs)
    return Subject(
        path=path,
        kind="evaluation",
        runs=runs,
        metrics=found,
        file=EVALUATION,
        store=opened,
        unknown=unknown,
        evaluation=found,
        manifest=manifest,
        reason=reason,
    )


def _begun(path: Path) -> bool:
    """Whether a folder holds a run that is unfinished or damaged."""
    return any(path.glob("config.toml")) or any(path.glob("seed-*/config.toml"))


def _raw(path: Path, name: str = "metrics.json") -> dict[str, Any]:
    try:
        found = json.loads((path / name).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _runs_of(found: Mapping[str, Any], path: Path) -> tuple[tuple[Run, ...], str]:
    """Return the runs that an evaluation is of, if they lie where it says or beside it; else why not."""
    named = Path(str(found.get("run", "")))
    for place in dict.fromkeys((named, path.parent / named.name)):
        try:
            runs = tuple(load_runs(place))
        except SamclsError:
            continue
        if _evaluated(found, runs):
            return runs, ""
        return (
            (),
            f"{place} is another run than the one that was evaluated: its classes or thresholds differ",
        )
    return (), f"the run {named} is not where the evaluation says"


def _evaluated(found: Mapping[str, Any], runs: Sequence[Run]) -> bool:
    """Whether runs have the classes, temperatures and thresholds that an evaluation used."""
    points = operating_points(runs)
    if {task: list(names) for task, names in runs[0].tasks.items()} != {
        task: list(shares) for task, shares in found["shares"].items()
    }:
        return False
    for task, point in points.items():
        table = of_task(found["figures"], task)
        own, used = (
            (point.temperature, point.threshold),
            (table.get("temperature"), table.get("threshold")),
        )
        if any(
            a is not None and b is not None and abs(a - b) > ALIKE
            for a, b in zip(own, used, strict=True)
        ):
            return False
    return True


def _findings(path: Path, subject: Subject) -> dict[str, Any]:
    """Return what an audit found, which must be of the run's images; what it says of another run is left out."""
    file = path / "audit.json" if path.is_dir() else path
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{file} is no audit: {error}; make one with samcls audit STORE --out DIR"
        ) from error
    if not isinstance(found, dict) or not {"counts", "problems", "images"} <= set(found):
        raise InputError(f"{file} is no audit; make one with: samcls audit STORE --out DIR")
    known = {name for run in subject.runs for name in run.order}
    named = {name for one in found["problems"] for name in one["ids"]}
    strange = sorted(named - known)
    if len(strange) > len(named) / 2:
        raise InputError(
            f"{file} is an audit of other images ({found.get('source')}): {len(strange)} of the {len(named)} that it names "
            f"are none of {subject.path} ({few(strange, 3)})"
        )
    effect = found.get("effect") or {}
    tested = {name for run in subject.runs if run.scored for name in run.predictions("test").ids}
    if effect and (
        effect.get("test_images") != len(tested) or not set(effect.get("ids", ())) <= tested
    ):
        told = f"what leaks did to figures is left out: it is of another run, {Path(str(effect.get('run'))).name}"
        found = {**found, "effect": {}, "notes": [*found.get("notes", []), told]}
    return found


def _store(
    given: str | Path | None, named: Sequence[str], path: Path, runs: Sequence[Run]
) -> tuple[FeatureStore | None, str]:
    """Return the store, which must be the one of the runs' features, or why there is none."""
    if given is not None:
        opened = FeatureStore.open(given)
        if wrong := _strange(opened, path, runs):
            raise InputError(f"{given} is not the store of {path}: {wrong}")
        return opened, ""
    places = [
        place
        for text in named
        if text
        for place in (Path(text), path.parent / text, path.parent / Path(text).name)
    ]
    unknown = "the feature store is not where the run's command named it; name it with --store"
    for place in dict.fromkeys(places):
        if not (place / "zarr.json").is_file():
            continue
        try:
            opened = FeatureStore.open(place)
        except SamclsError as error:
            unknown = f"the feature store {place} cannot be read: {error}"
            continue
        wrong = _strange(opened, path, runs)
        if not wrong:
            return opened, ""
        unknown = f"{place} is not the store of {path.name} any more: {wrong}; name it with --store"
    return None, unknown


def _strange(store: FeatureStore, path: Path, runs: Sequence[Run]) -> str:
    """Return why a store is not the one of the images and features; "" where it is."""
    places = {name: row for row, name in enumerate(store.ids)}
    if (path / EVALUATION).exists():
        lines = csv.DictReader((path / "predictions.csv").read_text(encoding="utf-8").splitlines())
        ids = list(dict.fromkeys(row["id"] for row in lines))
    else:
        ids = runs[0].order
    absent = [name for name in ids if name not in places]
    if absent:
        return f"{len(absent)} of {len(ids)} images are not in it ({few(absent, 3)})"
    if not runs:
        return ""
    if store.fingerprint.to_dict() != dict(runs[0].fingerprint):
        return "its features were made with other settings"
    known = runs[0].known
    if known is not None and not (path / EVALUATION).exists():
        rows = [places[name] for name in ids]
        differ = int((store.sha256[rows] != known.sha256).any(1).sum())
        if differ:
            return f"the pictures of {differ} of {len(ids)} images are others"
    return ""
