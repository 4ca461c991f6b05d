"""A store on a real S3-speaking server: the same promises, through a URL."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.stores import FINGERPRINT, LEVELS, batch, pick, table

from samcls.errors import OverwriteRefused, StoreError
from samcls.store.feature_store import FeatureStore
from samcls.store.keys import Keys
from samcls.store.lock import lock_path, writer_lock
from samcls.store.repair import prepare_repair
from samcls.store.schema import DONE, PENDING, Partition
from samcls.store.verify import verify


@pytest.fixture(scope="module")
def bucket(make_bucket: Callable[[str], str]) -> str:
    """An empty bucket on loopback."""
    return make_bucket("features")


def test_a_remote_store_is_made_written_read_and_resumed(bucket: str) -> None:
    """Create, write a part, open again, write the rest, change the table: as in a folder."""
    url = f"{bucket}/resumed.zarr"
    assert not FeatureStore.exists(url)
    with pytest.raises(StoreError, match="no feature store at s3://"):
        FeatureStore.open(url)
    store = FeatureStore.create(url, FINGERPRINT, LEVELS, table(21), partition=Partition(2, 8))
    store.write(pick(batch(0, 21), np.arange(5)))
    again = FeatureStore.open(url, mode="r+")
    assert again.status.tolist() == [DONE] * 5 + [PENDING] * 16
    again.write(pick(batch(0, 21), np.arange(5, 21)))
    read = FeatureStore.open(url)
    for level in LEVELS:
        np.testing.assert_array_equal(read.read(level), batch(0, 21).features[level])
        rows = [20, 3, 3]
        np.testing.assert_array_equal(read.read(level, rows), batch(0, 21).features[level][rows])
    assert read.stored_bytes > read.payload_bytes / 2
    with pytest.raises(OverwriteRefused, match="already at s3://"):
        FeatureStore.create(url, FINGERPRINT, LEVELS, table(21))
    assert again.update_table(table(24)).added == tuple(table(24).ids[21:])
    assert len(FeatureStore.open(url)) == 24


def test_a_remote_store_is_verified_and_repaired(bucket: str) -> None:
    """A flipped byte, a truncated and a deleted object are named and made whole again."""
    url = f"{bucket}/verified.zarr"
    store = FeatureStore.create(url, FINGERPRINT, LEVELS, table(21), partition=Partition(2, 8))
    given = batch(0, 21)
    store.write(given)
    assert verify(url).ok
    keys = Keys.of(url, read_only=False)
    name = "features/neck/c/{}/0/0/0/0"
    first = bytearray(keys.read(name.format(0)) or b"")
    first[3] ^= 1
    keys.write(name.format(0), bytes(first))
    keys.write(name.format(1), (keys.read(name.format(1)) or b"")[:-9])
    keys.delete(name.format(2))
    report = verify(url)
    kinds = {problem.row: problem.kind for problem in report.problems}
    assert kinds == {
        **dict.fromkeys(range(2), "chunk damaged"),
        **dict.fromkeys(range(8, 16), "shard damaged"),
        **dict.fromkeys(range(16, 21), "shard missing"),
    }
    lost = prepare_repair(url, report)
    FeatureStore.open(url, mode="r+").write(pick(given, lost))
    assert verify(url).ok
    np.testing.assert_array_equal(FeatureStore.open(url).read("neck"), given.features["neck"])


def test_a_remote_store_has_no_lock(bucket: str, tmp_path: Path) -> None:
    """No lock file is made for a URL, which the documentation says; a folder's URL has one."""
    assert lock_path(f"{bucket}/s.zarr") is None
    with writer_lock(f"{bucket}/s.zarr") as lock:
        lock.check()
    url = f"file://{tmp_path}/s.zarr"
    with writer_lock(url):
        assert (tmp_path / "s.zarr.lock").exists()
