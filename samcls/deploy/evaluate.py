"""`samcls evaluate`: a frozen run on another data set, for which nothing is fitted.

Figures have intervals (groups whole), at the run's own threshold and before and after its own temperature; they
stand beside those of the run's own test images, with the difference. What may explain it is told beside them:
shares of classes, how unfamiliar the images are, subgroups by the manifest's columns. Recalibration on a part of
the images is asked for by name and is a row of its own, on the rest.

    found = evaluate("run", "other-hospital.zarr", "evaluation")
    found.figures["auc"], found.difference["grade"]["auc"]
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from samcls.data.manifest import SPLITS, read_manifest
from samcls.deploy.mapping import labels_for
from samcls.deploy.predictor import Predictor, load_predictor
from samcls.deploy.recalibrate import recalibrated
from samcls.deploy.subgroups import subgroups
from samcls.errors import InputError, OverwriteRefused
from samcls.files import few, to_json
from samcls.learn.runs.folder import MARK
from samcls.learn.runs.operating import mean_of
from samcls.learn.runs.predictions import Predictions, predictions_csv, together
from samcls.learn.runs.writing import place_run
from samcls.learn.score.headline import of_task
from samcls.learn.score.metrics import FIGURES
from samcls.learn.score.scoring import majority_class, score
from samcls.learn.score.unpaired import differences
from samcls.store.feature_store import FeatureStore
from samcls.store.schema import DONE, FAILED, PENDING

__all__ = ["EVALUATION", "Evaluation", "evaluate", "load_evaluation"]

EVALUATION = "evaluation.json"
PARTS = 1000  # of the images that are left out in turn for an interval
UNKNOWN = (
    "the run keeps no digests of its images, being of a sweep or an earlier version: whether it learned from some "
    "of these, and how unfamiliar they are, cannot be told"
)
FAR = 95.0  # percentile of training's distances: five images of a hundred lie farther out by chance

Log = Callable[[str], None]


@dataclass(frozen=True)
class Evaluation:
    """What a run said of another data set, and how well.

    Attributes:
        run: Its folder.
        store: The data set's store.
        images: Number of images that were scored, that `failed`, and that have no label of the run's
            classes (`unlabelled`).
        seen: How many stood in the run's own train, val and test.
        figures: As `scoring.score` gives them, `threshold` and `temperature` being the run's own.
        inside: The same of the run's own test images.
        difference: By task, of each figure `figures` - `inside` with its interval.
        shares: By task, each class's share of the labels here and among the run's own test images, and
            the mean of its probability here.
        drift: How unfamiliar the images are: the share beyond the 95th percentile of training's
            distances and the median percentile, by chance 0.05 and 50; empty where the run does not know.
        subgroups: By column and text, images and figures.
        recalibrated: On request, what was fitted on which part, and figures of the rest before and after.
        seconds: From the first look at the run to the last figure.
        notes: Sentences that belong under the figures.
    """

    run: str
    store: str
    images: Mapping[str, int]
    seen: Mapping[str, int]
    figures: Mapping[str, Any]
    inside: Mapping[str, Any]
    difference: Mapping[str, Mapping[str, Any]]
    shares: Mapping[str, Mapping[str, Mapping[str, float]]]
    drift: Mapping[str, float]
    subgroups: Mapping[str, Mapping[str, Any]]
    recalibrated: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON knows them."""
        return {**asdict(self), "notes": list(self.notes)}


