"""Ensembles part by part: heads stacked, regressions solved, each once however many ensembles ask for it.

A small step does not use two cores, so heads and regressions run side by side, each on one core and to
the same bits as alone.

    fitted = fit_ensembles(features, configs, fit_together, lanes=2)
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import cast

import numpy as np
from threadpoolctl import threadpool_limits

from samcls.errors import RunError
from samcls.learn.features.tensors import Features
from samcls.learn.fit.inner import held_epoch
from samcls.learn.fit.loop import Log
from samcls.learn.fit.prediction import shape_of
from samcls.learn.fit.schedule import Epoch, Fitted, streams
from samcls.learn.fit.solve import outcome, training_loss
from samcls.learn.heads.base import ComposedHead
from samcls.learn.heads.registry import build_head, head_class
from samcls.learn.settings import TrainConfig

__all__ = ["Known", "fit_ensembles"]

Known = Mapping[TrainConfig, Fitted]
Job = Sequence[TrainConfig]
Done = list[Fitted | RunError]
Run = Callable[[Job], Done]
FitTogether = Callable[[Features, Sequence[TrainConfig], Log], list[Fitted | RunError]]


def fit_ensembles(
    features: Features,
    configs: Sequence[TrainConfig],
    fit_together: FitTogether,
    log: Log = lambda _: None,
    lanes: int = 1,
    known: Known | None = None,
) -> list[Fitted | RunError]:
    """Fit the parts of all, and put them together.

    Args:
        features: Standardised features with rows in `train` and `val`.
        configs: Of one `architecture`.
        fit_together: Fits configs of one architecture that are no ensembles.
        log: Called with a line of progress now and then.
        lanes: How many parts are fitted side by side.
        known: Parts that were fitted before.

    Returns:
        For each config what its parts' fitting left, or why one failed.
    """
    there: dict[TrainConfig, Fitted | RunError] = dict(known or {})
    wanted = dict.fromkeys(part for config in configs for part in _kind(config).parts(config))
    # Heads of one ensemble are not stacked, so that its bits do not depend on the number of lanes.
    stacks = lanes if len(configs) > 1 else configs[0].members
    jobs = _jobs([part for part in wanted if part not in there], stacks)
    names, stopped = _names(configs[0]), Event()

    def run(job: Job) -> Done:
        name = names.get(job[0], job[0].head) if len(job) == 1 else job[0].head

        def told(line: str) -> None:
            if stopped.is_set():
                raise KeyboardInterrupt
            log(f"{name}: {line}")

        return fit_together(features, job, told)

    # Around all of them: the limit is the process's, and each part sets it and puts it back.
    with threadpool_limits(1, user_api="blas"):
        done = map(run, jobs) if lanes == 1 else _side_by_side(run, jobs, lanes, stopped)
        for job, found in zip(jobs, done, strict=True):
            there.update(zip(job, found, strict=True))
    given = frozenset(known or {})
    return [_together(features, config, there, given) for config in configs]


def _side_by_side(run: Run, jobs: Sequence[Job], lanes: int, stopped: Event) -> Iterator[Done]:
    """Yield what each job found, in their order; those that run end soon where the main thread is stopped."""
    with ThreadPoolExecutor(lanes) as pool:
        futures = [pool.submit(run, job) for job in jobs]
        try:
            for future in futures:
                yield future.result()
        except BaseException:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _jobs(parts: Sequence[TrainConfig], number: int) -> list[list[TrainConfig]]:
    """Return what is fitted at once: heads in so many stacks, each regression by itself."""
    heads = [part for part in parts if head_class(part.head).fitting == "members"]
    stacks = [heads[stack::number] for stack in range(number)]
    # The regression on all windows takes longest.
    solved = [[part] for part in reversed(parts) if part not in heads]
    return [one for one in stacks if one] + solved


def _names(config: TrainConfig) -> dict[TrainConfig, str]:
    """Return what the log calls each part, heads by their number."""
    heads = _kind(config).heads(config)
    numbers = {part: f" {number}" for number, part in enumerate(heads, 1)}
    return {part: part.head + numbers.get(part, "") for part in _kind(config).parts(config)}


def _together(
    features: Features,
    config: TrainConfig,
    there: Mapping[TrainConfig, Fitted | RunError],
    given: frozenset[TrainConfig],
) -> Fitted | RunError:
    parts = {part: there[part] for part in _kind(config).parts(config)}
    failed = [one for one in parts.values() if isinstance(one, RunError)]
    if failed:
        return failed[0]
    fitted = {part: one for part, one in parts.items() if isinstance(one, Fitted)}
    initial, *_ = streams(config.seed)
    head = cast("ComposedHead", build_head(config, shape_of(features), initial))
    head.take([one.head for one in fitted.values()])
    held = _held(head.shares, [one.held for one in fitted.values()])
    if held is None:
        best = outcome(head, features, config)
    else:
        best = Epoch(1, 0.0, training_loss(head, features, config), math.nan, None)
        best = held_epoch(best, features, held)
    tried = sum(one.tried for part, one in fitted.items() if part not in given)
    chosen: dict[str, float] = {}
    for part, name in _names(config).items():
        one = fitted[part]
        chosen |= {f"{name}, {task}": number for task, number in one.chosen.items()}
        if not one.chosen:
            chosen[f"{name}, epoch"] = float(one.best.epoch)
    return Fitted(head, best, (best,), tried, chosen, fitted, held)


def _held(
    shares: Sequence[float], parts: Sequence[Mapping[str, np.ndarray] | None]
) -> dict[str, np.ndarray] | None:
    """Return the parts' mean of what was said out of fold, where they have any."""
    there = [part for part in parts if part is not None]
    if not there:
        return None
    return {
        task: np.average([part[task] for part in there], axis=0, weights=shares)
        for task in there[0]
    }


def _kind(config: TrainConfig) -> type[ComposedHead]:
    return cast("type[ComposedHead]", head_class(config.head))
