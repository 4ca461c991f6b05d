"""A sealed copy of a store's metadata, so that a flipped byte there is found and undone.

Zarr checks its chunks but not its `zarr.json` files, where one byte may change a class name, a shape or
the fingerprint without any error. The copy lies in `id/metadata.json`, inside an array's folder, where
no Zarr reader looks; it carries its own SHA-256.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from samcls.store.keys import Keys

__all__ = ["COPY", "ROOT", "damaged_files", "restore_files", "save_copy"]

COPY = "id/metadata.json"
ROOT = "zarr.json"


def save_copy(keys: Keys, arrays: Iterable[str], attributes: Mapping[str, Any]) -> None:
    """Copy the metadata of some arrays and of the group, which is about to get these attributes."""
    files = {name: _parsed(keys, name) for name in _files(arrays)}
    root = files[ROOT] or {}
    files[ROOT] = {**root, "attributes": json.loads(json.dumps(dict(attributes)))}
    copy = {"sha256": _digest(files), "files": files}
    keys.write(COPY, json.dumps(copy, indent=1).encode())


def damaged_files(keys: Keys) -> dict[str, str]:
    """Return the metadata files that are not as they were written, each with what is wrong."""
    files = _copied(keys)
    if files is None:
        return {COPY: "the copy of the metadata is absent or damaged"}
    found = {}
    for name, expected in files.items():
        if (present := _parsed(keys, name)) != expected:
            found[name] = "is absent or no JSON" if present is None else "differs from its copy"
    return found


def restore_files(keys: Keys, arrays: Iterable[str]) -> list[str]:
    """Undo damage: files from the copy, or the copy from the files; return what was rewritten."""
    damaged = damaged_files(keys)
    files = _copied(keys)
    if files is None:
        root = _parsed(keys, ROOT)
        save_copy(keys, arrays, root["attributes"] if root else {})
        return [COPY]
    for name in damaged:
        keys.write(name, json.dumps(files[name], indent=2).encode())
    return list(damaged)


def _files(arrays: Iterable[str]) -> list[str]:
    return [ROOT, f"features/{ROOT}", *(f"{name}/{ROOT}" for name in arrays)]


def _parsed(keys: Keys, name: str) -> dict[str, Any] | None:
    text = keys.read(name)
    try:
        value = json.loads(text) if text is not None else None
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _copied(keys: Keys) -> dict[str, Any] | None:
    copy = _parsed(keys, COPY)
    if copy is None or copy.get("sha256") != _digest(copy.get("files")):
        return None
    files: dict[str, Any] = copy["files"]
    return files


def _digest(files: Any) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
