"""Labels as people write them: one class for equal numbers, and a word on what only looks alike.

`0`, `0.0` and `00` are one class, spelled `0`. `Yes` and `yes` are two, and `nan` is one, unless the user
says otherwise: nothing is guessed, everything doubtful is named with its counts. A manifest and a CSV of
labels for stage two follow the same rules. 100,000 cells take about a tenth of a second.

    found = read_task(TaskColumn("grade"), ["0", "0.0", "1", "nan"], missing=["nan"])
    found.texts, found.classes      # ("0", "0", "1", ""), ("0", "1")
"""

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal, InvalidOperation

import numpy as np
from jaxtyping import Int

from samcls.data.columns import TaskColumn

__all__ = [
    "TaskLabels",
    "canonical",
    "class_order",
    "doubtful_classes",
    "labelled",
    "near_misses",
    "positive_last",
    "read_task",
    "unused_missing",
]

NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,9})?")
MISSING = {
    *("nan", "na", "n/a", "#n/a", "n.a.", "<na>", "nat", "none", "null", "#null!", "nil"),
    *("-", "--", "?", "??", ".", "..", "_", "missing", "unknown", "notavailable", "unbekannt"),
}
LONGEST = 30  # digits of a number that is still written out
SHOWN = 5
LISTED = 10  # classes whose counts a sentence names


@dataclass(frozen=True)
class TaskLabels:
    """What the cells of one task say.

    Attributes:
        texts: A class for each cell; empty where the label is missing.
        classes: In the order of their indices.
        remarks: Sentences on what a user should look at.
        problem: What stands against the task, in one sentence; empty where nothing does.
    """

    texts: tuple[str, ...]
    classes: tuple[str, ...]
    remarks: tuple[str, ...]
    problem: str


def read_task(
    task: TaskColumn, cells: Sequence[str], missing: Iterable[str] = (), known: Sequence[str] = ()
) -> TaskLabels:
    """Read the labels of one task.

    Args:
        task: Its name, and its positive class where one is declared.
        cells: As they stand in the file, without white space around them.
        missing: What means that a label is missing, besides an empty cell.
        known: Classes in an order that is kept where there are no others.
    """
    counts = Counter(cells)
    gone = {"", *map(canonical, missing)}
    spelled = {canonical(name): name for name in known}
    meant = {cell: canonical(cell) for cell in counts}
    meant = {cell: "" if name in gone else spelled.get(name, name) for cell, name in meant.items()}
    found = set(meant.values()) - {""}
    classes = tuple(known) if found and found <= set(known) else class_order(found)
    problem = ""
    if task.positive is not None:
        positive = canonical(task.positive)
        classes, problem = positive_last(task.name, classes, spelled.get(positive, positive))
    merged: Counter[str] = Counter()
    for cell, number in counts.items():
        merged[meant[cell]] += number
    empty = counts[""]
    remarks = [*_one_class(task.name, counts, meant), *doubtful_classes(task.name, merged, empty)]
    return TaskLabels(tuple(meant[cell] for cell in cells), classes, tuple(remarks), problem)


def canonical(text: str) -> str:
    """Return the spelling of a class: a number's shortest one, any other text as it is."""
    number = _number(text)
    if number is None:
        return text
    if number == 0:
        return "0"
    if abs(number.adjusted()) > LONGEST:
        return str(_shortest(number)).lower()
    shown = format(number, "f")
    return shown.rstrip("0").rstrip(".") if "." in shown else shown


def class_order(names: Iterable[str]) -> tuple[str, ...]:
    """Class names in numeric order where all are numbers, so that 10 follows 9; else sorted."""
    names = sorted(names)
    numbers = [_number(name) for name in names]
    if None in numbers:
        return tuple(names)
    return tuple(sorted(names, key=lambda name: _number(name) or Decimal(0)))


def positive_last(task: str, classes: Sequence[str], positive: str) -> tuple[tuple[str, ...], str]:
    """Put the positive class of a task of two last, where scores and figures look for it.

    Args:
        task: Its name.
        classes: In any order. Of a task with fewer than two, as a set without any case may have,
            the positive class is taken on trust.
        positive: Spelled as `canonical` spells it.

    Returns:
        The classes, and what stands against the choice: empty where nothing does.
    """
    rest = [name for name in classes if name != positive]
    if len(classes) > 2:
        return tuple(classes), (
            f"task {task!r} has {len(classes)} classes ({_first(classes)}), and a positive class is "
            "chosen in a task of two: leave it out, or learn one class against the rest from labels "
            "of two classes, in a column of its own name"
        )
    if len(classes) == 2 and positive not in classes:
        return tuple(classes), (
            f"task {task!r} has no class {positive!r} to be positive; it has {_first(classes)}"
            f"{near_misses(positive, classes)}"
        )
    return (*rest, positive) if classes else (), ""


