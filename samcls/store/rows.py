"""Rows of a store: what is known of its images beforehand, and what encoding some of them gave."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int, UInt8, UInt16

from samcls.errors import StoreError

__all__ = ["RowBatch", "RowTable"]


@dataclass(frozen=True)
class RowTable:
    """What a store knows of its images before any is encoded.

    Attributes:
        ids: One for each image, distinct.
        splits: `train`, `val` or `test`, one for each image; empty for an image that was removed.
        groups: Patient or lesion, one for each image; empty where there is none.
        tasks: Name of each label task and its class names, in the order of their indices.
        labels: Class index for each image and task; -1 where the label is missing.
        meta: Texts that training never sees, one for each image, by column.
        ordinal: Tasks whose classes are steps of one scale.
    """

    ids: Sequence[str]
    splits: Sequence[str]
    groups: Sequence[str]
    tasks: Mapping[str, tuple[str, ...]]
    labels: Int[np.ndarray, "image task"]
    meta: Mapping[str, Sequence[str]] = field(default_factory=dict)
    ordinal: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Refuse columns of different lengths.

        Raises:
            StoreError: the columns differ in length, or labels have another number of tasks.
        """
        lengths = {len(self.ids), len(self.splits), len(self.groups), len(self.labels)}
        lengths |= {len(column) for column in self.meta.values()}
        if len(lengths) != 1 or self.labels.shape[1] != len(self.tasks):
            raise StoreError(
                f"got {len(self.ids)} ids, {len(self.splits)} splits, {len(self.groups)} groups and "
                f"labels of shape {self.labels.shape} for {len(self.tasks)} tasks; expected one row "
                "for each image and one column for each task"
            )


@dataclass(frozen=True)
class RowBatch:
    """Results for some rows, ready to be written.

    Attributes:
        rows: Row numbers, ascending.
        features: For each level, (image, view, channel, row, col), and where the store keeps images
            `pixels`, (image, row, col, 3); rows that failed hold zeros.
        valid: Height and width, in encoder-input pixels, that show picture.
        sha256: Of the decoded pixels, 32 bytes an image.
        status: DONE or FAILED.
        error: Reason for each failed row, empty otherwise.
        reused: How many of the rows have the features that another store had of the same picture.
    """

    rows: Int[np.ndarray, " image"]
    features: Mapping[str, np.ndarray]
    valid: UInt16[np.ndarray, "image 2"]
    sha256: UInt8[np.ndarray, "image 32"]
    status: UInt8[np.ndarray, " image"]
    error: Sequence[str]
    reused: int = 0

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    @staticmethod
    def concatenate(batches: Sequence["RowBatch"]) -> "RowBatch":
        """Join batches of ascending rows into one."""
        return RowBatch(
            rows=np.concatenate([batch.rows for batch in batches]),
            features={
                level: np.concatenate([batch.features[level] for batch in batches])
                for level in batches[0].features
            },
            valid=np.concatenate([batch.valid for batch in batches]),
            sha256=np.concatenate([batch.sha256 for batch in batches]),
            status=np.concatenate([batch.status for batch in batches]),
            error=[reason for batch in batches for reason in batch.error],
            reused=sum(batch.reused for batch in batches),
        )

    def runs(self) -> Iterator[tuple[slice, slice]]:
        """Yield stretches of consecutive rows, as (rows in the store, positions in this batch)."""
        if not len(self.rows):
            return
        breaks = np.flatnonzero(np.diff(self.rows) != 1) + 1
        for part in np.split(np.arange(len(self)), breaks):
            first, last = int(part[0]), int(part[-1])
            rows = slice(int(self.rows[first]), int(self.rows[last]) + 1)
            yield rows, slice(first, last + 1)
