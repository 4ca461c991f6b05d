"""One writer a store: a lock file beside it, which readers and Zarr never see.

`features.zarr.lock` names the host, the process and when that began; its time of last change is the
heartbeat. It is made with a hard link, which is atomic on network file systems too. The lock of a dead
process on this machine is taken over at once, that of another machine after two minutes of silence.
A store at a URL has no lock: object stores offer none that every service keeps, so run one writer there.

    with writer_lock("features.zarr", print) as lock:
        FeatureStore.open("features.zarr", mode="r+", claim=lock.claim)  # checks before each write
"""

import json
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samcls.errors import RunError, StoreError
from samcls.store.keys import finish_writes, local_path, remove_leftovers

__all__ = ["Claim", "WriterLock", "lock_path", "writer_lock"]

_HEARTBEAT = 15.0  # seconds
_SILENCE = 120.0  # seconds without a heartbeat after which another machine's lock is stale


def lock_path(path: str | Path) -> Path | None:
    """Return where the lock of a local store lies; None for a URL."""
    root = local_path(path)
    return None if root is None else root.with_name(f"{root.name}.lock")


@dataclass(frozen=True)
class Claim:
    """The right to write, which whoever works for the lock's holder can check, on any machine.

    Attributes:
        file: the lock; none for a store that has no lock.
        token: what it says while it is the holder's.
    """

    file: Path | None
    token: str

    @property
    def holds(self) -> bool:
        """Whether the lock is still the holder's; always, where there is none."""
        if self.file is None:
            return True
        found = _holder(self.file)
        return found is not None and found.get("token") == self.token

    def check(self) -> None:
        """Make sure that nobody took the lock over, as may happen to a process that was suspended.

        Raises:
            RunError: the lock is another's now; nothing more may be written.
        """
        if not self.holds:
            raise RunError(
                f"{self.file} was taken over by another process, or removed, while this one was "
                "writing: it was suspended for longer than two minutes, or somebody deleted the file. "
                "Run the same command again once the other has finished"
            )


class WriterLock:
    """A lock that is held; `check`, or its claim's, says whether it still is."""

    def __init__(self, file: Path | None, token: str) -> None:
        self.claim = Claim(file, token)
        self._released = threading.Event()
        if file is not None:
            threading.Thread(target=self._beat, name="store-lock", daemon=True).start()

    def check(self) -> None:
        """Make sure that the lock is still held.

        Raises:
            RunError: as `Claim.check`.
        """
        self.claim.check()

    def release(self) -> None:
        """Give the lock back, unless it was lost; what was begun under it is written first."""
        try:
            if self.claim.file is not None:
                finish_writes()
        finally:
            self._released.set()
            self._remove()

    def _remove(self) -> None:
        if self.claim.file is not None and self.claim.holds:
            self.claim.file.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._released.wait(_HEARTBEAT):
            try:
                if self.claim.file is None or not self.claim.holds:
                    return
                os.utime(self.claim.file)
            except OSError:  # a network mount that is away for a moment; `check` has the last word
                continue


@contextmanager
def writer_lock(path: str | Path, log: Callable[[str], None] | None = None) -> Iterator[WriterLock]:
    """Hold a store's lock, and clean up what a killed writer left half-written.

    Args:
        path: local path or URL of a store, which need not be there yet.
        log: called with a message when a stale lock is taken over.

    Raises:
        StoreError: another process that seems to be alive holds it; the message says which.
        RunError: the folder cannot be written.
    """
    file = lock_path(path)
    token = uuid.uuid4().hex
    if file is not None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            _acquire(file, token, path, log or _silent)
        except OSError as error:
            raise RunError(f"{file} could not be made: {error.strerror}") from error
    lock = WriterLock(file, token)
    try:
        remove_leftovers(path)
        yield lock
    finally:
        lock.release()


def _acquire(file: Path, token: str, path: str | Path, log: Callable[[str], None]) -> None:
    draft = file.with_name(f"{file.name}.{token}")
    draft.write_text(json.dumps({**_this_process(), "token": token}))
    try:
        while not _link(draft, file):
            holder = _holder(file)
            if holder is None:  # given back just now
                continue
            reason = _stale(holder, file, draft)
            if reason is None:
                raise StoreError(
                    f"the store {path} is being written by process {holder.get('pid')} on "
                    f"{holder.get('host')}. Wait until it has finished, or stop it. If no such process "
                    f"exists, delete {file}"
                )
            if _remove_stale(file, holder, draft):
                log(f"taking over the lock of {path}: {reason}")
    finally:
        draft.unlink(missing_ok=True)


def _link(draft: Path, file: Path) -> bool:
    try:
        file.hardlink_to(draft)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links: exclusive creation is the next best
        try:
            with file.open("x") as handle:
                handle.write(draft.read_text())
        except FileExistsError:
            return False
    return True


def _remove_stale(file: Path, holder: dict[str, Any], draft: Path) -> bool:
    """Move a stale lock away; put it back if another process was quicker and this is its new one."""
    aside = draft.with_name(f"{draft.name}.stale")
    try:
        file.rename(aside)
    except FileNotFoundError:
        return False
    same = _holder(aside) == holder
    if not same:
        _link(aside, file)
    aside.unlink(missing_ok=True)
    return same


def _holder(file: Path) -> dict[str, Any] | None:
    """Read who holds a lock; an unreadable one is nobody in particular."""
    try:
        text = file.read_text()
    except FileNotFoundError:
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _stale(holder: dict[str, Any], file: Path, draft: Path) -> str | None:
    """Say why a lock is stale, or None if its holder may be alive."""
    who = f"process {holder.get('pid')} on {holder.get('host')}"
    here = _this_process()
    if all(holder.get(name) == here[name] for name in ("host", "boot", "space")):
        started = _started(int(holder["pid"]))
        return None if started == holder["started"] else f"{who} is no longer running"
    os.utime(draft)  # compare by the file system's own clock, not by this machine's
    try:
        silence = draft.stat().st_mtime - file.stat().st_mtime
    except FileNotFoundError:
        return None
    return f"{who} gave no sign of life for {silence:.0f} s" if silence > _SILENCE else None


def _this_process() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "boot": _text("/proc/sys/kernel/random/boot_id"),
        "space": _link_text("/proc/self/ns/pid"),  # containers number their processes apart
        "pid": os.getpid(),
        "started": _started(os.getpid()),
    }


def _started(pid: int) -> str | None:
    """Return something that tells a process from a later one of the same number; None if it is gone."""
    if Path("/proc/self/stat").exists():
        fields = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
        return fields[19] if fields and fields[0] != "Z" else None
    if os.name == "nt":  # there, signal 0 would end the process; the heartbeat alone decides
        return "unknown"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "unknown"


def _text(name: str) -> str:
    try:
        return Path(name).read_text()
    except OSError:
        return ""


def _link_text(name: str) -> str:
    try:
        return str(Path(name).readlink())
    except OSError:
        return ""


def _silent(message: str) -> None:
    """Say nothing."""
