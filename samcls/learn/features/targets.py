"""What is to be learned of a store's images: tasks, labels and splits, the store's own or others.

Labels may come from a CSV by id, the splits may be replaced by group-aware, stratified folds, and
a part of the training split may be left out. 780 images take some milliseconds.

    targets = targets_of(store, TrainConfig(labels="grades.csv", folds=5, fold=2))
    targets.tasks, targets.labels, targets.splits
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from samcls.data.labels import canonical, doubtful_classes, near_misses, positive_last
from samcls.errors import ConfigError
from samcls.files import meant
from samcls.learn.features.folds import fold_splits, unit_names
from samcls.learn.features.labels import read_labels
from samcls.learn.settings import TrainConfig
from samcls.store.feature_store import FeatureStore
from samcls.store.schema import DONE

__all__ = [
    "UNUSED",
    "Targets",
    "targets_of",
    "train_share",
    "with_positive",
    "without",
]

UNUSED = "unused"  # split of training images that a share leaves out


@dataclass(frozen=True, eq=False)
class Targets:
    """What a run learns and where each image belongs, a row for each of the store's images.

    Attributes:
        tasks: Class names of each task, in the order of the label columns.
        labels: Class indices; -1 where a label is missing.
        splits: `train`, `val` or `test`; `unused` for an image that takes no part. Where inner folds
            choose, `val` is part of `train`.
        ordinal: Tasks that the manifest, or the CSV of labels, declares as ordered.
        remarks: Sentences on labels that a user should look at.
    """

    tasks: Mapping[str, tuple[str, ...]]
    labels: Int[np.ndarray, "image task"]
    splits: Sequence[str]
    ordinal: Sequence[str] = ()
    remarks: Sequence[str] = ()


def targets_of(store: FeatureStore, config: TrainConfig) -> Targets:
    """Return the config's tasks, labels and splits on a store.

    Raises:
        ConfigError: where the CSV cannot be read, a task is unknown, the images cannot be divided
            into the folds, or the share of the training split is too small.
    """
    if config.labels is not None:
        targets = _from_file(store, config.labels, config.missing)
    elif config.missing:
        raise ConfigError(
            "missing says what means a missing label in the CSV of labels, and there is none; labels "
            "of the store are read again by samcls extract --missing, which encodes nothing anew"
        )
    else:
        targets = _stored(store)
    unknown = [name for name in config.tasks if name not in targets.tasks]
    if unknown:
        known = ", ".join(targets.tasks) or "none"
        where = config.labels or "the store"
        raise ConfigError(
            "\n  ".join(
                f"unknown task {name}; {where} has {known}{meant(name, targets.tasks)}"
                for name in unknown
            )
        )
    names = config.tasks or tuple(targets.tasks)
    columns = [list(targets.tasks).index(name) for name in names]
    targets = replace(
        targets,
        tasks={name: targets.tasks[name] for name in names},
        labels=targets.labels[:, columns],
    )
    done = store.status == DONE
    if config.folds:
        splits = fold_splits(targets.labels, store.groups, done, config.folds, config.fold)
        targets = replace(targets, splits=splits)
    if config.train_fraction < 1:
        shared = train_share(targets, store.groups, done, config.train_fraction, config.seed)
        targets = replace(targets, splits=shared)
    if config.inner:
        splits = ["train" if split == "val" else split for split in targets.splits]
        targets = replace(targets, splits=splits)
    # At the end: neither folds nor shares depend on which class is called positive.
    return with_positive(targets, config.positive)


def without(targets: Targets, ids: Sequence[str], leave_out: Sequence[str]) -> Targets:
    """Return targets in which some training images take no part.

    Args:
        targets: Of a store's images.
        ids: Of these.
        leave_out: Of training images; those of other splits stay.
    """
    gone = set(leave_out)
    splits = [
        UNUSED if name in gone and split == "train" else split
        for name, split in zip(ids, targets.splits, strict=True)
    ]
    return replace(targets, splits=splits) if gone else targets


def with_positive(targets: Targets, chosen: Sequence[str]) -> Targets:
    """Put the positive class of tasks of two classes last.

    Args:
        targets: Any.
        chosen: `CLASS` or `TASK=CLASS` each.

    Raises:
        ConfigError: where a class is unknown, stands in several tasks, or its task has not two.
    """
    tasks, labels = dict(targets.tasks), targets.labels.copy()
    problems = []
    for entry in chosen:
        named, mark, name = entry.partition("=")
        task, positive = (named.strip(), name) if mark and named.strip() in tasks else ("", entry)
        positive = canonical(positive.strip())
        spelled = {own: {canonical(c): c for c in classes} for own, classes in tasks.items()}
        holders = [task] if task else [own for own in tasks if positive in spelled[own]]
        if len(holders) != 1:
            problems.append(_no_positive(positive, holders, tasks))
            continue
        task = holders[0]
        old = tasks[task]
        tasks[task], problem = positive_last(task, old, spelled[task].get(positive, positive))
        if problem:
            problems.append(problem)
            tasks[task] = old
        moved = np.array([*(tasks[task].index(c) for c in old), -1])  # -1 stays -1
        column = list(tasks).index(task)
        inside = (labels[:, column] >= -1) & (labels[:, column] < len(old))
        labels[inside, column] = moved[labels[inside, column]]
    if problems:
        raise ConfigError("\n  ".join(problems))
    return replace(targets, tasks=tasks, labels=labels)


def _no_positive(
    positive: str, holders: Sequence[str], tasks: Mapping[str, tuple[str, ...]]
) -> str:
    if holders:
        return (
            f"class {positive!r} stands in tasks {', '.join(holders)}; name one, as in --positive "
            f"{holders[0]}={positive}"
        )
    known = {name for classes in tasks.values() for name in classes}
    shown = "; ".join(f"{task} has {', '.join(c[:5])}" for task, c in tasks.items())
    return (
        f"no task has a class {positive!r} to be positive: {shown}"
        f"{near_misses(positive, sorted(known))}"
    )


def _stored(store: FeatureStore) -> Targets:
    """Return the store's own tasks and splits, with what looks doubtful among their classes."""
    labels = store.labels
    remarks = [
        f"{store.path}: {remark}"
        for column, (task, classes) in enumerate(store.tasks.items())
        for remark in doubtful_classes(
            task, {name: int((labels[:, column] == c).sum()) for c, name in enumerate(classes)}
        )
    ]
    return Targets(store.tasks, labels, store.splits, store.ordinal, tuple(remarks))


