"""Whether what was exported says what the run says: the last step of an export, and a loud one.

Every picture alone, and one batch each of 2 and of 7; each probability within 1e-4 of the reference, the
same class answered, the same AUC to four digits. It costs one pass of encoder and reference for each of up
to 64 pictures, and nine more of the exported model.

    found = compare(runner, pictures, answer(pictures), thresholds, labels={})
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped, UInt8
from torch import Tensor

from samcls.data.images import make_frame
from samcls.data.phantoms import phantom
from samcls.encode.base import Encoder
from samcls.errors import ExportError
from samcls.learn.score.calibration import temperature_scaled
from samcls.learn.score.metrics import roc_auc
from samcls.learn.score.operating import answered
from samcls.pooling import pool_valid, valid_cells
from samcls.store.schema import Fingerprint
from samcls.views import transform

__all__ = [
    "BOUND",
    "MOST",
    "Comparison",
    "Runner",
    "cached",
    "compare",
    "onnx_runner",
    "phantoms",
    "torch_runner",
]

BOUND = 1e-4  # of a probability
MOST = 64  # pictures
BATCHES = (2, 7)
DIGITS = 0.5e-4  # of an AUC

Picture = UInt8[np.ndarray, "_row _col 3"]
Probabilities = Mapping[str, Float[np.ndarray, "image _class"]]
Given = Sequence[Shaped[np.ndarray, "_image ..."]]  # an exported model's inputs, in order
# From inputs to outputs, both in the order of their names.
Runner = Callable[[Given], list[np.ndarray]]


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Attributes:
        checked: Number of pictures.
        worst: Largest difference of a probability.
        equal: Number of pictures whose class is the same for every task.
    """

    checked: int
    worst: float
    equal: int


def phantoms(count: int, seed: int = 0) -> list[Picture]:
    """Draw pictures of as many sizes: wide, tall, small and odd, the same at every call.

    Args:
        count: How many.
        seed: Of the drawing.
    """
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        grey = phantom(rng, malignant=bool(number % 2))
        rows, cols = ((163, 121), (61, 203), (150, 39))[number % 3]
        part = grey[: rows - number, : cols - number] if number else grey
        found.append(np.ascontiguousarray(np.repeat(part[..., None], 3, axis=-1)))
    return found


def onnx_runner(path: Path) -> Runner:
    """Return a function that runs an ONNX file on the CPU, with ONNX Runtime's usual optimisations.

    Raises:
        ExportError: onnxruntime is not installed, or cannot run the file.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ExportError(
            'onnxruntime is not installed, and nothing is exported unchecked; pip install "samcls[export]"'
        ) from error
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ExportError(f"ONNX Runtime refuses {path.name}: {error}") from error
    names = [one.name for one in session.get_inputs()]

    def run(given: Given) -> list[np.ndarray]:
        found: list[np.ndarray] = session.run(None, dict(zip(names, given, strict=True)))
        return found

    return run


def torch_runner(path: Path) -> Runner:
    """Return a function that runs a file of torch.export's."""
    module: Any = torch.export.load(path).module()

    def run(given: Given) -> list[np.ndarray]:
        with torch.no_grad():
            return [out.numpy() for out in module(*(torch.from_numpy(one) for one in given))]

    return run


@torch.no_grad()
def cached(
    picture: Picture, encoder: Encoder, made: Fingerprint, levels: Sequence[str], pixels: int
) -> list[Shaped[np.ndarray, "1 ..."]]:
    """Return what a store holds of a picture, as the inputs of an exported head.

    Args:
        picture: RGB, 0..255.
        encoder: That made the features.
        made: The features' fingerprint.
        levels: That the head reads.
        pixels: Side of the picture that it looks at besides; 0 where it looks at none.
    """
    resize: Any = made.resize
    stored: dict[str, list[Tensor]] = {level: [] for level in levels}
    for view in made.views:
        frame = make_frame(transform(picture, view), made.input_size, resize)
        maps = encoder(torch.from_numpy(frame.pixels)[None], [frame.valid])
        for level in levels:
            shape = encoder.shape(level)
            cells = valid_cells([frame.valid], (shape.rows, shape.cols), shape.patch)
            pooled = pool_valid(maps[level], cells, made.window)
            stored[level].append(pooled.to(getattr(torch, made.storage)).float())
    valid = make_frame(picture, made.input_size, resize).valid
    given = [torch.stack(stored[level], 1).numpy() for level in levels]
    kept = [make_frame(picture, pixels, resize).pixels[None]] if pixels else []
    return [*given, np.array([valid], dtype=np.int64), *kept]


