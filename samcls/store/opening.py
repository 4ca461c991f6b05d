"""What lies at a store's path, told before anything is read from it or written to it.

A store that holds work is never taken for nothing because its metadata cannot be read: what looks like
one and is damaged is an error, which names the verb that restores it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path

from samcls.errors import OverwriteRefused, RunError, StoreError
from samcls.store.keys import Keys, local_path, swap_path
from samcls.store.lock import Claim
from samcls.store.metadata import COPIES, CREATED_BY, MARK, ROOT, intact_copy, parsed, read_root
from samcls.store.schema import FORMAT_VERSION, PIXELS

__all__ = [
    "Found",
    "damage",
    "look",
    "refuse_other_contents",
    "require_store",
    "require_version",
    "writing",
]

SIGNS = (*COPIES, "status/zarr.json", "sha256/zarr.json", "id/zarr.json", "valid/zarr.json")
PAYLOADS = ("features", PIXELS)


class Found(Enum):
    """What lies at a path."""

    NOTHING = "nothing"
    OTHER = "something that is no store"
    UNFINISHED = "a creation that was cut off, and holds no work"
    STORE = "a store"


@contextmanager
def writing(path: str, claim: Claim | None) -> Iterator[None]:
    """Write only while the lock is held; turn a full disk, or another refusal, into words."""
    try:
        if claim is not None:
            claim.check()
        yield
    except OSError as error:
        raise RunError(
            f"{path} could not be written: {error.strerror or error}. What was finished before is "
            "kept; make room, or mend what is wrong, and run the same command again"
        ) from error


def look(path: str | Path) -> Found:
    """Say what lies at a path or URL.

    Raises:
        StoreError: a store whose metadata are damaged or lost.
    """
    root = local_path(path)
    if root is not None and not root.exists():
        return Found.NOTHING
    if root is not None and not root.is_dir():
        return Found.OTHER
    keys = Keys.of(path, read_only=True)
    try:
        attributes: object = read_root(keys).attributes
        wrong = ""
    except ValueError as error:
        attributes, wrong = (parsed(keys, ROOT) or {}).get("attributes"), str(error)
    if not wrong and _describes_store(attributes):
        return Found.STORE
    if attributes == {CREATED_BY: MARK} and not _holds_work(keys):
        return Found.UNFINISHED
    if _describes_store(attributes) or any(keys.read(name) is not None for name in SIGNS):
        raise StoreError(damage(path, keys, wrong or f"{ROOT} lacks most attributes"))
    there = any(root.iterdir()) if root is not None else keys.any()
    return Found.OTHER if there else Found.NOTHING


def damage(path: str | Path, keys: Keys, what: str) -> str:
    """Put damaged metadata into words: what it is, that nothing was changed, and the remedy."""
    restored = (
        f"samcls store repair {path} restores it from its copy"
        if intact_copy(keys) is not None
        else f"samcls store verify {path} says more; no copy of it is whole, so put {ROOT} back from a "
        "backup, or extract into another store"
    )
    return f"{path} is a feature store whose metadata is damaged: {what}. Nothing was changed; {restored}"


def _describes_store(attributes: object) -> bool:
    named = {"fingerprint", "format_version"}
    return isinstance(attributes, dict) and bool(named & set(attributes))


def _holds_work(keys: Keys) -> bool:
    """Say whether there is any shard of features or images, which a creation never writes."""
    return any("/c/" in key for name in PAYLOADS for key in keys.under(f"{name}/"))


def require_store(path: str) -> None:
    """Make sure that a store is at a path.

    Raises:
        StoreError: there is none, or it is damaged, or its creation was cut off.
    """
    found = look(path)
    if found is Found.STORE:
        return
    swap = swap_path(path)
    if found is Found.NOTHING and swap is not None and swap.exists():
        raise StoreError(
            f"{path} was being written anew, in {swap}, when that was cut off; run samcls extract "
            f"MANIFEST {path} again to finish it"
        )
    if found is Found.NOTHING:
        raise StoreError(
            f"no feature store at {path}; make one with: samcls extract MANIFEST {path}"
        )
    if found is Found.UNFINISHED:
        raise StoreError(
            f"{path} is not a finished feature store: an extract was cut off while making it, and can "
            "simply be run again"
        )
    raise StoreError(
        f"{path} is not a feature store; make one elsewhere with: samcls extract MANIFEST STORE"
    )


def refuse_other_contents(path: str) -> None:
    """Let nothing be overwritten but a creation of our own that was cut off.

    Raises:
        OverwriteRefused: a store is there, or something else.
        StoreError: a store is there whose metadata are damaged.
    """
    found = look(path)
    if found is Found.STORE:
        raise OverwriteRefused(f"a feature store is already at {path}; open it, or name another")
    if found is Found.OTHER:
        group = local_path(path) is None or parsed(Keys.of(path, read_only=True), ROOT)
        kind = "is a Zarr group of another kind" if group else "exists and is not a feature store"
        raise OverwriteRefused(f"{path} {kind}; nothing was written. Name another path")


def require_version(path: str, attributes: dict[str, object]) -> None:
    """Refuse a store of another format.

    Raises:
        StoreError: naming both versions.
    """
    found = attributes.get("format_version")
    if found != FORMAT_VERSION:
        raise StoreError(
            f"{path} has format version {found}; this samcls reads version {FORMAT_VERSION}. "
            "Install the version that wrote it, or extract again"
        )
