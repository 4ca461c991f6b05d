"""The estimator: what scikit-learn asks of one, and the same arithmetic as stage two."""

import pickle

import numpy as np
import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from samcls.errors import ConfigError
from samcls.learn.estimator import SLCAClassifier
from samcls.learn.heads import HEADS

# Whatever fails of scikit-learn's own checks stands here with its reason.
EXPECTED = {
    "check_do_not_raise_errors_in_init_or_set_params": (
        "the tests execute the types of __init__; outside them any value is taken until fit, which "
        "reports all that are wrong at once"
    ),
}


@parametrize_with_checks(
    [SLCAClassifier(epochs=30, learning_rate=0.02, batch_size=32)],
    expected_failed_checks=lambda _: EXPECTED,
)
def test_scikit_learns_own_checks(estimator: BaseEstimator, check: object) -> None:
    """Everything that scikit-learn expects of a classifier holds, apart from the list above."""
    check(estimator)  # type: ignore[operator]


def maps(images: int = 120, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Maps whose first channel is brighter in one corner for one class."""
    generator = np.random.default_rng(seed)
    labels = np.array(["benign", "malignant"])[generator.integers(0, 2, images)]
    x = generator.normal(size=(images, 6, 4, 4)).astype(np.float32)
    x[:, 0, :2, :2] += 5 * (labels == "malignant")[:, None, None]
    return x, labels


FAST = {"epochs": 15, "batch_size": 16, "window": 2, "reduction": 2, "learning_rate": 0.02}


@pytest.mark.parametrize("head", sorted(HEADS))
def test_every_head_learns_maps(head: str) -> None:
    """On separable maps each head ranks new images well, and answers with the labels given."""
    x, y = maps()
    new, truth = maps(seed=1)
    model = SLCAClassifier(head, **FAST).fit(x, y)
    assert roc_auc_score(truth == "malignant", model.predict_proba(new)[:, 1]) > 0.8
    assert set(model.predict(new)) == {"benign", "malignant"}
    assert model.score(new, truth) > 0.7


def test_clone_pickle_and_seed() -> None:
    """A clone fitted on the same data, and a pickled copy, give equal probabilities."""
    x, y = maps()
    first = SLCAClassifier(**FAST).fit(x, y)
    second = clone(first).fit(x, y)
    third = pickle.loads(pickle.dumps(first))  # noqa: S301 - the test's own bytes
    other = clone(first).set_params(random_state=1).fit(x, y)
    expected = first.predict_proba(x)
    assert np.array_equal(second.predict_proba(x), expected)
    assert np.array_equal(third.predict_proba(x), expected)
    assert not np.array_equal(other.predict_proba(x), expected)


def test_it_works_in_searches_and_pipelines() -> None:
    """Cross-validation, a grid search and a pipeline take it as any classifier."""
    x, y = maps()
    assert cross_val_score(SLCAClassifier(**FAST), x, y, cv=3, scoring="roc_auc").mean() > 0.8
    grid = {"window": np.array([1, 4]), "gate": ["multiply", "residual"]}
    search = GridSearchCV(SLCAClassifier(**FAST), grid, cv=2).fit(x, y)
    assert search.best_params_["window"] in (1, 4)
    pipeline = make_pipeline(FunctionTransformer(np.abs, validate=False), SLCAClassifier(**FAST))
    assert pipeline.fit(x, y).predict(x).shape == (120,)


def test_wrong_input_is_refused_in_words() -> None:
    """Axes, cells, NaN and parameters that cannot be used are named."""
    x, y = maps(20)
    with pytest.raises(ValueError, match="X has 3 axes; expected image, channel, row, col"):
        SLCAClassifier().fit(x[:, :, 0], y)
    model = SLCAClassifier(epochs=1).fit(x, y)
    with pytest.raises(ValueError, match="was trained on"):
        model.predict(x[:, :, :2])
    x[3, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        model.predict(x)
    with pytest.raises(ConfigError, match=r"dropout: got 1\.5, expected at least 0 and below 1"):
        SLCAClassifier(dropout=1.5).fit(*maps(20))
