"""Which head pays on a store's features, without a look at its test split.

The training split alone is divided again and again: a quarter is tested on, a fifth of the rest chooses, the
rest is learned from. Differences are judged by the corrected t test. Two dozen divisions of 500 images take
some minutes a head.

    samcls bench recipe features.zarr --heads slca,ensemble:slca
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from samcls.bench.table import Bench, BenchRow, measure
from samcls.learn.features.folds import divisions
from samcls.learn.features.targets import UNUSED, targets_of
from samcls.learn.features.tensors import ChannelScaler, Features
from samcls.learn.fit.ensemble import Known
from samcls.learn.fit.fit import fit
from samcls.learn.fit.prediction import predict_logits, to_probabilities
from samcls.learn.fit.schedule import Fitted
from samcls.learn.heads.controls import references
from samcls.learn.runs.inputs import features_for
from samcls.learn.score.resampled import corrected_mean
from samcls.learn.score.scoring import auc
from samcls.learn.settings import TrainConfig
from samcls.store.feature_store import FeatureStore

__all__ = ["HEADS", "bench_recipe"]

HEADS = ("slca", "ensemble:slca")
PARTS, INNER = 4, 5  # a quarter is tested on; of the rest a fifth chooses
AGAINST = "logistic"


def bench_recipe(
    path: str,
    heads: Sequence[str] = HEADS,
    resplits: int = 24,
    base: TrainConfig | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> Bench:
    """Compare heads with the regressions on divisions of a store's training split.

    Args:
        path: Of the store.
        heads: What is compared, besides the regressions and their mean.
        resplits: Number of divisions; four make every image of the training split a test image once.
        base: Settings of the heads; None means the defaults.
        log: Called with a line for each division.

    Returns:
        For each task and head the mean AUC, the mean difference to the logistic regression on means,
        and half the width of its 95 % interval.

    Raises:
        ConfigError: where the training split cannot be divided, or a head cannot be trained.
    """
    store, base = FeatureStore.open(path), base or TrainConfig()
    targets = targets_of(store, base)
    whole = features_for(store, base, targets)
    configs = dict(references(base)) | {head: replace(base, head=head) for head in heads}
    found: dict[tuple[str, str], list[float]] = {}
    for number in range(resplits):
        features = _divided(whole, number)
        known: dict[TrainConfig, Fitted] = {}
        for name, config in configs.items():
            for task, value in _aucs(features, config, known).items():
                found.setdefault((task, name), []).append(value)
        log(f"division {number + 1} of {resplits}")
    sizes = [float(len(features.rows(split))) for split in ("train", "test")]
    rows: list[BenchRow] = []
    for (task, name), values in found.items():
        rows.append(measure(f"{task}: {name}", float(np.mean(values)), "AUC"))
        if name != AGAINST:
            apart = np.subtract(values, found[task, AGAINST])
            told = corrected_mean(apart.tolist(), *sizes)
            what = f"{task}: {name} minus {AGAINST}"
            rows.append(measure(what, told["mean"], "AUC"))
            if told["interval"]:
                rows.append(measure(f"{what}, +-", told["interval"][1] - told["mean"], "AUC"))
    return Bench("recipe", rows)


def _divided(whole: Features, number: int) -> Features:
    """Return the training split alone, divided in three and standardised."""
    rows = whole.rows("train").numpy()
    labels = whole.labels.numpy()
    groups = np.array(whole.groups)
    turn, part = divmod(number, PARTS)
    rest, test = divisions(labels[rows], groups[rows].tolist(), PARTS, turn)[part]
    train, val = divisions(labels[rows[rest]], groups[rows[rest]].tolist(), INNER, number)[0]
    splits = np.full(len(labels), UNUSED, dtype=object)
    splits[rows[test]], splits[rows[rest[train]]], splits[rows[rest[val]]] = "test", "train", "val"
    features = replace(whole, splits=tuple(splits.tolist()))
    return features.standardised(ChannelScaler.fit(features, features.rows("train")))


def _aucs(features: Features, config: TrainConfig, known: Known) -> Mapping[str, float]:
    fitted = fit(features, config, known=known)
    if isinstance(known, dict):
        known |= {config: fitted, **fitted.parts}
    rows = features.rows("test")
    with torch.inference_mode():
        said = to_probabilities(predict_logits(fitted.head, features, rows), features.tasks)
    labels = features.labels[rows].numpy()
    values = {
        task: auc(labels[:, [i]], {task: said[task]}) for i, task in enumerate(features.tasks)
    }
    return {task: value for task, value in values.items() if value is not None}
