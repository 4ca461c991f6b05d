"""The feature store: create, open, read and write one Zarr v3 group.

Rows follow the manifest's order. A row's `status` becomes 1 (done) only after its features are on the
disk, so an interrupted extract resumes where it stopped. Writes replace whole shard files atomically
and durably; reading is `StoreReader`'s.

    store = FeatureStore.open("features.zarr")
    store.read("neck", slice(0, 8))          # (8, view, channel, row, col) float16
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from samcls.errors import FingerprintMismatch, StoreError
from samcls.store.creation import create_store
from samcls.store.following import TableFollower
from samcls.store.keys import Keys
from samcls.store.layout import DEFAULT_CODEC
from samcls.store.lazy import dataset, lazy_level
from samcls.store.lock import Claim
from samcls.store.opening import Found, look, require_store, require_version
from samcls.store.reader import Rows
from samcls.store.rows import RowBatch, RowTable
from samcls.store.schema import DONE, FAILED, PENDING, REMOVED, Fingerprint, LevelShape, Partition
from samcls.store.tables import TableChange

if TYPE_CHECKING:
    import dask.array
    import xarray

__all__ = ["FeatureStore", "RowBatch", "RowTable", "Rows", "TableChange"]


class FeatureStore(TableFollower):
    """Cached feature maps of one data set under one encoder.

    Make one with `create` or `open`. Reading is safe from several threads; one process writes, and
    holds the store's `writer_lock` meanwhile.

    A path is a local folder or any URL that fsspec opens and Zarr can list. An endpoint and
    credentials come from fsspec's and the service's own settings: for S3 `AWS_ENDPOINT_URL`,
    `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, or `FSSPEC_S3_ENDPOINT_URL` and its like, or a
    file in `~/.config/fsspec`. Remote stores are read with zarr-python's own pipeline, their writes
    are as durable as the service makes them, and no lock guards them: run one writer.
    """

    def __repr__(self) -> str:
        """Return what it holds and what made it, as far as it can be read."""
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
            path: Local path or any URL that Zarr opens.
            fingerprint: What the features will be.
            levels: Shape of each level's pooled map, in the fingerprint's order.
            table: The images.
            codec: One of `layout.CODECS`; all are lossless.
            partition: Rows in a chunk and in a shard; sized in bytes by default.
            claim: Of the writer's lock, checked before each write from here on.
            pixels: Side of the images that are kept beside the features; 0 keeps none.
            checkpoint: What the encoder says of the file that its weights came from, if any.

        Raises:
            OverwriteRefused: something other than an unfinished creation is there.
            StoreError: the levels are not the fingerprint's, the codec is unknown, or there are no
                rows.
            RunError: the disk is full or refuses the write.
        """
        create_store(
            str(path), fingerprint, levels, table, codec, partition, claim, pixels, checkpoint
        )
        return cls.open(path, mode="r+", claim=claim)

    @classmethod
    def open(
        cls, path: str | Path, mode: Literal["r", "r+"] = "r", claim: Claim | None = None
    ) -> "FeatureStore":
        """Open a store that is there.

        Args:
            path: Local path or any URL that Zarr opens.
            mode: `r` to read, `r+` to write too.
            claim: Of the writer's lock, checked before each write.

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

    def to_dask(self, level: str) -> "dask.array.Array":
        """Return a level as a lazy Dask array of shape (image, view, channel, row, col).

        One Dask chunk is one shard, read as by `read` and with its errors.

        Raises:
            StoreError: the level is not in the store.
        """
        self._features(level)
        return lazy_level(self, level, FeatureStore.open)

    def to_xarray(self) -> "xarray.Dataset":
        """Return every level lazily, with id, split and status as coordinates of `image`.

        A level's dimensions are (image, view, channel_<level>, row_<level>, col_<level>): levels
        differ in size. `view` has the views' names as its coordinate.

        Raises:
            StoreError: xarray is not installed.
        """
        return dataset(self, FeatureStore.open)
