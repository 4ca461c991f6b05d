"""Imports point one way, and each heavy dependency has one door."""

import ast
import itertools
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "samcls"

# What each part may import from samcls, besides itself.
ALLOWED = {
    "errors": set(),
    "config": {"errors"},
    "views": {"errors"},
    "device": {"errors", "config"},
    "files": {"errors"},
    "pooling": {"errors"},
    "cluster": {"errors"},
    "data": {"errors", "config", "files", "views"},
    "store": {"errors", "config", "files"},
    "encode": {
        "errors",
        "config",
        "files",
        "device",
        "pooling",
        "views",
        "cluster",
        "data",
        "store",
    },
    "learn": {"errors", "config", "files", "device", "pooling", "views", "data", "store"},
    "sweep": {"errors", "config", "files", "device", "cluster", "data", "store", "learn"},
    "predict": {"errors", "config", "data", "store", "encode", "learn"},
    "report": {"errors", "config", "data", "store", "encode", "learn", "sweep"},
    "bench": {"errors", "config", "device", "pooling", "data", "store", "encode", "learn", "sweep"},
    "demo": {"errors", "config", "data", "store", "encode", "learn"},
}
FREE = {"cli", "__main__", "__init__"}

DOORS = {
    "PIL": {"data/images.py", "data/tiff.py", "data/phantoms.py"},
    "pydicom": {"data/dicom.py", "data/dicom_file.py"},
    "gdcm": {"data/dicom.py"},
    "imagecodecs": {"data/deep.py"},
    "tifffile": {"data/tiff.py"},
    "zarr": {
        "store/binding.py",
        "store/creation.py",
        "store/following.py",
        "store/keys.py",
        "store/layout.py",
        "store/remote.py",
        "store/columns.py",
        "store/reader.py",
        "bench/store.py",
    },
    "segment_anything": {"encode/sam.py"},
    "optuna": {"sweep/search.py"},
    "matplotlib": {"sweep/plots.py"},
    "openpyxl": {"data/tabular.py"},
    "pyarrow": {"data/tabular.py", "sweep/results.py"},
    "timm": {"encode/timm_encoder.py", "learn/heads/guided/backbone.py"},
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    """A module imports only the parts of samcls below its own."""
    here = part(path)
    if here in FREE:
        return
    used = {name.split(".")[1] for name in imported(path) if name.startswith("samcls.")}
    used -= {here, "__version__"}
    assert used <= ALLOWED[here], f"{here} may not import {sorted(used - ALLOWED[here])}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_one_dependency_one_door(path: Path) -> None:
    """Each heavy file-format or model library is imported in its own module alone."""
    relative = str(path.relative_to(PACKAGE))
    used = {name.split(".")[0] for name in imported(path)}
    for library in used & set(DOORS):
        assert relative in DOORS[library], f"{relative} imports {library}"


def test_every_part_has_a_layer() -> None:
    """A new part of the package must be given its place in the order."""
    assert {part(path) for path in modules()} <= set(ALLOWED) | FREE


def test_no_import_cycle() -> None:
    """No two parts may import each other."""
    for a, b in itertools.combinations(ALLOWED, 2):
        assert not (a in ALLOWED[b] and b in ALLOWED[a])
