"""A data set that changes: which images of a manifest are no longer what a store was made from.

A store knows the SHA-256 of each image's decoded pixels, so a file that was only written again is
no change. Looking costs the decoding of every done image.

    changed, unreadable = look_for_changes(in_store_order(manifest, store), store)
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int

from samcls.data.images import pixel_digest, read_image
from samcls.data.leaks import Leaks, find_leaks
from samcls.data.manifest import Manifest, Row
from samcls.errors import ImageError, RunError
from samcls.files import few
from samcls.store.feature_store import FeatureStore, RowTable
from samcls.store.schema import DONE
from samcls.store.verify import Problem

__all__ = [
    "ImageChanges",
    "follow_images",
    "in_store_order",
    "leaks_in",
    "look_for_changes",
    "manifest_problems",
    "table_of",
]

DECODERS = 4  # threads; Pillow and hashing release the interpreter
TOGETHER = 256  # images that are under way at once
GONE = Row(id="", path="", index=None, split="", group="", labels=())


def table_of(manifest: Manifest) -> RowTable:
    """Return what a store keeps of a manifest."""
    return RowTable(
        ids=manifest.ids,
        splits=manifest.splits,
        groups=manifest.groups,
        tasks=manifest.tasks,
        labels=manifest.labels(),
        meta={
            name: [row.meta[place] for row in manifest.rows]
            for place, name in enumerate(manifest.meta)
        },
        ordinal=manifest.ordinal,
    )


def leaks_in(store: FeatureStore) -> Leaks:
    """Look for groups and pictures in several splits among a store's done rows."""
    done = (store.status == DONE).tolist()
    splits = [split if taking else "" for split, taking in zip(store.splits, done, strict=True)]
    return find_leaks(store.ids, splits, store.groups, store.sha256, store.labels)


def in_store_order(manifest: Manifest, store: FeatureStore) -> Manifest:
    """Return a manifest whose rows are the store's; an image that it lacks has no path there."""
    ids = store.ids
    if ids == manifest.ids:
        return manifest
    known = {row.id: row for row in manifest.rows}
    return replace(manifest, rows=tuple(known.get(name, GONE) for name in ids))


@dataclass(frozen=True)
class ImageChanges:
    """What became of the images of done rows.

    Attributes:
        changed: Rows whose pixels are others now, ascending.
        unreadable: (row, reason) for each whose file cannot be read any more.
    """

    changed: Int[np.ndarray, " image"]
    unreadable: tuple[tuple[int, str], ...]


def look_for_changes(manifest: Manifest, store: FeatureStore) -> ImageChanges:
    """Decode the image of every done row and compare its pixels with those that were encoded.

    Args:
        manifest: In the store's order; rows that it lacks are passed over.
        store: Open.
    """
    done = np.flatnonzero(store.status == DONE).tolist()
    rows = np.array([row for row in done if manifest.rows[row].path], dtype=np.int64)
    known = store.sha256
    changed, unreadable = [], []
    for row, digest, reason in _digests(manifest, rows):
        if reason:
            unreadable.append((row, reason))
        elif digest != known[row].tobytes():
            changed.append(row)
    return ImageChanges(np.array(changed, dtype=np.int64), tuple(unreadable))


def follow_images(
    manifest: Manifest, store: FeatureStore, *, encode: bool, log: Callable[[str], None]
) -> None:
    """Look for changed images; have them encoded again, or say which they are and stop.

    A file that cannot be read any more is said, and its features stay: they are what it was.

    Args:
        manifest: In the store's order.
        store: Opened for writing.
        encode: Mark them pending.
        log: Called with a sentence on what was found.

    Raises:
        RunError: images have changed and are not to be encoded.
    """
    found, ids = look_for_changes(manifest, store), store.ids
    if found.unreadable:
        log(
            f"{len(found.unreadable)} images that are done cannot be read now and keep their features: "
            + few(f"{ids[row]} ({reason})" for row, reason in found.unreadable)
        )
    if not len(found.changed):
        return
    named = few(ids[row] for row in found.changed)
    count = len(found.changed)
    if not encode:
        raise RunError(
            f"{count} images of {store.path} have other pixels now than when they were encoded: "
            f"{named}. Nothing was encoded; give --changed encode to encode them again, or leave "
            "--changed out to go on with the features of the old ones"
        )
    log(f"{count} images have changed and are encoded again: {named}")
    store.mark_pending(found.changed)


def manifest_problems(
    manifest: Manifest, store: FeatureStore, *, allow_leak: bool = False
) -> list[Problem]:
    """Name every row of a store that its manifest, or an image, contradicts; for `store verify`.

    Kinds: `not in the manifest`, `not in the store`, `manifest differs` (a column; no row),
    `image changed` or `image unreadable`, and unless it is allowed `group in several splits`.
    """
    change = store.compare_table(table_of(manifest))
    place = {name: row for row, name in enumerate(store.ids)}
    problems = [
        *(Problem(place[name], name, "id", "not in the manifest") for name in change.removed),
        *(Problem(None, name, "id", "not in the store") for name in change.added),
        *(Problem(None, "", name, "manifest differs") for name in change.columns),
    ]
    if change.moved:
        detail = f"{len(change.moved)} rows are in another order"
        problems.append(Problem(None, "", "id", "manifest differs", detail))
    divided = find_leaks(manifest.ids, manifest.splits, manifest.groups).divided_groups()
    if divided and not allow_leak:
        problems.append(Problem(None, "", "group", "group in several splits", divided))
    images, ids = look_for_changes(in_store_order(manifest, store), store), store.ids
    problems += [Problem(r, ids[r], "sha256", "image changed") for r in images.changed.tolist()]
    problems += [
        Problem(row, ids[row], "sha256", "image unreadable", reason)
        for row, reason in images.unreadable
    ]
    return problems


def _digests(
    manifest: Manifest, rows: Int[np.ndarray, " image"]
) -> Iterator[tuple[int, bytes, str]]:
    """Yield (row, digest of the pixels, why there is none)."""

    def one(row: int) -> tuple[int, bytes, str]:
        entry = manifest.rows[row]
        try:
            image = read_image(entry.path, entry.index)
        except ImageError as error:
            return row, b"", str(error)
        return row, bytes.fromhex(pixel_digest(image)), ""

    with ThreadPoolExecutor(DECODERS, thread_name_prefix="decode") as pool:
        for start in range(0, len(rows), TOGETHER):
            yield from pool.map(one, rows[start : start + TOGETHER].tolist())
