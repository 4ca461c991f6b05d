"""A sweep's folder: which store it belongs to, and its runs as tables.

    space.toml         as given
    sweep.json         fingerprint of the store and checksum of its images, labels and splits
    runs/              a folder a run, see `records`
    results.csv, results.parquet     a row a run, every setting and every figure
    leaderboard.json   a row a configuration, ranked, and what selection cost (`select`)

Everything here is of the validation split: records hold nothing else. 1,000 runs make their tables
in some 0.3 s.

    records = read_records(folder)
    for row in leaderboard(records, space):
        row.rank, row.auc, row.auc_std, row.configuration
"""

import csv
import hashlib
import io
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from samcls.config import TrainConfig, digest, to_dict
from samcls.errors import OverwriteRefused
from samcls.store.feature_store import FeatureStore
from samcls.sweep.records import (
    RunFailure,
    RunRecord,
    read_failures,
    read_records,
    record_of,
    sweep_away,
    write_failure,
    write_record,
)
from samcls.sweep.space import Space

__all__ = [
    "Outcome",
    "Row",
    "RunFailure",
    "RunRecord",
    "leaderboard",
    "open_sweep",
    "read_failures",
    "read_records",
    "record_of",
    "results_csv",
    "results_parquet",
    "results_table",
    "sweep_away",
    "trial_score",
    "write_failure",
    "write_record",
    "write_tables",
]

FORMAT_VERSION = 1
SWEEP = "sweep.json"
SPACE = "space.toml"

Outcome = RunRecord | RunFailure
Ended = TypeVar("Ended", RunRecord, RunFailure)


@dataclass(frozen=True)
class Row:
    """A configuration on the leaderboard: its runs at the largest training share, together.

    Attributes:
        rank: From 1; None where runs are missing, failed, or have no AUC.
        configuration: As `Space.neutral` gives it.
        key: Digest of the configuration.
        runs: Digests of the runs behind the figures.
        n: Number of these runs.
        planned: Number of runs that every configuration is to have.
        failed: Number of runs that failed.
        auc: Mean validation AUC over the runs.
        auc_std: Standard deviation over the runs; None of a single one.
        accuracy: Mean validation accuracy.
        accuracy_std: Its standard deviation.
        loss: Mean validation loss.
        parameters: Trained values of the head.
        seconds: Of all runs together.
    """

    rank: int | None
    configuration: TrainConfig
    key: str
    runs: tuple[str, ...]
    n: int
    planned: int
    failed: int
    auc: float | None
    auc_std: float | None
    accuracy: float | None
    accuracy_std: float | None
    loss: float | None
    parameters: int | None
    seconds: float

    def to_dict(self, keys: Sequence[str] = ()) -> dict[str, Any]:
        """The fields as JSON knows them.

        Args:
            keys: Settings to show; none named means all of them.
        """
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        settings = to_dict(self.configuration)
        shown = {name: settings[name] for name in keys} if keys else settings
        return plain | {"configuration": shown, "runs": list(self.runs)}


def open_sweep(folder: str | Path, space: Space, store: FeatureStore) -> None:
    """Make a sweep's folder, or make sure that it may go on: same store, same labels and splits.

    The space may be another than before: runs of the same config are kept.

    Raises:
        OverwriteRefused: where the folder holds a sweep over another store, or anything else.
    """
    folder = Path(folder)
    own = {"format_version": FORMAT_VERSION, **_content(store, space)}
    if (folder / SWEEP).exists():
        _refuse_other(folder, own)
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OverwriteRefused(f"{folder} holds something else than a sweep; name a new folder")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / SWEEP, _json(own))
    _write(folder / SPACE, space.text.encode())


