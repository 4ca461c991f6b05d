"""A space of configurations over one feature store: trained, ranked on validation, one winner scored.

Runs that are on disk are not made again, so a sweep that was stopped, or whose space has grown,
goes on where it stood. Ranking sees validation alone; the test split is opened once, for the
winner, after everything is chosen.

    result = sweep("features.zarr", "sweep", load_space("space.toml"), workers=2)
    result.best["test"]["auc"], result.selection["corrected"]
"""

import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from samcls.errors import ConfigError, RunError
from samcls.learn.features.targets import targets_of
from samcls.learn.fit.members import architecture
from samcls.learn.runs.folder import Run
from samcls.learn.runs.inputs import check
from samcls.learn.runs.notes import facts_of
from samcls.learn.settings import TrainConfig
from samcls.store.feature_store import FeatureStore
from samcls.sweep.efficiency import Point, efficiency
from samcls.sweep.estimate import SweepPlan, estimate
from samcls.sweep.executors import Executor, executor_for
from samcls.sweep.folder import open_sweep, owned
from samcls.sweep.leaderboard import Row, leaderboard
from samcls.sweep.nested import score_nested
from samcls.sweep.outcomes import (
    Outcome,
    RunFailure,
    read_failures,
    read_run,
    read_runs,
    run_path,
    write_failure,
)
from samcls.sweep.outlook import outlooks
from samcls.sweep.plan import groups_of
from samcls.sweep.result import SweepResult
from samcls.sweep.search import STRATEGIES, strategy_of
from samcls.sweep.select import select
from samcls.sweep.shared import division
from samcls.sweep.space import Space
from samcls.sweep.study import score_on_test
from samcls.sweep.tables import write_tables
from samcls.sweep.winner import score_winner
from samcls.sweep.work import Ended, Group, Site, run_group

__all__ = ["SweepResult", "plan_sweep", "sweep"]

Log = Callable[[str], None]
Progress = Callable[[int, int, int, int], None]


def sweep(
    store_path: str | Path,
    folder: str | Path,
    space: Space,
    *,
    workers: int = 1,
    dask: str | None = None,
    device: str = "auto",
    plots: bool = False,
    retry: bool = False,
    allow_leak: bool = False,
    strict: bool = False,
    log: Log = lambda _: None,
    progress: Progress = lambda *_: None,
) -> SweepResult:
    """Train every configuration of a space, choose on validation, score the winner once.

    Args:
        store_path: Path or URL of a feature store, every row done or failed.
        folder: The sweep's; one that is there goes on.
        space: What to run.
        workers: Processes of this machine.
        dask: Address of a running Dask scheduler, in place of processes; paths must be shared.
        device: Where heads are trained.
        plots: Whether to draw pictures, which needs matplotlib.
        retry: Whether runs that failed before are tried again.
        allow_leak: Whether groups may lie in several splits; the winner's notes then say so.
        strict: Whether identical pixels in several splits are an error, not a note.
        log: Called with a sentence on anything that a user should know.
        progress: Called with (runs ended, runs in all, runs failed, 0).

    Raises:
        ConfigError: where the store cannot serve a configuration; all that is wrong is said before
            any run begins. Or pictures are asked for and matplotlib is not installed.
        OverwriteRefused: where the folder holds something else.
        RunError: where no run could be finished.
    """
    folder = Path(folder)
    store = FeatureStore.open(store_path)
    space = _ordered(store, space)
    options = _Options(workers, dask, device, plots, retry, allow_leak, strict)
    _refuse_leaks(store, space, options, log)
    open_sweep(folder, space, store)
    with owned(folder):
        return _sweep(store, folder, space, options, log, progress)


@dataclass(frozen=True)
class _Options:
    workers: int
    dask: str | None
    device: str
    plots: bool
    retry: bool
    allow_leak: bool
    strict: bool


