"""The scikit-learn face of stage two: one estimator on arrays of feature maps, or a store's rows.

    from sklearn.model_selection import cross_val_score
    cross_val_score(SLCAClassifier(window=4), maps, labels, scoring="roc_auc")

`maps` is (image, channel, row, col), as `FeatureStore.read(level)[:, 0]` gives it; a plain table
(image, channel) is a map of one cell. Several levels are a `LevelArrays`, which folds can cut. With a
store, X is row numbers of it, and its features are loaded once a process:

    rows = numpy.flatnonzero(store.status == 1)
    model = SLCAClassifier(store="features.zarr", levels=("neck", "late"))
    GridSearchCV(model, {"gate": ["multiply", "residual"]}).fit(rows[:, None], store.labels[rows, 0])

Batch and rate differ from `TrainConfig`'s: a few hundred images of two channels need twice the
steps at twice the rate. A fifth of what `fit` is given chooses the epoch.
"""

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, check_random_state, check_X_y, validate_data

from samcls.config import parse
from samcls.errors import ConfigError, ParameterError, StoreError
from samcls.learn.features.arrays import LevelArrays, features_of
from samcls.learn.features.folds import hold_out
from samcls.learn.features.rows import pick, pick_rows, row_numbers
from samcls.learn.features.tensors import ChannelScaler, Features, selection_problems
from samcls.learn.fit.fit import fit
from samcls.learn.fit.prediction import Model, shape_of
from samcls.learn.heads.registry import head_class, known_heads, unknown_head
from samcls.learn.settings import TrainConfig
from samcls.store.feature_store import FeatureStore

__all__ = ["LevelArrays", "SLCAClassifier"]

LEVEL, TASK = "X", "class"


class SLCAClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc] # scikit-learn is untyped
    """A head of stage two on one or several levels of feature maps, or on the levels of a store.

    Args:
        head: Any name of `samcls.learn.heads.registry.HEADS`; networks of timm's see images, which X is not.
        store: Path or URL of a feature store; X is then row numbers of it. None means that X is
            maps.
        levels: Levels, of the store or of `LevelArrays`, that the head sees; empty means all of
            them.
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
        n_features_in_: Number of channels, of all levels together; with a store 1, the row number.
        fingerprint_: What made the store's features; empty for maps.
        model_: ChannelScaler and head.
        n_iter_: Epochs that ran.
        best_validation_auc_: Of the epoch chosen; None where validation has one class only.
    """

    # Any value is taken until `fit`, which names all that are wrong at once, as scikit-learn asks.
    def __init__(
        self,
        head: Any = "slca",
        *,
        store: Any = None,
        levels: Any = (),
        window: Any = None,
        reduction: Any = 16,
        gate: Any = "multiply",
        hidden: Any = 0,
        dropout: Any = 0.2,
        epochs: Any = 60,
        patience: Any = 20,
        batch_size: Any = 32,
        learning_rate: Any = 1e-2,
        weight_decay: Any = 0.1,
        loss: Any = "cross_entropy",
        label_smoothing: Any = 0.0,
        class_weights: Any = "none",
        validation_fraction: Any = 0.2,
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
            X: Maps, "image channel row col", or a table, "image channel"; `LevelArrays`, or a
                dictionary of such arrays by level; with a store row numbers, "image" or "image 1".
            y: A label for each image, of any type.

        Raises:
            ValueError: where X or y cannot be used; as `ParameterError`, naming every parameter that
                is out of its range, or names what the store or X does not have.
        """
        config = self._config(X)
        if self.store is not None:
            X, y = check_X_y(row_numbers(X)[:, None], y, dtype=np.int64)
            self.n_features_in_ = 1
        elif _by_level(X):
            X = _levels(X)
            _, y = check_X_y(np.arange(len(X))[:, None], y)
        else:
            X, y = validate_data(self, X, y, dtype=np.float32, allow_nd=True)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"y has one class only, {self.classes_[0]!r}; a classifier needs at least two"
            )
        found = self._read(X)
        if self.store is None:
            self.n_features_in_ = sum(found.channels.values())
        features = self._labelled(found, labels, config.seed)
        scaler = ChannelScaler.fit(features, features.rows("train"))
        fitted = fit(features.standardised(scaler), config)
        self.fingerprint_ = dict(features.fingerprint)
        self.model_ = Model(config, shape_of(features), features.tasks, scaler, fitted.head)
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
        if self.store is not None:
            X = row_numbers(X)[:, None]
        elif _by_level(X):
            X = _levels(X)
        elif LEVEL not in self.model_.shape.grids:
            expected = ", ".join(self.model_.shape.grids)
            raise ValueError(f"X is one array; the classifier was trained on the levels {expected}")
        else:
            X = validate_data(self, X, dtype=np.float32, allow_nd=True, reset=False)
        features = self._read(X)
        if features.fingerprint != self.fingerprint_:
            raise ValueError(
                "these features were made with other settings than those of training; fit again, or "
                "extract them with the same encoder, weights, window and views"
            )
        shape = self.model_.shape
        if features.channels != shape.channels or features.grids != shape.grids:
            raise ValueError(
                f"X has {_described(features.channels, features.grids)}; the classifier was trained "
                f"on {_described(shape.channels, shape.grids)}"
            )
        given = features.tokens, features.counts, features.views
        probabilities = self.model_.probabilities(*given)[TASK]
        doubled = probabilities.astype(np.float64)
        shares: np.ndarray = doubled / doubled.sum(1, keepdims=True)
        return shares

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable label of each image.

        Args:
            X: As for `predict_proba`.
        """
        probabilities = self.predict_proba(X)
        answers: np.ndarray = self.classes_[probabilities.argmax(1)]
        return answers

    def _config(self, X: Any) -> TrainConfig:
        """Return the parameters as a checked config, numpy's numbers being as good as Python's."""
        known = {field.name for field in fields(TrainConfig)}
        given = {
            name: value.tolist() if isinstance(value, np.generic | np.ndarray) else value
            for name, value in self.get_params(deep=False).items()
            if name in known
        }
        problems = self._own_problems(X)
        seed = self.random_state
        if not isinstance(seed, int | np.integer) or isinstance(seed, bool):
            seed = check_random_state(seed).randint(2**31)
        elif not 0 <= seed < 2**63:
            problems.append(f"random_state: got {seed}, expected at least 0 and below 2**63")
            seed = 0
        try:
            config = parse(TrainConfig, {**given, "seed": int(seed)}, type(self).__name__)
        except ConfigError as error:
            problems += [line.strip() for line in str(error).splitlines()[1:]]
        if problems:
            raise ParameterError(
                f"{type(self).__name__}: parameters that cannot be used\n  " + "\n  ".join(problems)
            )
        return config

    def _own_problems(self, X: Any) -> list[str]:
        """Return a sentence for each parameter of the estimator's own that cannot be used with X."""
        problems = []
        unknown = unknown_head(self.head) if isinstance(self.head, str) else []
        if (
            isinstance(self.head, str)
            and not unknown
            and head_class(self.head).fitting == "network"
        ):
            problems.append(
                f"head: got {self.head!r}, a network that looks at images, which X does not hold; "
                "train it with samcls train"
            )
        elif unknown:
            problems.append(f"head: got {self.head!r}, expected one of {known_heads()}")
        share = self.validation_fraction
        known = isinstance(share, float | np.floating)  # no whole number lies between
        if not known or not 0 < share < 1:
            problems.append(
                f"validation_fraction: got {share!r}, expected a number between 0 and 1"
            )
        if not isinstance(self.levels, list | tuple | np.ndarray):
            return problems  # to which the config adds this
        levels = [str(level) for level in self.levels]
        if self.store is not None:
            return problems + self._store_problems(levels)
        if _by_level(X):
            held = X.arrays if isinstance(X, LevelArrays) else X
            problems += [
                f"levels: got {level!r}, expected of {', '.join(held)}, which X holds"
                for level in levels
                if level not in held
            ]
        elif levels:
            problems.append(
                f"levels: got {tuple(levels)!r} for X that is one array; expected (), or a store, or "
                "X as LevelArrays"
            )
        return problems

    def _store_problems(self, levels: list[str]) -> list[str]:
        if not isinstance(self.store, str | Path):
            return [f"store: got {self.store!r}, expected a path or a URL"]
        try:
            store = FeatureStore.open(str(self.store))
        except StoreError as error:
            return [f"store: got {str(self.store)!r}, expected a feature store; {error}"]
        whole = isinstance(self.window, int | np.integer) and self.window >= 1
        return selection_problems(store, levels, self.window if whole else None)

    def _read(self, X: Any) -> Features:
        """Features as stage two knows them; labels and splits are not those of `fit`."""
        window = None if self.window is None else int(self.window)
        if self.store is not None:
            return pick_rows(str(self.store), tuple(self.levels), window, X)
        if not isinstance(X, LevelArrays):
            return features_of({LEVEL: X}, window)
        missing = [level for level in self.levels if level not in X.arrays]
        if missing:
            raise ValueError(f"X lacks {', '.join(missing)}; it holds {', '.join(X.arrays)}")
        chosen = self.levels or X.arrays
        return features_of({level: X.arrays[level] for level in chosen}, window)

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


def _by_level(X: Any) -> bool:
    """Whether X is of several levels; some of SciPy's sparse arrays are dictionaries too."""
    return isinstance(X, LevelArrays | Mapping) and not issparse(X)


def _levels(X: LevelArrays | Mapping[str, Any]) -> LevelArrays:
    return X if isinstance(X, LevelArrays) else LevelArrays(X)


def _described(channels: Mapping[str, int], grids: Mapping[str, tuple[int, int]]) -> str:
    parts = [
        f"{'' if level == LEVEL else f'{level} of '}{channels[level]} channels and {grid} windows"
        for level, grid in grids.items()
    ]
    return ", ".join(parts)
