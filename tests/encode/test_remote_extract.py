"""The whole of it on a real S3-speaking server: extract, SIGKILL, resume, verify, train."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.cli import samcls
from support.extracting import features, image_folder

from samcls.data.manifest import read_manifest
from samcls.encode.extract import ExtractOptions, extract
from samcls.store.feature_store import FeatureStore
from samcls.store.schema import DONE
from samcls.store.verify import verify

IMAGES = 16
KILLED = """
import sys
from samcls.data.manifest import read_manifest
from samcls.encode.extract import ExtractOptions, extract
from samcls.store import writer
writer.COST_RATIO = 0  # write each batch by itself, so that there is something to find after the kill
options = ExtractOptions(
    encoder="vit_t", size=64, window=2, batch=1, flush_seconds=0.0, precision="float32", keep_pixels=16
)
extract(read_manifest(sys.argv[1]), sys.argv[2], options)
"""


@pytest.fixture
def url(make_bucket: Callable[[str], str]) -> str:
    """Of a store that is not there yet, in an empty bucket on loopback."""
    return f"{make_bucket('extracted')}/features.zarr"


def values_of(*arguments: object) -> dict[str, object]:
    """Run a verb; return its JSON."""
    done = samcls(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    values: dict[str, object] = json.loads(done.stdout)
    return values


def test_a_killed_extract_to_a_url_is_resumed_verified_and_trained_on(
    url: str, tmp_path: Path
) -> None:
    """After SIGKILL the same command ends it; the arrays are those of a local store, and train reads them."""
    source = image_folder(tmp_path, [(40 + i, 60 - i) for i in range(IMAGES)])
    header, *rows = source.read_text().splitlines()
    lines = [header, *(row[:-1] + "ab"[i // 4 % 2] for i, row in enumerate(rows))]
    source.write_text("\n".join(lines) + "\n")
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(source), url])
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and child.poll() is None:
        if FeatureStore.exists(url) and (FeatureStore.open(url).status == DONE).sum() >= 3:
            break
        time.sleep(0.1)  # the server is this process: whoever asks keeps it from the child
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    before = int((FeatureStore.open(url).status == DONE).sum())
    assert 3 <= before < IMAGES

    command = ["--size", "64", "--window", "2", "--batch", "1", "--precision", "float32"]
    command += ["--encoder", "vit_t"]
    summary = values_of("extract", source, url, *command)
    assert (summary["done"], summary["skipped"]) == (IMAGES, before)
    report = verify(url)
    assert (report.ok, report.checked) == (True, IMAGES)
    extract(
        read_manifest(source),
        tmp_path / "local.zarr",
        ExtractOptions(
            encoder="vit_t", size=64, window=2, batch=1, precision="float32", keep_pixels=16
        ),
    )
    remote, local = FeatureStore.open(url), FeatureStore.open(tmp_path / "local.zarr")
    np.testing.assert_array_equal(remote.sha256, local.sha256)
    for level, values in features(local).items():
        np.testing.assert_array_equal(remote.read(level), values)
    np.testing.assert_array_equal(remote.pixels(), local.pixels())
    trained = values_of("train", url, tmp_path / "run", "--epochs", 3)
    assert (tmp_path / "run").is_dir()
    assert trained["head"] == "ensemble:slca"
