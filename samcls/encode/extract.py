"""Stage one: a manifest's images through the frozen encoder into the feature store, resumably.

Batches start at fixed rows and keep their shape wherever a run was cut, so an interrupted and resumed
extract gives the arrays of an uninterrupted one, bit for bit on a CPU. A bad image costs its own row.
Decoding runs in threads ahead of the encoder.

    summary = extract(read_manifest("manifest.csv"), "features.zarr", ExtractOptions(encoder="vit_t"))
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int, UInt8

from samcls.data.images import (
    PREPROCESSING_VERSION,
    Frame,
    make_frame,
    pixel_digest,
    read_image,
)
from samcls.data.manifest import Manifest, Row
from samcls.encode.base import Encoder
from samcls.encode.encoder import check_size, encoder_spec, load_encoder, parse_levels
from samcls.encode.pooling import pool_valid, valid_cells
from samcls.errors import ConfigError, ImageError, StoreError
from samcls.store.feature_store import FeatureStore, RowBatch, RowTable
from samcls.store.schema import DONE, FAILED, Fingerprint, LevelShape
from samcls.store.writer import ShardWriter

__all__ = ["ExtractOptions", "ExtractSummary", "extract"]

Progress = Callable[[int, int, int], None]

_DECODERS = 4  # threads; they wait on files and on Pillow, which releases the interpreter
_BATCHES_AHEAD = 2


@dataclass(frozen=True)
class ExtractOptions:
    """How images become features.

    Attributes:
        encoder: `vit_t`, `vit_b`, `vit_l` or `vit_h`.
        checkpoint: official SAM checkpoint; none for `vit_t`.
        levels: comma-separated names, or `all` for the five.
        window: side of the pooling window, in map cells; 1 keeps the whole map.
        size: side of the encoder input in pixels; the encoder's own by default.
        resize: `longest` keeps the aspect and pads; `stretch` does not.
        storage: `float16` or `float32`.
        device: `auto`, `cpu`, `cuda` or any name that torch knows.
        batch: images encoded together; chosen from the input size by default.
        flush_seconds: results are written at least this often while writing is cheap.
        seed: of `vit_t`'s untrained weights.
    """

    encoder: str = "vit_t"
    checkpoint: str | None = None
    levels: str = "all"
    window: int = 4
    size: int | None = None
    resize: Literal["longest", "stretch"] = "longest"
    storage: str = "float16"
    device: str = "auto"
    batch: int | None = None
    flush_seconds: float = 10.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse options that cannot be, before any file is touched.

        Raises:
            ConfigError: naming the option, what was got and what was expected.
        """
        parse_levels(self.levels, encoder_spec(self.encoder))
        if self.size is not None:
            check_size(self.size)
        side = (self.size or encoder_spec(self.encoder).input_size) // 16
        if not 1 <= self.window <= side:
            raise ConfigError(
                f"window is {self.window}; expected 1 to {side}, the side of the map at "
                f"{side * 16} pixels"
            )
        choices = {"resize": ("longest", "stretch"), "storage": ("float16", "float32")}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(
                    f"{name} is {getattr(self, name)!r}; expected {' or '.join(allowed)}"
                )
        if self.batch is not None and self.batch < 1:
            raise ConfigError(f"batch is {self.batch}; expected at least 1")


@dataclass(frozen=True)
class ExtractSummary:
    """What an extract did.

    Attributes:
        store: path or URL.
        images: rows in the store.
        done: rows that hold features.
        failed: rows whose image could not be used.
        skipped: rows that were done before.
        seconds: wall time, loading the encoder included.
        images_per_second: of the rows encoded now, from the first batch on.
        bytes: of the whole store where it lies.
        failures: (id, reason) for each failed row.
    """

    store: str
    images: int
    done: int
    failed: int
    skipped: int
    seconds: float
    images_per_second: float
    bytes: int
    failures: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _Decoded:
    """One image, ready for the encoder, or the reason why it is not."""

    frame: Frame | None
    sha256: bytes
    reason: str


