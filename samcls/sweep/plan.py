"""Which runs of a sweep are trained together, and by how many at once.

Runs of one architecture on one division of the images share a pass over the data. How many pay is
measured by `samcls bench sweep`: on a CPU the gates of a group's step should stay in the processor's
cache, on a GPU in half of its free memory. Planning 1,000 runs takes some 0.1 s.

    for group in groups_of(configs, store, workers=2): run_group(site, group)
"""

import itertools
from collections import defaultdict
from collections.abc import Sequence

import torch

from samcls.device import choose_device, training_dtype
from samcls.learn.features.targets import targets_of
from samcls.learn.fit.loop import architecture, sees_tokens
from samcls.learn.fit.stacked import can_stack
from samcls.learn.heads import HEADS, ClosedHead, build_head
from samcls.learn.runs.inputs import shape_for
from samcls.learn.settings import TrainConfig
from samcls.store.feature_store import FeatureStore
from samcls.sweep.shared import division
from samcls.sweep.work import Group

__all__ = ["groups_of", "members_at_once"]

CPU_BYTES = (
    48_000_000  # of all members' gates in a step; beyond it memory, not arithmetic, sets the pace
)
MOST = 64  # members of a group: what is lost where a process dies
ROUNDS = 3  # groups for each worker at least, so that all end at about the same time


def groups_of(
    configs: Sequence[TrainConfig], store: FeatureStore, workers: int = 1, device: str = "cpu"
) -> list[Group]:
    """Runs in the groups in which they are trained.

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
        size = min(fair, members_at_once(members[0], store, device))
        parts = -(-len(members) // size)
        cuts = [len(members) * part // parts for part in range(parts + 1)]
        groups += [(name, tuple(members[start:end])) for start, end in itertools.pairwise(cuts)]
    groups.sort(key=lambda pair: pair[0])
    return [group for _, group in groups]


def members_at_once(config: TrainConfig, store: FeatureStore, device: str = "cpu") -> int:
    """How many heads of a config's architecture are trained in one pass.

    Args:
        config: One of them.
        store: An open store.
        device: Where they train.
    """
    if HEADS[config.head].sees_pixels:
        return 1
    shape = shape_for(store, config, targets_of(store, config))
    place = choose_device(device, training=True)
    if issubclass(HEADS[config.head], ClosedHead):
        return MOST if place.type == "cpu" else 1
    head = build_head(config, shape, torch.Generator())
    mixed = training_dtype(config.precision, place) != torch.float32
    if mixed or not can_stack(head):
        return 1
    values = sum(
        (shape.grids[level][0] * shape.grids[level][1] if sees_tokens(config.head) else 1)
        * channels
        for level, channels in shape.channels.items()
    )
    room = CPU_BYTES
    if place.type == "cuda":
        room = torch.cuda.mem_get_info(place)[0] // 2
    most = MOST if place.type == "cpu" else 16 * MOST
    return max(1, min(most, room // (4 * config.batch_size * values)))
