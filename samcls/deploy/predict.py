"""`samcls predict`: pictures to a table, a row for each picture and task, written as it goes.

    id,path,task,p_benign,p_malignant,predicted,scaled_benign,scaled_malignant,spread,seen,unfamiliar,error,model

By group it is a row for each patient: the mean of the images' log-probabilities, and their softmax. From Python:

    summary = predict("run", ["scans/"], "p.csv", log=print)
"""

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from samcls.data.manifest import Manifest, Row, file_of
from samcls.deploy.inputs import Pictures, pictures_of
from samcls.deploy.predictor import Predictor, load_predictor
from samcls.deploy.said import Said
from samcls.deploy.table import Table
from samcls.errors import InputError, OverwriteRefused
from samcls.files import few
from samcls.learn.score.metrics import SMALLEST
from samcls.store.feature_store import FeatureStore

__all__ = ["BY", "PredictSummary", "predict"]

BY = ("image", "group")
STRONGEST = ("train", "val", "test", "")

Log = Callable[[str], None]
Progress = Callable[[int, int, int, int], None]


@dataclass(frozen=True)
class PredictSummary:
    """What was predicted.

    Attributes:
        out: The table; None where none was written.
        images: Pictures that were named.
        failed: Those that could not be used.
        skipped: Those that stood in the table before.
        seconds: From the first look at the run to the last row.
        images_per_second: Of the pictures predicted now, from the first on.
        seen: How many stood in the run's own train, val and test.
        predictions: The rows, where no table was written.
        failures: (id, reason) of each picture that failed.
    """

    out: str | None
    images: int
    failed: int
    skipped: int
    seconds: float
    images_per_second: float
    seen: Mapping[str, int]
    predictions: tuple[Mapping[str, str], ...] = ()
    failures: tuple[tuple[str, str], ...] = field(default=())


@dataclass(frozen=True)
class _Unit:
    """What a row of the table is of: a picture, or a group of them."""

    key: tuple[str, ...]
    images: tuple[int, ...]


def predict(
    run: str | Path | Predictor,
    inputs: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    by: str = "image",
    store: str | Path | None = None,
    root: str | Path | None = None,
    checkpoint: str | Path | None = None,
    device: str = "auto",
    batch: int | None = None,
    stdin: Iterable[str] | None = None,
    stream: Callable[[str], object] | None = None,
    progress: Progress = lambda *_: None,
    log: Log = lambda _: None,
) -> PredictSummary:
    """Predict pictures with a run, or with the mean of several seeds or folds.

    Called again with the same table it goes on: what stands there is kept, what failed is tried again.

    Args:
        run: A run's folder, a folder of seeds or folds, a sweep's, or a predictor.
        inputs: As for `pictures_of`.
        out: CSV to write; None keeps the rows in the summary.
        by: `image`, or `group`: a row for each group of a manifest.
        store: Feature store to keep the pictures' features in, which a second call reads.
        root: Folder that a manifest's relative paths start from.
        checkpoint: File of the encoder's weights, where it is not found by its digest.
        device: `auto`, `cpu` or `cuda`.
        batch: Images encoded together.
        stdin: In place of standard input.
        stream: Called with the text of rows as they come, where there is no file.
        progress: Called with (pictures finished, pictures in all, pictures failed, 0).
        log: Called with a sentence on anything that a user should know.

    Raises:
        InputError: there is no such run, nothing to predict, or the encoder's weights are not there.
        OverwriteRefused: the table holds something else.
        RunError: the table cannot be written.
    """
    begun = time.monotonic()
    if by not in BY:
        raise InputError(f"by is {by!r}; expected image or group")
    pictures = pictures_of(inputs, root=root, stdin=stdin)
    for note in pictures.notes:
        log(note)
    units = _units(pictures, by)
    predictor = run
    if not isinstance(predictor, Predictor):
        asked: dict[str, Any] = {"checkpoint": checkpoint, "device": device, "batch": batch}
        predictor = load_predictor(predictor, log=log, **asked)
    if not predictor.knows:
        log("the run keeps no digests of its images: the columns seen and unfamiliar stay empty")
    writer = _Rows(predictor, by)
    table = Table(
        out,
        writer.header,
        [unit.key for unit in units],
        lines_each=len(predictor.tasks),
        mark=("model", writer.model),
        stream=stream if out is None else None,
    )
    todo = np.array(sorted(i for unit in table.todo for i in units[unit].images), dtype=np.int64)
    wanted = set(todo.tolist())
    _refuse_changed(out, [row for i, row in enumerate(pictures.rows) if i not in wanted])
    skipped = len(pictures.rows) - len(todo)
    if skipped:
        log(
            f"{out} holds {skipped} of {len(pictures.rows)} images already; going on with the others"
        )
    first = time.monotonic()
    with table:
        parts = _said(predictor, pictures, todo, store, log) if len(todo) else iter(())
        counts, failures = _write(table, writer, units, pictures.rows, parts, progress)
    now = time.monotonic()
    return PredictSummary(
        out=None if out is None else str(out),
        images=len(pictures.rows),
        failed=len(failures),
        skipped=skipped,
        seconds=now - begun,
        images_per_second=len(todo) / max(now - first, 1e-9),
        seen=counts,
        predictions=tuple(dict(zip(writer.header, line, strict=True)) for line in table.lines),
        failures=tuple(failures),
    )


