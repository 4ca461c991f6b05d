"""Stage one: a manifest's images through the frozen encoder into the feature store, resumably.

An interrupted and resumed extract gives the arrays of an uninterrupted one, bit for bit on a CPU. A bad
image costs its own row. `samcls bench encoder` shows how much of the time is the encoder's own.

    summary = extract(read_manifest("manifest.csv"), "features.zarr", ExtractOptions(encoder="vit_t"))
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, UInt8

from samcls.data.images import PREPROCESSING_VERSION
from samcls.data.leaks import Leaks, refuse_divided_groups
from samcls.data.manifest import Manifest
from samcls.encode.base import Encoder
from samcls.encode.changes import follow_images, in_store_order, leaks_in, table_of
from samcls.encode.coarse import coarse_levels
from samcls.encode.distributed import client_for, encode_shards
from samcls.encode.encoders import default_batch, open_encoder
from samcls.encode.options import ExtractOptions
from samcls.encode.pipeline import Pipeline
from samcls.encode.reuse import Donors, open_donors
from samcls.encode.weights import is_absent
from samcls.errors import ConfigError, StoreError
from samcls.store.feature_store import FeatureStore, RowBatch, RowTable
from samcls.store.lock import Claim, writer_lock
from samcls.store.schema import DONE, FAILED, REMOVED, Fingerprint, LevelShape, Partition
from samcls.store.swap import finish_rewrite
from samcls.store.writer import ShardWriter
from samcls.views import view_names

__all__ = [
    "ExtractOptions",
    "ExtractSummary",
    "Progress",
    "extract",
    "fingerprint_of",
    "pooled_shape",
]

Progress = Callable[[int, int, int, int], None]
Log = Callable[[str], None]


@dataclass(frozen=True)
class ExtractSummary:
    """What an extract did.

    Attributes:
        store: Path or URL.
        images: Rows in the store.
        done: Rows that hold features.
        failed: Rows whose image could not be used.
        reused: Rows done now whose features another store had.
        skipped: Rows that were done before.
        removed: Rows that stay in the store though the manifest has them no more.
        seconds: Wall time, loading the encoder included.
        images_per_second: Of the rows encoded now, from the first batch on.
        bytes: Of the whole store where it lies.
        failures: (id, reason) for each failed row.
        leaks: Groups and pictures in several splits, as `data.leaks` finds them among done rows.
        checkpoint: The file that the weights came from, and whether it is official; empty where there
            is none.
        coarse_channels: Of each level, how many channels keep fewer than 64 rounding steps of the
            storage type a standard deviation.
    """

    store: str
    images: int
    done: int
    failed: int
    skipped: int
    removed: int
    seconds: float
    images_per_second: float
    bytes: int
    failures: tuple[tuple[str, str], ...]
    leaks: Leaks
    reused: int = 0
    checkpoint: Mapping[str, str | None] = field(default_factory=dict)
    coarse_channels: Mapping[str, int] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Return what was done, and the first images that failed."""
        first = (
            f"ExtractSummary of {self.store}: {self.done} of {self.images} images done "
            f"({self.skipped} before), {self.failed} failed"
        )
        speed = f"{self.seconds:.1f} s, {self.images_per_second:.2f} images/s"
        lines = [first, f"  {self.bytes / 1e6:.1f} MB, {speed}"]
        lines += [f"  failed: {image}: {reason}" for image, reason in self.failures[:3]]
        lines += ["  ..."] if len(self.failures) > 3 else []
        return "\n".join([*lines, *(f"  warning: {leak}" for leak in self.leaks.pictures())])


def extract(
    manifest: Manifest,
    store_path: str | Path,
    options: ExtractOptions,
    progress: Progress | None = None,
    log: Log = lambda _: None,
    *,
    allow_leak: bool = False,
) -> ExtractSummary:
    """Encode every image that is not done yet.

    Args:
        manifest: Read with `read_manifest`.
        store_path: A new store, or one made from this manifest with these options.
        options: How images become features.
        progress: Called with (rows finished, rows in all, rows failed, feature bytes so far).
        log: Called with a sentence on anything that a user should know.
        allow_leak: Whether a group may lie in several splits.

    Raises:
        ManifestError: a group lies in several splits.
        ConfigError: the options cannot be.
        WeightsError: the checkpoint cannot be used.
        FingerprintMismatch: the store was made with other options.
        StoreError: rows of the store are gone from the manifest or stand elsewhere, or another process
            is writing.
        RunError: images that are done have changed and are to be reported, or the disk is full.
    """
    if not allow_leak:
        refuse_divided_groups(manifest)
    with writer_lock(store_path, log) as claim:
        return _extract(manifest, str(store_path), options, progress or _silent, log, claim)


