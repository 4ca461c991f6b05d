"""Write rows, marks and whole columns of a feature store that is open for writing.

A row's `status` becomes 1 (done) only after its features are on the disk, so an interrupted extract
resumes where it stopped. Whole shard files are replaced atomically and durably, and before each write
it is made sure that the lock is still held.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
from jaxtyping import Int, Shaped

from samcls.errors import StoreError
from samcls.store.columns import open_array
from samcls.store.keys import Keys
from samcls.store.lock import Claim
from samcls.store.opening import writing
from samcls.store.reader import StoreReader
from samcls.store.rows import RowBatch
from samcls.store.schema import DONE, PENDING, PIXELS, REMOVED, rounded

__all__ = ["RowWriter"]


class RowWriter(StoreReader):
    """The writing half of a feature store, but for its table."""

    def __init__(
        self,
        path: str,
        keys: Keys,
        mode: Literal["r", "r+"],
        claim: Claim | None = None,
    ) -> None:
        super().__init__(path, keys, mode)
        self._claim = claim

    def write(self, batch: RowBatch) -> None:
        """Write rows: features first, their marks last, each on the disk before the next.

        Raises:
            StoreError: the store was opened for reading, or a chunk to be completed is damaged.
            RunError: the disk is full or refuses the write; the rows stay as they were marked.
        """
        self.write_features(batch)
        self.write_marks(batch)

    def write_features(self, batch: RowBatch) -> None:
        """Write rows' features alone; safe from several processes that share no shard.

        Raises:
            As `write`.
        """
        self._require_writable()
        with writing(self.path, self._claim), self._reading("what is there"):
            for level, values in batch.features.items():
                array = self._features(level)  # before its neighbours: it may not be there
                self._require_neighbours(level, batch.rows)
                kept = values if level == PIXELS else self._rounded(values)
                for rows, part in batch.runs():
                    array[rows] = kept[part]

    def write_marks(self, batch: RowBatch) -> None:
        """Write what else is known of rows, their status last; one process at a time.

        Raises:
            As `write`.
        """
        self._require_writable()
        error = np.array(list(batch.error), dtype=object)
        with self._changing_columns(), self._reading("what is there"):
            for rows, part in batch.runs():
                self._array("valid")[rows] = batch.valid[part]
                self._array("sha256")[rows] = batch.sha256[part]
                self._array("error")[rows] = error[part]
            for rows, part in batch.runs():
                self._array("status")[rows] = batch.status[part]

    def mark_pending(self, rows: Int[np.ndarray, " image"]) -> None:
        """Have rows encoded again by the next extract; removed ones are only said to hold nothing.

        Raises:
            StoreError: the store was opened for reading.
            RunError: the disk is full or refuses the write.
        """
        self._require_writable()
        status, digests = self.readable_status(), self.read_column("sha256")[0]
        status[rows] = np.where(status[rows] == REMOVED, REMOVED, PENDING)
        digests[rows] = 0  # or a lost mark, or a removed row that returns, would pass for done
        with self._changing_columns():
            self._replace("status", status)
            self._replace("sha256", digests)

    def write_level(self, level: str, rows: slice, values: Shaped[np.ndarray, "image ..."]) -> None:
        """Write one of `payloads` alone, leaving marks as they are; for repair.

        Raises:
            StoreError: the store was opened for reading, or a chunk to be completed is damaged.
            RunError: the disk is full or refuses the write.
        """
        self._require_writable()
        with writing(self.path, self._claim), self._reading(level):
            self._features(level)[rows] = values

    def rewrite_column(self, name: str, values: np.ndarray) -> None:
        """Replace a whole per-image array, whatever state it is in; for repair.

        Raises:
            StoreError: the store was opened for reading.
            RunError: the disk is full or refuses the write.
        """
        self._require_writable()
        with self._changing_columns():
            self._replace(name, values)

    @contextmanager
    def _changing_columns(self) -> Iterator[None]:
        """Write columns; what was read of them before holds no more, however it ends."""
        try:
            with writing(self.path, self._claim):
                yield
        finally:
            self._forget()

    def _replace(self, name: str, values: np.ndarray) -> None:
        """Write a whole per-image array without reading what is there, which may be damaged."""
        self._array(name)  # whose metadata may be damaged too
        open_array(self._keys, name, self._store_id, replacing=True)[:] = values

    def _rounded(self, values: np.ndarray) -> np.ndarray:
        """Round to the bits that the fingerprint keeps, so that any reader sees plain numbers."""
        made = self.fingerprint
        return values if made.keep_bits is None else rounded(values, made.storage, made.keep_bits)

    def _require_neighbours(self, level: str, rows: Int[np.ndarray, " image"]) -> None:
        """Refuse to complete a chunk that is lost: the rows beside the given ones would become zeros."""
        height = self.partition.chunk_rows
        first = np.unique(rows // height) * height
        near = (first[:, None] + np.arange(height)).reshape(-1)
        beside = np.setdiff1d(near[near < len(self)], rows)
        if len(beside):
            beside = beside[self.status[beside] == DONE]
            self.refuse_lost(level, beside[~self._held(level, beside)])

    def require_claim(self) -> None:
        """Make sure that the lock under which the store was opened is still held.

        Raises:
            RunError: another process has taken it over; nothing more may be written.
        """
        if self._claim is not None:
            self._claim.check()

    def _require_mode(self) -> None:
        if self.mode != "r+":
            raise StoreError(f"{self.path} was opened for reading; open it with mode='r+' to write")

    def _require_writable(self) -> None:
        self._require_mode()
        if self._metadata.updating:
            raise StoreError(
                f"rewriting the labels and splits of {self.path} was cut off; call update_table first"
            )
