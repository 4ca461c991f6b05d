"""Tensors in files: for what does not fit into memory, and for what several processes share.

They are mapped, so that all code sees tensors like any other; the system keeps in memory what is being
used and takes it back where memory is short.

    tokens = scratch_tensor((rows, cells, channels), torch.float32)     # vanishes with its last user
    save_array(folder / "tokens.npy", tokens); tokens = map_array(folder / "tokens.npy")
"""

import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from samcls.errors import RunError

__all__ = ["map_array", "save_array", "scratch_tensor"]


def scratch_tensor(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return a tensor of zeros in a file without a name in the folder for temporary files (`TMPDIR`).

    Raises:
        RunError: where there is no room for it.
    """
    kind = torch.empty(0, dtype=dtype).numpy().dtype
    needed = int(np.prod(shape)) * kind.itemsize
    with tempfile.TemporaryFile() as file:  # which lives on as long as it is mapped
        room = os.statvfs(file.fileno())
        free = room.f_bavail * room.f_frsize
        if free < needed:
            raise RunError(
                f"streaming needs {needed / 1e6:.0f} MB of scratch space in {tempfile.gettempdir()}"
                f", which has {free / 1e6:.0f} MB; set TMPDIR to a larger disk"
            )
        return torch.from_numpy(np.memmap(file, kind, "w+", shape=shape))


def save_array(path: Path, values: Tensor) -> None:
    """Write a tensor for others to map."""
    np.save(path, values.numpy())


def map_array(path: Path) -> Tensor:
    """Return a tensor that was saved; nothing is read before it is used."""
    # Copy-on-write: PyTorch warns of memory that it may not write to, and nothing here writes.
    return torch.from_numpy(np.load(path, mmap_mode="c"))
