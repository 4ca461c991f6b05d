"""`samcls bench audit`: planted twins and wrong labels found again, beside other tools where they are installed.

These are imagededup, cleanvision and cleanlab. Of evenly spaced images of a manifest, each is planted five times: mirrored, turned, as JPEG of quality 70, cropped by
5 %, and brightened by a fifth. Average precision is over all pairs of one original, those that a method does not list
counted as missed; pairs of the manifest's own images are no part of it, and neither are pairs whose originals are
twins themselves. `SelfClean's rule` ranks by the cosine of the encoder's features, after the published description
(Groeger et al., 2024), on the encoder at hand and not on one trained for the data set.

    bench_audit("manifest.csv", print, encoders=("lite0", "vit_t"))
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import torch

from samcls.audit.audit import audit
from samcls.audit.checks.labels import suspicion
from samcls.audit.finding import Findings
from samcls.audit.maps import by_features, compressed, mean_features
from samcls.audit.nearest import nearest_pairs, unit
from samcls.bench.table import Bench, BenchRow, measure
from samcls.data.images import jpeg_copy, png_bytes, read_image
from samcls.data.manifest import Manifest, Row, read_manifest
from samcls.encode.cost import peak_memory
from samcls.encode.extract import extract
from samcls.encode.options import ExtractOptions
from samcls.store.feature_store import FeatureStore, RowBatch, RowTable
from samcls.store.schema import DONE, Fingerprint, LevelShape

__all__ = ["average_precision", "bench_audit"]

MARK = "+"
NEIGHBOURS = 16
NOISE = (0.05, 0.1, 0.2)
Pairs = Mapping[tuple[str, str], float]
Log = Callable[[str], None]


def bench_audit(
    manifest: str | Path,
    log: Log = lambda _: None,
    *,
    encoders: Sequence[str] = ("lite0", "vit_t"),
    originals: int = 200,
    folder: str | Path | None = None,
    rows: int = 100_000,
) -> Bench:
    """Measure how well planted defects are found.

    Args:
        manifest: Of pictures in files.
        log: Told what is measured.
        encoders: For each, features are made.
        originals: Images that twins are planted of.
        folder: Where the planted pictures and stores are kept; a temporary one by default.
        rows: Of a store of noise, whose audit is timed; 0 for none.
    """
    with tempfile.TemporaryDirectory() as place:
        root = Path(folder or place)
        planted = _planted(read_manifest(manifest), originals, root)
        found = list(_large(rows, root, log)) if rows else []
        found += _twins(planted, "pictures alone", None, log)
        found += _others(planted, log)
        for encoder in encoders:
            store = root / f"{encoder}.zarr"
            log(f"features of {encoder}")
            extract(planted, store, ExtractOptions(encoder=encoder), allow_leak=True)
            found += _twins(planted, encoder, store, log)
            found += _labels(FeatureStore.open(store), encoder)
        return Bench("audit", found)


def average_precision(ranked: Sequence[bool], there: int) -> tuple[float, float]:
    """Return the average precision of a ranked list, and its recall where precision is last at least 0.9.

    Args:
        ranked: Whether each entry is one that was looked for, the likeliest first.
        there: How many there are in all; those that are not listed are missed.
    """
    hits = np.cumsum(ranked)
    precision = hits / np.arange(1, len(ranked) + 1)
    sure = np.flatnonzero(precision >= 0.9)
    recall = float(hits[sure[-1]]) / there if len(sure) else 0.0
    return float(precision[np.asarray(ranked, bool)].sum()) / there, recall


def _planted(manifest: Manifest, originals: int, root: Path) -> Manifest:
    """Write the planted pictures and return the manifest with them."""
    folder = root / "planted"
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    rows = list(manifest.rows)
    for at in np.linspace(0, len(manifest) - 1, min(originals, len(manifest))).astype(int).tolist():
        row = manifest.rows[at]
        image = read_image(row.path, row.index)
        height, width = (max(1, round(0.95 * side)) for side in image.shape[:2])
        top = int(rng.integers(image.shape[0] - height + 1))
        left = int(rng.integers(image.shape[1] - width + 1))
        copies = {
            "mirrored": image[:, ::-1],
            "turned": np.rot90(image),
            "jpeg": jpeg_copy(image, 70),
            "cropped": image[top : top + height, left : left + width],
            "brightened": np.clip(image * 1.2, 0, 255).astype(np.uint8),
        }
        for kind, copy in copies.items():
            path = folder / f"{at:06}-{kind}.png"
            path.write_bytes(png_bytes(np.ascontiguousarray(copy)))
            rows.append(
                replace(row, id=f"{row.id}{MARK}{kind}", path=str(path), index=None, group="")
            )
    return replace(manifest, rows=tuple(rows))


def _large(rows: int, root: Path, log: Log) -> Iterator[BenchRow]:
    """Yield seconds and memory of the audit of a store of noise of `lite0`'s shape, after pooling to one cell."""
    log(f"{rows:,} rows of noise")
    rng = np.random.default_rng(0)
    levels = {
        f"stage:{i + 1}": LevelShape(n, 1, 1, 32) for i, n in enumerate((16, 24, 40, 112, 320))
    }
    made = Fingerprint(
        encoder="lite0",
        checkpoint_sha256="0" * 64,
        input_size=512,
        resize="longest",
        mean=(127.0,) * 3,
        std=(128.0,) * 3,
        levels=tuple(levels),
        window=16,
        views=("identity",),
        storage="float16",
        precision="float32",
        preprocessing=1,
    )
    ids = [f"{i:06}" for i in range(rows)]
    splits = ["test" if i % 5 == 0 else "train" for i in range(rows)]
    labels = rng.integers(0, 2, (rows, 1)).astype(np.int16)
    table = RowTable(ids, splits, [""] * rows, {"label": ("0", "1")}, labels, {})
    store = FeatureStore.create(root / f"noise-{rows}.zarr", made, levels, table)
    for start in range(0, rows, 10_000):
        here = np.arange(start, min(start + 10_000, rows))
        store.write(
            RowBatch(
                rows=here,
                features={
                    name: rng.normal(size=(len(here), 1, shape.channels, 1, 1)).astype(np.float16)
                    for name, shape in levels.items()
                },
                valid=np.full((len(here), 2), 512, np.uint16),
                sha256=rng.integers(0, 256, (len(here), 32)).astype(np.uint8),
                status=np.full(len(here), DONE, np.uint8),
                error=[""] * len(here),
            )
        )
    begun = time.perf_counter()
    with peak_memory(torch.device("cpu")) as peak:
        audit(FeatureStore.open(store.path))
    yield measure(f"{rows:,} rows of features, seconds", time.perf_counter() - begun, "s")
    yield measure(f"{rows:,} rows of features, memory", peak.bytes / 1e9, "GB")


