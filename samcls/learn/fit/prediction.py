"""A fitted model: scaler and head together, from cached features to probabilities.

Saved as `head.safetensors` (weights, means, deviations) and `head.json` (what to build around
them): no pickle, so that a run from a stranger is safe to open. Loading takes some milliseconds.

    model = load_model("run")
    model.probabilities(tokens, counts)["malignancy"]        # "image class", rows sum to 1
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from samcls.config import parse, to_dict
from samcls.errors import InputError
from samcls.learn.features.meta import MetaColumn, as_column
from samcls.learn.features.pixels import Pixels
from samcls.learn.features.tensors import ChannelScaler, Features
from samcls.learn.heads.base import Head, Shape, split_logits
from samcls.learn.heads.registry import build_head
from samcls.learn.settings import TrainConfig

__all__ = [
    "Model",
    "load_model",
    "load_tasks",
    "merge_views",
    "model_files",
    "predict_logits",
    "shape_of",
    "to_probabilities",
]

FORMAT_VERSION = 2


@dataclass(frozen=True, eq=False)
class Model:
    """What turns cached features into class probabilities.

    Attributes:
        config: What the head was built and trained with.
        shape: What the head is given and what it answers.
        tasks: Class names of each task.
        scaler: Measured on the training split.
        head: The selected head.
        meta: Columns of the manifest that are the level `meta`; empty where there is none.
    """

    config: TrainConfig
    shape: Shape
    tasks: Mapping[str, tuple[str, ...]]
    scaler: ChannelScaler
    head: Head
    meta: tuple[MetaColumn, ...] = ()

    @property
    def parameters(self) -> int:
        """Number of values that were trained or solved for."""
        return self.head.fitted_values

    def probabilities(
        self,
        tokens: Mapping[str, Float[Tensor, "view _token _channel"]],
        counts: Mapping[str, Float[Tensor, "view _token"]],
        views: int = 1,
        pixels: Pixels | None = None,
    ) -> dict[str, Float[np.ndarray, "image _class"]]:
        """Probabilities of each task's classes, in [0, 1]; each row sums to 1.

        Args:
            tokens: For each level, window means as cached, not standardised, "view token channel";
                an image's views lie one after another.
            counts: For each level, number of valid map cells under each token.
            views: Views of each image, over which probabilities are averaged.
            pixels: Of the same images, for a head that looks at them.

        Raises:
            InputError: where the head looks at images, and there are none of its size; or it is the
                control `shuffled`, whose gates know no features of the image's own.
        """
        if self.head.partner_seed is not None:
            raise InputError(
                "the gates of the control shuffled are fed with other images' features, drawn from a "
                "whole split: of single images it can say nothing. Give predict_logits the features "
                "of a whole store"
            )
        standard = self.scaler.apply(tokens)
        rows = torch.arange(next(iter(tokens.values())).shape[0])
        logits = self.head.answer(standard, counts, rows, pixels)
        merged = merge_views(logits, views, list(self.shape.classes.values()))
        return to_probabilities(merged, self.tasks)


def shape_of(features: Features) -> Shape:
    """Return what a head on these features is given and what it answers."""
    classes = {task: len(names) for task, names in features.tasks.items()}
    return Shape(
        features.channels,
        classes,
        features.grids,
        features.window,
        features.reach,
        0 if features.pixels is None else features.pixels.size,
    )


def predict_logits(
    head: Head, features: Features, rows: Int64[Tensor, " row"] | None = None
) -> Float[Tensor, "row logit"]:
    """Logits without dropout, a batch at a time.

    Args:
        head: The head.
        features: Standardised features.
        rows: Images to predict; None means all.

    Returns:
        Each image's logits, on the CPU; of several views, the logarithms of their mean
        probabilities.
    """
    if rows is None:
        rows = torch.arange(len(features.ids))
    flat = features.flat(rows)
    fed = head.feeding(features)
    logits = head.answer(features.tokens, features.counts, flat, features.pixels, fed)
    return merge_views(logits, features.views, [len(c) for c in features.tasks.values()])


def merge_views(
    logits: Float[Tensor, "view logit"], views: int, classes: list[int]
) -> Float[Tensor, "image logit"]:
    """Logarithms of each image's mean probabilities over its views, which lie one after another."""
    if views == 1:
        return logits
    merged = []
    for part in split_logits(logits, classes):
        log_probabilities = part.log_softmax(1).view(-1, views, part.shape[1])
        merged.append(log_probabilities.logsumexp(1) - math.log(views))
    return torch.cat(merged, 1)


