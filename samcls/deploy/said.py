"""What is given to a predictor and what it says: pictures in any form, and answers a batch at a time.

for batch in encoded(pictures, numbers, encoder, options, log): ...      # stage one, without a store
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8

from samcls.data.arrays import to_rgb
from samcls.data.images import read_image
from samcls.data.manifest import Row
from samcls.encode.base import Encoder
from samcls.encode.options import ExtractOptions
from samcls.encode.pipeline import Pipeline
from samcls.store.feature_store import RowBatch

__all__ = ["TOGETHER", "Picture", "Said", "encoded", "joined", "read_picture"]

TOGETHER = 64  # images answered at once
HELD_SECONDS = 1.0  # at most, until encoded images are answered

Log = Callable[[str], None]
Picture = Row | str | Path | np.ndarray


@dataclass(frozen=True, eq=False)
class Said:
    """What was said of some pictures, in their order.

    Attributes:
        rows: Their numbers among all that were given.
        error: Why a picture could not be used; empty for those that could, to which all else applies:
            of the others it is not a number.
        probabilities: By task, the mean over runs.
        spread: By task, of each class's probability the standard deviation over runs; 0 of one run.
        seen: Where each stood in the run's own data: train, val, test, or empty.
        unfamiliar: Percentage of training images whose features lie less far out; NaN where the run
            does not know.
    """

    rows: Int[np.ndarray, " image"]
    error: tuple[str, ...]
    probabilities: Mapping[str, Float[np.ndarray, "image _class"]]
    spread: Mapping[str, Float[np.ndarray, "image _class"]]
    seen: tuple[str, ...]
    unfamiliar: Float[np.ndarray, " image"]


def encoded(
    pictures: Sequence[Picture],
    wanted: Int[np.ndarray, " image"],
    encoder: Encoder,
    options: ExtractOptions,
    log: Log,
) -> Iterator[RowBatch]:
    """Yield pictures as stage one encodes them, some 64 at once, in order; a bad one has its reason.

    Args:
        pictures: Rows, paths, or arrays.
        wanted: Numbers of those to encode, ascending.
        encoder: On its device.
        options: How pictures become features, the batch settled.
        log: Called with a sentence when the device ran out of memory and less is tried.
    """
    pipeline = Pipeline(pictures, encoder, options, log, read=read_picture)
    waiting: list[RowBatch] = []
    since = time.monotonic()
    for batch in pipeline.run(wanted, _Forgetful(), _nothing):
        waiting.append(batch)
        # Answers to a few images cost as much as to many; of a slow encoder nothing is held back.
        if sum(map(len, waiting)) >= TOGETHER or time.monotonic() - since > HELD_SECONDS:
            yield joined(waiting)
            waiting, since = [], time.monotonic()
    if waiting:
        yield joined(waiting)


class _Forgetful(dict[bytes, int]):
    """Remembers no picture: features of those that are done are not kept."""

    def __setitem__(self, key: bytes, value: int) -> None:
        """Let it go."""


def read_picture(picture: Picture) -> UInt8[np.ndarray, "row col 3"]:
    """Return a picture, however it is given, as RGB."""
    if isinstance(picture, Row):
        return read_image(picture.path, picture.index)
    if isinstance(picture, np.ndarray):
        return to_rgb(picture)
    return read_image(str(picture))


def joined(batches: Sequence[RowBatch]) -> RowBatch:
    """Return several batches as one.

    Args:
        batches: In order.
    """
    if len(batches) == 1:
        return batches[0]
    first = batches[0]
    return RowBatch(
        rows=np.concatenate([one.rows for one in batches]),
        features={
            name: np.concatenate([one.features[name] for one in batches]) for name in first.features
        },
        valid=np.concatenate([one.valid for one in batches]),
        sha256=np.concatenate([one.sha256 for one in batches]),
        status=np.concatenate([one.status for one in batches]),
        error=[reason for one in batches for reason in one.error],
    )


def _nothing(row: int) -> dict[str, np.ndarray]:
    raise KeyError(row)
