"""One config, one run: check, load, standardise, train, choose on validation, score test once.

    result = train(FeatureStore.open("features.zarr"), TrainConfig(levels=("neck",)), "run")
    result.test["auc"], result.baselines["logistic"]["test"]["auc"]

BreastMNIST (780 images, five levels of 16 tokens from the miniature encoder, 60 epochs) on one CPU
core: 7.2 s, of which loading 0.4, baselines 0.3, six tables of 1,000 resamples 0.07. From a shell:
`samcls train STORE RUN`.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from samcls.config import TrainConfig
from samcls.errors import ConfigError
from samcls.learn.baselines import GRID, logistic_regression, majority_answer
from samcls.learn.features import Features, Standardiser, load_features, selection_problems
from samcls.learn.heads import HEADS
from samcls.learn.loop import fit
from samcls.learn.metrics import majority_class, score
from samcls.learn.model import Model, predict_logits, to_probabilities
from samcls.learn.runs import begin_run, refuse_overwrite, run_files, write_run
from samcls.store.feature_store import FeatureStore
from samcls.store.schema import DONE, PENDING

__all__ = ["RunResult", "check", "train"]

SPLITS = ("train", "val", "test")

Log = Callable[[str], None]
Probabilities = Mapping[str, Float[np.ndarray, "image _class"]]


@dataclass(frozen=True)
class RunResult:
    """What a run found.

    Attributes:
        run: Its folder; None where none was asked for.
        head: Name of the head.
        epochs: Epochs that ran.
        best_epoch: The epoch chosen, from 1.
        seconds: From the first look at the store to the last figure.
        seconds_by_stage: `load`, `train`, `baselines` and `score`.
        parameters: Trained values of the head.
        images: Number of images in `train`, `val` and `test`, and how many `failed` and were left
        out.
        models_tried: Models between which validation chose: the head, and each task's regressions.
        validation: Table of figures, as `metrics.score` gives it.
        test: The same on the test split, scored once, after everything was chosen.
        baselines: `majority` and `logistic`, each with tables `validation` and `test`.
    """

    run: str | None
    head: str
    epochs: int
    best_epoch: int
    seconds: float
    seconds_by_stage: dict[str, float]
    parameters: int
    images: dict[str, int]
    models_tried: int
    validation: dict[str, Any]
    test: dict[str, Any]
    baselines: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON knows them."""
        return asdict(self)


def train(
    store: FeatureStore,
    config: TrainConfig,
    run_dir: str | Path | None = None,
    log: Log = lambda _: None,
) -> RunResult:
    """Train one head on a store and score it, with its baselines.

    Args:
        store: An open store, every row done or failed.
        config: What to train and how.
        run_dir: Folder to keep the run in; None keeps nothing.
        log: Called with a line of progress now and then.

    Raises:
        ConfigError: where the config asks for what the store cannot serve, or the store holds too
            little to train and score; everything that is wrong is said at once.
        OverwriteRefused: where the folder holds a finished run, or something else.
        RunError: where training diverges.
    """
    clock = _Clock()
    check(store, config, run_dir)
    raw = load_features(store, config.levels, config.window, config.tasks)
    standardiser = Standardiser.fit(raw, raw.rows("train"))
    features = raw.standardised(standardiser)
    del raw
    log(_described(features))
    clock.lap("load")
    if run_dir is not None:
        begin_run(run_dir, config, log)
    fitted = fit(features, config, log)
    model = Model(
        config, features.channels, features.tasks, features.window, standardiser, fitted.head
    )
    clock.lap("train")
    regression, strengths = logistic_regression(features, config)
    clock.lap("baselines")
    majority = _majority(features)
    logits = predict_logits(fitted.head, features.tokens, features.counts)
    probabilities = to_probabilities(logits, features.tasks)
    tables = _tables(features, probabilities, majority, config)
    baselines = {
        "majority": _tables(features, majority_answer(features, majority), majority, config),
        "logistic": _tables(features, regression, majority, config) | {"C": strengths},
    }
    clock.lap("score")
    result = RunResult(
        run=None if run_dir is None else str(run_dir),
        head=config.head,
        epochs=len(fitted.history),
        best_epoch=fitted.best.epoch,
        seconds=clock.total,
        seconds_by_stage=clock.laps,
        parameters=model.parameters,
        images=_images(features),
        models_tried=1 + len(GRID) * len(features.tasks),
        validation=tables["validation"],
        test=tables["test"],
        baselines=baselines,
    )
    if run_dir is not None:
        # The folder is not told its own name: it may be moved.
        metrics = {k: v for k, v in result.to_dict().items() if k != "run"}
        write_run(run_dir, run_files(model, features, probabilities, fitted.history, metrics))
    return result


