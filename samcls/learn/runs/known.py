"""What a run knows of its images: digests of their pixels, and how far features lie from training's.

A digest says of any picture whether it was in the run's data, and where. How unfamiliar features are is the
squared Mahalanobis distance under probabilistic principal components (Tipping and Bishop, 1999) of the
training images' means over valid cells, all levels side by side and standardised as for the head: 32
components at most, and what lies beside them by its mean variance. It is told as a percentile of the training
images' own distances, each under components found without it and its group (five folds). No image's features
are kept. It costs about a second a run, and 0.5 MB.

    known = parse_known((run.path / KNOWN).read_bytes(), "run")
    known.splits_of(digests), known.unfamiliar(means)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import safetensors
import safetensors.numpy
import torch
from jaxtyping import Float, Int, UInt8

from samcls.data.manifest import SPLITS
from samcls.errors import InputError
from samcls.learn.features.batches import batch_size, batched, select_rows
from samcls.learn.features.meta import LEVEL as META
from samcls.learn.features.tensors import Features
from samcls.pooling import masked_mean

__all__ = ["KNOWN", "Components", "Known", "image_means", "known_file", "parse_known"]

KNOWN = "known.safetensors"
COMPONENTS = 32
IMAGES_EACH = 4  # training images behind a component, at least
SAMPLE = 2048  # training images that components are found on, at most, evenly spaced
FOLDS = 5
MARKS = 1000  # distances kept, at most, evenly spaced by rank

Means = Float[np.ndarray, "image channel"]


@dataclass(frozen=True, eq=False)
class Components:
    """Where training images lie.

    Attributes:
        mean: Of each channel.
        basis: Directions in which training images vary most, orthonormal.
        variance: Along each.
        rest: Mean variance along all other directions.
    """

    mean: Float[np.ndarray, " channel"]
    basis: Float[np.ndarray, "component channel"]
    variance: Float[np.ndarray, " component"]
    rest: float

    @classmethod
    def of(cls, means: Means) -> "Components":
        """Find the components of some images, the same for the same images."""
        from sklearn.utils.extmath import (
            randomized_svd,  # half a second, and needed in training alone
        )

        mean = means.mean(0)
        centred = means - mean
        count = max(1, min(COMPONENTS, len(means) // IMAGES_EACH, means.shape[1]))
        _, lengths, basis = randomized_svd(centred, count, random_state=0)
        variance = lengths**2 / len(means)
        left = means.shape[1] - count
        spread = float(np.square(centred).sum() / len(means) - variance.sum())
        rest = max(spread, 0.0) / left if left else 0.0
        least = max(float(variance.max()) * 1e-6, 1e-12)
        variance = np.maximum(variance, least).astype(np.float32)
        return cls(mean.astype(np.float32), basis.astype(np.float32), variance, max(rest, least))

    def distances(self, means: Means) -> Float[np.ndarray, " image"]:
        """Squared Mahalanobis distance of each image."""
        centred = means - self.mean
        along = centred @ self.basis.T
        beside = np.maximum(np.square(centred).sum(1) - np.square(along).sum(1), 0)
        found: np.ndarray = (np.square(along) / self.variance).sum(1) + beside / self.rest
        return found


@dataclass(frozen=True, eq=False)
class Known:
    """What is kept of a run's images.

    Attributes:
        sha256: Of the decoded pixels, in the order of the run's predictions.
        splits: Of each, its place in `SPLITS`.
        components: Of the training images; None where there were too few.
        marks: Distances of training images, ascending.
    """

    sha256: UInt8[np.ndarray, "image 32"]
    splits: UInt8[np.ndarray, " image"]
    components: Components | None
    marks: Float[np.ndarray, " mark"]

    def splits_of(self, sha256: Sequence[bytes]) -> list[str]:
        """Return for each picture the split that it stood in, training first of several; empty for a new one."""
        return [self._places.get(one, "") for one in sha256]

    @cached_property
    def _places(self) -> dict[bytes, str]:
        order = np.argsort(-self.splits.astype(np.int64), kind="stable")  # a later one wins
        return {self.sha256[i].tobytes(): SPLITS[self.splits[i]] for i in order}

    def unfamiliar(self, means: Means) -> Float[np.ndarray, " image"] | None:
        """Return for each image the percentage of training images that lie less far out; None if unknown.

        Args:
            means: As `image_means` gives them.
        """
        if self.components is None:
            return None
        below = np.searchsorted(self.marks, self.components.distances(means))
        found: np.ndarray = 100.0 * below / len(self.marks)
        return found


def image_means(features: Features, rows: Int[np.ndarray, " row"] | None = None) -> Means:
    """Return images' means over valid cells, levels side by side, over views averaged; without columns.

    Args:
        features: Standardised.
        rows: Which images; None means all.
    """
    chosen = torch.arange(len(features.ids)) if rows is None else torch.from_numpy(rows)
    levels = [level for level in features.tokens if level != META]
    tokens = {level: features.tokens[level] for level in levels}
    counts = {level: features.counts[level] for level in levels}

    def means(part: torch.Tensor) -> torch.Tensor:
        found, cells = select_rows(tokens, counts, part)
        return torch.cat([masked_mean(found[k], cells[k]) for k in levels], 1)

    flat = batched(means, features.flat(chosen), batch_size(tokens))
    found: np.ndarray = flat.view(len(chosen), features.views, -1).mean(1).numpy()
    return found


def known_file(features: Features, sha256: UInt8[np.ndarray, "image 32"]) -> bytes:
    """Return the contents of `KNOWN`.

    Args:
        features: Standardised, with their splits.
        sha256: Of the same images' decoded pixels.
    """
    tensors = {
        "sha256": np.ascontiguousarray(sha256),
        "splits": np.array([SPLITS.index(split) for split in features.splits], dtype=np.uint8),
    }
    rows = features.rows("train").numpy()
    rows = rows[np.linspace(0, len(rows) - 1, min(SAMPLE, len(rows))).astype(np.int64)]
    folds = _folds([features.groups[row] or f"image {row}" for row in rows.tolist()])
    if len(set(folds)) > 1:
        means = image_means(features, rows)
        numbers, distances = np.array(folds), np.zeros(len(rows))
        for fold in sorted(set(folds)):
            away = numbers == fold
            distances[away] = Components.of(means[~away]).distances(means[away])
        marks = np.sort(distances)
        if len(marks) > MARKS:
            marks = marks[np.linspace(0, len(marks) - 1, MARKS).round().astype(np.int64)]
        found = Components.of(means)
        tensors |= {
            "mean": found.mean,
            "basis": found.basis,
            "variance": found.variance,
            "rest": np.array([found.rest], dtype=np.float32),
            "distances": marks.astype(np.float32),
        }
    return safetensors.numpy.save({k: np.ascontiguousarray(v) for k, v in tensors.items()})


def parse_known(content: bytes, source: str) -> Known:
    """Read back what `known_file` made.

    Args:
        content: The file's.
        source: Where it was read, for messages.

    Raises:
        InputError: it is damaged.
    """
    try:
        tensors = safetensors.numpy.load(content)
        components = None
        if "mean" in tensors:
            parts = tensors["mean"], tensors["basis"], tensors["variance"]
            components = Components(*parts, float(tensors["rest"][0]))
        marks = tensors.get("distances", np.zeros(0, np.float32))
        known = Known(tensors["sha256"], tensors["splits"], components, marks)
        good = known.sha256.shape == (len(known.splits), 32) and known.splits.max(initial=0) < 3
    except (safetensors.SafetensorError, KeyError, IndexError, ValueError, TypeError) as error:
        raise InputError(f"{source} is damaged: {error}; train the run again") from error
    if not good:
        raise InputError(f"{source} is damaged: its digests and splits differ; train the run again")
    return known


def _folds(groups: Sequence[str]) -> list[int]:
    """Return a fold for each image, groups whole."""
    numbers = {group: number % FOLDS for number, group in enumerate(dict.fromkeys(groups))}
    return [numbers[group] for group in groups]