def evaluate(
    run: str | Path,
    data: str | Path,
    out: str | Path | None = None,
    *,
    classes: str | Path | None = None,
    splits: Sequence[str] = (),
    recalibrate: str | None = None,
    allow_leak: bool = False,
    store: str | Path | None = None,
    root: str | Path | None = None,
    checkpoint: str | Path | None = None,
    device: str = "auto",
    batch: int | None = None,
    log: Log = lambda _: None,
) -> Evaluation:
    """Score a frozen run on another data set.

    Args:
        run: A run's folder, or one of seeds or folds, which are averaged.
        data: A feature store made with the run's settings, or a manifest (`.csv`), which is encoded first.
        out: Folder for the result; None keeps nothing.
        classes: CSV that says which of the run's classes the data set's are, as `mapping` has it.
        splits: Splits of the data set to score; none named means all.
        recalibrate: Part of the images that temperature and threshold are fitted anew on: a share such
            as `0.2`, groups whole, or a split; figures of the rest are then told too.
        allow_leak: Whether images of the run's own training and validation may be among them.
        store: Where the features of a manifest's images are kept; beside `out` by default.
        root: Folder that the manifest's relative paths start from.
        checkpoint: File of the encoder's weights, where it is not found by its digest.
        device: `auto`, `cpu` or `cuda`.
        batch: Images encoded together.
        log: Called with a sentence on anything that a user should know.

    Raises:
        InputError: there is no such run, tasks or classes do not match, images have no labels, or the run
            learned from some of them.
        FingerprintMismatch: the store was made with other settings.
        OverwriteRefused: the folder holds something.
    """
    begun = time.monotonic()
    _refuse_taken(out)
    predictor = load_predictor(run, checkpoint=checkpoint, device=device, batch=batch, log=log)
    opened = _store_of(predictor, data, out, store, root, log)
    opened.require(predictor.fingerprint)
    labels = labels_for(predictor.tasks, opened.tasks, opened.labels, classes)
    rows, images = _rows(opened, labels, splits)
    said, seen, far = _said(predictor, opened, rows, labels)
    notes = _refuse_seen(said, seen, allow_leak=allow_leak)
    notes += [] if predictor.knows else [UNKNOWN]
    inside = _inside(predictor)
    scored = _Scoring(predictor)
    figures, own = scored.table(said), scored.table(inside)
    names = (*FIGURES, *(f"{name}_at_threshold" for name in ("sensitivity", "specificity")))
    found = Evaluation(
        run=str(run),
        store=opened.path,
        images=images,
        seen={split: seen.count(split) for split in SPLITS},
        figures=figures,
        inside=own,
        difference={
            task: differences(of_task(figures, task), of_task(own, task), names)
            for task in predictor.tasks
        },
        shares=_shares(predictor, said, inside),
        drift=_drift(far),
        subgroups=subgroups(
            {name: [texts[row] for row in rows.tolist()] for name, texts in opened.meta.items()},
            said,
            scored.table,
        ),
        recalibrated={}
        if recalibrate is None
        else recalibrated(recalibrate, predictor, said, [opened.splits[r] for r in rows.tolist()]),
        seconds=time.monotonic() - begun,
        notes=tuple(notes),
    )
    if out is not None:
        chosen = [opened.splits[row] for row in rows.tolist()]
        files = {
            EVALUATION: to_json(found.to_dict()),
            "predictions.csv": predictions_csv(said, chosen, predictor.tasks),
        }
        place_run(out, files)
    return found


def load_evaluation(path: str | Path) -> dict[str, Any]:
    """Read back what `evaluate` kept, as JSON knows it.

    Raises:
        InputError: there is none, or it is unfinished.
    """
    path = Path(path)
    if not (path / MARK).exists() or not (path / EVALUATION).exists():
        raise InputError(f"{path} holds no evaluation; make one with: samcls evaluate RUN STORE")
    try:
        found: dict[str, Any] = json.loads((path / EVALUATION).read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path / EVALUATION} is damaged: {error}; evaluate again") from error
    return found


@dataclass(frozen=True)
class _Scoring:
    """Scores predictions with a run's own temperature and threshold."""

    predictor: Predictor

    def table(self, said: Predictions) -> dict[str, Any]:
        """Return the figures of some images."""
        points = self.predictor.points
        run = self.predictor.runs[0]
        # Where inner folds choose, all that was learned from stands in split val.
        train = run.predictions("val" if run.config.inner else "train")
        majority = {
            task: majority_class(train.labels[:, i], len(names))
            for i, (task, names) in enumerate(self.predictor.tasks.items())
        }
        return score(
            said.labels,
            said.probabilities,
            self.predictor.tasks,
            majority,
            PARTS,
            said.groups,
            {task: point.temperature for task, point in points.items()},
            {task: point.threshold for task, point in points.items()},
        )


def _store_of(
    predictor: Predictor,
    data: str | Path,
    out: str | Path | None,
    store: str | Path | None,
    root: str | Path | None,
    log: Log,
) -> FeatureStore:
    """Open the data set's store, which is made first of a manifest."""
    if not str(data).lower().endswith(".csv"):
        return FeatureStore.open(data)
    place = store or (None if out is None else f"{out}.zarr")
    if place is None:
        raise InputError(
            f"{data} is a manifest, whose images are encoded first; name a place for their features with "
            "--store S.zarr, or a folder for the result with --out"
        )
    manifest = read_manifest(data, root, bare=True)
    if not manifest.tasks:
        raise InputError(
            f"{data} has no label column, so nothing can be scored; samcls predict needs none"
        )
    from samcls.encode.extract import extract

    options = predictor.options
    predictor.release()  # extract opens the encoder itself
    extract(manifest, place, options, log=log, allow_leak=True)
    return FeatureStore.open(place)


