"""One writer a store, with real processes."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.common import concurrent_map
from zarr.core.sync import sync

from samcls.errors import RunError, StoreError
from samcls.store import keys
from samcls.store.lock import lock_path, writer_lock

HOLD = """
import sys, time
from samcls.store.lock import writer_lock
with writer_lock(sys.argv[1], print):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def holder(path: Path, seconds: float = 60.0) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), str(seconds)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    while line.strip() not in {"held", ""}:
        line = process.stdout.readline()
    return process


def test_a_live_lock_is_refused_and_named(tmp_path: Path) -> None:
    """Another live process's lock raises an error that names its number, and stays as it was."""
    path = tmp_path / "s.zarr"
    process = holder(path)
    try:
        with (
            pytest.raises(StoreError, match=f"process {process.pid} on .*delete"),
            writer_lock(path),
        ):
            pass
        assert lock_path(path).exists()  # type: ignore[union-attr]
    finally:
        process.kill()
        process.communicate()


def test_the_lock_of_a_killed_process_is_taken_over_with_a_message(tmp_path: Path) -> None:
    """After SIGKILL the next writer goes on, says so, and cleans up half-written files."""
    path = tmp_path / "s.zarr"
    process = holder(path)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (path / "status").mkdir(parents=True)
    (path / "status" / "0.abc.partial").write_bytes(b"half")
    said: list[str] = []
    with writer_lock(path, said.append):
        assert not list(path.rglob("*.partial"))
    assert said == [said[0]]
    assert f"process {process.pid}" in said[0]
    assert "no longer running" in said[0]
    assert not list(tmp_path.glob("s.zarr.lock*"))


def test_only_one_of_many_gets_a_stale_lock(tmp_path: Path) -> None:
    """Processes that find the same dead lock at once do not both take it."""
    path = tmp_path / "s.zarr"
    dead = holder(path)
    dead.kill()
    dead.communicate()
    command = [sys.executable, "-c", HOLD, str(path), "2.5"]
    rivals = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for _ in range(4)
    ]
    outputs = [rival.communicate()[0] for rival in rivals]
    assert sum("held" in text for text in outputs) == 1


def test_another_machine_is_believed_alive_until_it_is_silent(tmp_path: Path) -> None:
    """A fresh lock from elsewhere is kept; one without a heartbeat for two minutes is not."""
    path = tmp_path / "s.zarr"
    file = lock_path(path)
    assert file is not None
    file.write_text(json.dumps({"host": "elsewhere", "pid": 1, "token": "x"}))
    with pytest.raises(StoreError, match="process 1 on elsewhere"), writer_lock(path):
        pass
    os.utime(file, (time.time() - 1000, time.time() - 1000))
    said: list[str] = []
    with writer_lock(path, said.append):
        assert "no sign of life" in said[0]


def test_a_lock_that_was_lost_is_noticed(tmp_path: Path) -> None:
    """Whoever lost the lock is told before it writes, and leaves the new holder's file alone."""
    path = tmp_path / "s.zarr"
    file = lock_path(path)
    assert file is not None
    with writer_lock(path) as lock:
        lock.check()
        file.write_text(json.dumps({"host": "elsewhere", "pid": 1, "token": "x"}))
        with pytest.raises(RunError, match="taken over by another process"):
            lock.check()
    assert file.exists()


def test_the_same_process_may_not_write_twice(tmp_path: Path) -> None:
    """A second lock in one process is refused, and the first is given back at its end."""
    with (
        writer_lock(tmp_path / "s.zarr"),
        pytest.raises(StoreError, match="being written"),
        writer_lock(tmp_path / "s.zarr"),
    ):
        pass
    with writer_lock(tmp_path / "s.zarr"):
        pass


def test_a_write_that_outlives_its_caller_ends_before_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several keys one fails: the others, and those that have not begun, are not found half-written."""
    path = tmp_path / "s.zarr"
    replace_key = keys._replace

    def slow(key: Path, value: Buffer) -> None:
        if key.name == "0":
            raise OSError(errno.ENOSPC, "No space left on device")
        (path / f"{key.name}.partial").touch()
        time.sleep(0.02)
        (path / f"{key.name}.partial").unlink()
        replace_key(key, value)

    monkeypatch.setattr(keys, "_replace", slow)
    store = keys.Keys.of(path, read_only=False).store
    value = default_buffer_prototype().buffer.from_bytes(b"x")
    several = [(str(key), value) for key in range(40)]
    with pytest.raises(OSError, match="No space"), writer_lock(path):
        path.mkdir()
        sync(concurrent_map(several, store.set, limit=4))
    assert sorted(int(file.name) for file in path.iterdir()) == list(range(1, 40))


def test_two_locks_are_given_back_at_once(tmp_path: Path) -> None:
    """Two threads that end together do not wait for each other."""
    both = threading.Barrier(2)

    def hold(name: str) -> None:
        with writer_lock(tmp_path / name):
            both.wait(20)

    threads = [threading.Thread(target=hold, args=(name,), daemon=True) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
