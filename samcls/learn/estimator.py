"""The scikit-learn face of stage two: one estimator on arrays of feature maps, or a store's rows.

    from sklearn.model_selection import cross_val_score
    cross_val_score(SLCAClassifier(window=4), maps, labels, scoring="roc_auc")

`maps` is (image, channel, row, col), as `FeatureStore.read(level)[:, 0]` gives it; a plain table
(image, channel) is a map of one cell. With a store, X is row numbers of it, and its features are
loaded once a process:

    rows = numpy.flatnonzero(store.status == 1)
    model = SLCAClassifier(store="features.zarr", levels=("neck", "late"))
    GridSearchCV(model, {"gate": ["multiply", "residual"]}).fit(rows[:, None], store.labels[rows, 0])

A fifth of what `fit` is given chooses the epoch. 546 maps of 256 x 4 x 4 and 60 epochs take 2.3 s on
one CPU core.
"""

import math
from dataclasses import fields, replace
from numbers import Integral
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, check_random_state, check_X_y, validate_data

from samcls.config import TrainConfig, parse
from samcls.learn.features import Features, Standardiser
from samcls.learn.loop import fit
from samcls.learn.model import Model, shape_of
from samcls.learn.rows import pick, pick_rows, row_numbers
from samcls.learn.slca import pool, to_tokens
from samcls.learn.targets import hold_out

__all__ = ["SLCAClassifier"]

LEVEL, TASK = "maps", "class"


class SLCAClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc] # scikit-learn is untyped
    """A head of stage two on one level of feature maps, or on the levels of a store.

    Args:
        head: Any name of `samcls.learn.heads.HEADS`.
        store: Path or URL of a feature store; X is then row numbers of it. None means that X is
            maps.
        levels: Levels of the store that the head sees; empty means all of them.
        window: Side of SLCA's window, in cells of the maps given, of which None uses every one; with
            a store in cells of the encoder's map, None being the store's window.
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
        validation_fraction: Share of the images given to `fit` that choose the epoch; a store's
            groups, and rows given several times, are not divided.
        random_state: Seed; None draws one from numpy's global stream.

    Attributes:
        classes_: Labels, sorted.
        n_features_in_: Number of channels; with a store 1, the row number.
        fingerprint_: What made the store's features; empty for maps.
        model_: Standardiser and head.
        n_iter_: Epochs that ran.
        best_validation_auc_: Of the epoch chosen; None where validation has one class only.
    """

    def __init__(
        self,
        head: str = "slca",
        *,
        store: Any = None,
        levels: tuple[str, ...] = (),
        window: int | None = None,
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
        self.store = store
        self.levels = levels
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
            X: Maps, "image channel row col", or a table, "image channel"; with a store row numbers,
                "image" or "image 1".
            y: A label for each image, of any type.

        Raises:
            ValueError: where X or y cannot be used.
            ConfigError: where a parameter is out of its range, or the store lacks a level or window.
        """
        if self.store is None:
            X, y = validate_data(self, X, y, dtype=np.float32, allow_nd=True)
        else:
            X, y = check_X_y(row_numbers(X)[:, None], y, dtype=np.int64)
            self.n_features_in_ = 1
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"y has one class only, {self.classes_[0]!r}; a classifier needs at least two"
            )
        config = self._config()
        features = self._labelled(self._read(X), labels, config.seed)
        standardiser = Standardiser.fit(features, features.rows("train"))
        fitted = fit(features.standardised(standardiser), config)
        self.fingerprint_ = dict(features.fingerprint)
        self.model_ = Model(config, shape_of(features), features.tasks, standardiser, fitted.head)
        self.n_iter_ = len(fitted.history)
        self.best_validation_auc_ = fitted.best.val_auc
        return self

    def predict_proba(self, X: Any) -> Float[np.ndarray, "image class"]:
        """Probabilities of `classes_`, in [0, 1]; each row sums to 1.

        Args:
            X: Maps or a table, of as many channels and cells as in training; with a store row
                numbers.
        """
        check_is_fitted(self)
        if self.store is None:
            X = validate_data(self, X, dtype=np.float32, allow_nd=True, reset=False)
        else:
            X = row_numbers(X)[:, None]
        features = self._read(X)
        if features.fingerprint != self.fingerprint_:
            raise ValueError(
                "these features were made with other settings than those of training; fit again, or "
                "extract them with the same encoder, weights, window and views"
            )
        expected = self.model_.shape.grids
        if features.grids != expected:
            raise ValueError(
                f"X has maps of {features.grids[LEVEL]} windows; the classifier was trained on "
                f"{expected[LEVEL]}"
            )
        given = features.tokens, features.counts, features.views
        probabilities = self.model_.probabilities(*given)[TASK]
        doubled = probabilities.astype(np.float64)
        shares: np.ndarray = doubled / doubled.sum(1, keepdims=True)
        return shares

    def predict(self, X: Any) -> np.ndarray:
        """The most probable label of each image.

        Args:
            X: As for `predict_proba`.
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

    def _read(self, X: np.ndarray) -> Features:
        """Features as stage two knows them; labels and splits are not those of `fit`."""
        if self.store is None:
            return _of_maps(X, int(self.window or 1))
        return pick_rows(str(self.store), self.levels, self.window, X)

    def _labelled(self, found: Features, labels: np.ndarray, seed: int) -> Features:
        """Features with labels and a validation part; if none can be, all images twice over."""
        held = self._held_out(found, labels, seed)
        if held is None:
            images = len(labels)
            found = pick(found, torch.arange(images).repeat(2))
            labels = np.tile(labels, 2)
            held = np.arange(2 * images) >= images
        return replace(
            found,
            labels=torch.from_numpy(labels.astype(np.int64))[:, None],
            splits=tuple("val" if one else "train" for one in held.tolist()),
            tasks={TASK: tuple(str(one) for one in self.classes_)},
        )

    def _held_out(self, found: Features, labels: np.ndarray, seed: int) -> np.ndarray | None:
        """Which images validate: stratified, a group of the store and a row that repeats as a whole."""
        images, classes = len(labels), len(self.classes_)
        size = math.ceil(self.validation_fraction * images)
        if np.bincount(labels).min() < 2 or size < classes or images - size < classes:
            return None
        names = np.array(
            [group or f"id {one}" for group, one in zip(found.groups, found.ids, strict=True)]
        )
        if len(np.unique(names)) < images:
            return hold_out(labels, names, self.validation_fraction, seed % 2**32)
        splitter = StratifiedShuffleSplit(1, test_size=size, random_state=seed % 2**32)
        _, val = next(splitter.split(labels, labels))
        return np.isin(np.arange(images), val)


def _of_maps(X: np.ndarray, window: int) -> Features:
    """Maps pooled over the window."""
    if X.ndim == 2:
        X = X[:, :, None, None]
    if X.ndim != 4:
        raise ValueError(f"X has {X.ndim} axes; expected image, channel, row, col")
    maps = torch.from_numpy(np.ascontiguousarray(X))
    pooled, counts = pool(maps, torch.ones(len(X), *X.shape[2:]), window)
    return Features(
        tokens={LEVEL: to_tokens(pooled)},
        counts={LEVEL: counts.flatten(1)},
        labels=torch.zeros(len(X), 1, dtype=torch.int64),
        ids=tuple(str(i) for i in range(len(X))),
        splits=("test",) * len(X),
        groups=("",) * len(X),
        tasks={},
        window=window,
        grids={LEVEL: (pooled.shape[2], pooled.shape[3])},
        views=1,
        fingerprint={},
        failed=0,
    )