def check(store: FeatureStore, config: TrainConfig, run_dir: str | Path | None = None) -> None:
    """Make sure that a run can be trained, without reading a feature.

    Raises:
        ConfigError: with everything that stands against it.
        OverwriteRefused: where the folder holds a finished run, or something else.
    """
    problems = selection_problems(store, config.levels, config.window, config.tasks)
    if config.head not in HEADS:
        problems.append(f"unknown head {config.head}; known heads: {', '.join(HEADS)}")
    problems += _row_problems(store)
    tasks = [t for t in config.tasks or store.tasks if t in store.tasks]
    problems += [problem for task in tasks for problem in _label_problems(store, task)]
    if problems:
        raise ConfigError(f"cannot train on {store.path}:\n  " + "\n  ".join(problems))
    if run_dir is not None:
        refuse_overwrite(run_dir)


def _row_problems(store: FeatureStore) -> list[str]:
    status = store.status
    waiting = int((status == PENDING).sum())
    problems = []
    if waiting:
        problems.append(
            f"{waiting} of {len(status)} images are pending; run the same samcls extract again to "
            "finish the store"
        )
    done = np.array(store.splits)[status == DONE]
    problems += [
        f"no image in split {split}; give the manifest rows of split {split} and extract again"
        for split in SPLITS
        if split not in done and not waiting
    ]
    return problems


def _label_problems(store: FeatureStore, task: str) -> list[str]:
    """What stands against learning a task, where its splits have images at all."""
    classes = store.tasks[task]
    labels = store.labels[:, list(store.tasks).index(task)]
    done, splits = store.status == DONE, np.array(store.splits)
    problems = []
    for split in SPLITS:
        rows = done & (splits == split)
        found = np.unique(labels[rows & (labels >= 0)])
        if rows.any() and not len(found):
            problems.append(
                f"task {task}: no image of split {split} has a label; leave the task out"
            )
        elif split == "train" and len(found) == 1:
            problems.append(
                f"task {task}: every training label is {classes[found[0]]}; training needs images "
                "of at least two classes"
            )
    return problems


def _majority(features: Features) -> dict[str, int]:
    labels = features.labels[features.rows("train")].numpy()
    return {
        task: majority_class(labels[:, i], len(classes))
        for i, (task, classes) in enumerate(features.tasks.items())
    }


def _tables(
    features: Features,
    probabilities: Probabilities,
    majority: Mapping[str, int],
    config: TrainConfig,
) -> dict[str, Any]:
    """The tables of the splits that were not trained on."""
    tables = {}
    for name, split in (("validation", "val"), ("test", "test")):
        rows = features.rows(split).numpy()
        tables[name] = score(
            features.labels.numpy()[rows],
            {task: values[rows] for task, values in probabilities.items()},
            features.tasks,
            majority,
            config.bootstrap,
            config.seed,
        )
    return tables


def _images(features: Features) -> dict[str, int]:
    return {split: features.splits.count(split) for split in SPLITS} | {"failed": features.failed}


def _described(features: Features) -> str:
    counts = ", ".join(f"{number} {name}" for name, number in _images(features).items())
    levels = ", ".join(f"{level} ({c})" for level, c in features.channels.items())
    return f"images: {counts}; levels (channels): {levels}; window {features.window}"


class _Clock:
    """Seconds since it was made, and of each stage."""

    def __init__(self) -> None:
        self.start = self.last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.laps[stage], self.last = round(now - self.last, 3), now

    @property
    def total(self) -> float:
        return round(time.perf_counter() - self.start, 3)
