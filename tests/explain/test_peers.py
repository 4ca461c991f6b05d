"""Scores and maps agree with those of other projects, Quantus and torch-cam, and with loops that spell them out."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import samcls
from samcls.deploy.predictor import load_predictor
from samcls.explain.evidence import Evidence
from samcls.explain.maps import shown
from samcls.explain.scores import MOST, STEPS, _curve, answered_for
from samcls.explain.subject import of_store
from samcls.learn.features.pixels import Images
from samcls.learn.features.tensors import Features
from samcls.learn.fit.prediction import Model
from samcls.learn.heads.base import NetworkHead, Shape
from samcls.learn.heads.registry import build_head
from samcls.learn.settings import TrainConfig
from samcls.store.feature_store import FeatureStore
from samcls.store.schema import LevelShape

MakeStore = Callable[..., FeatureStore]

CHANNELS, SIDE = 5, 10  # Quantus wants steps of so many values that they divide a channel
LEVELS = {"neck": LevelShape(CHANNELS, SIDE, SIDE, 16)}  # of two cells a window
SIZE = 320  # of a frame that ten windows of two cells fill
IMAGES = 5


class _OfImages(nn.Module):
    """A run as a network on "image channel row col" of standardised windows, as other projects want one."""

    def __init__(self, model: Model, counts: Tensor) -> None:
        super().__init__()
        self.model, self.counts = model, counts

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        tokens = {"neck": images.float().flatten(2).transpose(1, 2)}
        logits: Tensor = self.model.head(tokens, {"neck": self.counts[: len(images)]})
        return logits


def _planted(
    make_store: MakeStore, head: str, **more: Any
) -> tuple[Model, Features, tuple[Evidence, np.ndarray, float, np.ndarray]]:
    """A run, its test images and where their windows lie."""
    store = make_store(input_size=SIZE, levels=LEVELS, **more)
    run = Path(store.path).parent / "run"
    samcls.train(store, run, head=head, epochs=3, intervals=0, batch_size=16)
    predictor = load_predictor(run)
    subject = of_store(predictor, store)
    features, extents = next(subject.chunks())
    evidence = subject.evidence
    side = evidence.side(MOST)
    there = shown(extents, side, round(1 / side))
    return predictor.models[0], features, (evidence, extents, side, there)


@pytest.mark.parametrize("head", ["slca", "linear", "mlp"])
def test_deletion_is_that_of_quantus(make_store: MakeStore, head: str) -> None:
    """Area under the curve of its PixelFlipping, from the picture as it is to nothing, to 1e-3."""
    reason = "quantus is not installed"
    quantus = pytest.importorskip("quantus", reason=reason, exc_type=ImportError)
    model, features, places = _planted(make_store, head)
    maps, classes, _ = answered_for(places[0], "malignancy")
    first = np.arange(IMAGES)
    with torch.inference_mode():
        ours = _curve((model,), features, maps, "malignancy", places)[first, classes[first]]
    tokens = model.scaler.apply(features.tokens)["neck"][:IMAGES]
    images = tokens.transpose(1, 2).reshape(IMAGES, CHANNELS, SIDE, SIDE)
    network = _OfImages(model, features.counts["neck"]).eval()
    flipping = quantus.PixelFlipping(
        features_in_step=CHANNELS * SIDE**2 // STEPS,
        perturb_baseline=0.0,
        normalise=False,
        abs=False,
        disable_warnings=True,
    )
    theirs = np.array(
        flipping(
            model=network,
            x_batch=images.numpy().astype(np.float64),
            y_batch=classes[first],
            a_batch=maps[first, None],
            channel_first=True,
            softmax=True,
            device="cpu",
        )
    )
    with torch.no_grad():  # it leaves out the picture as it is
        whole = network(images).softmax(1).numpy()[first, classes[first]]
    curves = np.concatenate([whole[:, None], theirs], axis=1)
    assert curves.shape == (IMAGES, STEPS + 1)
    assert np.ptp(curves, axis=1).min() > 0.01
    np.testing.assert_allclose(ours, np.trapezoid(curves, dx=1 / STEPS, axis=1), atol=1e-5)


@pytest.mark.parametrize("head", ["slca", "mlp"])
def test_deletion_is_what_loops_find(make_store: MakeStore, head: str) -> None:
    """Window after window, image after image; padding is never deleted, and of an image counts for nothing."""
    sizes = [(SIZE, SIZE), (SIZE, 190), (64, SIZE), (33, 17)]
    valid = np.array([sizes[i // 5 % len(sizes)] for i in range(100)])
    model, features, places = _planted(make_store, head, valid=valid)
    there = places[3]
    maps = np.random.default_rng(3).normal(size=there.shape)
    with torch.inference_mode():
        ours = _curve((model,), features, maps, "malignancy", places)
    standard = model.scaler.apply(features.tokens)["neck"]
    for image in range(2 * len(sizes)):
        height, width = places[1][image] * SIZE
        inside = [
            (row, col)
            for row in range(SIDE)
            for col in range(SIDE)
            if row * 32 < height and col * 32 < width
        ]
        inside.sort(key=lambda at, image=image: -maps[image][at])
        left = standard[image].clone().reshape(SIDE, SIDE, CHANNELS)
        said = []
        for step in range(STEPS + 1):
            for row, col in inside[: int(np.round(step / STEPS * len(inside)))]:
                left[row, col] = 0
            with torch.no_grad():
                logits = model.head(
                    {"neck": left.reshape(1, -1, CHANNELS)},
                    {"neck": features.counts["neck"][image : image + 1]},
                )
            said.append(logits.softmax(1)[0].numpy())
        area = sum((a + b) / 2 for a, b in pairwise(said)) / STEPS
        np.testing.assert_allclose(ours[image], area, atol=1e-5)


class _OfPixels(nn.Module):
    """A guided network on pixels alone: its gates are fed already."""

    def __init__(self, net: Any, tokens: dict[str, Tensor], counts: dict[str, Tensor]) -> None:
        super().__init__()
        self.net, self.tokens, self.counts = net, tokens, counts

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.net(self.tokens, self.counts, pixels=pixels)
        return logits


@pytest.mark.parametrize("control", ["none", "plain"])
def test_a_network_s_last_map_is_that_of_torch_cam(control: str) -> None:
    """Where a mean and a linear layer follow the last map: its CAM, and Grad-CAM before its ReLU, to 1e-3."""
    methods = pytest.importorskip(
        "torchcam.methods", reason="torchcam is not installed", exc_type=ImportError
    )
    pytest.importorskip("timm")
    size, images = 96, 3
    shape = Shape({"a": 8}, {"one": 3}, {"a": (4, 4)}, window=2, pixels=size)
    options: dict[str, Any] = {"head": "guided:test_resnet", "pretrained": False}
    generator = torch.Generator().manual_seed(1)
    net = build_head(TrainConfig(**options, control=control), shape, generator)
    assert isinstance(net, NetworkHead)
    tokens = {"a": torch.randn(images, 16, 8, generator=generator)}
    counts = {"a": torch.full((images, 16), 4.0)}
    values = torch.rand(images, 3, size, size, generator=generator)
    pictures = Images(values, torch.ones(images, 1, size, size, dtype=torch.bool))
    found = net.contributions_of(tokens, counts, pictures).maps["last map"]
    cells = found.shape[2]
    assert cells > 1
    assert found.std() * cells > 0.01  # else any two maps are near each other
    network: Any = _OfPixels(net, tokens, counts).eval()
    last, pixels = "net.body.layer4", net.normalise(pictures)
    for number in range(3):
        ours = found[:, number].numpy() * cells  # of a mean each cell has one part
        with methods.CAM(network, last, "net.classifier.output") as cam, torch.no_grad():
            network(pixels)
            theirs = cam(class_idx=number, normalized=False)[0]
        np.testing.assert_allclose(ours, theirs.flatten(1).numpy(), atol=1e-5)
        with methods.GradCAM(network, last) as cam:
            scores = network(pixels.clone().requires_grad_())
            theirs = cam(class_idx=number, scores=scores, normalized=False)[0]
        positive = np.maximum(ours, 0) / cells
        np.testing.assert_allclose(positive, theirs.flatten(1).detach().numpy(), atol=1e-5)
