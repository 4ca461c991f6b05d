"""Images that are gone from the manifest are kept where no stage uses them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.stores import make_parted, only, pick, table

from samcls.errors import OverwriteRefused, StoreError
from samcls.store.feature_store import FeatureStore
from samcls.store.repair import repair
from samcls.store.schema import DONE, FAILED, PENDING, REMOVED
from samcls.store.swap import finish_rewrite
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
    with pytest.raises(StoreError, match=r"stand in other rows.*--removed keep.*--reuse"):
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
    assert not len(repair(path, report, only(left)))
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
    assert not len(repair(path, verify(path), only(left)))
    (path / "status/c/0").unlink()
    assert not len(repair(path, verify(path), only(left)))
    opened = FeatureStore.open(path)
    assert (opened.splits, opened.status.tolist(), opened.labels.tolist()) == columns


def test_a_folder_of_another_kind_is_left_alone(tmp_path: Path) -> None:
    """What lies where a new store would be made is not deleted."""
    path = tmp_path / "s.zarr"
    (tmp_path / "s.zarr.swap").mkdir()
    (tmp_path / "s.zarr.swap" / "thesis.tex").write_text("precious")
    with pytest.raises(OverwriteRefused, match="move it away"):
        make_parted(path)
    assert (tmp_path / "s.zarr.swap" / "thesis.tex").read_text() == "precious"


def test_a_rewriting_that_an_older_version_began_is_ended(tmp_path: Path) -> None:
    """Cut off between its two renames, the store of the swap takes its place; before, it goes."""
    path, swap = tmp_path / "s.zarr", tmp_path / "s.zarr.swap"
    _, given = make_parted(path)
    swap.mkdir()
    path.rename(swap / "new")
    (swap / "old").mkdir()
    with pytest.raises(StoreError, match="was being written anew"):
        FeatureStore.open(path)
    finish_rewrite(path)
    np.testing.assert_array_equal(FeatureStore.open(path).read("neck"), given.features["neck"])
    (swap / "new").mkdir(parents=True)
    finish_rewrite(path)
    np.testing.assert_array_equal(FeatureStore.open(path).read("neck"), given.features["neck"])
    assert not swap.exists()
