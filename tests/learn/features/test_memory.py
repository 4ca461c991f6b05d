"""Streaming under a hard limit of the process: a store that does not fit is trained on all the same.

What a process takes without any data differs by machine, so each child trains on a tiny store
first, then allows itself so many MB more and trains on the large one, in one way or several.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cli import Done
from support.paths import TESTS
from support.stores import FINGERPRINT

from samcls.learn.runs.train import train
from samcls.learn.settings import TrainConfig
from samcls.store.feature_store import FeatureStore, RowBatch, RowTable
from samcls.store.schema import DONE, LevelShape

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's RLIMIT_DATA")

CHANNELS, SIDE, BLOCK = 256, 8, 250
OPTIONS = ("--epochs", "3", "--members", "1", "--device", "cpu", "--json")

CHILD = """
import json, resource, sys
from support.cli import samcls

def taken():
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmData"))

allowed, tiny, throwaway, ways = sys.argv[1:]
samcls("train", tiny, throwaway, "--epochs", "1", "--members", "1", "--device", "cpu")
if int(allowed):
    limit = taken() + int(allowed) * 1_000_000
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
print(json.dumps([vars(samcls("train", *way)) for way in json.loads(ways)]))
"""


def make(path: Path, images: int) -> Path:
    """A store of one level, 32 KB an image, with a signal in one channel."""
    levels = {"neck": LevelShape(CHANNELS, SIDE, SIDE, 16)}
    made = replace(FINGERPRINT, levels=("neck",), window=1, input_size=16 * SIDE)
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, (images, 1)).astype(np.int16)
    splits = [("train", "train", "train", "val", "test")[i % 5] for i in range(images)]
    ids = [str(i) for i in range(images)]
    store = FeatureStore.create(
        path, made, levels, RowTable(ids, splits, [""] * images, {"t": ("a", "b")}, labels)
    )
    noise = generator.normal(size=(BLOCK, 1, CHANNELS, SIDE, SIDE)).astype(np.float16)
    for start in range(0, images, BLOCK):
        rows = np.arange(start, min(images, start + BLOCK))
        maps = np.roll(noise, start, axis=3)[: len(rows)].copy()
        maps[:, 0, 0] += labels[rows, 0, None, None]
        store.write(
            RowBatch(
                rows=rows,
                features={"neck": maps},
                valid=np.full((len(rows), 2), made.input_size, dtype=np.uint16),
                sha256=np.zeros((len(rows), 32), dtype=np.uint8),
                status=np.full(len(rows), DONE, dtype=np.uint8),
                error=[""] * len(rows),
            )
        )
    return path


Limited = Callable[..., list[Done]]


@pytest.fixture
def limited(tmp_path: Path) -> Limited:
    """A function that trains in a child under a limit of so many MB, in each way given; 0 sets none."""
    tiny = make(tmp_path / "tiny.zarr", 60)

    def run(allowed: int, *ways: tuple[object, ...]) -> list[Done]:
        throwaway = tmp_path / f"throwaway-{len(list(tmp_path.iterdir()))}"
        # Stacks of threads count as data, by their full size.
        command = ["sh", "-c", 'ulimit -s 1024; exec "$@"', "sh", sys.executable, "-c", CHILD]
        given = json.dumps([[str(one) for one in (*way, *OPTIONS)] for way in ways])
        path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
        done = subprocess.run(
            [*command, str(allowed), tiny, throwaway, given],
            capture_output=True,
            text=True,
            check=True,
            env={
                **os.environ,
                "PYTHONPATH": path,
                "OMP_NUM_THREADS": "1",
                "MALLOC_ARENA_MAX": "1",
            },
        )
        return [Done(**values) for values in json.loads(done.stdout)]

    return run


def found(done: Done) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_a_run_streams_where_its_features_do_not_fit(limited: Limited, tmp_path: Path) -> None:
    """Under the limit, loading all fails with a remedy; streaming gives every figure of memory's."""
    store = make(tmp_path / "store.zarr", 1500)  # 98 MB as float32
    ways = ((store, tmp_path / "all"), (store, tmp_path / "streamed", "--memory", 40))
    failed, done = limited(64, *ways)
    assert failed.returncode == 1
    assert "not enough memory for this run; stream its features with --memory" in failed.stderr
    streamed = found(done)
    config = TrainConfig(epochs=3, members=1)
    whole = train(FeatureStore.open(store), config, tmp_path / "whole", device="cpu").to_dict()
    for name in ("validation", "test", "baselines"):
        assert streamed[name] == whole[name]
    for name in ("head.safetensors", "predictions.csv", "history.csv"):
        files = [(tmp_path / run / name).read_bytes() for run in ("streamed", "whole")]
        assert files[0] == files[1]


@pytest.mark.slow
def test_a_store_four_times_the_memory_allowed_streams_at_half_speed(
    limited: Limited, tmp_path: Path
) -> None:
    """262 MB of features within 64 MB: the same figures, in at most twice the time."""
    store = make(tmp_path / "store.zarr", 8000)
    size = sum(file.stat().st_size for file in store.rglob("*") if file.is_file())
    assert size > 3.9 * 64e6
    streamed = found(limited(64, (store, tmp_path / "streamed", "--memory", 32))[0])
    whole = found(limited(0, (store, tmp_path / "whole"))[0])
    assert streamed["test"] == whole["test"]
    ratios = {
        "run": whole["seconds"] / streamed["seconds"],
        "train": whole["seconds_by_stage"]["train"] / streamed["seconds_by_stage"]["train"],
    }
    print(ratios)  # noqa: T201 - what this test measures, shown by pytest -s
    assert min(ratios.values()) > 0.5
