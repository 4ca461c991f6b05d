"""What a fitted head says of all images, and by which of them it was chosen.

said = answers(fitted, features, config)
judged(features, config).rows("val")              # the images that chose
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from samcls.learn.features.tensors import Features
from samcls.learn.fit.fit import steady_threads
from samcls.learn.fit.prediction import predict_logits, to_probabilities
from samcls.learn.fit.schedule import Fitted
from samcls.learn.settings import TrainConfig

__all__ = ["answers", "judged"]


def answers(
    fitted: Fitted, features: Features, config: TrainConfig
) -> dict[str, Float[np.ndarray, "image _class"]]:
    """Return each task's probabilities of every image; where inner folds chose, out of fold.

    Args:
        fitted: On these features.
        features: Standardised.
        config: How it was fitted.
    """
    with steady_threads(features, config):
        logits = predict_logits(fitted.head, features)
    said = to_probabilities(logits, features.tasks)
    if fitted.held is not None:
        rows = features.rows("train").numpy()
        for task, held in fitted.held.items():
            said[task][rows] = held
    return said


def judged(features: Features, config: TrainConfig) -> Features:
    """Return the features with the images that chose in split `val`: under inner folds all that were learned from.

    Args:
        features: Of a run.
        config: The run's.
    """
    if not config.inner:
        return features
    splits = ("val" if split == "train" else split for split in features.splits)
    return replace(features, splits=tuple(splits))
