"""Where work is done: here, in processes of this machine, or by a Dask cluster.

A sweep asks an executor to run a function on items and takes results as they come; it knows nothing
else of it. An item whose process dies is tried again; one that keeps dying becomes an error of its own.

Processes of this machine are the standard library's.

    with executor_for(workers=2) as executor:
        for item, outcome in executor.run(work, items): ...
"""

import multiprocessing
import os
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

from samcls.cluster import cancel, connected, result_of
from samcls.device import choose_device
from samcls.errors import RunError

__all__ = ["Executor", "executor_for", "workers_here"]

T = TypeVar("T")
R = TypeVar("R")

DEATHS = 3  # of processes with an item before it is given up


class Executor(ABC):
    """Runs a function on items.

    Attributes:
        workers: Items that are worked on at once.
        remote: Whether work may be done on other machines.
    """

    workers: int = 1
    remote: bool = False

    @abstractmethod
    def run(self, work: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[T, R | Exception]]:
        """Each item with its result, or with the error that it ended in, as they come.

        Args:
            work: A function that can be pickled by its name.
            items: What can be pickled.
        """


def workers_here(device: str) -> int:
    """As many processes as this one may use cores; one where heads are trained on a GPU.

    Args:
        device: Where they are trained, as in `samcls train`.
    """
    if choose_device(device).type != "cpu":
        return 1
    if hasattr(os, "sched_getaffinity"):  # which knows of containers and batch systems
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def executor_for(workers: int = 1, dask: str | None = None) -> Iterator[Executor]:
    """Open the executor that was asked for; its processes end with the block.

    Args:
        workers: Processes of this machine; 1 works in this one.
        dask: Address of a running Dask scheduler, which wins over `workers`.

    Raises:
        ConfigError: where the address is none.
        RunError: where no scheduler answers, it goes away, or its workers cannot run this samcls.
    """
    if dask:
        with connected(dask) as client:
            yield _OnDask(client)
        return
    yield _Here() if workers <= 1 else _Processes(workers)


class _Here(Executor):
    def run(self, work: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[T, R | Exception]]:
        for item in items:
            yield item, _attempt(work, item)


class _Processes(Executor):
    def __init__(self, workers: int) -> None:
        self.workers = workers

    def run(self, work: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[T, R | Exception]]:
        left, deaths = dict.fromkeys(range(len(items))), Counter[int]()
        while left:
            # What ran beside a process that died is tried alone: the next death is then its own.
            fresh = [number for number in left if not deaths[number]]
            running: set[int] = set()
            try:
                for number, outcome in self._through(work, items, fresh or [*left][:1], running):
                    del left[number]
                    yield items[number], outcome
            except BrokenProcessPool:
                deaths.update(running)
                for number in running:
                    if deaths[number] >= DEATHS:
                        del left[number]
                        yield (
                            items[number],
                            RunError(
                                f"its process died {DEATHS} times, which points to a lack of memory"
                            ),
                        )

    def _through(
        self,
        work: Callable[[T], R],
        items: Sequence[T],
        numbers: Sequence[int],
        running: set[int],
    ) -> Iterator[tuple[int, R | Exception]]:
        """Work through some items in one pool; `running` holds those that are being worked on."""
        waiting = deque(numbers)
        futures: dict[Future[R | Exception], int] = {}
        pool = ProcessPoolExecutor(min(self.workers, len(numbers)), mp_context=_context(work))
        try:
            while waiting or futures:
                # No more are handed out than run, so that a death says which items it hit.
                while waiting and len(futures) < self.workers:
                    number = waiting.popleft()
                    running.add(number)
                    futures[pool.submit(_attempt, work, items[number])] = number
                done, _ = wait(futures, return_when=FIRST_COMPLETED)
                for future in done:
                    outcome, number = future.result(), futures.pop(future)
                    running.discard(number)
                    yield number, outcome
        finally:
            _end(pool, futures)


class _OnDask(Executor):
    remote = True

    def __init__(self, client: Any) -> None:
        self._client = client
        self.workers = max(1, len(client.scheduler_info(n_workers=-1)["workers"]))

    def run(self, work: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[T, R | Exception]]:
        from distributed import as_completed

        futures = self._client.map(_attempt, [work] * len(items), items, pure=False, retries=DEATHS)
        numbers = {future.key: number for number, future in enumerate(futures)}
        try:
            # the client of a caller's own `with Client()` would lend its event loop otherwise
            for future in as_completed(futures, loop=self._client.loop):
                found = future.exception() if future.status == "error" else result_of(future, "")
                yield items[numbers[future.key]], found
        finally:
            cancel(self._client, futures)


def _attempt(work: Callable[[T], R], item: T) -> R | Exception:
    try:
        return work(item)
    except Exception as error:  # noqa: BLE001 - handed to whoever asked
        return error


def _context(work: Callable[..., object]) -> multiprocessing.context.BaseContext:
    """Start processes from one that has imported what they need and has run nothing."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    function = getattr(work, "func", work)  # of a functools.partial
    context.set_forkserver_preload([function.__module__])
    return context


def _end(pool: ProcessPoolExecutor, running: Collection[object]) -> None:
    """End a pool; what is still running would only be thrown away, so it is stopped at once."""
    processes = list((getattr(pool, "_processes", None) or {}).values())
    if running:
        for process in processes:
            process.terminate()
    pool.shutdown(cancel_futures=True)