def _rows(
    store: FeatureStore, labels: Int[np.ndarray, "image task"], splits: Sequence[str]
) -> tuple[Int[np.ndarray, " row"], dict[str, int]]:
    """Return the images to score, and how many there are of each kind."""
    status = store.status
    if waiting := int((status == PENDING).sum()):
        raise InputError(
            f"{waiting} of {len(status)} images of {store.path} are pending; run the same samcls extract again "
            "to finish the store"
        )
    unknown = [split for split in splits if split not in SPLITS]
    if unknown:
        raise InputError(f"unknown split {few(unknown)}; expected of {', '.join(SPLITS)}")
    wanted = np.isin(np.array(store.splits), splits or SPLITS)
    labelled = (labels >= 0).any(1)
    rows = np.flatnonzero((status == DONE) & wanted & labelled)
    if not len(rows):
        raise InputError(
            f"no image of {store.path} in split {', '.join(splits or SPLITS)} is encoded and has a label"
        )
    return rows, {
        "scored": len(rows),
        "failed": int(((status == FAILED) & wanted).sum()),
        "unlabelled": int(((status == DONE) & wanted & ~labelled).sum()),
    }


def _said(
    predictor: Predictor,
    store: FeatureStore,
    rows: Int[np.ndarray, " row"],
    labels: Int[np.ndarray, "image task"],
) -> tuple[Predictions, list[str], Float[np.ndarray, " row"]]:
    """Return what is said of the images, where each stood in the run's data, and how unfamiliar it is."""
    parts = list(predictor.of_store(store, rows, store.meta))
    ids, groups = store.ids, store.groups
    said = Predictions(
        ids=tuple(ids[row] for row in rows.tolist()),
        labels=labels[rows],
        probabilities={
            task: np.concatenate([part.probabilities[task] for part in parts])
            for task in predictor.tasks
        },
        groups=tuple(groups[row] for row in rows.tolist()),
    )
    seen = [one for part in parts for one in part.seen]
    return said, seen, np.concatenate([part.unfamiliar for part in parts])


def _refuse_seen(said: Predictions, seen: Sequence[str], *, allow_leak: bool) -> list[str]:
    """Refuse images that the run learned from or was chosen by; say what else must be known."""
    learned = [
        name for name, split in zip(said.ids, seen, strict=True) if split in ("train", "val")
    ]
    notes = []
    if learned:
        said_of = (
            f"{len(learned)} of {len(seen)} images stood in the run's own training or validation split "
            f"({few(learned)})"
        )
        if not allow_leak:
            raise InputError(
                f"{said_of}: figures on them would be too good. Take them out of the manifest, score the split "
                "test alone with --split test, or accept it with --allow-leak"
            )
        notes.append(f"a leak that was allowed: {said_of}; figures are too good")
    if own := list(seen).count("test"):
        notes.append(
            f"{own} of {len(seen)} images are the run's own test images, so that both sets of figures rest on "
            "them and the interval of the difference is too wide"
        )
    return notes


def _inside(predictor: Predictor) -> Predictions:
    """Return what the runs say of their own test images: seeds averaged, folds one behind another."""
    by_fold: dict[int, list[Predictions]] = {}
    for run in predictor.runs:
        fold = run.config.fold if run.config.folds else 0
        by_fold.setdefault(fold, []).append(run.predictions("test"))
    return together([mean_of(parts) for parts in by_fold.values()])


def _shares(
    predictor: Predictor, said: Predictions, inside: Predictions
) -> dict[str, dict[str, dict[str, float]]]:
    """Return how common each class is here and inside, and how probable the run takes it to be here."""
    found = {}
    for column, (task, classes) in enumerate(predictor.tasks.items()):
        known = said.labels[:, column] >= 0
        counted = [_counted(one.labels[:, column], len(classes)) for one in (said, inside)]
        mean = said.probabilities[task][known].mean(0, dtype=np.float64) if known.any() else None
        found[task] = {
            name: {
                "here": float(counted[0][i]),
                "inside": float(counted[1][i]),
                "predicted": float("nan") if mean is None else float(mean[i]),
            }
            for i, name in enumerate(classes)
            if mean is not None
        }
    return found


def _counted(labels: Int[np.ndarray, " image"], classes: int) -> Float[np.ndarray, " class"]:
    counts = np.bincount(labels[labels >= 0], minlength=classes)
    shares: np.ndarray = counts / max(1, counts.sum())
    return shares


def _drift(far: Float[np.ndarray, " image"]) -> dict[str, float]:
    known: Bool[np.ndarray, " image"] = ~np.isnan(far)
    if not known.any():
        return {}
    return {
        "beyond_95": float((far[known] >= FAR).mean()),
        "median_percentile": float(np.median(far[known])),
    }


def _refuse_taken(out: str | Path | None) -> None:
    if out is None or not Path(out).exists():
        return
    if not Path(out).is_dir() or any(Path(out).iterdir()):
        raise OverwriteRefused(f"{out} is there already; name another folder, or remove it first")
