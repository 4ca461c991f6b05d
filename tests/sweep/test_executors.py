"""Executors: every item ends, whatever becomes of the process that works on it."""

import os
from pathlib import Path

import pytest
from support.work import die, die_once, square

from samcls.errors import RunError
from samcls.sweep.executors import executor_for, workers_here


@pytest.mark.parametrize("workers", [1, 2])
def test_every_item_comes_with_its_result_or_its_error(workers: int) -> None:
    """An error is that item's alone."""
    with executor_for(workers) as executor:
        found = dict(executor.run(square, [3, -1, 4]))
    assert (found[3], found[4]) == (9, 16)
    assert isinstance(found[-1], ValueError)
    assert str(found[-1]) == "got -1, expected at least 0"


def test_an_item_whose_process_dies_is_done_again(tmp_path: Path) -> None:
    """One death costs nothing but time."""
    items = [str(tmp_path / name) for name in "abc"]
    with executor_for(2) as executor:
        assert sorted(dict(executor.run(die_once, items)).values()) == items


def test_an_item_that_keeps_killing_processes_is_given_up() -> None:
    """All others still end well."""
    with executor_for(2) as executor:
        found = dict(executor.run(die, [0, 1, 2, 3]))
    assert isinstance(found.pop(1), RunError)
    assert found == {0: 0, 2: 2, 3: 3}


def test_no_scheduler_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """With how to start one."""
    monkeypatch.setattr("samcls.cluster.PATIENCE", "1s")
    with (
        pytest.raises(RunError, match="Start one with: dask scheduler"),
        executor_for(dask="tcp://127.0.0.1:1"),
    ):
        pass


def test_a_cpu_is_used_whole() -> None:
    """As many processes as this one may use cores."""
    expected = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert workers_here("cpu") == expected
