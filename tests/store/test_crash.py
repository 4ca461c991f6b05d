"""Writing survives a full disk, a kill at any moment and a power cut between two files."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zarr
from support.limits import files_of_at_most
from support.paths import TESTS
from support.stores import LEVELS, batch, make, make_parted, pick, table

from samcls.errors import RunError
from samcls.store.feature_store import FeatureStore
from samcls.store.keys import Keys, SyncedStore, remove_leftovers
from samcls.store.schema import DONE
from samcls.store.verify import verify

WRITE = """
import sys
sys.path.insert(0, sys.argv[2])
from support.stores import make_parted, pick
import numpy as np
from samcls.store.feature_store import FeatureStore
from support.stores import batch
store, given = FeatureStore.open(sys.argv[1], mode="r+"), batch(0, 21)
print("begun", flush=True)
for row in np.random.default_rng(0).permutation(21):
    store.write(pick(given, np.array([row])))
print("ended", flush=True)
"""


def test_a_full_disk_is_said_and_survived(tmp_path: Path) -> None:
    """A write that the system refuses is an error in words; the store opens and takes the rows later."""
    path = tmp_path / "s.zarr"
    make(path)
    for limit in (0, 100, 200):  # bytes a file may have: the first one, or a later one, is refused
        store = FeatureStore.open(path, mode="r+")
        with files_of_at_most(limit), pytest.raises(RunError) as caught:
            store.write(batch(0, 9))
        assert "could not be written: File too large" in str(caught.value)
        assert "run the same command again" in str(caught.value)
        assert not list(path.rglob("*.partial"))
        assert not FeatureStore.open(path).status.any()
        assert verify(path).ok
    store = FeatureStore.open(path, mode="r+")
    store.write(batch(0, 9))
    np.testing.assert_array_equal(store.read("neck"), batch(0, 9).features["neck"])


@pytest.mark.skipif(
    os.name == "nt" or not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root"
)
def test_a_really_full_disk_is_survived(tmp_path: Path) -> None:
    """On a small file system that is full, the error says so, and writing goes on once there is room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        store = make(disk / "s.zarr")
        with (
            (disk / "ballast").open("wb", buffering=0) as ballast,
            pytest.raises(OSError, match="No space"),
        ):
            while True:
                ballast.write(bytes(512))
        with pytest.raises(RunError, match=r"No space left on device.*make room"):
            store.write(batch(0, 9))
        assert not FeatureStore.open(store.path).status.any()
        (disk / "ballast").unlink()
        store.write(batch(0, 9))
        assert verify(store.path).ok
        assert FeatureStore.open(store.path).status.all()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_killed_writer_leaves_a_store_that_goes_on(tmp_path: Path) -> None:
    """Killed at random moments, every row marked done holds its features; the rest can be written."""
    path = tmp_path / "s.zarr"
    given = make_parted(path)[1]
    rng = np.random.default_rng(0)
    for _ in range(4):
        FeatureStore.open(path, mode="r+").mark_pending(np.arange(21))
        command = [sys.executable, "-c", WRITE, str(path), str(TESTS)]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "begun\n"
        time.sleep(rng.uniform(0, 0.5))
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        remove_leftovers(path)
        assert verify(path).ok
        store = FeatureStore.open(path, mode="r+")
        store.write(pick(given, np.flatnonzero(store.status != DONE)))
        for level in LEVELS:
            np.testing.assert_array_equal(store.read(level), given.features[level])
        assert store.status.all()


def test_the_mark_is_the_last_file_written(tmp_path: Path) -> None:
    """Features, extents, digests and reasons are on the disk before the rows are marked done."""
    store = make(tmp_path / "s.zarr")
    written: list[str] = []

    class Watched(SyncedStore):
        async def set_parts(self, key: str, parts: object) -> None:
            await super().set_parts(key, parts)  # type: ignore[arg-type]
            assert (self.root / key).exists()
            written.append(key)

    FeatureStore(store.path, Keys(Watched(tmp_path / "s.zarr")), "r+").write(batch(0, 9))
    assert written[-1].startswith("status/")
    assert {key.rpartition("/c/")[0] for key in written[:-1]} == {
        "features/block_0",
        "features/neck",
        "valid",
        "sha256",
        "error",
    }


def test_writes_are_flushed_to_the_disk(tmp_path: Path) -> None:
    """Each file that is written, and each folder that is made for it, is flushed by the system call."""
    trace = tmp_path / "trace"
    code = (
        "import os, sys\n"
        "real = os.fsync\n"
        "def spy(handle):\n"
        "    print(os.readlink(f'/proc/self/fd/{handle}'))\n"
        "    real(handle)\n"
        "os.fsync = spy\n"
        "from samcls.store.keys import Keys\n"
        "Keys.of(sys.argv[1], read_only=False).write('a/b/c', b'content')\n"
    )
    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc")
    command = [sys.executable, "-c", code, str(trace)]
    flushed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert any(".partial" in name for name in flushed)
    assert {str(trace), str(trace / "a"), str(trace / "a" / "b")} <= set(flushed)
    assert Keys.of(trace, read_only=True).read("a/b/c") == b"content"


def test_bits_that_are_not_kept_are_rounded_away(tmp_path: Path) -> None:
    """With keep_bits the stored numbers have that many mantissa bits, for any reader, and are close."""
    from dataclasses import replace

    from support.stores import FINGERPRINT

    store = FeatureStore.create(
        tmp_path / "s.zarr", replace(FINGERPRINT, keep_bits=4), LEVELS, table(9)
    )
    given = batch(0, 9).features["neck"]
    store.write(batch(0, 9))
    plain = zarr.open_array(tmp_path / "s.zarr", path="features/neck", mode="r")[:]
    assert not (np.asarray(plain).view(np.uint16) & 0b111111).any()
    np.testing.assert_allclose(plain, given, rtol=2**-5)
    assert FeatureStore.open(store.path).fingerprint.keep_bits == 4
