"""The loop: reproducible, chosen on validation, blind to the test split."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from samcls.errors import RunError
from samcls.learn.features.tensors import ChannelScaler, Features, load_features
from samcls.learn.fit.fit import fit
from samcls.learn.fit.losses import Criterion
from samcls.learn.fit.prediction import predict_logits, to_probabilities
from samcls.learn.fit.schedule import Epoch, Fitted, learning_rate
from samcls.learn.score.scoring import auc
from samcls.learn.settings import TrainConfig
from samcls.store.feature_store import FeatureStore

MakeStore = Callable[..., FeatureStore]
CONFIG = TrainConfig(
    head="slca", epochs=8, batch_size=16, learning_rate=1e-2, reduction=2, intervals=0
)
BALANCED = TrainConfig(class_weights="balanced")


def standard(store: FeatureStore) -> Features:
    features = load_features(store)
    return features.standardised(ChannelScaler.fit(features, features.rows("train")))


def weights(fitted: Fitted) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in fitted.head.state_dict().items()}


def equal(one: Fitted, other: Fitted) -> bool:
    pairs = zip(weights(one).values(), weights(other).values(), strict=True)
    return one.history == other.history and all(torch.equal(a, b) for a, b in pairs)


def test_a_planted_signal_is_learned(make_store: MakeStore) -> None:
    """On separable images the loss falls and the validation AUC comes near 1."""
    fitted = fit(standard(make_store(200, strength=8.0)), replace(CONFIG, epochs=20))
    assert fitted.history[-1].train_loss < 0.8 * fitted.history[0].train_loss
    assert fitted.best.val_auc is not None
    assert fitted.best.val_auc > 0.95


def test_equal_seeds_are_equal_bit_for_bit(make_store: MakeStore) -> None:
    """Two runs of one seed have equal weights and history, whatever ran in between."""
    features = standard(make_store(60))
    first = fit(features, CONFIG)
    torch.manual_seed(123)
    torch.rand(7)
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    second = fit(features, CONFIG)
    assert equal(first, second)
    assert not equal(first, fit(features, replace(CONFIG, seed=1)))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_the_test_split_is_never_looked_at(make_store: MakeStore) -> None:
    """Test images and labels may hold anything, and the run is the same."""
    features = standard(make_store(60))
    before = fit(features, CONFIG)
    test = features.rows("test")
    for tokens in features.tokens.values():
        tokens[test] = float("nan")
    features.labels[test] = 1 - features.labels[test]
    assert equal(before, fit(features, CONFIG))


def test_the_head_is_the_best_epochs(make_store: MakeStore) -> None:
    """The head handed back has the validation loss and AUC of the best epoch, not of the last."""
    features = standard(make_store(100, strength=1.0))
    fitted = fit(features, replace(CONFIG, epochs=12, patience=0, learning_rate=0.05))
    ranks = [epoch.rank() for epoch in fitted.history]
    assert len(ranks) == 12
    assert fitted.best.rank() == max(ranks)
    assert fitted.best.epoch < 12
    val = features.rows("val")
    logits = predict_logits(fitted.head, features, val)
    labels = features.labels[val]
    assert Criterion.of(labels, [2], CONFIG)(logits, labels).item() == fitted.best.val_loss
    probabilities = to_probabilities(logits, features.tasks)
    assert auc(labels.numpy(), probabilities) == fitted.best.val_auc


def test_patience_ends_training(make_store: MakeStore) -> None:
    """Training stops as many epochs after the best as patience says, and says so."""
    lines: list[str] = []
    features = standard(make_store(60, strength=0.0))
    fitted = fit(features, replace(CONFIG, epochs=200, patience=3), lines.append)
    assert len(fitted.history) == fitted.best.epoch + 3
    assert lines[-1] == (
        f"epoch {len(fitted.history)}: no better since epoch {fitted.best.epoch}, stopping"
    )


def test_validation_of_one_class_chooses_by_loss(make_store: MakeStore) -> None:
    """Without a validation AUC the epoch with the lowest validation loss is chosen."""
    store = make_store(60)
    labels = store.labels.copy()
    labels[np.array(store.splits) == "val"] = 1
    fitted = fit(standard(make_store(60, name="one.zarr", labels=labels)), CONFIG)
    assert {epoch.val_auc for epoch in fitted.history} == {None}
    assert fitted.best.val_loss == min(epoch.val_loss for epoch in fitted.history)


def test_a_diverging_run_is_an_error_with_a_remedy(make_store: MakeStore) -> None:
    """A loss that is not finite ends the run with the rate to lower."""
    features = standard(make_store(30))
    features.tokens["neck"][0] = float("inf")
    with pytest.raises(RunError, match=r"training diverged: .* after epoch 1; lower learning_rate"):
        fit(features, CONFIG)


def test_ties_in_auc_go_to_the_lower_loss() -> None:
    """Validation AUC comes first, validation loss breaks ties, an undefined AUC is worst."""
    a, b = Epoch(1, 0.1, 1.0, 0.5, 0.8), Epoch(2, 0.1, 1.0, 0.4, 0.8)
    c, d = Epoch(3, 0.1, 1.0, 9.0, 0.9), Epoch(4, 0.1, 1.0, 0.1, None)
    assert sorted([a, b, c, d], key=Epoch.rank) == [d, a, b, c]


def test_the_rate_rises_and_then_falls_along_a_cosine() -> None:
    """The peak is the config's rate, reached after the warm-up; the last step is almost zero."""
    config = TrainConfig(epochs=10, warmup=0.1, learning_rate=0.5)
    rates = [learning_rate(config, step, 20) for step in range(200)]
    assert rates[:20] == sorted(rates[:20])
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert max(rates) == rates[20] == 0.5
    assert 0 < rates[0] < 0.05
    assert rates[-1] < 1e-4
    assert rates[110] == pytest.approx(0.25)
    assert learning_rate(TrainConfig(epochs=1, warmup=0.0, learning_rate=0.5), 0, 1) == 0.5


