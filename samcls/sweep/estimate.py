"""What a sweep would cost, before it is run: `samcls sweep --dry-run`.

An epoch of the largest groups is timed on this machine, the others are scaled by what they compute;
early stopping makes the true time shorter, looks at validation and the winner's own run longer. It
takes some seconds, of guided networks as long as their epochs, and leaves nothing behind.

    plan = estimate(store, space, workers=2)
    plan.runs, plan.seconds
"""

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from samcls.device import choose_device
from samcls.learn.features.placement import placed
from samcls.learn.fit.members import architecture
from samcls.learn.fit.price import epoch_seconds, solution_seconds
from samcls.learn.settings import TrainConfig
from samcls.store.feature_store import FeatureStore
from samcls.sweep.plan import groups_of
from samcls.sweep.search import Round, Strategy
from samcls.sweep.shared import SharedFeatures
from samcls.sweep.work import Group

__all__ = ["SweepPlan", "estimate"]

TIMED = 4  # architectures whose epoch is timed


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep means to do.

    Attributes:
        rounds: Configurations, runs and most epochs of each round.
        configs: The runs of the first round that are not done yet; none under tpe, which proposes
            them as it goes.
        groups: Number of groups in which these are trained.
        timed: (head, members, seconds of an epoch) of what was timed.
        seconds: Of all rounds, with every epoch trained; None where nothing could be timed.
    """

    rounds: tuple[Round, ...]
    configs: tuple[TrainConfig, ...]
    groups: int
    timed: tuple[tuple[str, int, float], ...]
    seconds: float | None


def estimate(
    store: FeatureStore,
    strategy: Strategy,
    configs: Sequence[TrainConfig],
    workers: int = 1,
    device: str = "cpu",
) -> SweepPlan:
    """Time an epoch of some groups and add up.

    Args:
        store: An open store that can serve the configs.
        strategy: How the sweep goes on after them.
        configs: What it proposes first.
        workers: Processes that will share the work.
        device: Where they will train.
    """
    groups = groups_of(configs, store, workers, device)
    trained = [group for group in groups if solution_seconds(group[0]) is None]
    timed = []
    with tempfile.TemporaryDirectory(prefix="samcls-plan-") as folder:
        shared = SharedFeatures(Path(folder), store)
        for group in _largest(trained):
            timed.append((group, _epoch_seconds(shared, group, device)))  # noqa: PERF401
    rounds = strategy.planned
    first = _total(groups, timed)
    seconds = None
    if first is not None and configs:
        # Later rounds train other numbers of runs for other numbers of epochs.
        work = [stage.runs * stage.epochs for stage in rounds]
        seconds = first * (sum(work) / work[0] if work[0] else 1.0) / workers
    shown = tuple((group[0].head, len(group), round(epoch, 4)) for group, epoch in timed)
    return SweepPlan(rounds, tuple(configs), len(groups), shown, seconds)


def _largest(groups: Sequence[Group]) -> list[Group]:
    """Return a group of each of the architectures that most runs have."""
    runs: Counter[tuple[object, ...]] = Counter()
    for group in groups:
        runs[architecture(group[0])] += len(group)
    chosen = {kind for kind, _ in runs.most_common(TIMED)}
    found: dict[tuple[object, ...], Group] = {}
    for group in groups:
        kind = architecture(group[0])
        if kind in chosen and len(group) > len(found.get(kind, ())):
            found[kind] = group
    return list(found.values())


def _epoch_seconds(shared: SharedFeatures, group: Group, device: str) -> float:
    features, _ = shared.features(group[0])
    features = placed(features, choose_device(device, training=True))
    return epoch_seconds(features, group)


def _total(groups: Sequence[Group], timed: Sequence[tuple[Group, float]]) -> float | None:
    """Seconds of all groups on one worker."""
    if not groups:
        return None
    known = {architecture(group[0]): epoch / len(group) for group, epoch in timed}
    common = sum(known.values()) / len(known) if known else 0.0
    total = 0.0
    for group in groups:
        solved = solution_seconds(group[0])
        if solved is not None:
            total += solved * len(group)
            continue
        epoch = known.get(architecture(group[0]), common)
        total += sum(epoch * config.epochs for config in group)
    return total
