"""What a head must beat: controls on the same features, scored by the same tables.

The majority class and three logistic regressions stand beside every run, on means, on statistics of the
windows and on all windows, and the mean of the three; where columns of the manifest are part of it, the image
alone and the columns alone; beside an ensemble, one of its heads alone. On request come the plainest heads with the run's own
settings, and SLCA on features that were shuffled between images, which must find nothing: where it does,
something leaks.

    for name, answer in baselines(features, config, every=True):
        answer.probabilities, answer.chosen
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float

from samcls.learn.features.columns import without_level
from samcls.learn.features.meta import LEVEL
from samcls.learn.features.tensors import Features
from samcls.learn.fit.answers import answers
from samcls.learn.fit.fit import fit
from samcls.learn.fit.schedule import Fitted
from samcls.learn.heads.controls import (
    COLUMNS,
    IMAGE,
    columns_alone,
    plain_controls,
    references,
    slca_control,
)
from samcls.learn.heads.registry import head_class
from samcls.learn.score.scoring import majority_class
from samcls.learn.settings import TrainConfig

__all__ = ["Answer", "baselines", "majority_answer", "majority_classes", "shuffled"]

Probabilities = dict[str, Float[np.ndarray, "image _class"]]


@dataclass(frozen=True, eq=False)
class Answer:
    """What a baseline says of every image.

    Attributes:
        probabilities: By task, "image class".
        tried: Models between which validation chose.
        chosen: The number that it was solved with, by task.
    """

    probabilities: Probabilities
    tried: int = 0
    chosen: Mapping[str, float] = field(default_factory=dict)


def baselines(
    features: Features,
    config: TrainConfig,
    every: bool = False,
    known: Mapping[TrainConfig, Fitted] | None = None,
) -> Iterator[tuple[str, Answer]]:
    """Return the majority class, the regressions and their mean; with `every`, all other controls too.

    Args:
        features: Standardised features.
        config: The run that they stand beside, whose settings they share.
        every: Whether to train the plainest heads and SLCA on shuffled features too.
        known: What was fitted on these features before, and is not again.

    Yields:
        The baseline's name and what it says.
    """
    yield "majority", Answer(majority_answer(features, majority_classes(features)))
    there = dict(known or {})
    alone = [part for part in head_class(config.head).heads(config) if part != config][:1]
    for name, beside in [*references(config), *((part.head, part) for part in alone)]:
        tried = beside not in there
        there[beside] = fit(features, beside, known=there)
        answer = _answer(there[beside], features, beside)
        yield name, answer if tried else replace(answer, tried=0)
    if features.meta:
        yield from _apart(features, config)
    if every:
        for name, beside in plain_controls(config):
            yield name, _answer(fit(features, beside, known=there), features, beside)
        name, beside = slca_control(config)
        yield name, _answer(fit(shuffled(features, config.seed), beside), features, beside)


def _apart(features: Features, config: TrainConfig) -> Iterator[tuple[str, Answer]]:
    """Return the same head on the image without its columns, and a regression on these without the image."""
    image = without_level(features, LEVEL)
    yield IMAGE, _answer(fit(image, config), image, config)
    columns = without_level(features, *(level for level in features.tokens if level != LEVEL))
    beside = columns_alone(config)
    yield COLUMNS, _answer(fit(columns, beside), columns, beside)


def majority_classes(features: Features) -> dict[str, int]:
    """Return the training split's largest class of each task."""
    labels = features.labels[features.rows("train")].numpy()
    return {
        task: majority_class(labels[:, i], len(classes))
        for i, (task, classes) in enumerate(features.tasks.items())
    }


def majority_answer(features: Features, majority: Mapping[str, int]) -> Probabilities:
    """Return the probabilities of always answering the training split's largest class."""
    return {
        task: np.tile(np.eye(len(classes))[majority[task]], (len(features.ids), 1))
        for task, classes in features.tasks.items()
    }


def shuffled(features: Features, seed: int) -> Features:
    """Return the same features, but in training and validation every image has another one's labels."""
    labels = features.labels.clone()
    generator = torch.Generator().manual_seed(seed)
    for split in ("train", "val"):
        rows = features.rows(split)
        labels[rows] = labels[rows[torch.randperm(len(rows), generator=generator)]]
    return replace(features, labels=labels)


def _answer(fitted: Fitted, features: Features, config: TrainConfig) -> Answer:
    return Answer(answers(fitted, features, config), fitted.tried, fitted.chosen)
