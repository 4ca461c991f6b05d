"""`samcls export`: a run as one folder that a stranger can run, checked against the run before it is there.

    model.onnx, model.pt2              pictures in, probabilities out; as asked for
    model.safetensors, model.json      the same for samcls, without pickle
    classes.json                       inputs, outputs, classes, thresholds
    test_images.npz, check.py          three pictures, what is to be said of them, and the script that asks
    README.md                          how to run it, and the model's card

It is written beside its place, checked, and moved into it: a folder is whole or not there. Besides the
check an export takes half a minute on one core, two under eight views, three for SAM at 1024 pixels.

    export(predictor, answer, "model", form="onnx", images=pictures)
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, UInt8

from samcls.deploy.export.formats import (
    MODEL,
    Recipe,
    Traced,
    trace,
    write_onnx,
    write_torch,
    write_weights,
)
from samcls.deploy.export.graph import level_shapes
from samcls.deploy.export.resize import vertical_first
from samcls.deploy.export.selfcheck import (
    MOST,
    Comparison,
    Given,
    Runner,
    cached,
    compare,
    onnx_runner,
    phantoms,
    torch_runner,
)
from samcls.deploy.export.texts import Contents, check_script, readme
from samcls.encode.base import Encoder
from samcls.errors import ConfigError, OverwriteRefused, RunError
from samcls.files import PART, few, to_json
from samcls.learn.fit.prediction import Model
from samcls.learn.runs.operating import OperatingPoint
from samcls.store.schema import Fingerprint

__all__ = ["FORMS", "Answer", "Export", "Exportable", "export", "refuse_existing"]

FORMS = ("onnx", "torch-export", "both")
Log = Callable[[str], None]
Picture = UInt8[np.ndarray, "_row _col 3"]
Answer = Callable[[list[Picture]], Mapping[str, Float[np.ndarray, "image _class"]]]

PROGRAM = "model.pt2"
TESTS = 3  # pictures in the folder
UNASKED = 6  # phantoms that are checked where no pictures are given


@runtime_checkable
class Exportable(Protocol):
    """What is exported: a run, or several whose probabilities are averaged.

    Attributes:
        models: Of the runs.
        fingerprint: Of their features.
        encoder: That made them, in float32, on the CPU.
        points: Temperature and threshold of each task.
    """

    @property
    def models(self) -> Sequence[Model]:
        """Return the models of the runs."""

    @property
    def fingerprint(self) -> Fingerprint:
        """Return what decides their features."""

    @property
    def encoder(self) -> Encoder:
        """Return the encoder that made the features."""

    @property
    def points(self) -> Mapping[str, OperatingPoint]:
        """Return temperature and threshold of each task."""


@dataclass(frozen=True)
class Export:
    """What an export made and found.

    Attributes:
        folder: Where it lies.
        files: Names of its files.
        checked: Number of pictures that it was checked with.
        worst: Largest difference of a probability.
        equal: Number of pictures of which it answers the same class.
        seconds: That it took.
    """

    folder: Path
    files: tuple[str, ...]
    checked: int
    worst: float
    equal: int
    seconds: float


def export(
    subject: Exportable,
    answer: Answer,
    directory: str | Path,
    *,
    form: str = "onnx",
    head_only: bool = False,
    images: Sequence[Picture] | None = None,
    labels: Mapping[str, Int[np.ndarray, " image"]] | None = None,
    card: str = "",
    log: Log = lambda _: None,
) -> Export:
    """Write a run as a folder that runs without samcls, once it was seen to say what the run says.

    Args:
        subject: What is exported.
        answer: What the run says of pictures, through its own pipeline: the reference.
        directory: A new or empty folder.
        form: `onnx`, `torch-export` or `both`.
        head_only: Leave the encoder out: the model then takes features as they are cached.
        images: RGB, 0..255, of any size, to be checked with: the first 64 of them; phantoms by default.
        labels: Of the images, by task, class indices, -1 where a label is missing.
        card: What is known of the run, in Markdown; it ends the README.
        log: Called with a sentence on each step.

    Raises:
        ConfigError: the form is unknown, or there are no images.
        OverwriteRefused: the folder holds something.
        ExportError: the run cannot be exported, a package is missing, or what was exported does not say
            what the run says.
        RunError: the disk is full or refuses; nothing is left there.
    """
    started, directory = time.perf_counter(), Path(directory)
    if form not in FORMS:
        raise ConfigError(f"form is {form!r}; expected {', '.join(FORMS)}")
    if images is not None and not len(images):
        raise ConfigError("there are no images to check with; leave them out for built-in ones")
    refuse_existing(directory)
    encoder, points = subject.encoder, subject.points
    recipe = Recipe(
        models=subject.models,
        fingerprint=subject.fingerprint,
        shapes=level_shapes(encoder, subject.fingerprint),
        temperatures={task: point.temperature for task, point in points.items()},
        encoder=None if head_only else encoder,
        vertical_first=vertical_first(),
    )
    log("following the model once")
    graph = recipe.build()
    traced = trace(graph)
    tests = phantoms(TESTS)
    pictures = phantoms(UNASKED, seed=1) if images is None else list(images)[:MOST]
    known = {} if images is None else {k: v[:MOST] for k, v in (labels or {}).items()}

    def given(picture: Picture) -> Given:
        if not head_only:
            return [picture[None]]
        head = graph.head
        return cached(picture, encoder, subject.fingerprint, head.levels, head.pixels)

    contents = Contents(
        traced.inputs,
        traced.outputs,
        traced.classes,
        {task: point.threshold for task, point in points.items()},
        onnx=form != "torch-export",
        torch=form != "onnx",
        card=card,
    )
    with _placed(directory) as folder:
        runners = _write_models(traced, folder, form, log)
        write_weights(recipe, folder)
        _write_texts(folder, contents, recipe)
        _write_tests(folder, [given(one) for one in tests], answer(tests))
        log(f"checking {len(pictures)} pictures against the run")
        expected = answer(pictures)
        inputs = [given(one) for one in pictures]
        found = [
            compare(
                run,
                inputs,
                expected,
                traced.outputs,
                temperatures=graph.head.temperatures,
                thresholds=contents.thresholds,
                labels=known,
            )
            for run in runners
        ]
        files = tuple(sorted(file.name for file in folder.iterdir()))
    return _export(directory, files, found, time.perf_counter() - started)


def refuse_existing(directory: str | Path) -> None:
    """Make sure that an export may be written to a folder.

    Raises:
        OverwriteRefused: it holds something, or is a file.
    """
    directory = Path(directory)
    if directory.exists() and not directory.is_dir():
        raise OverwriteRefused(f"{directory} is a file; name a folder for the export")
    held = sorted(file.name for file in directory.iterdir()) if directory.exists() else []
    if held:
        raise OverwriteRefused(
            f"{directory} holds {few(held)}; name a new or empty folder, or remove this one first"
        )


@contextmanager
def _placed(directory: Path) -> Iterator[Path]:
    """Give a folder beside a place, and move it there whole; whatever goes wrong, nothing stays."""
    part = directory.with_name(f".{directory.name}.{os.getpid()}{PART}")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        yield part
        if directory.exists():
            directory.rmdir()
        part.rename(directory)
    except OSError as error:
        raise RunError(
            f"cannot write {directory}: {error.strerror or error}; make room or name another place, and "
            "export again. Nothing was left there"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write_models(traced: Traced, folder: Path, form: str, log: Log) -> list[Runner]:
    """Write what is asked for; return what runs each file."""
    runners = []
    if form != "torch-export":
        log("translating it to ONNX")
        write_onnx(traced, folder / MODEL)
        runners.append(onnx_runner(folder / MODEL))
    if form != "onnx":
        write_torch(traced, folder / PROGRAM)
        runners.append(torch_runner(folder / PROGRAM))
    return runners


def _write_texts(folder: Path, contents: Contents, recipe: Recipe) -> None:
    record = {
        "tasks": {task: list(names) for task, names in contents.tasks.items()},
        "inputs": list(contents.inputs),
        "outputs": list(contents.outputs),
        "thresholds": dict(contents.thresholds),
        "temperatures": dict(recipe.temperatures),
    }
    (folder / "classes.json").write_bytes(to_json(record))
    (folder / "check.py").write_text(check_script(contents), encoding="utf-8")
    (folder / "README.md").write_text(readme(contents), encoding="utf-8")


def _write_tests(
    folder: Path,
    given: Sequence[Given],
    expected: Mapping[str, Float[np.ndarray, "image _class"]],
) -> None:
    arrays = {f"given_{k}_{i}": one for k, own in enumerate(given) for i, one in enumerate(own)}
    for i, values in enumerate(expected.values()):
        arrays |= {f"expected_{k}_{i}": values[k : k + 1] for k in range(len(given))}
    with (folder / "test_images.npz").open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def _export(
    directory: Path, files: tuple[str, ...], found: Sequence[Comparison], seconds: float
) -> Export:
    worst, equal = max(one.worst for one in found), min(one.equal for one in found)
    return Export(directory, files, found[0].checked, worst, equal, round(seconds, 3))
