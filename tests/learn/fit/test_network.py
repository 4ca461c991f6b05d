"""Training of guided networks: what decides them, where they go on, and their controls."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

from samcls.errors import ConfigError, RunError, WeightsError
from samcls.learn.features.batches import partners
from samcls.learn.features.pixels import Pixels
from samcls.learn.features.tensors import Features
from samcls.learn.fit.fit import fit
from samcls.learn.fit.loop import Loop
from samcls.learn.fit.network import NetworkTrainer, _optimizer
from samcls.learn.fit.prediction import shape_of
from samcls.learn.heads.guided.net import GuidedNet
from samcls.learn.heads.registry import build_head, head_class, head_problems, unknown_head
from samcls.learn.settings import TrainConfig

SIDE = 32
CONFIG = TrainConfig(
    head="guided:test_resnet",
    pretrained=False,
    epochs=3,
    patience=0,
    batch_size=8,
    learning_rate=1e-2,
    backbone_learning_rate=1e-3,
    dropout=0.1,
)


def features(images: int = 30, *, views: int = 2, in_tokens: bool = False) -> Features:
    """Half of the images are bright at the top left, or their tokens say so."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(images) % 2
    tokens = {k: torch.randn(images * views, 4, 6, generator=generator) for k in ("late", "neck")}
    pixels = torch.randint(0, 90, (images, SIDE, SIDE, 3), generator=generator, dtype=torch.uint8)
    if in_tokens:
        for values in tokens.values():
            values[:, :, :3] += 3 * labels.repeat_interleave(views)[:, None, None].float()
    else:
        pixels[labels == 1, :12, :12] += 150
    return Features(
        tokens=tokens,
        counts={k: torch.full((images * views, 4), 4.0) for k in tokens},
        labels=labels[:, None],
        ids=tuple(f"image-{i}" for i in range(images)),
        splits=tuple(("train", "train", "train", "val", "test")[i // 2 % 5] for i in range(images)),
        groups=("",) * images,
        tasks={"grade": ("low", "high")},
        window=2,
        grids=dict.fromkeys(tokens, (2, 2)),
        views=views,
        fingerprint={"encoder": "vit_t"},
        failed=0,
        pixels=Pixels(pixels, torch.full((images, 2), SIDE), ("identity", "flip")[:views]),
    )


def weights(fitted: Any) -> dict[str, torch.Tensor]:
    return fitted.head.state_dict()


def same(a: Any, b: Any) -> bool:
    one, two = weights(a), weights(b)
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def test_a_name_leads_to_a_network() -> None:
    """`guided:` and a timm model is a head like any other, and other names are not."""
    assert head_class("guided:resnet18") is GuidedNet
    assert not unknown_head("guided:resnet18")
    assert unknown_head("resnet18")
    given = shape_of(features())
    net = build_head(CONFIG, given, torch.Generator())
    assert isinstance(net, GuidedNet)
    assert list(net.gates) == ["stage3", "stage4"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"head": "guided:resnet1"}, "timm knows no model 'resnet1'"),
        ({"head": "guided:test_vit"}, "no stages that timm lists"),
        ({"stages": ("stage9",)}, "unknown stage stage9"),
        ({"stages": ("stage4",)}, "2 levels"),
    ],
    ids=["model", "flat", "stage", "pairs"],
)
def test_what_cannot_be_built_is_said_before_training(changes: dict[str, Any], said: str) -> None:
    """Each mistake is a sentence of `head_problems`."""
    (problem,) = head_problems(replace(CONFIG, **changes), shape_of(features()))
    assert said in problem


def test_a_store_without_pixels_is_refused() -> None:
    """The remedy names extract's option."""
    bare = replace(features(), pixels=None)
    (problem,) = head_problems(CONFIG, shape_of(bare))
    assert "--keep-pixels" in problem
    with pytest.raises(ConfigError, match="the store keeps none"):
        NetworkTrainer(bare, CONFIG)


def test_training_learns_from_pixels() -> None:
    """A bright corner is found, and what the gates add is told."""
    told: list[str] = []
    fitted = fit(features(), replace(CONFIG, epochs=6), told.append)
    assert "gates add" in told[0]
    assert fitted.best.val_auc == 1.0
    assert [epoch.epoch for epoch in fitted.history] == list(range(1, 7))