def extract(
    manifest: Manifest,
    store_path: str | Path,
    options: ExtractOptions,
    progress: Progress | None = None,
) -> ExtractSummary:
    """Encode every image that is not done yet.

    Args:
        manifest: read with `read_manifest`.
        store_path: a new store, or one made from this manifest with these options.
        options: how images become features.
        progress: called with (rows finished, rows in all, rows failed).

    Raises:
        ConfigError: the options cannot be.
        WeightsError: the checkpoint cannot be used.
        FingerprintMismatch: the store was made with other options.
        StoreError: the store was made from another manifest.
    """
    begun = time.monotonic()
    device = _device(options.device)
    encoder = load_encoder(
        options.encoder,
        options.checkpoint,
        parse_levels(options.levels, encoder_spec(options.encoder)),
        options.size,
        options.seed,
    ).to(device)
    store = _open_or_create(manifest, str(store_path), encoder, options)
    before = store.status
    todo = np.flatnonzero(before != DONE)
    first_batch = time.monotonic()
    job = _Job(manifest, encoder, options)
    counted = progress or _silent
    with ShardWriter(store, options.flush_seconds) as writer:
        finished, failed = len(before) - len(todo), 0
        counted(finished, len(before), failed)
        for batch in job.run(todo):
            writer.add(batch)
            finished += len(batch)
            failed += int((batch.status == FAILED).sum())
            counted(finished, len(before), failed)
    return _summary(store, before, begun, first_batch)