def _extract(
    manifest: Manifest,
    path: str,
    options: ExtractOptions,
    counted: Progress,
    log: Log,
    claim: Claim,
) -> ExtractSummary:
    begun = time.monotonic()
    finish_rewrite(path)
    there = FeatureStore.exists(path)  # a damaged store is refused before a checkpoint is loaded
    made_before = path if there or not options.reuse else options.reuse[0]
    if not (options.checkpoint or options.random_weights) and is_absent(options.encoder):
        from samcls.encode.plan import refuse_absent  # which loads what encoders of every kind need

        refuse_absent(options, len(manifest))
    encoder = open_encoder(options, made_before, log)
    fingerprint = fingerprint_of(encoder, options)
    donors = open_donors(options.reuse, path, fingerprint)
    store = _open_or_create(manifest, path, encoder, fingerprint, options, log, claim)
    manifest = in_store_order(manifest, store)
    if options.changed != "ignore":
        follow_images(manifest, store, encode=options.changed == "encode", log=log)
    before = store.status
    first_batch = time.monotonic()
    todo = np.flatnonzero((before != DONE) & (before != REMOVED))
    done, failed, reused = len(before) - len(todo), 0, 0
    row_bytes = store.payload_bytes // len(store)

    def count(batch: RowBatch) -> None:
        nonlocal done, failed, reused
        done += len(batch)
        failed += int((batch.status == FAILED).sum())
        reused += batch.reused
        counted(done, len(before), failed, done * row_bytes)

    counted(done, len(before), failed, done * row_bytes)
    settled = replace(
        options,
        batch=options.batch or default_batch(encoder),
        precision=encoder.precision,
        keep_pixels=store.pixel_size or None,
    )
    if not len(todo):
        pass
    elif options.workers > 1 or options.dask:
        _run_on_cluster(manifest, store, todo, settled, count, claim, log)
    else:
        _run_here(manifest, store, todo, encoder, donors, settled, count, log)
    summary = _summary(store, before, begun, first_batch)
    return replace(summary, reused=reused, coarse_channels=_coarse(store, log))


def _coarse(store: FeatureStore, log: Log) -> dict[str, int]:
    """Count the channels that storage rounds too coarsely, and say so."""
    try:
        levels = coarse_levels(store)
    except StoreError as error:  # damage to rows that were done before is not this extract's
        log(f"whether storage rounds channels too coarsely cannot be judged: {error}")
        return {}
    made = store.fingerprint
    for level in levels:
        if level.coarse:
            log(f"warning: {level.sentence(made.storage, made.keep_bits)}")
    return {level.level: level.coarse for level in levels}


def _run_here(
    manifest: Manifest,
    store: FeatureStore,
    todo: Int[np.ndarray, " image"],
    encoder: Encoder,
    donors: Donors,
    options: ExtractOptions,
    count: Callable[[RowBatch], None],
    log: Log,
) -> None:
    finished = donors.rows() | _finished(store)
    pipeline = Pipeline(manifest.rows, encoder, options, log, proven=bool(finished))
    with ShardWriter(store, options.flush_seconds) as writer:

        def recall(row: int) -> dict[str, np.ndarray]:
            return donors.features(row) if row < 0 else writer.features(row)

        for batch in pipeline.run(todo, finished, recall):
            writer.add(batch)
            count(batch)


