"""The feature store as tensors in memory: token-major, float32, only images that were encoded.

Loading is one pass over the store; 780 images with five levels of 16 tokens x 256 channels (64 MB
as float32) load in 0.3 s on one CPU core. Memory is what the tensors take, twice while they are
standardised.

    features = load_features(FeatureStore.open("features.zarr"), levels=("neck",), window=8)
    standardiser = Standardiser.fit(features, features.rows("train"))
    features = features.standardised(standardiser)
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from samcls.errors import ConfigError, StoreError
from samcls.learn.slca import pool, to_tokens
from samcls.store.feature_store import FeatureStore
from samcls.store.schema import DONE, FAILED

__all__ = ["Features", "Standardiser", "load_features", "selection_problems"]

BLOCK_ROWS = 256  # images converted at once; bounds what is held besides the result
DEAD = 1e-6  # a channel that varies less than this is centred and not scaled


@dataclass(frozen=True, eq=False)
class Standardiser:
    """Mean and standard deviation of each channel over the valid cells of some images.

    Attributes:
        mean: For each level, "channel".
        std: For each level, "channel"; 1 for a channel that does not vary.
    """

    mean: Mapping[str, Float[Tensor, " _channel"]]
    std: Mapping[str, Float[Tensor, " _channel"]]

    @classmethod
    def fit(cls, features: "Features", rows: Int64[Tensor, " row"]) -> "Standardiser":
        """Measure some images, each token weighing as many cells as it stands for.

        Args:
            features: Features that are not standardised.
            rows: The images to measure: the training split, and no other.
        """
        mean, std = {}, {}
        for level, tokens in features.tokens.items():
            counts = features.counts[level]
            center = _weighted_mean(_blocks(tokens, counts, rows))
            spread = _weighted_mean(
                ((x - center).square(), n) for x, n in _blocks(tokens, counts, rows)
            ).sqrt()
            mean[level] = center.float()
            std[level] = torch.where(spread > DEAD, spread, torch.ones_like(spread)).float()
        return cls(mean, std)

    def apply(
        self, tokens: Mapping[str, Float[Tensor, "image _token _channel"]]
    ) -> dict[str, Float[Tensor, "image _token _channel"]]:
        """Tokens of zero mean and unit deviation over the images that were measured."""
        return {
            level: (values - self.mean[level]).div_(self.std[level])
            for level, values in tokens.items()
        }


@dataclass(frozen=True, eq=False)
class Features:
    """What stage two learns from: one row for each image that was encoded.

    Attributes:
        tokens: For each level, window means, "image token channel", float32.
        counts: For each level, number of valid map cells under each token, "image token".
        labels: Class indices; -1 where a label is missing.
        ids: Identifier of each image.
        splits: `train`, `val` or `test` for each image.
        groups: Patient or lesion of each image; empty where there is none.
        tasks: Class names of each task, in the order of the label columns.
        window: Side of the pooling window, in cells of the encoder's map.
        fingerprint: What made the features, as the store records it.
        failed: Number of images left out because they could not be encoded.
    """

    tokens: Mapping[str, Float[Tensor, "image _token _channel"]]
    counts: Mapping[str, Float[Tensor, "image _token"]]
    labels: Int64[Tensor, "image task"]
    ids: tuple[str, ...]
    splits: tuple[str, ...]
    groups: tuple[str, ...]
    tasks: Mapping[str, tuple[str, ...]]
    window: int
    fingerprint: Mapping[str, Any]
    failed: int

    @property
    def channels(self) -> dict[str, int]:
        """Number of channels of each level."""
        return {level: tokens.shape[2] for level, tokens in self.tokens.items()}

    def rows(self, split: str) -> Int64[Tensor, " row"]:
        """Row numbers of a split, in order."""
        return torch.tensor([i for i, s in enumerate(self.splits) if s == split], dtype=torch.int64)

    def standardised(self, standardiser: Standardiser) -> "Features":
        """The same with standardised tokens."""
        return replace(self, tokens=standardiser.apply(self.tokens))


def load_features(
    store: FeatureStore,
    levels: Sequence[str] = (),
    window: int | None = None,
    tasks: Sequence[str] = (),
) -> Features:
    """Read a store into memory, pooled further where a larger window is asked for.

    Args:
        store: An open store. Images that failed or are pending are left out.
        levels: Levels to read, in this order; none named means all.
        window: Side of the pooling window in cells of the encoder's map, a multiple of the
            store's; None means the store's.
        tasks: Label columns to read, in this order; none named means all.

    Raises:
        ConfigError: where the store has no such level or task, or cannot serve the window.
        StoreError: where features hold values that are not finite.
    """
    problems = selection_problems(store, levels, window, tasks)
    if problems:
        raise ConfigError(f"{store.path} cannot serve this:\n  " + "\n  ".join(problems))
    status = store.status
    rows = np.flatnonzero(status == DONE)
    factor = (window or store.fingerprint.window) // store.fingerprint.window
    tokens, counts = {}, {}
    ids = _pick(store.ids, rows)
    for level in levels or store.levels:
        tokens[level], counts[level] = _load_level(store, level, rows, factor)
        _refuse_not_finite(tokens[level], level, ids, store.path)
    names = tuple(tasks or store.tasks)
    columns = [list(store.tasks).index(name) for name in names]
    return Features(
        tokens=tokens,
        counts=counts,
        labels=torch.from_numpy(store.labels[rows][:, columns].astype(np.int64)),
        ids=ids,
        splits=_pick(store.splits, rows),
        groups=_pick(store.groups, rows),
        tasks={name: store.tasks[name] for name in names},
        window=factor * store.fingerprint.window,
        fingerprint=store.fingerprint.to_dict(),
        failed=int((status == FAILED).sum()),
    )


def selection_problems(
    store: FeatureStore, levels: Sequence[str], window: int | None, tasks: Sequence[str]
) -> list[str]:
    """A sentence for everything asked for that the store cannot serve."""
    problems = [
        f"unknown {kind} {name}; the store has {', '.join(known) or 'none'}"
        for kind, asked, known in (("level", levels, store.levels), ("task", tasks, store.tasks))
        for name in asked
        if name not in known
    ]
    stored = store.fingerprint.window
    if window is not None and (window < stored or window % stored):
        side = stored * max(max(shape.rows, shape.cols) for shape in store.levels.values())
        served = ", ".join(str(w) for w in range(stored, side + 1, stored))
        problems.append(
            f"window {window} is no multiple of {stored}, the window that the store was pooled "
            f"over; it can serve {served}"
        )
    return problems


def _load_level(
    store: FeatureStore, level: str, rows: np.ndarray, factor: int
) -> tuple[Float[Tensor, "image token channel"], Float[Tensor, "image token"]]:
    shape = store.levels[level]
    cells = -(-shape.rows // factor) * -(-shape.cols // factor)
    tokens = torch.empty(len(rows), cells, shape.channels)
    counts = torch.empty(len(rows), cells)
    for start in range(0, len(rows), BLOCK_ROWS):
        block = rows[start : start + BLOCK_ROWS]
        # The first view is the image as it is; other views are copies of the same row.
        maps = torch.from_numpy(store.read(level, block)[:, 0].astype(np.float32))
        pooled, count = pool(maps, torch.from_numpy(store.counts(level, block)), factor)
        tokens[start : start + len(block)] = to_tokens(pooled)
        counts[start : start + len(block)] = count.flatten(1)
    return tokens, counts


def _refuse_not_finite(
    tokens: Float[Tensor, "image token channel"], level: str, ids: Sequence[str], path: str
) -> None:
    sums = tokens.sum((1, 2))
    bad = [ids[i] for i in torch.nonzero(~torch.isfinite(sums)).flatten().tolist()]
    if bad:
        named = ", ".join(bad[:5]) + (", ..." if len(bad) > 5 else "")
        raise StoreError(
            f"{path}: level {level} holds values that are not finite for {len(bad)} images "
            f"({named}); extract them again, in float32 if float16 overflowed"
        )


def _pick(values: Sequence[str], rows: np.ndarray) -> tuple[str, ...]:
    return tuple(values[i] for i in rows)


def _blocks(
    tokens: Tensor, counts: Tensor, rows: Tensor
) -> Iterator[tuple[Float[Tensor, "cell channel"], Float[Tensor, " cell"]]]:
    """Tokens and counts of some images a block at a time, in double precision."""
    for block in torch.split(rows, BLOCK_ROWS):
        yield tokens[block].flatten(0, 1).double(), counts[block].flatten().double()


def _weighted_mean(
    blocks: Iterator[tuple[Float[Tensor, "cell channel"], Float[Tensor, " cell"]]],
) -> Float[Tensor, " channel"]:
    sums = [(counts @ values, counts.sum()) for values, counts in blocks]
    totals, weights = (torch.stack(parts) for parts in zip(*sums, strict=True))
    return totals.sum(0) / weights.sum()