def _twins(planted: Manifest, name: str, store: Path | None, log: Log) -> Iterator[BenchRow]:
    """Yield what audits of the pictures, of features and of both find."""
    log(f"twins by {name}")
    if store is None:
        begun = time.perf_counter()
        found = audit(planted)
        yield from _measured(f"{name}, samcls audit MANIFEST", _pairs(found), planted)
        yield measure(f"{name}, seconds", time.perf_counter() - begun, "s")
        return
    opened = FeatureStore.open(store)
    for told, manifest in (("with pictures", planted), ("features alone", None)):
        begun = time.perf_counter()
        found = audit(opened, manifest=manifest)
        yield from _measured(f"{name} {told}", _pairs(found), planted)
        yield measure(f"{name} {told}, seconds", time.perf_counter() - begun, "s")
    rows = np.flatnonzero(opened.status == DONE)
    ids = [opened.ids[row] for row in rows.tolist()]
    means = mean_features(opened, rows)
    for told, vectors in (
        ("features alone, all ranked", by_features(means)[0]),
        ("SelfClean's rule", unit(means[0])),
    ):
        by_rank = {
            _key(ids[a], ids[b]): float(value)
            for (a, b), value in zip(*nearest_pairs(vectors, NEIGHBOURS), strict=True)
        }
        yield from _measured(f"{name} {told}", by_rank, planted)


def _others(planted: Manifest, log: Log) -> Iterator[BenchRow]:
    """Yield what imagededup and cleanvision find, where they are installed."""
    with tempfile.TemporaryDirectory() as place:
        names = {}
        for number, row in enumerate(planted.rows):
            names[f"{number}.png"] = row.id
            (Path(place) / f"{number}.png").write_bytes(png_bytes(read_image(row.path, row.index)))
        for name, find in (
            ("imagededup PHash", _phash),
            ("imagededup CNN", _cnn),
            ("cleanvision", _cleanvision),
        ):
            begun = time.perf_counter()
            try:
                found = find(place)
            except ImportError:
                continue
            except OSError as error:  # the CNN's weights are fetched
                log(f"{name} is left out: {error}")
                continue
            pairs = {_key(names[a], names[b]): value for (a, b), value in found.items()}
            yield from _measured(name, pairs, planted)
            yield measure(f"{name}, seconds", time.perf_counter() - begun, "s")