def test_equal_seeds_train_equal_networks() -> None:
    """Bit for bit, whatever PyTorch's global stream holds, which is left as it was."""
    torch.manual_seed(1)
    one = fit(features(), CONFIG)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    two = fit(features(), CONFIG)
    assert same(one, two)
    assert torch.equal(torch.get_rng_state(), state)
    assert not same(one, fit(features(), replace(CONFIG, seed=1)))


class Cut(Exception):
    pass


@pytest.mark.parametrize("at", [1, 2])
def test_a_run_that_was_cut_off_ends_as_one_that_was_not(tmp_path: Path, at: int) -> None:
    """Going on from a checkpoint gives the same weights and history, bit for bit."""
    given, config = features(), replace(CONFIG, jitter=0.1, epochs=3)
    whole = fit(given, config)
    file = tmp_path / "checkpoint.pt"

    def cut(line: str) -> None:
        if line.startswith(f"epoch {at} "):
            raise Cut

    with pytest.raises(Cut):
        fit(given, config, cut, file, seconds=0.0)
    told: list[str] = []
    resumed = fit(given, config, told.append, file, seconds=0.0)
    assert f"going on after epoch {at} of 3" in told
    assert same(whole, resumed)
    assert whole.history == resumed.history


def test_a_checkpoint_of_other_settings_or_images_is_not_gone_on_from(tmp_path: Path) -> None:
    """It is begun anew then, and a damaged one is refused with what to do."""
    given, file = features(), tmp_path / "checkpoint.pt"
    fit(given, CONFIG, checkpoint=file, seconds=0.0)
    for data, config in (
        (given, replace(CONFIG, seed=3)),
        (replace(given, labels=1 - given.labels), CONFIG),
    ):
        told: list[str] = []
        fit(data, replace(config, epochs=3), told.append, file, seconds=1e9)
        assert not any("going on" in line for line in told)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(RunError, match=r"checkpoint.* is damaged.* remove it"):
        fit(given, CONFIG, checkpoint=file)


