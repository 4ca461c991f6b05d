"""Heads that are solved rather than descended to: scikit-learn's regression and neighbours.

They see each image's mean over valid cells, or as much of its windows as SLCA does, every feature
standardised on the training images, and choose one number, for each task, by validation AUC and then
loss. What is kept are tensors, so that a run holds no pickle: a regression is a linear layer, neighbours
are their positions.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from scipy.linalg import eigh
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from samcls.learn.features.tensors import DEAD
from samcls.learn.heads.base import Counts, Head, Judge, Reader, Shape, SolvedHead, Tokens
from samcls.learn.heads.pooled import pooled_means
from samcls.learn.score.metrics import SMALLEST
from samcls.learn.settings import TrainConfig
from samcls.pooling import masked_mean, pool, to_map, to_tokens

__all__ = [
    "GRID",
    "NEIGHBOURS",
    "ClosedHead",
    "KNNHead",
    "LogisticHead",
    "LogisticStatisticsHead",
    "LogisticWindowsHead",
]

GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # C, from strongly to hardly regularised
# Of all windows' values, at most: the directions in which training images vary most.
COMPONENTS = 256
SAMPLE = 1024  # training images that the components are found on, at most
MOST_VALUES = 65_536  # of an image's windows
BLOCK_VALUES = 524_288  # of images held at once, in double precision 4 MB
COMPONENT_GRID = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # C where only the first component has deviation 1
NEIGHBOURS = (1, 3, 5, 10, 20, 50, 100)
DEPENDENT = 1e-10  # of the largest variance: a component under it is rounding
ITERATIONS = 5000
NEVER = -1e9  # logit of a class that training has not seen: its probability is exactly 0

Labels = Int[np.ndarray, "image task"]
X = Float[np.ndarray, "image feature"]
Val = Float[np.ndarray, "view feature"]
Reduced = Float[np.ndarray, "_image _component"]


class ClosedHead(SolvedHead):
    """A head on each level's mean, every feature standardised on the training images.

    Args:
        config: Its class weights.
        shape: What the head is given and what it answers.
    """

    means_suffice = True

    def __init__(self, config: TrainConfig, shape: Shape) -> None:
        super().__init__()
        self.levels = tuple(shape.channels)
        self.classes = tuple(shape.classes.values())
        self.balanced = config.class_weights == "balanced"

    @classmethod
    def build(cls, config: TrainConfig, shape: Shape, generator: torch.Generator) -> "Head":
        """Return a head that is not solved yet; nothing about it is random."""
        del generator
        return cls(config, shape)

    @classmethod
    def problems(cls, config: TrainConfig, shape: Shape) -> list[str]:
        """Return it knows no cumulative link."""
        named = [task for task in config.ordinal if task in shape.classes]
        return [
            f"head {config.head} cannot learn {task} as ordinal; leave it out" for task in named
        ]

    def means(self, tokens: Tokens, counts: Counts) -> Float[Tensor, "image feature"]:
        """Each image's mean over valid cells, all levels side by side."""
        return pooled_means({level: tokens[level] for level in self.levels}, counts)

    def solve(
        self,
        train: Float[Tensor, "image feature"],
        labels: Labels,
        val: Float[Tensor, "view feature"],
        judges: Mapping[int, Judge],
    ) -> dict[int, float]:
        """Each task on the standardised means."""
        mean, std = self._scale(train)
        scaled, judged = (((part - mean) / std).double().numpy() for part in (train, val))
        chosen = {}
        for task, judge in judges.items():
            known = labels[:, task] >= 0
            chosen[task] = self._solve_task(task, scaled[known], labels[known, task], judged, judge)
        self._rescale(mean, std)
        return chosen

    def _scale(self, train: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and deviation to standardise by."""
        std = train.std(0, correction=0)
        return train.mean(0), torch.where(std > 0, std, torch.ones_like(std))

    @abstractmethod
    def _solve_task(
        self, task: int, x: X, y: Int[np.ndarray, " image"], val: Val, judge: Judge
    ) -> float:
        """Solve one task and keep what validation likes best."""

    @abstractmethod
    def _rescale(self, mean: Tensor, std: Tensor) -> None:
        """Take in the standardisation of the means."""


class LogisticHead(ClosedHead):
    """Multinomial logistic regression, its C the one of the grid with the best validation AUC."""

    def __init__(self, config: TrainConfig, shape: Shape) -> None:
        super().__init__(config, shape)
        self.register_buffer("weight", torch.zeros(shape.logits, self.width(shape)))
        self.register_buffer("bias", torch.zeros(shape.logits))
        self.weight: Tensor
        self.bias: Tensor

    @classmethod
    def width(cls, shape: Shape) -> int:
        """Return how many features of an image it sees."""
        return shape.width

    @property
    def grid(self) -> tuple[float, ...]:
        """Values of C."""
        return GRID

    def forward(
        self, tokens: Tokens, counts: Counts, generator: torch.Generator | None = None
    ) -> Float[Tensor, "image logit"]:
        """Logits from what `means` gives."""
        del generator
        return nn.functional.linear(self.means(tokens, counts), self.weight, self.bias)

    def _solve_task(
        self, task: int, x: X, y: Int[np.ndarray, " image"], val: Val, judge: Judge
    ) -> float:
        weights = "balanced" if self.balanced else None
        model = LogisticRegression(max_iter=ITERATIONS, warm_start=True, class_weight=weights)
        best, chosen = (-np.inf, -np.inf), self.grid[0]
        for C in self.grid:
            model.set_params(C=C).fit(x, y)
            probabilities = np.zeros((len(val), self.classes[task]))
            probabilities[:, model.classes_] = model.predict_proba(val)
            rank = judge(probabilities)
            if rank > best:
                best, chosen = rank, C
                self._keep(task, model)
        return chosen

    def _keep(self, task: int, model: LogisticRegression) -> None:
        start = sum(self.classes[:task])
        rows = start + torch.from_numpy(np.asarray(model.classes_, dtype=np.int64))
        # scikit-learn gives two classes one row: the second class's logit, the first one's being 0.
        rows = rows[-len(model.coef_) :]
        self.weight[start : start + self.classes[task]] = 0
        self.bias[start : start + self.classes[task]] = NEVER
        self.bias[start + torch.from_numpy(np.asarray(model.classes_, dtype=np.int64))] = 0
        self.weight[rows] = torch.from_numpy(self._unreduced(model.coef_)).float()
        self.bias[rows] = torch.from_numpy(model.intercept_).float()

    def _unreduced(self, coefficients: Reduced) -> Float[np.ndarray, "_logit _feature"]:
        """Return a solution's weights on the standardised features."""
        return coefficients

    def _rescale(self, mean: Tensor, std: Tensor) -> None:
        self.weight.copy_(self.weight / std)
        self.bias.sub_(self.weight @ mean)


class LogisticStatisticsHead(LogisticHead):
    """Logistic regression on each channel's mean, maximum and deviation over the windows.

    A control that sees where SLCA's gates could look, without gates: the mean over valid cells, the
    largest window and the standard deviation between windows, each weighing as many cells as it stands for.
    """

    means_suffice = False

    @classmethod
    def width(cls, shape: Shape) -> int:
        """Three features a channel."""
        return 3 * shape.width

    def means(self, tokens: Tokens, counts: Counts) -> Float[Tensor, "image feature"]:
        """All levels' means side by side, then their maxima, then their deviations."""
        found: tuple[list[Tensor], ...] = ([], [], [])
        for level in self.levels:
            values, cells = tokens[level], counts[level]
            mean = masked_mean(values, cells)
            spread = masked_mean((values - mean[:, None]).square(), cells).sqrt()
            empty = (cells == 0)[:, :, None]
            largest = values.masked_fill(empty, -torch.inf).amax(1).nan_to_num(neginf=0.0)
            for part, one in zip(found, (mean, largest, spread), strict=True):
                part.append(one)
        return torch.cat([one for part in found for one in part], 1)


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


class KNNHead(ClosedHead):
    """Votes of the nearest training images, how many being chosen by validation AUC.

    Distances are Euclidean between standardised means; every neighbour's vote is the same.
    """

    def __init__(self, config: TrainConfig, shape: Shape) -> None:
        super().__init__(config, shape)
        self.register_buffer("mean", torch.zeros(shape.width))
        self.register_buffer("std", torch.ones(shape.width))
        self.register_buffer("positions", torch.zeros(0, shape.width))
        self.register_buffer("labels", torch.zeros(0, len(self.classes), dtype=torch.int64))
        self.register_buffer("k", torch.ones(len(self.classes), dtype=torch.int64))
        self.mean: Tensor
        self.std: Tensor
        self.positions: Tensor
        self.labels: Tensor
        self.k: Tensor

    @property
    def grid(self) -> tuple[float | int, ...]:
        """Numbers of neighbours."""
        return NEIGHBOURS

    def solve(
        self,
        train: Float[Tensor, "image feature"],
        labels: Labels,
        val: Float[Tensor, "view feature"],
        judges: Mapping[int, Judge],
    ) -> dict[int, float]:
        """As every closed head; the training images themselves are what is kept."""
        self.positions = train.clone()
        self.labels = torch.from_numpy(labels)
        return super().solve(train, labels, val, judges)

    def forward(
        self, tokens: Tokens, counts: Counts, generator: torch.Generator | None = None
    ) -> Float[Tensor, "image logit"]:
        """Logarithms of each class's share of the votes."""
        del generator
        means = (self.means(tokens, counts) - self.mean) / self.std
        parts = []
        for task, k in enumerate(self.k.tolist()):
            known = self.labels[:, task] >= 0
            votes = _votes(
                means, self.positions[known], self.labels[known, task], self.classes[task]
            )
            parts.append(votes(k).clamp(min=SMALLEST).log())
        return torch.cat(parts, 1)

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *rest: object
    ) -> None:
        # The number of training images is known only from the file.
        for name in ("positions", "labels"):
            if prefix + name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[prefix + name]))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _solve_task(
        self, task: int, x: X, y: Int[np.ndarray, " image"], val: Val, judge: Judge
    ) -> float:
        votes = _votes(
            torch.from_numpy(val), torch.from_numpy(x), torch.from_numpy(y), self.classes[task]
        )
        allowed = [k for k in NEIGHBOURS if k <= len(x)]
        best = max(allowed, key=lambda k: judge(votes(k).double().numpy()))
        self.k[task] = best
        return float(best)

    def _rescale(self, mean: Tensor, std: Tensor) -> None:
        self.mean.copy_(mean)
        self.std.copy_(std)
        self.positions = (self.positions - mean) / std


def _votes(
    means: Float[Tensor, "image feature"],
    positions: Float[Tensor, "known feature"],
    labels: Tensor,
    classes: int,
) -> Callable[[int], Float[Tensor, "image class"]]:
    """Return a function from the number of neighbours to each class's share of their votes."""
    order = torch.cdist(means, positions).sort(dim=1, stable=True).indices
    ranked = nn.functional.one_hot(labels, classes)[order]
    return lambda k: ranked[:, :k].float().mean(1)
