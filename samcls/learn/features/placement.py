"""Where stage two computes, and in what numbers: devices, mixed precision, features on a GPU.

On a GPU all features live in its memory where they fit; where not, each batch is gathered into
pinned host memory and copied while the batch before it is computed. Whatever is random is drawn on
the CPU, so the order of images, their views and dropout's masks are the same on any device; figures
and the choice of the epoch are computed in float32 whatever training runs in.

None of this has been run on a GPU yet; its arithmetic is tested on the CPU.

    features = placed(features, choose_device("auto"))
    with autocast(features.device, choose_precision("auto", features.device)):
        logits = head(tokens, counts)
"""

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from samcls.config import Precision
from samcls.errors import ConfigError
from samcls.learn.features.spill import Hosted, Spilled
from samcls.learn.features.tensors import Features

__all__ = ["autocast", "choose_device", "choose_precision", "moved", "placed"]

ROOM = 0.8  # share of a device's free memory that features may take; steps need the rest
ROOM_BESIDE_NETWORK = 0.25  # where a network over images has to go there too
BLOCK_ROWS = 256  # rows copied at once


def choose_device(name: str) -> torch.device:
    """The device; `auto` is the GPU where there is one.

    Args:
        name: `auto`, `cpu`, `cuda` or `cuda:1` and the like.

    Raises:
        ConfigError: where there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"device {name!r} cannot be used here: {reason}; leave it out to take the GPU where "
            "there is one"
        ) from error
    if device.type not in {"cpu", "cuda"}:
        raise ConfigError(f"device {name!r} is not known to training; expected auto, cpu or cuda")
    return device


def choose_precision(asked: Precision, device: torch.device) -> torch.dtype:
    """What training's matrix products run in.

    Args:
        asked: `auto` is bfloat16 on GPUs that multiply it natively (compute capability 8.0 and up)
            and float32 elsewhere.
        device: Where training runs.
    """
    if asked == "auto":
        native = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
        asked = "bfloat16" if native else "float32"
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    return dtypes[asked]


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Run matrix products in a type of their own; float32 leaves everything as it is."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


def placed(features: Features, device: torch.device) -> Features:
    """The same features where a device can use them; on a CPU they stay what and where they are.

    Args:
        features: In memory or in a scratch file.
        device: Takes all of them where they fit into four fifths of its free memory, a quarter beside
            images; otherwise they stay where they are and are copied by the batch.
    """
    if device.type == "cpu":
        return features
    free, _ = torch.cuda.mem_get_info(device)
    room = ROOM if features.pixels is None else ROOM_BESIDE_NETWORK
    return moved(features, device, whole=_bytes(features) <= room * free)


def moved(features: Features, device: torch.device, *, whole: bool) -> Features:
    """The same features on a device, all of them or by the batch; labels stay on the CPU.

    Args:
        features: In memory or in a scratch file.
        device: Where batches are wanted.
        whole: Whether the device takes all of them.
    """
    held = {k: v.values if isinstance(v, Hosted) else v for k, v in features.tokens.items()}
    tokens: dict[str, Tensor | Spilled | Hosted] = {
        level: _copied(values, device) if whole else Hosted(values, device)
        for level, values in held.items()
    }
    counts = {level: values.to(device) for level, values in features.counts.items()}
    return replace(features, tokens=tokens, counts=counts)


def _copied(values: Tensor | Spilled, device: torch.device) -> Tensor:
    if isinstance(values, Tensor):
        return values.to(device)
    whole = torch.empty(tuple(values.shape), device=device)
    for rows in torch.split(torch.arange(values.shape[0]), BLOCK_ROWS):
        whole[rows[0] : rows[-1] + 1] = values.index_select(0, rows).to(device)
    return whole


def _bytes(features: Features) -> int:
    """What all tokens and counts take on a device, as float32."""
    held = [*features.tokens.values(), *features.counts.values()]
    return 4 * sum(math.prod(values.shape) for values in held)
