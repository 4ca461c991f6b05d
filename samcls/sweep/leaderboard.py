"""The leaderboard of a sweep: a row a configuration, ranked by its runs' mean validation AUC.

Everything here is of the validation split: runs of a sweep know nothing else.

    for row in leaderboard(read_runs(folder), space):
        row.rank, row.auc, row.auc_std, row.configuration
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np

from samcls.config import digest, to_dict
from samcls.learn.runs.folder import Run
from samcls.learn.settings import TrainConfig
from samcls.sweep.outcomes import Outcome, RunFailure
from samcls.sweep.space import Space

__all__ = ["Row", "leaderboard", "trial_score"]

Ended = TypeVar("Ended", Run, RunFailure)


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
        """Return the fields as JSON knows them.

        Args:
            keys: Settings to show; none named means all of them.
        """
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        settings = to_dict(self.configuration)
        shown = {name: settings[name] for name in keys} if keys else settings
        return plain | {"configuration": shown, "runs": list(self.runs)}


def leaderboard(
    runs: Mapping[str, Run],
    space: Space,
    failures: Mapping[str, RunFailure] | None = None,
    *,
    longest_first: bool = False,
) -> list[Row]:
    """Return one row a configuration, the best first, those that cannot be ranked last.

    Ranked by mean validation AUC over seeds and folds, then by mean validation loss.
    Runs of an earlier space in the same folder count too, where they have the same seeds and folds.

    Args:
        runs: Finished runs.
        space: Its largest training share is what counts.
        failures: Failed runs.
        longest_first: Whether configurations that were trained for more epochs stand before all
            others, as where a search goes on with the best of each round.
    """
    finished = _grouped(runs.values(), space)
    failed = _grouped((failures or {}).values(), space)
    rows = [
        _row(space, key, finished.get(key, []), failed.get(key, []))
        for key in sorted({*finished, *failed})
    ]
    ranked = sorted((row for row in rows if _eligible(row)), key=_order)
    if longest_first:  # which keeps the order of those of equal epochs
        ranked.sort(key=lambda row: -row.configuration.epochs)
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
    records = [one for one in found if isinstance(one, Run) and one.auc is not None]
    if not found or len(records) != len(found):
        return None
    aucs = [record.auc for record in records if record.auc is not None]
    return float(np.mean(aucs)), -float(np.mean([record.loss for record in records]))


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


def _row(space: Space, key: str, found: Sequence[Run], failed: Sequence[RunFailure]) -> Row:
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
        parameters=found[0].metrics["parameters"] if found else None,
        seconds=round(sum((run.metrics["seconds"] for run in found), 0.0), 4),
    )


def _mean_and_spread(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Mean and standard deviation; None where a value is, and the second where there is one."""
    known = [value for value in values if value is not None]
    if not known or len(known) != len(values):
        return None, None
    return float(np.mean(known)), float(np.std(known, ddof=1)) if len(known) > 1 else None


def _eligible(row: Row) -> bool:
    return row.n == row.planned and row.auc is not None


def _order(row: Row) -> tuple[float, float, str]:
    return -_or_low(row.auc), row.loss or 0.0, row.key


def _or_low(value: float | None) -> float:
    return -1.0 if value is None else value
