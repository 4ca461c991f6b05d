"""`samcls export`: a run handed over, after it was seen to say what was measured.

The run is opened as for prediction. Of pictures that are the run's own, known by their pixels, it must say what
its `predictions.csv` holds; then the folder is written, and must say the same (`export/`).

    hand_over("run", "model", images=["manifest.csv"])
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8

from samcls.data.images import pixel_digest, read_image
from samcls.data.manifest import SPLITS
from samcls.deploy.card import card_of
from samcls.deploy.export.folder import Export, export, refuse_existing
from samcls.deploy.export.selfcheck import MOST
from samcls.deploy.inputs import Pictures, pictures_of
from samcls.deploy.predictor import Predictor, load_predictor
from samcls.errors import ExportError, ImageError, InputError
from samcls.learn.runs.folder import Run

__all__ = ["hand_over"]

APART = 1e-4  # of a probability: more than rounding on another machine may bring

Log = Callable[[str], None]


def hand_over(
    run: str | Path,
    directory: str | Path,
    *,
    images: Sequence[str | Path] = (),
    form: str = "onnx",
    head_only: bool = False,
    checkpoint: str | Path | None = None,
    root: str | Path | None = None,
    log: Log = lambda _: None,
) -> Export:
    """Export a run, or the mean of several seeds or folds, as a folder that runs without samcls.

    Args:
        run: Its folder, or one of seeds or folds, or a sweep's.
        directory: A new or empty folder.
        images: Pictures to check with, as for `samcls predict`, 64 of them evenly spaced; built-in ones
            by default.
        form: `onnx`, `torch-export` or `both`.
        head_only: Leave the encoder out: the model then takes features as they are cached.
        checkpoint: File of the encoder's weights, where it is not found by its digest.
        root: Folder that a manifest's relative paths start from.
        log: Called with a sentence on each step.

    Raises:
        InputError: there is no such run, or no picture to check with.
        ExportError: the run cannot be exported, or does not say here what it said.
        OverwriteRefused: the folder holds something.
        RunError: the disk is full.
    """
    refuse_existing(directory)
    predictor = load_predictor(run, checkpoint=checkpoint, device="cpu", log=log)
    pictures: list[UInt8[np.ndarray, "_row _col 3"]] | None = None
    labels: dict[str, Int[np.ndarray, " image"]] = {}
    if images:
        found = pictures_of(images, root=root)
        chosen = np.linspace(0, len(found.rows) - 1, min(MOST, len(found.rows))).astype(np.int64)
        pictures, rows = _read(found, chosen, log)
        labels = _labels(predictor, found, rows)
        labels = _own(predictor, pictures, labels, log)

    def answer(given: list[np.ndarray]) -> dict[str, Float[np.ndarray, "image _class"]]:
        said = predictor.say(given)
        if any(said.error):
            raise ExportError(f"a picture cannot be used: {next(one for one in said.error if one)}")
        return dict(said.probabilities)

    return export(
        predictor,
        answer,
        directory,
        form=form,
        head_only=head_only,
        images=pictures,
        labels=labels,
        card=card_of(run),
        log=log,
    )


def _read(
    found: Pictures, chosen: Int[np.ndarray, " image"], log: Log
) -> tuple[list[UInt8[np.ndarray, "_row _col 3"]], list[int]]:
    """Read pictures; those that cannot be read are left out."""
    pictures, rows = [], []
    for number in chosen.tolist():
        row = found.rows[number]
        try:
            pictures.append(read_image(row.path, row.index))
        except ImageError as error:
            log(str(error))
            continue
        rows.append(number)
    if not pictures:
        raise InputError("none of the pictures can be read; name others, or leave them out")
    return pictures, rows


def _labels(
    predictor: Predictor, found: Pictures, rows: Sequence[int]
) -> dict[str, Int[np.ndarray, " image"]]:
    """Return the manifest's labels as the run's classes, -1 where there is none."""
    named = {}
    for task, classes in predictor.tasks.items():
        if task in found.tasks:
            places = {name: i for i, name in enumerate(classes)}
            column = list(found.tasks).index(task)
            own = [places.get(found.rows[row].labels[column], -1) for row in rows]
            named[task] = np.array(own, dtype=np.int64)
    return named


def _own(
    predictor: Predictor,
    pictures: Sequence[UInt8[np.ndarray, "_row _col 3"]],
    labels: dict[str, Int[np.ndarray, " image"]],
    log: Log,
) -> dict[str, Int[np.ndarray, " image"]]:
    """Make sure that the run says of its own pictures what it said; return labels, its own where it has them."""
    (run, *others) = predictor.runs
    if run.known is None or others:
        return labels
    said, known = _written(run)
    places = {digest.tobytes(): i for i, digest in enumerate(run.known.sha256)}
    digests = [bytes.fromhex(pixel_digest(one)) for one in pictures]
    own = [(i, places[one]) for i, one in enumerate(digests) if one in places]
    if not own:
        return labels
    here, there = (np.array(part) for part in zip(*own, strict=True))
    found = predictor.say([pictures[i] for i in here.tolist()])
    worst = 0.0
    for column, task in enumerate(run.tasks):
        values = said[task][there]
        written = ~np.isnan(values).any(1)
        gap = np.abs(found.probabilities[task] - values)[written]
        worst = max(worst, float(gap.max(initial=0)))
        if task not in labels:
            labels[task] = np.full(len(pictures), -1, dtype=np.int64)
            labels[task][here] = known[there, column]
    if not worst <= APART:
        raise ExportError(
            f"of its own pictures the run says something else here than its predictions.csv: a probability "
            f"differs by {worst:.2g}. Another version of a package, or another processor, changes the features; "
            "train again on this machine and export that"
        )
    log(
        f"{len(own)} of {len(pictures)} pictures are the run's own: here it says what its predictions.csv holds, "
        f"to {worst:.1g}"
    )
    return labels


def _written(
    run: Run,
) -> tuple[dict[str, Float[np.ndarray, "image _class"]], Int[np.ndarray, "image task"]]:
    """Return what the run's predictions hold, in the order of its digests; not a number where nothing."""
    by_id: dict[str, tuple[int, int]] = {}
    parts = {}
    for number, split in enumerate(SPLITS):
        try:
            parts[number] = run.predictions(split)
        except InputError:  # inner folds: all that was learned from stands in split val
            continue
        by_id |= {name: (number, place) for place, name in enumerate(parts[number].ids)}
    order = run.order
    labels = np.stack([parts[by_id[name][0]].labels[by_id[name][1]] for name in order])
    said = {
        task: np.stack(
            [parts[by_id[name][0]].probabilities[task][by_id[name][1]] for name in order]
        )
        for task in run.tasks
    }
    if (
        run.config.inner
    ):  # of those that were learned from the table holds what out-of-fold heads said
        for task, values in said.items():
            learned = run.known is not None and run.known.splits < SPLITS.index("test")
            said[task] = np.where(np.reshape(learned, (-1, 1)), np.nan, values)
    return said, labels