def _phash(folder: str) -> Pairs:
    from imagededup.methods import PHash  # type: ignore[import-not-found]

    found = PHash().find_duplicates(image_dir=folder, scores=True, max_distance_threshold=16)
    return {(a, b): -float(distance) for a, near in found.items() for b, distance in near}


def _cnn(folder: str) -> Pairs:
    from imagededup.methods import CNN

    found = CNN().find_duplicates(image_dir=folder, scores=True, min_similarity_threshold=0.5)
    return {(a, b): float(cosine) for a, near in found.items() for b, cosine in near}


def _cleanvision(folder: str) -> Pairs:
    from cleanvision import Imagelab  # type: ignore[import-not-found]

    lab = Imagelab(data_path=folder)
    lab.find_issues({"exact_duplicates": {}, "near_duplicates": {}}, n_jobs=1, verbose=False)
    sets = [
        [Path(name).name for name in one]
        for kind in ("exact_duplicates", "near_duplicates")
        for one in lab.info[kind]["sets"]
    ]
    return {pair: 1.0 for one in sets for pair in combinations(one, 2)}


def _pairs(found: Findings) -> dict[tuple[str, str], float]:
    return {
        _key(a, b): one.similarity or 0.0
        for one in found.of("exact", "near")
        for a, b in combinations(one.ids, 2)
    }


def _measured(name: str, pairs: Pairs, planted: Manifest) -> Iterator[BenchRow]:
    """Yield average precision and recall of a method."""
    sets: dict[str, list[Row]] = {}
    for row in planted.rows:
        sets.setdefault(row.id.partition(MARK)[0], []).append(row)
    there = sum(len(rows) * (len(rows) - 1) // 2 for rows in sets.values())
    own = {key for key in pairs if not any(MARK in name for name in key)}
    listed = [
        (value, _origin(a) == _origin(b))
        for (a, b), value in sorted(pairs.items(), key=lambda pair: -pair[1])
        if (MARK in a or MARK in b) and _key(_origin(a), _origin(b)) not in own
    ]
    precision, recall = average_precision([good for _, good in listed], there)
    yield measure(f"{name}: average precision", precision, "")
    yield measure(f"{name}: recall at precision 0.9", recall, "")


def _origin(name: str) -> str:
    return name.partition(MARK)[0]


def _key(one: str, other: str) -> tuple[str, str]:
    return (one, other) if one < other else (other, one)


def _labels(store: FeatureStore, encoder: str) -> Iterator[BenchRow]:
    """Yield how well wrong labels of the first task are ranked first, planted twins left out."""
    ids = store.ids
    rows = np.array(
        [
            row
            for row in np.flatnonzero((store.status == DONE) & (store.labels[:, 0] >= 0)).tolist()
            if MARK not in ids[row]
        ]
    )
    features = compressed(mean_features(store, rows)[0])
    labels = store.labels[rows, 0].astype(np.int64)
    classes = int(labels.max()) + 1
    groups = [store.groups[row] for row in rows.tolist()]
    rng = np.random.default_rng(0)
    for share in NOISE:
        turned = rng.choice(len(rows), round(share * len(rows)), replace=False)
        given = labels.copy()
        given[turned] = (labels[turned] + rng.integers(1, classes, len(turned))) % classes
        wrong = np.isin(np.arange(len(rows)), turned)
        order = np.argsort(-suspicion(features, given, groups), kind="stable")
        precision, _ = average_precision(wrong[order].tolist(), int(wrong.sum()))
        yield measure(
            f"{encoder}, {100 * share:.0f} % wrong labels: average precision", precision, ""
        )
        yield from _cleanlab(
            features, given, groups, classes, wrong, f"{encoder}, {100 * share:.0f} %"
        )


def _cleanlab(
    features: np.ndarray,
    given: np.ndarray,
    groups: Sequence[str],
    classes: int,
    wrong: np.ndarray,
    name: str,
) -> Iterator[BenchRow]:
    """Yield cleanlab's ranking by the same out-of-fold probabilities, where it is installed."""
    try:
        from cleanlab.rank import get_label_quality_scores  # type: ignore[import-not-found]
    except ImportError:
        return
    from samcls.audit.checks.labels import out_of_fold

    said = out_of_fold(features, given, groups, classes)
    quality = get_label_quality_scores(given, said / said.sum(1, keepdims=True))
    precision, _ = average_precision(wrong[np.argsort(quality)].tolist(), int(wrong.sum()))
    yield measure(f"{name} wrong labels, cleanlab: average precision", precision, "")
