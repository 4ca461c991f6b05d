"""What is explained: images of a store by id or split, or pictures that a run has never seen.

Either way they come as stage one gives them, a batch at a time, and become evidence; their pictures are read only
where an overlay is drawn.

    subject = of_store(runs, FeatureStore.open("features.zarr"), split="test", manifest="manifest.csv")
    subject.evidence, subject.picture(0)
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from samcls.data.images import pixel_digest, read_image
from samcls.data.manifest import SPLITS, Manifest, Row, read_manifest
from samcls.deploy.encoded import features_of, stored
from samcls.deploy.inputs import Pictures
from samcls.deploy.predictor import Predictor
from samcls.deploy.said import encoded, read_picture
from samcls.encode.extract import pooled_shape
from samcls.errors import ImageError, InputError
from samcls.explain.evidence import Evidence, evidence_of, joined, places_of
from samcls.files import few
from samcls.learn.features.tensors import Features
from samcls.learn.fit.fit import steady_threads
from samcls.learn.runs.known import image_means
from samcls.store.feature_store import FeatureStore, RowBatch
from samcls.store.schema import DONE, Fingerprint, LevelShape

__all__ = ["Neighbours", "Subject", "of_pictures", "of_rows", "of_store"]

NEIGHBOURS = 5

Picture = UInt8[np.ndarray, "row col 3"]
Log = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Of some images, by number, the training images with the most similar features.

    Attributes:
        ids: Nearest first.
        labels: Of these, in words.
        distances: Euclidean, between standardised means of all levels.
    """

    ids: Mapping[int, Sequence[str]]
    labels: Mapping[int, Sequence[str]]
    distances: Mapping[int, Sequence[float]]


@dataclass(frozen=True, eq=False)
class Subject:
    """Some images and how their features come.

    Attributes:
        predictor: The runs.
        batches: Gives their features, some images at a time, as stage one does.
        shapes: Of each level's stored map.
        ids: Of the images.
        groups: Patient or lesion; empty where there is none.
        labels: Class indices of the run's tasks, -1 where missing.
        read: Gives an image's picture by its number, or raises `ImageError`; None where there are none.
        store: Where training images are found; None without one.
        texts: Columns beside the image, by the number that a batch gives an image.
        source: What it is, in words.
        sha256: Of the decoded pixels.
        manifest: Where the store's pictures are; None for those that it keeps.
    """

    predictor: Predictor
    batches: Callable[[], Iterator[RowBatch]]
    shapes: Mapping[str, LevelShape]
    ids: tuple[str, ...]
    groups: tuple[str, ...]
    labels: Int[np.ndarray, "image task"]
    read: Callable[[int], Picture] | None
    store: FeatureStore | None
    texts: Mapping[str, Sequence[str]]
    source: str
    sha256: UInt8[np.ndarray, "image 32"]
    manifest: Manifest | None = None

    @property
    def made(self) -> Fingerprint:
        """What made the features."""
        return self.predictor.fingerprint

    def chunks(self) -> Iterator[tuple[Features, Float[np.ndarray, "image 2"]]]:
        """Yield features, not standardised, and extents as shares of the frame; images that failed are left out."""
        models = self.predictor.models
        for batch in self.batches():
            rows = np.flatnonzero(batch.status == DONE)
            if len(rows):
                found = features_of(models[0], self.made, batch, rows, self.texts, self.shapes)
                yield found, batch.valid[rows].astype(np.float64) / self.made.input_size

    @cached_property
    def evidence(self) -> Evidence:
        """Of all images.

        Raises:
            InputError: the head's answers cannot be divided among windows, or no image can be used.
        """
        models = self.predictor.models
        places = places_of(models[0], self.made, self.shapes)
        parts = []
        for features, extents in self.chunks():
            with steady_threads(features, models[0].config):
                parts.append(evidence_of(models, features, extents, places))
        if not parts:
            raise InputError(f"none of {self.source} can be used")
        return joined(parts, self.ids)

    def picture(self, number: int) -> Picture:
        """Return an image's picture.

        Raises:
            ImageError: it cannot be read.
        """
        if self.read is None:
            raise ImageError(
                "there are no pictures: give --manifest, or a store made with --keep-pixels"
            )
        return self.read(number)

    @cached_property
    def means(self) -> Float[np.ndarray, "image channel"]:
        """Each image's standardised means."""
        scaler = self.predictor.models[0].scaler
        return np.concatenate([image_means(f.standardised(scaler)) for f, _ in self.chunks()])

    @cached_property
    def others(self) -> "Subject | None":
        """The images that the first run learned from; None without a store."""
        if self.store is None:
            return None
        places = {name: row for row, name in enumerate(self.store.ids)}
        train = self.predictor.runs[0].predictions("train").ids
        rows = np.array(sorted(places[name] for name in train if name in places), dtype=np.int64)
        return of_rows(self.predictor, self.store, rows, self.manifest) if len(rows) else None

    def neighbours(self, numbers: Sequence[int]) -> Neighbours | None:
        """Return the nearest training images of some images; None without a store.

        Args:
            numbers: Of the images.
        """
        others = self.others
        if others is None:
            return None
        means, ids, labels, distances = others.means, {}, {}, {}
        for number in numbers:
            away = np.linalg.norm(means - self.means[number], axis=1)
            near = [
                at
                for at in np.argsort(away, kind="stable")[: 2 * NEIGHBOURS].tolist()
                if others.ids[at] != self.ids[number]
                and not np.array_equal(others.sha256[at], self.sha256[number])
            ][:NEIGHBOURS]
            ids[number] = [others.ids[at] for at in near]
            labels[number] = [others.label(at) for at in near]
            distances[number] = away[near].tolist()
        return Neighbours(ids, labels, distances)

    def label(self, number: int) -> str:
        """Return an image's labels in words; empty where it has none."""
        named = zip(self.predictor.tasks.items(), self.labels[number].tolist(), strict=True)
        return ", ".join(
            names[at] if len(self.predictor.tasks) == 1 else f"{task}={names[at]}"
            for (task, names), at in named
            if at >= 0
        )


