"""A data set that changes: labels in place, rows at the end, and nothing else unasked."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from support.paths import TESTS
from support.stores import FINGERPRINT, LEVELS, batch, changed, make, table

from samcls.errors import StoreError
from samcls.store.feature_store import FeatureStore, RowTable
from samcls.store.keys import Keys
from samcls.store.metadata import UPDATING, read_root, write_attributes
from samcls.store.repair import repair
from samcls.store.schema import DONE, PENDING
from samcls.store.verify import verify


def holds(path: Path, expected: RowTable, done: int) -> None:
    store = FeatureStore.open(path)
    assert store.ids == list(expected.ids)
    assert store.splits == list(expected.splits)
    assert store.groups == list(expected.groups)
    assert store.tasks == dict(expected.tasks)
    np.testing.assert_array_equal(store.labels, expected.labels)
    assert store.status.tolist() == [DONE] * done + [PENDING] * (len(expected.ids) - done)
    for level in LEVELS:
        np.testing.assert_array_equal(store.read(level)[:done], batch(0, done).features[level])
        assert not store.read(level)[done:].any()
    assert verify(path).ok


def test_labels_change_in_place(tmp_path: Path) -> None:
    """Splits, groups, tasks and labels are the new ones; features are not touched."""
    path = tmp_path / "s.zarr"
    make(path).write(batch(0, 9))
    shards = {f: f.stat().st_mtime_ns for f in (path / "features").rglob("*/c/*") if f.is_file()}
    change = FeatureStore.open(path, mode="r+").update_table(changed(9))
    assert change.columns == ("splits", "groups", "tasks")
    assert not change.added
    holds(path, changed(9), done=9)
    assert all(f.stat().st_mtime_ns == then for f, then in shards.items())


def test_rows_are_appended_as_pending(tmp_path: Path) -> None:
    """New rows stand at the end, pending, and can then be written."""
    path = tmp_path / "s.zarr"
    make(path).write(batch(0, 9))
    store = FeatureStore.open(path, mode="r+")
    assert store.update_table(table(14)).added == tuple(table(14).ids[9:])
    assert len(store) == 14
    holds(path, table(14), done=9)
    store.write(batch(9, 5))
    assert FeatureStore.open(path).status.all()
    np.testing.assert_array_equal(store.read("neck", slice(9, 14)), batch(9, 5).features["neck"])


def test_the_same_table_writes_nothing(tmp_path: Path) -> None:
    """A table that says the same leaves every file alone."""
    path = tmp_path / "s.zarr"
    store = make(path)
    before = {f: f.stat().st_mtime_ns for f in path.rglob("*") if f.is_file()}
    assert str(store.update_table(table(9))) == "nothing changed"
    assert {f: f.stat().st_mtime_ns for f in path.rglob("*") if f.is_file()} == before


def test_ids_that_are_gone_or_moved_are_reported(tmp_path: Path) -> None:
    """A removed and a moved id are refused, counted and named; the store is as it was."""
    path = tmp_path / "s.zarr"
    store = make(path)
    whole = table(9)
    fewer = replace(table(7), ids=list(whole.ids[2:]))
    with pytest.raises(
        StoreError, match=r"2 ids are gone \(image-0-é, image-1-é\); splits changed\."
    ):
        store.update_table(fewer)
    moved = replace(whole, ids=[*whole.ids[1:], whole.ids[0]])
    with pytest.raises(StoreError, match=r"9 ids stand in other rows \(image-1-é, .* and 6 more\)"):
        store.update_table(moved)
    assert FeatureStore.open(path).ids == list(whole.ids)


UPDATE = """
import os, sys
sys.path.insert(0, sys.argv[2])
from samcls.store import keys
from samcls.store.feature_store import FeatureStore
from support.stores import changed
for writes in sys.argv[3:]:
    pid = os.fork()
    if pid:
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        continue
    store = FeatureStore.open(f"{sys.argv[1]}/{writes}.zarr", mode="r+")
    real, left = keys._replace, [int(writes)]
    def dying(path, value):
        if not left[0]:
            os._exit(9)
        left[0] -= 1
        real(path, value)
    keys._replace = dying
    store.update_table(changed(12))
    os._exit(0)
"""
WRITES = (0, 1, 2, 4, 8, 12, 16, 18, 100)


@pytest.fixture(scope="module")
def cut_off(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of stores whose update was killed after so many files, all by forks of one process."""
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    folder = tmp_path_factory.mktemp("cut-off")
    for writes in WRITES:
        make(folder / f"{writes}.zarr").write(batch(0, 9))
    command = [sys.executable, "-c", UPDATE, str(folder), str(TESTS), *map(str, WRITES)]
    killed = subprocess.run(command, capture_output=True, text=True, check=True)
    assert killed.stdout.split() == ["9"] * (len(WRITES) - 1) + ["0"], killed.stderr
    return folder


