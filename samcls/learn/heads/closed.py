"""Heads that are solved rather than descended to: scikit-learn's regression and neighbours.

They see each image's mean over valid cells, or as much of its windows as SLCA does, every feature
standardised on the training images, and choose one number, for each task, by validation AUC and then
loss. What is kept are tensors, so that a run holds no pickle: a regression is a linear layer, neighbours
are their positions.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from samcls.errors import InputError
from samcls.learn.heads.base import Counts, Head, Judge, Shape, SolvedHead, Tokens
from samcls.learn.heads.contributions import Contributions, additive
from samcls.learn.heads.pooled import pooled_means
from samcls.learn.score.metrics import SMALLEST
from samcls.learn.settings import TrainConfig
from samcls.pooling import masked_mean, shares_of

__all__ = [
    "GRID",
    "NEIGHBOURS",
    "ClosedHead",
    "KNNHead",
    "LogisticHead",
    "LogisticStatisticsHead",
]

GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # C, from strongly to hardly regularised
NEIGHBOURS = (1, 3, 5, 10, 20, 50, 100)
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
        """Logits from what `means` gives, summed in double precision: then they depend on no neighbours' number."""
        del generator
        means, weight, bias = self.means(tokens, counts), self.weight, self.bias
        return nn.functional.linear(means.double(), weight.double(), bias.double()).float()

    def contributions(self, tokens: Tokens, counts: Counts) -> Contributions:
        """Exact: weights times tokens."""
        parts = {level: (tokens[level], shares_of(counts[level])) for level in self.levels}
        return additive(parts, self.weight, self.bias, self(tokens, counts))

    def _solve_task(
        self, task: int, x: X, y: Int[np.ndarray, " image"], val: Val, judge: Judge
    ) -> float:
        from sklearn.linear_model import LogisticRegression  # seconds, and a prediction needs none

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

    def _keep(self, task: int, model: Any) -> None:
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

    def contributions(self, tokens: Tokens, counts: Counts) -> Contributions:
        """Exact sums: a mean is shared by all windows, a maximum is the window's that holds it.

        A deviation is a sum too, of the windows' squared distances from the mean, over the deviation.
        """
        logits = self(tokens, counts)
        widths = [tokens[level].shape[2] for level in self.levels] * 3
        columns = torch.split(self.weight.double(), widths, 1)
        maps = {}
        for number, level in enumerate(self.levels):
            values, shares = tokens[level].double(), shares_of(counts[level]).double()[:, :, None]
            mean = (values * shares).sum(1, keepdim=True)
            apart = (values - mean).square() * shares
            spread = apart.sum(1, keepdim=True).sqrt()
            shown = values.masked_fill((counts[level] == 0)[:, :, None], -torch.inf)
            place = nn.functional.one_hot(shown.argmax(1), values.shape[1]).transpose(1, 2)
            parts = (
                values * shares,
                place * (shares > 0) * values,
                apart / spread.clamp(min=1e-12),
            )
            own = columns[number :: len(self.levels)]
            terms = [part @ weight.T for part, weight in zip(parts, own, strict=True)]
            maps[level] = torch.stack(terms).sum(0).transpose(1, 2)
        return Contributions(maps, self.bias.double().expand(len(logits), -1), logits.double())


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
    def untraceable(self) -> str:
        """Rounding alone would change who the nearest are, and with them whole votes."""
        return (
            "head knn keeps every training image's features, and which are nearest turns on rounding, "
            "which no two programs share; export a head that is trained, or a regression"
        )

    def contributions(self, tokens: Tokens, counts: Counts) -> Contributions:
        """Refuse: votes are of whole images.

        Raises:
            InputError: always.
        """
        del tokens, counts
        raise InputError(
            "head knn answers by votes of the nearest training images, which are of no window; its evidence is "
            "those images. Explain a run of slca, linear, logistic or attention-pool"
        )

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
