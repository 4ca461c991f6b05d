"""One config, one run: check, load, standardise, train, choose on validation, score test once.

    result = train(FeatureStore.open("features.zarr"), TrainConfig(levels=("neck",)), "run")
    result.test["auc"], result.baselines["logistic"]["test"]["auc"]

BreastMNIST (780 images, five levels of 16 tokens from the miniature encoder, 100 epochs): 14.6 s of
one CPU core from process start to result, imports and six tables with intervals included. From a shell:
`samcls train STORE RUN`.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from samcls.config import TrainConfig
from samcls.device import choose_device, training_dtype
from samcls.errors import RunError
from samcls.learn.features.placement import placed
from samcls.learn.features.tensors import Features, Standardiser
from samcls.learn.fit.fit import fit, steady_threads
from samcls.learn.fit.prediction import Model, predict_logits, shape_of, to_probabilities
from samcls.learn.fit.schedule import Fitted
from samcls.learn.runs.baselines import baselines, majority_classes
from samcls.learn.runs.folder import CHECKPOINT, begin_run, run_files, write_run
from samcls.learn.runs.inputs import SPLITS, check, features_for, settled
from samcls.learn.runs.medmnist import check_medmnist, medmnist_files
from samcls.learn.runs.notes import Facts, facts_of
from samcls.learn.score.calibration import fit_temperature
from samcls.learn.score.headline import headlines
from samcls.learn.score.intervals import interval_notes
from samcls.learn.score.scoring import score
from samcls.store.feature_store import FeatureStore

__all__ = ["RunResult", "train"]


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
        models_tried: Models between which validation chose: the head's, and each baseline's.
        chosen: For a head that is solved (`logistic`, `knn`), the number chosen for each task.
        validation: Table of figures, as `metrics.score` gives it.
        test: The same on the test split, scored once, after everything was chosen.
        baselines: `majority`, `logistic` and, on request, more; each with tables `validation` and
            `test`, and where it was solved what was `chosen`.
        device: Where it was trained.
        precision: Of training's matrix products.
        notes: Sentences that belong under every table of these figures.
        leaks: Groups and pictures in several splits, with counts and ids, as `data.leaks` finds them.
        labelled: Of each task, how many images of `train`, `val` and `test` have a label.
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
    chosen: dict[str, float]
    validation: dict[str, Any]
    test: dict[str, Any]
    baselines: dict[str, Any]
    device: str = "cpu"
    precision: str = "float32"
    notes: tuple[str, ...] = ()
    leaks: dict[str, Any] = field(default_factory=dict)
    labelled: dict[str, dict[str, int]] = field(default_factory=dict)

    def __repr__(self) -> str:
        """What was trained, its figures and its baselines', and what belongs under them."""
        first = (
            f"RunResult of {self.run or 'a run that was not kept'}: {self.head} head, best of "
            f"{self.epochs} epochs is {self.best_epoch}, {self.parameters:,} parameters, "
            f"{self.seconds:.1f} s on {self.device}"
        )
        return "\n  ".join([first, *headlines(vars(self)), *self.notes])

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON knows them."""
        return {**asdict(self), "notes": list(self.notes)}


@contextmanager
def _memory_in_words() -> Iterator[None]:
    """Turn memory that runs out into what to do about it."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        known = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not known and "can't allocate memory" not in str(error):
            raise
        raise RunError(
            "there is not enough memory for this run; stream its features with --memory MB (memory "
            "in Python), a third of what is free, or take fewer levels or a larger window; a guided "
            "network needs less with --accumulate 4 or a smaller --batch-size"
        ) from error


