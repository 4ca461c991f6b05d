"""What a run found, as Python and JSON know it.

Every run says `common_figures` of itself; one whose test split was scored is a `RunResult`.

    metrics = common_figures(model, fitted, features)
    metrics["best_epoch"], metrics["images"]["train"]
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from samcls.device import training_dtype
from samcls.learn.features.tensors import Features
from samcls.learn.fit.prediction import Model
from samcls.learn.fit.schedule import Fitted
from samcls.learn.runs.gain import gain_sentences
from samcls.learn.runs.inputs import SPLITS
from samcls.learn.score.headline import headlines

__all__ = ["RunResult", "common_figures", "image_counts"]


@dataclass(frozen=True)
class RunResult:
    """What a run found.

    Attributes:
        run: Its folder; None where none was asked for.
        head: Name of the head.
        epochs: Epochs that ran; 1 of a head that is solved, or fitted in parts.
        best_epoch: The epoch chosen, from 1.
        seconds: From the first look at the store to the last figure.
        seconds_by_stage: `load`, `train`, `baselines` and `score`.
        parameters: Trained values of the head.
        images: Number of images in `train`, `val` and `test`, and how many `failed` and were left
            out.
        models_tried: Models between which validation chose: the head's, and each baseline's.
        chosen: For a head that is solved (`logistic`, `knn`), the number chosen for each task; of an
            ensemble, its heads' epochs and its regressions' numbers.
        validation: Table of figures, as `metrics.score` gives it.
        test: The same on the test split, scored once, after everything was chosen.
        baselines: `majority`, `logistic` and, on request, more; each with tables `validation` and
            `test`, and where it was solved what was `chosen`.
        device: Where it was trained.
        precision: Of training's matrix products.
        notes: Sentences that belong under every table of these figures.
        leaks: Groups and pictures in several splits, with counts and ids, as `data.leaks` finds them.
        gain: Of a head that weighs windows, for each task its test AUC minus that of the best control
            that sees the same windows, as `gain.gain_over_controls` gives it.
        select: What chose: `holdout`, or inner folds of all that was learned from; `validation` is then
            of those images out of fold.
        labelled: Of each task, how many images of `train`, `val` and `test` have a label.
        weights: What the store says of the file that the encoder's weights came from, or that they were
            drawn; empty where nothing is known.
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
    gain: dict[str, Any] = field(default_factory=dict)
    select: str = "holdout"
    weights: Mapping[str, str | None] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Return what was trained, its figures and its baselines', and what belongs under them."""
        epochs = f", best of {self.epochs} epochs is {self.best_epoch}" if self.epochs > 1 else ""
        first = (
            f"RunResult of {self.run or 'a run that was not kept'}: {self.head} head{epochs}, "
            f"{self.parameters:,} parameters, {self.seconds:.1f} s on {self.device}"
        )
        gain = gain_sentences(self.head, self.gain)
        return "\n  ".join([first, *headlines(vars(self)), *gain, *self.notes])

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON knows them."""
        return {**asdict(self), "notes": list(self.notes)}


def common_figures(model: Model, fitted: Fitted, features: Features) -> dict[str, Any]:
    """Return what can be said of a run before any split is scored: fields of `RunResult`.

    Args:
        model: The selected model.
        fitted: What training left.
        features: What it was trained on.
    """
    return {
        "head": model.config.head,
        "select": model.config.select,
        "epochs": len(fitted.history),
        "best_epoch": fitted.best.epoch,
        "parameters": model.parameters,
        "images": image_counts(features),
        "chosen": dict(fitted.chosen),
        "device": features.device.type,
        "precision": str(training_dtype(model.config.precision, features.device)).split(".")[1],
        "labelled": _labelled(features),
    }


def image_counts(features: Features) -> dict[str, int]:
    """Return the number of images in each split, and how many failed and were left out."""
    return {split: features.splits.count(split) for split in SPLITS} | {"failed": features.failed}


def _labelled(features: Features) -> dict[str, dict[str, int]]:
    known = (features.labels >= 0).cpu()
    return {
        task: {split: int(known[features.rows(split), column].sum()) for split in SPLITS}
        for column, task in enumerate(features.tasks)
    }