def _write(
    table: Table,
    writer: "_Rows",
    units: Sequence[_Unit],
    rows: Sequence[Row],
    parts: Iterator[Said],
    progress: Progress,
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Put what is said into the table as soon as a unit is whole."""
    unit_of = {i: number for number, unit in enumerate(units) for i in unit.images}
    known: dict[int, dict[int, Any]] = {}
    counts, failures = dict.fromkeys(STRONGEST[:-1], 0), []
    done = len(rows) - sum(len(units[unit].images) for unit in table.todo)
    progress(done, len(rows), 0, 0)
    for said in parts:
        for place, row in enumerate(said.rows.tolist()):
            if said.error[place]:
                failures.append((rows[row].id, said.error[place]))
            if said.seen[place]:
                counts[said.seen[place]] += 1
            number = unit_of[row]
            whole = known.setdefault(number, {})
            whole[row] = _Picture.of(said, place)
            if len(whole) == len(units[number].images):
                images = [whole[i] for i in units[number].images]
                table.put(number, writer.lines(units[number], images))
                del known[number]
        done += len(said.rows)
        progress(done, len(rows), len(failures), 0)
    return counts, failures


def _said(
    predictor: Predictor,
    pictures: Pictures,
    todo: Int[np.ndarray, " image"],
    store: str | Path | None,
    log: Log,
) -> Iterator[Said]:
    """Yield what is said of the pictures that are wanted, by way of a store where one is named."""
    texts = pictures.texts()
    if store is None:
        yield from predictor.stream(pictures.rows, todo, texts)
        return
    from samcls.encode.extract import extract

    twice = [name for name, count in Counter(row.id for row in pictures.rows).items() if count > 1]
    if twice:
        raise InputError(f"{few(twice)} is named more than once; a store holds each image once")
    manifest = Manifest(Path(str(store)), pictures.rows, {}, meta=pictures.meta)
    options = predictor.options
    predictor.release()  # extract opens the encoder itself
    extract(manifest, store, options, log=log, allow_leak=True)
    yield from predictor.of_store(FeatureStore.open(store), todo, texts)


@dataclass(frozen=True, eq=False)
class _Picture:
    """What is said of one picture."""

    error: str
    probabilities: Mapping[str, Float[np.ndarray, " _class"]]
    spread: Mapping[str, Float[np.ndarray, " _class"]]
    seen: str
    unfamiliar: float

    @classmethod
    def of(cls, said: Said, place: int) -> "_Picture":
        return cls(
            said.error[place],
            {task: values[place] for task, values in said.probabilities.items()},
            {task: values[place] for task, values in said.spread.items()},
            said.seen[place],
            float(said.unfamiliar[place]),
        )


class _Rows:
    """Turns what is said of a unit's pictures into its lines.

    Attributes:
        header: Names of the columns.
        model: What tells this model from any other: the start of its weights' digest.
    """

    def __init__(self, predictor: Predictor, by: str) -> None:
        self._predictor, self._by = predictor, by
        self._names = list(
            dict.fromkeys(name for names in predictor.tasks.values() for name in names)
        )
        own = ["id", "path"] if by == "image" else ["group", "images"]
        self.header = [
            *own,
            "task",
            *(f"p_{name}" for name in self._names),
            "predicted",
            *(f"scaled_{name}" for name in self._names),
            "spread",
            "seen",
            "unfamiliar",
            "error",
            "model",
        ]
        digest = hashlib.sha256()
        for run in predictor.runs:
            digest.update((run.path / "head.safetensors").read_bytes())
        self.model = digest.hexdigest()[:12]

    def lines(self, unit: _Unit, images: Sequence[_Picture]) -> list[list[str]]:
        """Return a line for each task."""
        good = [one for one in images if not one.error]
        bad = [one.error for one in images if one.error]
        error = "" if not bad else bad[0]
        if bad and self._by == "group":
            error = f"{len(bad)} of {len(images)} images failed: {bad[0]}"
        seen = next(one for one in STRONGEST if not one or any(x.seen == one for x in good))
        far = [one.unfamiliar for one in good if not np.isnan(one.unfamiliar)]
        tail = [seen, f"{max(far):.1f}" if far else "", " ".join(error.split()), self.model]
        return [[*unit.key, task, *self._told(task, good), *tail] for task in self._predictor.tasks]

    def _told(self, task: str, good: Sequence[_Picture]) -> list[str]:
        classes = self._predictor.tasks[task]
        if not good:
            return [""] * (2 * len(self._names) + 2)
        p = good[0].probabilities[task][None]
        spread = good[0].spread[task]
        if len(good) > 1:
            p = _mean_of_logits(np.stack([one.probabilities[task] for one in good]))[None]
            spread = np.stack([one.spread[task] for one in good]).mean(0)
        answer = int(self._predictor.answers(task, p)[0])
        scaled = self._predictor.scaled(task, p)[0]
        alone = len(self._predictor.runs) == 1
        return [
            *self._cells(classes, p[0]),
            classes[answer],
            *self._cells(classes, scaled),
            "" if alone else f"{spread[answer]:.6f}",
        ]

    def _cells(self, classes: Sequence[str], values: Float[np.ndarray, " _class"]) -> list[str]:
        by_name = dict(zip(classes, values.tolist(), strict=True))
        # Nine digits tell every float32 from its neighbours, as in the run's own predictions.
        return [f"{by_name[name]:.9g}" if name in by_name else "" for name in self._names]


def _mean_of_logits(
    probabilities: Float[np.ndarray, "image class"],
) -> Float[np.ndarray, " class"]:
    """Softmax of the images' mean log-probabilities."""
    logs = np.log(np.clip(probabilities.astype(np.float64), SMALLEST, 1)).mean(0)
    raised = np.exp(logs - logs.max())
    found: np.ndarray = (raised / raised.sum()).astype(np.float32)
    return found


def _units(pictures: Pictures, by: str) -> list[_Unit]:
    if by == "image":
        return [_Unit((row.id, _place(row)), (i,)) for i, row in enumerate(pictures.rows)]
    if not any(row.group for row in pictures.rows):
        raise InputError(
            "no picture has a group; give a manifest with a column group (patient or lesion) for --by group"
        )
    members: dict[str, list[int]] = {}
    for i, row in enumerate(pictures.rows):
        members.setdefault(row.group or row.id, []).append(i)
    return [_Unit((name, str(len(own))), tuple(own)) for name, own in members.items()]


def _place(row: Row) -> str:
    return row.path if row.index is None else f"{row.path}[{row.index}]"


def _refuse_changed(out: str | Path | None, rows: Sequence[Row]) -> None:
    """Refuse to go on with a table that is older than a picture in it: what it says may be of another one."""
    if out is None or not rows:
        return
    written = Path(out).stat().st_mtime
    files = dict.fromkeys(file_of(row.path)[0] for row in rows)
    newer = [f for f in files if Path(f).is_file() and Path(f).stat().st_mtime > written]
    if newer:
        raise OverwriteRefused(
            f"{len(newer)} files are newer than {out} ({few(newer, 3)}), so that what it says may be of "
            "other pictures; remove it, or name another table"
        )
