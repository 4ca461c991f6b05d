"""What a head must beat: controls on the same features, scored by the same tables.

The majority class and logistic regression stand beside every run. On request come the plainest
heads with the run's own settings, and SLCA on features that were shuffled between images, which must
find nothing: where it does, something leaks. On 546 images and 1,280 features the regression takes
0.1 s on one CPU core; each head as long as the run itself.

    for name, answer in baselines(features, config, every=True):
        answer.probabilities, answer.chosen
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float

from samcls.learn.features.tensors import Features
from samcls.learn.fit.fit import fit
from samcls.learn.fit.prediction import predict_logits, to_probabilities
from samcls.learn.heads import HEADS
from samcls.learn.score.scoring import majority_class
from samcls.learn.settings import TrainConfig, Upsampling

__all__ = ["Answer", "baselines", "majority_answer", "majority_classes", "shuffled"]

CONTROLS = ("linear", "se")

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
    features: Features, config: TrainConfig, every: bool = False
) -> Iterator[tuple[str, Answer]]:
    """The majority class and logistic regression; with `every`, all other controls too.

    Args:
        features: Standardised features.
        config: The run that they stand beside, whose settings they share.
        every: Whether to train `linear`, `se` and SLCA on shuffled features too.

    Yields:
        The baseline's name and what it says.
    """
    yield "majority", Answer(majority_answer(features, majority_classes(features)))
    yield "logistic", _fitted(features, features, _plain(config, "logistic"))
    if every:
        for name in CONTROLS:
            yield name, _fitted(features, features, _plain(config, name))
        changed = replace(config, head="slca", upsampling=_upsampling(config))
        yield "slca, shuffled", _fitted(shuffled(features, config.seed), features, changed)


def majority_classes(features: Features) -> dict[str, int]:
    """The training split's largest class of each task."""
    labels = features.labels[features.rows("train")].numpy()
    return {
        task: majority_class(labels[:, i], len(classes))
        for i, (task, classes) in enumerate(features.tasks.items())
    }


def majority_answer(features: Features, majority: Mapping[str, int]) -> Probabilities:
    """The probabilities of always answering the training split's largest class."""
    return {
        task: np.tile(np.eye(len(classes))[majority[task]], (len(features.ids), 1))
        for task, classes in features.tasks.items()
    }


def shuffled(features: Features, seed: int) -> Features:
    """The same features, but in training and validation every image has another one's labels."""
    labels = features.labels.clone()
    generator = torch.Generator().manual_seed(seed)
    for split in ("train", "val"):
        rows = features.rows(split)
        labels[rows] = labels[rows[torch.randperm(len(rows), generator=generator)]]
    return replace(features, labels=labels)


def _upsampling(config: TrainConfig) -> Upsampling:
    """A guided network's is from windows to stages; SLCA's own needs whole maps, which were not read."""
    return "nearest" if HEADS[config.head].sees_pixels else config.upsampling


def _plain(config: TrainConfig, head: str) -> TrainConfig:
    """The run's settings for a head that knows neither a hidden layer nor a cumulative link."""
    return replace(config, head=head, hidden=0, ordinal=())


def _fitted(given: Features, features: Features, config: TrainConfig) -> Answer:
    fitted = fit(given, config)
    logits = predict_logits(fitted.head, features)
    return Answer(to_probabilities(logits, features.tasks), fitted.tried, fitted.chosen)
