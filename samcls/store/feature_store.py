"""The feature store: create, open, read and write one Zarr v3 group.

Rows follow the manifest's order. A row's `status` becomes 1 (done) only after its features are on the
disk, so an interrupted extract resumes where it stopped. Writes replace whole shard files atomically
and durably; reading is `StoreReader`'s.

    store = FeatureStore.open("features.zarr")
    store.read("neck", slice(0, 8))          # (8, view, channel, row, col) float16
"""

import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from jaxtyping import Int, Shaped
from numcodecs import BitRound

from samcls.errors import FingerprintMismatch, StoreError
from samcls.store.columns import configured, if_present, open_array
from samcls.store.keys import Keys, local_path
from samcls.store.layout import (
    COLUMNS,
    DEFAULT_CODEC,
    META,
    RESULTS,
    array_paths,
    create_arrays,
    create_meta,
    row_arrays,
)
from samcls.store.lock import Claim
from samcls.store.metadata import (
    CREATED_BY,
    MARK,
    ROOT,
    STORE_ID,
    UPDATING,
    describe_arrays,
    resize_array,
    write_attributes,
)
from samcls.store.opening import (
    Found,
    look,
    refuse_other_contents,
    require_store,
    require_version,
    writing,
)
from samcls.store.reader import Rows, StoreReader
from samcls.store.rows import RowBatch, RowTable
from samcls.store.schema import (
    CHECKPOINT,
    DONE,
    FAILED,
    FORMAT_VERSION,
    PENDING,
    PIXELS,
    REMOVED,
    Fingerprint,
    LevelShape,
    Partition,
)
from samcls.store.swap import swapped_in
from samcls.store.tables import (
    NO_SPLIT,
    TableChange,
    changed_beside,
    changed_columns,
    changed_tasks,
    compare_ids,
    merge_tables,
)

__all__ = ["FeatureStore", "RowBatch", "RowTable", "Rows", "TableChange"]


