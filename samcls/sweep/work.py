"""What one process does of a sweep: train a group of heads together and write each one's folder.

    group = ((config, other), ...)              # of one architecture and division, see `plan`
    for config, reason in run_group(site, group): ...

A group that fails as a whole is tried again in halves, so that what cannot be trained fails alone.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch

from samcls.config import digest, values_of
from samcls.device import choose_device
from samcls.errors import RunError, SamclsError
from samcls.learn.features.placement import placed
from samcls.learn.features.tensors import ChannelScaler, Features
from samcls.learn.fit.answers import judged
from samcls.learn.fit.fit import fit_together, steady_threads
from samcls.learn.fit.prediction import Model, predict_logits, shape_of, to_probabilities
from samcls.learn.fit.schedule import Fitted
from samcls.learn.heads.registry import reads
from samcls.learn.runs.baselines import majority_classes
from samcls.learn.runs.result import common_figures
from samcls.learn.runs.writing import place_run, run_files
from samcls.learn.score.scoring import score
from samcls.learn.settings import TrainConfig
from samcls.store.feature_store import FeatureStore
from samcls.sweep.outcomes import RunFailure, run_path, write_failure
from samcls.sweep.shared import SharedFeatures

__all__ = ["Ended", "Group", "Site", "run_group"]

Group = tuple[TrainConfig, ...]
Ended = tuple[TrainConfig, str | None]  # a run that is over, and why it failed, where it did


@dataclass(frozen=True)
class Site:
    """Where a sweep's processes find and put things; paths must mean the same to all of them.

    Attributes:
        store: Path or URL of the feature store.
        folder: The sweep's.
        shared: For features that the processes of a machine share.
        device: As in `samcls train`.
        threads: Of arithmetic in each process; 0 leaves them as they are.
    """

    store: str
    folder: str
    shared: str
    device: str = "cpu"
    threads: int = 0


def run_group(site: Site, group: Group) -> list[Ended]:
    """Train a group's heads on the training split and write what validation says of them.

    Args:
        site: Where things are.
        group: Configs of one architecture and one division of the images.

    Returns:
        How each run ended, in the group's order.
    """
    if site.threads and torch.get_num_threads() != site.threads:
        torch.set_num_threads(site.threads)
    started = time.perf_counter()
    try:
        features, scaler = _features(site, group[0])
        fitted = _fitted(site, features, group)
    except (SamclsError, ValueError, RuntimeError, MemoryError) as error:
        if len(group) == 1:
            return [_failed(site, group[0], str(error) or type(error).__name__)]
        half = len(group) // 2
        return run_group(site, group[:half]) + run_group(site, group[half:])
    seconds = (time.perf_counter() - started) / len(group)
    return [
        _failed(site, config, str(one))
        if isinstance(one, RunError)
        else _finished(site, config, one, features, scaler, seconds, len(group))
        for config, one in zip(group, fitted, strict=True)
    ]


def _fitted(site: Site, features: Features, group: Group) -> Sequence[Fitted | RunError]:
    # A training that takes long goes on where it was cut off.
    return fit_together(features, group, checkpoint=lambda config: _checkpoint(site, config))


def _finished(
    site: Site,
    config: TrainConfig,
    fitted: Fitted,
    features: Features,
    scaler: ChannelScaler,
    seconds: float,
    together: int,
) -> Ended:
    started = time.perf_counter()
    parts = shape_of(features), features.tasks, scaler, fitted.head
    model = Model(config, *parts, features.meta)
    chose = judged(features, config)
    rows = chose.rows("val")
    if fitted.held is None:
        with steady_threads(features, config):
            logits = predict_logits(fitted.head, features, rows)
        probabilities = to_probabilities(logits, features.tasks)
    else:
        probabilities = dict(fitted.held)
    labels = features.labels.numpy()[rows.numpy()]
    metrics = {
        **common_figures(model, fitted, features),
        "how": "single" if together == 1 else "together",
        "models_tried": fitted.tried,
        "seconds": round(seconds + time.perf_counter() - started, 4),
        "validation": score(labels, probabilities, features.tasks, majority_classes(features), 0),
    }
    files = run_files(model, chose, probabilities, fitted.history, metrics, split="val")
    place_run(run_path(site.folder, config), files)
    _checkpoint(site, config).unlink(missing_ok=True)
    return config, None


def _failed(site: Site, config: TrainConfig, reason: str) -> Ended:
    write_failure(site.folder, RunFailure(config, reason))
    return config, reason  # whose checkpoint stays, to be tried again from


def _checkpoint(site: Site, config: TrainConfig) -> Path:
    """Where a long training is put away; gone once the run has come to its end."""
    return Path(site.folder) / "checkpoints" / f"{digest(config)}.pt"


def _features(site: Site, config: TrainConfig) -> tuple[Features, ChannelScaler]:
    # Only what the features depend on, so that one mapping serves every config that agrees in it.
    own = values_of(config, "data")
    seed = config.seed if config.train_fraction < 1 else 0
    wanted = reads(config)
    alike = TrainConfig(**own | {"window": wanted.window}, seed=seed)
    return _mapped(site, alike if reads(alike) == wanted else replace(alike, head=config.head))


@lru_cache(maxsize=8)
def _mapped(site: Site, config: TrainConfig) -> tuple[Features, ChannelScaler]:
    shared = SharedFeatures(Path(site.shared), FeatureStore.open(site.store))
    features, scaler = shared.features(config)
    return placed(features, choose_device(site.device, training=True)), scaler