def leaderboard(
    records: Mapping[str, RunRecord],
    space: Space,
    failures: Mapping[str, RunFailure] | None = None,
) -> list[Row]:
    """One row a configuration, the best first, those that cannot be ranked last.

    Ranked by mean validation AUC over seeds and folds, then by mean validation loss; under halving
    a configuration of a later round stands before all of earlier ones, since it was trained longer.
    Runs of an earlier space in the same folder count too, where they have the same seeds and folds.

    Args:
        records: Finished runs.
        space: Its largest training share is what counts.
        failures: Failed runs.
    """
    finished = _grouped(records.values(), space)
    failed = _grouped((failures or {}).values(), space)
    rows = [
        _row(space, key, finished.get(key, []), failed.get(key, []))
        for key in sorted({*finished, *failed})
    ]
    ranked = sorted((row for row in rows if _eligible(row)), key=lambda row: _order(row, space))
    numbered = [replace(row, rank=number) for number, row in enumerate(ranked, 1)]
    return numbered + [row for row in rows if not _eligible(row)]


def trial_score(
    members: Iterable[TrainConfig], outcomes: Mapping[str, Outcome]
) -> tuple[float, float] | None:
    """Mean validation AUC of some runs, and the mean loss below zero: greater is better.

    Returns:
        None where a run is missing, failed, or has no AUC.
    """
    found = [outcomes.get(digest(member)) for member in members]
    records = [one for one in found if isinstance(one, RunRecord) and one.auc is not None]
    if not found or len(records) != len(found):
        return None
    aucs = [record.auc for record in records if record.auc is not None]
    return float(np.mean(aucs)), -float(np.mean([record.loss for record in records]))


def results_table(records: Mapping[str, RunRecord]) -> list[dict[str, Any]]:
    """A row a run, the best first: `run`, every setting, then every figure of validation.

    Figures of one of several tasks are named `auc.task`.
    """
    rows = []
    for key, record in records.items():
        figures = {k: v for k, v in record.validation.items() if _is_figure(v)}
        figures["val_loss"] = figures.pop("loss")  # `loss` is a setting
        for task, table in record.validation.get("tasks", {}).items():
            figures |= {f"{k}.{task}": v for k, v in table.items() if _is_figure(v)}
        outcome = {
            "how": record.how,
            "best_epoch": record.best_epoch,
            "epochs_run": len(record.history),
            "seconds": record.seconds,
            "parameters": record.parameters,
        }
        rows.append({"run": key, **to_dict(record.config), **outcome, **figures})
    return sorted(rows, key=lambda row: (-_or_low(row["auc"]), row["val_loss"], row["run"]))


def results_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """The rows as CSV: lists as JSON, an unset value empty."""
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()})
    return text.getvalue().encode()


def results_parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """The rows as Parquet, each setting in its own type whatever the rows hold."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    schema = pa.schema([(name, _arrow_type(name)) for name in names])
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema=schema), sink)
    return sink.getvalue()


def write_tables(
    folder: str | Path,
    records: Mapping[str, RunRecord],
    rows: Sequence[Row],
    more: Mapping[str, Any] | None = None,
) -> None:
    """Write results.csv, results.parquet and leaderboard.json, each whole or not at all.

    Args:
        folder: The sweep's.
        records: Finished runs.
        rows: The leaderboard.
        more: Further keys of leaderboard.json, such as what `select` found.
    """
    table = results_table(records)
    _write(Path(folder) / "results.csv", results_csv(table))
    _write(Path(folder) / "results.parquet", results_parquet(table))
    board = {
        "ranked_by": "mean validation AUC over seeds and folds, then mean validation loss",
        "tried": sum(row.n > 0 for row in rows),
        **(more or {}),
        "rows": [row.to_dict() for row in rows],
    }
    _write(Path(folder) / "leaderboard.json", _json(board))


def _content(store: FeatureStore, space: Space) -> dict[str, Any]:
    """What a sweep's figures hang on besides its configs."""
    total = hashlib.sha256()
    parts: list[Any] = [store.ids, store.splits, store.groups, store.tasks]
    total.update(json.dumps(parts).encode())
    for values in (store.labels, store.status, store.sha256):
        total.update(np.ascontiguousarray(values).tobytes())
    labels = space.base.labels
    if labels is not None and Path(labels).exists():
        total.update(Path(labels).read_bytes())
    if chosen := (*space.base.missing, *space.base.positive):
        total.update(json.dumps(chosen).encode())
    return {"fingerprint": store.fingerprint.to_dict(), "content_sha256": total.hexdigest()}


