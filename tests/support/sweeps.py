"""Runs of a sweep without the training: made-up predictions that follow their labels."""

from typing import Any

import numpy as np

from samcls.config import TrainConfig
from samcls.learn.fit.schedule import Epoch
from samcls.learn.runs.predictions import Predictions
from samcls.learn.score.scoring import score
from samcls.sweep.results import RunRecord

__all__ = ["BINARY", "labels_of", "record"]

BINARY = {"malignancy": ("benign", "malignant")}


def labels_of(images: int, tasks: dict[str, tuple[str, ...]], seed: int = 0) -> np.ndarray:
    """Random labels with every class in them."""
    generator = np.random.default_rng(seed)
    columns = [
        generator.permutation(np.arange(images) % len(classes)) for classes in tasks.values()
    ]
    return np.stack(columns, 1).astype(np.int64)


def record(
    config: TrainConfig,
    strength: float = 1.0,
    *,
    images: int = 40,
    tasks: dict[str, tuple[str, ...]] | None = None,
    labels: np.ndarray | None = None,
    draw: int | None = None,
    **changes: Any,
) -> RunRecord:
    """A run whose probabilities lean by `strength` towards the labels."""
    tasks = tasks or BINARY
    labels = labels_of(images, tasks) if labels is None else labels
    images = len(labels)
    generator = np.random.default_rng(config.seed if draw is None else draw)
    probabilities = {}
    for i, (task, classes) in enumerate(tasks.items()):
        logits = generator.normal(size=(images, len(classes)))
        logits += strength * np.eye(len(classes))[labels[:, i]]
        raised = np.exp(logits)
        probabilities[task] = (raised / raised.sum(1, keepdims=True)).astype(np.float32)
    table = score(labels, probabilities, tasks, dict.fromkeys(tasks, 0), 0)
    epochs = range(1, config.epochs + 1)
    history = tuple(
        Epoch(n, config.learning_rate / n, 1.0 / n, 0.5 + 0.1 / n, table["auc"]) for n in epochs
    )
    values: dict[str, Any] = {
        "config": config,
        "tasks": tasks,
        "validation": table | {"loss": 0.7 - 0.1 * strength},
        "predictions": Predictions(
            tuple(f"image-{i}" for i in range(images)), labels, probabilities
        ),
        "history": history,
        "best_epoch": 1,
        "seconds": 0.25,
        "parameters": 42,
        "how": "single",
        "model": {"head.json": b"{}\n", "head.safetensors": b"\0" * 1000},
    }
    return RunRecord(**values | changes)
