"""The scikit-learn face of stage two: one estimator on arrays of feature maps.

    from sklearn.model_selection import cross_val_score
    cross_val_score(SLCAClassifier(window=4), maps, labels, scoring="roc_auc")

`maps` is (image, channel, row, col), as `FeatureStore.read(level)[:, 0]` gives it; a plain table
(image, channel) is a map of one cell. A fifth of what `fit` is given chooses the epoch. 546 maps of
256 x 4 x 4 and 60 epochs take 2.3 s on one CPU core.
"""

import math
from dataclasses import fields
from numbers import Integral
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, check_random_state, validate_data

from samcls.config import TrainConfig, parse
from samcls.learn.features import Features, Standardiser
from samcls.learn.loop import fit, shape_of
from samcls.learn.model import Model
from samcls.learn.slca import pool, to_tokens

__all__ = ["SLCAClassifier"]

LEVEL, TASK = "maps", "class"


class SLCAClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc] # scikit-learn is untyped
    """A head of stage two on one level of feature maps.

    Args:
        head: Any name of `samcls.learn.heads.HEADS`.
        window: Side of SLCA's window, in cells of the maps given; 1 uses every cell.
        reduction: SLCA's bottleneck: channels / reduction hidden channels.
        gate: `multiply` or `residual`.
        hidden: Width of the hidden layer after pooling; 0 means a linear classifier.
        dropout: Share of pooled features dropped in training.
        epochs: Most passes over the training images.
        patience: Epochs without a better validation AUC before training stops; 0 means never.
        batch_size: Images a step.
        learning_rate: AdamW's peak rate.
        weight_decay: AdamW's decoupled decay.
        loss: `cross_entropy` or `focal`.
        label_smoothing: Share of each label that is spread over all classes.
        class_weights: `none` or `balanced`.
        validation_fraction: Share of the images given to `fit` that choose the epoch.
        random_state: Seed; None draws one from numpy's global stream.

    Attributes:
        classes_: Labels, sorted.
        n_features_in_: Number of channels.
        model_: Standardiser and head.
        n_iter_: Epochs that ran.
        best_validation_auc_: Of the epoch chosen; None where validation has one class only.
    """

    def __init__(
        self,
        head: str = "slca",
        *,
        window: int = 1,
        reduction: int = 16,
        gate: str = "multiply",
        hidden: int = 0,
        dropout: float = 0.2,
        epochs: int = 60,
        patience: int = 20,
        batch_size: int = 64,
        learning_rate: float = 5e-3,
        weight_decay: float = 0.1,
        loss: str = "cross_entropy",
        label_smoothing: float = 0.0,
        class_weights: str = "none",
        validation_fraction: float = 0.2,
        random_state: Any = 0,
    ) -> None:
        self.head = head
        self.window = window
        self.reduction = reduction
        self.gate = gate
        self.hidden = hidden
        self.dropout = dropout
        self.epochs = epochs
        self.patience = patience
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.loss = loss
        self.label_smoothing = label_smoothing
        self.class_weights = class_weights
        self.validation_fraction = validation_fraction
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> "SLCAClassifier":
        """Train on maps and labels.

        Args:
            X: Maps, "image channel row col", or a table, "image channel".
            y: A label for each image, of any type.

        Raises:
            ValueError: where X or y cannot be used.
            ConfigError: where a parameter is out of its range.
        """
        X, y = validate_data(self, X, y, dtype=np.float32, allow_nd=True)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"y has one class only, {self.classes_[0]!r}; a classifier needs at least two"
            )
        config = self._config()
        features = self._features(X, labels, self._splits(labels, config.seed))
        standardiser = Standardiser.fit(features, features.rows("train"))
        fitted = fit(features.standardised(standardiser), config)
        self.model_ = Model(config, shape_of(features), features.tasks, standardiser, fitted.head)
        self.n_iter_ = len(fitted.history)
        self.best_validation_auc_ = fitted.best.val_auc
        return self

    def predict_proba(self, X: Any) -> Float[np.ndarray, "image class"]:
        """Probabilities of `classes_`, in [0, 1]; each row sums to 1.

        Args:
            X: Maps or a table, of as many channels and cells as in training.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float32, allow_nd=True, reset=False)
        features = self._features(X, np.zeros(len(X), np.int64), ["test"] * len(X))
        expected = self.model_.shape.grids
        if features.grids != expected:
            raise ValueError(
                f"X has maps of {features.grids[LEVEL]} windows; the classifier was trained on "
                f"{expected[LEVEL]}"
            )
        probabilities = self.model_.probabilities(features.tokens, features.counts)[TASK]
        doubled = probabilities.astype(np.float64)
        shares: np.ndarray = doubled / doubled.sum(1, keepdims=True)
        return shares

    def predict(self, X: Any) -> np.ndarray:
        """The most probable label of each image.

        Args:
            X: Maps or a table, of as many channels and cells as in training.
        """
        probabilities = self.predict_proba(X)
        answers: np.ndarray = self.classes_[probabilities.argmax(1)]
        return answers

    def _config(self) -> TrainConfig:
        """The parameters as a checked config, numpy's numbers being as good as Python's."""
        known = {field.name for field in fields(TrainConfig)}
        given = {
            name: value.item() if isinstance(value, np.generic) else value
            for name, value in self.get_params(deep=False).items()
            if name in known
        }
        seed = self.random_state
        if not isinstance(seed, Integral):
            seed = check_random_state(seed).randint(2**31)
        return parse(TrainConfig, {**given, "seed": int(seed)}, type(self).__name__)

    def _splits(self, labels: np.ndarray, seed: int) -> list[str]:
        """A stratified validation part; where images are too few for one, all of them twice over."""
        images, classes = len(labels), len(self.classes_)
        held = math.ceil(self.validation_fraction * images)
        counts = np.bincount(labels)
        if counts.min() < 2 or held < classes or images - held < classes:
            return ["both"] * images
        splitter = StratifiedShuffleSplit(1, test_size=held, random_state=seed % 2**32)
        _, val = next(splitter.split(labels, labels))
        chosen = set(val.tolist())
        return ["val" if i in chosen else "train" for i in range(images)]

    def _features(self, X: np.ndarray, labels: np.ndarray, splits: list[str]) -> Features:
        """Features as stage two knows them, pooled over the window."""
        if X.ndim == 2:
            X = X[:, :, None, None]
        if X.ndim != 4:
            raise ValueError(f"X has {X.ndim} axes; expected image, channel, row, col")
        maps = torch.from_numpy(np.ascontiguousarray(X))
        pooled, counts = pool(maps, torch.ones(len(X), *X.shape[2:]), int(self.window))
        tokens, counted = to_tokens(pooled), counts.flatten(1)
        grid = (pooled.shape[2], pooled.shape[3])
        if splits and splits[0] == "both":
            tokens, counted = tokens.repeat(2, 1, 1), counted.repeat(2, 1)
            labels = np.tile(labels, 2)
            splits = ["train"] * len(X) + ["val"] * len(X)
        return Features(
            tokens={LEVEL: tokens},
            counts={LEVEL: counted},
            labels=torch.from_numpy(labels.astype(np.int64))[:, None],
            ids=tuple(str(i) for i in range(len(tokens))),
            splits=tuple(splits),
            groups=("",) * len(tokens),
            tasks={TASK: tuple(str(one) for one in self.classes_)},
            window=int(self.window),
            grids={LEVEL: grid},
            views=1,
            fingerprint={},
            failed=0,
        )
