"""Write rows to a store as they come, behind the encoder's back and without ever losing much.

Rewriting a 64 MiB shard for each batch of images would cost more than a fast encoder; holding a whole
shard in memory would lose minutes of a slow one. So a thread holds rows back until their shard is
complete or some seconds have passed, and longer where a flush itself turns out to be slow.
"""

import queue
import threading
import time
from types import TracebackType

import numpy as np

from samcls.store.feature_store import FeatureStore, RowBatch

__all__ = ["ShardWriter"]

COST_RATIO = 20  # seconds of other work for each second spent flushing
WAITING = 4  # batches; bounds what a slow disk makes the encoder pile up


class ShardWriter:
    """Collects batches of ascending rows and writes them in few, large pieces, in a thread.

    Use it as a context manager: leaving it, by an error or Ctrl-C too, writes what is held. An error
    of the thread is raised by the next `add`, or on leaving.

    Args:
        store: Opened for writing.
        seconds: Longest time that results are held back while flushing is cheap.
    """

    def __init__(self, store: FeatureStore, seconds: float = 10.0) -> None:
        self.rows_written = 0
        self._store = store
        self._seconds = seconds
        self._shard_rows = store.partition.shard_rows
        self._queue: queue.Queue[RowBatch | None] = queue.Queue(WAITING)
        self._unwritten: list[RowBatch] = []
        self._lock = threading.Lock()
        self._error: BaseException | None = None
        self._ended = False  # the thread has seen the end of the queue
        self._thread = threading.Thread(target=self._run, name="write", daemon=True)

    def add(self, batch: RowBatch) -> None:
        """Take a batch; waits while too many are unwritten.

        Raises:
            Exception: whatever an earlier write raised.
        """
        self._raise_error()
        if not len(batch):
            return
        with self._lock:
            self._unwritten.append(batch)
        self._queue.put(batch)

    def features(self, row: int) -> dict[str, np.ndarray]:
        """Return a finished row's features, (view, channel, row, col) for each level.

        They come from memory while they are held, and from the store afterwards.
        """
        with self._lock:
            for batch in self._unwritten:
                found = np.flatnonzero(batch.rows == row)
                if len(found):
                    return {level: x[found[0]] for level, x in batch.features.items()}
        return {level: self._store.read(level, [row])[0] for level in self._store.levels}

    def _run(self) -> None:
        held: list[RowBatch] = []
        deadline = time.monotonic() + self._seconds
        try:
            while True:
                batch, timed_out = self._next(deadline if held else None)
                leaving = self._ended = batch is None and not timed_out
                new_shard = bool(batch and held and self._shard(held[-1]) != self._shard(batch))
                if held and (timed_out or leaving or new_shard):
                    deadline = self._flush(held)
                if leaving:
                    return
                if batch is not None:
                    held.append(batch)
                    if (int(batch.rows[-1]) + 1) % self._shard_rows == 0:
                        deadline = self._flush(held)
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread
            self._error = error
            self._drain()

    def _next(self, deadline: float | None) -> tuple[RowBatch | None, bool]:
        """Return the next batch, None for the end, and whether it was time to flush first."""
        wait = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            return self._queue.get(timeout=wait), False
        except queue.Empty:
            return None, True

    def _flush(self, held: list[RowBatch]) -> float:
        """Write what is held; return when the next flush is due."""
        start = time.monotonic()
        self._store.write(RowBatch.concatenate(held))
        self.rows_written += sum(len(batch) for batch in held)
        with self._lock:
            self._unwritten = [b for b in self._unwritten if not any(b is one for one in held)]
        held.clear()
        now = time.monotonic()
        return now + max(self._seconds, COST_RATIO * (now - start))

    def _drain(self) -> None:
        """Let nobody wait for a thread that has failed."""
        while not self._ended:
            self._ended = self._queue.get() is None

    def _shard(self, batch: RowBatch) -> int:
        return int(batch.rows[-1]) // self._shard_rows

    def _raise_error(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def __enter__(self) -> "ShardWriter":
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write what is held, whatever happened, and end the thread."""
        self._queue.put(None)
        self._thread.join()
        self._raise_error()
