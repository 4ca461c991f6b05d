"""The estimator: what scikit-learn asks of one, and the same arithmetic as stage two."""

import pickle
from collections.abc import Callable

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator, estimator_checks_generator

from samcls.errors import ConfigError, ParameterError
from samcls.learn.estimator import LevelArrays, SLCAClassifier
from samcls.learn.features.rows import _load, pick_rows
from samcls.learn.features.tensors import Features
from samcls.learn.fit.fit import fit
from samcls.learn.fit.schedule import Fitted
from samcls.learn.heads.registry import HEADS
from samcls.learn.settings import TrainConfig
from samcls.store.feature_store import FeatureStore
from samcls.store.schema import DONE, FAILED, PENDING

MakeStore = Callable[..., FeatureStore]

FAST = {"epochs": 15, "batch_size": 16, "window": 2, "reduction": 2, "learning_rate": 0.02}

# What takes seconds each with the defaults, and is among the slow tests.
QUICK = (
    "check_estimator_cloneable", "check_estimator_repr", "check_no_attributes_set_in_init",
    "check_parameters_default_constructible", "check_do_not_raise_errors_in_init_or_set_params",
    "check_estimators_unfitted", "check_fit1d", "check_n_features_in", "check_dont_overwrite_attributes",
    "check_estimator_sparse_array", "check_classifiers_one_label",
)  # fmt: skip


def named_of(check: object) -> str:
    return str(getattr(check, "func", check).__name__)


CHECKS = [(model, check) for model, check in estimator_checks_generator(SLCAClassifier())]


@pytest.mark.parametrize(
    "check", [check for _, check in CHECKS if named_of(check) in QUICK], ids=named_of
)
def test_the_defaults_pass_scikit_learns_quick_checks(check: object) -> None:
    """Those of its checks that fit little, with the default constructor."""
    check(SLCAClassifier())  # type: ignore[operator]


@pytest.mark.slow
def test_the_defaults_pass_all_of_scikit_learns_checks() -> None:
    """Everything that scikit-learn expects of a classifier holds, without an exception."""
    results = check_estimator(SLCAClassifier(), on_skip=None)
    skipped = {one["check_name"] for one in results if one["status"] == "skipped"}
    assert skipped <= {"check_array_api_input"}  # which needs a process started for it
    assert {one["status"] for one in results} <= {"passed", "skipped"}


