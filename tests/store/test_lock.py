"""One writer a store, with real processes."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise
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
    since = time.monotonic()
    time.sleep(float(sys.argv[2]))
    print("from", since, "to", time.monotonic())
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
    """Another live process's lock raises an error that names its number, and stays its own."""
    path = tmp_path / "s.zarr"
    process = holder(path)
    try:
        for _ in range(2):  # being refused takes nothing from the holder
            with (
                pytest.raises(StoreError, match=f"process {process.pid} on .*Wait"),
                writer_lock(path),
            ):
                pass
    finally:
        process.kill()
        process.communicate()


def test_the_lock_of_a_killed_process_is_free_with_a_message(tmp_path: Path) -> None:
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
    with writer_lock(path, said.append):  # the last one gave it back, and is not named
        assert len(said) == 1


def test_a_suspended_process_keeps_its_lock(tmp_path: Path) -> None:
    """However long a holder sleeps, nobody else may write: only its death frees the lock."""
    path = tmp_path / "s.zarr"
    process = holder(path)
    file = lock_path(path)
    assert file is not None
    try:
        process.send_signal(signal.SIGSTOP)
        os.utime(file, (time.time() - 10_000, time.time() - 10_000))
        with pytest.raises(StoreError, match=f"process {process.pid}"), writer_lock(path):
            pass
    finally:
        process.kill()
        process.communicate()


def test_only_one_of_many_gets_a_dead_holders_lock(tmp_path: Path) -> None:
    """Processes that find the same dead holder at once do not both take its lock."""
    path = tmp_path / "s.zarr"
    dead = holder(path)
    dead.kill()
    dead.communicate()
    command = [sys.executable, "-c", HOLD, str(path), "1"]
    rivals = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for _ in range(4)
    ]
    outputs = [rival.communicate()[0].split() for rival in rivals]
    held = sorted((float(words[-3]), float(words[-1])) for words in outputs if "held" in words)
    assert held
    assert all(end <= start for (_, end), (start, _) in pairwise(held))


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
def test_a_file_system_without_locks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Where the system locks no files, no lock is made up: the error says so, and what to do."""

    def refuse(*_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with (
        pytest.raises(RunError, match="offers no locks, extract onto another"),
        writer_lock(tmp_path / "s.zarr"),
    ):
        pass


def test_a_lock_file_of_an_older_version_or_of_anything_is_no_holder(tmp_path: Path) -> None:
    """What a file says does not make it held: the system knows."""
    file = lock_path(tmp_path / "s.zarr")
    assert file is not None
    for text in (json.dumps({"host": "elsewhere", "pid": 1, "token": "x"}), "", "nonsense", " 7"):
        file.write_text(text)
        with writer_lock(tmp_path / "s.zarr") as lock:
            lock.check()


def test_a_lock_that_was_lost_is_noticed(tmp_path: Path) -> None:
    """Whoever works for a holder that ended is told before it writes, and leaves the lock alone."""
    path = tmp_path / "s.zarr"
    file = lock_path(path)
    assert file is not None
    with writer_lock(path) as lock:
        lock.check()
    with pytest.raises(RunError, match="given back"):  # a worker that outlives the extract
        lock.check()
    with writer_lock(path) as second:
        with pytest.raises(RunError, match="taken over by another process"):
            lock.check()
        file.unlink()
        with pytest.raises(RunError, match="removed"):
            second.check()


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
