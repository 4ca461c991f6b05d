"""A store's metadata, each bit of it checked: its attributes, and how its arrays are laid out.

Zarr checks its chunks but not its `zarr.json` files, where one byte may change a class name, a shape or
the fingerprint without any error. So the attributes hold a checksum of themselves and one for the
metadata of every array, which are compared where a store is opened and an array first used. Two sealed
copies, from which `repair` restores, lie inside arrays' folders, where no Zarr reader looks. A store of
the first version has one copy and no checksum: it is compared with the copy.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from samcls.store.keys import Keys
from samcls.store.layout import array_paths
from samcls.store.schema import Fingerprint

__all__ = [
    "ARRAYS",
    "CHECKSUM",
    "COPIES",
    "CREATED_BY",
    "MARK",
    "ROOT",
    "STORE_ID",
    "UPDATING",
    "Root",
    "array_problem",
    "damaged_files",
    "describe_arrays",
    "intact_copy",
    "parsed",
    "read_root",
    "resize_array",
    "restore_files",
    "write_attributes",
]

ROOT = "zarr.json"
COPIES = ("id/metadata.json", "status/metadata.json")
STORE_ID = "store_id"  # random; every shard names it
UPDATING = "table_update"  # set while the table is rewritten: tells an update cut off from a store
CREATED_BY, MARK = "created_by", "samcls"
CHECKSUM, ARRAYS = "checksum", "arrays"
SEALS = (CHECKSUM, ARRAYS)
CONSOLIDATED = "consolidated_metadata"  # by whoever wrote it; never read, and nobody's damage
# what a store may say without a checksum, as the first version wrote them
UNSEALED = {CREATED_BY, "fingerprint", "tasks", "format_version", "pixels", UPDATING}


@dataclass(frozen=True)
class Root:
    """What a store says of itself.

    Attributes:
        attributes: Of the group, without their checksum.
        arrays: Shape, and digest of all the rest of its metadata, of each array.
        sealed: The attributes carry their checksum.
    """

    attributes: dict[str, Any]
    arrays: dict[str, Any]
    sealed: bool

    @property
    def updating(self) -> bool:
        """Whether the table is being rewritten, or that was cut off."""
        return UPDATING in self.attributes


def read_root(keys: Keys) -> Root:
    """Read a store's attributes, checked.

    Raises:
        ValueError: saying how they are damaged.
    """
    text = keys.read(ROOT)
    if text is None:
        raise ValueError(f"{ROOT} is gone")
    group = _json(text)
    if group is None:
        raise ValueError(f"{ROOT} is no JSON")
    said = group.get("attributes")
    if group.get("node_type") != "group" or group.get("zarr_format") != 3:
        raise ValueError(f"{ROOT} is not that of a Zarr v3 group")
    if not isinstance(said, dict) or not said:
        raise ValueError(f"{ROOT} holds no attributes")
    attributes = {name: value for name, value in said.items() if name not in SEALS}
    if CHECKSUM in said:
        if said[CHECKSUM] != _checksum(said):
            raise ValueError(f"the checksum of the attributes in {ROOT} is wrong")
        return Root(attributes, said[ARRAYS], True)
    if strange := sorted(set(said) - UNSEALED):
        raise ValueError(
            f"the attributes in {ROOT} lack their checksum, or {strange[0]!r} is damaged"
        )
    copy = intact_copy(keys)
    if copy is None:
        return Root(attributes, {}, False)
    if UPDATING not in said and _plain(group) != _plain(copy[ROOT]):
        raise ValueError(f"{ROOT} differs from its copy")
    arrays = {
        name.removesuffix(f"/{ROOT}"): _described(file)
        for name, file in copy.items()
        if file is not None and file.get("node_type") == "array"
    }
    return Root(attributes, arrays, False)


def array_problem(root: Root, name: str, metadata: Mapping[str, Any] | None) -> str | None:
    """Say what is wrong with an array's metadata; None if nothing is, or nothing is known of them."""
    if metadata is None:
        return "is absent or no JSON"
    expected = root.arrays.get(name)
    if expected is None:
        return "is not named in the attributes" if root.sealed else None
    found = _described(metadata)
    shape, own = found["shape"], expected["shape"]
    # an update that was cut off has resized some arrays, and changed the number of tasks
    grown = root.updating and (name == "label" or shape[1:] == own[1:])
    if found["sha256"] != expected["sha256"] or (shape != own and not grown):
        return "differs from what was written"
    return None


def describe_arrays(keys: Keys, names: Iterable[str]) -> dict[str, Any]:
    """Return the shape, and the digest of all the rest, of arrays' metadata as they are now."""
    return {name: _described(parsed(keys, f"{name}/{ROOT}") or {}) for name in names}


