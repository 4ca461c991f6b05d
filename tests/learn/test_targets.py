"""What is learned and where images belong: other labels by id, group-aware folds."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from samcls.config import TrainConfig
from samcls.errors import ConfigError
from samcls.learn.targets import fold_splits, targets_of
from samcls.store.feature_store import FeatureStore

MakeStore = Callable[..., FeatureStore]


def test_labels_come_from_another_file_by_id(make_store: MakeStore, tmp_path: Path) -> None:
    """Rows in any order, missing ids and empty cells; numbers sort as numbers, splits stay."""
    lines = ["id,grade,malignancy", "image-4,10,benign", "image-0,2,malignant", "image-2,,benign"]
    path = tmp_path / "labels.csv"
    path.write_text("\n".join(lines))
    store = make_store(6)
    targets = targets_of(store, TrainConfig(labels=str(path)))
    assert targets.tasks == {"grade": ("2", "10"), "malignancy": ("benign", "malignant")}
    assert targets.labels[:, 0].tolist() == [0, -1, -1, -1, 1, -1]
    assert targets.labels[:, 1].tolist() == [1, -1, 0, -1, 0, -1]
    assert list(targets.splits) == store.splits
    one = targets_of(store, TrainConfig(labels=str(path), tasks=("malignancy",)))
    assert list(one.tasks) == ["malignancy"]


BAD = {
    "column": ("name,grade\na,1\n", "expected id and one for each task"),
    "tasks": ("id,split\nimage-0,train\n", "expected id and one for each task"),
    "twice": ("id,grade\nimage-0,1\nimage-0,2\n", "names an id twice"),
    "other": ("id,grade\nx,1\n", "has no id of the store; ids there look like 'image-0'"),
}


@pytest.mark.parametrize("case", BAD)
def test_labels_that_cannot_be_used_are_refused(
    case: str, make_store: MakeStore, tmp_path: Path
) -> None:
    """The error names the file and what is wrong with it."""
    text, words = BAD[case]
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(ConfigError, match=words):
        targets_of(make_store(6), TrainConfig(labels=str(tmp_path / "labels.csv")))
    with pytest.raises(ConfigError, match="cannot read the labels"):
        targets_of(make_store(6, name="b.zarr"), TrainConfig(labels=str(tmp_path / "none.csv")))


def test_folds_keep_groups_whole_and_classes_even() -> None:
    """Each image is tested once; no group is on two sides; every part has its share of classes."""
    generator = np.random.default_rng(0)
    groups = [f"patient-{generator.integers(60)}" if i % 5 else "" for i in range(400)]
    labels = (generator.random((400, 1)) < 0.3).astype(np.int64)
    done = generator.random(400) < 0.9
    tested = np.zeros(400, dtype=int)
    for fold in range(5):
        splits = np.array(fold_splits(labels, groups, done, 5, fold))
        tested += (splits == "test") & done
        parts = {
            split: {g for g, s, d in zip(groups, splits, done, strict=True) if s == split and d}
            - {""}
            for split in ("train", "val", "test")
        }
        assert not parts["train"] & parts["test"]
        assert not parts["train"] & parts["val"]
        assert not parts["val"] & parts["test"]
        for split in parts:
            rate = labels[(splits == split) & done].mean()
            assert abs(rate - labels[done].mean()) < 0.12
        assert splits.tolist() == fold_splits(labels, groups, done, 5, fold)
    assert (tested == done).all()


def test_more_folds_than_groups_are_refused(make_store: MakeStore) -> None:
    """The error says how many groups there are and how many are needed."""
    store = make_store(12)
    with pytest.raises(ConfigError, match="at least 8 groups; the store has 6 groups of 12 images"):
        targets_of(store, TrainConfig(folds=4))
    with pytest.raises(ConfigError, match="got fold 3 of 3 folds; expected at least 2, counted"):
        targets_of(store, TrainConfig(folds=3, fold=3))