def _sweep(
    store: FeatureStore,
    folder: Path,
    space: Space,
    options: _Options,
    log: Log,
    progress: Progress,
) -> SweepResult:
    strategy, draw = strategy_of(space, folder), _drawing() if options.plots else None
    outcomes: dict[str, Outcome] = {**read_runs(folder)}
    if not options.retry:
        outcomes |= {k: v for k, v in read_failures(folder).items() if k not in outcomes}
    started, made, asked = time.perf_counter(), 0, len(outcomes)
    planned = max(sum(stage.runs for stage in strategy.planned), len(outcomes))
    with executor_for(options.workers, options.dask) as executor, _shared() as shared:
        threads = _threads(executor)
        site = Site(store.path, str(folder.absolute()), shared, options.device, threads)
        while configs := strategy.propose(outcomes):
            _refuse_unservable(store, configs)
            asked += len(configs)
            if made == 0 and len(outcomes):
                log(f"{folder}: {len(outcomes)} runs are there already")
            groups = groups_of(configs, store, executor.workers, options.device)
            ticker = _Ticker(log, progress, len(outcomes), planned)
            for outcome in _run(executor, site, groups):
                made += 1
                outcomes[outcome.key] = outcome
                ticker.tick(outcome)
    seconds = time.perf_counter() - started
    # In one order, whoever ended first: sums of figures hang on it in the last digit.
    outcomes = dict(sorted(outcomes.items()))
    runs = {k: v for k, v in outcomes.items() if isinstance(v, Run)}
    failures = {k: v for k, v in outcomes.items() if isinstance(v, RunFailure)}
    rows = leaderboard(runs, space, failures, longest_first=strategy.in_rounds)
    _refuse_nothing(folder, rows, failures)
    groups_by_id = dict(zip(store.ids, store.groups, strict=True))
    chosen = select(rows, runs, groups=groups_by_id)
    refuse: dict[str, Any] = {"allow_leak": options.allow_leak, "strict": options.strict}
    if space.nested:
        best = score_nested(store, folder, space, rows, runs, options.device, log, **refuse)
    else:
        given = rows[0], chosen.tried, options.device, log
        best = score_winner(store, folder, space, *given, **refuse)
    scores = (
        {}
        if len(space.fractions) == 1
        else score_on_test(folder, store, rows, space, options.device)
    )
    curves = _curves(space, rows, runs, scores)
    shown = {name: [point.to_dict() for point in points] for name, points in curves.items()}
    if curves:
        shown["outlook"] = [one.to_dict() for one in outlooks(rows, runs, space, scores)]
    more = {"selection": chosen.to_dict(), "best": best, "efficiency": shown}
    write_tables(folder, runs, rows, more)
    if draw is not None:
        draw(folder, rows, runs, space, curves)
    return SweepResult(
        sweep=str(folder),
        runs=asked,
        finished=len(runs),
        failed=len(failures),
        made=made,
        seconds=round(seconds, 3),
        runs_a_minute=round(60 * made / seconds, 1) if made else None,
        configurations=chosen.tried,
        selection=chosen.to_dict(),
        best=best,
        rows=tuple(rows),
        efficiency=shown,
        failures=tuple((key, one.reason) for key, one in failures.items()),
    )


def plan_sweep(
    store_path: str | Path,
    folder: str | Path,
    space: Space,
    *,
    workers: int = 1,
    device: str = "auto",
) -> SweepPlan:
    """Return what a sweep would do next and about how long it would take; nothing is trained or written.

    Args:
        store_path: Path or URL of a feature store.
        folder: The sweep's, which need not be there yet.
        space: What to run.
        workers: Processes of this machine.
        device: Where heads would be trained.

    Raises:
        ConfigError: where the store cannot serve a configuration.
    """
    store = FeatureStore.open(store_path)
    space = _ordered(store, space)
    if not STRATEGIES[space.search].foreseen:
        raise ConfigError(
            f"a {space.search} search proposes configurations as it goes, so there is none to list; "
            f"it will make {space.runs * space.members} runs"
        )
    strategy = strategy_of(space, folder)
    ended: dict[str, Outcome] = {**read_runs(folder)}
    configs = strategy.propose(ended)
    _refuse_unservable(store, configs)
    return estimate(store, strategy, configs, workers, device)


def _run(executor: Executor, site: Site, groups: Sequence[Group]) -> Iterator[Outcome]:
    """Every run as it ends; what failed with its process is written down as failed."""
    waiting = Counter(division(group[0]) for group in groups)
    for group, found in executor.run(partial(run_group, site), groups):
        for config, why in _lost(site, group, found) if isinstance(found, Exception) else found:
            run = read_run(run_path(site.folder, config))
            yield run or RunFailure(config, why or "its folder was damaged after it was written")
        name = division(group[0])
        waiting[name] -= 1
        if not waiting[name] and not executor.remote:
            shutil.rmtree(Path(site.shared) / name, ignore_errors=True)


