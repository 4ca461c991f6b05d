"""The feature store as tensors in memory: token-major, float32, only images that were encoded.

Loading is one pass over the store. Memory is what the tensors take; where a limit is given that
they exceed, they lie in a scratch file instead (`mapped`), and every number stays the same.

    features = load_features(FeatureStore.open("features.zarr"), levels=("neck",), window=8)
    scaler = ChannelScaler.fit(features, features.rows("train"))
    features = features.standardised(scaler)
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from samcls.errors import ConfigError, StoreError
from samcls.files import meant
from samcls.learn.features.mapped import scratch_tensor
from samcls.learn.features.meta import MetaColumn
from samcls.learn.features.pixels import Pixels
from samcls.learn.features.targets import UNUSED, Targets
from samcls.pooling import pool, to_tokens
from samcls.store.feature_store import FeatureStore
from samcls.store.schema import DONE, FAILED

__all__ = [
    "ChannelScaler",
    "Features",
    "grids_of",
    "image_rows",
    "load_features",
    "reach_of",
    "selection_problems",
    "tokens_of",
    "with_pixels",
]

BLOCK_ROWS = 256  # images converted at once; bounds what is held besides the result
BLOCK_VALUES = 131_072  # values measured at once in double precision, some 4 MB
LOAD_SHARE = 128  # a block being loaded takes, in all its copies, an eighth of the memory or so
DEAD = 1e-6  # a channel that varies less than this is centred and not scaled


@dataclass(frozen=True, eq=False)
class ChannelScaler:
    """Mean and standard deviation of each channel over the valid cells of some images.

    Attributes:
        mean: For each level, "channel".
        std: For each level, "channel"; 1 for a channel that does not vary.
    """

    mean: Mapping[str, Float[Tensor, " _channel"]]
    std: Mapping[str, Float[Tensor, " _channel"]]

    @classmethod
    def fit(cls, features: "Features", rows: Int64[Tensor, " row"]) -> "ChannelScaler":
        """Measure some images, each token weighing as many cells as it stands for.

        Args:
            features: Features that are not standardised.
            rows: The images to measure: the training split, and no other.
        """
        mean, std = {}, {}
        flat = features.flat(rows)
        for level, tokens in features.tokens.items():
            counts = features.counts[level]
            center = _weighted_mean(_blocks(tokens, counts, flat))
            spread = _weighted_mean(
                ((x - center).square(), n) for x, n in _blocks(tokens, counts, flat)
            ).sqrt()
            mean[level] = center.float()
            std[level] = torch.where(spread > DEAD, spread, torch.ones_like(spread)).float()
        return cls(mean, std)

    def apply(self, tokens: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return tokens of zero mean and unit deviation over the images that were measured."""
        return {k: (values - self.mean[k]).div_(self.std[k]) for k, values in tokens.items()}

    def apply_(self, tokens: Mapping[str, Tensor]) -> None:
        """Standardise tokens in place, to the same bits."""
        for level, values in tokens.items():
            values.sub_(self.mean[level]).div_(self.std[level])


@dataclass(frozen=True, eq=False)
class Features:
    """What stage two learns from: one row for each image that was encoded.

    An image's views lie one after another: view v of image i is row i * views + v of tokens and
    counts.

    Attributes:
        tokens: For each level, window means, "image-and-view token channel", float32; a tensor, or
            what gives its rows on a device when asked (`placement`).
        counts: For each level, valid map cells under each token, "image-and-view token".
        labels: Class indices; -1 where a label is missing.
        ids: Identifier of each image.
        splits: `train`, `val` or `test` for each image.
        groups: Patient or lesion of each image; empty where there is none.
        tasks: Class names of each task, in the order of the label columns.
        window: Side of the pooling window, in cells of the encoder's map.
        grids: Rows and columns of each level's tokens.
        views: Number of views of each image.
        fingerprint: What made the features, as the store records it.
        failed: Number of images left out because they could not be encoded.
        reach: Share of a level's row of windows that lies in the encoder's frame, for levels whose
            last window hangs over its edge.
        pixels: Of each image, where they were asked for.
        meta: Columns of the manifest that are a level of their own, where they were asked for.
    """

    tokens: Mapping[str, Any]
    counts: Mapping[str, Float[Tensor, "view _token"]]
    labels: Int64[Tensor, "image task"]
    ids: tuple[str, ...]
    splits: tuple[str, ...]
    groups: tuple[str, ...]
    tasks: Mapping[str, tuple[str, ...]]
    window: int
    grids: Mapping[str, tuple[int, int]]
    views: int
    fingerprint: Mapping[str, Any]
    failed: int
    reach: Mapping[str, float] = field(default_factory=dict)
    pixels: Pixels | None = None
    meta: tuple[MetaColumn, ...] = ()

    @property
    def channels(self) -> dict[str, int]:
        """Number of channels of each level."""
        return {level: tokens.shape[2] for level, tokens in self.tokens.items()}

    @property
    def device(self) -> torch.device:
        """Where batches come: the CPU, unless `device.placed` put the features elsewhere."""
        return next(iter(self.counts.values())).device

    def rows(self, split: str) -> Int64[Tensor, " row"]:
        """Row numbers of a split, in order."""
        return torch.tensor([i for i, s in enumerate(self.splits) if s == split], dtype=torch.int64)

    def flat(self, rows: Int64[Tensor, " row"]) -> Int64[Tensor, " view"]:
        """Rows of tokens and counts that hold all views of some images."""
        if self.views == 1:
            return rows
        return (rows[:, None] * self.views + torch.arange(self.views)).flatten()

    def drawn(
        self, rows: Int64[Tensor, " row"], generator: torch.Generator
    ) -> Int64[Tensor, " row"]:
        """Rows of tokens and counts that hold one view of each image, drawn at random."""
        if self.views == 1:
            return rows
        return rows * self.views + torch.randint(self.views, rows.shape, generator=generator)

    def standardised(self, scaler: ChannelScaler) -> "Features":
        """Return the same with standardised tokens."""
        return replace(self, tokens=scaler.apply(self.tokens))

    def standardise_(self, scaler: ChannelScaler) -> "Features":
        """Standardise these very tokens, which takes no further memory; return the features."""
        scaler.apply_(self.tokens)
        return self


