"""A training put away between two epochs, so that a long run can be cut off and go on.

One file with everything that the next epoch depends on: weights, the best weights so far, optimizer,
random streams, history. It is written beside its place and moved into it, and read without running
anything that it holds. ResNet152 takes 0.9 GB. On a CPU a run that was cut off ends bit for bit as one
that was not.
"""

import os
from pathlib import Path
from typing import Any

import torch

from samcls.errors import RunError

__all__ = ["read_checkpoint", "write_checkpoint"]


def write_checkpoint(path: Path, run: str, state: dict[str, Any]) -> None:
    """Put a training's state away, in place of an earlier one.

    Args:
        path: Of the file.
        run: What tells this training from others: its settings and its data.
        state: Tensors, numbers, texts, and lists and dictionaries of these.

    Raises:
        RunError: where the disk is full or refuses.
    """
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            torch.save({"run": run, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise RunError(
            f"the checkpoint {path} cannot be written: {error.strerror or error}; make room and run "
            "the same command again"
        ) from error


def read_checkpoint(path: Path, run: str) -> dict[str, Any] | None:
    """Return the state that was put away; None where there is none, or it is another training's.

    Raises:
        RunError: where the file is damaged.
    """
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return state if state["run"] == run else None
    except Exception as error:
        # Whatever unpickling a damaged file raises; the remedy is the same.
        raise RunError(
            f"the checkpoint {path} is damaged: {error}; remove it, and the run starts from its "
            "beginning"
        ) from error
