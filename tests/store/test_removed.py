"""Images that are gone from the manifest: kept where no stage uses them, or dropped without a trace."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.paths import TESTS
from support.stores import FINGERPRINT, LEVELS, drop, make_parted, only, pick, table

from samcls.errors import OverwriteRefused, StoreError
from samcls.store.feature_store import FeatureStore
from samcls.store.lock import writer_lock
from samcls.store.repair import prepare_repair
from samcls.store.rewrite import rewrite_store
from samcls.store.schema import DONE, FAILED, PENDING, REMOVED, Partition
from samcls.store.verify import verify

IMAGES = 21


def test_a_kept_row_is_used_by_nothing(tmp_path: Path) -> None:
    """A removed row has no split and status 3: neither splits nor folds nor features hold it."""
    from samcls.learn.features.targets import targets_of
    from samcls.learn.features.tensors import load_features
    from samcls.learn.settings import TrainConfig  # the killed processes below do without torch

    store, _ = make_parted(tmp_path / "s.zarr")
    left = [row for row in range(IMAGES) if row not in {0, 7, 20}]
    change = store.update_table(only(left), keep=True)
    assert change.removed == tuple(table(IMAGES).ids[row] for row in (0, 7, 20))
    opened = FeatureStore.open(store.path)
    assert np.flatnonzero(opened.status == REMOVED).tolist() == [0, 7, 20]
    assert [opened.splits[row] for row in (0, 7, 20)] == [""] * 3
    assert opened.labels[[0, 7, 20], 0].tolist() == [-1] * 3
    assert load_features(opened).ids == tuple(table(IMAGES).ids[row] for row in left)
    folds = targets_of(opened, TrainConfig(folds=3))
    assert load_features(opened, targets=folds).ids == tuple(table(IMAGES).ids[row] for row in left)
    assert verify(store.path).ok
    assert store.update_table(only(left)).fits  # what was kept once is not asked about again


def test_a_kept_row_returns_as_it_was(tmp_path: Path) -> None:
    """Back in the manifest, done rows are done with their features, failed and pending ones too."""
    store, given = make_parted(tmp_path / "s.zarr")
    store.mark_pending(np.array([3]))
    failed = replace(
        pick(given, np.array([4])), status=np.array([FAILED], np.uint8), error=["torn"]
    )
    store.write(failed)
    before = store.status
    left = [row for row in range(IMAGES) if row not in {2, 3, 4}]
    store.update_table(only(left), keep=True)
    again = FeatureStore.open(store.path, mode="r+")
    assert again.update_table(only(list(range(24)))).added == tuple(table(24).ids[21:])
    np.testing.assert_array_equal(again.status, [*before, *[PENDING] * 3])
    assert again.splits == list(table(24).splits)
    np.testing.assert_array_equal(again.labels, table(24).labels)
    done = np.flatnonzero(before == DONE)
    np.testing.assert_array_equal(again.read("neck", done), given.features["neck"][done])


def test_a_store_that_keeps_keeps_its_own_order(tmp_path: Path) -> None:
    """A manifest in another order is followed by id, and its new rows stand at the end."""
    store, given = make_parted(tmp_path / "s.zarr")
    order = [22, *reversed(range(IMAGES)), 21]
    with pytest.raises(StoreError, match=r"stand in other rows.*--removed keep.*--removed drop"):
        store.update_table(only(order))
    moved = replace(only(order), splits=["val"] * len(order))
    store.update_table(moved, keep=True)
    opened = FeatureStore.open(store.path)
    assert opened.ids == [*table(IMAGES).ids, table(30).ids[22], table(30).ids[21]]
    assert set(opened.splits) == {"val"}
    np.testing.assert_array_equal(opened.labels[:IMAGES], table(IMAGES).labels)
    np.testing.assert_array_equal(opened.read("neck")[:IMAGES], given.features["neck"])


def test_damage_to_a_kept_row_is_found_and_costs_no_encoding(tmp_path: Path) -> None:
    """A removed row that loses its features stays removed, and returns as pending."""
    path = tmp_path / "s.zarr"
    store, _ = make_parted(path)
    left = list(range(16))
    store.update_table(only(left), keep=True)
    (path / "features/neck/c/2/0/0/0/0").unlink()
    report = verify(path)
    assert report.rows.tolist() == [16, 17, 18, 19, 20]
    assert not len(prepare_repair(path, report, only(left)))
    assert verify(path).ok
    again = FeatureStore.open(path, mode="r+")
    again.update_table(table(IMAGES))
    assert again.status.tolist() == [DONE] * 16 + [PENDING] * 5


def test_lost_columns_of_a_store_with_kept_rows_are_restored(tmp_path: Path) -> None:
    """Splits and marks come back from the manifest, and no removed row becomes a training image."""
    path = tmp_path / "s.zarr"
    store, _ = make_parted(path)
    left = [row for row in range(IMAGES) if row % 5]
    store.update_table(only(left), keep=True)
    columns = (store.splits, store.status.tolist(), store.labels.tolist())
    for name in ("split", "label"):
        next(f for f in (path / name / "c").rglob("*") if f.is_file()).unlink()
    assert not len(prepare_repair(path, verify(path), only(left)))
    (path / "status/c/0").unlink()
    assert not len(prepare_repair(path, verify(path), only(left)))
    opened = FeatureStore.open(path)
    assert (opened.splits, opened.status.tolist(), opened.labels.tolist()) == columns


@settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.integers(0, 29), min_size=1, max_size=30, unique=True))
def test_a_rewritten_store_is_that_of_its_manifest(
    tmp_path_factory: pytest.TempPathFactory, rows: list[int]
) -> None:
    """Dropping, moving and adding any rows gives the bits that writing these rows alone gives."""
    path = tmp_path_factory.mktemp("rewritten") / "s.zarr"
    _, whole = make_parted(path)
    drop(path, rows)
    expected = FeatureStore.create(
        path.with_name("alone.zarr"), FINGERPRINT, LEVELS, only(rows), partition=Partition(2, 8)
    )
    here = np.array([i for i, row in enumerate(rows) if row < IMAGES], dtype=int)
    if len(here):
        expected.write(replace(pick(whole, np.array(rows)[here]), rows=here))
    found = FeatureStore.open(path)
    assert (found.ids, found.splits, found.tasks) == (
        expected.ids,
        expected.splits,
        expected.tasks,
    )
    assert (found.codec, found.partition) == (expected.codec, expected.partition)
    for name in ("labels", "status", "sha256", "valid"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    for level in LEVELS:
        np.testing.assert_array_equal(found.read(level), expected.read(level))
    assert verify(path).ok
    assert sorted(p.name for p in path.parent.iterdir()) == ["alone.zarr", "s.zarr"]


def test_a_rewriting_takes_kept_rows_back_or_drops_them(tmp_path: Path) -> None:
    """Rows that were kept as removed are dropped with the rest, or are done again if they are back."""
    path = tmp_path / "s.zarr"
    store, given = make_parted(path)
    store.update_table(only(list(range(16))), keep=True)
    found = drop(path, [18, 3, 2])
    assert found.ids == only([18, 3, 2]).ids
    assert found.status.tolist() == [DONE] * 3
    np.testing.assert_array_equal(found.read("neck"), given.features["neck"][[18, 3, 2]])


def test_a_damaged_store_is_not_rewritten(tmp_path: Path) -> None:
    """Where features of a row that stays are lost, nothing changes and the remedy is named."""
    path = tmp_path / "s.zarr"
    make_parted(path)
    (path / "features/neck/c/1/0/0/0/0").unlink()
    with pytest.raises(StoreError, match=r"lacks the features of 8 images.*samcls store repair"):
        drop(path, list(range(20)))
    assert len(FeatureStore.open(path)) == IMAGES
    assert [p.name for p in tmp_path.iterdir()] == ["s.zarr"]
    assert len(drop(path, [0, 1, 20])) == 3  # the lost rows are among those that go


def test_a_store_at_a_url_is_not_rewritten(tmp_path: Path) -> None:
    """Where no folder can be renamed, the refusal names what can be done."""
    store, _ = make_parted(tmp_path / "s.zarr")
    store.path = "memory://s.zarr"
    with (
        writer_lock(tmp_path / "s.zarr") as lock,
        pytest.raises(StoreError, match=r"is a URL.*keep"),
    ):
        rewrite_store(store, only([1]), lock.claim)


def test_a_folder_of_another_kind_is_left_alone(tmp_path: Path) -> None:
    """What lies where the new store would be made is not deleted."""
    path = tmp_path / "s.zarr"
    make_parted(path)
    (tmp_path / "s.zarr.swap").mkdir()
    (tmp_path / "s.zarr.swap" / "thesis.tex").write_text("precious")
    with pytest.raises(OverwriteRefused, match="move it away"):
        drop(path, [1, 2])
    assert (tmp_path / "s.zarr.swap" / "thesis.tex").read_text() == "precious"


def test_a_reader_notices_that_the_store_was_replaced(tmp_path: Path) -> None:
    """A store opened before a rewriting refuses to serve other images under the old row numbers."""
    path = tmp_path / "s.zarr"
    make_parted(path)
    reading = FeatureStore.open(path)
    assert len(reading.read("neck")) == IMAGES
    drop(path, list(range(3, IMAGES)))
    for read in (lambda: reading.read("neck", [0]), lambda: reading.status):
        with pytest.raises(StoreError, match=r"was written anew.*Start again"):
            read()


REWRITE = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import samcls.store.rewrite
from samcls.store import keys
from support.stores import drop
left = [int(sys.argv[3])]
def dying(function):
    def step(*arguments, **options):
        if not left[0]:
            os._exit(9)
        left[0] -= 1
        return function(*arguments, **options)
    return step
keys._replace = dying(keys._replace)
Path.rename = dying(Path.rename)
os.unlink = dying(os.unlink)
os.rmdir = dying(os.rmdir)
drop(Path(sys.argv[1]), [20, *range(2, 19), 25])
print("ended")
"""


