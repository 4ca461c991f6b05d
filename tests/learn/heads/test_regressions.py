"""Regressions on what SLCA sees: scikit-learn's own, on features written out by hand."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression

from samcls.learn.features.tensors import Features, load_features
from samcls.learn.fit.prediction import predict_logits, to_probabilities
from samcls.learn.fit.solve import solve
from samcls.learn.heads import windows
from samcls.learn.heads.closed import GRID
from samcls.learn.heads.windows import COMPONENT_GRID
from samcls.learn.settings import TrainConfig
from samcls.pooling import pool, to_map, to_tokens
from samcls.store.feature_store import FeatureStore

MakeStore = Callable[..., FeatureStore]


@pytest.fixture
def features(make_store: MakeStore) -> Features:
    """Two hundred images, a third of whose windows show no picture."""
    return load_features(make_store(200, strength=2.0, valid=np.full((200, 2), (128, 90))))


def solved(features: Features, head: str) -> tuple[np.ndarray, float]:
    fitted = solve(features, TrainConfig(head=head))
    said = to_probabilities(predict_logits(fitted.head, features), features.tasks)
    return said["malignancy"], fitted.chosen["malignancy"]


def split(features: Features, name: str) -> np.ndarray:
    return features.rows(name).numpy()


def standardised(features: Features, values: np.ndarray) -> np.ndarray:
    train = values[split(features, "train")]
    std = train.std(0)
    found: np.ndarray = (values - train.mean(0)) / np.where(std > 0, std, 1)
    return found


def test_statistics_are_mean_maximum_and_deviation_over_valid_windows(features: Features) -> None:
    """Windows of padding take no part, and a window at the edge weighs as much as it shows."""
    parts: list[list[np.ndarray]] = [[], [], []]
    for level, tokens in features.tokens.items():
        rows = []
        for values, cells in zip(tokens.numpy(), features.counts[level].numpy(), strict=True):
            mean = np.average(values, axis=0, weights=cells)
            spread = np.sqrt(np.average((values - mean) ** 2, axis=0, weights=cells))
            rows.append((mean, values[cells > 0].max(0), spread))
        for part, found in zip(parts, zip(*rows, strict=True), strict=True):
            part.append(np.stack(found))
    assert any((cells == 0).any() for cells in features.counts.values())
    x = standardised(features, np.concatenate([one for part in parts for one in part], 1))
    said, chosen = solved(features, "logistic-statistics")
    assert chosen in GRID
    model = LogisticRegression(C=chosen, tol=1e-8, max_iter=5000)
    rows, y = split(features, "train"), features.labels[:, 0].numpy()
    model.fit(x[rows], y[rows])
    np.testing.assert_allclose(said, model.predict_proba(x), atol=2e-3)


def test_all_windows_are_solved_on_their_principal_components(features: Features) -> None:
    """As scikit-learn's PCA gives them, the first one scaled to a deviation of 1."""
    parts = []
    for level, tokens in features.tokens.items():
        cells = features.counts[level].numpy()
        shown = cells / cells.max(1, keepdims=True)
        parts.append((tokens.numpy() * shown[..., None]).reshape(len(cells), -1))
    x = standardised(features, np.concatenate(parts, 1).astype(np.float64))
    rows, y = split(features, "train"), features.labels[:, 0].numpy()
    pca = PCA().fit(x[rows])
    kept = pca.explained_variance_ > 1e-10 * pca.explained_variance_[0]
    components = pca.transform(x)[:, kept]
    components /= components[rows, 0].std()
    said, chosen = solved(features, "logistic-windows")
    assert chosen in COMPONENT_GRID
    model = LogisticRegression(C=chosen, tol=1e-8, max_iter=5000)
    model.fit(components[rows], y[rows])
    np.testing.assert_allclose(said, model.predict_proba(components), atol=2e-3)


def test_padding_may_hold_anything(features: Features) -> None:
    """What lies under a window without picture changes no answer."""
    before = {
        head: solved(features, head)[0] for head in ("logistic-statistics", "logistic-windows")
    }
    for level, tokens in features.tokens.items():
        tokens[features.counts[level] == 0] = 1e3
    for head, said in before.items():
        np.testing.assert_array_equal(solved(features, head)[0], said)


def test_windows_are_read_some_at_a_time(
    features: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of a few images, the last one smaller, give what one block gives."""
    whole, chosen = solved(features, "logistic-windows")
    monkeypatch.setattr(windows, "BLOCK_VALUES", 7 * 18 * 12)
    parts, again = solved(features, "logistic-windows")
    assert chosen == again
    np.testing.assert_allclose(parts, whole, atol=1e-5)


def test_large_maps_are_averaged_first(features: Features, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over windows of windows, each weighing as many cells as it shows."""
    grids = features.grids
    values = sum(features.channels[k] * rows * cols for k, (rows, cols) in grids.items())
    monkeypatch.setattr(windows, "MOST_VALUES", values - 1)
    found, _ = solved(features, "logistic-windows")
    tokens, counts, coarse = {}, {}, {}
    for level, (rows, _) in grids.items():
        cells = to_map(features.counts[level][:, :, None], rows)[:, 0]
        pooled, count = pool(to_map(features.tokens[level], rows), cells, 2)
        tokens[level], counts[level] = to_tokens(pooled), count.flatten(1)
        coarse[level] = (pooled.shape[2], pooled.shape[3])
    pooled_features = replace(features, tokens=tokens, counts=counts, grids=coarse)
    expected, _ = solved(pooled_features, "logistic-windows")
    np.testing.assert_allclose(found, expected, atol=1e-6)
