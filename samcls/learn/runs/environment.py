"""What a run was made with and on: versions, machine and command line, without anybody's name.

The packages' versions are looked up once a process.
"""

import os
import platform
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

__all__ = ["environment"]

PACKAGES = ("samcls", "torch", "numpy", "scikit-learn", "safetensors", "zarr")


def environment() -> dict[str, Any]:
    """Versions, machine and command line, without the user's and the machine's name."""
    return {
        "command": [_anonymous(argument) for argument in _command()],
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _command() -> list[str]:
    return [Path(sys.argv[0]).name, *sys.argv[1:]] if sys.argv else []


def _anonymous(argument: str) -> str:
    """Return the argument with the home folder as ~, and `user` for folders named as the user is."""
    home = Path.home()
    shortened = argument.replace(str(home), "~") if home.name else argument
    return "/".join("user" if part == home.name else part for part in shortened.split("/"))


@cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
