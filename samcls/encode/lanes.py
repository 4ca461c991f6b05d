"""Where batches are encoded: one after another, or a batch on each core where a batch is too short to share.

lanes = Lanes(encoder)
future = lanes.submit(work, batch)
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from samcls.encode.base import Encoder

__all__ = ["Found", "Lanes"]

MOST_LANES = 8  # batches side by side on a CPU: each needs memory of its own

Found = tuple[dict[str, Tensor], dict[str, Tensor]]  # of each level features, and their peaks


class Lanes:
    """Where batches are encoded: on a GPU behind one another, on a CPU here, or in a thread a core.

    Attributes:
        count: Batches on their way at once.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.count = 1 if encoder.device.type == "cuda" else 0
        self._pool: ThreadPoolExecutor | None = None
        self._threads = torch.get_num_threads()
        if encoder.side_by_side and not self.count and self._threads > 1:
            self.count = min(self._threads, MOST_LANES)
            share = self._threads // self.count
            self._pool = ThreadPoolExecutor(
                self.count, "encode", lambda: torch.set_num_threads(share)
            )

    def submit(self, work: Callable[..., Found], *arguments: object) -> Future[Found]:
        """Start encoding; without threads it is over, or under way on the GPU, when this returns."""
        if self._pool is not None:
            return self._pool.submit(work, *arguments)
        future: Future[Found] = Future()
        future.set_result(work(*arguments))
        return future

    def close(self) -> None:
        """Let what runs end, and start nothing more."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            # A thread's own number becomes that of later threads.
            torch.set_num_threads(self._threads)
