"""What every head keeps to.

A head answers with logits of all tasks side by side, as many for a task as it has classes; softmax
over a task's own logits gives its probabilities, whatever the link behind them. What the rest of
samcls does with a head it asks the head: what it reads of a store, how it is fitted, whether several
are fitted as one, what it answers for features of a whole store, and where its gates are open.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor, nn

from samcls.learn.features.batches import batch_size, batched, select_rows
from samcls.learn.features.pixels import Images, Pixels
from samcls.learn.features.tensors import Features
from samcls.learn.heads.contributions import Contributions, integrated
from samcls.learn.settings import TrainConfig

__all__ = [
    "ComposedHead",
    "Counts",
    "Fitting",
    "Head",
    "Judge",
    "NetworkHead",
    "Reader",
    "Reads",
    "Shape",
    "SolvedHead",
    "Tokens",
    "split_logits",
]

# From one task's probabilities of validation images to their rank: AUC, then loss.
Judge = Callable[[np.ndarray], tuple[float, float]]
Fitting = Literal["solution", "members", "network", "ensemble"]
Tokens = Mapping[str, Float[Tensor, "image _token _channel"]]
Counts = Mapping[str, Float[Tensor, "image _token"]]
Reader = Callable[[Int64[Tensor, " row"]], tuple[Tokens, Counts]]  # of some rows


@dataclass(frozen=True)
class Shape:
    """What a head is given and what it answers.

    Attributes:
        channels: Number of channels of each level, in the order in which the head sees them.
        classes: Number of classes of each task, in the order of the label columns.
        grids: Rows and columns of each level's tokens.
        window: Side of the window under each token, in cells of the encoder's map.
        reach: Share of a level's row of windows that lies in the encoder's frame, for levels whose
            last window hangs over its edge.
        pixels: Side of the images that stand beside the features; 0 where there are none.
    """

    channels: Mapping[str, int]
    classes: Mapping[str, int]
    grids: Mapping[str, tuple[int, int]]
    window: int
    reach: Mapping[str, float] = field(default_factory=dict)
    pixels: int = 0

    @property
    def width(self) -> int:
        """Channels of all levels together."""
        return sum(self.channels.values())

    @property
    def logits(self) -> int:
        """Outputs of all tasks together."""
        return sum(self.classes.values())


@dataclass(frozen=True)
class Reads:
    """What a head reads of a store, besides the levels: heads that read the same share it.

    Attributes:
        window: Side of the pooling window, in cells of the encoder's map; None means the store's.
        pixels: Whether the images too.
    """

    window: int | None
    pixels: bool = False


class Head(nn.Module, ABC):
    """What every head keeps to: built from a config, called on tokens and counts by level.

    Attributes:
        fitting: How it is fitted: `solution` in one go, `members` by descent, alone or with others,
            `network` by descent through a network over pixels, `ensemble` part by part; see
            `samcls.learn.fit.fit`.
        means_suffice: Whether it needs no more of a level than the mean over its valid cells.
        maps_gates: Whether its gates lie on maps, which `gate_maps` gives.
        learns_order: Whether it can learn classes as steps of one scale.
        partner_seed: Where features are shuffled between images, of their order; None for one's own.
    """

    fitting: ClassVar[Fitting] = "members"
    means_suffice: ClassVar[bool] = False
    maps_gates: ClassVar[bool] = False
    learns_order: ClassVar[bool] = True
    partner_seed: int | None = None

    @classmethod
    @abstractmethod
    def build(cls, config: TrainConfig, shape: Shape, generator: torch.Generator) -> "Head":
        """Return a fresh head.

        Args:
            config: Its options are those of the head that read them.
            shape: What the head is given and what it answers.
            generator: Source of the initial weights.
        """

    @classmethod
    def problems(cls, config: TrainConfig, shape: Shape) -> list[str]:
        """Return a sentence for everything that stands against building this head."""
        del config, shape
        return []

    @classmethod
    def reads(cls, config: TrainConfig) -> Reads:
        """Return what it reads of a store."""
        return Reads(config.window)

    @classmethod
    def heads(cls, config: TrainConfig) -> list[TrainConfig]:
        """Return what is trained by descent for it: of an ensemble the heads, else it itself."""
        return [config]

    @classmethod
    def title(cls, config: TrainConfig) -> str:
        """Return what tables call it: the config's name for it, and that of its control."""
        return config.head

    @classmethod
    def attends(cls) -> bool:
        """Return whether it weighs windows against each other, which plain regressions on them do not."""
        return cls.fitting == "members" and not cls.means_suffice

    @property
    def fitted_values(self) -> int:
        """Number of values that were trained or, where none are, solved for."""
        trained = [value for value in self.parameters() if value.requires_grad]
        return sum(value.numel() for value in trained or self.state_dict().values())

    @property
    def stacks(self) -> bool:
        """Whether several such heads can be fitted as one, by `samcls.learn.fit.stacked`."""
        return False

    def answer(
        self,
        tokens: Mapping[str, Any],
        counts: Counts,
        rows: Int64[Tensor, " row"],
        pixels: Pixels | None = None,
        feeding: Int64[Tensor, " view"] | None = None,
    ) -> Float[Tensor, "row logit"]:
        """Logits without dropout, a batch at a time, on the CPU.

        Args:
            tokens: For each level, standardised window means, "image-and-view token channel", which
                lie in memory, in a file, or on a device.
            counts: For each level, number of valid map cells under each token.
            rows: Which of them, on the CPU.
            pixels: Of the same images, under the same views.
            feeding: As `feeding` says.
        """
        del pixels, feeding
        with torch.inference_mode():
            size = batch_size(tokens)
            return batched(lambda part: self(*select_rows(tokens, counts, part)), rows, size)

    @property
    def untraceable(self) -> str:
        """What stands against a graph of it, a sentence that ends in a remedy; empty where nothing does."""
        if self.partner_seed is None:
            return ""
        return (
            "the gates of the control shuffled are fed with other images' features, so that of a single "
            "image it can say nothing; export a run without that control"
        )

    def traced(
        self, tokens: Tokens, counts: Counts, images: Images | None
    ) -> Float[Tensor, "image logit"]:
        """Logits of a batch, as `answer` gives them, in operations that a tracer follows.

        Args:
            tokens: For each level, standardised window means.
            counts: For each level, number of valid map cells under each token.
            images: The same images, for a head that looks at them.
        """
        del images
        logits: Tensor = self(tokens, counts)
        return logits

    def feeding(self, features: Features) -> Int64[Tensor, " view"] | None:
        """Which row of tokens and counts feeds each row of what it answers; None for its own."""
        del features
        return None

    def gate_maps(
        self, tokens: Tokens, counts: Counts, images: Images
    ) -> dict[str, Float[Tensor, "image _channel _row _col"]]:
        """Its gates A in (0, 1) where they lie, a batch at a time.

        Args:
            tokens: For each level, standardised window means.
            counts: For each level, number of valid map cells under each token.
            images: The same images.
        """
        del tokens, counts, images
        return {}

    def contributions(self, tokens: Tokens, counts: Counts) -> Contributions:
        """Which windows its logits come from, without dropout: exact where it is additive.

        Args:
            tokens: For each level, standardised window means.
            counts: For each level, number of valid map cells under each token.

        Raises:
            InputError: where its answers cannot be divided among windows.
        """
        return integrated(lambda at: self(at, counts), tokens)

    def window_gates(
        self, tokens: Tokens, counts: Counts
    ) -> dict[str, Float[Tensor, "image _channel _token"]]:
        """Return its gates A in (0, 1) over the windows of each level; none where it has none.

        Args:
            tokens: For each level, standardised window means.
            counts: For each level, number of valid map cells under each token.
        """
        del tokens, counts
        return {}

    def added(self, shape: Shape) -> str:
        """Return what it adds to something plainer and costs, in a sentence; empty where there is nothing."""
        del shape
        return ""

    @abstractmethod
    def forward(
        self, tokens: Tokens, counts: Counts, generator: torch.Generator | None = None
    ) -> Float[Tensor, "image logit"]:
        """Logits of all tasks side by side.

        Args:
            tokens: For each level, standardised window means, "image token channel".
            counts: For each level, number of valid map cells under each token, "image token".
            generator: Source of dropout's masks in training; None means evaluation.
        """


