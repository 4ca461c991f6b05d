"""Write rows to a store as they come, a shard at a time, without ever losing much.

Rewriting a 64 MiB shard for each batch of images would cost more than a fast encoder; holding a whole
shard in memory would lose minutes of a slow one. So rows are held back until their shard is complete
or some seconds have passed, and longer where a flush itself turns out to be slow.
"""

import time
from types import TracebackType

from samcls.store.feature_store import FeatureStore, RowBatch

__all__ = ["ShardWriter"]

_COST_RATIO = 20  # seconds of other work for each second spent flushing


class ShardWriter:
    """Collects batches of ascending rows and writes them in few, large pieces.

    Use it as a context manager: leaving it, by an error or Ctrl-C too, writes what is held.

    Args:
        store: opened for writing.
        seconds: longest time that results are held back while flushing is cheap.
    """

    def __init__(self, store: FeatureStore, seconds: float = 10.0) -> None:
        self._store = store
        self._seconds = seconds
        self._shard_rows = store.partition.shard_rows
        self._held: list[RowBatch] = []
        self._last_flush = time.monotonic()
        self._wait = seconds

    def add(self, batch: RowBatch) -> None:
        """Take a batch, and write if its shard is complete or it is time."""
        if not len(batch):
            return
        if self._held and self._shard(self._held[-1]) != self._shard(batch):
            self.flush()
        self._held.append(batch)
        last_of_shard = (int(batch.rows[-1]) + 1) % self._shard_rows == 0
        if last_of_shard or time.monotonic() - self._last_flush >= self._wait:
            self.flush()

    def flush(self) -> None:
        """Write everything that is held."""
        if self._held:
            start = time.monotonic()
            self._store.write(RowBatch.concatenate(self._held))
            self._held.clear()
            self._wait = max(self._seconds, _COST_RATIO * (time.monotonic() - start))
        self._last_flush = time.monotonic()

    def _shard(self, batch: RowBatch) -> int:
        return int(batch.rows[-1]) // self._shard_rows

    def __enter__(self) -> "ShardWriter":
        """Return the writer."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write what is held, whatever happened."""
        self.flush()
