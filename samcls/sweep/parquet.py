"""The rows of results.csv as Parquet, each setting in its own type whatever the rows hold.

The door to pyarrow of this folder, opened where it is installed (the extra `parquet`).

    results_parquet(results_table(runs))
"""

import io
from collections.abc import Mapping, Sequence
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

from samcls.learn.settings import TrainConfig

__all__ = ["results_parquet"]


def results_parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return the rows of `results_table` as Parquet."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    schema = pa.schema([(name, _arrow_type(name)) for name in names])
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema=schema), sink)
    return sink.getvalue()


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