@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_parts_of_a_step_add_up_to_it(weights: str) -> None:
    """Accumulated gradients equal a whole step's, where the network keeps its running means.

    So they do where classes weigh unlike, labels are missing, and light is changed.
    """
    given = features()
    labels = given.labels.clone()
    labels[given.rows("train")[4:6]] = -1
    labels[given.rows("train")[:3]] = 0
    given = replace(given, labels=labels)
    config = replace(CONFIG, freeze_backbone=True, dropout=0.0, class_weights=weights, jitter=0.2)
    losses = []
    nets = []
    for parts in (1, 3):
        training = NetworkTrainer(given, replace(config, accumulate=parts))
        training.net.learning()
        losses.append(float(training.step(given.rows("train")[:9], 0.01)))
        nets.append(dict(training.net.named_parameters()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for name, value in nets[0].items():
        torch.testing.assert_close(value, nets[1][name], rtol=1e-3, atol=1e-5)


def test_what_timm_spares_is_not_decayed() -> None:
    """Of Swin V2 that are the layers of its continuous position bias, and from 1.0.31 its logit scales."""
    body = timm.create_model("swinv2_tiny_window8_256", num_classes=0, depths=(1, 1, 1, 1))
    net = nn.ModuleDict({"body": body, "classifier": nn.Linear(3, 2)})
    groups = _optimizer(net, CONFIG).param_groups
    decays = {id(value): group["weight_decay"] for group in groups for value in group["params"]}
    named = {one.partition("attn.")[2].partition(".")[0] for one in body.no_weight_decay()}
    assert "cpb_mlp" in named
    for name, value in body.named_parameters():
        spared = value.dim() < 2 or bool(named & set(name.split(".")))
        assert decays[id(value)] == (0.0 if spared else CONFIG.weight_decay), name


def test_a_frozen_backbone_stays_as_it_was() -> None:
    """Its weights and running means do not move; gates and classifier do."""
    before = build_head(CONFIG, shape_of(features()), torch.Generator().manual_seed(1))
    training = NetworkTrainer(features(), replace(CONFIG, freeze_backbone=True))
    old = {k: v.clone() for k, v in training.net.state_dict().items()}
    Loop(training).epoch()
    for name, value in training.net.state_dict().items():
        assert torch.equal(value, old[name]) == name.startswith("body."), name
    assert any(name.startswith("gates.") for name in before.state_dict())


def test_the_backbone_has_a_rate_of_its_own() -> None:
    """Gates and classifier step at learning_rate, the network at backbone_learning_rate."""
    training = NetworkTrainer(features(), CONFIG)
    training.step(features().rows("train")[:8], 5e-3)
    named = {id(v): k for k, v in training.net.named_parameters()}
    for group in training._optimizer.param_groups:
        for value in group["params"]:
            own = 5e-4 if named[id(value)].startswith("body.") else 5e-3
            assert group["lr"] == pytest.approx(own)
            assert (group["weight_decay"] > 0) == (value.dim() > 1)


def test_controls_see_the_same_images_in_the_same_order() -> None:
    """At one seed the first losses of network and classifier agree wherever gates do nothing."""
    firsts = {}
    for control in ("none", "plain", "se", "shuffled"):
        training = NetworkTrainer(features(), replace(CONFIG, control=control))
        assert isinstance(training.net, GuidedNet)
        with training.net.ungated():
            firsts[control] = training.training_pass(1)[0][0]
    assert len(set(firsts.values())) == 1


def test_shuffled_features_are_another_images_of_the_same_split() -> None:
    """Nobody keeps his own, views stay, and splits are not mixed."""
    given = features()
    found = partners(given, 0)
    assert (found != torch.arange(len(found))).all()
    assert sorted(found.tolist()) == list(range(len(found)))
    assert all(given.splits[i] == given.splits[j] for i, j in enumerate(found.tolist()))
    net = build_head(replace(CONFIG, control="shuffled"), shape_of(given), torch.Generator())
    assert isinstance(net, GuidedNet)
    order = net.feeding(given)
    assert order is not None
    assert torch.equal(order[1::2], 2 * found + 1)


def test_gates_carry_what_only_the_features_know() -> None:
    """Labels that no pixel tells are learned through the gates, and not from shuffled features."""
    given = features(60, views=1, in_tokens=True)
    config = replace(CONFIG, epochs=12, learning_rate=3e-2, gate="multiply")
    aucs = {}
    for control in ("none", "plain", "shuffled"):
        best = fit(given, replace(config, control=control)).best
        aucs[control] = best.val_auc or 0.0
    assert aucs["none"] > 0.95
    assert max(aucs["plain"], aucs["shuffled"]) < aucs["none"]


def test_pretrained_weights_that_cannot_be_had_name_the_way_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Offline, the error says --no-pretrained."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match="--no-pretrained"):
        build_head(replace(CONFIG, pretrained=True), shape_of(features()), torch.Generator())


def test_answers_do_not_depend_on_the_batch() -> None:
    """A row's logits are the same alone and among others."""
    given = features()
    net = build_head(CONFIG, shape_of(given), torch.Generator())
    assert isinstance(net, GuidedNet)
    rows = torch.arange(12)
    together = net.answer(given.tokens, given.counts, rows, given.pixels)
    alone = net.answer(given.tokens, given.counts, rows[5:6], given.pixels)
    torch.testing.assert_close(together[5:6], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_channels_last_gives_the_same_training(precision: str) -> None:
    """Memory order changes rounding alone; bfloat16 trains too."""
    config = replace(CONFIG, precision=precision, epochs=1)
    plain = NetworkTrainer(features(), config)
    last = NetworkTrainer(features(), replace(config, channels_last=True))
    losses = [training.training_pass(1)[0][0] for training in (plain, last)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3 if precision == "float32" else 0.1)


@pytest.mark.slow  # tracing takes ten seconds
@pytest.mark.filterwarnings(
    "ignore:The .grad attribute:UserWarning"
)  # Dynamo looks at every input's
def test_a_compiled_network_learns_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gates are traced with the network, and the weights keep their names."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    config = replace(CONFIG, epochs=1, batch_size=64)
    compiled = fit(features(), replace(config, compile=True))
    assert same(compiled, fit(features(), config))