def near_misses(name: str, known: Iterable[str]) -> str:
    """Return a question after what was meant, to stand at the end of a sentence; else nothing."""
    known = list(known)
    alike = [one for one in known if _key(one) == _key(name)]
    near = alike or difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def doubtful_classes(task: str, counts: Mapping[str, int], empty: int = 0) -> list[str]:
    """Sentences on classes that look alike, and on such as may mean that a label is missing.

    Args:
        task: Its name.
        counts: Images of each class; of the empty text, those without a label.
        empty: Cells that were empty.
    """
    names = [name for name in counts if name]
    remarks = []
    doubtful = [
        name for name in names if re.sub(r"\s", "", name).lower() in MISSING or not _key(name)
    ]
    if doubtful:
        words = ",".join(doubtful)
        given = f"'{words}'" if re.search(r"[^\w,./-]", words) else words
        are, they, mean = (
            ("is taken for a class", "it", "means")
            if len(doubtful) == 1
            else ("are taken for classes", "they", "mean")
        )
        also = f" ({empty} empty cells are missing labels already)" if empty else ""
        remarks.append(
            f"task {task!r}: {_counted(doubtful, counts)} {are}; if {they} {mean} that the label is "
            f"missing, give --missing {given}{also}"
        )
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(_key(name), []).append(name)
    remarks += [
        f"task {task!r}: {_counted(group, counts)} look alike and are {len(group)} classes; if they "
        "are one, spell them in one way"
        for group in alike.values()
        if len(group) > 1 and not set(group) <= set(doubtful)
    ]
    return remarks


def labelled(
    task: str,
    classes: Sequence[str],
    codes: Int[np.ndarray, " image"],
    splits: Sequence[str],
    names: Sequence[str],
) -> str:
    """Return a sentence on how many images have a label, by split and class.

    Args:
        task: Its name.
        classes: In the order of the codes.
        codes: Class index of each image; -1 where the label is missing.
        splits: Where each image belongs.
        names: The splits to name, those without images left out.
    """
    at, said = np.array(splits, dtype=np.str_), []
    for name in names:
        own = codes[at == name]
        counts = [int((own == code).sum()) for code in range(len(classes))]
        by_class = ", ".join(f"{one}: {n}" for one, n in zip(classes, counts, strict=True))
        shown = f" ({by_class})" if 0 < len(classes) <= LISTED else ""
        if len(own):
            said.append(f"{name} {sum(counts)} of {len(own)}{shown}")
    return f"labelled images of task {task}: {'; '.join(said)}"


def unused_missing(missing: Iterable[str], cells: Iterable[str]) -> list[str]:
    """Return a sentence for each word for a missing label that no cell holds, and what may be meant."""
    found = set(cells)
    meant = {canonical(cell) for cell in found}
    return [
        f"no label is spelled {word!r}, which --missing names{near_misses(word, sorted(found))}"
        for word in missing
        if word and canonical(word) not in meant
    ]


def _one_class(task: str, counts: Mapping[str, int], meant: Mapping[str, str]) -> list[str]:
    """Return a sentence for each class that is spelled in several ways."""
    spellings: dict[str, list[str]] = {}
    for cell, name in meant.items():
        if name:
            spellings.setdefault(name, []).append(cell)
    return [
        f"task {task!r}: {_counted(group, counts)} are equal numbers and are taken as one class, "
        f"{name!r}"
        for name, group in spellings.items()
        if len(group) > 1
    ]


def _number(text: str) -> Decimal | None:
    if not NUMBER.fullmatch(text):
        return None
    try:
        return Decimal(text)
    except InvalidOperation:
        return None


def _shortest(number: Decimal) -> Decimal:
    return number.normalize(Context(prec=max(1, len(number.as_tuple().digits))))


def _key(name: str) -> str:
    """Return what names have in common that differ in case, white space, hyphens or Unicode form alone."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    plain = unicodedata.normalize("NFKC", plain)
    number = _number(plain.strip().replace(",", "."))
    if number is not None:
        return canonical(plain.strip().replace(",", "."))
    shown = "".join(c for c in plain if not c.isspace() and unicodedata.category(c) != "Cf")
    return re.sub(r"(?<=\w)[-_\u2010-\u2015](?=\w)", "", shown).replace("_", "")


def _counted(names: Sequence[str], counts: Mapping[str, int]) -> str:
    shown = [f"{name!r} ({_images(counts[name])})" for name in names[:SHOWN]]
    if len(names) > SHOWN:
        shown.append(f"{len(names) - SHOWN} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _images(number: int) -> str:
    return "1 image" if number == 1 else f"{number} images"


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
