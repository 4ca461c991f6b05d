"""A sweep's folder: which store it belongs to, so that it goes on over the same images alone.

space.toml         as given
sweep.json         fingerprint of the store and checksum of its images, labels and splits
runs/              a folder a run, see `outcomes`
results.csv        a row a run, every setting and every figure, see `tables`
leaderboard.json   a row a configuration, ranked, and what selection cost
winner/            the winner, whose test split was opened

open_sweep(folder, space, store)
with owned(folder): ...
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from samcls.errors import OverwriteRefused, RunError
from samcls.files import to_json, write_whole
from samcls.store.feature_store import FeatureStore
from samcls.sweep.outcomes import sweep_away
from samcls.sweep.space import Space

__all__ = ["open_sweep", "owned"]

FORMAT_VERSION = 2  # of 1, runs had a format of their own
SWEEP = "sweep.json"
SPACE = "space.toml"


def open_sweep(folder: str | Path, space: Space, store: FeatureStore) -> None:
    """Make a sweep's folder, or make sure that it may go on: same store, same labels and splits.

    The space may be another than before: runs of the same config are kept.

    Raises:
        OverwriteRefused: where the folder holds a sweep over another store, or anything else.
    """
    folder = Path(folder)
    own = {"format_version": FORMAT_VERSION, **_content(store, space)}
    if (folder / SWEEP).exists():
        _refuse_other(folder, own)
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OverwriteRefused(f"{folder} holds something else than a sweep; name a new folder")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / SWEEP, to_json(own))
    write_whole(folder / SPACE, space.text.encode())


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Hold a sweep's folder; the system lets go of it if this process dies.

    Raises:
        RunError: where another process holds it.
    """
    try:
        with FileLock(folder / ".lock").acquire(timeout=0):
            sweep_away(folder)
            yield
    except Timeout as error:
        raise RunError(
            f"another process is sweeping into {folder}; wait until it has finished, or stop it"
        ) from error


def _content(store: FeatureStore, space: Space) -> dict[str, Any]:
    """Return what a sweep's figures hang on besides its configs."""
    total = hashlib.sha256()
    parts: list[Any] = [store.ids, store.splits, store.groups, store.tasks]
    total.update(json.dumps(parts).encode())
    for values in (store.labels, store.status, store.sha256):
        total.update(np.ascontiguousarray(values).tobytes())
    labels = space.base.labels
    if labels is not None and Path(labels).exists():
        total.update(Path(labels).read_bytes())
    if chosen := (*space.base.missing, *space.base.positive):
        total.update(json.dumps(chosen).encode())
    return {"fingerprint": store.fingerprint.to_dict(), "content_sha256": total.hexdigest()}


def _refuse_other(folder: Path, own: Mapping[str, Any]) -> None:
    try:
        found = json.loads((folder / SWEEP).read_bytes())
        there = {**found["fingerprint"], "images, labels and splits": found["content_sha256"]}
        there["format_version"] = found["format_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OverwriteRefused(
            f"{folder / SWEEP} cannot be read ({error}); name a new folder"
        ) from error
    if there["format_version"] != FORMAT_VERSION:
        raise OverwriteRefused(
            f"{folder} holds a sweep of format {there['format_version']}, of another version of samcls; "
            f"this one reads format {FORMAT_VERSION}. Name another folder to sweep anew; the winner "
            f"can still be read from {folder / 'winner'}"
        )
    here = json.loads(json.dumps(own))
    here = {**here["fingerprint"], "images, labels and splits": here["content_sha256"]}
    differing = [name for name in here if there.get(name) != here[name]]
    if differing:
        lines = [
            f"{name}: {_short(there.get(name))} there, {_short(here[name])} here"
            for name in differing
        ]
        raise OverwriteRefused(
            f"{folder} holds a sweep over a store of other content; name another folder\n  "
            + "\n  ".join(lines)
        )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."
