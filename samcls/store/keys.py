"""Where a store's bytes lie: one key at a time, and durably on a local disk.

zarr-python replaces a local file atomically but leaves its bytes to the page cache, so a power cut
may keep a row's mark and lose its features. `SyncedStore` flushes each file and each new folder
before it returns.

    keys = Keys.of("features.zarr", read_only=True)
    keys.read("status/zarr.json")
"""

import asyncio
import contextlib
import errno
import os
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zarr
import zarr.storage
from zarr.abc.store import Store, SuffixByteRequest
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.sync import sync

from samcls.store.remote import RemoteStore

__all__ = [
    "AnyArray",
    "Keys",
    "SyncedStore",
    "finish_writes",
    "local_path",
    "remove_leftovers",
    "swap_path",
    "sync_folder",
]

if TYPE_CHECKING:
    AnyArray = zarr.Array[Any]
else:
    AnyArray = zarr.Array  # which takes no parameters in zarr 3.0

LEFTOVER = "*.partial"  # what zarr-python and SyncedStore call a file that is not yet whole
LOCAL = {"file", "local"}  # schemes of URLs that lead to this machine's own files
LONGEST_WRITE = 120.0  # seconds; what takes longer hangs, and is not waited for


def local_path(path: str | Path) -> Path | None:
    """Return the real folder of a local store, or None for a URL of another kind."""
    scheme, separator, place = str(path).partition("://")
    if not separator:
        place = scheme
    elif scheme.lower() not in LOCAL:
        return None
    return Path(os.path.realpath(place))  # a link and what it leads to are one store, with one lock


def swap_path(path: str | Path) -> Path | None:
    """Return where a local store is written anew before it takes its place; None for a URL."""
    root = local_path(path)
    return None if root is None else root.with_name(f"{root.name}.swap")


def remove_leftovers(path: str | Path) -> int:
    """Delete what a killed writer left half-written; only the holder of the lock may call it."""
    root = local_path(path)
    found = list(root.rglob(LEFTOVER)) if root else []
    for leftover in found:
        leftover.unlink(missing_ok=True)
    return len(found)


def finish_writes() -> None:
    """Wait for writes that a failed or interrupted caller left running.

    Zarr writes several keys at once and reports the first that fails, on a full disk for instance,
    while the others go on in its own thread: none may land once the lock has been given back.
    """
    with contextlib.suppress(TimeoutError):
        sync(_finish_writes(), timeout=LONGEST_WRITE)


async def _finish_writes() -> None:
    own = asyncio.current_task()
    assert own is not None
    own.set_name(_finish_writes.__name__)  # so that two threads do not wait for each other
    while others := {task for task in asyncio.all_tasks() if task.get_name() != own.get_name()}:
        await asyncio.wait(others)


class SyncedStore(zarr.storage.LocalStore):
    """A local Zarr store whose writes are on the disk when they return."""

    async def set(self, key: str, value: Buffer) -> None:
        """Replace one key, atomically and durably."""
        self._check_writable()
        await asyncio.to_thread(_replace, self.root / key, value)

    async def set_parts(self, key: str, parts: Sequence[bytes | memoryview]) -> None:
        """Replace one key by pieces that stand in several places: joining a shard costs a copy of it."""
        self._check_writable()
        await asyncio.to_thread(_replace, self.root / key, parts)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write one key durably unless it is there; the lock keeps other writers away meanwhile."""
        if not (self.root / key).exists():
            await self.set(key, value)

    def set_sync(self, key: str, value: Buffer) -> None:
        """Replace one key, atomically and durably."""
        self._check_writable()
        _replace(self.root / key, value)


def _replace(path: Path, value: Buffer | Sequence[bytes | memoryview]) -> None:
    parts = [value.as_buffer_like()] if isinstance(value, Buffer) else value
    _make_folder(path.parent)
    partial = path.with_suffix(f".{uuid.uuid4().hex}.partial")
    try:
        with partial.open("wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Have what a folder names on the disk, after something in it was made or renamed."""
    if os.name == "nt":  # Windows opens no folders, and journals their entries itself
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:  # some network mounts sync no folders
            raise
    finally:
        os.close(handle)


class Keys:
    """Single keys of a store, local or remote, beneath Zarr's arrays and groups."""

    def __init__(self, store: Store) -> None:
        self.store = store

    @classmethod
    def of(cls, path: str | Path, read_only: bool) -> "Keys":
        """Reach the store at a path or URL, without looking whether anything is there."""
        root = local_path(path)
        if root is None:
            return cls(RemoteStore.at(str(path), read_only))
        kind: Callable[..., Any] = zarr.storage.LocalStore if read_only else SyncedStore
        return cls(kind(root, read_only=read_only))

    def read(self, key: str, last: int | None = None) -> bytes | None:
        """Return a key's bytes, or its last ones; None where it is absent."""
        wanted = SuffixByteRequest(last) if last else None
        value = sync(self.store.get(key, default_buffer_prototype(), wanted))
        return None if value is None else value.to_bytes()

    def size(self, key: str) -> int | None:
        """Return how many bytes a key has; None where it is absent."""
        try:
            return sync(self.store.getsize(key))
        except FileNotFoundError:
            return None

    def write(self, key: str, value: bytes) -> None:
        """Replace a key."""
        sync(self.store.set(key, default_buffer_prototype().buffer.from_bytes(value)))

    def delete(self, key: str) -> None:
        """Remove a key; one that is absent is no error."""
        if sync(self.store.exists(key)):
            sync(self.store.delete(key))

    def delete_folder(self, prefix: str) -> None:
        """Remove every key of a folder, and the folder."""
        sync(self.store.delete_dir(prefix))

    def under(self, prefix: str) -> list[str]:
        """Return every key that begins so, in no order."""
        return sync(_listed(self.store, prefix, None))

    def any(self) -> bool:
        """Say whether there is any key at all."""
        return bool(sync(_listed(self.store, "", 1)))


async def _listed(store: Store, prefix: str, most: int | None) -> list[str]:
    found: list[str] = []
    async for key in store.list_prefix(prefix):
        found.append(key)
        if len(found) == most:
            break
    return found
