"""A store's images by row number, its features loaded once a process.

For those who name images by number and hand numbers over again and again, as a search over folds
does: the first call reads the store, later ones copy the rows that they are asked for.

    features = pick_rows("features.zarr", ("neck",), None, numpy.array([0, 5, 2]))
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, Int64
from torch import Tensor

from samcls.learn.features.tensors import Features, load_features
from samcls.store.feature_store import FeatureStore
from samcls.store.schema import DONE, FAILED

__all__ = ["pick", "pick_rows", "row_numbers"]

KEPT = 2  # stores, or selections of one, held in memory


@dataclass(frozen=True, eq=False)
class _Loaded:
    """All features of a store, and where among them each of its rows is; -1 for none."""

    features: Features
    places: Int[np.ndarray, " row"]


def pick_rows(path: str, levels: Sequence[str], window: int | None, rows: Any) -> Features:
    """Features of some of a store's rows, in the order given; not standardised.

    Args:
        path: The store.
        levels: Levels to read; none named means all.
        window: Side of the pooling window, a multiple of the store's; None means the store's.
        rows: Row numbers, "image" or "image 1"; one may stand there several times.

    Raises:
        ValueError: where rows are not numbers of rows that were encoded.
        ConfigError: where the store has no such level, or cannot serve the window.
        StoreError: where there is no store.
    """
    store = FeatureStore.open(path)
    numbers = row_numbers(rows)
    _refuse_absent(store, numbers)
    # The marks are part of what is remembered: a store that has grown is read again.
    loaded = _load(path, tuple(levels), window, store.status.tobytes())
    return pick(loaded.features, torch.from_numpy(loaded.places[numbers]))


def pick(features: Features, rows: Int64[Tensor, " row"]) -> Features:
    """Return some images of features in memory, in the order given.

    Args:
        features: On the CPU.
        rows: Image numbers; one may stand there several times.
    """
    flat, chosen = features.flat(rows), rows.tolist()
    return replace(
        features,
        tokens={level: values.index_select(0, flat) for level, values in features.tokens.items()},
        counts={level: values.index_select(0, flat) for level, values in features.counts.items()},
        labels=features.labels[rows],
        ids=tuple(features.ids[i] for i in chosen),
        splits=tuple(features.splits[i] for i in chosen),
        groups=tuple(features.groups[i] for i in chosen),
        pixels=None if features.pixels is None else features.pixels.picked(rows),
    )


def row_numbers(rows: Any) -> Int[np.ndarray, " image"]:
    """Row numbers from an array of one axis, or of one column, whole numbers of any type.

    Raises:
        ValueError: where it has another shape or holds anything else.
    """
    given = np.asarray(rows)
    if given.ndim == 2 and given.shape[1] == 1:
        given = given[:, 0]
    if given.ndim != 1 or given.dtype.kind not in "iuf":
        raise ValueError(
            f"X is an array of {given.dtype} with shape {given.shape}; with a store, expected row "
            "numbers of shape (images,) or (images, 1)"
        )
    odd = ~np.isfinite(given) if given.dtype.kind == "f" else np.zeros(len(given), bool)
    odd |= given != np.trunc(given)
    if odd.any():
        raise ValueError(f"X holds {given[odd][0]}; with a store, expected whole row numbers")
    return given.astype(np.int64)


def _refuse_absent(store: FeatureStore, numbers: Int[np.ndarray, " image"]) -> None:
    status = store.status
    outside = numbers[(numbers < 0) | (numbers >= len(status))]
    if len(outside):
        raise ValueError(
            f"X names row {outside[0]}; {store.path} has {len(status)} rows, counted from 0"
        )
    absent = numbers[status[numbers] != DONE]
    if len(absent):
        row = int(absent[0])
        why = f"failed ({store.errors[row]})" if status[row] == FAILED else "is pending"
        raise ValueError(
            f"X names row {row} of {store.path}, which {why}; leave it out, or finish the store "
            "with samcls extract"
        )


@lru_cache(maxsize=KEPT)
def _load(path: str, levels: tuple[str, ...], window: int | None, status: bytes) -> _Loaded:
    features = load_features(FeatureStore.open(path), levels, window)
    done = np.frombuffer(status, np.uint8) == DONE
    return _Loaded(features, np.where(done, done.cumsum() - 1, -1))
