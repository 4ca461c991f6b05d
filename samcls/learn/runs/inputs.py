"""What a config asks of a store: whether it can be served, and what its head is given.

targets = check(store, config)
features = features_for(store, config, targets)
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from samcls.config import defaults_of
from samcls.data.manifest import SPLITS
from samcls.errors import ConfigError
from samcls.files import meant
from samcls.learn.features.columns import with_meta
from samcls.learn.features.meta import LEVEL as META
from samcls.learn.features.meta import MetaColumn, learn_columns, meta_width
from samcls.learn.features.targets import Targets, targets_of
from samcls.learn.features.tensors import (
    Features,
    grids_of,
    load_features,
    reach_of,
    selection_problems,
    with_pixels,
)
from samcls.learn.heads.base import Shape
from samcls.learn.heads.registry import head_class, head_problems, learns_order, reads, unknown_head
from samcls.learn.runs.writing import refuse_overwrite
from samcls.learn.settings import TrainConfig
from samcls.store.feature_store import FeatureStore
from samcls.store.schema import DONE, PENDING

__all__ = [
    "SPLITS",
    "check",
    "columns_for",
    "features_for",
    "loading_window",
    "settled",
    "shape_for",
]


def check(store: FeatureStore, config: TrainConfig, run_dir: str | Path | None = None) -> Targets:
    """Make sure that a run can be trained, without reading a feature.

    Returns:
        What there is to learn.

    Raises:
        ConfigError: with everything that stands against it.
        OverwriteRefused: where the folder holds a finished run, or something else.
    """
    problems = selection_problems(store, config.levels, loading_window(config))
    try:
        targets = targets_of(store, config)
    except ConfigError as error:
        problems.append(str(error))
        known = tuple(task for task in config.tasks if task in store.tasks)
        usual = defaults_of(TrainConfig, "data")
        targets = targets_of(store, replace(config, **usual | {"tasks": known}))
    named = () if config.ordinal == ("none",) else config.ordinal
    problems += _meta_problems(store, config, targets)
    missing = [task for task in named if task not in targets.tasks]
    problems += [
        f"unknown ordinal task {t}; learned are {', '.join(targets.tasks)}{meant(t, targets.tasks)}"
        for t in missing
    ]
    if problems:
        problems += unknown_head(config.head)
    else:
        problems += head_problems(settled(config, targets), shape_for(store, config, targets))
    needed = [split for split in SPLITS if split != "val" or not config.inner]
    problems += _row_problems(store, targets, needed)
    problems += _inner_problems(store, targets, config)
    problems += [line for task in targets.tasks for line in _label_problems(store, targets, task)]
    if problems:
        raise ConfigError(f"cannot train on {store.path}:\n  " + "\n  ".join(problems))
    if run_dir is not None:
        refuse_overwrite(run_dir)
    return targets


def settled(config: TrainConfig, targets: Targets) -> TrainConfig:
    """Return the config with the tasks that are declared as ordered, where it names none and its head can.

    `ordinal = ["none"]` keeps to unordered classes whatever is declared.
    """
    named = tuple(name for name in targets.ordinal if name in targets.tasks)
    if config.ordinal or not named or not learns_order(config.head):
        return config
    return replace(config, ordinal=named)


def features_for(
    store: FeatureStore, config: TrainConfig, targets: Targets, memory: int | None = None
) -> Features:
    """Read all that a config's head is given: features, and the images where it looks at them.

    Args:
        store: An open store.
        config: Says which levels, which window and which head.
        targets: Tasks, labels and splits.
        memory: Bytes that the features may take, and the images as many; None sets no limit.

    Raises:
        ConfigError: where the store cannot serve the config.
        StoreError: where features hold values that are not finite, or images are asked for in vain.
        RunError: where there is no room for a scratch file.
    """
    features = load_features(store, config.levels, loading_window(config), targets, memory)
    if config.with_meta:
        features = with_meta(features, store, config.with_meta)
    return with_pixels(features, store, memory) if reads(config).pixels else features


def loading_window(config: TrainConfig) -> int | None:
    """Return the window to load features at; None means the store's own."""
    return reads(config).window


