"""One writer a store: the operating system's lock on a file beside it, which readers and Zarr never see.

`features.zarr.lock` stays where it is; while the lock is held it names the host and the process. The
system lets go of it when its holder dies, on whichever machine, so it is never taken from one that lives.
A store at a URL has no lock: object stores offer none that every service keeps, so run one writer there.

    with writer_lock("features.zarr", print) as claim:
        FeatureStore.open("features.zarr", mode="r+", claim=claim)  # checks before each write
"""

import json
import os
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from samcls.errors import RunError, StoreError
from samcls.store.keys import finish_writes, local_path, remove_leftovers

__all__ = ["Claim", "lock_path", "writer_lock"]

SAID = 1  # Windows locks the first byte against reading: what the holder says stands behind it


def lock_path(path: str | Path) -> Path | None:
    """Return where the lock of a local store lies; None for a URL."""
    root = local_path(path)
    return None if root is None else root.with_name(f"{root.name}.lock")


@dataclass(frozen=True)
class Claim:
    """The right to write, which whoever works for the lock's holder can check, on any machine.

    Attributes:
        file: The lock; none for a store that has no lock.
        token: What it says while it is the holder's.
    """

    file: Path | None
    token: str

    @property
    def holds(self) -> bool:
        """Whether the lock is still the holder's; always, where there is none."""
        return self.file is None or _holder(self.file).get("token") == self.token

    def check(self) -> None:
        """Make sure that the process for which this one works has not died or finished meanwhile.

        Raises:
            RunError: the lock is another's or nobody's now; nothing more may be written.
        """
        if not self.holds:
            raise RunError(
                f"{self.file} was taken over by another process, given back, or removed, while this one "
                "was writing: the process that it works for has ended, or somebody deleted the file. "
                "Run the same command again once the other has finished"
            )


@contextmanager
def writer_lock(path: str | Path, log: Callable[[str], None] | None = None) -> Iterator[Claim]:
    """Hold a store's lock, and clean up what a killed writer left half-written; give its claim.

    Args:
        path: Local path or URL of a store, which need not be there yet.
        log: Called with a message when the last writer was cut off.

    Raises:
        StoreError: another process holds it; the message says which.
        RunError: the folder cannot be written, or lies on a file system without locks.
    """
    file = lock_path(path)
    claim = Claim(file, uuid.uuid4().hex)
    if file is None:
        yield claim
        return
    held, last = _acquired(file, claim, path)
    try:
        if last and log is not None:
            log(f"taking over the lock of {path}: {_named(last)} is no longer running")
        remove_leftovers(path)
        yield claim
    finally:
        try:
            finish_writes()
            if claim.holds:
                _say(file, {})
        finally:
            held.release()


def _acquired(file: Path, claim: Claim, path: str | Path) -> tuple[FileLock, dict[str, Any]]:
    """Lock the file and say in it who holds it; return who did not give it back before, if any."""
    lock = FileLock(file, timeout=0, thread_local=False, fallback_to_soft=False)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        last = _holder(file)
        _say(file, {"host": socket.gethostname(), "pid": os.getpid(), "token": claim.token})
    except Timeout as error:
        raise StoreError(
            f"the store {path} is being written by {_named(_holder(file))}. Wait until it has "
            "finished, or stop it"
        ) from error
    except OSError as error:
        lock.release()
        raise RunError(
            f"{file} could not be made and locked: {error.strerror or error}. Where the file system "
            "offers no locks, extract onto another one and copy the store; else mend what is wrong"
        ) from error
    return lock, last


def _named(holder: dict[str, Any]) -> str:
    return f"process {holder.get('pid', '(unknown)')} on {holder.get('host', 'an unknown host')}"


def _say(file: Path, holder: dict[str, Any]) -> None:
    """Write who holds a lock into its file, in place: another file would not be the locked one."""
    with file.open("r+b", buffering=0) as said:
        said.seek(SAID)
        said.truncate()
        if holder:
            said.write(json.dumps(holder).encode())


def _holder(file: Path) -> dict[str, Any]:
    """Read who holds a lock; nobody in particular where that cannot be read."""
    try:
        with file.open("rb", buffering=0) as said:
            said.seek(SAID)
            value = json.loads(said.read() or b"{}")
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