def default_batch(encoder: Encoder) -> int:
    """Choose a batch by tokens, as a power of two: 8 for `vit_t` at 256 px, 1 for SAM at 1024 px."""
    tokens = (encoder.input_size // 16) ** 2
    wanted = 2048 if encoder.device.type == "cpu" else 32768
    return 1 << max(0, (wanted // tokens).bit_length() - 1)


class _Job:
    """Decode ahead, encode, pool: rows in, finished batches out."""

    def __init__(self, manifest: Manifest, encoder: Encoder, options: ExtractOptions) -> None:
        self._rows = manifest.rows
        self._encoder = encoder
        self._options = options
        self._batch = options.batch or default_batch(encoder)

    def run(self, todo: Int[np.ndarray, " image"]) -> Iterator[RowBatch]:
        """Yield finished rows in ascending batches."""
        starts = np.unique(todo // self._batch) * self._batch
        members = [todo[(todo >= s) & (todo < s + self._batch)] for s in starts]
        ahead: deque[tuple[np.ndarray, list[Future[_Decoded]]]] = deque()
        pool = ThreadPoolExecutor(_DECODERS, thread_name_prefix="decode")
        try:
            for rows in members:
                ahead.append((rows, [pool.submit(self._decode, self._rows[r]) for r in rows]))
                if len(ahead) > _BATCHES_AHEAD:
                    yield self._finish(*ahead.popleft())
            while ahead:
                yield self._finish(*ahead.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _decode(self, row: Row) -> _Decoded:
        try:
            image = read_image(row.path, row.index)
            digest = bytes.fromhex(pixel_digest(image))
            frame = make_frame(image, self._encoder.input_size, self._options.resize)
        except ImageError as error:
            return _Decoded(None, bytes(32), str(error))
        return _Decoded(frame, digest, "")

    def _finish(self, rows: Int[np.ndarray, " image"], futures: list[Future[_Decoded]]) -> RowBatch:
        decoded = [future.result() for future in futures]
        features = self._encode(rows % self._batch, decoded)
        finite = np.all([np.isfinite(x).all(axis=(1, 2, 3, 4)) for x in features.values()], axis=0)
        reasons = [
            one.reason or ("" if good else _overflow(self._options.storage))
            for one, good in zip(decoded, finite, strict=True)
        ]
        failed = np.array([bool(reason) for reason in reasons])
        for values in features.values():
            values[failed] = 0
        return RowBatch(
            rows=rows,
            features=features,
            valid=np.array(
                [one.frame.valid if one.frame else (0, 0) for one in decoded], dtype=np.uint16
            ),
            sha256=_digests(decoded),
            status=np.where(failed, FAILED, DONE).astype(np.uint8),
            error=reasons,
        )

    def _encode(
        self, slots: Int[np.ndarray, " image"], decoded: Sequence[_Decoded]
    ) -> dict[str, np.ndarray]:
        """Encode a batch of fixed shape: what is absent from it is an empty frame."""
        side = self._encoder.input_size
        frames = np.zeros((self._batch, side, side, 3), dtype=np.uint8)
        valid = [(0, 0)] * self._batch
        for slot, one in zip(slots, decoded, strict=True):
            if one.frame is not None:
                frames[slot] = one.frame.pixels
                valid[slot] = one.frame.valid
        maps = self._encoder(torch.from_numpy(frames).to(self._encoder.device), valid)
        dtype = getattr(torch, self._options.storage)
        pooled = {}
        for level, values in maps.items():
            shape = self._encoder.shape(level)
            cells = valid_cells(valid, (shape.rows, shape.cols), shape.patch)
            pooled[level] = pool_valid(values, cells, self._options.window).to(dtype)
        return {level: x[slots].cpu().numpy()[:, None] for level, x in pooled.items()}


def _digests(decoded: Sequence[_Decoded]) -> UInt8[np.ndarray, "image 32"]:
    return np.frombuffer(b"".join(one.sha256 for one in decoded), dtype=np.uint8).reshape(-1, 32)


def _overflow(storage: str) -> str:
    return (
        f"a feature of this image is not finite in {storage}; extract with --storage float32 to see "
        "whether the encoder itself overflows"
    )


def _silent(finished: int, total: int, failed: int) -> None:
    """Report nothing."""


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"device {name!r} cannot be used here: {error}. Leave --device out to choose the GPU "
            "where there is one"
        ) from error


def _open_or_create(
    manifest: Manifest, path: str, encoder: Encoder, options: ExtractOptions
) -> FeatureStore:
    fingerprint = Fingerprint(
        encoder=options.encoder,
        checkpoint_sha256=encoder.weights_sha256,
        input_size=encoder.input_size,
        resize=options.resize,
        mean=encoder.pixel_mean,
        std=encoder.pixel_std,
        levels=encoder.levels,
        window=options.window,
        views=("identity",),
        storage=options.storage,
        precision=encoder.precision,
        preprocessing=PREPROCESSING_VERSION,
    )
    if FeatureStore.exists(path):
        store = FeatureStore.open(path, mode="r+")
        store.require(fingerprint)
        _require_rows(store, manifest)
        return store
    levels = {name: _pooled_shape(encoder, name, options.window) for name in encoder.levels}
    table = RowTable(
        ids=manifest.ids,
        splits=manifest.splits,
        groups=manifest.groups,
        tasks=manifest.tasks,
        labels=manifest.labels(),
    )
    return FeatureStore.create(path, fingerprint, levels, table)


def _pooled_shape(encoder: Encoder, level: str, window: int) -> LevelShape:
    whole = encoder.shape(level)
    rows, cols = -(-whole.rows // window), -(-whole.cols // window)
    return LevelShape(whole.channels, rows, cols, whole.patch)


def _require_rows(store: FeatureStore, manifest: Manifest) -> None:
    """Refuse a manifest whose rows are not the store's."""
    if store.ids == list(manifest.ids):
        columns = {
            "splits": store.splits == list(manifest.splits),
            "groups": store.groups == list(manifest.groups),
            "labels": store.tasks == manifest.tasks
            and np.array_equal(store.labels, manifest.labels()),
        }
        if changed := [name for name, same in columns.items() if not same]:
            raise StoreError(
                f"the {' and '.join(changed)} of {manifest.source} are no longer those that the "
                f"store {store.path} was made with. Name another store for this manifest"
            )
        return
    here, there = set(manifest.ids), set(store.ids)
    added, gone = sorted(here - there), sorted(there - here)
    raise StoreError(
        f"the store {store.path} was made from another manifest: {len(added)} ids are new "
        f"({', '.join(added[:3]) or 'none'}), {len(gone)} are gone ({', '.join(gone[:3]) or 'none'})"
        f"{'' if added or gone else ', and the order differs'}. Name another store for this manifest"
    )


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
        seconds=now - begun,
        images_per_second=encoded / (now - first_batch),
        bytes=store.stored_bytes,
        failures=tuple((ids[r], errors[r]) for r in np.flatnonzero(status == FAILED)),
    )
