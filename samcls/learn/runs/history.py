"""A training's epochs as a table, a row each, and back to the last bit.

epoch,learning_rate,train_loss,val_loss,val_auc     an AUC that is not defined is an empty cell
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import fields

from samcls.learn.fit.schedule import Epoch
from samcls.learn.runs.predictions import csv_bytes

__all__ = ["history_csv", "parse_history"]


def history_csv(history: Sequence[Epoch]) -> bytes:
    """Return a row an epoch; an AUC that is not defined is an empty cell."""
    header = [f.name for f in fields(Epoch)]
    cells = ([getattr(epoch, name) for name in header] for epoch in history)
    return csv_bytes(header, [["" if v is None else repr(v) for v in row] for row in cells])


def parse_history(content: bytes) -> tuple[Epoch, ...]:
    """Return the epochs of what `history_csv` made."""
    return tuple(
        Epoch(
            epoch=int(row["epoch"]),
            learning_rate=float(row["learning_rate"]),
            train_loss=float(row["train_loss"]),
            val_loss=float(row["val_loss"]),
            val_auc=float(row["val_auc"]) if row["val_auc"] else None,
        )
        for row in csv.DictReader(io.StringIO(content.decode()))
    )
