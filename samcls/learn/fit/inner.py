"""Settings chosen by inner folds of everything but the test split, then fitted on all of it.

One validation split of a hundred images hardly sees what it chooses between. Here each head is fitted on
repeated, stratified folds, groups whole; the epoch, or the number that a head is solved with, is the one with
the best mean over the folds; and the head is fitted once more, on all images, with that number. What it
says of an image that chose is the mean of what heads said that had not seen it.

    fitted = fit_inner(features, [TrainConfig(select="inner:5x3")], log)
    fitted[0].held["malignancy"]                   # "image class", of the training rows, out of fold
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from jaxtyping import Float

from samcls.errors import RunError
from samcls.learn.features.folds import divisions
from samcls.learn.features.targets import UNUSED
from samcls.learn.features.tensors import Features
from samcls.learn.fit.loop import EPOCH, Log, Loop, diverged
from samcls.learn.fit.members import MemberTrainer
from samcls.learn.fit.schedule import Epoch, Fitted
from samcls.learn.fit.solve import solve, solve_with
from samcls.learn.heads.registry import head_class
from samcls.learn.score.scoring import auc, log_loss
from samcls.learn.settings import TrainConfig

__all__ = ["fit_inner", "held_epoch", "inner_features"]

Said = Mapping[str, Float[np.ndarray, "_image _class"]]
Trail = Mapping[str, Mapping[float, Said]]  # what is chosen, its numbers, what each says by task


@dataclass(frozen=True, eq=False)
class _Fold:
    """One inner fold: its features, and where its held images lie among all that chose."""

    features: Features
    held: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        found: np.ndarray = self.features.labels.numpy()[self.features.rows("val").numpy()]
        return found


@dataclass(frozen=True)
class _Choice:
    """What was chosen, and the mean AUC and loss over the folds of every number."""

    numbers: dict[str, float]
    ranks: dict[str, dict[float, tuple[float, float]]]


def inner_features(features: Features, folds: int, repeats: int) -> Iterator[Features]:
    """Yield the features under each inner fold: `val` is the fold, `train` the rest, nothing is `test`.

    Args:
        features: All that may be learned from is in split `train`.
        folds: In each repeat.
        repeats: Each divided otherwise; the same for all seeds and heads.
    """
    for fold in _folds(features, folds, repeats):
        yield fold.features


def fit_inner(
    features: Features, configs: Sequence[TrainConfig], log: Log = lambda _: None
) -> list[Fitted | RunError]:
    """Fit heads of one architecture, what is chosen being chosen by inner folds.

    Args:
        features: Standardised features; all that may be learned from is in split `train`.
        configs: Of one `architecture`, none an ensemble or a network.
        log: Called with a line for each fold.

    Returns:
        For each config what its last fitting left, `held` out of fold; or why it failed.

    Raises:
        ConfigError: where there are fewer groups than folds.
    """
    folds, repeats = configs[0].inner or (0, 0)
    divided = list(_folds(features, folds, repeats))
    trails: list[list[Trail | RunError]] = [[] for _ in configs]
    for number, fold in enumerate(divided, 1):
        for own, trail in zip(trails, _trails(fold.features, configs), strict=True):
            own.append(trail)
        log(f"inner fold {number} of {len(divided)}")
    found: dict[int, Fitted | RunError] = {}
    choices: dict[int, _Choice] = {}
    for place, own in enumerate(trails):
        failed = [one for one in own if isinstance(one, RunError)]
        if failed:
            found[place] = failed[0]
        else:
            choices[place] = _choose(cast("list[Trail]", own), divided)
    found |= _refitted(features, {i: configs[i] for i in choices}, choices)
    for place, choice in choices.items():
        one = found[place]
        if isinstance(one, Fitted):
            held = _held(
                cast("list[Trail]", trails[place]), divided, choice.numbers, features, repeats
            )
            best = held_epoch(one.best, features, held)
            history = (*one.history[:-1], best)
            found[place] = replace(one, held=held, best=best, history=history)
    return [found[place] for place in range(len(configs))]


def held_epoch(epoch: Epoch, features: Features, held: Said) -> Epoch:
    """Return an epoch whose validation figures are those of the images out of fold.

    Args:
        epoch: Of the head that was fitted on all of them.
        features: As for `fit_inner`.
        held: What was said of the training rows, out of fold.
    """
    labels = features.labels.numpy()[features.rows("train").numpy()]
    return replace(epoch, val_loss=log_loss(labels, held), val_auc=auc(labels, held))


def _folds(features: Features, folds: int, repeats: int) -> Iterator[_Fold]:
    rows = features.rows("train").numpy()
    labels = features.labels.numpy()[rows]
    groups = [features.groups[row] for row in rows.tolist()]
    for repeat in range(repeats):
        for rest, held in divisions(labels, groups, folds, repeat):
            splits = np.full(len(features.ids), UNUSED, dtype=object)
            splits[rows[rest]], splits[rows[held]] = "train", "val"
            yield _Fold(replace(features, splits=tuple(splits.tolist())), np.sort(held))


def _trails(features: Features, configs: Sequence[TrainConfig]) -> list[Trail | RunError]:
    """Return what every number would have said of the held images, for each config."""
    if head_class(configs[0].head).fitting == "solution":
        return [solve(features, config).trail for config in configs]
    whole = [replace(config, patience=0) for config in configs]
    loop = Loop(MemberTrainer(features, whole), trail=True)
    loop.run()
    return [one if isinstance(one, RunError) else one.trail for one in loop.results()]


def _choose(trails: Sequence[Trail], folds: Sequence[_Fold]) -> _Choice:
    """For everything that is chosen the number with the best mean AUC, then loss; the first of equals."""
    numbers: dict[str, float] = {}
    ranks: dict[str, dict[float, tuple[float, float]]] = {}
    for what in trails[0]:
        own = ranks[what] = {}
        for number in trails[0][what]:
            if all(number in trail[what] for trail in trails):
                each = [
                    _rank(trail[what][number], fold, what)
                    for trail, fold in zip(trails, folds, strict=True)
                ]
                first, second = np.mean(each, axis=0).tolist()
                own[number] = (first, second)
        numbers[what] = max(own, key=own.__getitem__)
    return _Choice(numbers, ranks)


def _rank(said: Said, fold: _Fold, what: str) -> tuple[float, float]:
    """Greater is better; of a task alone where it is chosen for that task."""
    tasks = list(fold.features.tasks)
    columns = [tasks.index(what)] if what in tasks else list(range(len(tasks)))
    labels, own = fold.labels[:, columns], {tasks[i]: said[tasks[i]] for i in columns}
    found = auc(labels, own)
    return -1.0 if found is None else found, -log_loss(labels, own)


def _held(
    trails: Sequence[Trail],
    folds: Sequence[_Fold],
    chosen: Mapping[str, float],
    features: Features,
    repeats: int,
) -> dict[str, Float[np.ndarray, "image _class"]]:
    """Return the mean over repeats of what was said of each image by heads that had not seen it."""
    images = len(features.rows("train"))
    found = {task: np.zeros((images, len(names))) for task, names in features.tasks.items()}
    for trail, fold in zip(trails, folds, strict=True):
        for task, total in found.items():
            what = task if task in trail else EPOCH
            total[fold.held] += trail[what][chosen[what]][task] / repeats
    return {task: total.astype(np.float32) for task, total in found.items()}


def _refitted(
    features: Features, configs: Mapping[int, TrainConfig], choices: Mapping[int, _Choice]
) -> dict[int, Fitted | RunError]:
    """Fit on all images, with the numbers that were chosen."""
    if not configs:
        return {}
    first = next(iter(configs.values()))
    if head_class(first.head).fitting == "solution":
        return {
            place: solve_with(features, config, choices[place].numbers)
            for place, config in configs.items()
        }
    places = list(configs)
    trainer = MemberTrainer(features, [configs[place] for place in places])
    left = list(range(len(places)))
    history: list[list[Epoch]] = [[] for _ in places]
    found: dict[int, Fitted | RunError] = {}
    number = 0
    while left:
        number += 1
        losses, rates = trainer.training_pass(number)
        for i, at in enumerate(left):
            place, config = places[at], configs[places[at]]
            mean_auc, log_likelihood = choices[place].ranks[EPOCH][number]
            history[at].append(Epoch(number, rates[i], losses[i], -log_likelihood, mean_auc))
            if not math.isfinite(losses[i]):
                found[place] = diverged(config, ("learning_rate",), number, losses[i], None)
            elif number == int(choices[place].numbers[EPOCH]):
                head = trainer.head(at, trainer.weights(i))
                epochs = tuple(history[at])
                found[place] = Fitted(head, epochs[-1], epochs, 1, {})
        going = [i for i, at in enumerate(left) if places[at] not in found]
        if 0 < len(going) < len(left):
            trainer.keep(going)
        left = [left[i] for i in going]
    return found
