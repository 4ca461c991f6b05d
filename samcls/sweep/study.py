"""The data-efficiency study on the test split: what each head's best configuration makes of few images.

Each head is followed down the training shares with the configuration that validation ranked first;
the heads of these runs, and no others, score the test split. Nothing is chosen by what comes out.
Features are read once for each division of the images.

    scores = score_on_test(folder, store, rows, space)
    points = efficiency(rows, records, space, scores)
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from samcls.config import digest, values_of
from samcls.device import choose_device
from samcls.learn.features.columns import with_columns
from samcls.learn.features.placement import placed
from samcls.learn.features.rows import pick
from samcls.learn.features.targets import targets_of
from samcls.learn.features.tensors import Features
from samcls.learn.fit.prediction import load_model, predict_logits, to_probabilities
from samcls.learn.heads.registry import reads
from samcls.learn.runs.inputs import features_for
from samcls.learn.score.scoring import auc
from samcls.learn.settings import TrainConfig
from samcls.store.feature_store import FeatureStore
from samcls.sweep.efficiency import followed
from samcls.sweep.leaderboard import Row
from samcls.sweep.outcomes import run_path
from samcls.sweep.space import Space

__all__ = ["score_on_test"]


def score_on_test(
    folder: str | Path, store: FeatureStore, rows: Sequence[Row], space: Space, device: str
) -> dict[str, float | None]:
    """Test AUC of every run that the study follows, by the digest of its config.

    Args:
        folder: The sweep's, which holds the runs' heads.
        store: The sweep's.
        rows: The leaderboard.
        space: Says which shares, seeds and folds there are.
        device: Where the heads are run.
    """
    where = choose_device(device, training=True)
    alike: dict[tuple[object, ...], list[TrainConfig]] = defaultdict(list)
    for configuration in followed(rows).values():
        for member in space.trial(configuration).members:
            if (run_path(folder, member) / "head.json").exists():
                # Nothing of the test images hangs on the share that was trained on.
                own = values_of(member, "data") | {"train_fraction": 1.0}
                wanted = reads(member)
                own["window"] = wanted.window
                alike[wanted.pixels, *own.values()].append(member)
    scores: dict[str, float | None] = {}
    for members in alike.values():
        features = _test_features(store, members[0])
        for member in members:
            scores[digest(member)] = _score(Path(folder), member, features, store, where)
    return scores


def _test_features(store: FeatureStore, config: TrainConfig) -> Features:
    """Features of all images; which of them are the test split no training share changes."""
    return features_for(store, replace(config, with_meta=()), targets_of(store, config))


def _score(
    folder: Path,
    config: TrainConfig,
    features: Features,
    store: FeatureStore,
    device: torch.device,
) -> float | None:
    model = load_model(run_path(folder, config))
    test = pick(features, features.rows("test"))
    if model.meta:  # as the model's own training images have them
        test = with_columns(test, store, model.meta)
    test = test.standardised(model.scaler)
    logits = predict_logits(model.head.to(device), placed(test, device))
    found = to_probabilities(logits, test.tasks)
    return auc(test.labels.numpy(), found)
