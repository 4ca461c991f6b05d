"""One config, one run: check, load, standardise, train, choose on validation, score test once.

    result = train(FeatureStore.open("features.zarr"), TrainConfig(levels=("neck",)), "run")
    result.test["auc"], result.baselines["logistic"]["test"]["auc"]

From a shell: `samcls train STORE RUN`.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from samcls.device import choose_device
from samcls.errors import RunError
from samcls.learn.features.meta import unseen
from samcls.learn.features.placement import placed
from samcls.learn.features.targets import without
from samcls.learn.features.tensors import ChannelScaler, Features, image_rows
from samcls.learn.fit.answers import answers, judged
from samcls.learn.fit.fit import fit
from samcls.learn.fit.prediction import Model, shape_of
from samcls.learn.fit.schedule import Fitted
from samcls.learn.heads.controls import judges
from samcls.learn.runs.baselines import Answer, baselines, majority_classes
from samcls.learn.runs.folder import CONTROLS
from samcls.learn.runs.gain import best_controls, gain_over_controls
from samcls.learn.runs.inputs import SPLITS, check, features_for, settled
from samcls.learn.runs.known import KNOWN, known_file
from samcls.learn.runs.medmnist import check_medmnist, medmnist_files
from samcls.learn.runs.notes import Facts, facts_of
from samcls.learn.runs.predictions import controls_csv
from samcls.learn.runs.result import RunResult, common_figures, image_counts
from samcls.learn.runs.writing import CHECKPOINT, begin_run, run_files, write_run
from samcls.learn.score.calibration import fit_temperature
from samcls.learn.score.intervals import interval_notes
from samcls.learn.score.operating import fit_threshold
from samcls.learn.score.scoring import score
from samcls.learn.settings import TrainConfig
from samcls.store.feature_store import FeatureStore

__all__ = ["RunResult", "train"]


Log = Callable[[str], None]
Probabilities = Mapping[str, Float[np.ndarray, "image _class"]]


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
    leave_out: Sequence[str] = (),
) -> RunResult:
    """Train one head on a store and score it, with its baselines.

    Args:
        store: An open store, every row done or failed.
        config: What to train and how.
        run_dir: Folder to keep the run in; None keeps nothing.
        log: Called with a line of progress now and then.
        every_baseline: Whether to train the other controls too, as `baselines.baselines` says.
        memory: Bytes that the features may take; above it they lie in a scratch file.
        medmnist: Data set's flag, such as `breastmnist_64`: keep predictions in MedMNIST's format,
            which needs its own images, splits and labels.
        device: `auto` (the GPU where there is one), `cpu` or `cuda`. It is no part of the config:
            it changes nothing but the rounding.
        allow_leak: Whether groups may lie in several splits; the notes then say so.
        strict: Whether identical pixels in several splits are an error, not a note.
        leave_out: Training images, by id, that take no part; all others stay where they are.

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
    targets = without(targets, store.ids, leave_out)
    facts = facts_of(store, config, targets, allow_leak=allow_leak, strict=strict)
    for line in (*targets.remarks, *facts.warnings):
        log(line)
    where = choose_device(device, training=True)
    features = features_for(store, config, targets, memory)
    scaler = ChannelScaler.fit(features, features.rows("train"))
    features = placed(features.standardise_(scaler), where)
    log(_described(features))
    for line in (*_absent(features), *unseen(features.meta, store.meta), facts.counts):
        log(line)
    clock.lap("load")
    if run_dir is not None:
        begin_run(run_dir, config, log)
    kept = None if run_dir is None else Path(run_dir) / CHECKPOINT
    fitted = fit(features, config, log, kept)
    clock.lap("train")
    beside = list(baselines(features, config, every_baseline, fitted.parts))
    clock.lap("baselines")
    probabilities = answers(fitted, features, config)
    parts = shape_of(features), features.tasks, scaler, fitted.head.cpu()
    model = Model(config, *parts, features.meta)
    majority, chose = majority_classes(features), judged(features, config)
    tables = _tables(chose, probabilities, config, majority)
    scored = {
        name: _tables(chose, answer.probabilities, config, majority)
        | ({"chosen": dict(answer.chosen)} if answer.chosen else {})
        for name, answer in beside
    }
    gain = _gain(features, config, probabilities, dict(beside), scored)
    clock.lap("score")
    tried = fitted.tried + sum(answer.tried for _, answer in beside)
    result = _result(
        run_dir,
        model,
        fitted,
        features,
        clock,
        tried,
        tables,
        scored,
        facts,
        gain,
        store.checkpoint,
    )
    if store.provenance:
        result = replace(result, notes=(*result.notes, store.provenance))
    if run_dir is not None:
        # The folder is not told its own name: it may be moved.
        metrics = {k: v for k, v in result.to_dict().items() if k != "run"}
        files = run_files(model, chose, probabilities, fitted.history, metrics)
        said = {name: answer.probabilities for name, answer in beside}
        files[CONTROLS] = controls_csv(chose, said, ("val", "test"))
        files[KNOWN] = known_file(features, store.sha256[image_rows(store, features.ids).numpy()])
        if medmnist is not None:
            both = {"val": tables["validation"], "test": tables["test"]}
            run = str(config.seed)
            files |= medmnist_files(medmnist, run, chose, probabilities, both)
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
    gain: dict[str, Any],
    weights: Mapping[str, str | None],
) -> RunResult:
    return RunResult(
        run=None if run_dir is None else str(run_dir),
        **common_figures(model, fitted, features),
        seconds=clock.total,
        seconds_by_stage=clock.laps,
        models_tried=tried,
        validation=tables["validation"],
        test=tables["test"],
        baselines=scored,
        notes=(*facts.notes, *interval_notes(tables["test"])),
        leaks=facts.leaks,
        gain=gain,
        weights=weights,
    )


def _gain(
    features: Features,
    config: TrainConfig,
    probabilities: Probabilities,
    answers: Mapping[str, Answer],
    scored: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what the head gains over the best control of the same windows, where it weighs windows at all."""
    beside = judges(config) if config.intervals else ()
    if not beside:
        return {}
    validations = {name: [one["validation"]] for name, one in scored.items()}
    chosen = best_controls([*features.tasks], beside, validations)
    rows = features.rows("test").numpy()
    said = {name: answers[name].probabilities for name in set(chosen.values())}
    parts = {
        name: [{task: one[rows] for task, one in given.items()}]
        for name, given in ({"": probabilities} | said).items()
    }
    labels = features.labels.cpu().numpy()[rows]
    groups = [features.groups[row] for row in rows.tolist()]
    return gain_over_controls(features.tasks, labels, groups, parts.pop(""), parts, chosen)


def _tables(
    features: Features,
    probabilities: Probabilities,
    config: TrainConfig,
    majority: Mapping[str, int],
) -> dict[str, Any]:
    """Return the tables of the splits that were not trained on, the test split's once and last."""
    labels, val = features.labels.numpy(), features.rows("val").numpy()
    temperatures = {
        task: fit_temperature(labels[val, i], probabilities[task][val])
        for i, task in enumerate(features.tasks)
    }
    thresholds = {
        task: fit_threshold(labels[val, i], probabilities[task][val])
        for i, task in enumerate(features.tasks)
    }
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
            thresholds,
        )
    return tables


def _described(features: Features) -> str:
    counts = ", ".join(f"{number} {name}" for name, number in image_counts(features).items())
    levels = ", ".join(f"{level} ({c})" for level, c in features.channels.items())
    return f"images: {counts}; levels (channels): {levels}; window {features.window}"


def _absent(features: Features) -> list[str]:
    """Return a sentence for each split that has no image of some class."""
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
