"""The data-efficiency study on the test split: what each head's best configuration makes of few images.

Each head is followed down the training shares with the configuration that validation ranked first;
the heads of these runs, and no others, score the test split. Nothing is chosen by what comes out. A
run is scored in some 20 ms, on features that are read once for each division of the images.

    scores = score_on_test(folder, store, rows, space)
    points = efficiency(rows, records, space, scores)
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch

from samcls.config import TrainConfig, digest
from samcls.learn.features import Features, load_features
from samcls.learn.metrics import auc
from samcls.learn.model import load_model
from samcls.learn.targets import targets_of
from samcls.learn.train import loading_window
from samcls.store.feature_store import FeatureStore
from samcls.sweep.efficiency import followed
from samcls.sweep.records import RUNS
from samcls.sweep.results import Row
from samcls.sweep.space import Space

__all__ = ["score_on_test"]


def score_on_test(
    folder: str | Path, store: FeatureStore, rows: Sequence[Row], space: Space
) -> dict[str, float | None]:
    """Test AUC of every run that the study follows, by the digest of its config.

    Args:
        folder: The sweep's, which holds the runs' heads.
        store: The sweep's.
        rows: The leaderboard.
        space: Says which shares, seeds and folds there are.
    """
    alike: dict[tuple[object, ...], list[TrainConfig]] = defaultdict(list)
    for configuration in followed(rows).values():
        for member in space.trial(configuration).members:
            if (Path(folder) / RUNS / digest(member) / "head.json").exists():
                kept = (member.levels, loading_window(member), member.folds, member.fold)
                alike[kept].append(member)
    scores: dict[str, float | None] = {}
    for members in alike.values():
        features = _test_features(store, members[0])
        for member in members:
            scores[digest(member)] = _score(Path(folder), member, features)
    return scores


def _test_features(store: FeatureStore, config: TrainConfig) -> Features:
    """Features of all images; which of them are the test split no training share changes."""
    targets = targets_of(store, config)
    return load_features(store, config.levels, loading_window(config), targets)


def _score(folder: Path, config: TrainConfig, features: Features) -> float | None:
    model = load_model(folder / RUNS / digest(config))
    rows = features.rows("test")
    flat = features.flat(rows)
    tokens = {k: features.tokens[k].index_select(0, flat) for k in model.shape.channels}
    counts = {k: features.counts[k].index_select(0, flat) for k in model.shape.channels}
    with torch.inference_mode():
        found = model.probabilities(tokens, counts, features.views)
    return auc(features.labels[rows].numpy(), found)
