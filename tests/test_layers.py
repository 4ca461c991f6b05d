"""Imports point one way, file by file, and each heavy dependency has one door.

Every import counts for the order of the parts, also those inside functions and for types alone. A circle is
one of imports that run: those under TYPE_CHECKING are left out, as Python itself never follows them.
"""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from support.paths import PACKAGE, TESTS

# Parts from the ground up. Those in one row may use each other, if no circle comes of it.
ORDER = (
    ("errors",),
    ("config", "device", "files", "pooling", "views", "cluster"),
    ("data", "store"),
    ("encode", "learn"),
    ("sweep", "report", "deploy", "audit", "explain"),
    ("api",),
    ("",),  # the package's own face
    ("bench", "demo", "doctor", "pipeline"),
    ("cli",),
    ("__main__",),
)
APART = ({"data", "store"}, {"encode", "learn"})
ROOMS = (
    ("settings",),
    ("features", "score"),
    ("heads",),
    ("fit",),
    ("runs",),
    ("estimator",),
)  # of learn

# Debts: what is not yet as it should be. An entry whose cause is gone must go too.
KNOWN_CIRCLES: tuple[set[str], ...] = ()
KNOWN_OUT_OF_ORDER: set[tuple[str, str]] = set()

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
    "jinja2": {"report/html.py"},
    "matplotlib": {"report/canvas.py", "sweep/plots.py"},
    "openpyxl": {"data/tabular.py"},
    "pyarrow": {"data/tabular.py", "sweep/parquet.py"},
    "timm": {"encode/timm_encoder.py", "learn/heads/guided/backbone.py"},
}


def module(path: Path) -> str:
    """A file's name from the package's root: "learn.heads" for learn/heads/__init__.py, "" for its own."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def imported(path: Path, *, types: bool = True) -> frozenset[str]:
    """Full names of what a file imports; without `types`, not what only a type checker reads."""
    names: set[str] = set()
    left: list[ast.AST] = [ast.parse(path.read_text())]
    while left:
        node = left.pop()
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        guard = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        left += node.orelse if guard and not types else ast.iter_child_nodes(node)
    return frozenset(names)


def used(name: str, *, types: bool) -> set[str]:
    """The files of samcls that a file imports; its version and its place on the disk are none."""
    found = set()
    for full in imported(FILES[name], types=types) - {"samcls", "samcls.__version__"}:
        head, _, rest = full.partition(".")
        if head == "samcls":
            found.add(rest if rest in FILES else rest.rpartition(".")[0])
    return found - {name}


def circles(graph: dict[str, set[str]]) -> set[frozenset[str]]:
    """Groups of names that all reach each other, by Tarjan's algorithm."""
    found: set[frozenset[str]] = set()
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []

    def visit(name: str) -> None:
        number[name] = lowest[name] = len(number)
        stack.append(name)
        for other in sorted(graph[name]):
            if other not in number:
                visit(other)
                lowest[name] = min(lowest[name], lowest[other])
            elif other in stack:
                lowest[name] = min(lowest[name], number[other])
        if lowest[name] == number[name]:
            group = stack[stack.index(name) :]
            del stack[-len(group) :]
            if len(group) > 1:
                found.add(frozenset(group))

    for name in sorted(graph):
        if name not in number:
            visit(name)
    return found


def rank(name: str, rows: tuple[tuple[str, ...], ...]) -> int:
    return next(place for place, row in enumerate(rows) if name in row)


def out_of_order(name: str, other: str) -> bool:
    """Whether an import points up, or sideways between parts that stand apart."""
    here, there = name.split("."), other.split(".")
    if here[0] != there[0]:
        up = rank(there[0], ORDER) > rank(here[0], ORDER)
        return up or {here[0], there[0]} in APART
    if here[0] == "learn" and len(here) > 1 and len(there) > 1:
        return rank(there[1], ROOMS) > rank(here[1], ROOMS)
    return False


def test_no_files_import_each_other() -> None:
    """No circle of any length, but for those that are listed; and none is listed that is gone."""
    found = circles({name: used(name, types=False) for name in FILES})
    listed = {frozenset(circle) for circle in KNOWN_CIRCLES}
    new, gone = ([sorted(one) for one in more] for more in (found - listed, listed - found))
    assert not new, f"files that import each other: {new}"
    assert not gone, f"opened, so strike it from KNOWN_CIRCLES: {gone}"


def test_imports_point_one_way() -> None:
    """A file imports only parts, and rooms of stage two, that stand below its own."""
    pairs = {(name, other) for name in FILES for other in used(name, types=True)}
    found = {pair for pair in pairs if out_of_order(*pair)}
    new, gone = sorted(found - KNOWN_OUT_OF_ORDER), sorted(KNOWN_OUT_OF_ORDER - found)
    assert not new, f"imports that point up: {new}"
    assert not gone, f"mended, so strike it from KNOWN_OUT_OF_ORDER: {gone}"


def test_no_parts_import_each_other() -> None:
    """Nor do two parts of one row, through different files."""
    graph: dict[str, set[str]] = {name.split(".")[0]: set() for name in FILES}
    for name in FILES:
        graph[name.split(".")[0]] |= {other.split(".")[0] for other in used(name, types=True)}
    assert circles(graph) == set()


def test_every_part_and_room_has_its_place() -> None:
    """A new part of the package, or room of stage two, must be given its place in the order."""
    rooms = {name.split(".")[1] for name in FILES if name.startswith("learn.")}
    assert {name.split(".")[0] for name in FILES} <= {one for row in ORDER for one in row}
    assert rooms <= {room for row in ROOMS for room in row}


def test_circles_of_any_length_are_found(tmp_path: Path) -> None:
    """Also those that pass through a function's own import; those for types alone are none."""
    long = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}
    assert circles(long) == {frozenset("abc")}
    assert circles(long | {"c": {"d"}}) == set()
    source = tmp_path / "one.py"
    source.write_text(
        "if TYPE_CHECKING:\n    import typed\nelse:\n    import other\ndef f():\n    from a import b\n"
    )
    assert imported(source) == {"typed", "other", "a.b"}
    assert imported(source, types=False) == {"other", "a.b"}


@pytest.mark.parametrize("name", FILES, ids=lambda name: name or "samcls")
def test_one_dependency_one_door(name: str) -> None:
    """Each heavy file-format or model library is imported in its own module alone."""
    relative = str(FILES[name].relative_to(PACKAGE))
    libraries = {full.split(".")[0] for full in imported(FILES[name])}
    for library in libraries & set(DOORS):
        assert relative in DOORS[library], f"{relative} imports {library}"


def test_tests_share_what_is_in_support_alone() -> None:
    """No test module imports another or a conftest, nor does a program that it starts."""
    between = re.compile(r"^\s*(?:from|import) [\w.]*\b(?:test_\w+|conftest)\b", re.MULTILINE)
    for path in sorted(TESTS.rglob("*.py")):
        assert between.findall(path.read_text()) == [], path
        roots = {full.split(".")[0] for full in imported(path)}
        assert roots.isdisjoint(other.stem for other in TESTS.iterdir() if other.name != "support")
