"""How a table differs from a store's own, and what the store makes of it.

A store keeps its rows in its own order; what it is given may put labels, splits and groups anew,
and rows at the end. An image that its manifest no longer has may stay as a removed row: no split,
no group, no label, status 3, which no stage uses.

    change, places = compare_ids(store.ids, store.splits, table)
    merged = merge_tables(store.ids, table)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from samcls.files import few
from samcls.store.rows import RowTable

__all__ = [
    "NO_SPLIT",
    "TableChange",
    "changed_beside",
    "changed_columns",
    "changed_tasks",
    "compare_ids",
    "merge_tables",
    "table_attributes",
]

NO_SPLIT = ""  # of a removed row
SHOWN = 3
MOST = 10  # classes that a sentence names


@dataclass(frozen=True)
class TableChange:
    """How a table differs from what a store holds.

    Attributes:
        added: Ids that the store lacks, in the table's order.
        removed: Ids that the table lacks, in the store's order; rows removed before are not named.
        moved: Ids that stand elsewhere among those that both hold.
        columns: Which of `splits`, `groups`, `tasks`, `labels`, `meta` and `ordinal` differ in the rows
            they share.
        tasks: What goes and what comes among the tasks, in words; empty where they are the same.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    moved: tuple[str, ...]
    columns: tuple[str, ...]
    tasks: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether the store's ids are the table's first ones, in the same order."""
        return not self.removed and not self.moved

    @property
    def any(self) -> bool:
        """Whether anything differs."""
        return bool(self.added or self.removed or self.columns)

    def __str__(self) -> str:
        """Say what differs, how much, and the first few."""
        parts = [
            f"{len(ids)} ids {what} ({few(ids, SHOWN)})"
            for what, ids in (
                ("are new", self.added),
                ("are gone", self.removed),
                ("stand in other rows", self.moved),
            )
            if ids
        ]
        parts += self.tasks
        if columns := [name for name in self.columns if not (name == "tasks" and self.tasks)]:
            parts.append(f"{' and '.join(columns)} changed")
        return "; ".join(parts) or "nothing changed"


def compare_ids(
    ids: Sequence[str], splits: Sequence[str], table: RowTable
) -> tuple[TableChange, Int[np.ndarray, " image"]]:
    """Compare rows, though not yet what is said of them.

    Args:
        ids: The store's own.
        splits: The store's own.
        table: Given.

    Returns:
        What differs, `columns` left empty; and each own row's place in the table, -1 for none.
    """
    size = len(ids)
    if list(table.ids[:size]) == list(ids):  # as nearly always: no tables of names are needed
        return TableChange(tuple(table.ids[size:]), (), (), ()), np.arange(size)
    place = {name: row for row, name in enumerate(table.ids)}
    places = np.array([place.get(name, -1) for name in ids], dtype=np.int64)
    shared = [name for name in ids if name in place]
    rank = {name: row for row, name in enumerate(shared)}
    change = TableChange(
        added=tuple(name for name in table.ids if name not in rank),
        removed=tuple(
            name
            for name, split in zip(ids, splits, strict=True)
            if split != NO_SPLIT and name not in place
        ),
        moved=tuple(name for row, name in enumerate(table.ids) if rank.get(name, row) != row),
        columns=(),
    )
    return change, places


def changed_columns(
    places: Int[np.ndarray, " image"],
    own: Mapping[str, Sequence[str]],
    labels: Int[np.ndarray, "image task"],
    tasks: Mapping[str, tuple[str, ...]],
    table: RowTable,
) -> tuple[str, ...]:
    """Name what a table says otherwise of the rows that a store shares with it.

    Args:
        places: Each own row's place in the table, -1 for none.
        own: The store's `splits` and `groups`.
        labels: The store's.
        tasks: The store's.
        table: Given.
    """
    given = {"splits": table.splits, "groups": table.groups}
    shared = places >= 0
    changed = [
        name
        for name in own
        if _some_of(own[name], np.flatnonzero(shared)) != _some_of(given[name], places[shared])
    ]
    if dict(tasks) != dict(table.tasks):
        changed.append("tasks")
    elif not np.array_equal(labels[shared], table.labels[places[shared]]):
        changed.append("labels")
    return tuple(changed)


def changed_beside(
    places: Int[np.ndarray, " image"],
    meta: Mapping[str, Sequence[str]],
    ordinal: Sequence[str],
    table: RowTable,
) -> tuple[str, ...]:
    """Name what a table says otherwise beside labels, splits and groups: `meta`, `ordinal`.

    Args:
        places: Each own row's place in the table, -1 for none.
        meta: The store's own columns.
        ordinal: The store's own.
        table: Given.
    """
    own, given = np.flatnonzero(places >= 0), places[places >= 0]
    same = list(meta) == list(table.meta) and all(
        _some_of(meta[name], own) == _some_of(table.meta[name], given) for name in meta
    )
    ordered = set(ordinal) == set(table.ordinal)
    return (*(() if same else ("meta",)), *(() if ordered else ("ordinal",)))


def changed_tasks(
    own: Mapping[str, tuple[str, ...]], given: Mapping[str, tuple[str, ...]]
) -> tuple[str, ...]:
    """Say which tasks go and which come, and what becomes of the classes of those that stay."""
    gone = [f"task {name!r} ({_few(own[name])}) goes" for name in own if name not in given]
    come = [f"task {name!r} ({_few(given[name])}) comes" for name in given if name not in own]
    kept = [
        f"task {name!r} had the classes {_few(own[name])} and has {_few(classes)}"
        for name, classes in given.items()
        if name in own and own[name] != classes
    ]
    return (*gone, *come, *kept)


def _few(classes: Sequence[str]) -> str:
    return few(classes, MOST) or "no class"


def _some_of(values: Sequence[str], places: Int[np.ndarray, " image"]) -> list[str]:
    if np.array_equal(places, np.arange(len(places))):
        return list(values[: len(places)])
    return [values[at] for at in places.tolist()]


def merge_tables(ids: Sequence[str], table: RowTable) -> RowTable:
    """Return a table in a store's own order: its rows, removed ones emptied, then the new ones.

    Args:
        ids: The store's own.
        table: Given.
    """
    place = {name: row for row, name in enumerate(table.ids)}
    known = set(ids)
    merged = [*ids, *(name for name in table.ids if name not in known)]
    places = [place.get(name, -1) for name in merged]
    labels = np.full((len(merged), len(table.tasks)), -1, dtype=np.int16)
    there = np.array(places) >= 0
    labels[there] = np.asarray(table.labels)[np.array(places)[there]]
    return RowTable(
        ids=merged,
        splits=[table.splits[at] if at >= 0 else NO_SPLIT for at in places],
        groups=[table.groups[at] if at >= 0 else "" for at in places],
        tasks=table.tasks,
        labels=labels,
        meta={
            name: [values[at] if at >= 0 else "" for at in places]
            for name, values in table.meta.items()
        },
        ordinal=table.ordinal,
    )


def table_attributes(table: RowTable) -> dict[str, Any]:
    """Return the attributes that a table decides."""
    tasks = [{"name": name, "classes": list(classes)} for name, classes in table.tasks.items()]
    return {
        "tasks": tasks,
        **({"ordinal": list(table.ordinal)} if table.ordinal else {}),
        **({"meta": list(table.meta)} if table.meta else {}),
    }
