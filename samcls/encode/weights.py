"""The official SAM checkpoints: where they come from, and whether a file is one.

Fetching resumes where it stopped (a `.part` file beside the target), and a file gets its final name
only after its size and SHA-256 agree. Measured: hashing 1.2 GB/s, so 2.1 s for ViT-H.
Listing and fetching need the standard library alone.
Run: `samcls weights list`, `samcls weights fetch vit_b`, `samcls weights verify vit_b FILE`.
"""

import contextlib
import hashlib
import http.client
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Literal

from samcls.errors import DownloadError, WeightsError

__all__ = [
    "CHECKPOINTS",
    "Checkpoint",
    "Listed",
    "cache_dir",
    "fetch",
    "file_sha256",
    "find",
    "listing",
    "need_file",
    "verify",
]

_SITE = "https://dl.fbaipublicfiles.com/segment_anything/"
_BLOCK = 1 << 20

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Checkpoint:
    """One published checkpoint.

    Attributes:
        name: the encoder it belongs to, for instance `vit_b`.
        file_name: its file name at the source, kept on disk.
        url: where it is published.
        bytes: its exact size.
        sha256: its SHA-256, 64 lower-case hexadecimal digits.
        licence: SPDX name of the licence it is published under.
    """

    name: str
    file_name: str
    url: str
    bytes: int
    sha256: str
    licence: str = "Apache-2.0"


def _official(name: str, file_name: str, size: int, sha256: str) -> Checkpoint:
    return Checkpoint(name, file_name, _SITE + file_name, size, sha256)


CHECKPOINTS: Mapping[str, Checkpoint] = MappingProxyType(
    {
        record.name: record
        for record in (
            _official(
                "vit_b",
                "sam_vit_b_01ec64.pth",
                375_042_383,
                "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
            ),
            _official(
                "vit_l",
                "sam_vit_l_0b3195.pth",
                1_249_524_607,
                "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
            ),
            _official(
                "vit_h",
                "sam_vit_h_4b8939.pth",
                2_564_550_879,
                "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
            ),
        )
    }
)


@dataclass(frozen=True)
class Listed:
    """How one checkpoint stands on this machine: the size is looked at, the hash is not."""

    checkpoint: Checkpoint
    path: Path
    state: Literal["present", "absent", "wrong size"]
    found_bytes: int | None


def find(name: str | Checkpoint) -> Checkpoint:
    """Return the record called `name`; a record is returned as it is.

    Raises:
        WeightsError: no checkpoint has this name.
    """
    if isinstance(name, Checkpoint):
        return name
    if name not in CHECKPOINTS:
        known = ", ".join(CHECKPOINTS)
        raise WeightsError(f"no checkpoint is called {name!r}. Known checkpoints: {known}.")
    return CHECKPOINTS[name]


def cache_dir() -> Path:
    """Return the folder for checkpoints: `SAMCLS_WEIGHTS`, else `samcls/weights` in the XDG cache."""
    if own := os.environ.get("SAMCLS_WEIGHTS"):
        return Path(own).expanduser()
    # The XDG rule: a relative XDG_CACHE_HOME counts as unset.
    shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (shared if shared.is_absolute() else Path.home() / ".cache") / "samcls" / "weights"


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, read in pieces, as 64 lower-case hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def verify(name: str | Checkpoint, path: Path) -> None:
    """Check that the file at `path` is the checkpoint `name`, by size first and then by hash.

    Raises:
        WeightsError: there is no such file, or its size or hash is another.
    """
    record = find(name)
    need_file(path)
    if difference := _difference(record, path):
        raise WeightsError(
            f"{path} is not the {record.name} checkpoint: {difference}. "
            f"Remove it and run `samcls weights fetch {record.name}`."
        )


def _difference(record: Checkpoint, path: Path) -> str:
    """Say how a file differs from what was published; nothing if it does not."""
    size = path.stat().st_size
    if size != record.bytes:
        return f"it has {size:,} bytes, expected {record.bytes:,}"
    found = file_sha256(path)
    return "" if found == record.sha256 else f"its SHA-256 is {found}, expected {record.sha256}"


def listing(
    directory: Path | None = None, checkpoints: Iterable[Checkpoint] | None = None
) -> tuple[Listed, ...]:
    """Say for each known checkpoint whether it lies in `directory` (default: the cache folder)."""
    folder = cache_dir() if directory is None else directory
    records = CHECKPOINTS.values() if checkpoints is None else checkpoints
    return tuple(_listed(record, folder / record.file_name) for record in records)


def _listed(record: Checkpoint, path: Path) -> Listed:
    if not path.is_file():
        return Listed(record, path, "absent", None)
    size = path.stat().st_size
    return Listed(record, path, "present" if size == record.bytes else "wrong size", size)


def fetch(
    name: str | Checkpoint, directory: Path | None = None, progress: Progress | None = None
) -> Path:
    """Download a checkpoint, unless it is there already, and return its path.

    A stopped download is continued from its `.part` file. As long as each connection brings new
    bytes, a broken one is taken up again; one that brings none ends the attempt.

    Args:
        name: a known checkpoint's name, or a record.
        directory: the folder to put it in; the cache folder by default. Made if need be.
        progress: called with (bytes so far, bytes in all) after each piece.

    Raises:
        DownloadError: the source cannot be reached, sent something else, or the disk is full; what
            has arrived so far is kept, unless it is wrong.
        WeightsError: a file of this name is there already and is another.
    """
    record = find(name)
    target = (cache_dir() if directory is None else directory) / record.file_name
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
        return bytes(response.read(_BLOCK))
    return b""


def _flush(stream: IO[bytes]) -> None:
    # The final name must not outlive a power cut that the bytes did not.
    stream.flush()
    os.fsync(stream.fileno())


def _accept(record: Checkpoint, part: Path) -> None:
    if difference := _difference(record, part):
        part.unlink()
        raise DownloadError(
            f"{record.url} did not send the {record.name} checkpoint: {difference}. What it sent "
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


def need_file(path: Path) -> None:
    """Raise a WeightsError where there is no file at `path`."""
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise WeightsError(
            f"the checkpoint {path} {kind}. Name a file, or run `samcls weights fetch`."
        )
