"""Columns of the manifest beside the image: age, sex, site as one more level of features.

Numbers are standardised as channels are, categories one-hot; what is missing is a channel of its own. What
there is to know of a column (its categories, what stands in for a missing number) is learned from the training
images alone. The level has one window, so every head takes it in as it takes in any other.

    columns = learn_columns(store.meta, ["age", "sex=category"], train_rows)
    encode(columns, store.meta)                       # "image channel"
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from samcls.errors import ConfigError
from samcls.files import few, meant

__all__ = ["LEVEL", "MetaColumn", "as_column", "encode", "learn_columns", "meta_width", "unseen"]

LEVEL = "meta"
KINDS = ("number", "category")
MISSING = frozenset({"", "na", "n/a", "nan", "null", "none"})  # whatever their case
MOST_CATEGORIES = 5  # one for so many training images: more name images rather than describe them

Texts = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class MetaColumn:
    """One column, as training images have it.

    Attributes:
        name: Of the column.
        categories: In order of their texts; None for numbers.
        middle: Mean of the numbers, which stands in for a missing one; 0 for categories.
    """

    name: str
    categories: tuple[str, ...] | None
    middle: float

    @property
    def width(self) -> int:
        """Channels: the number, or one a category; and one for what is missing."""
        return (1 if self.categories is None else len(self.categories)) + 1


def as_column(values: Mapping[str, Any]) -> MetaColumn:
    """Return a column from its fields as JSON has them."""
    categories = values["categories"]
    known = None if categories is None else tuple(categories)
    return MetaColumn(values["name"], known, float(values["middle"]))


def meta_width(columns: Sequence[MetaColumn]) -> int:
    """Channels of all columns together."""
    return sum(column.width for column in columns)


def learn_columns(
    texts: Texts, wanted: Sequence[str], rows: Int[np.ndarray, " row"]
) -> tuple[MetaColumn, ...]:
    """Return what training images say of some columns.

    Args:
        texts: Every column that there is, a text for each image.
        wanted: Names, or NAME=number or NAME=category where texts do not show it.
        rows: Training images.

    Raises:
        ConfigError: a column is not there, holds some texts among numbers, nothing at all, or hardly two images
            alike; everything that is wrong being said at once.
    """
    found, problems = [], []
    for entry in wanted:
        name, mark, kind = entry.rpartition("=")
        if not mark or kind not in KINDS:
            name, kind = entry, ""
        if name not in texts:
            known = ", ".join(texts) or "none"
            problems.append(
                f"with_meta: no column {name}; the store has {known}{meant(name, texts)}. Columns are kept "
                "where the manifest calls them meta:NAME"
            )
            continue
        values = [texts[name][row].strip() for row in rows.tolist()]
        there = [value for value in values if not _missing(value)]
        if not there:
            problems.append(f"with_meta: column {name} is missing for every training image")
            continue
        every = {value.strip() for value in texts[name]}
        column, problem = _column(name, kind, there, {v for v in every if not _missing(v)})
        if problem:
            problems.append(problem)
        elif column is not None:
            found.append(column)
    if problems:
        raise ConfigError("\n  ".join(problems))
    return tuple(found)


def unseen(columns: Sequence[MetaColumn], texts: Texts) -> list[str]:
    """Return a sentence for each column with categories that training images do not have.

    Args:
        columns: From `learn_columns`.
        texts: Each of them at least, a text for each image.
    """
    found = []
    for column in columns:
        values = _stripped(texts, column)
        known = column.categories
        new = [v for v in values if known is not None and v not in known and not _missing(v)]
        if new:
            found.append(
                f"column {column.name}: {len(new)} images have {few(sorted(set(new)))}, which no training image "
                "has; it counts as missing"
            )
    return found


def encode(columns: Sequence[MetaColumn], texts: Texts) -> Float[np.ndarray, "image channel"]:
    """Return the columns' channels of every image, not standardised; float32.

    A category that training has not seen counts as missing, and so does a text where numbers are expected.

    Args:
        columns: From `learn_columns`.
        texts: Each of them at least, a text for each image.
    """
    parts = []
    for column in columns:
        values = _stripped(texts, column)
        part = np.zeros((len(values), column.width), dtype=np.float32)
        if column.categories is None:
            numbers = [_number(value) for value in values]
            part[:, 0] = [column.middle if number is None else number for number in numbers]
            part[:, 1] = [number is None for number in numbers]
        else:
            places = {category: place for place, category in enumerate(column.categories)}
            at = [places.get(value, column.width - 1) for value in values]
            part[np.arange(len(values)), at] = 1
        parts.append(part)
    return np.concatenate(parts, axis=1)


def _column(
    name: str, kind: str, there: Sequence[str], every: set[str]
) -> tuple[MetaColumn | None, str]:
    """Return a column of the training images' texts, or what is wrong with it; `every` has all images' texts."""
    numbers = [_number(value) for value in there]
    strange = sorted(value for value in every if _number(value) is None)
    if kind == "number" or (kind == "" and any(number is not None for number in numbers)):
        if strange:
            return None, (
                f"with_meta: column {name} has numbers and {few(strange)}; mend those cells, or take it for "
                f"categories with {name}=category"
            )
        return MetaColumn(name, None, float(np.mean([n for n in numbers if n is not None]))), ""
    categories = tuple(sorted(set(there)))
    if len(categories) > 2 and len(categories) * MOST_CATEGORIES > len(there):
        return None, (
            f"with_meta: column {name} has {len(categories)} categories in {len(there)} training images, so "
            "it names images rather than describing them; leave it out, or make groups of its values"
        )
    return MetaColumn(name, categories, 0.0), ""


def _stripped(texts: Texts, column: MetaColumn) -> list[str]:
    return [value.strip() for value in texts[column.name]]


def _missing(value: str) -> bool:
    return value.lower() in MISSING


def _number(value: str) -> float | None:
    """Return a finite number; None of anything else."""
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
