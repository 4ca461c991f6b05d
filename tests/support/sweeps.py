"""Runs of a sweep without the training: made-up predictions that follow their labels."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from samcls.config import digest, to_toml
from samcls.learn.fit.prediction import FORMAT_VERSION
from samcls.learn.fit.schedule import Epoch
from samcls.learn.runs.folder import Run
from samcls.learn.runs.history import history_csv
from samcls.learn.runs.predictions import Predictions, predictions_csv
from samcls.learn.runs.writing import place_run
from samcls.learn.score.scoring import score
from samcls.learn.settings import TrainConfig
from samcls.sweep.outcomes import run_path

__all__ = ["BINARY", "labels_of", "record", "saying", "write_record"]

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
    loss: float | None = None,
    seconds: float = 0.25,
    how: str = "single",
) -> Run:
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
    first = 0.7 - 0.1 * strength if loss is None else loss
    history = [
        Epoch(n, config.learning_rate / n, 1.0 / n, first + 0.01 * (n - 1), table["auc"])
        for n in epochs
    ]
    said = Predictions(tuple(f"image-{i}" for i in range(images)), labels, probabilities)
    return Run(
        path=Path("runs") / digest(config),
        config=config,
        fingerprint={},
        metrics={
            "how": how,
            "epochs": config.epochs,
            "best_epoch": 1,
            "seconds": seconds,
            "parameters": 42,
            "validation": table,
        },
        tasks=tasks,
        tables={
            "predictions.csv": predictions_csv(said, ["val"] * images, tasks),
            "history.csv": history_csv(history),
        },
    )


def saying(run: Run, said: Predictions, auc: float | None = None) -> Run:
    """The same run with other predictions, and with another figure where one is given."""
    table = predictions_csv(said, ["val"] * len(said.ids), run.tasks)
    validation = run.validation if auc is None else {**run.validation, "auc": auc}
    return replace(
        run,
        tables={**run.tables, "predictions.csv": table},
        metrics={**run.metrics, "validation": validation},
    )


def write_record(folder: Path, run: Run) -> None:
    """Write it among a sweep's runs, its head a stand-in."""
    tasks = [{"name": name, "classes": classes} for name, classes in run.tasks.items()]
    files = {
        "config.toml": to_toml(run.config).encode(),
        "fingerprint.json": json.dumps(run.fingerprint).encode(),
        "metrics.json": json.dumps(run.metrics).encode(),
        **run.tables,
        "head.json": json.dumps({"format_version": FORMAT_VERSION, "tasks": tasks}).encode(),
        "head.safetensors": b"\0" * 1000,
        "environment.json": b"{}",
    }
    place_run(run_path(folder, run.config), files)