def load_features(
    store: FeatureStore,
    levels: Sequence[str] = (),
    window: int | None = None,
    targets: Targets | None = None,
    memory: int | None = None,
) -> Features:
    """Read a store into memory, pooled further where a larger window is asked for.

    Args:
        store: An open store. Images that failed or are pending, or whose split is `unused`, are
            left out.
        levels: Levels to read, in this order; none named means all.
        window: Side of the pooling window in cells of the encoder's map, a multiple of the
            store's; None means the store's.
        targets: Tasks, labels and splits; None means the store's own.
        memory: Bytes that the features may take; where they would take more they lie in a scratch
            file. None sets no limit.

    Raises:
        ConfigError: where the store has no such level, or cannot serve the window.
        StoreError: where features hold values that are not finite.
        RunError: where there is no room for the scratch file.
    """
    problems = selection_problems(store, levels, window)
    if problems:
        raise ConfigError(f"{store.path} cannot serve this:\n  " + "\n  ".join(problems))
    targets = targets or Targets(store.tasks, store.labels, store.splits)
    status = store.status
    rows = np.flatnonzero((status == DONE) & (np.array(targets.splits) != UNUSED))
    factor = (window or store.fingerprint.window) // store.fingerprint.window
    grids = grids_of(store, levels, window)
    views = len(store.fingerprint.views)
    ids = _pick(store.ids, rows)
    scratch = memory is not None and _bytes(store, grids, len(rows)) > memory
    tokens, counts = {}, {}
    for level in grids:
        size = BLOCK_ROWS // views
        if scratch and memory is not None:
            shape = store.levels[level]
            values = shape.channels * shape.rows * shape.cols * views
            size = min(size, memory // (LOAD_SHARE * values))
        loaded = _load_level(store, level, rows, factor, ids, scratch, max(1, size))
        tokens[level], counts[level] = loaded
    return Features(
        tokens=tokens,
        counts=counts,
        labels=torch.from_numpy(targets.labels[rows].astype(np.int64)),
        ids=ids,
        splits=_pick(targets.splits, rows),
        groups=_pick(store.groups, rows),
        tasks=targets.tasks,
        window=factor * store.fingerprint.window,
        grids=grids,
        views=views,
        fingerprint=store.fingerprint.to_dict(),
        failed=int((status == FAILED).sum()),
        reach=reach_of(store, levels, window),
    )


def with_pixels(features: Features, store: FeatureStore, memory: int | None = None) -> Features:
    """Return the same features with the images that the store keeps.

    Args:
        features: Of the store, on the CPU.
        store: One that keeps pixels.
        memory: Bytes that the images may take; above it they lie in a scratch file.

    Raises:
        StoreError: where the store keeps none, or they are damaged.
    """
    rows = image_rows(store, features.ids)
    return replace(features, pixels=Pixels.load(store, rows, memory))


def image_rows(store: FeatureStore, ids: Sequence[str]) -> Int64[Tensor, " image"]:
    """Return the store's row of each image."""
    places = {name: row for row, name in enumerate(store.ids)}
    return torch.tensor([places[name] for name in ids], dtype=torch.int64)


def reach_of(store: FeatureStore, levels: Sequence[str], window: int | None) -> dict[str, float]:
    """Share of a row of windows that lies in the frame, for levels whose last one hangs over."""
    side = window or store.fingerprint.window
    size = store.fingerprint.input_size
    found = {
        level: size / (rows * side * store.levels[level].patch)
        for level, (rows, _) in grids_of(store, levels, window).items()
    }
    return {level: share for level, share in found.items() if share < 1}


def grids_of(
    store: FeatureStore, levels: Sequence[str], window: int | None
) -> dict[str, tuple[int, int]]:
    """Rows and columns of each level's tokens at a window that the store can serve."""
    factor = (window or store.fingerprint.window) // store.fingerprint.window
    shapes = {level: store.levels[level] for level in levels or store.levels}
    return {k: (-(-shape.rows // factor), -(-shape.cols // factor)) for k, shape in shapes.items()}


def selection_problems(store: FeatureStore, levels: Sequence[str], window: int | None) -> list[str]:
    """Return a sentence for everything asked for that the store cannot serve."""
    problems = [
        f"unknown level {name}; the store has {', '.join(store.levels)}{meant(name, store.levels)}"
        for name in levels
        if name not in store.levels
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


def _bytes(store: FeatureStore, grids: Mapping[str, tuple[int, int]], images: int) -> int:
    """Return what the tokens take in memory, as float32."""
    values = sum(rows * cols * store.levels[k].channels for k, (rows, cols) in grids.items())
    return 4 * images * len(store.fingerprint.views) * values


def _load_level(
    store: FeatureStore,
    level: str,
    rows: np.ndarray,
    factor: int,
    ids: Sequence[str],
    scratch: bool,
    size: int,
) -> tuple[Float[Tensor, "view token channel"], Float[Tensor, "view token"]]:
    shape, views = store.levels[level], len(store.fingerprint.views)
    cells = -(-shape.rows // factor) * -(-shape.cols // factor)
    total = len(rows) * views
    counts = torch.empty(total, cells)
    place = scratch_tensor if scratch else torch.empty
    tokens = place((total, cells, shape.channels), dtype=torch.float32)
    bad: list[str] = []
    for start in range(0, len(rows), size):
        block = rows[start : start + size]
        pooled, count = _read_block(store, level, block, factor)
        sums = pooled.sum((1, 2)).view(-1, views).sum(1)
        bad += [ids[start + i] for i in torch.nonzero(~torch.isfinite(sums)).flatten().tolist()]
        at = slice(start * views, (start + len(block)) * views)
        tokens[at], counts[at] = pooled, count
    _refuse_not_finite(bad, level, store.path)
    return tokens, counts


def _read_block(
    store: FeatureStore, level: str, block: np.ndarray, factor: int
) -> tuple[Float[Tensor, "view token channel"], Float[Tensor, "view token"]]:
    """Tokens and counts of some images, all views of an image one after another."""
    views = range(len(store.fingerprint.views))
    counted = np.stack([store.counts(level, block, view) for view in views], axis=1)
    return tokens_of(store.read(level, block), counted, factor)


def tokens_of(
    maps: Float[np.ndarray, "image view channel row col"],
    counts: Float[np.ndarray, "image view row col"],
    factor: int,
) -> tuple[Float[Tensor, "both token channel"], Float[Tensor, "both token"]]:
    """Return tokens and counts of maps as they are stored, "both" being images and their views one after another.

    Args:
        maps: Window means.
        counts: Valid map cells under each.
        factor: Side of the window that they are pooled over further, in windows.
    """
    values = torch.from_numpy(maps).float().flatten(0, 1)
    pooled, count = pool(values, torch.from_numpy(counts).flatten(0, 1), factor)
    return to_tokens(pooled), count.flatten(1)


def _refuse_not_finite(bad: Sequence[str], level: str, path: str) -> None:
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
    values = int(tokens.shape[1] * tokens.shape[2])
    # Whatever the memory allowed: sums must not depend on it.
    size = max(1, min(BLOCK_ROWS, BLOCK_VALUES // values))
    for block in torch.split(rows, size):
        cells = tokens.index_select(0, block).flatten(0, 1).double()
        yield cells, counts[block].flatten().double()


def _weighted_mean(
    blocks: Iterator[tuple[Float[Tensor, "cell channel"], Float[Tensor, " cell"]]],
) -> Float[Tensor, " channel"]:
    # Added up as they come: small results kept between large blocks would keep the allocator from
    # using those blocks' memory again.
    total, weight = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for values, counts in blocks:
        total, weight = total + counts @ values, weight + counts.sum()
    return total / weight
