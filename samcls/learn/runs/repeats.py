"""One config over several seeds and folds: a folder of runs, and their mean and spread.

    folder/seed-0, folder/seed-1, ...   runs as any other, each with its own mark
    folder/seed-0-fold-0, ...           the same under folds
    folder/summary.json                 mean, spread and pooled table; written last

Run again after a stop, it goes on with the runs that are not finished. Five seeds take five times
as long as one.

    result = train_repeats(store, config, "folder", seeds=5, folds=0)
    result["test"]["auc"], result["test"]["auc_std"]
"""

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from samcls.config import digest
from samcls.errors import ConfigError, OverwriteRefused
from samcls.files import PART, few, to_json, write_whole
from samcls.learn.heads.controls import judges
from samcls.learn.runs.folder import MARK, SUMMARY, load_run
from samcls.learn.runs.gain import gain_of_runs, gain_sentences
from samcls.learn.runs.inputs import check, settled
from samcls.learn.runs.medmnist import check_medmnist
from samcls.learn.runs.notes import leaks_of, refuse_leaks
from samcls.learn.runs.train import train
from samcls.learn.score.headline import headlines
from samcls.learn.score.intervals import interval_notes
from samcls.learn.score.scoring import majority_class, mean_intervals, score
from samcls.learn.settings import TrainConfig
from samcls.store.feature_store import FeatureStore

__all__ = ["RepeatsResult", "train_repeats"]

Log = Callable[[str], None]


class RepeatsResult(dict[str, Any]):
    """What several runs found together, as `train_repeats` says; printed in a few lines."""

    def __repr__(self) -> str:
        """Return what was trained, the mean figures, and what belongs under them."""
        first = (
            f"{len(self['runs'])} runs in {self['run']}: {self['head']} head, "
            f"{self['parameters']:,} parameters, {self['seconds']:.1f} s"
        )
        gain = gain_sentences(self["head"], self.get("gain", {}))
        return "\n  ".join([first, *headlines(self), *gain, *self["notes"]])


def train_repeats(
    store: FeatureStore,
    config: TrainConfig,
    folder: str | Path,
    log: Log = lambda _: None,
    *,
    seeds: int = 1,
    folds: int = 0,
    allow_leak: bool = False,
    strict: bool = False,
    by_fold: Mapping[int, TrainConfig] | None = None,
    **options: Any,
) -> RepeatsResult:
    """Train a config once for each seed and fold.

    Args:
        store: An open store, every row done or failed.
        config: Its seed is the first.
        folder: Holds a folder for each run.
        log: Called with a line of progress now and then.
        seeds: Number of seeds.
        folds: Number of folds, each once the test split; 0 keeps the stored splits.
        allow_leak: As for `train`.
        strict: As for `train`.
        by_fold: A config for each fold in place of the one, where each fold has chosen for itself.
        options: Further options of `train`.

    Returns:
        As a run's figures, `validation`, `test` and `baselines` holding the mean over the runs of
        every figure and its standard deviation as `_std`; `runs` says what each run found. Without
        folds `test` has intervals as `metrics.mean_intervals` gives them; with folds, `pooled` is
        the table of all folds' test images together, for each seed's run of them, with intervals.

    Raises:
        ConfigError: where any of the runs could not be trained, or there is one fold; no run begins
            then.
        OverwriteRefused: where the folder holds something else.
    """
    if folds < 0 or folds == 1:
        raise ConfigError(f"folds is {folds}; expected 0 (the stored splits) or at least 2")
    started, folder = time.perf_counter(), Path(folder)
    plan = _plan(config, seeds, folds, by_fold or {})
    _refuse_strangers(folder, plan)
    for name, one in plan.items():
        targets = check(store, one)
        if options.get("medmnist") is not None:
            check_medmnist(options["medmnist"], store, one, targets)
        plan[name] = settled(one, targets)
        refuse_leaks(leaks_of(store, one, targets), allow_leak=allow_leak, strict=strict)
    options |= {"allow_leak": allow_leak, "strict": strict}
    found = {}
    for number, (name, one) in enumerate(plan.items(), 1):
        log(f"run {number} of {len(plan)}: {name}")
        found[name] = _train_once(store, one, folder / name, log, options)
    seconds = round(time.perf_counter() - started, 3)
    result = RepeatsResult(_summary(found, config, folder), seconds=seconds)
    result["select"] = config.select
    result["head"] = ", ".join(dict.fromkeys(one.head for one in plan.values()))
    if result["head"] == config.head:
        result["gain"] = _gain(config, [folder / name for name in plan])
    if folds:
        result["pooled"] = [
            _pooled(config, [folder / name for name in names]) for names in _by_seed(plan).values()
        ]
        result["notes"] += interval_notes(result["pooled"][0])
    elif config.intervals:
        _add(result["test"], _of_mean(config, [folder / name for name in plan]))
    write_whole(folder / SUMMARY, to_json(result))
    return result


