"""Logistic regression on all windows of all levels: sees everything that SLCA sees, and gates nothing.

An image has many more values here than a training set has images, so it is solved on principal components,
which are found some images at a time.

    fitted = fit(features, TrainConfig(head="logistic-windows"))
"""

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from samcls.learn.features.tensors import DEAD
from samcls.learn.heads.base import Counts, Reader, Shape, Tokens
from samcls.learn.heads.closed import LogisticHead, Reduced
from samcls.learn.heads.contributions import Contributions
from samcls.learn.settings import TrainConfig
from samcls.pooling import pool, to_map, to_tokens

__all__ = ["COMPONENT_GRID", "LogisticWindowsHead"]

# Of all windows' values, at most: the directions in which training images vary most.
COMPONENTS = 256
SAMPLE = 1024  # training images that the components are found on, at most
MOST_VALUES = 65_536  # of an image's windows
BLOCK_VALUES = 524_288  # of images held at once, in double precision 4 MB
COMPONENT_GRID = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # C where only the first component has deviation 1
DEPENDENT = 1e-10  # of the largest variance: a component under it is rounding


class LogisticWindowsHead(LogisticHead):
    """Logistic regression on all windows of all levels, by their principal components.

    A control that sees everything that SLCA does, place by place. A window's values are weighed by the
    share of its cells that show picture, and standardised. The components are those of the training
    images, or of 1,024 of them, evenly spaced. Maps of more than 65,536 values an image are averaged over
    larger windows first. Training images are read some at a time.
    """

    means_suffice = False

    def __init__(self, config: TrainConfig, shape: Shape) -> None:
        super().__init__(config, shape)
        self.rows = {level: rows for level, (rows, _) in shape.grids.items()}
        self.factor = _coarsening(shape)

    @classmethod
    def width(cls, shape: Shape) -> int:
        """Every channel of every window."""
        return _window_values(shape, _coarsening(shape))

    @property
    def grid(self) -> tuple[float, ...]:
        """Values of C."""
        return COMPONENT_GRID

    def means(self, tokens: Tokens, counts: Counts) -> Float[Tensor, "image feature"]:
        """All levels' windows side by side; what shows no picture is 0."""
        parts = []
        for level in self.levels:
            maps, cells = tokens[level], counts[level]
            if self.factor > 1:
                rows = self.rows[level]
                counted = to_map(cells[:, :, None], rows)[:, 0]
                pooled, counted = pool(to_map(maps, rows), counted, self.factor)
                maps, cells = to_tokens(pooled), counted.flatten(1)
            shown = cells / cells.amax(1, keepdim=True).clamp(min=1)
            parts.append((maps * shown[:, :, None]).flatten(1))
        return torch.cat(parts, 1)

    def contributions(self, tokens: Tokens, counts: Counts) -> Contributions:
        """Exact: a window's own weights times its values; of windows that were averaged, by their cells."""
        logits = self(tokens, counts)
        maps, start = {}, 0
        for level in self.levels:
            values, cells, rows = tokens[level].double(), counts[level].double(), self.rows[level]
            cols = values.shape[1] // rows
            down, across = -(-rows // self.factor), -(-cols // self.factor)
            place = torch.arange(rows)[:, None] // self.factor * across
            place = (place + torch.arange(cols) // self.factor).flatten()  # of each token's window
            width = down * across * values.shape[2]
            weight = self.weight[:, start : start + width].double()
            weight = weight.reshape(len(weight), down * across, -1)
            together = torch.zeros(len(cells), down * across).double().index_add_(1, place, cells)
            shown = together / together.amax(1, keepdim=True).clamp(min=1)
            shares = cells * (shown / together.clamp(min=1))[:, place]
            terms = torch.einsum("ntc,ltc->nlt", values, weight[:, place])
            maps[level] = terms * shares[:, None]
            start += width
        return Contributions(maps, self.bias.double().expand(len(logits), -1), logits.double())

    def prepare(self, read: Reader, rows: Int64[Tensor, " row"]) -> None:
        """Find the components, in two passes for mean and deviation and one over pairs of blocks."""
        size = max(1, BLOCK_VALUES // self.weight.shape[1])
        blocks = torch.split(rows, size)
        total = torch.zeros(self.weight.shape[1], dtype=torch.float64)
        self._mean, self._std = total, torch.ones_like(total)
        for block in blocks:
            total = total + self._standard(read, block).sum(0)
        self._mean, total = total / len(rows), torch.zeros_like(total)
        for block in blocks:
            total += self._standard(read, block).square_().sum(0)
        std = (total / len(rows)).sqrt()
        self._std = torch.where(std > DEAD, std, torch.ones_like(std))
        spaced = torch.linspace(0, len(rows) - 1, min(SAMPLE, len(rows))).long()
        self._basis = self._components(read, torch.split(rows[spaced], size))

    def reduced(self, tokens: Tokens, counts: Counts) -> Float[Tensor, "image component"]:
        """How far each image lies along each component."""
        windows = self.means(tokens, counts).cpu().double().sub_(self._mean).div_(self._std)
        return windows.float() @ self._basis

    def _components(
        self, read: Reader, blocks: Sequence[Tensor]
    ) -> Float[Tensor, "feature component"]:
        from scipy.linalg import eigh  # a second, and a prediction needs none

        # They lie in the span of the images, and the products of images with each other are far fewer
        # than those of values.
        ends = [0, *accumulate(len(block) for block in blocks)]
        products = np.zeros((ends[-1], ends[-1]))
        for i, block in enumerate(blocks):
            left = self._standard(read, block)
            for j in range(i + 1):
                right = left if i == j else self._standard(read, blocks[j])
                part = (left @ right.T).numpy()
                products[ends[i] : ends[i + 1], ends[j] : ends[j + 1]] = part
        last = len(products) - 1
        span = (max(0, last - COMPONENTS + 1), last)
        values, vectors = eigh(products, lower=True, subset_by_index=span)
        there = values > values[-1] * DEPENDENT
        lengths = np.sqrt(values[there])
        first = lengths[-1] / np.sqrt(len(products))  # deviation along the first component
        scaled = torch.from_numpy(vectors[:, there] / (lengths * first))
        scaled = scaled.flip(1).float()  # as the weights will be
        basis = torch.zeros(len(self._mean), scaled.shape[1])
        for i, block in enumerate(blocks):
            basis.addmm_(self._standard(read, block).float().T, scaled[ends[i] : ends[i + 1]])
        return basis

    def _standard(self, read: Reader, rows: Tensor) -> Float[Tensor, "image feature"]:
        found = self.means(*read(rows)).cpu().double()
        return found.sub_(self._mean).div_(self._std)

    def _scale(self, train: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros(train.shape[1]), torch.ones(train.shape[1])

    def _unreduced(self, coefficients: Reduced) -> Float[np.ndarray, "_logit _feature"]:
        weights = (torch.from_numpy(coefficients).float() @ self._basis.T).double()
        found: Float[np.ndarray, "_logit _feature"] = weights.div_(self._std).numpy()
        return found

    def _rescale(self, mean: Tensor, std: Tensor) -> None:
        del mean, std
        self.bias.sub_((self.weight.double() @ self._mean).float())
        del self._basis, self._mean, self._std


def _window_values(shape: Shape, factor: int) -> int:
    return sum(
        shape.channels[level] * -(-rows // factor) * -(-cols // factor)
        for level, (rows, cols) in shape.grids.items()
    )


def _coarsening(shape: Shape) -> int:
    """Return the least power of two of windows that leaves an image no more values than `MOST_VALUES`."""
    factor, side = 1, max(max(grid) for grid in shape.grids.values())
    while factor < side and _window_values(shape, factor) > MOST_VALUES:
        factor *= 2
    return factor
