"""On a disk that is really full, at three moments: the error says so, and room is all that it takes to go on."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import typer
from support.extracting import features, image_folder
from typer.testing import CliRunner

from samcls.cli import stages
from samcls.cli.store import register
from samcls.store.feature_store import FeatureStore
from samcls.store.schema import DONE
from samcls.store.verify import verify

PAGE = 4096  # bytes; what tmpfs counts in


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, Callable[[int], None]]]:
    """A file system in memory, and what gives it another size in pages."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")

    def resize(pages: int) -> None:
        change = f"remount,size={pages * PAGE}"
        subprocess.run(["mount", "-o", change, str(folder)], check=True)

    yield folder, resize
    subprocess.run(["umount", str(folder)], check=True)


def samcls(*arguments: str) -> tuple[int, str]:
    app = typer.Typer()
    stages.register(app)
    register(app)
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stderr


def pages(store: Path, features_too: bool) -> int:
    files = [f for f in store.rglob("*") if f.is_file()]
    held = [f for f in files if features_too or "/c/" not in str(f) or "features" not in f.parts]
    return sum(-(-f.stat().st_size // PAGE) for f in held)


def test_a_disk_that_fills_at_three_moments_is_survived(
    disk: tuple[Path, Callable[[int], None]], tmp_path: Path
) -> None:
    """While the store is made, in its features, in its marks: exit 1 in words; with room, equal arrays."""
    folder, resize = disk
    source = image_folder(tmp_path, [(40 + i, 60 - i) for i in range(16)])
    header, *rows = source.read_text().splitlines()
    lines = [header, *(row[:-1] + "ab"[i // 4 % 2] for i, row in enumerate(rows))]
    source.write_text("\n".join(lines) + "\n")
    options = ["--encoder", "vit_t", "--size", "64", "--window", "1", "--precision", "float32"]
    assert samcls("extract", str(source), str(tmp_path / "whole.zarr"), *options)[0] == 0
    whole = FeatureStore.open(tmp_path / "whole.zarr")
    made, filled = (pages(tmp_path / "whole.zarr", also) for also in (False, True))
    assert filled > made + 8
    path = folder / "s.zarr"
    lock = 1  # page
    states = []
    for size in (lock + made // 2, lock + made + (filled - made) // 2, lock + filled):
        resize(size)
        status, said = samcls("extract", str(source), str(path), *options)
        assert status == 1, said
        assert "No space left on device" in said
        assert "make room" in said
        assert {p.name for p in folder.iterdir()} <= {"s.zarr", "s.zarr.lock"}  # no half-made one
        assert not list(path.rglob("*.partial"))
        there = len([f for f in path.rglob("features/*/c/**/*") if f.is_file()])
        states.append((FeatureStore.exists(path), there))
        if FeatureStore.exists(path):
            assert verify(path).ok
            assert not (FeatureStore.open(path).status == DONE).any()
    assert states[0] == (False, 0)
    assert states[1][0]
    assert 0 < states[1][1] < 5
    assert states[2] == (True, 5)
    resize(lock + 2 * filled)  # a shard is replaced by a whole new one
    status, said = samcls("extract", str(source), str(path), *options)
    assert status == 0, said
    found = FeatureStore.open(path)
    np.testing.assert_array_equal(found.status, whole.status)
    for level, values in features(whole).items():
        np.testing.assert_array_equal(found.read(level), values)
    assert verify(path).ok
