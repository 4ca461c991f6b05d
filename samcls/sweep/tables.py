"""A sweep as tables: results.csv, a row a run, and leaderboard.json, a row a configuration.

Where pyarrow is installed (the extra `parquet`), results.parquet holds the rows of results.csv
in their own types.

    write_tables(folder, runs, leaderboard(runs, space), {"selection": ...})
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from samcls.config import to_dict
from samcls.files import to_json, write_whole
from samcls.learn.runs.folder import Run
from samcls.sweep.leaderboard import Row

__all__ = ["results_csv", "results_table", "write_tables"]


def results_table(runs: Mapping[str, Run]) -> list[dict[str, Any]]:
    """Return a row a run, the best first: `run`, every setting, then every figure of validation.

    Figures of one of several tasks are named `auc.task`.
    """
    rows = []
    for key, run in runs.items():
        figures = {k: v for k, v in run.validation.items() if _is_figure(v)}
        for task, table in run.validation.get("tasks", {}).items():
            figures |= {f"{k}.{task}": v for k, v in table.items() if _is_figure(v)}
        outcome = {
            **{name: run.metrics[name] for name in ("how", "best_epoch", "seconds", "parameters")},
            "epochs_run": run.metrics["epochs"],
            "val_loss": run.loss,
        }
        rows.append({"run": key, **to_dict(run.config), **outcome, **figures})
    return sorted(
        rows,
        key=lambda row: (
            -(-1.0 if row["auc"] is None else row["auc"]),
            row["val_loss"],
            row["run"],
        ),
    )


def results_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return the rows as CSV: lists as JSON, an unset value empty."""
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()})
    return text.getvalue().encode()


def write_tables(
    folder: str | Path,
    runs: Mapping[str, Run],
    rows: Sequence[Row],
    more: Mapping[str, Any] | None = None,
) -> None:
    """Write results.csv and leaderboard.json, each whole or not at all; with pyarrow, results.parquet.

    Args:
        folder: The sweep's.
        runs: Finished runs.
        rows: The leaderboard.
        more: Further keys of leaderboard.json, such as what `select` found.
    """
    table = results_table(runs)
    write_whole(Path(folder) / "results.csv", results_csv(table))
    if find_spec("pyarrow") is not None:  # the extra `parquet`
        from samcls.sweep.parquet import results_parquet

        write_whole(Path(folder) / "results.parquet", results_parquet(table))
    board = {
        "ranked_by": "mean validation AUC over seeds and folds, then mean validation loss",
        "tried": sum(row.n > 0 for row in rows),
        **(more or {}),
        "rows": [row.to_dict() for row in rows],
    }
    write_whole(Path(folder) / "leaderboard.json", to_json(board))


def _is_figure(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
