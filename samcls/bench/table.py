"""The record that every `samcls bench` verb fills: what was measured, where, and against what.

A figure without its machine says nothing, so the table holds both; a comparison names its baseline,
measured in the same run.

    Bench("store", [measure("read, whole", 2.1, "GB/s", baseline="numpy.load", baseline_value=3.0)])
"""

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["Bench", "BenchRow", "describe_machine", "measure"]

PACKAGES = ("numpy", "torch", "zarr")


def describe_machine() -> dict[str, Any]:
    """Describe this machine: processor, cores that this process may use, memory and versions."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_gb": _memory_gb(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
    }


def _processor() -> str:
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_gb() -> float | None:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@dataclass(frozen=True)
class BenchRow:
    """One figure.

    Attributes:
        measure: What was measured, unique within its table.
        value: The figure.
        unit: Its unit, such as `GB/s` or `images/s`.
        baseline: What it is compared with; none where it stands alone.
        ratio: Value divided by the baseline's value.
    """

    measure: str
    value: float
    unit: str
    baseline: str | None = None
    ratio: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types, without those that say nothing."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Bench:
    """Everything that one `samcls bench` verb measured in one run.

    Attributes:
        bench: Name of the verb: `encoder`, `store`, `train`, `sweep`, `guided`, `recipe`, `predict` or `audit`.
        rows: The figures, in the order in which they are shown.
        machine: What they were measured on.
    """

    bench: str
    rows: Sequence[BenchRow]
    machine: dict[str, Any] = field(default_factory=describe_machine)

    def to_dict(self) -> dict[str, Any]:
        """Return the table as JSON types."""
        rows = [row.to_dict() for row in self.rows]
        return {"bench": self.bench, "machine": self.machine, "rows": rows}


def measure(
    name: str,
    value: float,
    unit: str,
    baseline: str | None = None,
    baseline_value: float | None = None,
) -> BenchRow:
    """Make a row, with the ratio to a baseline where there is one."""
    ratio = value / baseline_value if baseline_value else None
    return BenchRow(name, float(value), unit, baseline, ratio)
