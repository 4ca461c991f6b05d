"""The header of a manifest, or of a CSV of labels: what each column is.

`label:NAME` declares a task and `meta:NAME` a column that is kept and that training never sees. What else
is said of a task stands in brackets: `label:diagnosis[positive=melanoma]`, `label:grade[ordinal]`. A
column that is neither declared nor reserved is the task where it is the only one, and else a mistake.

    header = parse_header(["id", "path", "split", "label:grade[ordinal]", "meta:age"])
    header.tasks[0].name, header.meta, header.problems     # "grade", ("age",), ()
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["RESERVED", "Header", "TaskColumn", "meta_column", "parse_header", "task_columns"]

REQUIRED = ("id", "path", "split")
RESERVED = (*REQUIRED, "group", "index")

DECLARED = re.compile(r"(label|meta)\s*:\s*(.*)", re.IGNORECASE | re.DOTALL)
OPTIONS = re.compile(r"\[\s*(?:|ordinal|(?:ordinal\s*,\s*)?positive\s*=.*)\s*\]\Z", re.DOTALL)
MEANT = re.compile(r"\[\s*(ordinal|positive)\b[^\[]*\]\Z")


@dataclass(frozen=True)
class TaskColumn:
    """A task as a header declares it.

    Attributes:
        name: Of the task.
        positive: Class that sensitivity and its like are of; the last one by default.
        ordinal: Whether the classes are steps of one scale.
    """

    name: str
    positive: str | None = None
    ordinal: bool = False

    @property
    def text(self) -> str:
        """The column's header."""
        options = ["ordinal"] if self.ordinal else []
        options += [f"positive={self.positive}"] if self.positive is not None else []
        # A name that ends in brackets would be read as one with options.
        brackets = f"[{','.join(options)}]" if options or self.name.endswith("]") else ""
        return f"label:{self.name}{brackets}"


@dataclass(frozen=True)
class Header:
    """What the columns of a header are.

    Attributes:
        columns: Each column's name as it stands in the file.
        own: The place of each reserved column that is there.
        tasks: In the order of their columns.
        task_places: The column of each task.
        meta: Names of the meta columns.
        meta_places: The column of each.
        problems: What is wrong with the header, in sentences; empty for a good one.
    """

    columns: tuple[str, ...]
    own: dict[str, int]
    tasks: tuple[TaskColumn, ...]
    task_places: tuple[int, ...]
    meta: tuple[str, ...]
    meta_places: tuple[int, ...]
    problems: tuple[str, ...]


def parse_header(cells: Sequence[str], reserved: Iterable[str] = RESERVED) -> Header:
    """Read a header; what is wrong with it is collected, not raised.

    Args:
        cells: The names as they stand in the file.
        reserved: Names of columns that are neither tasks nor meta columns.
    """
    reserved = tuple(reserved)
    names = [cell.strip() for cell in cells]
    own: dict[str, int] = {}
    tasks: list[tuple[int, TaskColumn]] = []
    meta: list[tuple[int, str]] = []
    plain: list[tuple[int, str]] = []
    problems: list[str] = []
    for place, cell in enumerate(names):
        declared = DECLARED.fullmatch(cell)
        name = cell
        if cell in reserved:
            own.setdefault(cell, place)
        elif declared is None and cell:
            plain.append((place, cell))
        elif declared is not None and declared[1].lower() == "meta":
            name = declared[2].strip()
            meta.append((place, name))
        elif declared is not None:
            task, wrong = _task(declared[2].strip())
            name = task.name
            tasks.append((place, task))
            problems += [f"column {cell!r}: {wrong}"] if wrong else []
        if declared is not None and not name:
            problems.append(f"column {cell!r} has no name: expected {declared[1].lower()}:NAME")
        if declared is not None and declared[1].lower() == "label" and name in RESERVED:
            problems.append(f"column {cell!r}: no task can be named {name!r}; give it another name")
    problems += _twice(names, [task.name for _, task in tasks], [name for _, name in meta])
    problems += _undeclared([name for _, name in plain], len(tasks), reserved)
    if not tasks and len(plain) == 1:
        tasks = [(place, TaskColumn(name)) for place, name in plain]
    return Header(
        columns=tuple(names),
        own=own,
        tasks=tuple(task for _, task in tasks),
        task_places=tuple(place for place, _ in tasks),
        meta=tuple(name for _, name in meta),
        meta_places=tuple(place for place, _ in meta),
        problems=tuple(problems),
    )


def task_columns(tasks: Iterable[str | TaskColumn]) -> list[TaskColumn]:
    """Tasks as columns, where some are given by their names alone."""
    return [TaskColumn(task) if isinstance(task, str) else task for task in tasks]


def meta_column(name: str) -> str:
    """Header of a meta column."""
    return f"meta:{name}"


def _task(text: str) -> tuple[TaskColumn, str]:
    """Return a task's name and options, and what is wrong with them."""
    found = OPTIONS.search(text)
    if found is None:
        if not text.endswith("]"):
            return TaskColumn(text), ""
        inside = text[text.rfind("[") :]
        return TaskColumn(text), (
            f"unknown option {inside}; expected [ordinal], [positive=CLASS] or both, "
            "[ordinal,positive=CLASS]; a name that itself ends in brackets is followed by []"
        )
    name = text[: found.start()].strip()
    inside = found[0][1:-1].strip()
    first, mark, rest = inside.partition("positive")
    ordinal = first.strip(" ,") == "ordinal"
    if not mark:
        return TaskColumn(name, None, ordinal), ""
    positive = rest.partition("=")[2].strip()
    wrong = "" if positive else "positive= names no class; expected [positive=CLASS]"
    return TaskColumn(name, positive, ordinal), wrong


def _twice(cells: Sequence[str], tasks: Sequence[str], meta: Sequence[str]) -> list[str]:
    found = Counter(cells)
    problems = [
        f"column {name!r} stands there {count} times"
        for name, count in found.items()
        if count > 1 and name
    ]
    for kind, names in (("task", tasks), ("meta column", meta)):
        for name, count in Counter(names).items():
            prefix = "label" if kind == "task" else "meta"
            if count > 1 and name and found[f"{prefix}:{name}"] < count:
                problems.append(f"{kind} {name!r} stands there {count} times")
    return problems


def _undeclared(plain: Sequence[str], tasks: int, reserved: Sequence[str]) -> list[str]:
    """Return what is wrong with columns that say not what they are."""
    problems = [
        f"column {name!r} is none of {', '.join(reserved)}; did you mean {name.lower()!r}?"
        for name in plain
        if name.lower() in reserved
    ]
    problems += [
        f"column {name!r} has options but is not declared: expected label:{name}"
        for name in plain
        if MEANT.search(name)
    ]
    if plain and len(plain) + tasks > 1:
        named = ", ".join(map(repr, plain))
        verb = "column {} is" if len(plain) == 1 else "columns {} are"
        problems.append(
            f"{verb.format(named)} neither declared nor reserved: rename what is to be learned to "
            f"label:NAME (label:{plain[0]}), and what is only to be kept to meta:NAME "
            f"(meta:{plain[-1]})"
        )
    return problems
