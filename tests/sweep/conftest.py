"""What the tests of sweeps share."""

import multiprocessing

import pytest


@pytest.fixture(scope="session", autouse=True)
def _forkserver() -> None:
    """Of a test process's server of forks, whoever uses it first says what it imports: here, all of a sweep."""
    if "forkserver" in multiprocessing.get_all_start_methods():
        multiprocessing.get_context("forkserver").set_forkserver_preload(["samcls.sweep.sweep"])
        from multiprocessing.forkserver import ensure_running

        ensure_running()
