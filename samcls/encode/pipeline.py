"""Rows in, finished batches out: decode ahead in threads, encode, pool on the device, copy back.

What is not the encoder runs beside it: decoding and resizing ahead of it, the copy to and from a GPU
around it (pinned and asynchronous), compression and writing behind it. Encoders whose work is too short
to share between a CPU's cores encode a batch on each. Batches start at fixed rows and keep their shape,
so that where a run was cut never shows. An image whose pixels equal those of an earlier one takes its
features and is not encoded again.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from samcls.data.images import Frame, make_frame, pixel_digest, read_image
from samcls.data.manifest import Row
from samcls.encode.base import Encoder
from samcls.encode.finite import FiniteGuard, largest_stored, not_finite
from samcls.encode.lanes import Found, Lanes
from samcls.encode.options import ExtractOptions
from samcls.errors import ImageError, RunError
from samcls.pooling import pool_valid, valid_cells
from samcls.store.feature_store import RowBatch
from samcls.store.schema import DONE, FAILED, PIXELS
from samcls.views import transform, view_names

__all__ = ["Pipeline"]

BATCHES_AHEAD = 2
DECODERS = 4  # threads; Pillow and hashing release the interpreter

Recall = Callable[[int], dict[str, np.ndarray]]


@dataclass(frozen=True)
class _Decoded:
    """One image in every view, ready for the encoder, or the reason why it is not."""

    frames: tuple[Frame, ...]
    sha256: bytes
    reason: str
    kept: UInt8[np.ndarray, "size size 3"] | None = None


@dataclass(frozen=True)
class _Launched:
    """A batch on its way through the device."""

    rows: np.ndarray
    decoded: list[_Decoded]
    twins: list[int | None]
    found: Future[Found]
    ready: torch.cuda.Event | None


def _read_row(row: Row) -> UInt8[np.ndarray, "row col 3"]:
    return read_image(row.path, row.index)


class Pipeline:
    """Encodes rows of a manifest in batches of a fixed shape.

    Args:
        rows: Of the manifest, by their number.
        encoder: On its device.
        options: Of the extract, the batch settled.
        log: Called with a sentence when the device ran out of memory and less is tried.
        proven: Whether these options gave finite features before.
        read: Gives a row's picture, RGB 0..255, or raises `ImageError`.
    """

    def __init__(
        self,
        rows: Sequence[Any] | Mapping[int, Row],
        encoder: Encoder,
        options: ExtractOptions,
        log: Callable[[str], None],
        proven: bool = False,
        read: Callable[[Any], UInt8[np.ndarray, "row col 3"]] = _read_row,
    ) -> None:
        self._rows = rows
        self._read = read
        self._encoder = encoder
        self._window = options.window
        self._views = view_names(options.views)
        self._resize = options.resize
        self._keep = options.keep_pixels or 0
        self._dtype: torch.dtype = getattr(torch, options.storage)
        self._batch = options.batch or 1
        self._chunk = self._batch  # images the device takes at once; halved when memory runs out
        self._log = log
        self._limit = largest_stored(options.storage, options.keep_bits)
        self._guard = FiniteGuard(proven, self._noise_is_finite)
        self._refused: dict[int, str] = {}  # rows encoded here whose features cannot be stored

    def run(
        self, todo: Int[np.ndarray, " image"], finished: dict[bytes, int], recall: Recall
    ) -> Iterator[RowBatch]:
        """Yield finished rows in ascending batches.

        Args:
            todo: Row numbers, ascending.
            finished: Row of each pixel hash that is done, below 0 if another store's; rows done here
                are added.
            recall: Gives a finished row's features.

        Raises:
            NotFiniteError: the first images' features are not finite, nor would any be.
        """
        ahead: deque[tuple[np.ndarray, list[Future[_Decoded]]]] = deque()
        launched: deque[_Launched] = deque()
        pool = ThreadPoolExecutor(DECODERS, thread_name_prefix="decode")
        lanes = Lanes(self._encoder)
        try:
            for rows in [*self._batches(todo), None]:
                if rows is not None:
                    ahead.append(
                        (rows, [pool.submit(self._decode, self._rows[int(r)]) for r in rows])
                    )
                while ahead and (rows is None or len(ahead) > max(BATCHES_AHEAD, lanes.count)):
                    launched.append(self._launch(*ahead.popleft(), finished, lanes))
                    while len(launched) > lanes.count:
                        yield self._collect(launched.popleft(), recall)
            while launched:
                yield self._collect(launched.popleft(), recall)
        finally:
            lanes.close()
            pool.shutdown(wait=True, cancel_futures=True)

    def _batches(self, todo: Int[np.ndarray, " image"]) -> list[np.ndarray]:
        """Cut rows at the fixed places where batches start."""
        breaks = np.flatnonzero(np.diff(todo // self._batch)) + 1
        return [part for part in np.split(todo, breaks) if len(part)]

    def _decode(self, row: Any) -> _Decoded:
        try:
            image = self._read(row)
            digest = bytes.fromhex(pixel_digest(image))
            size = self._encoder.input_size
            frames = tuple(
                make_frame(transform(image, view), size, self._resize) for view in self._views
            )
            kept = make_frame(image, self._keep, self._resize).pixels if self._keep else None
        except ImageError as error:
            return _Decoded((), bytes(32), str(error))
        return _Decoded(frames, digest, "", kept)

    def _launch(
        self,
        rows: Int[np.ndarray, " image"],
        futures: list[Future[_Decoded]],
        finished: dict[bytes, int],
        lanes: Lanes,
    ) -> _Launched:
        """Start a batch; on a GPU and in lanes this returns before the work is done."""
        decoded = [future.result() for future in futures]
        twins = _twins(rows, decoded, finished)
        slots, frames, extents = [], [], []
        for row, one, twin in zip(rows, decoded, twins, strict=True):
            if one.frames and twin is None:
                slots.append(int(row) % self._batch)
                frames.append([frame.pixels for frame in one.frames])
                extents.append([frame.valid for frame in one.frames])
                finished[one.sha256] = int(row)
        found = lanes.submit(self._encode, slots, frames, extents)
        ready = None
        if self._encoder.device.type == "cuda":
            ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
            ready.record()
        return _Launched(rows, decoded, twins, found, ready)

    def _encode(
        self,
        slots: list[int],
        frames: list[list[UInt8[np.ndarray, "size size 3"]]],
        extents: list[list[tuple[int, int]]],
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Encode every view.

        Returns:
            By slot, for each level, (image, view, channel, row, col); and its largest magnitude before
            it was stored, (image, view).
        """
        if not slots:
            return {}, {}
        by_view = []
        for view in range(len(self._views)):
            pixels = [image[view] for image in frames]
            by_view.append(self._encode_view(slots, pixels, [extent[view] for extent in extents]))
        features, peaks = (
            {
                level: _to_host(torch.stack([found[what][level] for found in by_view], dim=1))
                for level in self._encoder.levels
            }
            for what in (0, 1)
        )
        return features, peaks

    def _encode_view(
        self,
        slots: list[int],
        pixels: list[UInt8[np.ndarray, "size size 3"]],
        extents: list[tuple[int, int]],
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Encode a batch of fixed shape: what is absent from it is an empty frame."""
        device = self._encoder.device
        side = self._encoder.input_size
        pinned = device.type == "cuda"
        batch = torch.zeros(self._batch, side, side, 3, dtype=torch.uint8, pin_memory=pinned)
        valid = [(0, 0)] * self._batch
        for slot, image, extent in zip(slots, pixels, extents, strict=True):
            batch[slot] = torch.from_numpy(image)
            valid[slot] = extent
        parts: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []
        start = 0
        while start < self._batch:
            stop = min(start + self._chunk, self._batch)
            try:
                chunk = batch[start:stop].to(device, non_blocking=pinned)
                parts.append(self._pooled(chunk, valid[start:stop]))
            except (torch.OutOfMemoryError, MemoryError) as error:
                self._halve(stop - start, error)
                continue
            start = stop
        kept = torch.tensor(slots, device=device)
        features, peaks = (
            {level: torch.cat([part[what][level] for part in parts])[kept] for level in parts[0][0]}
            for what in (0, 1)
        )
        return features, peaks

    def _pooled(
        self, frames: UInt8[Tensor, "image size size 3"], valid: Sequence[tuple[int, int]]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Encode, and pool where the maps are; say how large each level became."""
        pooled, peaks = {}, {}
        for level, values in self._encoder(frames, valid).items():
            shape = self._encoder.shape(level)
            cells = valid_cells(valid, (shape.rows, shape.cols), shape.patch)
            means = pool_valid(values, cells, self._window)
            peaks[level] = means.abs().amax((1, 2, 3)).float()
            pooled[level] = means.to(self._dtype)
        return pooled, peaks

    def _halve(self, tried: int, error: BaseException) -> None:
        """Try fewer images at once after the device ran out of memory."""
        if self._chunk < tried:  # another lane has seen to it
            return
        if self._chunk == 1:
            raise RunError(
                "the device has too little memory for one image; choose a smaller --size, a smaller "
                "encoder, --precision bfloat16, or --device cpu"
            ) from error
        self._chunk //= 2
        if self._encoder.device.type == "cuda":
            torch.cuda.empty_cache()
        self._log(f"out of memory: encoding {self._chunk} images at once from here on")

    def _collect(self, launched: _Launched, recall: Recall) -> RowBatch:
        """Wait for a batch and put its rows together."""
        found, peaks = launched.found.result()
        if launched.ready is not None:
            launched.ready.synchronize()
        rows, decoded = launched.rows, launched.decoded
        features = self._gather(launched, found, recall)
        reasons = self._reasons(launched, peaks)
        failed = np.array([bool(reason) for reason in reasons])
        if self._keep:
            features[PIXELS] = self._pixels(decoded)
        for values in features.values():
            values[failed] = 0
        extents = [one.frames[0].valid if one.frames else (0, 0) for one in decoded]
        digests = np.frombuffer(b"".join(one.sha256 for one in decoded), dtype=np.uint8)
        return RowBatch(
            rows=rows,
            features=features,
            valid=np.array(extents, dtype=np.uint16),
            sha256=digests.reshape(-1, 32),
            status=np.where(failed, FAILED, DONE).astype(np.uint8),
            error=reasons,
            reused=sum(twin is not None and twin < 0 for twin in launched.twins),
        )

    def _reasons(self, launched: _Launched, found: Mapping[str, Tensor]) -> list[str]:
        """Say of each image why it fails; stop the run where the fault is not the images'."""
        encoded: list[str] = []
        peaks = {level: x.numpy().max(axis=1) for level, x in found.items()}
        storage = str(self._dtype).removeprefix("torch.")
        for number in range(len(next(iter(peaks.values()), ()))):
            own = {level: float(found[number]) for level, found in peaks.items()}
            good = all(peak < self._limit for peak in own.values())
            precision = self._encoder.precision
            encoded.append("" if good else not_finite(own, storage, precision, self._limit))
        bad = [reason for reason in encoded if reason]
        self._guard.saw(len(encoded) - len(bad), bad)
        reasons = [one.reason for one in launched.decoded]
        fresh = iter(encoded)
        whose = zip(launched.rows, launched.decoded, launched.twins, strict=True)
        for i, (row, one, twin) in enumerate(whose):
            if one.frames and twin is None:
                reasons[i] = next(fresh)
                if reasons[i]:
                    self._refused[int(row)] = reasons[i]
            elif twin is not None:
                reasons[i] = self._refused.get(twin, "")
        return reasons

    def _noise_is_finite(self) -> bool:
        """Encode a frame of noise, to tell one image's fault from that of the weights."""
        side = self._encoder.input_size
        noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
        _, peaks = self._encode_view([0], [noise], [(side, side)])
        return all(bool((peak < self._limit).all()) for peak in peaks.values())

    def _pixels(self, decoded: Sequence[_Decoded]) -> UInt8[np.ndarray, "image size size 3"]:
        """Bring the images that are kept into one array; failed ones are zeros."""
        kept = np.zeros((len(decoded), self._keep, self._keep, 3), dtype=np.uint8)
        for place, one in zip(kept, decoded, strict=True):
            if one.kept is not None:
                place[:] = one.kept
        return kept

    def _gather(
        self, launched: _Launched, found: Mapping[str, Tensor], recall: Recall
    ) -> dict[str, np.ndarray]:
        """Bring encoded, recalled and failed rows into one array for each level."""
        encoded = {level: x.numpy() for level, x in found.items()}
        gathered = {}
        for level in self._encoder.levels:
            shape = self._encoder.shape(level)
            side = (-(-shape.rows // self._window), -(-shape.cols // self._window))
            whole = (len(launched.rows), len(self._views), shape.channels, *side)
            gathered[level] = np.zeros(whole, dtype=str(self._dtype).removeprefix("torch."))
        next_encoded = 0
        positions = {int(row): i for i, row in enumerate(launched.rows)}
        for i, (one, twin) in enumerate(zip(launched.decoded, launched.twins, strict=True)):
            if twin is not None:
                if twin in self._refused:  # by an earlier batch
                    continue
                inside = positions.get(twin)
                known = {} if inside is not None else recall(twin)
                for level, values in gathered.items():
                    values[i] = values[inside] if inside is not None else known[level]
            elif one.frames:
                for level, values in gathered.items():
                    values[i] = encoded[level][next_encoded]
                next_encoded += 1
        return gathered


def _to_host(values: Tensor) -> Tensor:
    """Start copying to pinned memory; complete once the batch's event has passed."""
    if not values.is_cuda:
        return values
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return host.copy_(values, non_blocking=True)


def _twins(
    rows: Int[np.ndarray, " image"], decoded: Sequence[_Decoded], finished: dict[bytes, int]
) -> list[int | None]:
    """Return for each row an earlier row with the same pixels: a finished one or one beside it."""
    here: dict[bytes, int] = {}
    twins: list[int | None] = []
    for row, one in zip(rows, decoded, strict=True):
        twin = finished.get(one.sha256, here.get(one.sha256)) if one.frames else None
        twins.append(twin)
        if one.frames and twin is None:
            here[one.sha256] = int(row)
    return twins