def _refuse_other(folder: Path, own: Mapping[str, Any]) -> None:
    try:
        found = json.loads((folder / SWEEP).read_bytes())
        there = {**found["fingerprint"], "images, labels and splits": found["content_sha256"]}
        there["format_version"] = found["format_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OverwriteRefused(
            f"{folder / SWEEP} cannot be read ({error}); name a new folder"
        ) from error
    here = json.loads(_json(own))
    here = {**here["fingerprint"], "images, labels and splits": here["content_sha256"]}
    here["format_version"] = own["format_version"]
    differing = [name for name in here if there.get(name) != here[name]]
    if differing:
        lines = [
            f"{name}: {_short(there.get(name))} there, {_short(here[name])} here"
            for name in differing
        ]
        raise OverwriteRefused(
            f"{folder} holds a sweep over a store of other content; name another folder\n  "
            + "\n  ".join(lines)
        )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."


def _grouped(outcomes: Iterable[Ended], space: Space) -> dict[str, list[Ended]]:
    """Outcomes that count, by the digest of their configuration, in the order of seed and fold."""
    found: dict[str, list[Ended]] = defaultdict(list)
    seeds = range(space.first_seed, space.first_seed + space.seeds)
    for one in outcomes:
        config = one.config
        same = config.folds == space.folds and config.train_fraction == space.fractions[-1]
        if same and config.seed in seeds:
            found[digest(space.neutral(config))].append(one)
    for group in found.values():
        group.sort(key=lambda one: (one.config.seed, one.config.fold))
    return found


def _row(space: Space, key: str, found: Sequence[RunRecord], failed: Sequence[RunFailure]) -> Row:
    auc, auc_std = _mean_and_spread([record.auc for record in found])
    accuracy, accuracy_std = _mean_and_spread([r.validation["accuracy"] for r in found])
    some: Outcome = found[0] if found else failed[0]
    return Row(
        rank=None,
        configuration=space.neutral(some.config),
        key=key,
        runs=tuple(record.key for record in found),
        n=len(found),
        planned=space.seeds * max(1, space.folds),
        failed=len(failed),
        auc=auc,
        auc_std=auc_std,
        accuracy=accuracy,
        accuracy_std=accuracy_std,
        loss=_mean_and_spread([record.loss for record in found])[0],
        parameters=found[0].parameters if found else None,
        seconds=round(sum((record.seconds for record in found), 0.0), 4),
    )


def _mean_and_spread(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Mean and standard deviation; None where a value is, and the second where there is one."""
    known = [value for value in values if value is not None]
    if not known or len(known) != len(values):
        return None, None
    return float(np.mean(known)), float(np.std(known, ddof=1)) if len(known) > 1 else None


def _eligible(row: Row) -> bool:
    return row.n == row.planned and row.auc is not None


def _order(row: Row, space: Space) -> tuple[float, float, float, str]:
    later = -float(row.configuration.epochs) if space.search == "halving" else 0.0
    return later, -_or_low(row.auc), row.loss or 0.0, row.key


def _or_low(value: float | None) -> float:
    return -1.0 if value is None else value


def _is_figure(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _arrow_type(name: str) -> pa.DataType:
    plain = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}
    hints = get_type_hints(TrainConfig) | {
        "run": str, "how": str, "best_epoch": int, "epochs_run": int, "parameters": int,
        "images": int,
    }  # fmt: skip
    hint = hints.get(name, int if name.startswith("images.") else float)
    if get_origin(hint) is tuple:
        return pa.list_(plain[get_args(hint)[0]])
    kinds = [kind for kind in get_args(hint) if kind is not NoneType]
    if kinds:  # `int | None`, or the texts of a Literal
        return plain.get(kinds[0], pa.string())
    return plain[hint]


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode()


def _write(path: Path, content: bytes) -> None:
    """Write beside the path and move into place: a file that is there is whole."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    part.replace(path)
