"""Features: what the store holds, as tensors, standardised on the training split alone."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from samcls.errors import ConfigError, StoreError
from samcls.learn.features.targets import targets_of
from samcls.learn.features.tensors import ChannelScaler, load_features
from samcls.learn.settings import TrainConfig
from samcls.store.feature_store import FeatureStore
from samcls.store.schema import DONE, FAILED, PENDING, LevelShape

MakeStore = Callable[..., FeatureStore]


def test_tokens_are_the_stores_cells_row_by_row(make_store: MakeStore) -> None:
    """Token t is the pooled cell at row t // 4, column t % 4, float32, every value kept."""
    store = make_store(10)
    features = load_features(store)
    for level, shape in store.levels.items():
        maps = store.read(level)[:, 0].astype(np.float32)
        tokens = features.tokens[level]
        assert tokens.shape == (10, 16, shape.channels)
        assert tokens.dtype == torch.float32
        assert tokens.is_contiguous()
        np.testing.assert_array_equal(tokens[:, 6], maps[:, :, 1, 2])
        assert torch.equal(features.counts[level], torch.full((10, 16), 4.0))
    assert features.ids[3] == "image-3"
    assert features.groups[3] == "patient-val-0"
    assert features.splits[:5] == ("train", "train", "train", "val", "test")
    assert features.labels[:, 0].tolist() == store.labels[:, 0].tolist()
    assert features.tasks == {"malignancy": ("benign", "malignant")}
    assert features.fingerprint == store.fingerprint.to_dict()
    assert features.rows("val").tolist() == [3, 8]


def test_only_finished_rows_are_loaded(make_store: MakeStore) -> None:
    """Failed and pending images are left out, and the failed ones are counted."""
    status = np.full(10, DONE, dtype=np.uint8)
    status[[1, 4]] = FAILED
    status[7] = PENDING
    features = load_features(make_store(10, status=status))
    kept = [0, 2, 3, 5, 6, 8, 9]
    assert features.ids == tuple(f"image-{i}" for i in kept)
    assert [len(tokens) for tokens in features.tokens.values()] == [7, 7]
    assert features.labels.shape == (7, 1)
    assert features.failed == 2


def test_a_larger_window_pools_further(make_store: MakeStore) -> None:
    """A store pooled over 2 x 2 cells serves 8 x 8: one token, the mean over the picture."""
    valid = np.full((10, 2), 128)
    valid[0] = (128, 40)  # of 8 x 8 cells of 16 pixels, 8 x 3 show picture
    store = make_store(10, valid=valid, storage="float32")
    features = load_features(store, window=8)
    assert features.window == 8
    assert features.counts["neck"][:2].tolist() == [[24.0], [64.0]]
    cells = store.read("neck", slice(0, 2))[:, 0].astype(np.float64)
    first = (2 * cells[0, :, :, 0] + cells[0, :, :, 1]).mean(1) / 3
    np.testing.assert_allclose(features.tokens["neck"][0, 0], first, rtol=1e-5)
    np.testing.assert_allclose(features.tokens["neck"][1, 0], cells[1].mean((1, 2)), rtol=1e-5)


def test_levels_and_tasks_are_chosen_by_name_and_order(make_store: MakeStore) -> None:
    """Only what is asked for is loaded, in the order asked."""
    tasks = {"a": ("no", "yes"), "b": ("x", "y", "z")}
    store = make_store(20, tasks=tasks)
    features = load_features(
        store, levels=["neck"], targets=targets_of(store, TrainConfig(tasks=("b",)))
    )
    assert list(features.tokens) == ["neck"]
    assert features.channels == {"neck": 4}
    assert features.tasks == {"b": ("x", "y", "z")}
    assert features.labels[:, 0].tolist() == store.labels[:, 1].tolist()
    both = load_features(
        store, ["neck", "block:1"], targets=targets_of(store, TrainConfig(tasks=("b", "a")))
    )
    assert list(both.tokens) == ["neck", "block:1"]
    assert both.labels.tolist() == store.labels[:, ::-1].tolist()