def _run_on_cluster(
    manifest: Manifest,
    store: FeatureStore,
    todo: Int[np.ndarray, " image"],
    options: ExtractOptions,
    count: Callable[[RowBatch], None],
    claim: Claim,
    log: Log,
) -> None:
    threads = 0 if options.dask else max(1, torch.get_num_threads() // options.workers)
    with client_for(options.workers, options.dask, log) as client:
        encode_shards(client, manifest, store, todo, options, threads, count, claim)


def _finished(store: FeatureStore) -> dict[bytes, int]:
    """Return the row of each pixel hash that is done."""
    digests = store.sha256
    return {digests[row].tobytes(): int(row) for row in np.flatnonzero(store.status == DONE)[::-1]}


def _silent(finished: int, total: int, failed: int, written: int) -> None:
    """Report nothing."""


def fingerprint_of(encoder: Encoder, options: ExtractOptions) -> Fingerprint:
    """Return what decides the features that an encoder and options give."""
    return Fingerprint(
        encoder=options.encoder,
        checkpoint_sha256=encoder.weights_sha256,
        input_size=encoder.input_size,
        resize=options.resize,
        mean=encoder.pixel_mean,
        std=encoder.pixel_std,
        levels=encoder.levels,
        window=options.window,
        views=view_names(options.views),
        storage=options.storage,
        precision=encoder.precision,
        preprocessing=PREPROCESSING_VERSION,
        keep_bits=options.keep_bits,
    )


def _open_or_create(
    manifest: Manifest,
    path: str,
    encoder: Encoder,
    fingerprint: Fingerprint,
    options: ExtractOptions,
    log: Log,
    claim: Claim,
) -> FeatureStore:
    table = table_of(manifest)
    if FeatureStore.exists(path):
        store = FeatureStore.open(path, mode="r+", claim=claim)
        store.require(fingerprint)
        _require_pixels(store, options.keep_pixels)
        store.check_columns()
        _follow_table(store, table, options.removed, log)
        return store
    levels = {name: pooled_shape(encoder, name, options.window) for name in encoder.levels}
    partition = None
    if options.workers > 1 or options.dask:  # some shards for each worker, however few the images
        most = max(1, len(manifest) // (4 * max(options.workers, 2)))
        views = len(fingerprint.views)
        partition = Partition.for_levels(
            levels, views, fingerprint.storage, most, options.keep_pixels or 0
        )
    return FeatureStore.create(
        path,
        fingerprint,
        levels,
        table,
        partition=partition,
        claim=claim,
        pixels=options.keep_pixels or 0,
        checkpoint=encoder.source,
    )


def _require_pixels(store: FeatureStore, asked: int | None) -> None:
    """Let a store keep what it keeps: going on needs no --keep-pixels, and no other one."""
    if asked is not None and asked != store.pixel_size:
        kept = f"images of {store.pixel_size} pixels" if store.pixel_size else "no images"
        raise ConfigError(
            f"--keep-pixels is {asked}, and {store.path} keeps {kept}; leave it out to go on with the "
            "store as it is, or extract into another one"
        )


def _follow_table(store: FeatureStore, table: RowTable, removed: str, log: Log) -> None:
    """Make a store's rows the manifest's, as far as the user lets it."""
    change = store.compare_table(table)
    if change.any and (change.fits or removed != "refuse"):
        log(f"{store.path} follows its manifest: {change}")
    store.update_table(table, keep=removed == "keep")


def pooled_shape(encoder: Encoder, level: str, window: int) -> LevelShape:
    """Return the shape of a level's map once it is pooled."""
    whole = encoder.shape(level)
    rows, cols = -(-whole.rows // window), -(-whole.cols // window)
    return LevelShape(whole.channels, rows, cols, whole.patch)


def _summary(
    store: FeatureStore, before: UInt8[np.ndarray, " image"], begun: float, first_batch: float
) -> ExtractSummary:
    now = time.monotonic()
    status = store.status
    encoded = int(((status != before) & (status == DONE)).sum())
    ids, errors = store.ids, store.errors
    return ExtractSummary(
        store=store.path,
        images=len(status),
        done=int((status == DONE).sum()),
        failed=int((status == FAILED).sum()),
        skipped=int((before == DONE).sum()),
        removed=int((status == REMOVED).sum()),
        seconds=now - begun,
        images_per_second=encoded / (now - first_batch),
        bytes=store.stored_bytes,
        failures=tuple((ids[r], errors[r]) for r in np.flatnonzero(status == FAILED)),
        leaks=leaks_in(store),
        checkpoint=store.checkpoint,
    )
