"""A damaged store is made whole by encoding exactly what is lost."""

from pathlib import Path

import numpy as np
from support.extracting import SMALL, image_folder

from samcls.data.manifest import read_manifest
from samcls.encode.extract import extract
from samcls.encode.repair import repair
from samcls.store.feature_store import FeatureStore
from samcls.store.verify import verify


def test_repair_encodes_the_damaged_rows_and_no_other(tmp_path: Path) -> None:
    """After a flipped byte the store equals what it was, and only the rows hit were encoded."""
    manifest = read_manifest(image_folder(tmp_path, [(40 + i, 60) for i in range(9)]))
    path = str(tmp_path / "s.zarr")
    extract(manifest, path, SMALL)
    before = {
        level: FeatureStore.open(path).read(level) for level in FeatureStore.open(path).levels
    }
    shard = max((tmp_path / "s.zarr" / "features" / "neck").rglob("0"), key=lambda p: p.is_file())
    content = bytearray(shard.read_bytes())
    content[100] ^= 0xFF
    shard.write_bytes(content)
    hit = verify(path)
    assert not hit.ok
    summary = repair(manifest, path)
    assert summary.after.ok
    assert set(summary.encoded) == set(hit.rows.tolist())
    for level, values in before.items():
        np.testing.assert_array_equal(FeatureStore.open(path).read(level), values)
    again = repair(manifest, path)
    assert (again.encoded, again.before.ok) == ((), True)
