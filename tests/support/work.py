"""What processes are given to do: here, where they can import it under any name of the tests' folder."""

import os
import signal
import time
from pathlib import Path

__all__ = ["die", "die_once", "square"]


def square(number: int) -> int:
    if number < 0:
        raise ValueError(f"got {number}, expected at least 0")
    return number**2


def die_once(path: str) -> str:
    """Die the first time, in a way that no handler sees."""
    mark = Path(path)
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return path


def die(number: int) -> int:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    return number
