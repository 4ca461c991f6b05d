"""Make an empty feature store: every array, the ids, splits and labels, every row pending.

A local store is made beside its place and moved there when it is whole; of one at a URL the attributes
are written last. A creation that was cut off holds no work and is made anew.

    create_store("features.zarr", fingerprint, levels, table)        # FeatureStore.create opens it too
"""

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import zarr

from samcls.errors import StoreError
from samcls.store.columns import configured, open_array
from samcls.store.keys import Keys, local_path
from samcls.store.layout import DEFAULT_CODEC, array_paths, create_arrays, row_arrays
from samcls.store.lock import Claim
from samcls.store.metadata import (
    CREATED_BY,
    MARK,
    ROOT,
    STORE_ID,
    describe_arrays,
    write_attributes,
)
from samcls.store.opening import refuse_other_contents, writing
from samcls.store.rows import RowTable
from samcls.store.schema import (
    CHECKPOINT,
    FORMAT_VERSION,
    PIXELS,
    Fingerprint,
    LevelShape,
    Partition,
)
from samcls.store.swap import swapped_in
from samcls.store.tables import table_attributes

__all__ = ["create_store"]


def create_store(
    path: str,
    fingerprint: Fingerprint,
    levels: Mapping[str, LevelShape],
    table: RowTable,
    codec: str = DEFAULT_CODEC,
    partition: Partition | None = None,
    claim: Claim | None = None,
    pixels: int = 0,
    checkpoint: Mapping[str, str | None] | None = None,
) -> None:
    """Make a store, as `FeatureStore.create`, without opening it."""
    if tuple(levels) != fingerprint.levels:
        raise StoreError(f"got shapes for levels {tuple(levels)}; expected {fingerprint.levels}")
    if not table.ids:
        raise StoreError("a store needs at least one row; the manifest has none")
    Keys.of(path, read_only=False)  # a URL that cannot be written is said first
    refuse_other_contents(path)
    attributes: dict[str, Any] = {
        CREATED_BY: MARK,
        "fingerprint": fingerprint.to_dict(),
        "format_version": FORMAT_VERSION,
        STORE_ID: uuid.uuid4().hex,
        **table_attributes(table),
        **({PIXELS: pixels} if pixels else {}),
        **({CHECKPOINT: dict(checkpoint)} if checkpoint else {}),
    }

    def build(place: str | Path) -> None:
        keys = Keys.of(place, read_only=False)
        with writing(path, claim), configured():
            for key in keys.under(""):  # of a creation that was cut off
                if key != ROOT:
                    keys.delete(key)
            group = zarr.open_group(
                keys.store, mode="a", zarr_format=3, attributes={CREATED_BY: MARK}
            )
            create_arrays(group, fingerprint, levels, table, codec, partition, pixels)
        with writing(path, claim):
            for name, (_, _, values) in row_arrays(table).items():
                open_array(keys, name, attributes[STORE_ID], replacing=True)[:] = values
            paths = array_paths(fingerprint, pixels, bool(table.meta))
            write_attributes(keys, attributes, describe_arrays(keys, paths))

    if local_path(path) is None:
        build(path)
    else:
        with swapped_in(path) as place:
            build(place)
