"""Features that do not fit: into memory, by row from a scratch file; onto a GPU, by the batch.

The store is decoded once. Rows of a file can be read in any order, so a streamed run draws the same
batches as one in memory and gives the same numbers, bit for bit. The file holds the store's own
type, has no name in the folder and vanishes with the process.

    tokens = Spilled.create(images, cells, channels, numpy.dtype("float16"))
    tokens.append(block)
    batch = tokens.index_select(0, rows)     # float32, as a tensor in memory would give
"""

import os
import tempfile
import weakref
from collections.abc import Iterator
from typing import IO

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from samcls.errors import RunError

__all__ = ["Hosted", "Spilled", "scratch_file"]


def scratch_file(needed: int) -> IO[bytes]:
    """Open a file without a name in the folder for temporary files (`TMPDIR`).

    Args:
        needed: Bytes that it will take.

    Raises:
        RunError: where there is no room for them.
    """
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller's to close
    room = os.statvfs(file.fileno())
    free = room.f_bavail * room.f_frsize
    if free < needed:
        file.close()
        raise RunError(
            f"streaming needs {needed / 1e6:.0f} MB of scratch space in {tempfile.gettempdir()}"
            f", which has {free / 1e6:.0f} MB; set TMPDIR to a larger disk"
        )
    return file


class _Scratch:
    """A file without a name, closed with the last of those who read it."""

    def __init__(self, needed: int) -> None:
        self.file = scratch_file(needed)
        weakref.finalize(self, self.file.close)


class Spilled:
    """Tokens of one level in a scratch file, "row token channel", read to the CPU.

    Args:
        scratch: The file.
        shape: Rows, tokens and channels.
        dtype: Of the values in the file.
        mean: For each channel, subtracted from what is read; None leaves values as they are.
        std: For each channel, what the difference is divided by.
    """

    def __init__(
        self,
        scratch: _Scratch,
        shape: torch.Size,
        dtype: np.dtype[np.floating],
        mean: Float[Tensor, " channel"] | None = None,
        std: Float[Tensor, " channel"] | None = None,
    ) -> None:
        self.scratch = scratch
        self.device = torch.device("cpu")
        self.shape = shape
        self.dtype = dtype
        self.mean = mean
        self.std = std

    @classmethod
    def create(
        cls, rows: int, tokens: int, channels: int, dtype: np.dtype[np.floating]
    ) -> "Spilled":
        """Return an empty file in the folder for temporary files (`TMPDIR`).

        Raises:
            RunError: where there is no room for it.
        """
        shape = torch.Size((rows, tokens, channels))
        return cls(_Scratch(shape.numel() * dtype.itemsize), shape, dtype)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row in the file."""
        return self.shape[1] * self.shape[2] * self.dtype.itemsize

    def append(self, block: Float[Tensor, "row token channel"]) -> None:
        """Write the next rows."""
        # PyTorch converts float16 six times faster than numpy, to the same bits.
        kind = torch.from_numpy(np.empty(0, self.dtype)).dtype
        self.scratch.file.write(block.to(kind).contiguous().numpy().data)
        self.scratch.file.flush()

    def standardised(
        self, mean: Float[Tensor, " channel"], std: Float[Tensor, " channel"]
    ) -> "Spilled":
        """Return the same file, standardised as it is read."""
        return Spilled(self.scratch, self.shape, self.dtype, mean, std)

    def index_select(
        self, dim: int, index: Int64[Tensor, " row"]
    ) -> Float[Tensor, "row token channel"]:
        """Return some rows in any order, float32.

        Args:
            dim: 0, the only axis along which rows lie in the file.
            index: Row numbers.
        """
        del dim
        raw = np.empty((len(index), *self.shape[1:]), self.dtype)
        for place, start, count in _stretches(index.tolist()):
            os.preadv(
                self.scratch.file.fileno(),
                [raw[place : place + count].data],
                start * self.row_bytes,
            )
        values = torch.from_numpy(raw).float()
        if self.mean is None or self.std is None:
            return values
        return values.sub_(self.mean).div_(self.std)


class Hosted:
    """Tokens of one level that stay on the host and are copied to a device by the batch.

    Args:
        values: In memory or in a scratch file.
        device: Where batches are wanted.
    """

    def __init__(self, values: "Tensor | Spilled", device: torch.device) -> None:
        self.values = values
        self.shape = values.shape
        self.device = device

    def index_select(
        self, dim: int, index: Int64[Tensor, " row"]
    ) -> Float[Tensor, "row token channel"]:
        """Return some rows in any order, on the device.

        Args:
            dim: 0, the only axis along which rows can be chosen.
            index: Row numbers, on the CPU.
        """
        if self.device.type == "cpu":
            return self.values.index_select(dim, index)
        # PyTorch keeps pinned blocks and gives one away again once its copy is done, so gathering
        # the next batch overlaps with this one's copy and step.
        batch = torch.empty((len(index), *self.shape[1:]), pin_memory=True)
        if isinstance(self.values, Tensor):
            torch.index_select(self.values, dim, index, out=batch)
        else:
            batch.copy_(self.values.index_select(dim, index))
        return batch.to(self.device, non_blocking=True)

    def standardised(
        self, mean: Float[Tensor, " channel"], std: Float[Tensor, " channel"]
    ) -> "Hosted":
        """Return the same, standardised on the host."""
        if isinstance(self.values, Tensor):
            return Hosted((self.values - mean).div_(std), self.device)
        return Hosted(self.values.standardised(mean, std), self.device)


def _stretches(rows: list[int]) -> Iterator[tuple[int, int, int]]:
    """Return runs of neighbouring rows, as (place in the result, first row, number of rows)."""
    start = 0
    for i in range(1, len(rows) + 1):
        if i == len(rows) or rows[i] != rows[i - 1] + 1:
            yield start, rows[start], i - start
            start = i