def to_probabilities(
    logits: Float[Tensor, "image logit"], tasks: Mapping[str, tuple[str, ...]]
) -> dict[str, Float[np.ndarray, "image _class"]]:
    """Softmax over each task's own logits."""
    parts = split_logits(logits, [len(classes) for classes in tasks.values()])
    return {task: part.softmax(1).numpy() for task, part in zip(tasks, parts, strict=True)}


def model_files(model: Model) -> dict[str, bytes]:
    """Return the contents of `head.json` and `head.safetensors`, by file name."""
    tensors = {f"head.{name}": value for name, value in model.head.state_dict().items()}
    for level in model.shape.channels:
        tensors[f"mean.{level}"] = model.scaler.mean[level]
        tensors[f"std.{level}"] = model.scaler.std[level]
    described = {
        "format_version": FORMAT_VERSION,
        "head": model.config.head,
        "window": model.shape.window,
        "levels": dict(model.shape.channels),
        "grids": {level: list(grid) for level, grid in model.shape.grids.items()},
        "reach": dict(model.shape.reach),
        "pixels": model.shape.pixels,
        "tasks": [{"name": name, "classes": list(c)} for name, c in model.tasks.items()],
        **({"meta": [asdict(column) for column in model.meta]} if model.meta else {}),
        "config": to_dict(model.config),
    }
    return {
        "head.json": (json.dumps(described, indent=2, ensure_ascii=False) + "\n").encode(),
        "head.safetensors": safetensors.torch.save({k: v.contiguous() for k, v in tensors.items()}),
    }


def load_model(folder: str | Path) -> Model:
    """Rebuild a model from the two files in a folder.

    Raises:
        InputError: where a file is missing, damaged, or of another format.
    """
    folder = Path(folder)
    described = _described(folder)
    try:
        tensors = safetensors.torch.load((folder / "head.safetensors").read_bytes())
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"cannot read the head in {folder}: {error}") from error
    try:
        return _rebuild(described, tensors, folder)
    except (KeyError, TypeError, RuntimeError) as error:
        raise InputError(f"the head in {folder} is damaged: {error}; train it again") from error


def load_tasks(folder: str | Path) -> dict[str, tuple[str, ...]]:
    """Class names of each task of the model in a folder, without its weights.

    Raises:
        InputError: where the description is missing, damaged, or of another format.
    """
    try:
        return _tasks(_described(Path(folder)))
    except (KeyError, TypeError) as error:
        raise InputError(f"the head in {folder} is damaged: {error}; train it again") from error


def _described(folder: Path) -> dict[str, Any]:
    try:
        described: dict[str, Any] = json.loads((folder / "head.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the head in {folder}: {error}") from error
    version = described.get("format_version")
    if version != FORMAT_VERSION:
        raise InputError(
            f"the head in {folder} has format {version}; this samcls reads format {FORMAT_VERSION}"
            + (
                ": it is of a newer version; update samcls"
                if isinstance(version, int) and version > FORMAT_VERSION
                else "; train it again"
            )
        )
    return described


def _tasks(described: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    return {task["name"]: tuple(task["classes"]) for task in described["tasks"]}


def _rebuild(described: Mapping[str, Any], tensors: dict[str, Tensor], folder: Path) -> Model:
    config = parse(TrainConfig, _set(described["config"]), f"{folder / 'head.json'}")
    tasks = _tasks(described)
    shape = Shape(
        channels=dict(described["levels"]),
        classes={name: len(classes) for name, classes in tasks.items()},
        grids={level: (rows, cols) for level, (rows, cols) in described["grids"].items()},
        window=described["window"],
        reach=described.get("reach", {}),
        pixels=described.get("pixels", 0),
    )
    # Its weights are in the file: none are to be fetched.
    head = build_head(replace(config, pretrained=False), shape, torch.Generator())
    own = {k.removeprefix("head."): v for k, v in tensors.items() if k.startswith("head.")}
    head.load_state_dict(own)
    scaler = ChannelScaler(
        mean={level: tensors[f"mean.{level}"] for level in shape.channels},
        std={level: tensors[f"std.{level}"] for level in shape.channels},
    )
    meta = tuple(as_column(one) for one in described.get("meta", []))
    return Model(config, shape, tasks, scaler, head, meta)


def _set(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options without those that JSON holds as null."""
    return {name: value for name, value in options.items() if value is not None}