@_memory_in_words()
def train(
    store: FeatureStore,
    config: TrainConfig,
    run_dir: str | Path | None = None,
    log: Log = lambda _: None,
    *,
    every_baseline: bool = False,
    memory: int | None = None,
    medmnist: str | None = None,
    device: str = "auto",
    allow_leak: bool = False,
    strict: bool = False,
) -> RunResult:
    """Train one head on a store and score it, with its baselines.

    Args:
        store: An open store, every row done or failed.
        config: What to train and how.
        run_dir: Folder to keep the run in; None keeps nothing.
        log: Called with a line of progress now and then.
        every_baseline: Whether to train the other controls too, as `baselines.baselines` says.
        memory: Bytes that the features may take; above it they are streamed from a scratch file.
        medmnist: Data set's flag, such as `breastmnist_64`: keep predictions in MedMNIST's format,
            which needs its own images, splits and labels.
        device: `auto` (the GPU where there is one), `cpu` or `cuda`. It is no part of the config:
            it changes nothing but the rounding.
        allow_leak: Whether groups may lie in several splits; the notes then say so.
        strict: Whether identical pixels in several splits are an error, not a note.

    Raises:
        ConfigError: where the config asks for what the store cannot serve, or the store holds too
            little to train and score, everything that is wrong being said at once; or where groups
            lie in several splits.
        OverwriteRefused: where the folder holds a finished run, or something else.
        RunError: where training diverges, or memory runs out.
    """
    clock = _Clock()
    targets = check(store, config, run_dir)
    if medmnist is not None:
        check_medmnist(medmnist, store, config, targets)
    config = settled(config, targets)
    facts = facts_of(store, config, targets, allow_leak=allow_leak, strict=strict)
    for line in (*targets.remarks, *facts.warnings):
        log(line)
    where = choose_device(device, training=True)
    raw = features_for(store, config, targets, memory)
    standardiser = Standardiser.fit(raw, raw.rows("train"))
    features = placed(raw.standardised(standardiser), where)
    del raw
    log(_described(features))
    for line in _absent(features):
        log(line)
    clock.lap("load")
    if run_dir is not None:
        begin_run(run_dir, config, log)
    with steady_threads(features, config):
        kept = None if run_dir is None else Path(run_dir) / CHECKPOINT
        fitted = fit(features, config, log, kept)
        clock.lap("train")
        answers = list(baselines(features, config, every_baseline))
        clock.lap("baselines")
        logits = predict_logits(fitted.head, features)
    model = Model(config, shape_of(features), features.tasks, standardiser, fitted.head.cpu())
    probabilities = to_probabilities(logits, features.tasks)
    tables = _tables(features, probabilities, config)
    scored = {
        name: _tables(features, answer.probabilities, config)
        | ({"chosen": dict(answer.chosen)} if answer.chosen else {})
        for name, answer in answers
    }
    clock.lap("score")
    tried = fitted.tried + sum(answer.tried for _, answer in answers)
    result = _result(run_dir, model, fitted, features, clock, tried, tables, scored, facts)
    if store.provenance:
        result = replace(result, notes=(*result.notes, store.provenance))
    if run_dir is not None:
        # The folder is not told its own name: it may be moved.
        metrics = {k: v for k, v in result.to_dict().items() if k != "run"}
        files = run_files(model, features, probabilities, fitted.history, metrics)
        if medmnist is not None:
            both = {"val": tables["validation"], "test": tables["test"]}
            run = str(config.seed)
            files |= medmnist_files(medmnist, run, features, probabilities, both)
        write_run(run_dir, files)
    return result


def _result(
    run_dir: str | Path | None,
    model: Model,
    fitted: Fitted,
    features: Features,
    clock: "_Clock",
    tried: int,
    tables: Mapping[str, Any],
    scored: dict[str, Any],
    facts: Facts,
) -> RunResult:
    return RunResult(
        run=None if run_dir is None else str(run_dir),
        head=model.config.head,
        epochs=len(fitted.history),
        best_epoch=fitted.best.epoch,
        seconds=clock.total,
        seconds_by_stage=clock.laps,
        parameters=model.parameters,
        images=_images(features),
        models_tried=tried,
        chosen=dict(fitted.chosen),
        validation=tables["validation"],
        test=tables["test"],
        baselines=scored,
        device=features.device.type,
        precision=str(training_dtype(model.config.precision, features.device)).split(".")[1],
        notes=(*facts.notes, *interval_notes(tables["test"])),
        leaks=facts.leaks,
        labelled=_labelled(features),
    )


def _tables(
    features: Features, probabilities: Probabilities, config: TrainConfig
) -> dict[str, Any]:
    """The tables of the splits that were not trained on, the test split's once and last."""
    labels, val = features.labels.numpy(), features.rows("val").numpy()
    temperatures = {
        task: fit_temperature(labels[val, i], probabilities[task][val])
        for i, task in enumerate(features.tasks)
    }
    majority = majority_classes(features)
    tables = {}
    for name, split in (("validation", "val"), ("test", "test")):
        rows = features.rows(split).numpy()
        tables[name] = score(
            labels[rows],
            {task: values[rows] for task, values in probabilities.items()},
            features.tasks,
            majority,
            config.intervals,
            [features.groups[row] for row in rows.tolist()],
            temperatures,
        )
    return tables


def _images(features: Features) -> dict[str, int]:
    return {split: features.splits.count(split) for split in SPLITS} | {"failed": features.failed}


def _labelled(features: Features) -> dict[str, dict[str, int]]:
    known = (features.labels >= 0).cpu()
    return {
        task: {split: int(known[features.rows(split), column].sum()) for split in SPLITS}
        for column, task in enumerate(features.tasks)
    }


def _described(features: Features) -> str:
    counts = ", ".join(f"{number} {name}" for name, number in _images(features).items())
    levels = ", ".join(f"{level} ({c})" for level, c in features.channels.items())
    return f"images: {counts}; levels (channels): {levels}; window {features.window}"


def _absent(features: Features) -> list[str]:
    """A sentence for each split that has no image of some class."""
    found = []
    for column, (task, classes) in enumerate(features.tasks.items()):
        for split in SPLITS:
            seen = set(features.labels[features.rows(split), column].tolist())
            names = [name for c, name in enumerate(classes) if c not in seen]
            if names:
                cost = "it cannot be learned" if split == "train" else "its AUC is not defined"
                found.append(
                    f"task {task}: no image of class {', '.join(names)} in split {split}; {cost}"
                )
    return found


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
