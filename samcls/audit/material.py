"""What an audit looks at: the columns of a manifest or store, its pictures and its features, as far as they are there.

material = material_of("features.zarr", "manifest.csv")
material.looks, material.means
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from samcls.audit.finding import Finding
from samcls.audit.looks import Looks, look_at
from samcls.audit.maps import compressed, mean_features
from samcls.audit.nearest import nearest, unit
from samcls.data.images import read_image
from samcls.data.manifest import Manifest, Row, check_files, read_manifest
from samcls.errors import InputError
from samcls.files import few
from samcls.store.feature_store import FeatureStore
from samcls.store.schema import DONE, FAILED, PENDING

__all__ = ["Material", "material_of"]

Progress = Callable[[int, int], None]
NEIGHBOURS = 10


@dataclass(frozen=True, eq=False)
class Material:
    """One row for each image, in the order of the manifest or store.

    Attributes:
        source: Manifest or store.
        ids: Of the images.
        splits: `train`, `val` or `test`; empty for one that takes no part.
        groups: Patient or lesion; empty where there is none.
        tasks: Class names of each task.
        labels: Class indices, -1 where missing.
        meta: Columns that are kept and never learned, a text for each image.
        there: Images that can be compared: readable, or done in the store.
        sha256: Of the decoded pixels; zeros where they are not known.
        errors: Why an image is not there; empty where it is.
        read: Gives an image's picture by its row; None where there are no pictures.
        looks: What the pictures look like; None where there are none.
        store: The feature store; None on a manifest alone.
        manifest: None on a store alone.
        notes: What was not looked at, and why.
        pretraining: Digests of pixels that the encoder was trained on, as far as they are known.
    """

    source: str
    ids: tuple[str, ...]
    splits: tuple[str, ...]
    groups: tuple[str, ...]
    tasks: Mapping[str, tuple[str, ...]]
    labels: Int[np.ndarray, "image task"]
    meta: Mapping[str, Sequence[str]]
    there: Bool[np.ndarray, " image"]
    sha256: UInt8[np.ndarray, "image 32"]
    errors: tuple[str, ...]
    read: Callable[[int], UInt8[np.ndarray, "row col 3"]] | None = None
    looks: Looks | None = None
    store: FeatureStore | None = None
    manifest: Manifest | None = None
    notes: tuple[str, ...] = ()
    pretraining: frozenset[bytes] = frozenset()

    @cached_property
    def rows(self) -> Int[np.ndarray, " row"]:
        """Images that can be compared."""
        return np.flatnonzero(self.there)

    @cached_property
    def means(self) -> Float[np.ndarray, "view row channel"] | None:
        """Of `rows`, each channel's mean over the picture; None without a store."""
        return None if self.store is None else mean_features(self.store, self.rows)

    @cached_property
    def features(self) -> Float[np.ndarray, "row component"] | None:
        """Of `rows`, the means along few directions, by which classes are told; None without a store."""
        return None if self.means is None else compressed(self.means[0])

    @cached_property
    def near(self) -> tuple[Int[np.ndarray, "row near"], Float[np.ndarray, "row near"]] | None:
        """Of `rows`, the nearest others by `features`, and their cosines; None without a store."""
        return None if self.features is None else nearest(unit(self.features), NEIGHBOURS)

    @cached_property
    def digests(self) -> list[bytes]:
        """Each image's pixels; empty where they are not known."""
        return [one.tobytes() if one.any() else b"" for one in self.sha256]

    def label(self, row: int) -> str:
        """Return an image's labels in words."""
        named = zip(self.tasks.items(), self.labels[row].tolist(), strict=True)
        return ", ".join(f"{task}={classes[at]}" for (task, classes), at in named if at >= 0)

    def contradict(self, rows: Sequence[int]) -> bool:
        """Whether some images' labels differ as far as they are there."""
        return any(len(np.unique(c[c >= 0])) > 1 for c in self.labels[list(rows)].T)

    def finding(
        self,
        code: str,
        rows: Sequence[int],
        sentence: str,
        similarity: float | np.floating | None = None,
    ) -> Finding:
        """Return a finding on some images."""
        return Finding(
            code,
            tuple(self.ids[row] for row in rows),
            tuple(self.splits[row] for row in rows),
            tuple(self.label(row) for row in rows),
            None if similarity is None else round(float(similarity), 4),
            sentence,
        )


def material_of(
    data: str | Path | FeatureStore | Manifest,
    manifest: str | Path | Manifest | None = None,
    *,
    root: str | Path | None = None,
    progress: Progress | None = None,
) -> Material:
    """Open what is to be audited and look at its pictures once.

    Args:
        data: A manifest (`.csv`) or a feature store.
        manifest: Of a store: where its pictures are.
        root: Folder that the manifest's relative paths start from.
        progress: Called with how many pictures are looked at, of how many.

    Raises:
        InputError: there is nothing to look at.
    """
    if isinstance(data, Manifest) or (
        not isinstance(data, FeatureStore) and str(data).lower().endswith(".csv")
    ):
        if manifest is not None:
            raise InputError(
                f"--manifest is for a store; {data} is a manifest itself: give the store in its place"
            )
        return _of_manifest(data, root, progress)
    store = data if isinstance(data, FeatureStore) else FeatureStore.open(data)
    return _of_store(store, manifest, root, progress)


