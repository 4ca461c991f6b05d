"""A store is made whole or not at all, in one place under one lock, and is never made over another."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.paths import TESTS
from support.stores import FINGERPRINT, LEVELS, batch, make, table

from samcls.errors import OverwriteRefused, StoreError
from samcls.store.feature_store import FeatureStore
from samcls.store.keys import Keys
from samcls.store.lock import lock_path, writer_lock
from samcls.store.schema import DONE
from samcls.store.verify import verify

CREATE = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from support.stores import FINGERPRINT, LEVELS, table
from samcls.store import keys
from samcls.store.feature_store import FeatureStore
for steps in map(int, sys.argv[4:]):
    pid = os.fork()
    if pid:
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        continue
    left = [steps]
    def dying(function):
        def step(*arguments, **options):
            if not left[0]:
                os._exit(9)
            left[0] -= 1
            return function(*arguments, **options)
        return step
    keys._replace = dying(keys._replace)
    Path.rename, Path.mkdir = dying(Path.rename), dying(Path.mkdir)
    os.unlink, os.rmdir = dying(os.unlink), dying(os.rmdir)
    path = f"{sys.argv[1]}/{steps}/s.zarr"
    FeatureStore.create(path, FINGERPRINT, LEVELS, table(9), pixels=int(sys.argv[3]))
    os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("pixels", [0, 16])
@pytest.mark.parametrize("stride", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_a_creation_cut_off_anywhere_can_be_run_again(
    tmp_path: Path, pixels: int, stride: int
) -> None:
    """Killed before any write, rename or deletion: nothing is there, or the store; again makes it."""
    steps = [str(n) for n in range(0, 70, stride)]
    for step in steps:
        (tmp_path / step).mkdir()
    command = [sys.executable, "-c", CREATE, str(tmp_path), str(TESTS), str(pixels), *steps]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    codes = [int(line) for line in done.stdout.split()]
    assert codes[0] == 9
    assert codes[-1] == 0
    for number, step in enumerate(steps):
        path = tmp_path / step / "s.zarr"
        kept = pixels if number % 2 else 16 - pixels  # the same options, or others
        if not FeatureStore.exists(path):
            FeatureStore.create(path, FINGERPRINT, LEVELS, table(9), pixels=kept)
            assert [entry.name for entry in path.parent.iterdir()] == ["s.zarr"]
            assert FeatureStore.open(path).pixel_size == kept
        assert verify(path).ok
        assert FeatureStore.open(path).ids == list(table(9).ids)


def test_a_creation_cut_off_at_a_url_can_be_run_again(make_bucket: Callable[[str], str]) -> None:
    """The attributes are written last: whatever is there before, the creation starts anew."""
    url = f"{make_bucket('creation')}/s.zarr"
    store = FeatureStore.create(url, FINGERPRINT, LEVELS, table(9))
    keys = Keys.of(url, read_only=False)
    whole = {key: keys.read(key) for key in keys.under("")}
    first = b'{"zarr_format": 3, "node_type": "group", "attributes": {"created_by": "samcls"}}'
    for number, lost in enumerate(("status/zarr.json", "id/c/0", "id/metadata.json", "")):
        for key in whole:
            keys.delete(key)
        for key, value in {**whole, "zarr.json": first}.items():
            if value is not None and (key != lost or not lost):
                keys.write(key, value)
        assert not FeatureStore.exists(url)
        store = FeatureStore.create(url, FINGERPRINT, LEVELS, table(9 + number), pixels=16)
        assert len(store) == 9 + number
    store.write(replace(batch(0, 2), features={k: v[:2] for k, v in batch(0, 2).features.items()}))
    keys.write("zarr.json", first)
    with pytest.raises(StoreError, match="whose metadata is damaged"):
        FeatureStore.create(url, FINGERPRINT, LEVELS, table(9))


def test_a_store_whose_description_is_lost_is_not_made_anew(tmp_path: Path) -> None:
    """Without zarr.json, or with nothing but its creator's name, work that is there stays."""
    path = tmp_path / "s.zarr"
    make(path).write(batch(0, 9))
    (path / "zarr.json").write_text(
        '{"zarr_format": 3, "node_type": "group", "attributes": {"created_by": "samcls"}}'
    )
    for _ in range(2):
        with pytest.raises(StoreError, match=r"metadata is damaged.*samcls store repair"):
            make(path)
        with pytest.raises(StoreError, match="metadata is damaged"):
            FeatureStore.exists(path)
        (path / "zarr.json").unlink(missing_ok=True)
    for name in ("id", "status", "sha256", "valid"):  # not even a sign of a store is left
        shutil.rmtree(path / name)
    with pytest.raises(OverwriteRefused, match="nothing was written"):
        make(path)
    assert any((path / "features").rglob("c/0/0/0/0/0"))


def test_a_link_and_its_target_are_one_store_with_one_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the path is written, the second writer is refused, and the link stays a link."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "link.zarr").symlink_to(tmp_path / "disk" / "s.zarr")
    (tmp_path / "folder").symlink_to(tmp_path / "disk")
    monkeypatch.chdir(tmp_path)
    ways = [
        tmp_path / "link.zarr",
        "link.zarr",
        "disk/../disk/s.zarr/",
        "folder/s.zarr",
        f"file://{tmp_path}/link.zarr",
        f"local://{tmp_path}/disk/s.zarr",
    ]
    assert {lock_path(way) for way in ways} == {tmp_path / "disk" / "s.zarr.lock"}
    for way in ways[1:]:
        with (
            writer_lock(ways[0]),
            pytest.raises(StoreError, match="being written"),
            writer_lock(way),
        ):
            pass
    make(Path("link.zarr")).write(batch(0, 9))
    assert (tmp_path / "link.zarr").is_symlink()
    for way in ways:
        assert FeatureStore.open(way).status.tolist() == [DONE] * 9
        np.testing.assert_array_equal(
            FeatureStore.open(way).read("neck"), batch(0, 9).features["neck"]
        )
