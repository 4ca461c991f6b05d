"""Nested cross-validation: each fold's configuration chosen without a look at that fold.

A configuration that is chosen by the very folds that are reported owes a part of its figure to them. Here
each fold takes the configuration with the best validation AUC among the runs that left the fold out, and is
tested by that one alone; the folds' images together are the figure to report.

    best = score_nested(store, Path("sweep"), space, rows, runs, device="cpu", log=print)
    best["figures"]["pooled"][0]["auc"]
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from samcls.config import digest
from samcls.learn.runs.folder import Run
from samcls.learn.runs.repeats import train_repeats
from samcls.learn.settings import TrainConfig
from samcls.store.feature_store import FeatureStore
from samcls.sweep.leaderboard import Row
from samcls.sweep.space import Space
from samcls.sweep.winner import place_for

__all__ = ["chosen_by_fold", "score_nested"]

Log = Callable[[str], None]


def chosen_by_fold(
    rows: Sequence[Row], runs: Mapping[str, Run], space: Space
) -> dict[int, tuple[Row, float]]:
    """Return each fold's configuration with its mean validation AUC over seeds; the first of equals.

    Args:
        rows: The leaderboard; rows without a rank do not take part.
        runs: Finished runs by the digest of their config, whose validation images lie outside their fold.
        space: Says which seeds and folds there are.
    """
    found = {}
    for fold in range(space.folds):
        best: tuple[Row, float] | None = None
        for row in rows:
            members = space.trial(row.configuration).members if row.rank else ()
            own = [runs[digest(one)].auc for one in members if one.fold == fold]
            value = float(np.mean([-1.0 if auc is None else auc for auc in own])) if own else -1.0
            if own and (best is None or value > best[1]):
                best = row, value
        if best is not None:
            found[fold] = best
    return found


def score_nested(
    store: FeatureStore,
    folder: Path,
    space: Space,
    rows: Sequence[Row],
    runs: Mapping[str, Run],
    device: str,
    log: Log,
    **options: Any,
) -> dict[str, Any]:
    """Train each fold's configuration on what lies outside the fold, and test it there, once.

    Args:
        store: The sweep's.
        folder: The sweep's; the runs are kept in its folder `winner`.
        space: With folds.
        rows: The leaderboard.
        runs: Finished runs by the digest of their config.
        device: Where they are trained.
        log: Called with a sentence on anything that a user should know.
        options: Further ones of `train`.

    Returns:
        As `score_winner`; `config` is a list, one a fold, and `validation` the mean of what chose.
    """
    chosen = chosen_by_fold(rows, runs, space)
    configs: dict[int, TrainConfig] = {
        fold: replace(row.configuration, train_fraction=space.fractions[-1])
        for fold, (row, _) in chosen.items()
    }
    key = hashlib.sha256("".join(row.key for row, _ in chosen.values()).encode()).hexdigest()
    run, opened = place_for(folder, key, log)
    tried = sum(1 for row in rows if row.rank)
    log(
        f"each of {space.folds} folds has chosen between {tried} configurations without its own images"
    )
    given: dict[str, Any] = {
        "seeds": space.seeds,
        "folds": space.folds,
        "by_fold": configs,
        "device": device,
    }
    found: dict[str, Any] = train_repeats(store, configs[0], run, log, **given, **options)
    found = {**found, "models_tried": found["models_tried"] + space.folds * (tried - 1)}
    return {
        "config": [row.to_dict(space.varied)["configuration"] for row, _ in chosen.values()],
        "key": key,
        "validation": {"auc": float(np.mean([value for _, value in chosen.values()]))},
        "test": found["test"],
        "figures": found,
        "run": str(run),
        "test_opened": opened,
    }