def test_everything_that_the_store_cannot_serve_is_said_at_once(make_store: MakeStore) -> None:
    """The error names each unknown level and the windows that can be served."""
    store = make_store(5)
    with pytest.raises(ConfigError) as caught:
        load_features(store, levels=["nek", "neck"], window=3)
    first, *lines, last = str(caught.value).splitlines()
    assert first == f"{store.path} cannot serve this:"
    assert lines == [
        "  unknown level nek; the store has block:1, neck; did you mean neck?",
    ]
    assert last.startswith("  window 3 is no multiple of 2, the window that the store was pooled")
    assert last.endswith("; it can serve 2, 4, 6, 8")
    with pytest.raises(ConfigError, match="window 1 is no multiple of 2"):
        load_features(store, window=1)


def test_values_that_are_not_finite_are_refused_by_name(make_store: MakeStore) -> None:
    """One NaN in one map is an error that names the level and the image."""
    levels = {"neck": LevelShape(3, 4, 4, 16)}
    maps = np.zeros((10, 1, 3, 4, 4))
    maps[6, 0, 1, 2, 3] = np.nan
    maps[8] = np.inf
    store = make_store(10, levels=levels, features={"neck": maps})
    with pytest.raises(StoreError, match=r"level neck .* for 2 images \(image-6, image-8\)"):
        load_features(store)


def test_training_cells_become_standard(make_store: MakeStore) -> None:
    """Over the training split's valid cells each channel has mean 0 and deviation 1."""
    valid = np.full((300, 2), 128)
    valid[::3] = (70, 128)
    features = load_features(make_store(300, valid=valid))
    train = features.rows("train")
    standard = features.standardised(ChannelScaler.fit(features, train))
    for level, tokens in standard.tokens.items():
        weights = standard.counts[level][train].flatten().numpy()
        cells = tokens[train].flatten(0, 1).numpy()
        mean = np.average(cells, axis=0, weights=weights)
        np.testing.assert_allclose(mean, 0, atol=1e-5)
        deviation = np.sqrt(np.average((cells - mean) ** 2, axis=0, weights=weights))
        np.testing.assert_allclose(deviation, 1, atol=1e-5)


def test_other_splits_leave_the_standardiser_alone(make_store: MakeStore) -> None:
    """What validation and test images hold changes neither means nor deviations."""
    features = load_features(make_store(50))
    train = features.rows("train")
    before = ChannelScaler.fit(features, train)
    for tokens in features.tokens.values():
        tokens[features.rows("val")] = 1e3
        tokens[features.rows("test")] = -1e3
    after = ChannelScaler.fit(features, train)
    for level in features.tokens:
        assert torch.equal(before.mean[level], after.mean[level])
        assert torch.equal(before.std[level], after.std[level])


def test_padding_leaves_the_standardiser_alone(make_store: MakeStore) -> None:
    """What cells without picture hold changes neither means nor deviations."""
    features = load_features(make_store(50, valid=np.full((50, 2), 64)))
    before = ChannelScaler.fit(features, features.rows("train"))
    tokens, counts = features.tokens["neck"], features.counts["neck"]
    assert (counts == 0).sum() == 50 * 12
    tokens[counts == 0] = 1e3
    after = ChannelScaler.fit(features, features.rows("train"))
    assert torch.equal(before.mean["neck"], after.mean["neck"])
    assert torch.equal(before.std["neck"], after.std["neck"])


def test_a_dead_channel_is_centred_and_not_blown_up(make_store: MakeStore) -> None:
    """A channel that never varies becomes zero, and nothing becomes NaN."""
    levels = {"neck": LevelShape(2, 4, 4, 16)}
    maps = np.random.default_rng(0).normal(size=(10, 1, 2, 4, 4))
    maps[:, :, 1] = 7.3
    features = load_features(make_store(10, levels=levels, features={"neck": maps}))
    scaler = ChannelScaler.fit(features, features.rows("train"))
    tokens = features.standardised(scaler).tokens["neck"]
    assert_close(tokens[:, :, 1], torch.zeros(10, 16), atol=1e-5, rtol=0)
    assert torch.isfinite(tokens).all()