def test_the_criterion_is_the_mean_cross_entropy() -> None:
    """With every label known, one task's loss is PyTorch's, with and without class weights."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 3, generator=generator)
    labels = torch.tensor([0] * 30 + [1] * 15 + [2] * 5)[:, None]
    plain = Criterion.of(labels, [3], CONFIG)(logits, labels)
    assert_close(plain, torch.nn.functional.cross_entropy(logits, labels[:, 0]))
    balanced = Criterion.of(labels, [3], BALANCED)
    assert_close(balanced.weights[0], torch.tensor([50 / 90, 50 / 45, 50 / 15]))
    expected = torch.nn.functional.cross_entropy(logits, labels[:, 0], balanced.weights[0])
    assert_close(balanced(logits, labels), expected)


def test_missing_labels_add_nothing() -> None:
    """An image without a task's label leaves that task's loss alone, even if the batch has none."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 4, generator=generator, requires_grad=True)
    labels = torch.tensor([[0, -1], [1, -1], [-1, -1], [0, -1]])
    criterion = Criterion.of(torch.tensor([[0, 0], [1, 1]]), [2, 2], CONFIG)
    loss = criterion(logits, labels)
    kept = torch.nn.functional.cross_entropy(logits[[0, 1, 3], :2], labels[[0, 1, 3], 0])
    assert_close(loss, kept / 2)
    loss.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert not logits.grad[:, 2:].any()
    assert not logits.grad[2].any()
    assert torch.isfinite(logits.grad).all()


def test_a_class_absent_from_training_weighs_nothing() -> None:
    """Balanced weights stay finite where a class has no training image."""
    criterion = Criterion.of(torch.tensor([[0], [2], [2]]), [3], BALANCED)
    assert criterion.weights[0].tolist() == [1.0, 0.0, 0.5]
    assert torch.isfinite(criterion(torch.zeros(1, 3), torch.tensor([[1]])))