def _of_manifest(
    data: str | Path | Manifest, root: str | Path | None, progress: Progress | None
) -> Material:
    rows = data if isinstance(data, Manifest) else read_manifest(data, root)
    check_files(rows)
    looks = look_at(_picture, rows.rows, progress)
    if not looks.there.any():
        raise InputError(f"no image of {rows.source} can be read: {looks.errors[0]}")
    return Material(
        source=str(rows.source),
        ids=tuple(rows.ids),
        splits=tuple(rows.splits),
        groups=tuple(rows.groups),
        tasks=rows.tasks,
        labels=rows.labels(),
        meta={name: [row.meta[i] for row in rows.rows] for i, name in enumerate(rows.meta)},
        there=looks.there,
        sha256=looks.sha256,
        errors=looks.errors,
        read=lambda at: _picture(rows.rows[at]),
        looks=looks,
        manifest=rows,
        notes=("on a manifest alone: label-suspect and off-topic need the features of a store",),
    )


def _of_store(
    store: FeatureStore,
    manifest: str | Path | Manifest | None,
    root: str | Path | None,
    progress: Progress | None,
) -> Material:
    status = store.status
    there = status == DONE
    if not there.any():
        raise InputError(
            f"no image of {store.path} is encoded; run samcls extract first, or audit the manifest"
        )
    notes = []
    if waiting := int((status == PENDING).sum()):
        notes.append(
            f"{waiting} of {len(status)} images are pending: only those that are done were audited"
        )
    if store.provenance:
        notes.append(store.provenance)
    known = None
    read: Callable[[int], Any] | None = None
    looks = None
    if manifest is not None:
        known = manifest if isinstance(manifest, Manifest) else read_manifest(manifest, root)
        rows = _in_order(store, known)
        looks = look_at(_picture, rows, progress)
        moved = [
            store.ids[i]
            for i in np.flatnonzero(there & looks.there)
            if not np.array_equal(looks.sha256[i], store.sha256[i])
        ]
        if moved:
            raise InputError(
                f"{len(moved)} pictures of {known.source} are not those that {store.path} was made from "
                f"({few(moved)}): give the manifest of this store, or extract again with --changed encode"
            )
        gone = [store.ids[i] for i in np.flatnonzero(there & ~looks.there).tolist()]
        if gone:
            notes.append(
                f"{len(gone)} of {there.sum()} pictures cannot be read now ({few(gone)}): near twins of "
                f"{'it' if len(gone) == 1 else 'them'} are not found"
            )
        read = lambda at: _picture(rows[at])  # noqa: E731 - one of three
    elif store.pixel_size:
        size = store.fingerprint.input_size

        def read(at: int) -> UInt8[np.ndarray, "row col 3"]:
            height, width = (
                max(1, round(int(side) * store.pixel_size / size)) for side in store.valid[at]
            )
            found: np.ndarray = store.pixels([at])[0][:height, :width]
            return found

        places = np.flatnonzero(there)
        looks = _spread(look_at(read, places.tolist(), progress), places, len(there))
    else:
        notes.append(
            "without pictures (--manifest M.csv, or a store made with --keep-pixels) near-duplicates are told by "
            "features alone, which finds fewer of the turned and cropped ones, and blank, tiny, mostly-padding and "
            "odd-mode are not looked for"
        )
    return Material(
        source=store.path,
        ids=tuple(store.ids),
        splits=tuple(
            split if code in (DONE, PENDING, FAILED) else ""
            for split, code in zip(store.splits, status.tolist(), strict=True)
        ),
        groups=tuple(store.groups),
        tasks=store.tasks,
        labels=store.labels,
        meta=store.meta,
        there=there,
        sha256=np.where(there[:, None], store.sha256, 0).astype(np.uint8),
        errors=tuple(store.errors),
        read=read,
        looks=looks,
        store=store,
        manifest=known,
        notes=tuple(notes),
    )


def _picture(row: Row) -> UInt8[np.ndarray, "row col 3"]:
    return read_image(row.path, row.index)


def _in_order(store: FeatureStore, manifest: Manifest) -> list[Row]:
    known = {row.id: row for row in manifest.rows}
    absent = [
        name
        for name, code in zip(store.ids, store.status.tolist(), strict=True)
        if name not in known and code == DONE
    ]
    if absent:
        raise InputError(
            f"{len(absent)} images of {store.path} are not in {manifest.source} ({few(absent)}): give the "
            "manifest that the store was made from"
        )
    gone = Row("", "", None, "", "", ())
    return [known.get(name, gone) for name in store.ids]


def _spread(looks: Looks, places: Int[np.ndarray, " row"], count: int) -> Looks:
    """Bring what is known of some images into rows of all."""
    wide: dict[str, Any] = {}
    for name in ("thumbs", "sha256", "sizes", "grey", "contrast", "border"):
        values = getattr(looks, name)
        wide[name] = np.zeros((count, *values.shape[1:]), values.dtype)
        wide[name][places] = values
    errors = ["not encoded"] * count
    for place, error in zip(places.tolist(), looks.errors, strict=True):
        errors[place] = error
    return Looks(**wide, errors=tuple(errors))
