"""Where both stages compute, and in what numbers.

None of this has been run on a GPU yet; its arithmetic is tested on the CPU.

    device = choose_device("auto")
    with autocast(device, training_dtype("auto", device)): ...
"""

from contextlib import AbstractContextManager, nullcontext

import torch

from samcls.config import Precision
from samcls.errors import ConfigError

__all__ = ["DTYPES", "autocast", "choose_device", "multiplies_bfloat16", "training_dtype"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TRAINED_ON = ("cpu", "cuda")


def choose_device(name: str, *, training: bool = False) -> torch.device:
    """Return the device; `auto` is the GPU where there is one.

    Args:
        name: `auto`, `cpu`, `cuda`, `cuda:1` or any name that torch knows.
        training: Whether heads are trained there, which is known to work on a CPU and on CUDA alone.

    Raises:
        ConfigError: There is no such device here, or training does not know it.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"device {name!r} cannot be used here: {reason}; leave --device out to take the GPU where "
            "there is one"
        ) from error
    if training and device.type not in TRAINED_ON:
        raise ConfigError(f"device {name!r} is not known to training; expected auto, cpu or cuda")
    return device


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a GPU multiplies bfloat16 natively: from compute capability 8.0 on."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def training_dtype(asked: Precision, device: torch.device) -> torch.dtype:
    """Return what training's matrix products run in.

    Args:
        asked: `auto` is bfloat16 on GPUs that multiply it natively, and float32 elsewhere.
        device: Where training runs.
    """
    if asked == "auto":
        asked = "bfloat16" if multiplies_bfloat16(device) else "float32"
    return DTYPES[asked]


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Run matrix products in a type of their own; float32 leaves everything as it is."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)
