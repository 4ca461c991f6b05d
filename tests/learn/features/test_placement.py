"""Devices and mixed precision: what changes nothing, and how little the rest changes."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from samcls.device import autocast, choose_device, training_dtype
from samcls.errors import ConfigError
from samcls.learn.features.batches import select
from samcls.learn.features.placement import moved, placed
from samcls.learn.features.tensors import ChannelScaler, Features, load_features
from samcls.learn.fit.adamw import StackedAdamW
from samcls.learn.fit.fit import fit
from samcls.learn.fit.prediction import predict_logits, shape_of
from samcls.learn.fit.stacked import Members, stack_of
from samcls.learn.heads.base import Shape
from samcls.learn.heads.layers import dropout
from samcls.learn.heads.registry import HEADS, build_head, head_class
from samcls.learn.settings import TrainConfig
from samcls.store.feature_store import FeatureStore

MakeStore = Callable[..., FeatureStore]
CONFIG = TrainConfig(
    head="slca", epochs=6, batch_size=16, learning_rate=1e-2, reduction=2, intervals=0
)
CPU = torch.device("cpu")
DESCENDED = sorted(name for name in HEADS if head_class(name).fitting == "members")


def standard(store: FeatureStore, memory: int | None = None) -> Features:
    features = load_features(store, memory=memory)
    return features.standardised(ChannelScaler.fit(features, features.rows("train")))


def test_auto_takes_what_is_there() -> None:
    """`auto` is a device that works, and full precision on a CPU."""
    device = choose_device("auto", training=True)
    assert torch.ones(2, device=device).sum().item() == 2
    assert choose_device("cpu", training=True) == CPU
    assert training_dtype("auto", CPU) == torch.float32
    assert training_dtype("float16", CPU) == torch.float16


@pytest.mark.parametrize(
    ("name", "words"),
    [("cuda:99", "device 'cuda:99' cannot be used here: "), ("gpu", "device 'gpu' cannot be used"),
     ("meta", "device 'meta' is not known to training; expected auto, cpu or cuda")],
)  # fmt: skip
def test_a_device_that_is_not_there_is_refused(name: str, words: str) -> None:
    """The error names the device and what to do."""
    with pytest.raises(ConfigError, match=words):
        choose_device(name, training=True)


@pytest.mark.parametrize("memory", [None, 1000])
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("head", ["slca", "logistic"])
def test_where_features_lie_changes_nothing(
    head: str, whole: bool, memory: int | None, make_store: MakeStore
) -> None:
    """On the device or copied by the batch, from memory or a scratch file: the same run."""
    store = make_store(60, strength=2.0)
    config = replace(CONFIG, head=head)
    expected = fit(standard(store), config)
    features = moved(standard(store, memory), CPU, whole=whole)
    assert features.device == CPU
    assert features.channels == {"block:1": 6, "neck": 4}
    got = fit(features, config)
    assert got.history == expected.history
    logits = predict_logits(expected.head, standard(store))
    assert torch.equal(predict_logits(got.head, moved(features, CPU, whole=whole)), logits)


def test_a_cpu_keeps_features_as_they_are(make_store: MakeStore) -> None:
    """Nothing is copied where nothing has to be."""
    features = load_features(make_store(20))
    assert placed(features, CPU) is features


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("head", DESCENDED)
def test_mixed_precision_gives_nearly_the_same_logits_and_gradients(
    head: str, dtype: torch.dtype, make_store: MakeStore
) -> None:
    """Under autocast a head's logits and gradients are those of float32 to a few per cent."""
    features = standard(make_store(40))
    config = replace(CONFIG, head=head, gate="residual")
    model = build_head(config, shape_of(features), torch.Generator().manual_seed(0))
    tokens, counts = select(features, torch.arange(40))
    answers, slopes = [], []
    for kind in (torch.float32, dtype):
        model.zero_grad()
        with autocast(CPU, kind):
            logits = model(tokens, counts, torch.Generator().manual_seed(1)).float()
        torch.nn.functional.cross_entropy(logits, features.labels[:, 0]).backward()  # type: ignore[no-untyped-call]
        answers.append(logits.detach())
        slopes.append(torch.cat([p.grad.flatten() for p in model.parameters()]))  # type: ignore[union-attr]
    assert not torch.equal(*answers)
    assert_close(answers[1], answers[0], rtol=0.03, atol=0.03)
    assert (slopes[1] - slopes[0]).norm() < 0.05 * slopes[0].norm()


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_training_in_mixed_precision_learns(precision: str, make_store: MakeStore) -> None:
    """The head ends up as good, its weights are float32, and equal seeds are equal."""
    features = standard(make_store(200, strength=8.0))
    config = replace(CONFIG, epochs=20)
    mixed = replace(config, precision=precision)
    exact, fitted, again = fit(features, config), fit(features, mixed), fit(features, mixed)
    assert fitted.best.val_auc == pytest.approx(exact.best.val_auc, abs=0.02)
    assert fitted.history != exact.history
    assert fitted.history == again.history
    assert {value.dtype for value in fitted.head.state_dict().values()} == {torch.float32}


def test_dropout_drops_the_same_values_in_any_precision() -> None:
    """The mask depends on the generator alone."""
    ones = torch.ones(50, 40)
    kept = [
        dropout(ones.to(dtype), 0.4, torch.Generator().manual_seed(2)) != 0
        for dtype in (torch.float32, torch.bfloat16, torch.float16)
    ]
    assert torch.equal(kept[0], kept[1])
    assert torch.equal(kept[0], kept[2])


def test_a_step_that_overflows_is_left_out() -> None:
    """Scaled gradients that are not finite move nothing; finite ones move as unscaled ones do."""
    shape = Shape({"neck": 5}, {"grade": 3}, {"neck": (1, 1)}, 4)
    config = replace(CONFIG, head="linear", dropout=0.0)
    scaled, plain = (
        stack_of([build_head(config, shape, torch.Generator().manual_seed(0))], autograd=True)
        for _ in range(2)
    )
    movers = [StackedAdamW(members, [0.1]) for members in (scaled, plain)]
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    x = torch.randn(1, 8, 1, 5, generator=torch.Generator().manual_seed(1))
    given = {"neck": x}, {"neck": torch.ones(1, 8, 1)}, [torch.Generator()]

    def loss(members: Members) -> torch.Tensor:
        return members.logits(*given).square().mean((1, 2))

    for factor in (float("inf"), 1.0, 1.0):
        scaled.backward(scaler.scale(factor * loss(scaled)))
        scaler.step(movers[0], [0.05])  # type: ignore[arg-type]
        scaler.update()
        if factor == 1.0:
            plain.backward(loss(plain))
            movers[1].step([0.05])
        assert_close(scaled.values, plain.values)
    assert [mover.steps for mover in movers] == [2, 2]
