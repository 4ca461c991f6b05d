"""Workers write only for a process that still holds the store's lock."""

import json
from pathlib import Path

import numpy as np
import pytest
from support.extracting import SMALL, image_folder

from samcls.data.manifest import read_manifest
from samcls.encode.distributed import _encode_shard, _Shard
from samcls.encode.extract import extract
from samcls.errors import RunError
from samcls.store.feature_store import FeatureStore
from samcls.store.lock import lock_path, writer_lock


def test_a_worker_of_a_process_that_lost_the_lock_writes_nothing(tmp_path: Path) -> None:
    """While the lock is held a worker writes its shard; once it is another's, it raises and does not."""
    manifest = read_manifest(image_folder(tmp_path, [(40 + i, 60) for i in range(4)]))
    path = str(tmp_path / "s.zarr")
    extract(manifest, path, SMALL)
    shards = list((tmp_path / "s.zarr/features").rglob("c/0/0/0/0/0"))
    for shard in shards:
        shard.unlink()
    file = lock_path(path)
    assert file is not None
    with writer_lock(path) as lock:
        FeatureStore.open(path, mode="r+", claim=lock.claim).mark_pending(np.arange(4))
        work = _Shard(path, dict(enumerate(manifest.rows)), SMALL, 0, lock.claim)
        held = file.read_text()
        file.write_text(json.dumps({"host": "elsewhere", "pid": 1, "token": "another's"}))
        with pytest.raises(RunError, match="taken over by another process"):
            _encode_shard(work)
        assert not any(shard.exists() for shard in shards)
        file.write_text(held)
        assert len(_encode_shard(work)) == 4
        assert all(shard.exists() for shard in shards)
