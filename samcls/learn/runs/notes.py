"""What a reader must know to believe a run's figures: labels, the positive class, what stands in two splits.

Everything is known from the store's columns before a feature is read: a few milliseconds for 10,000
images. Under folds the facts are of the folds, so that every fold's run says the same.

    facts = facts_of(store, config, targets, allow_leak=False, strict=False)
    facts.notes, facts.leaks
"""

from dataclasses import dataclass, replace
from typing import Any

from samcls.data.labels import labelled
from samcls.data.leaks import ACCEPTED, Leaks, find_leaks
from samcls.data.manifest import SPLITS
from samcls.errors import ConfigError
from samcls.learn.features.folds import fold_numbers
from samcls.learn.features.targets import UNUSED, Targets, targets_of
from samcls.learn.settings import TrainConfig
from samcls.store.feature_store import FeatureStore
from samcls.store.schema import DONE

__all__ = ["Facts", "facts_of", "leaks_of", "refuse_leaks"]


@dataclass(frozen=True)
class Facts:
    """What belongs under every table of a run.

    Attributes:
        counts: What was found of leaks, in a line.
        leaks: Groups and pictures in several splits, as JSON knows them.
        warnings: Sentences on what makes figures doubtful.
        notes: These, and sentences on what is labelled and which class is positive.
    """

    counts: str
    leaks: dict[str, Any]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]


def facts_of(
    store: FeatureStore,
    config: TrainConfig,
    targets: Targets,
    *,
    allow_leak: bool = False,
    strict: bool = False,
) -> Facts:
    """Return what must be said of the images, labels and splits of a run.

    Args:
        store: An open store.
        config: Of the run.
        targets: Of the run.
        allow_leak: Whether groups may lie in several splits.
        strict: Whether pictures may not.

    Raises:
        ConfigError: as `refuse_leaks`.
    """
    found = leaks_of(store, config, targets)
    refuse_leaks(found, allow_leak=allow_leak, strict=strict)
    doubts = [
        f"{said}; what was seen in training is answered too well" for said in found.pictures()
    ]
    if divided := found.divided_groups():
        doubts.insert(0, f"a leak that was allowed: {divided}; figures are too good for new groups")
    plain = (*_labelled(store, config, targets), *_positive(targets))
    return Facts(found.counted(store.path), found.to_dict(), tuple(doubts), (*doubts, *plain))


def leaks_of(store: FeatureStore, config: TrainConfig, targets: Targets) -> Leaks:
    """Return groups and pictures in several splits among the images that take part, or in several folds."""
    done = store.status == DONE
    splits = [
        split if split != UNUSED and taking else ""
        for split, taking in zip(targets.splits, done.tolist(), strict=True)
    ]
    if config.folds:
        plain = targets_of(store, replace(config, folds=0, train_fraction=1.0, positive=()))
        numbers = fold_numbers(plain.labels, store.groups, done, config.folds)
        splits = [f"fold {number}" if number >= 0 else "" for number in numbers.tolist()]
    places = "folds" if config.folds else "splits"
    return find_leaks(store.ids, splits, store.groups, store.sha256, targets.labels, places=places)


def refuse_leaks(found: Leaks, *, allow_leak: bool, strict: bool) -> None:
    """Stop what would give figures that nobody should believe.

    Args:
        found: In the images that take part.
        allow_leak: Whether groups may lie in several splits.
        strict: Whether pictures may not.

    Raises:
        ConfigError: with what stands in several splits, and what to do.
    """
    problems = []
    if (divided := found.divided_groups()) and not allow_leak:
        problems.append(
            f"{divided}. Images of one group belong in one split, or figures are too good: mend the "
            f"splits in the manifest and extract again, which encodes nothing anew; train with --folds, "
            f"which keeps groups whole; or {ACCEPTED}"
        )
    if strict:
        problems += [f"{said} (--strict makes this an error)" for said in found.pictures()]
    if problems:
        raise ConfigError("\n".join(problems))


def _positive(targets: Targets) -> list[str]:
    """Which class the figures of each task of two are of."""
    return [
        f"sensitivity, specificity, precision and F1 of task {task} are of class {classes[-1]}"
        for task, classes in targets.tasks.items()
        if len(classes) == 2
    ]


def _labelled(store: FeatureStore, config: TrainConfig, targets: Targets) -> list[str]:
    """How many images have a label, by task, split and class; under folds, of all of them."""
    done = (store.status == DONE).tolist()
    names = ("all folds",) if config.folds else SPLITS
    own = ["all folds"] * len(done) if config.folds else targets.splits
    parts = [split if taking else "" for split, taking in zip(own, done, strict=True)]
    return [
        labelled(task, classes, targets.labels[:, column], parts, names)
        for column, (task, classes) in enumerate(targets.tasks.items())
    ]
