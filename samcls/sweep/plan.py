"""Which runs of a sweep are trained together, and by how many at once.

Runs of one architecture on one division of the images share a pass over the data. How many pay is
measured by `samcls bench sweep`: on a CPU the gates of a group's step should stay in the
processor's cache, on a GPU in half of its free memory.

    for group in groups_of(configs, store, workers=2): run_group(site, group)
"""

import itertools
from collections import defaultdict
from collections.abc import Sequence

from samcls.device import choose_device
from samcls.learn.features.targets import targets_of
from samcls.learn.fit.members import architecture
from samcls.learn.fit.price import members_at_once
from samcls.learn.runs.inputs import shape_for
from samcls.learn.settings import TrainConfig
from samcls.store.feature_store import FeatureStore
from samcls.sweep.shared import division
from samcls.sweep.work import Group

__all__ = ["groups_of"]

ROUNDS = 3  # groups for each worker at least, so that all end at about the same time


def groups_of(
    configs: Sequence[TrainConfig], store: FeatureStore, workers: int = 1, device: str = "cpu"
) -> list[Group]:
    """Return runs in the groups in which they are trained.

    Args:
        configs: Every run that is to be done.
        store: An open store that can serve them all.
        workers: Processes that share the work.
        device: Where they train.

    Returns:
        Groups in an order in which those of one division of the images stand together.
    """
    alike: dict[tuple[str, tuple[object, ...]], list[TrainConfig]] = defaultdict(list)
    for config in configs:
        alike[division(config), architecture(config)].append(config)
    fair = max(1, -(-len(configs) // (ROUNDS * workers)))
    groups = []
    for (name, _), members in alike.items():
        # Equal seeds and rates side by side: these share batches and masks.
        members.sort(key=lambda config: (config.seed, config.dropout))
        size = min(fair, _at_once(members[0], store, device))
        parts = -(-len(members) // size)
        cuts = [len(members) * part // parts for part in range(parts + 1)]
        groups += [(name, tuple(members[start:end])) for start, end in itertools.pairwise(cuts)]
    groups.sort(key=lambda pair: pair[0])
    return [group for _, group in groups]


def _at_once(config: TrainConfig, store: FeatureStore, device: str) -> int:
    shape = shape_for(store, config, targets_of(store, config))
    return members_at_once(config, shape, choose_device(device))
