"""A store's table follows a manifest that changes: labels, splits and groups anew, new rows at the end.

Features are not touched. While the table is rewritten the store carries a mark, and one that still
carries it refuses to be read until the update is done again.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import zarr

from samcls.errors import StoreError
from samcls.store.columns import configured, if_present, open_array
from samcls.store.layout import COLUMNS, META, RESULTS, array_paths, create_meta
from samcls.store.metadata import UPDATING, describe_arrays, resize_array, write_attributes
from samcls.store.row_writer import RowWriter
from samcls.store.rows import RowTable
from samcls.store.schema import REMOVED
from samcls.store.tables import (
    NO_SPLIT,
    TableChange,
    changed_beside,
    changed_columns,
    changed_tasks,
    compare_ids,
    merge_tables,
    table_attributes,
)

__all__ = ["TableFollower"]


class TableFollower(RowWriter):
    """A feature store whose table can be compared with another, and follow it."""

    def compare_table(self, table: RowTable) -> TableChange:
        """Say how a table differs from the store's own."""
        own = {"splits": self.splits, "groups": self.groups}
        change, places = compare_ids(self.ids, own["splits"], table)
        labels = np.full((len(places), len(self.tasks)), -2, dtype=np.int16)
        if not self._metadata.updating:  # while they are rewritten they differ from any
            labels = self.labels
        columns = changed_columns(places, own, labels, self.tasks, table)
        # the columns beside are made anew while the table is rewritten, and may be gone meanwhile
        meta = {} if self._metadata.updating else self.meta
        columns += changed_beside(places, meta, self.ordinal, table)
        return replace(change, columns=columns, tasks=changed_tasks(self.tasks, table.tasks))

    def update_table(self, table: RowTable, *, keep: bool = False) -> TableChange:
        """Take over changed labels, splits, groups and tasks, and append new rows as pending.

        Features are not touched. While it runs the store carries a mark, and a store that still
        carries it refuses to be read until the update is done again.

        Args:
            table: Its first ids are the store's own, in the store's order, unless rows are kept.
            keep: Rows that the table lacks stay as removed ones, which no stage uses until a table
                has them again, and the store keeps its own order.

        Returns:
            What differed.

        Raises:
            StoreError: ids are gone or stand in other rows, or the store was opened for reading.
            RunError: the disk is full or refuses the write.
        """
        self._require_mode()
        change = self.compare_table(table)
        if not (change.fits or keep):
            raise StoreError(
                f"the store {self.path} cannot follow its new manifest: {change}. Rows can be added at "
                "the end, and labels, splits and groups can change. Otherwise put the old rows back, or "
                "give --removed keep (rows that are gone stay, unused, and the store keeps its "
                f"order), or extract into another store with --reuse {self.path} (nothing that it "
                "holds is encoded again)"
            )
        if not change.any and not self._metadata.updating:
            return change
        merged = merge_tables(self.ids, table)
        lasting = array_paths(self.fingerprint, self.pixel_size)
        arrays = {name: self._described(name) for name in lasting}
        with self._changing_columns():
            if not self._metadata.updating:
                mark = {**self._attributes, UPDATING: {"images": self._kept_rows}}
                all_arrays = {name: self._described(name) for name in self.array_paths}
                self._metadata = write_attributes(self._keys, mark, all_arrays)
            self._rewrite_table(merged)
            grown = {
                name: {**entry, "shape": list(self._array(name).shape)}
                for name, entry in arrays.items()
            }
            if merged.meta:
                grown |= describe_arrays(self._keys, [META])
            own = ("tasks", "meta", "ordinal", UPDATING)
            attributes = {k: v for k, v in self._attributes.items() if k not in own}
            self._metadata = write_attributes(
                self._keys, attributes | table_attributes(merged), grown
            )
        self.__dict__.pop("tasks", None)
        return change

    def _described(self, name: str) -> dict[str, Any]:
        """Return what the metadata of an array are known to be, checked on the way."""
        self._array(name)
        known: dict[str, Any] | None = self._metadata.arrays.get(name)
        return known or describe_arrays(self._keys, [name])[name]

    def _rewrite_table(self, table: RowTable) -> None:
        images, kept = len(table.ids), self._kept_rows
        results: dict[str, np.ndarray] = {}
        for name in RESULTS:
            with self._reading(name):
                results[name] = np.asarray(self._array(name)[:kept])
        for name in array_paths(self.fingerprint, self.pixel_size):
            own = self._array(name).shape
            tail = (len(table.tasks),) if name == "label" else own[1:]
            resize_array(self._keys, name, (images, *tail))
        self._arrays.clear()
        for name, values in zip(COLUMNS, (table.ids, table.splits, table.groups), strict=False):
            self._replace(name, np.array(list(values), dtype=object))
        self._replace("label", np.asarray(table.labels))
        self._replace_meta(table)
        present = if_present(results["status"], results["error"], results["sha256"])
        for name, held in {**results, "status": present}.items():
            array = self._array(name)
            whole = np.full(array.shape, array.fill_value, array.dtype)
            whole[:kept] = held
            if name == "status":
                whole[[split == NO_SPLIT for split in table.splits]] = REMOVED
            if images > kept or not np.array_equal(whole, results[name]):
                self._replace(name, whole)

    def _replace_meta(self, table: RowTable) -> None:
        """Make the columns beside the labels anew: there may be others, or none."""
        self._keys.delete_folder(META)
        if table.meta:
            with configured():
                group = zarr.open_group(self._keys.store, mode="a", zarr_format=3)
                values = create_meta(group, table)
            open_array(self._keys, META, self._store_id, replacing=True)[:] = values
