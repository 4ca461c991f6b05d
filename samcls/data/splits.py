"""Images to splits: whole groups, classes as even as that allows, seeded.

The greedy division of scikit-learn's StratifiedGroupKFold, with a share for each split in place of equal
folds: groups are placed one after the other, large ones first, each where the counts of its classes then
come nearest to the shares. Images that are alone in their group are thus apportioned class by class to
the nearest whole number (Sainte-Laguë). 100,000 images take about four seconds.

    splits = draw_splits(labels, groups, {"train": 0.7, "val": 0.1, "test": 0.2}, seed=0)
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int

from samcls.data.manifest import SPLITS, Row
from samcls.errors import ConfigError

__all__ = ["SHARES", "draw_missing_splits", "draw_splits", "shares_of"]

SHARES = "0.7,0.1,0.2"


def shares_of(text: str) -> dict[str, float]:
    """Shares of train, val and test from a text such as `0.7,0.1,0.2`.

    Raises:
        ConfigError: They are not three positive numbers that add up to 1.
    """
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != 3 or not min(values) > 0 or not abs(sum(values) - 1) < 1e-6:
        raise ConfigError(
            f"the split {text!r} is not usable: expected three positive shares of train, val and "
            f"test that add up to 1, such as {SHARES}"
        )
    return dict(zip(SPLITS, values, strict=True))


def draw_missing_splits(
    rows: Sequence[Row], shares: Mapping[str, float], seed: int
) -> tuple[list[Row], list[str]]:
    """Draw every split where no row has one, and val from train where there is no val.

    Returns:
        The rows in their order, and a sentence on each thing done or lacking.
    """
    whole = "groups whole" if any(row.group for row in rows) else "each image by itself"
    how = f"classes even, {whole}, seed {seed}"
    there = {row.split for row in rows}
    if there == {""}:
        drawn, notes = dict(shares), [f"the splits were drawn: {how}"]
    elif "val" not in there and "train" in there:
        drawn = {split: shares[split] for split in ("train", "val")}
        notes = [f"there is no val: it was drawn from train, {how}"]
    else:
        drawn, notes = {}, []
    if "" not in there and "test" not in there:
        notes.append("there is no test split")
    open_rows = [row for row in rows if drawn and row.split in {"", "train"}]
    labels, groups = [row.labels for row in open_rows], [row.group for row in open_rows]
    splits = iter(draw_splits(labels, groups, drawn, seed) if open_rows else [])
    placed = [
        replace(row, split=next(splits)) if drawn and row.split in {"", "train"} else row
        for row in rows
    ]
    return placed, notes


def draw_splits(
    labels: Sequence[Sequence[str]],
    groups: Sequence[str],
    shares: Mapping[str, float],
    seed: int,
) -> list[str]:
    """Draw a split for each image; all images of a group get the same one.

    Each split gets each class where there are as many groups of it as splits; where there are
    fewer, train comes first, then test.

    Args:
        labels: Class of each image for each task; empty where missing.
        groups: Patient or lesion of each image; an image without one is its own group.
        shares: The splits to draw, with their relative sizes.
        seed: The same images in the same order and the same seed give the same splits.
    """
    names = [("group", group) if group else ("image", str(i)) for i, group in enumerate(groups)]
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    units = np.array([places[name] for name in names], dtype=np.int64)
    columns = _class_columns(labels)
    scarce = np.array([value != "" for _, value in columns])
    codes = np.array(
        [[columns[task, value] for task, value in enumerate(row)] for row in labels],
        dtype=np.int64,
    )
    draw = _Draw(units, codes, scarce, shares)
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(places))
    sizes = np.bincount(units)
    for unit in order[np.argsort(-sizes[order], kind="stable")].tolist():
        draw.place(unit)
    drawn = [draw.names[split] for split in draw.split_of.tolist()]
    return [drawn[unit] for unit in units.tolist()]


def _class_columns(labels: Sequence[Sequence[str]]) -> dict[tuple[int, str], int]:
    """Return a column for each class of each task; that of missing labels is kept even too."""
    pairs = {(task, value) for row in labels for task, value in enumerate(row)}
    return {pair: place for place, pair in enumerate(sorted(pairs))}


class _Draw:
    """What each split holds so far, and what is still to be placed."""

    def __init__(
        self,
        units: Int[np.ndarray, " image"],
        codes: Int[np.ndarray, "image task"],
        scarce: np.ndarray,
        shares: Mapping[str, float],
    ) -> None:
        self.names = list(shares)
        share = np.array(list(shares.values()))
        self.scarce = scarce
        self.own = _own_columns(units, codes)
        self.split_of = np.full(len(self.own), -1)
        totals = np.bincount(codes.reshape(-1), minlength=len(scarce)).astype(np.float64)
        self.targets: Float[np.ndarray, "split column"] = np.outer(share / share.sum(), totals)
        self.held = np.zeros_like(self.targets)
        self.left = np.zeros(len(scarce), dtype=np.int64)  # groups of each class to be placed
        for columns, _ in self.own:
            self.left[columns] += 1
        # Who gets a class first where there are too few groups of it for every split.
        self.first = [name for name in ("train", "test", "val") if name in shares]

    def place(self, unit: int) -> None:
        """Put a group where the squared deviation from the targets, over them, grows least."""
        columns, counts = self.own[unit]
        held, targets = self.held[:, columns], self.targets[:, columns]
        growth = (counts * (2 * (held - targets) + counts) / targets).sum(axis=1)
        allowed = self._allowed(columns)
        chosen = min(allowed, key=lambda split: (growth[split], split))
        self.held[chosen, columns] += counts
        self.left[columns] -= 1
        self.split_of[unit] = chosen

    def _allowed(self, columns: Int[np.ndarray, " own"]) -> list[int]:
        """Return the splits that still lack a class of which just enough groups are left, else all."""
        everywhere = list(range(len(self.names)))
        needs: list[set[int]] = []
        for column in columns[self.scarce[columns]].tolist():
            lacking = [
                split for split in map(self.names.index, self.first) if not self.held[split, column]
            ]
            left = int(self.left[column])
            if lacking and left <= len(lacking):
                needs.append(set(lacking[:left]))
        if not needs:
            return everywhere
        return sorted(set.intersection(*needs) or set.union(*needs))


def _own_columns(
    units: Int[np.ndarray, " image"], codes: Int[np.ndarray, "image task"]
) -> list[tuple[Int[np.ndarray, " own"], Float[np.ndarray, " own"]]]:
    """For each group the class columns that it has images of, and how many."""
    rows: list[list[int]] = [[] for _ in range(int(units.max()) + 1)]
    for unit, own in zip(units.tolist(), codes.tolist(), strict=True):
        rows[unit] += own
    counted = [np.unique(np.array(own), return_counts=True) for own in rows]
    return [(columns, counts.astype(np.float64)) for columns, counts in counted]