def of_store(
    predictor: Predictor,
    store: FeatureStore,
    *,
    ids: Sequence[str] = (),
    split: str = "test",
    manifest: str | Path | None = None,
    root: str | Path | None = None,
) -> Subject:
    """Return images of a store.

    Args:
        predictor: The runs.
        store: Of features made as the runs' were.
        ids: Which images; those of a split where none is named.
        split: Of the run; with labels that it learned or was scored by.
        manifest: Where the pictures are.
        root: Folder that the manifest's relative paths start from.

    Raises:
        FingerprintMismatch: the store was made with other settings.
        InputError: an image is not in the store or not encoded, or the runs are folds.
    """
    store.require(predictor.fingerprint)
    run = predictor.runs[0]
    if len(predictor.runs) > 1 and run.config.folds:
        raise InputError(
            "every fold has another test split, and the others learned from its images; name one fold's folder, "
            f"such as {run.path}"
        )
    if split not in SPLITS:
        raise InputError(f"split is {split!r}; expected one of {', '.join(SPLITS)}")
    wanted = tuple(ids) or run.predictions(split).ids
    places = {name: row for row, name in enumerate(store.ids)}
    strange = [name for name in wanted if name not in places]
    if strange:
        raise InputError(
            f"{len(strange)} of {len(wanted)} images are not in {store.path} ({few(strange)}); its ids are "
            f"like {', '.join(list(places)[:2])}"
        )
    rows = np.unique([places[name] for name in wanted])
    bad = [store.ids[row] for row in rows.tolist() if store.status[row] != DONE]
    if bad:
        raise InputError(
            f"{counted(len(bad), 'image')} of {store.path} cannot be explained, having no features ({few(bad)}); leave them out"
        )
    known = None if manifest is None else read_manifest(manifest, root)
    return of_rows(predictor, store, rows, known)


def of_rows(
    predictor: Predictor,
    store: FeatureStore,
    rows: Int[np.ndarray, " row"],
    manifest: Manifest | None,
) -> Subject:
    """Return some rows of a store, all of them encoded.

    Args:
        predictor: The runs.
        store: Of features made as the runs' were.
        rows: Ascending.
        manifest: Where the pictures are; None takes those that the store keeps.
    """
    ids = tuple(store.ids[row] for row in rows.tolist())
    return Subject(
        predictor=predictor,
        batches=lambda: stored(predictor.models[0], predictor.fingerprint, store, rows),
        shapes=store.levels,
        ids=ids,
        groups=tuple(store.groups[row] for row in rows.tolist()),
        labels=_labels(store.tasks, store.labels[rows], predictor.tasks),
        read=_reader(store, rows, manifest),
        store=store,
        texts=store.meta,
        source=f"{counted(len(rows), 'image')} of {store.path}",
        sha256=store.sha256[rows],
        manifest=manifest,
    )