class FeatureStore(StoreReader):
    """Cached feature maps of one data set under one encoder.

    Make one with `create` or `open`. Reading is safe from several threads; one process writes, and
    holds the store's `writer_lock` meanwhile.

    A path is a local folder or any URL that fsspec opens and Zarr can list. An endpoint and
    credentials come from fsspec's and the service's own settings: for S3 `AWS_ENDPOINT_URL`,
    `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, or `FSSPEC_S3_ENDPOINT_URL` and its like, or a
    file in `~/.config/fsspec`. Remote stores are read with zarr-python's own pipeline, their writes
    are as durable as the service makes them, and no lock guards them: run one writer.
    """

    def __init__(
        self,
        path: str,
        keys: Keys,
        mode: Literal["r", "r+"],
        claim: Claim | None = None,
    ) -> None:
        super().__init__(path, keys, mode)
        self._claim = claim

    def __repr__(self) -> str:
        """What it holds and what made it, as far as it can be read."""
        made = self.fingerprint
        views = f", {len(made.views)} views" if len(made.views) > 1 else ""
        lines = [f"FeatureStore {self.path}: encoder {made.encoder}, input {made.input_size} px"]
        try:
            status = self.status
            counts = {"done": DONE, "failed": FAILED, "pending": PENDING, "removed": REMOVED}
            numbers = {name: int((status == code).sum()) for name, code in counts.items()}
            held = ", ".join(f"{n} {name}" for name, n in numbers.items() if n)
            shapes = (f"{n} {s.channels} x {s.rows} x {s.cols}" for n, s in self.levels.items())
            lines.append(f"  images: {held}")
            lines.append(
                f"  levels: {', '.join(shapes)}; window {made.window}{views}, {made.storage}"
            )
            lines += [f"  label {task}: {', '.join(names)}" for task, names in self.tasks.items()]
        except StoreError as error:
            lines.append(f"  cannot be read: {error}")
        return "\n".join([*lines, *([f"  pixels: {self.pixel_size}"] if self.pixel_size else [])])

    # -- making and opening ---------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        path: str | Path,
        fingerprint: Fingerprint,
        levels: Mapping[str, LevelShape],
        table: RowTable,
        codec: str = DEFAULT_CODEC,
        partition: Partition | None = None,
        claim: Claim | None = None,
        pixels: int = 0,
        checkpoint: Mapping[str, str | None] | None = None,
    ) -> "FeatureStore":
        """Make an empty store, every row pending.

        A local one is made beside its place and moved there when it is whole; of one at a URL the
        attributes are written last. A creation that was cut off is made anew.

        Args:
            path: local path or any URL that Zarr opens.
            fingerprint: what the features will be.
            levels: shape of each level's pooled map, in the fingerprint's order.
            table: the images.
            codec: one of `layout.CODECS`; all are lossless.
            partition: rows in a chunk and in a shard; sized in bytes by default.
            claim: of the writer's lock, checked before each write from here on.
            pixels: side of the images that are kept beside the features; 0 keeps none.
            checkpoint: what the encoder says of the file that its weights came from, if any.

        Raises:
            OverwriteRefused: something other than an unfinished creation is there.
            StoreError: the levels are not the fingerprint's, the codec is unknown, or there are no
                rows.
            RunError: the disk is full or refuses the write.
        """
        path = str(path)
        if tuple(levels) != fingerprint.levels:
            raise StoreError(
                f"got shapes for levels {tuple(levels)}; expected {fingerprint.levels}"
            )
        if not table.ids:
            raise StoreError("a store needs at least one row; the manifest has none")
        Keys.of(path, read_only=False)  # a URL that cannot be written is said first
        refuse_other_contents(path)
        attributes: dict[str, Any] = {
            CREATED_BY: MARK,
            "fingerprint": fingerprint.to_dict(),
            "format_version": FORMAT_VERSION,
            STORE_ID: uuid.uuid4().hex,
            **_of_table(table),
            **({PIXELS: pixels} if pixels else {}),
            **({CHECKPOINT: dict(checkpoint)} if checkpoint else {}),
        }

        def build(place: str | Path) -> None:
            keys = Keys.of(place, read_only=False)
            with writing(path, claim), configured():
                for key in keys.under(""):  # of a creation that was cut off
                    if key != ROOT:
                        keys.delete(key)
                group = zarr.open_group(
                    keys.store, mode="a", zarr_format=3, attributes={CREATED_BY: MARK}
                )
                create_arrays(group, fingerprint, levels, table, codec, partition, pixels)
            with writing(path, claim):
                for name, (_, _, values) in row_arrays(table).items():
                    open_array(keys, name, attributes[STORE_ID], replacing=True)[:] = values
                paths = array_paths(fingerprint, pixels, bool(table.meta))
                write_attributes(keys, attributes, describe_arrays(keys, paths))

        if local_path(path) is None:
            build(path)
        else:
            with swapped_in(path) as place:
                build(place)
        return cls.open(path, mode="r+", claim=claim)

    @classmethod
    def open(
        cls, path: str | Path, mode: Literal["r", "r+"] = "r", claim: Claim | None = None
    ) -> "FeatureStore":
        """Open a store that is there.

        Args:
            path: local path or any URL that Zarr opens.
            mode: `r` to read, `r+` to write too.
            claim: of the writer's lock, checked before each write.

        Raises:
            StoreError: nothing is there, or not a store, one of another format version, one whose
                metadata are damaged, or one whose table was being rewritten.
        """
        path = str(path)
        require_store(path)
        try:
            store = cls(path, Keys.of(path, read_only=mode == "r"), mode, claim)
        except ValueError as error:  # damaged, or gone, since it was looked at
            raise StoreError(f"{path} was changed while it was opened: {error}") from error
        require_version(path, store._attributes)
        if mode == "r" and store._metadata.updating:
            raise StoreError(
                f"the labels and splits of {path} were being rewritten when that was cut off; run "
                f"samcls extract MANIFEST {path} again to finish it"
            )
        return store

    @staticmethod
    def exists(path: str | Path) -> bool:
        """Say whether a finished creation is at the path.

        Raises:
            StoreError: a store is there whose metadata are damaged.
        """
        return look(path) is Found.STORE

    def require(self, fingerprint: Fingerprint) -> None:
        """Refuse to go on with other settings than the store's.

        Raises:
            FingerprintMismatch: with the differing fields side by side.
        """
        differing = self.fingerprint.differing(fingerprint)
        if differing:
            raise FingerprintMismatch(self.path, differing)

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
        with writing(self.path, self._claim), self._reading("what is there"):
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
        with writing(self.path, self._claim):
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
        with writing(self.path, self._claim):
            self._replace(name, values)

    def _replace(self, name: str, values: np.ndarray) -> None:
        """Write a whole per-image array without reading what is there, which may be damaged."""
        self._array(name)  # whose metadata may be damaged too
        open_array(self._keys, name, self._store_id, replacing=True)[:] = values

    # -- a table that changes -------------------------------------------------------------------

    def compare_table(self, table: RowTable) -> TableChange:
        """Say how a table differs from the store's own."""
        own = {"splits": self.splits, "groups": self.groups}
        change, places = compare_ids(self.kept_ids, own["splits"], table)
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
            table: its first ids are the store's own, in the store's order, unless rows are kept.
            keep: rows that the table lacks stay as removed ones, which no stage uses until a table
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
                "give --removed keep (rows that are gone stay, unused, and the store keeps its order) "
                "or --removed drop (the store is written anew without them, in the manifest's order; "
                "nothing is encoded again)"
            )
        if not change.any and not self._metadata.updating:
            return change
        merged = merge_tables(self.kept_ids, table)
        lasting = array_paths(self.fingerprint, self.pixel_size)
        arrays = {name: self._described(name) for name in lasting}
        with writing(self.path, self._claim):
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
            self._metadata = write_attributes(self._keys, attributes | _of_table(merged), grown)
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

    @property
    def kept_ids(self) -> list[str]:
        """Identifier of each row that holds results, wherever appending was cut off."""
        return self.ids

    def _rounded(self, values: np.ndarray) -> np.ndarray:
        """Round to the bits that the fingerprint keeps, so that any reader sees plain numbers."""
        bits = self.fingerprint.keep_bits
        if bits is None:
            return values
        flat = np.ascontiguousarray(values, dtype=self.fingerprint.storage)
        return np.asarray(BitRound(bits).encode(flat)).view(flat.dtype).reshape(flat.shape)

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


def _of_table(table: RowTable) -> dict[str, Any]:
    """Return the attributes that a table decides."""
    tasks = [{"name": name, "classes": list(classes)} for name, classes in table.tasks.items()]
    return {
        "tasks": tasks,
        **({"ordinal": list(table.ordinal)} if table.ordinal else {}),
        **({"meta": list(table.meta)} if table.meta else {}),
    }
