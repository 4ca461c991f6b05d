"""SIGKILL at a hundred seeded moments over runs of the demo set; some minutes, so marked slow.

Processes are forked from one that has imported everything, so that a kill costs no start of Python:

    python -m pytest -m slow tests/encode/test_kills.py
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from samcls.data.phantoms import write_phantoms
from samcls.store.feature_store import FeatureStore
from samcls.store.schema import DONE
from samcls.store.verify import verify

KILLS = 100
WATCHED = 0.3  # of the kills fall into the writing itself, which is short
WRITING = 0.15  # seconds that it takes, or somewhat more

SERVER = """
import os, signal, sys, time, traceback
import torch
torch.set_num_threads(1)
from samcls.data.manifest import read_manifest
from samcls.encode.extract import ExtractOptions, extract
import samcls.encode.pipeline, segment_anything, zarr, numcodecs
manifest = read_manifest(sys.argv[1])


def written(store):
    "When anything was last written for a level, in the folder that holds its only shard."
    try:
        return os.stat(f"{store}/features/patch/c/0/0/0/0").st_mtime_ns
    except FileNotFoundError:
        return None


for line in sys.stdin:
    store, delay, watch = line.split()
    before = written(store)
    child = os.fork()
    if not child:
        try:
            extract(manifest, store, ExtractOptions(encoder="vit_t", precision="float32", flush_seconds=0.5))
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    gone = os.WEXITED | os.WNOHANG | os.WNOWAIT
    while watch == "True" and written(store) == before and not os.waitid(os.P_PID, child, gone):
        time.sleep(0.001)
    if float(delay) >= 0:
        time.sleep(float(delay))
        os.kill(child, signal.SIGKILL)
    print(os.waitpid(child, 0)[1], flush=True)
"""


class Server:
    """Runs whole extracts, each in a process of its own."""

    def __init__(self, manifest: Path) -> None:
        command = [sys.executable, "-c", SERVER, str(manifest)]
        self._server = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def run(self, store: Path, kill_after: float = -1.0, watch: bool = False) -> int:
        """Extract into a store; return how it ended: 0, or the signal that killed it.

        Args:
            store: to make or to go on with.
            kill_after: seconds; never if negative.
            watch: count them from the moment that features begin to be written.
        """
        server = self._server
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(f"{store} {kill_after} {watch}\n")
        server.stdin.flush()
        status = int(server.stdout.readline())
        assert status in {0, signal.SIGKILL}
        return status

    def close(self) -> None:
        self._server.communicate()


def equal(store: Path, whole: FeatureStore) -> None:
    found = FeatureStore.open(store)
    for name in ("status", "sha256", "valid", "ids", "splits", "errors"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
    for level in whole.levels:
        np.testing.assert_array_equal(found.read(level), whole.read(level))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_hundred_kills_lose_no_row(tmp_path: Path) -> None:
    """After each kill every done row is whole and none is lost; resumed, the arrays are those of one run."""
    write_phantoms(tmp_path / "demo", 300, 0)
    server = Server(tmp_path / "demo" / "manifest.csv")
    server.run(tmp_path / "warm.zarr", kill_after=1.0)
    begun = time.monotonic()
    assert server.run(tmp_path / "whole.zarr") == 0
    alone = time.monotonic() - begun
    whole = FeatureStore.open(tmp_path / "whole.zarr")
    assert (whole.status == DONE).all()
    rng = np.random.default_rng(0)
    kills = runs = finished = 0
    found: list[int] = []
    done = 0
    while kills < KILLS:
        path = tmp_path / f"killed-{runs}.zarr"
        watch = bool(rng.random() < WATCHED)
        left = WRITING if watch else 0.5 + 1.1 * alone * (1 - done / len(whole))
        status = server.run(path, kill_after=left * float(rng.random() ** 2), watch=watch)
        kills += status == signal.SIGKILL
        if FeatureStore.exists(path):
            report = verify(path)
            assert report.ok, report.problems[:5]
            before, done = done, int((FeatureStore.open(path).status == DONE).sum())
            assert done >= before
            found.append(done)
        if status == 0 or done == len(whole):
            assert server.run(path) == 0
            equal(path, whole)
            finished, runs, done = finished + 1, runs + 1, 0
    if done or not finished:
        assert server.run(path) == 0
        equal(path, whole)
    server.close()
    print(  # noqa: T201 - the figures of a run that takes minutes
        f"{kills} kills over {runs + 1} stores in {time.monotonic() - begun:.0f} s; "
        f"an uninterrupted run took {alone:.1f} s; rows done after each kill: {found}"
    )
    assert len(set(found)) > 3  # kills fell before, between and behind the writing of rows
