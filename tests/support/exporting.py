"""Runs to export, made of real parts, and what they say of pictures through the pipeline's own steps."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from samcls.deploy.export.graph import level_shapes
from samcls.deploy.export.selfcheck import cached
from samcls.encode.base import Encoder
from samcls.encode.encoders import open_encoder
from samcls.encode.options import ExtractOptions
from samcls.learn.features.pixels import Pixels, extents_of
from samcls.learn.features.tensors import ChannelScaler
from samcls.learn.fit.prediction import Model
from samcls.learn.heads.base import Shape
from samcls.learn.heads.registry import build_head
from samcls.learn.runs.operating import OperatingPoint
from samcls.learn.settings import TrainConfig
from samcls.pooling import pool, to_tokens
from samcls.store.schema import TRANSPOSED, Fingerprint
from samcls.views import view_names

__all__ = ["Subject", "said", "subject", "tokens_of"]

TASKS = {"grade": ("low", "middle", "high"), "side": ("left", "right")}


@dataclass
class Subject:
    """What an export takes."""

    models: Sequence[Model]
    encoder: Encoder
    fingerprint: Fingerprint
    points: dict[str, OperatingPoint] = field(
        default_factory=lambda: {
            "grade": OperatingPoint(1.7, None),
            "side": OperatingPoint(0.6, 0.4),
        }
    )


def subject(
    encoder: str = "vit_t",
    head: str = "slca",
    *,
    size: int = 64,
    window: int = 1,
    head_window: int | None = None,
    levels: str = "early,neck",
    views: str = "none",
    storage: str = "float16",
    resize: str = "longest",
    pixels: int = 0,
    models: int = 1,
    **options: Any,
) -> Subject:
    """Return heads with drawn weights on an encoder with drawn weights."""
    asked = ExtractOptions(
        encoder=encoder,
        size=size,
        window=window,
        levels=levels,
        views=views,
        precision="float32",
        device="cpu",
        random_weights=encoder != "vit_t",
    )
    opened = open_encoder(asked)
    made = Fingerprint(
        encoder=encoder,
        checkpoint_sha256=opened.weights_sha256,
        input_size=size,
        resize=resize,
        mean=opened.pixel_mean,
        std=opened.pixel_std,
        levels=opened.levels,
        window=window,
        views=view_names(views),
        storage=storage,
        precision="float32",
        preprocessing=1,
    )
    side = head_window or window
    shapes = level_shapes(opened, made)
    grids = {
        level: (-(-shape.rows // (side // window)), -(-shape.cols // (side // window)))
        for level, shape in shapes.items()
    }
    reach = {k: size / (rows * side * shapes[k].patch) for k, (rows, _) in grids.items()}
    shape = Shape(
        {level: one.channels for level, one in shapes.items()},
        {task: len(names) for task, names in TASKS.items()},
        grids,
        side,
        {level: share for level, share in reach.items() if share < 1},
        pixels,
    )
    config = TrainConfig(head=head, window=head_window, **options)
    return Subject([_model(replace(config, seed=i), shape) for i in range(models)], opened, made)


def _model(config: TrainConfig, shape: Shape) -> Model:
    generator = torch.Generator().manual_seed(config.seed)
    head = build_head(config, shape, generator).eval()
    for name, value in head.state_dict().items():  # solved heads begin as zeros
        if not value.any() and value.is_floating_point() and not name.startswith("body."):
            value.normal_(0, 0.01, generator=generator)
    scaler = ChannelScaler(
        {k: 0.1 * torch.randn(c, generator=generator) for k, c in shape.channels.items()},
        {k: 0.5 + torch.rand(c, generator=generator) for k, c in shape.channels.items()},
    )
    return Model(config, shape, TASKS, scaler, head)


def tokens_of(given: Subject, model: Model, inputs: Sequence[np.ndarray]) -> tuple[dict, dict]:
    """Tokens and counts as a store would give them to stage two, of one picture in all its views."""
    made, levels = given.fingerprint, given.fingerprint.levels
    shapes = level_shapes(given.encoder, made)
    factor = model.shape.window // made.window
    tokens, counts = {}, {}
    for level, maps in zip(levels, inputs, strict=False):
        cells = -(-inputs[len(levels)][0] // shapes[level].patch)
        found = []
        for view in made.views:
            rows, cols = cells[::-1] if view in TRANSPOSED else cells
            down, across = (
                np.clip(shown - made.window * np.arange(n), 0, made.window)
                for shown, n in ((rows, shapes[level].rows), (cols, shapes[level].cols))
            )
            found.append(np.outer(down, across).astype(np.float32))
        pooled, count = pool(torch.from_numpy(maps[0]), torch.from_numpy(np.stack(found)), factor)
        tokens[level], counts[level] = to_tokens(pooled), count.flatten(1)
    return tokens, counts


def said(given: Subject, pictures: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """What the runs say: framed, encoded, pooled, rounded and predicted by the pipeline's own functions."""
    made = given.fingerprint
    looks = given.models[0].shape.pixels
    rows: dict[str, list[np.ndarray]] = {task: [] for task in given.models[0].tasks}
    for picture in pictures:
        inputs = cached(picture, given.encoder, made, made.levels, looks)
        pixels = None
        if looks:
            values, valid = (torch.from_numpy(inputs[i]) for i in (-1, -2))
            pixels = Pixels(values, extents_of(values, valid, made.input_size), made.views)
        found = [
            model.probabilities(*tokens_of(given, model, inputs), len(made.views), pixels)
            for model in given.models
        ]
        for task, own in rows.items():
            own.append(np.mean([one[task][0] for one in found], axis=0))
    return {task: np.stack(own) for task, own in rows.items()}
