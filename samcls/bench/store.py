"""What the feature store costs in time and disk, beside the alternatives, on the same features.

Every figure is GB of feature values a second, the best of some repetitions with a warm page cache, so
it measures the format and not the disk. 256 MB take about a minute and a half on two cores.

    samcls bench store --store features.zarr        # the features of a store of yours
    samcls bench store                              # noise: the worst case for compression
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import zarr
from jaxtyping import Float, Int

from samcls.bench.table import Bench, BenchRow, measure
from samcls.store.feature_store import FeatureStore, RowBatch, RowTable
from samcls.store.layout import CODECS, DEFAULT_CODEC
from samcls.store.schema import DONE, Fingerprint, LevelShape
from samcls.store.verify import verify

__all__ = ["bench_store"]

Features = Float[np.ndarray, "image view channel row col"]

BATCH = 64  # rows of one shuffled read
DRAWN = 512  # rows read in shuffled order: enough to tell, for those to whom it is slow
CEILING = "numpy.load"
PLAIN = "zarr-python"
DEFAULT_PIPELINE = "zarr.core.codec_pipeline.BatchedCodecPipeline"


@dataclass(frozen=True)
class _Format:
    """One way to keep features: how to write all, and how to read all, a span and any rows."""

    write: Callable[[Features], object]
    whole: Callable[[], np.ndarray]
    rows: Callable[[Int[np.ndarray, " image"]], np.ndarray] | None


def bench_store(
    source: str | Path | None = None,
    megabytes: int = 256,
    repeats: int = 3,
    folder: str | Path | None = None,
) -> Bench:
    """Measure writing, reading, verifying and compressing.

    Args:
        source: Store whose features are used; noise by default.
        megabytes: Of feature values to work on.
        repeats: Of each measurement; the best counts.
        folder: Where to work; a temporary one by default. Everything made there is removed.

    Raises:
        StoreError: the source cannot be read.
    """
    features = _features(source, megabytes)
    with tempfile.TemporaryDirectory(dir=folder, prefix="samcls-bench-") as place:
        rows = [
            *_formats(Path(place), features, repeats),
            *_codecs(Path(place), features, repeats),
        ]
    return Bench("store", rows)


def _features(source: str | Path | None, megabytes: int) -> Features:
    """Take a source's levels side by side, its rows repeated in another order to fill the size."""
    rng = np.random.default_rng(0)
    if source is None:
        base = rng.normal(size=(1024, 1, 1024, 4, 4)).astype(np.float16)
    else:
        store = FeatureStore.open(source)
        done = np.flatnonzero(store.status == DONE)[:4096]
        levels = [store.read(level, done) for level in store.levels]
        base = np.concatenate([x.reshape(len(done), 1, -1, 1, 1) for x in levels], axis=2)
    images = max(1, megabytes * 10**6 // base[0].nbytes)
    order = [rng.permutation(len(base)) for _ in range(-(-images // len(base)))]
    return base[np.concatenate(order)[:images]]


def _formats(place: Path, features: Features, repeats: int) -> Iterator[BenchRow]:
    size = features.nbytes / 1e9
    shard_rows = 64 * 2**20 // features[0].nbytes
    formats = _candidates(place, features)
    ceiling = 0.0
    for name, kind in formats.items():
        spent = _best(partial(kind.write, features), 1)
        yield measure(f"write, {name}", size / spent, "GB/s")
    for name, kind in formats.items():
        rate = size / _best(kind.whole, repeats)
        ceiling = ceiling or rate
        yield measure(f"read whole, {name}", rate, "GB/s", CEILING, ceiling)
    for what, orders in (
        ("in shard order", _spans(len(features), shard_rows)),
        ("shuffled", _shuffled(len(features))),
    ):
        rates = {
            name: features[0].nbytes
            * sum(map(len, orders))
            / 1e9
            / _best(partial(_each, kind, orders), repeats)
            for name, kind in formats.items()
            if kind.rows is not None
        }
        for name, rate in rates.items():
            same = name.partition(", ")[2]
            baseline = f"{PLAIN}, {same}" if f"{PLAIN}, {same}" in rates else f"{PLAIN}, none"
            yield measure(f"read {what}, {name}", rate, "GB/s", baseline, rates[baseline])
    for codec in ("none", DEFAULT_CODEC):
        path = place / f"{codec}.zarr"
        read = size / _best(formats[f"samcls, {codec}"].whole, repeats)
        rate = size / _best(partial(verify, path), repeats)
        yield measure(f"verify, samcls, {codec}", rate, "GB/s", "read whole", read)
    for name, path in (
        ("samcls, none", place / "none.zarr"),
        (f"samcls, {DEFAULT_CODEC}", place / f"{DEFAULT_CODEC}.zarr"),
        ("one .npy an image", place / "npy"),
        ("one .pt an image", place / "pt"),
    ):
        stored = sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
        yield measure(f"disk, {name}", stored / 1e6, "MB", "payload", features.nbytes / 1e6)


def _candidates(place: Path, features: Features) -> Mapping[str, _Format]:
    found = {CEILING: _one_file(place / "all.npy")}
    for codec in ("none", DEFAULT_CODEC):
        found[f"samcls, {codec}"] = _ours(place / f"{codec}.zarr", codec)
    for codec in ("none", DEFAULT_CODEC):
        found[f"{PLAIN}, {codec}"] = _plain(place / f"plain-{codec}.zarr", codec)
    found["one .npy an image"] = _files(place / "npy", len(features), "npy")
    found["one .pt an image"] = _files(place / "pt", len(features), "pt")
    hdf5 = _hdf5(place / "all.h5")
    return {**found, "HDF5": hdf5} if hdf5 else found


def _one_file(path: Path) -> _Format:
    return _Format(lambda x: np.save(path, x), lambda: np.load(path), None)


def _ours(path: Path, codec: str) -> _Format:
    opened: list[FeatureStore] = []

    def write(features: Features) -> None:
        opened[:] = [_store(path, features, codec)]

    def read(rows: Int[np.ndarray, " image"] | None = None) -> np.ndarray:
        return opened[0].read("late", rows)

    return _Format(write, read, read)


def _store(path: Path, features: Features, codec: str) -> FeatureStore:
    """Write features into a new store as an extract does: a shard at a time."""
    images, _, channels, height, width = features.shape
    fingerprint = Fingerprint(
        encoder="bench",
        checkpoint_sha256="",
        input_size=256,
        resize="longest",
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        levels=("late",),
        window=1,
        views=("identity",),
        storage=str(features.dtype),
        precision="float32",
        preprocessing=1,
    )
    names = [str(i) for i in range(images)]
    table = RowTable(names, ["train"] * images, [""] * images, {}, np.zeros((images, 0), np.int16))
    store = FeatureStore.create(
        path, fingerprint, {"late": LevelShape(channels, height, width, 16)}, table, codec
    )
    for rows in _spans(images, store.partition.shard_rows):
        count = len(rows)
        batch = RowBatch(
            rows=rows,
            features={"late": features[rows[0] : rows[-1] + 1]},
            valid=np.full((count, 2), 256, np.uint16),
            sha256=np.ones((count, 32), np.uint8),
            status=np.full(count, DONE, np.uint8),
            error=[""] * count,
        )
        store.write(batch)
    return store


def _plain(path: Path, codec: str) -> _Format:
    """Return the same layout and codec, written and read by zarr-python as it comes."""

    def array() -> zarr.Array:  # type: ignore[type-arg]  # its parameter is zarr's own affair
        return zarr.open_array(path, path="features/late", mode="r")

    def read(rows: Int[np.ndarray, " image"] | None = None) -> np.ndarray:
        with zarr.config.set({"codec_pipeline.path": DEFAULT_PIPELINE}):
            opened = array()
            if rows is None:
                return np.asarray(opened[:])
            if (np.diff(rows) == 1).all():
                return np.asarray(opened[int(rows[0]) : int(rows[-1]) + 1])
            return np.asarray(opened.oindex[np.sort(rows)])[np.argsort(np.argsort(rows))]

    def write(features: Features) -> None:
        like = zarr.open_array(path.with_name(f"{codec}.zarr"), path="features/late", mode="r")
        with zarr.config.set({"codec_pipeline.path": DEFAULT_PIPELINE}):
            copy = zarr.create_array(
                path,
                name="features/late",
                shape=features.shape,
                dtype=features.dtype,
                chunks=like.chunks,
                shards=like.shards,
                compressors=like.compressors,
                overwrite=True,
            )
            copy[:] = features

    return _Format(write, read, read)


def _files(folder: Path, images: int, kind: str) -> _Format:
    """One file an image, as many feature extractors keep them."""
    import torch

    def path(row: int) -> Path:
        return folder / f"{row}.{kind}"

    def write(features: Features) -> None:
        folder.mkdir(exist_ok=True)
        for row, values in enumerate(features):
            if kind == "npy":
                np.save(path(row), values)
            else:
                torch.save(torch.from_numpy(values.copy()), path(row))

    def read(rows: Int[np.ndarray, " image"] | None = None) -> np.ndarray:
        chosen = range(images) if rows is None else rows.tolist()
        if kind == "npy":
            return np.stack([np.load(path(row)) for row in chosen])
        return np.stack([torch.load(path(row), weights_only=True).numpy() for row in chosen])

    return _Format(write, read, read)


def _hdf5(path: Path) -> _Format | None:
    """One HDF5 data set, uncompressed, chunked by image; none where h5py is not installed."""
    try:
        import h5py  # type: ignore[import-untyped]
    except ImportError:
        return None

    def write(features: Features) -> None:
        with h5py.File(path, "w") as file:
            file.create_dataset("late", data=features, chunks=(1, *features.shape[1:]))

    def read(rows: Int[np.ndarray, " image"] | None = None) -> np.ndarray:
        with h5py.File(path, "r") as file:
            if rows is None:
                return np.asarray(file["late"][:])
            order = np.argsort(rows)
            back = np.argsort(order)
            return np.asarray(file["late"][rows[order]])[back]

    return _Format(write, read, read)


def _codecs(place: Path, features: Features, repeats: int) -> Iterator[BenchRow]:
    """Measure each codec that a store can have: size, and rate in shard order."""
    size = features.nbytes / 1e9
    spans = _spans(len(features), 64 * 2**20 // features[0].nbytes)
    for codec in CODECS:
        path = place / f"codec-{codec}.zarr"
        kind = _ours(path, codec)
        written = _best(partial(kind.write, features), 1)
        ratio = features.nbytes / FeatureStore.open(path).stored_bytes
        rate = size / _best(partial(_each, kind, spans), repeats)
        yield measure(f"codec {codec}, payload / disk", ratio, "times")
        yield measure(f"codec {codec}, write", size / written, "GB/s")
        yield measure(f"codec {codec}, read in shard order", rate, "GB/s")


def _spans(images: int, rows: int) -> list[np.ndarray]:
    step = 1 << (max(1, rows).bit_length() - 1)
    return [np.arange(start, min(start + step, images)) for start in range(0, images, step)]


def _shuffled(images: int) -> list[np.ndarray]:
    order = np.random.default_rng(0).permutation(images)
    return [order[start : start + BATCH] for start in range(0, min(images, DRAWN), BATCH)]


def _each(kind: _Format, orders: list[np.ndarray]) -> None:
    if kind.rows is not None:
        for rows in orders:
            kind.rows(rows)


def _best(work: Callable[[], object], repeats: int) -> float:
    """Return the shortest time in seconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)