def write_attributes(keys: Keys, attributes: Mapping[str, Any], arrays: Mapping[str, Any]) -> Root:
    """Replace a store's attributes, sealed, and the copies of all its metadata.

    Args:
        keys: Of the store.
        attributes: Without their checksum.
        arrays: What the metadata of each array are, as from `describe_arrays`.

    Returns:
        What `read_root` will return.

    Raises:
        ValueError: the metadata of an array are not what `arrays` says.
    """
    said = {**json.loads(json.dumps(dict(attributes))), ARRAYS: dict(arrays)}
    said[CHECKSUM] = _checksum(said)
    group = {"zarr_format": 3, "node_type": "group", "attributes": said}
    root = Root({k: v for k, v in said.items() if k not in SEALS}, dict(arrays), True)
    files = {ROOT: group, f"features/{ROOT}": parsed(keys, f"features/{ROOT}")}
    for name in arrays:
        files[f"{name}/{ROOT}"] = found = parsed(keys, f"{name}/{ROOT}")
        if (problem := array_problem(root, name, found)) is not None:
            raise ValueError(f"{name}/{ROOT} {problem}")
    before = (parsed(keys, ROOT) or {}).get("attributes") or {}
    # cut off between the two, a restored copy tells of an unfinished update rather than hides it, and
    # a store that is being made is never one that differs from its copy
    if root.updating or set(before) == {CREATED_BY}:
        _write_json(keys, ROOT, group)
        _save_copies(keys, files)
    else:
        _save_copies(keys, files)
        _write_json(keys, ROOT, group)
    return root


def resize_array(keys: Keys, name: str, shape: Iterable[int]) -> None:
    """Change the shape in an array's metadata, and not a letter more."""
    metadata = parsed(keys, f"{name}/{ROOT}")
    if metadata is not None and metadata["shape"] != list(shape):
        _write_json(keys, f"{name}/{ROOT}", {**metadata, "shape": list(shape)})


def damaged_files(keys: Keys) -> dict[str, str]:
    """Return the metadata files that are not as they were written, each with what is wrong."""
    files = intact_copy(keys)
    if files is None:
        found = dict.fromkeys(COPIES[:1], "the copy of the metadata is absent or damaged")
        try:
            root = read_root(keys)
        except ValueError as error:
            return {**found, ROOT: str(error)}
        if root.sealed:
            found[COPIES[1]] = found[COPIES[0]]
        return {**found, **_differing(keys, root)}
    found = {}
    for name, expected in files.items():
        present = parsed(keys, name)
        if present is None and expected is not None:
            found[name] = "is absent or no JSON"
        elif _plain(present) != _plain(expected):
            found[name] = "differs from its copy"
    if CHECKSUM in ((files[ROOT] or {}).get("attributes") or {}):
        for name in COPIES:
            if _copied(keys, name) != files:
                found[name] = "the copy of the metadata is absent or damaged"
    return found


def restore_files(keys: Keys) -> list[str]:
    """Undo damage: files from a copy, and copies from the files; return what was rewritten.

    Raises:
        ValueError: neither is whole.
    """
    damaged, files = damaged_files(keys), intact_copy(keys)
    if files is None:
        root = read_root(keys)
        if lost := _differing(keys, root):
            raise ValueError(f"{next(iter(lost))} and the copies of the metadata are damaged")
        arrays = root.arrays or describe_arrays(keys, _arrays_of(root))
        write_attributes(keys, root.attributes, arrays)
        return list(damaged)
    for name in set(damaged) - set(COPIES):
        _write_json(keys, name, files[name])
    if set(damaged) & set(COPIES):
        _save_copies(keys, files)
    return list(damaged)


def intact_copy(keys: Keys) -> dict[str, Any] | None:
    """Return the metadata files as a copy of them says; None where none is whole."""
    found = (_copied(keys, name) for name in COPIES)
    return next((copy for copy in found if copy is not None), None)


def parsed(keys: Keys, name: str) -> dict[str, Any] | None:
    """Read a file of metadata; None where it is absent or no table in JSON."""
    text = keys.read(name)
    return None if text is None else _json(text)


def _differing(keys: Keys, root: Root) -> dict[str, str]:
    files = {name: parsed(keys, f"{name}/{ROOT}") for name in root.arrays}
    problems = {name: array_problem(root, name, file) for name, file in files.items()}
    return {f"{name}/{ROOT}": text for name, text in problems.items() if text is not None}


def _arrays_of(root: Root) -> list[str]:
    """Name the arrays of a store of the first version."""
    made = Fingerprint.from_dict(root.attributes["fingerprint"])
    return array_paths(made, int(root.attributes.get("pixels", 0)))


def _described(metadata: Mapping[str, Any]) -> dict[str, Any]:
    rest = {name: value for name, value in metadata.items() if name != "shape"}
    return {"shape": metadata.get("shape"), "sha256": _digest(rest)}


def _save_copies(keys: Keys, files: Mapping[str, Any]) -> None:
    copy = {"sha256": _digest(files), "files": files}
    for name in COPIES:
        keys.write(name, json.dumps(copy, indent=1).encode())


def _copied(keys: Keys, name: str) -> dict[str, Any] | None:
    copy = parsed(keys, name)
    if copy is None or copy.get("sha256") != _digest(copy.get("files")):
        return None
    files: dict[str, Any] = copy["files"]
    return files if isinstance(files.get(ROOT), dict) else None


def _write_json(keys: Keys, name: str, value: Any) -> None:
    keys.write(name, json.dumps(value, indent=2).encode())


def _json(text: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _plain(file: Any) -> Any:
    """Return a group's metadata without what others consolidated into it."""
    if not isinstance(file, dict):
        return file
    return {name: value for name, value in file.items() if name != CONSOLIDATED}


def _checksum(said: Mapping[str, Any]) -> str:
    return _digest({name: value for name, value in said.items() if name != CHECKSUM})


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
