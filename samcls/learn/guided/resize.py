"""From a level's windows to a stage's cells: where in the frame both lie, and how one serves the other.

Features and pixels show the same frame: the picture with its longer side brought to the frame's, and
padded right and bottom. So the frame is the unit square for both. A grid of n windows, of which the
last may overhang the frame, has its windows at [j, j + 1] * window / cells; a stage of m cells has them
at [i, i + 1] / m. Whatever the two sizes are, a cell takes the windows that lie under it.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from samcls.config import Upsampling

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


class Resize(nn.Module):
    """What a stage's cells take from a grid of windows, windows without picture having no say.

    Args:
        grid: Rows and columns of the windows.
        size: Rows and columns of the stage.
        reach: Share of the windows' whole length that lies in the frame.
        mode: As for `axis_weights`.
    """

    down: Tensor
    across: Tensor

    def __init__(
        self, grid: tuple[int, int], size: tuple[int, int], reach: float, mode: Upsampling
    ) -> None:
        super().__init__()
        self.size = size
        whole = reach == 1.0
        self.copies = (
            whole and mode == "nearest" and all(s >= g for s, g in zip(size, grid, strict=True))
        )
        multiple = all(s % g == 0 for s, g in zip(size, grid, strict=True))
        # Cells of one window share its value, so that it need not be written out for each of them.
        self.blocks = (size[0] // grid[0], size[1] // grid[1]) if self.copies and multiple else None
        for name, windows, cells in zip(("down", "across"), grid, size, strict=True):
            weights = axis_weights(windows, cells, reach, mode)
            self.register_buffer(name, weights, persistent=False)

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
            return functional.interpolate(seen, size=self.size, mode="nearest-exact")
        return self._weighed(seen) / self._weighed(shown).clamp(min=SMALLEST_WEIGHT)

    def scaled(
        self,
        maps: Float[Tensor, "image channel down across"],
        values: Float[Tensor, "image channel row col"],
        shown: Float[Tensor, "image 1 row col"],
    ) -> Float[Tensor, "image channel down across"]:
        """`maps + maps * self(values, shown)`, without the enlarged values where they can be spared."""
        if self.blocks is None:
            grown = self(values, shown).to(maps.dtype)
            return torch.addcmul(maps, maps, grown)
        rows, cols = values.shape[2:]
        split = maps.view(*maps.shape[:2], rows, self.blocks[0], cols, self.blocks[1])
        seen = (values * shown).to(maps.dtype)[:, :, :, None, :, None]
        return torch.addcmul(split, split, seen).flatten(4, 5).flatten(2, 3)

    def _weighed(self, values: Tensor) -> Tensor:
        down, across = self.down.to(values.dtype), self.across.to(values.dtype)
        weighed: Tensor = down @ values @ across.T
        return weighed