def compare(
    run: Runner,
    inputs: Sequence[Given],
    expected: Probabilities,
    outputs: Sequence[str],
    *,
    temperatures: Mapping[str, float],
    thresholds: Mapping[str, float | None],
    labels: Mapping[str, Int[np.ndarray, " image"]],
) -> Comparison:
    """Compare an exported model with its run.

    Args:
        run: The exported model.
        inputs: For each picture, what the model is given, a batch of one.
        expected: What the run says of the pictures.
        outputs: Names of what the model gives: the tasks, then those under a temperature.
        temperatures: Of the latter.
        thresholds: Of each task of two classes, above which the last one is answered.
        labels: Of each task, class indices, -1 where a label is missing; may be empty.

    Raises:
        ExportError: they differ; with the numbers.
    """
    found = [np.concatenate(parts) for parts in zip(*(run(one) for one in inputs), strict=True)]
    said = dict(zip(outputs, found, strict=True))
    differing, worst = [], 0.0
    equal = np.ones(len(inputs), dtype=bool)
    for task, right in expected.items():
        gap = np.abs(said[task] - right).max(1)
        worst = max(worst, float(np.nan_to_num(gap, nan=np.inf).max()))
        same = answered(said[task], thresholds.get(task)) == answered(right, thresholds.get(task))
        equal &= same
        if not same.all():
            differing.append(f"{int((~same).sum())} of {len(same)} pictures get another {task}")
        differing += _unlike(task, said[task], right, labels.get(task))
    for size in BATCHES:
        chosen = _batch(inputs, size)
        joined = [np.concatenate(parts) for parts in zip(*(inputs[i] for i in chosen), strict=True)]
        together = dict(zip(outputs, run(joined), strict=True))
        for task, right in expected.items():
            gap = float(np.abs(together[task] - right[chosen]).max())
            worst = max(worst, np.inf if np.isnan(gap) else gap)
    for task, temperature in temperatures.items():
        own = temperature_scaled(said[task], temperature)
        scaled = said[outputs[len(expected) + list(temperatures).index(task)]]
        worst = max(worst, float(np.abs(scaled - own).max()))
    if not worst < BOUND:
        differing.insert(0, f"a probability differs by {worst:.2g}, and {BOUND:g} is allowed")
    if differing:
        raise ExportError(
            f"the exported model is not the run: of {len(inputs)} pictures, {'; '.join(differing)}. "
            "Nothing was kept; please report it with the versions that samcls doctor lists"
        )
    return Comparison(len(inputs), worst, int(equal.sum()))


def _unlike(
    task: str,
    said: Float[np.ndarray, "image class"],
    right: Float[np.ndarray, "image class"],
    labels: Int[np.ndarray, " image"] | None,
) -> list[str]:
    """Say where a class's AUC against the rest is not the same to four digits."""
    if labels is None:
        return []
    known = labels >= 0
    found = []
    for name in range(1 if said.shape[1] == 2 else 0, said.shape[1]):
        positive = labels[known] == name
        if positive.all() or not positive.any():
            continue
        ours, theirs = (
            float(roc_auc(np.ones((1, int(known.sum()))), positive, one[known, name])[0])
            for one in (said, right)
        )
        if abs(ours - theirs) >= DIGITS:
            found.append(f"the AUC of {task} is {ours:.4f} instead of {theirs:.4f}")
    return found


def _batch(inputs: Sequence[Given], size: int) -> list[int]:
    """Choose pictures of one size for a batch: different ones where there are enough, else one repeated."""
    by_shape: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for number, given in enumerate(inputs):
        by_shape.setdefault(tuple(one.shape for one in given), []).append(number)
    most = max(by_shape.values(), key=len)
    return most[:size] if len(most) >= size else [most[0]] * size