def maps(images: int = 120, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Maps whose first channel is brighter in one corner for one class."""
    generator = np.random.default_rng(seed)
    labels = np.array(["benign", "malignant"])[generator.integers(0, 2, images)]
    x = generator.normal(size=(images, 6, 4, 4)).astype(np.float32)
    x[:, 0, :2, :2] += 5 * (labels == "malignant")[:, None, None]
    return x, labels


@pytest.mark.parametrize(
    "head", [*sorted(name for name in HEADS if name[-1] != ":"), "ensemble:slca"]
)
def test_every_head_learns_maps(head: str) -> None:
    """On separable maps each head ranks new images well, and answers with the labels given."""
    x, y = maps()
    new, truth = maps(seed=1)
    model = SLCAClassifier(head, **FAST).fit(x, y)
    assert roc_auc_score(truth == "malignant", model.predict_proba(new)[:, 1]) > 0.8
    assert set(model.predict(new)) == {"benign", "malignant"}
    assert model.score(new, truth) > 0.65


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


def test_parameters_that_cannot_be_used_are_all_named_at_fit(make_store: MakeStore) -> None:
    """A ValueError with parameter, value and what was expected, before anything is read or trained."""
    x, y = maps(20)
    store = make_store(40).path
    cases = {
        "head: got 'slac', expected one of slca, linear": {"head": "slac"},
        "head: got 3, expected a text": {"head": 3},
        "head: got 'guided:resnet18', a network that looks at images": {"head": "guided:resnet18"},
        r"validation_fraction: got 0\.0, expected a number between 0 and 1": {
            "validation_fraction": 0.0
        },
        r"validation_fraction: got 1, expected a number between": {"validation_fraction": 1},
        r"validation_fraction: got nan, expected a number between": {"validation_fraction": np.nan},
        "validation_fraction: got '0.2', expected": {"validation_fraction": "0.2"},
        r"dropout: got 1\.5, expected at least 0 and below 1": {"dropout": 1.5},
        r"label_smoothing: got -0\.1, expected at least 0": {"label_smoothing": -0.1},
        "epochs: got -1, expected at least 1": {"epochs": -1},
        r"epochs: got 2\.5, expected a whole number": {"epochs": 2.5},
        'gate: got "open", expected "multiply" or "residual"': {"gate": "open"},
        'loss: got "mse", expected "cross_entropy" or "focal"': {"loss": "mse"},
        "window: got 0, expected at least 1": {"window": 0},
        "random_state: got -1, expected at least 0": {"random_state": -1},
        r"levels: got \('neck',\) for X that is one array; expected": {"levels": ("neck",)},
        'levels: got "neck", expected a list': {"levels": "neck"},
        "levels: got null, expected a list": {"levels": None},
        "store: got 5, expected a path": {"store": 5},
        "store: got '/no/such.zarr', expected a feature store": {"store": "/no/such.zarr"},
        "unknown level nek; the store has block:1, neck": {"store": store, "levels": ("nek",)},
    }
    for words, given in cases.items():
        with pytest.raises(ParameterError, match=words) as caught:
            SLCAClassifier(**given).fit(x, y)
        assert isinstance(caught.value, ValueError)
    with pytest.raises(
        ValueError, match=r"(?s)head: got 'x'.*levels: got.*epochs: got 0.*gate: got"
    ):
        SLCAClassifier("x", levels=("a",), epochs=0, gate="open").fit(x, y)
    search = GridSearchCV(SLCAClassifier(**FAST), {"epochs": [-1]}, cv=2, error_score="raise")
    with pytest.raises(ValueError, match="epochs: got -1"):
        search.fit(x, y)


def both(images: int = 90, seed: int = 0) -> tuple[LevelArrays, np.ndarray]:
    """Two levels of other sizes, of which the second alone knows the label."""
    late, labels = maps(images, seed)
    early = np.random.default_rng(seed).normal(size=(images, 3, 8, 8)).astype(np.float32)
    return LevelArrays({"early": early, "late": late}), labels


def test_several_levels_as_arrays_go_through_folds_and_searches() -> None:
    """Folds cut all levels alike, a grid chooses among them, and a dictionary does for one fit."""
    X, y = both()
    model = SLCAClassifier(**FAST)
    assert cross_val_score(model, X, y, cv=2, scoring="roc_auc").mean() > 0.8
    grid = {"levels": [("early",), ("late",)]}
    search = GridSearchCV(model, grid, cv=2).fit(X, y)
    assert search.best_params_ == {"levels": ("late",)}
    whole = clone(model).fit(X, y)
    assert whole.n_features_in_ == 9
    expected = whole.predict_proba(X)
    assert np.array_equal(clone(model).fit(X.arrays, y).predict_proba(X.arrays), expected)
    copied = pickle.loads(pickle.dumps(X))  # noqa: S301 - the test's own bytes
    assert np.array_equal(clone(model).fit(copied, y).predict_proba(X), expected)
    alone = clone(model).set_params(levels=("late",)).fit(X, y).predict_proba(X)
    assert np.array_equal(
        alone, clone(model).fit(X.arrays["late"], y).predict_proba(X.arrays["late"])
    )


def test_several_levels_are_the_stores(make_store: MakeStore) -> None:
    """The levels of a store, read as arrays, train to the classifier that its row numbers give."""
    store = make_store(60, strength=6.0, groups=[""] * 60)
    rows = np.arange(60)
    X = LevelArrays({k: store.read(k)[:, 0].astype(np.float32) for k in store.levels})
    y = named(store, rows)
    by_row = SLCAClassifier(store=store.path, **ROWS).fit(rows, y).predict_proba(rows)
    np.testing.assert_allclose(SLCAClassifier(**ROWS).fit(X, y).predict_proba(X), by_row, rtol=1e-4)


def test_arrays_of_levels_that_do_not_fit_are_refused_in_words() -> None:
    """Numbers of images, levels that are not there, other cells, and NaN name their level."""
    X, y = both(20)
    with pytest.raises(
        ValueError, match="got arrays of early 20, late 19 images; expected a level"
    ):
        LevelArrays({**X.arrays, "late": X.arrays["late"][:19]})
    with pytest.raises(ValueError, match="got arrays of no images"):
        LevelArrays({})
    model = SLCAClassifier(epochs=1)
    with pytest.raises(
        ValueError, match="levels: got 'neck', expected of early, late, which X holds"
    ):
        clone(model).set_params(levels=("neck",)).fit(X, y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        model.fit(X, y[:19])
    model.fit(X, y)
    with pytest.raises(
        ValueError, match=r"X has late of 6 channels and \(4, 4\) windows; .* trained on early of 3"
    ):
        model.predict({"late": X.arrays["late"]})
    with pytest.raises(
        ValueError, match="X is one array; the classifier was trained on the levels early, late"
    ):
        model.predict(X.arrays["late"])
    odd = LevelArrays({**X.arrays, "late": np.where(X.arrays["late"] > 2, np.nan, 1.0)})
    with pytest.raises(ValueError, match="Input late contains NaN"):
        model.predict(odd)
    with pytest.raises(TypeError, match="no single array"):
        np.asarray(X)
    assert (X[3:7].shape, X[np.arange(20) < 5, ...].shape, X[4].shape) == ((4, 2), (5, 2), (1, 2))


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
