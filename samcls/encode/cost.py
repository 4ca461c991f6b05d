"""What an encoder costs: multiply-accumulates counted, time and memory measured.

Counting needs no weights; measuring runs single blocks with random ones, so a plan for ViT-H takes a
few seconds on a laptop instead of minutes.
"""

import ctypes
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from samcls.encode.specs import PATCH, EncoderSpec

__all__ = ["PeakMemory", "best_seconds", "encoder_macs", "matmul_rate", "peak_memory"]


def encoder_macs(spec: EncoderSpec, size: int, blocks: int, padded: bool = False) -> float:
    """Count an image's multiply-accumulates up to some depth.

    Args:
        spec: The architecture.
        size: Side of the input, in pixels.
        blocks: How many blocks run; more than the depth means the neck too.
        padded: Count the reference's products for zero-padded window tokens as well.
    """
    side = size // PATCH
    tokens, width = side * side, spec.width
    window = spec.window
    padded_side = -(-side // window) * window
    total = float(tokens * width * 3 * PATCH * PATCH)
    for block in range(min(blocks, spec.depth)):
        windowed = block not in spec.global_blocks
        span = window if windowed else side
        seen = padded_side**2 if windowed else tokens
        projected = seen if padded else tokens
        total += 4 * width**2 * projected + 8 * width**2 * tokens
        total += 2 * seen * span**2 * width + 2 * seen * span * width
    if blocks > spec.depth:
        total += tokens * (width * spec.neck_width + 9 * spec.neck_width**2)
    return total


def best_seconds(work: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Return the shortest of several timings, each waiting for the device."""
    best = float("inf")
    for _ in range(repeats):
        _wait(device)
        start = time.perf_counter()
        work()
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return best


def matmul_rate(tokens: int, width: int, dtype: torch.dtype, device: torch.device) -> float:
    """Measure multiply-accumulates a second on an encoder's own largest products.

    The shapes are those of qkv, proj and the two MLP layers, weighed as a block weighs them.
    """
    x = torch.randn(tokens, width, device=device).to(dtype)
    macs, seconds = 0.0, 0.0
    for out in (3 * width, width, 4 * width):
        weight = torch.randn(out, width, device=device).to(dtype)
        macs += tokens * width * out
        seconds += best_seconds(lambda w=weight: x @ w.t(), 5, device)  # type: ignore[misc]
    hidden = torch.randn(tokens, 4 * width, device=device).to(dtype)
    weight = torch.randn(width, 4 * width, device=device).to(dtype)
    macs += tokens * width * 4 * width
    seconds += best_seconds(lambda: hidden @ weight.t(), 5, device)
    return macs / seconds


class PeakMemory:
    """Bytes above where a block of work started, filled in when it ends."""

    bytes: int = 0


@contextmanager
def peak_memory(device: torch.device) -> Iterator[PeakMemory]:
    """Measure the most memory that is held at once: the allocator's on a GPU, resident on a CPU."""
    peak = PeakMemory()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield peak
        torch.cuda.synchronize(device)
        peak.bytes = torch.cuda.max_memory_allocated(device) - before
        return
    stop = threading.Event()
    with suppress(OSError, AttributeError):  # a warm heap would hide what a fresh process needs
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    before = _resident()
    seen = [before]

    def sample() -> None:
        while not stop.wait(0.002):
            seen.append(_resident())

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    try:
        yield peak
    finally:
        stop.set()
        sampler.join()
    peak.bytes = max(seen) - before


def _resident() -> int:
    """Return this process's resident bytes; 0 where the system does not tell."""
    with suppress(OSError, ValueError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    return 0


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
