"""The estimator: what scikit-learn asks of one, and the same arithmetic as stage two."""

import pickle
from collections.abc import Callable

import numpy as np
import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from samcls.config import TrainConfig
from samcls.errors import ConfigError
from samcls.learn.epochs import Fitted
from samcls.learn.estimator import SLCAClassifier
from samcls.learn.features import Features
from samcls.learn.heads import HEADS
from samcls.learn.loop import fit
from samcls.learn.rows import _load, pick_rows
from samcls.store.feature_store import FeatureStore
from samcls.store.schema import DONE, FAILED, PENDING

MakeStore = Callable[..., FeatureStore]

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


ROWS = {"epochs": 15, "batch_size": 16, "reduction": 2, "learning_rate": 0.02}


def named(store: FeatureStore, rows: np.ndarray) -> np.ndarray:
    """The store's labels of some rows, by name."""
    return np.array(store.tasks["malignancy"])[store.labels[rows, 0]]


def test_rows_of_a_store_are_its_maps(make_store: MakeStore) -> None:
    """On row numbers it gives what it gives on the maps of those rows, in any order and twice."""
    store = make_store(80, strength=6.0, groups=[""] * 80)
    rows = np.random.default_rng(0).permutation(80)[:60]
    by_row = SLCAClassifier(store=store.path, levels=("neck",), **ROWS)
    by_row.fit(rows, named(store, rows))
    maps = store.read("neck")[:, 0].astype(np.float32)
    by_map = SLCAClassifier(**ROWS).fit(maps[rows], named(store, rows))
    asked = np.array([5, 3, 5, 79])
    expected = by_map.predict_proba(maps[asked])
    np.testing.assert_allclose(by_row.predict_proba(asked), expected, rtol=1e-5)
    assert np.array_equal(by_row.predict_proba(asked), by_row.predict_proba(asked[:, None] + 0.0))
    assert by_row.n_features_in_ == 1
    assert by_row.fingerprint_ == store.fingerprint.to_dict()


def test_rows_go_through_searches_pipelines_and_pickle(make_store: MakeStore) -> None:
    """Folds, grids over levels and windows, a pipeline and a pickled copy work on row numbers."""
    store = make_store(90, strength=8.0)
    rows = np.arange(90)[:, None]
    y = named(store, rows[:, 0])
    model = SLCAClassifier(store=store.path, **ROWS)
    for given in (rows, rows[:, 0]):
        assert cross_val_score(model, given, y, cv=3, scoring="roc_auc").mean() > 0.8
    grid = {"slca__levels": [("neck",), ("block:1", "neck")], "slca__window": [None, 4]}
    search = GridSearchCV(Pipeline([("slca", model)]), grid, cv=2).fit(rows, y)
    assert search.score(rows, y) > 0.8
    content = pickle.dumps(search.best_estimator_)
    assert len(content) < 100_000
    again = pickle.loads(content)  # noqa: S301 - the test's own bytes
    assert np.array_equal(again.predict_proba(rows), search.best_estimator_.predict_proba(rows))


def test_the_part_that_chooses_the_epoch_divides_no_group(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a store's patients nor a row that is given several times stand on both sides."""
    seen: list[Features] = []

    def spy(features: Features, config: TrainConfig) -> Fitted:
        seen.append(features)
        return fit(features, config)

    monkeypatch.setattr("samcls.learn.estimator.fit", spy)
    patients = make_store(90, strength=6.0)
    alone = make_store(90, name="alone.zarr", groups=[""] * 90)
    drawn = np.random.default_rng(0).integers(0, 90, 90)
    for store, rows in ((patients, np.arange(90)), (alone, drawn)):
        model = SLCAClassifier(store=store.path, **{**ROWS, "epochs": 1})
        model.fit(rows, named(store, rows))
        names = [g or i for g, i in zip(seen[-1].groups, seen[-1].ids, strict=True)]
        sides = seen[-1].splits
        train = {n for n, side in zip(names, sides, strict=True) if side == "train"}
        assert not train & {n for n, side in zip(names, sides, strict=True) if side == "val"}
        assert 12 <= len(seen[-1].rows("val")) <= 24
    one = make_store(40, name="one.zarr", groups=["the same"] * 40)
    model = SLCAClassifier(store=one.path, **{**ROWS, "epochs": 1})
    model.fit(np.arange(40), named(one, np.arange(40)))
    assert len(seen[-1].rows("train")) == len(seen[-1].rows("val")) == 40


def test_a_store_is_read_once(make_store: MakeStore) -> None:
    """A search over folds reads the features once; a store that has changed is read again."""
    store = make_store(60, strength=6.0)
    _load.cache_clear()
    model = SLCAClassifier(store=store.path, **{**ROWS, "epochs": 2})
    cross_val_score(model, np.arange(60), named(store, np.arange(60)), cv=3)
    assert _load.cache_info().misses == 1
    status = np.full(60, DONE, dtype=np.uint8)
    status[7] = FAILED
    other = make_store(60, name="other.zarr", status=status)
    assert pick_rows(other.path, (), None, [6, 8]).ids == ("image-6", "image-8")
    assert _load.cache_info().misses == 2


def test_views_of_a_store_are_averaged(make_store: MakeStore) -> None:
    """A store with two views gives one answer for each row."""
    store = make_store(60, views=("identity", "hflip"), strength=6.0)
    rows = np.arange(60)
    model = SLCAClassifier(store=store.path, **ROWS).fit(rows, named(store, rows))
    assert model.predict_proba(rows).shape == (60, 2)
    assert model.score(rows, named(store, rows)) > 0.6


def test_rows_that_cannot_be_used_are_refused_in_words(make_store: MakeStore) -> None:
    """Numbers that are no rows, rows that were not encoded, and another store are named."""
    status = np.full(40, DONE, dtype=np.uint8)
    status[3], status[4] = FAILED, PENDING
    store = make_store(40, status=status)
    model = SLCAClassifier(store=store.path, epochs=1)
    y = np.arange(10) % 2
    cases = {
        "X names row 40; .* has 40 rows, counted from 0": np.arange(31, 41),
        "X names row -1; .* has 40 rows": np.arange(-1, 9),
        r"X names row 3 of .*, which failed \(truncated\)": np.array([0, 3] + [9] * 8),
        "X names row 4 of .*, which is pending; leave it out, or finish": np.array([4] * 10),
        "X holds 0.5; with a store, expected whole row numbers": np.arange(10) / 2,
        r"shape \(10, 2\); with a store, expected row numbers of shape": np.zeros((10, 2)),
        "array of <U1 with shape": np.array(["a"] * 10),
    }
    for words, rows in cases.items():
        with pytest.raises(ValueError, match=words):
            model.fit(rows, y)
    fitted = model.fit(np.arange(10, 20), y)
    with pytest.raises(ValueError, match="X names row 3"):
        fitted.predict([3])
    with pytest.raises(ConfigError, match="unknown level nek; the store has block:1, neck"):
        SLCAClassifier(store=store.path, levels=("nek",)).fit(np.arange(10, 20), y)
    with pytest.raises(ConfigError, match="window 3 is no multiple of 2"):
        SLCAClassifier(store=store.path, window=3).fit(np.arange(10, 20), y)
    other = make_store(40, name="other.zarr", encoder="vit_b")
    with pytest.raises(ValueError, match="were made with other settings than those of training"):
        fitted.set_params(store=other.path).predict([0])
