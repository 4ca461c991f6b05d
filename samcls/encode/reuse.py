"""Features that other stores hold of the same pictures: copied bit for bit instead of encoded again.

A picture is known by the SHA-256 of its decoded pixels, whatever its file, its id and its row are. So every
image is decoded, some milliseconds beside the tenths of a second of a SAM encoder, and kept images are
framed anew; what the encoder gave is read from the store that has it, through its checksums. One extract
so takes a part of a store, orders it anew, or joins the stores of several hospitals.

    samcls extract both.csv both.zarr --reuse a.zarr --reuse b.zarr
"""

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

from samcls.errors import ConfigError
from samcls.store.feature_store import FeatureStore
from samcls.store.keys import local_path
from samcls.store.schema import DONE, Fingerprint

__all__ = ["Donors", "open_donors"]


class Donors:
    """Done rows of other stores, numbered downwards from -1: a store's own rows count from 0.

    Args:
        stores: Open, of one fingerprint; of a picture that several hold the first one's is taken.
    """

    def __init__(self, stores: Sequence[FeatureStore] = ()) -> None:
        self._stores = tuple(stores)
        self._starts = np.cumsum([0, *(len(store) for store in stores)]).tolist()
        self._held: tuple[tuple[int, int], dict[str, np.ndarray]] | None = None

    def rows(self) -> dict[bytes, int]:
        """Return the number of each pixel hash that is done."""
        found: dict[bytes, int] = {}
        for store, start in zip(self._stores, self._starts, strict=False):
            digests = store.sha256
            for row in np.flatnonzero(store.status == DONE).tolist():
                found.setdefault(digests[row].tobytes(), -1 - (start + row))
        return found

    def features(self, number: int) -> dict[str, np.ndarray]:
        """Return a row's features, (view, channel, row, col) for each level.

        Args:
            number: One of those that `rows` gives.

        Raises:
            StoreError: they are damaged, or not there any more.
        """
        place = -1 - number
        which = bisect_right(self._starts, place) - 1
        store, row = self._stores[which], place - self._starts[which]
        height = store.partition.chunk_rows
        first = row - row % height
        if self._held is None or self._held[0] != (which, first):  # rows mostly follow each other
            rows = slice(first, min(first + height, len(store)))
            chunk = {level: store.read(level, rows) for level in store.levels}
            self._held = ((which, first), chunk)
        return {level: values[row - first] for level, values in self._held[1].items()}


def open_donors(paths: Sequence[str], path: str, fingerprint: Fingerprint) -> Donors:
    """Open the stores whose features are to be reused.

    Args:
        paths: Of these stores.
        path: Of the store that is written.
        fingerprint: Of that one.

    Raises:
        ConfigError: the store itself is among them.
        FingerprintMismatch: one was made with other settings.
        StoreError: one is not there, or damaged.
    """
    own = local_path(path) or path
    stores = []
    for one in paths:
        if (local_path(one) or one) == own:
            raise ConfigError(
                f"--reuse names {one}, the store that is written; name another one, whose features of "
                "the same pictures are to be copied"
            )
        store = FeatureStore.open(one)
        store.require(fingerprint)
        stores.append(store)
    return Donors(stores)