def of_pictures(
    predictor: Predictor,
    pictures: Pictures | str | Path | np.ndarray,
    store: FeatureStore | None,
    log: Log,
) -> Subject:
    """Return pictures that are encoded now.

    Args:
        predictor: The runs.
        pictures: Files, as `pictures_of` gives them; or one file or array.
        store: Where training images are found; None for no neighbours.
        log: Called with the reason of every picture that cannot be used.

    Raises:
        InputError: none can be used.
    """
    known = pictures if isinstance(pictures, Pictures) else Pictures(())
    predictor.need_columns(known.texts())
    given: list[Any] = list(known.rows) if isinstance(pictures, Pictures) else [pictures]
    batches = list(encoded(given, np.arange(len(given)), predictor.encoder, predictor.options, log))
    good = np.concatenate([batch.rows[batch.status == DONE] for batch in batches])
    reasons = [error for batch in batches for error in batch.error if error]
    for reason in reasons:
        log(f"a picture is left out: {reason}")
    if not len(good):
        raise InputError(f"none of {len(given)} pictures can be used: {few(reasons)}")
    kept = [given[at] for at in good.tolist()]
    rows = [one for one in kept if isinstance(one, Row)]
    model, made = predictor.models[0], predictor.fingerprint
    return Subject(
        predictor=predictor,
        batches=lambda: iter(batches),
        shapes={
            level: pooled_shape(predictor.encoder, level, made.window)
            for level in model.shape.channels
            if level in made.levels
        },
        ids=tuple(one.id if isinstance(one, Row) else "picture" for one in kept),
        groups=tuple(one.group if isinstance(one, Row) else "" for one in kept),
        labels=(
            _named(rows, known.tasks, predictor.tasks)
            if rows
            else np.full((len(kept), len(predictor.tasks)), -1, dtype=np.int64)
        ),
        read=lambda number: read_picture(kept[number]),
        store=store,
        texts=known.texts(),
        source=counted(len(kept), "picture"),
        sha256=np.concatenate([batch.sha256[batch.status == DONE] for batch in batches]),
    )


def _reader(
    store: FeatureStore, rows: Int[np.ndarray, " row"], manifest: Manifest | None
) -> Callable[[int], Picture] | None:
    if manifest is not None:
        known: dict[str, Row] = {row.id: row for row in manifest.rows}

        def of_file(number: int) -> Picture:
            name = store.ids[int(rows[number])]
            if name not in known:
                raise ImageError(f"{name} is not in {manifest.source}")
            picture = read_image(known[name].path, known[name].index)
            if pixel_digest(picture) != store.sha256[int(rows[number])].tobytes().hex():
                raise ImageError(f"{known[name].path} is not the picture that was encoded")
            return picture

        return of_file
    if not store.pixel_size:
        return None

    def of_store(number: int) -> Picture:
        row = int(rows[number])
        height, width = (
            max(1, round(int(side) * store.pixel_size / store.fingerprint.input_size))
            for side in store.valid[row]
        )
        found: np.ndarray = store.pixels([row])[0][:height, :width]
        return found

    return of_store


def _labels(
    tasks: Mapping[str, tuple[str, ...]],
    labels: Int[np.ndarray, "image task"],
    wanted: Mapping[str, tuple[str, ...]],
) -> Int[np.ndarray, "image wanted"]:
    """Return labels as the run counts its classes, -1 where it has none of that name."""
    found = np.full((len(labels), len(wanted)), -1, dtype=np.int64)
    for place, (task, names) in enumerate(wanted.items()):
        if task in tasks:
            own = list(tasks).index(task)
            known = {at: names.index(name) for at, name in enumerate(tasks[task]) if name in names}
            found[:, place] = [known.get(at, -1) for at in labels[:, own].tolist()]
    return found


def _named(
    rows: Sequence[Row], tasks: Mapping[str, tuple[str, ...]], wanted: Mapping[str, tuple[str, ...]]
) -> Int[np.ndarray, "image wanted"]:
    found = np.full((len(rows), len(wanted)), -1, dtype=np.int64)
    for place, (task, names) in enumerate(wanted.items()):
        if task in tasks:
            own = list(tasks).index(task)
            given = [row.labels[own] for row in rows]
            found[:, place] = [names.index(one) if one in names else -1 for one in given]
    return found


def counted(number: int, what: str) -> str:
    """Return a number of things in words."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