class SolvedHead(Head):
    """A head with a solution instead of descent, one number of its grid for each task."""

    fitting = "solution"
    learns_order = False

    @property
    @abstractmethod
    def grid(self) -> tuple[float | int, ...]:
        """The numbers tried."""

    @abstractmethod
    def means(self, tokens: Tokens, counts: Counts) -> Float[Tensor, "image feature"]:
        """Return what it answers from.

        Args:
            tokens: For each level, standardised window means.
            counts: For each level, number of valid map cells under each token.
        """

    def prepare(self, read: Reader, rows: Int64[Tensor, " row"]) -> None:
        """Learn what `reduced` needs; most heads need nothing.

        Args:
            read: Gives tokens and counts of some rows.
            rows: The training images, under all their views.
        """
        del read, rows

    def reduced(self, tokens: Tokens, counts: Counts) -> Float[Tensor, "image value"]:
        """Return `means`, or as much of them as it is solved on.

        Args:
            tokens: For each level, standardised window means.
            counts: For each level, number of valid map cells under each token.
        """
        return self.means(tokens, counts)

    @abstractmethod
    def solve(
        self,
        train: Float[Tensor, "image feature"],
        labels: Int[np.ndarray, "image task"],
        val: Float[Tensor, "view feature"],
        judges: Mapping[int, Judge],
    ) -> dict[int, float]:
        """Solve each task for every number of the grid, and keep the best on validation.

        Args:
            train: What `reduced` gives of the training images.
            labels: Their class indices; -1 where a label is missing.
            val: Likewise of the validation images.
            judges: For each task's column, what ranks validation probabilities: AUC, then loss.

        Returns:
            The number chosen for each task: the first of equals.
        """