@pytest.mark.parametrize("stride", [23, pytest.param(1, marks=pytest.mark.slow)])
def test_a_rewriting_cut_off_anywhere_loses_nothing(tmp_path: Path, stride: int) -> None:
    """Killed before any write, rename or deletion: the old rows or the new, and again ends it."""
    steps, ended = 0, False
    while not ended:
        path = tmp_path / f"{steps}" / "s.zarr"
        path.parent.mkdir()
        given = make_parted(path)[1].features
        command = [sys.executable, "-c", REWRITE, str(path), str(TESTS), str(steps)]
        killed = subprocess.run(command, capture_output=True, text=True, check=False)
        ended = "ended" in killed.stdout
        assert killed.returncode in {0, 9}, killed.stderr
        try:
            found = FeatureStore.open(path)
        except StoreError as error:
            assert "was being written anew" in str(error)  # noqa: PT017 - either is right
        else:
            rows = list(range(IMAGES)) if len(found) == IMAGES else [20, *range(2, 19)]
            np.testing.assert_array_equal(found.read("neck")[: len(rows)], given["neck"][rows])
        found = drop(path, [20, *range(2, 19), 25])
        np.testing.assert_array_equal(found.read("neck")[:18], given["neck"][[20, *range(2, 19)]])
        assert {p.name for p in path.parent.iterdir() if ".lock" not in p.name} == {"s.zarr"}
        assert verify(path).ok
        steps += stride
    assert steps > 40