@pytest.mark.parametrize("writes", WRITES)
def test_an_update_cut_off_is_never_taken_for_a_store(
    cut_off: Path, tmp_path: Path, writes: int
) -> None:
    """Killed after any number of files: the old table, the new one, or a refusal; again mends it."""
    path = shutil.copytree(cut_off / f"{writes}.zarr", tmp_path / "s.zarr")
    try:
        opened = FeatureStore.open(path)
    except StoreError as error:
        refusal = str(error)
        with pytest.raises(StoreError, match="call update_table first"):
            FeatureStore.open(path, mode="r+").write(batch(0, 1))
        assert "run samcls extract" in refusal
    else:
        assert (opened.splits == list(changed(12).splits)) == (writes == 100)
        assert len(opened) == (12 if writes == 100 else 9)
    FeatureStore.open(path, mode="r+").update_table(changed(12))
    holds(path, changed(12), done=9)


def test_an_update_cut_off_can_be_taken_back(cut_off: Path, tmp_path: Path) -> None:
    """After a cut-off append the old table still fits, and makes the store what it was."""
    path = shutil.copytree(cut_off / "12.zarr", tmp_path / "s.zarr")
    FeatureStore.open(path, mode="r+").update_table(table(9))
    holds(path, table(9), done=9)
    assert zarr.open_array(path, path="features/neck", mode="r").shape[0] == 9


def test_columns_beside_the_labels_are_kept_and_followed(tmp_path: Path) -> None:
    """Texts that training never sees are read back, change with the table, and go with it."""
    store = make(tmp_path / "s.zarr", 6)
    store.write(batch(0, 6))
    assert (store.meta, store.ordinal) == ({}, ())
    ages = {"age": [str(40 + i) for i in range(6)], "sex, said": [*list("FMFM"), "", "ü"]}
    change = store.update_table(replace(table(6), meta=ages, ordinal=("label",)))
    assert change.columns == ("meta", "ordinal")
    opened = FeatureStore.open(store.path, mode="r+")
    assert opened.meta == ages
    assert opened.ordinal == ("label",)
    assert verify(store.path).ok
    assert not opened.update_table(replace(table(6), meta=ages, ordinal=("label",))).any
    longer = {"age": [*ages["age"], "70", "71", "72"]}
    opened.update_table(replace(table(9), meta=longer))
    assert FeatureStore.open(store.path).meta == longer
    assert FeatureStore.open(store.path).ordinal == ()
    FeatureStore.open(store.path, mode="r+").update_table(table(9))
    assert FeatureStore.open(store.path).meta == {}
    assert not (tmp_path / "s.zarr" / "meta").exists()
    assert verify(store.path).ok


def test_a_rewriting_that_was_cut_off_is_done_again_with_its_columns(tmp_path: Path) -> None:
    """Whatever state the columns were left in, the same update makes them whole."""
    ages = {"age": ["1", "2", "3", "4", "5", "6"]}
    given = replace(table(6), meta=ages)
    path = tmp_path / "s.zarr"
    store = FeatureStore.create(path, FINGERPRINT, LEVELS, given)
    assert store.meta == ages
    keys = Keys.of(path, read_only=False)
    root = read_root(keys)
    write_attributes(keys, {**root.attributes, UPDATING: {"images": 6}}, root.arrays)
    keys.delete_folder("meta")
    FeatureStore.open(path, mode="r+").update_table(given)
    assert FeatureStore.open(path).meta == ages
    assert verify(path).ok


def test_a_change_of_tasks_says_what_goes_and_what_comes(tmp_path: Path) -> None:
    """A task that is lost, a new one, and other classes are each named."""
    store = make(tmp_path / "s.zarr", 6)
    given = replace(
        table(6),
        tasks={"grade": ("0", "1", "2")},
        labels=np.zeros((6, 1), dtype=np.int16),
    )
    said = str(store.compare_table(given))
    assert said == "task 'label' (benign, malignant) goes; task 'grade' (0, 1, 2) comes"
    turned = replace(table(6), tasks={"label": ("malignant", "benign")}, labels=1 - table(6).labels)
    said = str(store.compare_table(turned))
    assert said == "task 'label' had the classes benign, malignant and has malignant, benign"
    store.update_table(turned)
    assert FeatureStore.open(store.path).tasks == {"label": ("malignant", "benign")}
    assert FeatureStore.open(store.path).labels.tolist() == turned.labels.tolist()


def test_columns_beside_the_labels_are_verified_and_repaired(tmp_path: Path) -> None:
    """A chunk of them that is gone is found, and only the manifest can bring it back."""
    given = replace(table(6), meta={"age": list("123456")})
    store = FeatureStore.create(tmp_path / "s.zarr", FINGERPRINT, LEVELS, given)
    store.write(batch(0, 6))
    (tmp_path / "s.zarr" / "meta" / "c" / "0" / "0").unlink()
    report = verify(store.path)
    assert {problem.level for problem in report.problems} == {"meta"}
    assert repair(store.path, report, given).tolist() == []
    assert FeatureStore.open(store.path).meta == {"age": list("123456")}
    assert verify(store.path).ok