def _from_file(store: FeatureStore, path: str, missing: Sequence[str]) -> Targets:
    """Return a file's tasks and the store's splits; a task with the store's classes is as ordered there."""
    found = read_labels(path, store.ids, store.tasks, missing)
    same = [name for name in store.ordinal if found.tasks.get(name) == store.tasks.get(name)]
    ordinal = tuple(name for name in found.tasks if name in {*found.ordinal, *same})
    return Targets(found.tasks, found.labels, store.splits, ordinal, found.remarks)


def train_share(
    targets: Targets,
    groups: Sequence[str],
    done: Bool[np.ndarray, " image"],
    fraction: float,
    seed: int,
) -> list[str]:
    """Return splits in which all but a share of the training images are `unused`.

    Each image has a place between 0 and 1 that the seed alone draws, and the share is all images
    up to the fraction: those of a smaller fraction are among those of a larger one. Places are
    spread evenly over each class of the first task, whose images are thus taken to the nearest
    whole number, and as evenly as that allows over the combinations of all tasks' labels. A group
    has one place, its most frequent label's, and is taken or left as a whole.

    Args:
        targets: Labels and splits; `val` and `test` are not looked at.
        groups: Patient or lesion of each image; empty where there is none.
        done: Images that take part.
        fraction: Share of the training images, above 0 and at most 1.
        seed: Of the draw, which is independent of everything else that a run draws.

    Raises:
        ConfigError: where a class would be left without an image, with the smallest fraction that
            leaves none.
    """
    splits = [str(split) for split in targets.splits]
    rows = np.flatnonzero(done & (np.array(splits) == "train"))
    if not len(rows):
        return splits
    labels = targets.labels[rows]
    places = _places_of_images(labels, unit_names(groups, rows), seed)
    firsts = {
        f"{name} ({(labels[:, i] == c).sum()} images, task {task})": places[labels[:, i] == c].min()
        for i, (task, classes) in enumerate(targets.tasks.items())
        for c, name in enumerate(classes)
        if (labels[:, i] == c).any()
    }
    lost = [name for name, first in firsts.items() if first > fraction]
    if lost:
        usable = math.ceil(max(firsts.values()) * 10_000) / 10_000
        raise ConfigError(
            f"train_fraction {fraction:g} of {len(rows)} training images leaves none of class "
            f"{', '.join(lost)}; the smallest usable fraction is {usable:g}"
        )
    for row in rows[places > fraction].tolist():
        splits[row] = UNUSED
    return splits


def _places_of_images(
    labels: Int[np.ndarray, "image task"], names: np.ndarray, seed: int
) -> Float[np.ndarray, " image"]:
    """Each image's place in the order in which shares take images, between 0 and 1."""
    _, units = np.unique(names, return_inverse=True)
    _, joint = np.unique(labels, axis=0, return_inverse=True)
    sizes = np.bincount(units)
    generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,)))
    # At random inside its own stretch, or all that are alone of their kind would come in the middle.
    offsets = generator.random(len(sizes))
    drawn = generator.permutation(len(sizes))
    mixed = _spread(_commonest(joint.reshape(-1), units), sizes, drawn, offsets)
    order = np.argsort(mixed, kind="stable")
    halves = np.full(len(sizes), 0.5)
    places = _spread(_commonest(labels[:, 0], units), sizes, order, halves)
    return places[units]


def _spread(
    kinds: Int[np.ndarray, " unit"],
    sizes: Int[np.ndarray, " unit"],
    order: Int[np.ndarray, " unit"],
    offsets: Float[np.ndarray, " unit"],
) -> Float[np.ndarray, " unit"]:
    """Places of units, each kind's evenly over 0 to 1 in the order given."""
    places = np.empty(len(kinds))
    for kind in np.unique(kinds):
        own = order[kinds[order] == kind]
        ends = sizes[own].cumsum()
        places[own] = (ends - offsets[own] * sizes[own]) / ends[-1]
    return places


def _commonest(
    kinds: Int[np.ndarray, " image"], units: Int[np.ndarray, " image"]
) -> Int[np.ndarray, " unit"]:
    """Return the most frequent kind in each unit, the lowest of equals."""
    counted = Counter(zip(units.tolist(), kinds.tolist(), strict=True))
    # Ascending, so that what stays for a unit is its most frequent kind.
    ranked = sorted(counted, key=lambda pair: (counted[pair], -pair[1]))
    found = dict(ranked)
    return np.array([found[unit] for unit in range(len(found))], dtype=np.int64)