def shape_for(store: FeatureStore, config: TrainConfig, targets: Targets) -> Shape:
    """Return what a head of a config is given and what it answers, without reading a feature."""
    levels = [level for level in config.levels or store.levels if level in store.levels]
    window = loading_window(config)
    channels = {level: store.levels[level].channels for level in levels}
    grids = grids_of(store, levels, window)
    columns = columns_for(store, config, targets)
    if columns:
        channels[META], grids[META] = meta_width(columns), (1, 1)
    return Shape(
        channels=channels,
        classes={task: len(classes) for task, classes in targets.tasks.items()},
        grids=grids,
        window=window or store.fingerprint.window,
        reach=reach_of(store, levels, window),
        pixels=store.pixel_size,
    )


def columns_for(
    store: FeatureStore, config: TrainConfig, targets: Targets
) -> tuple[MetaColumn, ...]:
    """Return what training images say of the manifest's columns that a config names.

    Args:
        store: An open store.
        config: Names them.
        targets: Says which are the training images.

    Raises:
        ConfigError: as `learn_columns`.
    """
    if not config.with_meta:
        return ()
    rows = np.flatnonzero((store.status == DONE) & (np.array(targets.splits) == "train"))
    return learn_columns(store.meta, config.with_meta, rows)


def _meta_problems(store: FeatureStore, config: TrainConfig, targets: Targets) -> list[str]:
    """Return what stands against columns beside the image."""
    if not config.with_meta:
        return []
    if not unknown_head(config.head) and head_class(config.head).fitting == "network":
        return ["with_meta: networks over pixels take no columns; their features alone do"]
    try:
        columns_for(store, config, targets)
    except ConfigError as error:
        return [str(error)]
    return []


def _inner_problems(store: FeatureStore, targets: Targets, config: TrainConfig) -> list[str]:
    """Return what stands against choosing by inner folds."""
    if not config.inner:
        return []
    if not unknown_head(config.head) and head_class(config.head).fitting == "network":
        return [f"select is {config.select}: networks over pixels are chosen by holdout alone"]
    rows = np.flatnonzero((store.status == DONE) & (np.array(targets.splits) == "train"))
    folds = config.inner[0]
    groups = np.array([store.groups[row] or f"image {row}" for row in rows.tolist()])
    if len(np.unique(groups)) < folds:
        have = len(np.unique(groups))
        return [f"select is {config.select}, and train and validation have {have} groups"]
    problems = []
    for column, (task, classes) in enumerate(targets.tasks.items()):
        labels = targets.labels[rows, column]
        counts = {name: len(np.unique(groups[labels == c])) for c, name in enumerate(classes)}
        if sum(count >= folds for count in counts.values()) < 2:
            told = ", ".join(f"{name} {count}" for name, count in counts.items())
            problems.append(
                f"select is {config.select}, and folds of task {task} would be without a class (groups or "
                f"images: {told}), so that nothing could be chosen by them; take fewer folds"
            )
    return problems


def _row_problems(
    store: FeatureStore, targets: Targets, needed: Sequence[str] = SPLITS
) -> list[str]:
    status = store.status
    waiting = int((status == PENDING).sum())
    problems = []
    if waiting:
        problems.append(
            f"{waiting} of {len(status)} images are pending; run the same samcls extract again to "
            "finish the store"
        )
    done = np.array(targets.splits)[status == DONE]
    problems += [
        f"no image in split {split}; give the manifest rows of split {split} and extract again"
        for split in needed
        if split not in done and not waiting
    ]
    return problems


def _label_problems(store: FeatureStore, targets: Targets, task: str) -> list[str]:
    """Return what stands against learning a task, where its splits have images at all."""
    classes = targets.tasks[task]
    labels = targets.labels[:, list(targets.tasks).index(task)]
    done, splits = store.status == DONE, np.array(targets.splits)
    problems = []
    strange = done & ((labels < -1) | (labels >= len(classes)))
    if strange.any():
        problems.append(
            f"task {task}: {strange.sum()} images have a label outside its {len(classes)} classes, "
            f"such as {labels[strange][0]} of {store.ids[int(np.flatnonzero(strange)[0])]}; expected "
            f"0 ({classes[0]}) to {len(classes) - 1} ({classes[-1]}), or -1 where it is missing"
        )
    for split in SPLITS:
        rows = done & (splits == split) & ~strange
        found = np.unique(labels[rows & (labels >= 0)])
        if rows.any() and not len(found):
            problems.append(
                f"task {task}: no image of split {split} has a label; leave the task out"
            )
        elif split == "train" and len(found) == 1:
            problems.append(
                f"task {task}: every training label is {classes[found[0]]}; training needs images "
                "of at least two classes"
            )
    return problems
