"""Every kind of damage, really done to real files, is found, named and repaired."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.damage import SHARD, flip, forget_chunk, index
from support.stores import LEVELS, batch, make, make_parted, pick, table

from samcls.errors import StoreError
from samcls.store.feature_store import FeatureStore, RowBatch
from samcls.store.metadata import COPIES
from samcls.store.repair import prepare_repair
from samcls.store.schema import DONE, PENDING
from samcls.store.verify import verify

IMAGES = 21


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RowBatch]:
    path = tmp_path_factory.mktemp("sound") / "s.zarr"
    return path, make_parted(path, IMAGES)[1]


@pytest.fixture
def damaged(sound: tuple[Path, RowBatch], tmp_path: Path) -> tuple[Path, RowBatch]:
    """A copy to be damaged."""
    return Path(shutil.copytree(sound[0], tmp_path / "s.zarr")), sound[1]


def overwrite(path: Path, row: int, value: float) -> None:
    store = FeatureStore.open(path, mode="r+")
    values = store.read("neck", [row])
    values[0, 0, 3] = value
    store.write_level("neck", slice(row, row + 1), values)


DAMAGE: dict[str, tuple[Callable[[Path], None], str, list[int]]] = {
    "flipped byte": (
        lambda p: flip(p / SHARD, int(index(p / SHARD)[2, 0]) + 7),
        "chunk damaged",
        [4, 5],
    ),
    "flipped index": (lambda p: flip(p / SHARD, -30), "shard damaged", list(range(8))),
    "truncated shard": (
        lambda p: (p / SHARD).write_bytes((p / SHARD).read_bytes()[:-50]) and None,
        "shard damaged",
        list(range(8)),
    ),
    "emptied shard": (
        lambda p: (p / SHARD).write_bytes(b"") and None,
        "shard damaged",
        list(range(8)),
    ),
    "deleted shard": (
        lambda p: (p / "features/neck/c/2/0/0/0/0").unlink(),
        "shard missing",
        list(range(16, 21)),
    ),
    "deleted chunk": (lambda p: forget_chunk(p / SHARD, 3), "chunk missing", [6, 7]),
    "value that is not a number": (lambda p: overwrite(p, 3, float("nan")), "not finite", [3]),
    "infinite value": (lambda p: overwrite(p, 3, -float("inf")), "not finite", [3]),
}


def equal(path: Path, given: RowBatch) -> None:
    store = FeatureStore.open(path)
    assert store.status.tolist() == [DONE] * IMAGES
    for level, values in given.features.items():
        np.testing.assert_array_equal(store.read(level), values)
    np.testing.assert_array_equal(store.sha256, given.sha256)
    np.testing.assert_array_equal(store.valid, given.valid)
    assert store.ids == list(table(IMAGES).ids)


def test_a_sound_store_has_no_problems(sound: tuple[Path, RowBatch]) -> None:
    """Nothing is found where nothing is wrong, and everything was looked at."""
    report = verify(sound[0])
    assert report.ok
    assert report.checked == IMAGES
    assert report.bytes == sum(values.nbytes for values in sound[1].features.values())


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_names_its_images_and_is_repaired(damaged: tuple[Path, RowBatch], name: str) -> None:
    """The rows that were hit are named, no other; written anew, the store equals the original."""
    path, given = damaged
    damage, kind, rows = DAMAGE[name]
    damage(path)
    report = verify(path)
    assert {p.kind for p in report.problems} == {kind}
    assert [p.row for p in report.problems] == rows
    assert {p.level for p in report.problems} == {"neck"}
    assert {p.id for p in report.problems} == {table(IMAGES).ids[row] for row in rows}
    lost = prepare_repair(path, report)
    assert lost.tolist() == rows
    store = FeatureStore.open(path, mode="r+")
    assert np.flatnonzero(store.status == PENDING).tolist() == rows
    assert verify(path).ok
    store.write(pick(given, lost))
    assert verify(path).ok
    equal(path, given)


@pytest.mark.parametrize("array", ["sha256", "valid", "status", "error", "id", "split", "label"])
@pytest.mark.parametrize("how", ["deleted", "flipped", "truncated"])
def test_a_lost_column_is_found_and_repaired(tmp_path: Path, array: str, how: str) -> None:
    """A per-image array that is gone or damaged is named, and restored or encoded again."""
    path = tmp_path / "s.zarr"
    store = make(path)
    given = batch(0, 9)
    store.write(replace(given, status=np.array([1] * 8 + [2], np.uint8), error=[""] * 8 + ["bad"]))
    store = FeatureStore.open(path, mode="r+")
    file = next(f for f in (path / array / "c").rglob("*") if f.is_file())
    if how == "deleted":
        file.unlink()
    elif how == "flipped":
        flip(file, len(file.read_bytes()) // 2)
    else:
        file.write_bytes(file.read_bytes()[:-3])
    report = verify(path)
    kind = "row array missing" if how == "deleted" else "row array damaged"
    assert {(p.row, p.level, p.kind) for p in report.problems if p.level == array} == {
        (row, array, kind) for row in range(9)
    }
    if array in {"id", "split", "label"}:
        with pytest.raises(StoreError, match="only the manifest knows"):
            prepare_repair(path, report)
    lost = prepare_repair(path, report, table(9))
    restored = {"sha256": range(8), "valid": range(8), "error": [8]}
    assert lost.tolist() == list(restored.get(array, []))
    assert verify(path).ok
    assert FeatureStore.open(path).ids == list(table(9).ids)
    assert FeatureStore.open(path).labels.tolist() == table(9).labels.tolist()
    expected = np.array([DONE] * 8 + [2])
    expected[lost] = PENDING
    assert FeatureStore.open(path).status.tolist() == expected.tolist()


def test_every_flip_in_the_metadata_is_found_and_undone(tmp_path: Path) -> None:
    """Whatever byte of a metadata file is flipped: nothing changes, or it is found and restored."""
    path = tmp_path / "s.zarr"
    make(path).write(batch(0, 9))
    files = sorted(path.rglob("*.json"))
    before = {file: json.loads(file.read_bytes()) for file in files}
    rng = np.random.default_rng(0)
    for _ in range(30):
        file = files[rng.integers(len(files))]
        content = file.read_bytes()
        flip(file, int(rng.integers(len(content))))
        try:
            changed = json.loads(file.read_bytes()) != before[file]
        except ValueError:
            changed = True
        report = verify(path)
        assert report.ok != changed, file
        if changed:
            assert str(file.relative_to(path)) in {p.level for p in report.problems} or (
                file.name == "metadata.json"
            )
            assert not len(prepare_repair(path, report))
            assert verify(path).ok
            assert json.loads(file.read_bytes()) == before[file]
        file.write_bytes(content)
    np.testing.assert_array_equal(
        FeatureStore.open(path).read("neck"), batch(0, 9).features["neck"]
    )


def test_rows_marked_wrongly_are_found(tmp_path: Path) -> None:
    """A row of zeros, a row marked done without data and an unknown status each have their kind."""
    path = tmp_path / "s.zarr"
    store = make(path)
    given = batch(0, 6)
    given.features["neck"][1] = 0
    store.write(given)
    status = store.status
    status[7] = DONE
    status[8] = 17
    store.rewrite_column("status", status)
    found = {(p.row, p.level, p.kind) for p in verify(path).problems}
    assert (1, "neck", "all zero") in found
    assert (7, "sha256", "done without data") in found
    assert (8, "status", "status out of range") in found
    assert {row for row, *_ in found} == {1, 7, 8}
    assert prepare_repair(path, verify(path)).tolist() == [1, 7, 8]
    assert FeatureStore.open(path).status.tolist() == [1, 0, 1, 1, 1, 1, 0, 0, 0]


def test_only_the_rows_asked_for_are_checked(tmp_path: Path) -> None:
    """Rows outside the request are not named."""
    path = tmp_path / "s.zarr"
    store = make(path)
    given = batch(0, 9)
    given.features["neck"][[1, 5]] = 0
    store.write(given)
    report = verify(path, rows=[5, 6])
    assert [p.row for p in report.problems] == [5]
    assert report.checked == 2


def test_pending_rows_are_no_problem_but_their_damage_is(tmp_path: Path) -> None:
    """An unfinished store is sound; a damaged chunk is named even where a row waits in it."""
    path = tmp_path / "s.zarr"
    make(path).write(batch(0, 4))
    assert verify(path).ok
    shard = path / "features/block_0/c/0/0/0/0/0"
    flip(shard, 4)
    assert {p.row for p in verify(path).problems} == set(range(9))
    with pytest.raises(StoreError, match="samcls store verify"):
        FeatureStore.open(path).read("block:0")
    with pytest.raises(StoreError, match="samcls store repair"):
        FeatureStore.open(path, mode="r+").write(batch(4, 2))


def test_what_cannot_be_verified_says_so(tmp_path: Path) -> None:
    """Nothing there, and a store whose metadata and their copy are both gone, have their own words."""
    with pytest.raises(StoreError, match="no feature store at"):
        verify(tmp_path / "absent.zarr")
    path = tmp_path / "s.zarr"
    make(path)
    flip(path / "zarr.json", 3)
    for copy in COPIES:
        (path / copy).unlink()
    with pytest.raises(StoreError, match=r"metadata is damaged: .*no copy of it is whole"):
        verify(path)


def test_damage_is_found_at_random(sound: tuple[Path, RowBatch], tmp_path: Path) -> None:
    """Each of many single-byte flips over shards that changes a decoded value is found."""
    del sound
    path = tmp_path / "s.zarr"
    make(path).write(batch(0, 9))
    rng = np.random.default_rng(1)
    files = [path / f"features/{name.replace(':', '_')}/c/0/0/0/0/0" for name in LEVELS]
    for _ in range(40):
        file = files[rng.integers(2)]
        content = bytearray(file.read_bytes())
        whole = bytes(content)
        content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        file.write_bytes(content)
        assert not verify(path).ok
        file.write_bytes(whole)
