"""What leaks did to a run's figures: once without the affected test images, once without their twins in training.

An affected test image has a twin, or an image of its group, among those that the run learned from or was chosen by.
The first answer needs no training: the run's own figures of all test images and of the others, and the paired
difference over the same resamples of groups. The second trains the run again with its own settings, the twins that
test images have in training left out, and compares both on the same test images; and once more without as many other
training images drawn at random, since fewer images alone make figures lower.

    effect_of(material, findings, "run", log=print)["tasks"]["label"]["auc"]
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from samcls.audit.finding import Finding
from samcls.audit.material import Material
from samcls.errors import InputError
from samcls.files import few
from samcls.learn.runs.compare import compare_runs
from samcls.learn.runs.folder import Run, load_runs
from samcls.learn.runs.operating import mean_of
from samcls.learn.runs.predictions import Predictions
from samcls.learn.runs.train import train
from samcls.learn.score.intervals import unit_numbers
from samcls.learn.score.metrics import FIGURES, figures
from samcls.store.feature_store import FeatureStore
from samcls.store.schema import Fingerprint

__all__ = ["TOLD", "effect_of"]

TOLD = ("auc", "accuracy", "balanced_accuracy", "average_precision")
LEAKS = ("exact", "near", "group-leak")
RESAMPLES = 1000
LEAST = 10  # test images left, below which no difference is told

Log = Callable[[str], None]


def effect_of(
    material: Material,
    found: Sequence[Finding],
    run: str | Path,
    log: Log = lambda _: None,
    *,
    retrain: bool = True,
) -> dict[str, Any]:
    """Return the figures with and without the leak.

    Args:
        material: Of the store that the run was trained on.
        found: What was found in it.
        run: A run's folder, or one of several seeds.
        log: Called with a line of progress now and then.
        retrain: Whether the run is trained again without twins.

    Returns:
        `run`, `test_images`, `affected` and `ids` of those, `learned_twins` (images of training and validation
        behind them), by task and figure `all`, `without`, `difference` (without - all) and its 95 % `interval`,
        and `retrained`: `removed` training images, and by task and figure `before`, `after`, `difference`
        (after - before) and its `interval`, and `control`, the same without as many others; empty where nothing
        is affected.

    Raises:
        InputError: the run is of another store, of folds, or has not scored its test split.
    """
    store = material.store
    if store is None:
        raise InputError(
            f"what leaks did to a run needs its features: name the store in place of {material.source}, and the "
            "manifest with --manifest"
        )
    runs = load_runs(run)
    _refuse_other(runs, store, material)
    splits = {name: split for split in ("train", "val", "test") for name in _ids(runs[0], split)}
    affected, behind = _affected(found, splits)
    said = mean_of([one.predictions("test") for one in runs])
    result: dict[str, Any] = {
        "run": str(run),
        "test_images": len(said.ids),
        "affected": len(affected),
        "ids": sorted(affected),
        "learned_twins": len(behind),
        "tasks": {},
        "retrained": {},
    }
    if not affected:
        return result
    kept = np.array([name not in affected for name in said.ids])
    result["tasks"] = {
        task: _without(said, place, task, kept) for place, task in enumerate(runs[0].tasks)
    }
    removed = sorted(name for name in behind if splits[name] == "train")
    if removed and retrain:
        log(f"training again without {len(removed)} training images that test images are twins of")
        others = [name for name in _ids(runs[0], "train") if name not in behind]
        drawn = np.random.default_rng(0).permutation(len(others))[: len(removed)]
        result["retrained"] = {
            "removed": len(removed),
            "tasks": _retrained(runs, store, removed),
            "control": _retrained(runs, store, [others[i] for i in drawn.tolist()]),
        }
    return result


def _refuse_other(runs: Sequence[Run], store: FeatureStore, material: Material) -> None:
    """Make sure that the runs are of the store and have what is to be compared."""
    store.require(Fingerprint.from_dict(runs[0].fingerprint))
    known = set(material.ids)
    strange = [name for name in _ids(runs[0], "test") if name not in known]
    if strange:
        raise InputError(
            f"{runs[0].path} was trained on another store: {len(strange)} of its test images are not in "
            f"{material.source} ({few(strange)})"
        )
    if any(one.config.folds for one in runs):
        raise InputError(
            f"{runs[0].path} is of folds, in which every image is tested once; audit its store without --run, and "
            "train again on the manifest that --write gives"
        )
    if not all(one.scored for one in runs):
        raise InputError(
            f"{runs[0].path} has not scored its test split; name a run of samcls train"
        )


def _ids(run: Run, split: str) -> tuple[str, ...]:
    try:
        return run.predictions(split).ids
    except InputError:  # inner folds leave no validation split
        return ()


def _affected(found: Sequence[Finding], splits: Mapping[str, str]) -> tuple[set[str], set[str]]:
    """Return test images with twins or group in training or validation, and those."""
    affected: set[str] = set()
    behind: set[str] = set()
    for one in found:
        if one.code not in LEAKS:
            continue
        tested = [name for name in one.ids if splits.get(name) == "test"]
        learned = [name for name in one.ids if splits.get(name) in ("train", "val")]
        if tested and learned:
            affected |= set(tested)
            behind |= set(learned)
    return affected, behind


def _without(
    said: Predictions, place: int, task: str, kept: Bool[np.ndarray, " image"]
) -> dict[str, dict[str, Any]]:
    """Return each figure of all images, of those kept, and the difference with its interval."""
    known = said.labels[:, place] >= 0
    labels, stays = said.labels[known, place], kept[known]
    if stays.sum() < LEAST or len(np.unique(labels[stays])) < 2:
        return {}
    units = unit_numbers([said.groups[i] for i in np.flatnonzero(known).tolist()])
    weights = np.concatenate([np.ones((1, len(labels))), _resampled(units)])
    probabilities = said.probabilities[task][known].astype(np.float64)
    values = [
        np.concatenate([figures(part, labels, probabilities) for part in np.array_split(w, 20)], 1)
        for w in (weights, weights * stays)
    ]
    told = {}
    for name in TOLD:
        both, rest = (part[FIGURES.index(name)] for part in values)
        told[name] = _difference(both, rest, ("all", "without"))
    return told


def _resampled(units: Int[np.ndarray, " image"]) -> Float[np.ndarray, "resample image"]:
    rng = np.random.default_rng(0)
    count = int(units.max()) + 1
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    found: np.ndarray = drawn[:, units].astype(np.float64)
    return found


def _difference(
    first: Float[np.ndarray, " resample"],
    second: Float[np.ndarray, " resample"],
    names: tuple[str, str],
) -> dict[str, Any]:
    gap = second - first
    usable = gap[1:][np.isfinite(gap[1:])]
    if not np.isfinite(gap[0]) or len(usable) < RESAMPLES // 2:
        return {names[0]: None, names[1]: None, "difference": None, "interval": None}
    low, high = np.percentile(usable, [2.5, 97.5]).tolist()
    return {
        names[0]: float(first[0]),
        names[1]: float(second[0]),
        "difference": float(gap[0]),
        "interval": [low, high],
    }


def _retrained(runs: Sequence[Run], store: FeatureStore, removed: Sequence[str]) -> dict[str, Any]:
    """Train again without some training images and compare on the same test images."""
    with tempfile.TemporaryDirectory(prefix="samcls-audit-") as folder:
        for number, one in enumerate(runs):
            train(
                store,
                one.config,
                Path(folder) / f"seed{number}",
                allow_leak=True,
                leave_out=removed,
            )
        again = [load_runs(Path(folder) / f"seed{number}")[0] for number in range(len(runs))]
        pair = (again[0], runs[0]) if len(runs) == 1 else (again, list(runs))
        compared = compare_runs(*pair)
    return {
        task: {
            name: {
                "before": table[name]["second"],
                "after": table[name]["first"],
                "difference": table[name]["difference"],
                "interval": table[name]["difference_interval"],
            }
            for name in TOLD
            if name in table
        }
        for task, table in compared["tasks"].items()
    }