def _lost(site: Site, group: Group, error: Exception) -> Iterator[Ended]:
    """Write down runs whose process failed before it could."""
    reason = str(error) or type(error).__name__
    for config in group:
        write_failure(site.folder, RunFailure(config, reason))
        yield config, reason


@contextmanager
def _shared() -> Iterator[str]:
    """Make a folder for features that processes share, removed with the sweep; see TMPDIR."""
    with tempfile.TemporaryDirectory(prefix="samcls-sweep-", ignore_cleanup_errors=True) as folder:
        yield folder


def _threads(executor: Executor) -> int:
    import torch

    if executor.remote:
        return 0
    return max(1, torch.get_num_threads() // executor.workers)


def _refuse_unservable(store: FeatureStore, configs: Iterable[TrainConfig]) -> None:
    """Make sure that the store can serve every run, with everything that is wrong said at once."""
    problems: dict[str, None] = {}
    seen = set()
    for config in configs:
        # What `check` looks at: the rest of a config cannot stand against it.
        key = division(config), architecture(config)
        if key in seen:
            continue
        seen.add(key)
        try:
            check(store, config)
        except ConfigError as error:
            problems |= dict.fromkeys(str(error).splitlines()[1:] or [str(error)])
    if problems:
        raise ConfigError(
            f"{store.path} cannot serve this space; nothing was trained:\n" + "\n".join(problems)
        )


def _ordered(store: FeatureStore, space: Space) -> Space:
    """Return the space with the tasks that are declared as ordered, for heads that can learn them so."""
    try:
        targets = targets_of(store, space.base)
    except ConfigError:  # which is said with all else that is wrong, by its own check
        return space
    return replace(space, ordinal=tuple(t for t in targets.ordinal if t in targets.tasks))


def _refuse_leaks(store: FeatureStore, space: Space, options: _Options, log: Log) -> None:
    """Stop at groups, and where asked at pictures, in several splits; log what is let through."""
    config = replace(space.base, folds=space.folds)
    try:
        targets = targets_of(store, config)
    except ConfigError:
        return
    facts = facts_of(store, config, targets, allow_leak=options.allow_leak, strict=options.strict)
    for line in (*targets.remarks, *facts.warnings):
        log(line)


def _refuse_nothing(folder: Path, rows: Sequence[Row], failures: Mapping[str, RunFailure]) -> None:
    if any(row.rank == 1 for row in rows):
        return
    reasons = list(dict.fromkeys(one.reason for one in failures.values()))
    raise RunError(
        f"no configuration of {folder} finished all its runs; nothing was scored. "
        f"Reasons: {'; '.join(reasons[:3]) or 'none is defined an AUC on validation'}"
    )


def _drawing() -> Callable[..., object]:
    """Return what draws a sweep; matplotlib is missed before anything is trained."""
    try:
        from samcls.sweep.plots import Searched, plot_sweep
    except ImportError as error:
        raise ConfigError(
            "pictures need matplotlib, which is not installed; install it with: "
            'pip install "samcls[report]", or leave out --plots (plots in Python)'
        ) from error
    return lambda folder, *found: plot_sweep(folder, Searched(*found))


def _curves(
    space: Space,
    rows: Sequence[Row],
    runs: Mapping[str, Run],
    scores: Mapping[str, float | None],
) -> dict[str, list[Point]]:
    """Return the data-efficiency curve on both splits; none where the space has no shares."""
    if len(space.fractions) == 1:
        return {}
    return {
        "validation": efficiency(rows, runs, space),
        "test": efficiency(rows, runs, space, scores),
    }


class _Ticker:
    """Progress as runs end."""

    def __init__(self, log: Log, progress: Progress, ended: int, total: int) -> None:
        self._log, self._progress = log, progress
        self._ended, self._total, self._failed = ended, total, 0
        progress(ended, total, 0, 0)

    def tick(self, ended: Outcome) -> None:
        self._ended += 1
        if isinstance(ended, RunFailure):
            self._failed += 1
            self._log(f"failed: {ended.key[:12]}: {ended.reason}")
        self._progress(self._ended, self._total, self._failed, 0)
