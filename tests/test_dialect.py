"""One way to write docstrings and constants: what ruff does not check of it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import samcls

SOURCES = sorted(Path(samcls.__file__).parent.rglob("*.py"))


def test_constants_have_no_mark_of_privacy() -> None:
    """What a module offers stands in `__all__`; capitals say that a name is a constant."""
    marked = [
        f"{file}: {node.id}"
        for file in SOURCES
        for statement in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(statement, ast.Assign | ast.AnnAssign)
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        if re.fullmatch(r"_[A-Z][A-Z0-9_]+", node.id)
    ]
    assert not marked


def test_sentences_of_arguments_begin_with_a_capital() -> None:
    small = [
        line for file in SOURCES for line in _sentences(file) if re.match(r"[a-z]+[ ,.]", line)
    ]
    assert not [line for line in small if not re.match(r"(float|bfloat)\d", line)]


def _sentences(file: Path) -> Iterator[str]:
    """Yield what stands behind each name under `Args` and `Attributes`."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ClassDef | ast.FunctionDef):
            continue
        within = False
        for line in (ast.get_docstring(node) or "").splitlines():
            if found := re.fullmatch(r"(\w+):", line):
                within = found[1] in ("Args", "Attributes")
            elif within and (found := re.match(r"    \*{0,2}\w+: (.*)", line)):
                yield found[1]
