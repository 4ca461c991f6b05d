"""From a level's windows to a stage's cells: where in the frame both lie, and how one serves the other.

Features and pixels show the same frame: the picture with its longer side brought to the frame's, and
padded right and bottom. So the frame is the unit square for both. A grid of n windows, of which the
last may overhang the frame, has its windows at [j, j + 1] * window / cells; a stage of m cells has them
at [i, i + 1] / m. Whatever the two sizes are, a cell takes the windows that lie under it.

Where a stage has fewer cells than there are windows, tokens are averaged over the cells first: SLCA with
as large a window as the stage can tell apart, and fewer gates to work out. A mean over windows, each
weighing as many map cells as show picture in it, is the mean that a larger window would have had.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from samcls.learn.settings import Upsampling

__all__ = ["Resize", "axis_weights"]

SMALLEST_WEIGHT = 1e-6  # of cells far from any picture, whose gate is never looked at


def axis_weights(
    windows: int, cells: int, reach: float, mode: Upsampling
) -> Float[Tensor, "cell window"]:
    """How much each window counts for each cell along one axis; rows sum to 1.

    Args:
        windows: Number of windows.
        cells: Number of a stage's cells.
        reach: Share of the windows' whole length that lies in the frame, in (0, 1].
        mode: Where there are at least as many cells as windows, `nearest` takes the window at the
            cell's centre, `bilinear` goes in a straight line from one window's centre to the next;
            where there are fewer, a cell takes the mean of what it covers.
    """
    length = windows * reach  # of the frame, in windows
    if cells < windows:
        edges = torch.arange(cells + 1, dtype=torch.float64) * length / cells
        first = torch.arange(windows, dtype=torch.float64)
        shared = torch.minimum(edges[1:, None], first + 1) - torch.maximum(edges[:-1, None], first)
        weights = shared.clamp(min=0)
        return (weights / weights.sum(1, keepdim=True)).float()
    centres = (torch.arange(cells, dtype=torch.float64) + 0.5) * length / cells
    if mode == "nearest":
        index = centres.floor().long().clamp(max=windows - 1)
        return functional.one_hot(index, windows).float()
    # In windows from the first one's centre; beyond the first and last centre nothing changes.
    place = (centres - 0.5).clamp(0, windows - 1)
    distance = (place[:, None] - torch.arange(windows, dtype=torch.float64)).abs()
    return (1 - distance).clamp(min=0).float()


def _in_frame(windows: int, reach: float) -> Float[Tensor, " window"]:
    """How much of each window lies in the frame."""
    return (windows * reach - torch.arange(windows)).clamp(SMALLEST_WEIGHT, 1.0)


class Resize(nn.Module):
    """From a grid of windows to a stage's cells, windows without picture having no say.

    Args:
        grid: Rows and columns of the windows.
        size: Rows and columns of the stage.
        reach: Share of the windows' whole length that lies in the frame.
        mode: As for `axis_weights`.

    Attributes:
        inner: Rows and columns of the gates: of the grid, or of the stage where that has fewer.
    """

    pool_down: Tensor
    pool_across: Tensor
    down: Tensor
    across: Tensor

    def __init__(
        self, grid: tuple[int, int], size: tuple[int, int], reach: float, mode: Upsampling
    ) -> None:
        super().__init__()
        self.grid = grid
        self.size = size
        self.inner = (min(grid[0], size[0]), min(grid[1], size[1]))
        self.pools = self.inner != grid
        exact = all(
            reach == 1.0 or inner < own for inner, own in zip(self.inner, grid, strict=True)
        )
        self.copies = exact and mode == "nearest"
        blocks = (size[0] // self.inner[0], size[1] // self.inner[1])
        whole = (blocks[0] * self.inner[0], blocks[1] * self.inner[1]) == size
        # Cells of one window share its value, so that it need not be written out for each of them.
        self.blocks = blocks if self.copies and whole else None
        for name, windows, inner, cells in zip(
            ("down", "across"), grid, self.inner, size, strict=True
        ):
            pool = torch.eye(windows)
            if inner < windows:
                # Counts leave out what lies beyond the frame: only the rest of a window is shared out.
                pool = axis_weights(windows, inner, reach, mode) / _in_frame(windows, reach)
            grow = axis_weights(inner, cells, reach if inner == windows else 1.0, mode)
            self.register_buffer(f"pool_{name}", pool, persistent=False)
            self.register_buffer(name, grow, persistent=False)

    def pooled(
        self, tokens: Float[Tensor, "image token channel"], counts: Float[Tensor, "image token"]
    ) -> tuple[Float[Tensor, "image row col channel"], Float[Tensor, "image row col"]]:
        """Tokens and counts over the windows that gates are worked out for.

        Args:
            tokens: Means over the grid's windows.
            counts: Number of valid map cells under each.
        """
        weights = counts.view(counts.shape[0], *self.grid)
        values = tokens.view(tokens.shape[0], *self.grid, -1)
        if not self.pools:
            return values, weights
        total = self._axes(values * weights[..., None])
        weight = self._axes(weights[..., None])
        return total / weight.clamp(min=SMALLEST_WEIGHT), weight[..., 0]

    def gate(
        self,
        maps: Float[Tensor, "image channel down across"],
        change: Float[Tensor, "image channel row col"],
        shown: Float[Tensor, "image 1 row col"],
    ) -> Float[Tensor, "image channel down across"]:
        """Return maps times one plus the change of the window that each cell lies in.

        Args:
            maps: Of the stage.
            change: For each window, what its gate differs from one by.
            shown: 1 for windows that show picture, 0 for others, whose cells stay as they are.
        """
        if self.blocks is None:
            grown: Tensor = self(change, shown)
            return maps * (1 + grown).to(maps.dtype)
        down, across = self.blocks
        factor = (1 + change * shown).to(maps.dtype)
        # Written out along the rows alone: inner loops over a block's few cells would take twice as long.
        wide = factor[..., None].expand(*factor.shape, across).flatten(3)
        split = maps.view(*maps.shape[:2], self.inner[0], down, maps.shape[3])
        gated: Tensor = (split * wide[:, :, :, None]).flatten(2, 3)
        return gated

    def forward(
        self,
        values: Float[Tensor, "image channel row col"],
        shown: Float[Tensor, "image 1 row col"],
    ) -> Float[Tensor, "image channel down across"]:
        """Values at each cell of the stage, 0 where no window that shows picture is near.

        Args:
            values: For each window.
            shown: 1 for windows that show picture, 0 for others.
        """
        seen = values * shown
        if self.copies:
            copied: Tensor = functional.interpolate(seen, size=self.size, mode="nearest-exact")
            return copied
        weight = self.down.to(shown.dtype) @ shown @ self.across.to(shown.dtype).T
        grown: Tensor = self.down.to(seen.dtype) @ seen @ self.across.to(seen.dtype).T
        return grown / weight.clamp(min=SMALLEST_WEIGHT)

    def _axes(self, values: Float[Tensor, "image _ _ channel"]) -> Tensor:
        """Return sums over both axes, weighed by what of each window lies under a cell."""
        images, rows, cols, channels = values.shape
        down, across = self.pool_down.to(values.dtype), self.pool_across.to(values.dtype)
        first = (down @ values.reshape(images, rows, -1)).view(images, -1, cols, channels)
        summed: Tensor = across @ first
        return summed