def _plan(
    config: TrainConfig, seeds: int, folds: int, by_fold: Mapping[int, TrainConfig]
) -> dict[str, TrainConfig]:
    """Each run's folder and config."""
    plan = {}
    for seed, fold in itertools.product(range(seeds), range(max(1, folds))):
        one = replace(by_fold.get(fold, config), seed=config.seed + seed)
        name = f"seed-{one.seed}"
        if folds:
            one = replace(one, folds=folds, fold=fold)
            name = f"{name}-fold-{fold}"
        plan[name] = one
    return plan


def _by_seed(plan: Mapping[str, TrainConfig]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for name, one in plan.items():
        found.setdefault(one.seed, []).append(name)
    return found


def _refuse_strangers(folder: Path, plan: Mapping[str, TrainConfig]) -> None:
    own = {*plan, SUMMARY, f"{SUMMARY}{PART}"}
    strange = sorted({p.name for p in folder.iterdir()} - own) if folder.is_dir() else []
    if strange:
        raise OverwriteRefused(
            f"{folder} holds {few(strange)}, which these runs did not write; name a new "
            "or empty folder"
        )


def _train_once(
    store: FeatureStore, config: TrainConfig, folder: Path, log: Log, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the figures of a run, which is trained unless it is there already."""
    if (folder / MARK).exists():
        run = load_run(folder)
        same = run.fingerprint == store.fingerprint.to_dict()
        if digest(run.config) != digest(config) or not same:
            raise OverwriteRefused(
                f"{folder} holds a finished run of other settings; name another folder, or remove "
                "this one first"
            )
        log(f"{folder} is finished already")
        return dict(run.metrics)
    return train(store, config, folder, log, **options).to_dict()


def _summary(
    found: Mapping[str, Mapping[str, Any]], config: TrainConfig, folder: Path
) -> dict[str, Any]:
    results = list(found.values())
    tables = ("validation", "test")
    return {
        "run": str(folder),
        "head": config.head,
        "epochs": max(one["epochs"] for one in results),
        "parameters": results[0]["parameters"],
        "images": results[0]["images"],
        "models_tried": sum(one["models_tried"] for one in results),
        "leaks": results[0].get("leaks", {}),
        "notes": _notes(found),
        "labelled": results[0].get("labelled", {}),
        **{name: _spread([one[name] for one in results]) for name in tables},
        "baselines": {
            baseline: {
                name: _spread([one["baselines"][baseline][name] for one in results])
                for name in tables
            }
            for baseline in results[0]["baselines"]
        },
        "runs": [
            {
                "name": name,
                "best_epoch": one["best_epoch"],
                "validation_auc": one["validation"]["auc"],
                "test_auc": one["test"]["auc"],
            }
            for name, one in found.items()
        ],
    }


def _notes(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the runs' notes, each once; of folds, whose intervals are not shown, none of intervals."""
    folds = any("-fold-" in name for name in found)
    dropped = {n for one in found.values() for n in interval_notes(one["test"])} if folds else set()
    notes = dict.fromkeys(note for one in found.values() for note in one.get("notes", []))
    return [note for note in notes if note not in dropped]


def _spread(tables: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation of every figure that all tables define."""
    spread: dict[str, Any] = {}
    for name, first in tables[0].items():
        values = [table[name] for table in tables]
        if name == "tasks":
            spread[name] = {
                task: _spread([table[name][task] for table in tables]) for task in first
            }
        elif name == "images":
            spread[name] = first
        elif name.endswith("_interval"):
            continue
        elif first is None or isinstance(first, float):
            defined = [value for value in values if value is not None]
            spread[name] = float(np.mean(defined)) if defined else None
            spread[f"{name}_std"] = float(np.std(defined, ddof=1)) if len(defined) > 1 else None
    return spread


def _of_mean(config: TrainConfig, folders: Sequence[Path]) -> dict[str, Any]:
    """Intervals of the runs' mean figures on the test split, which is the same for all."""
    runs = [load_run(folder) for folder in folders]
    tasks, said = runs[0].tasks, [run.predictions("test") for run in runs]
    answers = [one.probabilities for one in said]
    return mean_intervals(said[0].labels, answers, tasks, config.intervals, said[0].groups)


def _gain(config: TrainConfig, folders: Sequence[Path]) -> dict[str, Any]:
    """Return what the runs' mean gains over that of the controls of the same windows; folds are put together."""
    beside = judges(config) if config.intervals else ()
    return gain_of_runs([load_run(folder) for folder in folders], beside) if beside else {}


def _add(table: dict[str, Any], more: Mapping[str, Any]) -> None:
    for name, value in more.items():
        if isinstance(value, Mapping):
            _add(table.setdefault(name, {}), value)
        else:
            table[name] = value


def _pooled(config: TrainConfig, folders: Sequence[Path]) -> dict[str, Any]:
    """Return the table of all folds' test images together, each scored by the run that never saw it."""
    runs = [load_run(folder) for folder in folders]
    tasks, said = runs[0].tasks, [run.predictions("test") for run in runs]
    labels = np.concatenate([one.labels for one in said])
    majority = {
        task: majority_class(labels[:, i], len(classes))
        for i, (task, classes) in enumerate(tasks.items())
    }
    probabilities = {
        task: np.concatenate([one.probabilities[task] for one in said]) for task in tasks
    }
    groups = [group for one in said for group in one.groups]
    return score(labels, probabilities, tasks, majority, config.intervals, groups)