class ComposedHead(Head):
    """A head of several, each fitted as if it were alone.

    Attributes:
        shares: What each part weighs; 1 together.
    """

    fitting = "ensemble"
    shares: Sequence[float]

    @classmethod
    @abstractmethod
    def parts(cls, config: TrainConfig) -> list[TrainConfig]:
        """Return a config for each part.

        Args:
            config: Of the whole.
        """

    @abstractmethod
    def take(self, heads: Sequence[Head]) -> None:
        """Put fitted heads in the places of its parts.

        Args:
            heads: In the order of `parts`.
        """


class NetworkHead(Head):
    """A head around a network over pixels, which `samcls.learn.fit.network` trains.

    Attributes:
        body: The network, its weights trained at a rate of their own.
        size: Side of the images, in pixels.
    """

    fitting = "network"
    body: nn.Module
    size: int

    @classmethod
    def reads(cls, config: TrainConfig) -> Reads:
        """Features at the config's window, and the images."""
        return Reads(config.window, pixels=True)

    @property
    @abstractmethod
    def needs_features(self) -> bool:
        """Whether the answer depends on cached features at all."""

    @abstractmethod
    def contributions_of(self, tokens: Tokens, counts: Counts, images: Images) -> Contributions:
        """Which cells of its last map its logits come from: gradient times value (HiResCAM, 2011.08891).

        Where the network ends in a mean and a linear layer that is class activation mapping, and exact.

        Args:
            tokens: For each level, standardised window means.
            counts: For each level, number of valid map cells under each token.
            images: The same images.
        """

    @abstractmethod
    def learning(self) -> None:
        """Into training, with whatever of the network is frozen left in evaluation."""

    @abstractmethod
    def normalise(self, images: Images) -> Float[Tensor, "image 3 size size"]:
        """Pixels as the network was made for.

        Args:
            images: A batch.
        """


def split_logits(
    logits: Float[Tensor, "image logit"], classes: Sequence[int]
) -> tuple[Float[Tensor, "image _class"], ...]:
    """One block of logits for each task.

    Args:
        logits: Logits of all tasks side by side.
        classes: Number of classes of each task, in order; two for a binary task.
    """
    return torch.split(logits, list(classes), dim=1)
