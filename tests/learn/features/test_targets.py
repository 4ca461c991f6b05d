"""What is learned and where images belong: other labels by id, group-aware folds, shares."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samcls.errors import ConfigError
from samcls.learn.features.folds import fold_splits
from samcls.learn.features.targets import UNUSED, Targets, targets_of, train_share
from samcls.learn.features.tensors import load_features
from samcls.learn.settings import TrainConfig
from samcls.store.feature_store import FeatureStore

MakeStore = Callable[..., FeatureStore]


def test_labels_come_from_another_file_by_id(make_store: MakeStore, tmp_path: Path) -> None:
    """Rows in any order, missing ids and empty cells; numbers sort as numbers, splits stay."""
    lines = [
        "id,label:grade,label:malignancy",
        "image-4,10,benign",
        "image-0,2,malignant",
        "image-2,,benign",
    ]
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


def test_labels_of_a_file_follow_the_manifests_rules(make_store: MakeStore, tmp_path: Path) -> None:
    """Equal numbers are one class, options stand in the header, meta columns are not learned."""
    path = tmp_path / "labels.csv"
    header = "id,split,label:grade[ordinal],label:bad[positive=0],meta:age"
    rows = [
        "image-0,test,1.0,0,40",
        "image-1,val,1,1,41",
        "image-2,train,00,1.0,",
        "image-3,train,nan,,",
    ]
    path.write_text("\n".join([header, *rows]))
    store = make_store(6)
    targets = targets_of(store, TrainConfig(labels=str(path), missing=("nan",)))
    assert targets.tasks == {"grade": ("0", "1"), "bad": ("1", "0")}
    assert targets.labels[:4].tolist() == [[1, 1], [1, 0], [0, 0], [-1, -1]]
    assert list(targets.splits) == store.splits
    assert targets.ordinal == ("grade",)
    assert len(targets.remarks) == 2
    assert all("equal numbers" in remark for remark in targets.remarks)
    told = targets_of(store, TrainConfig(labels=str(path)))
    assert any("'nan' (1 image) is taken for a class" in remark for remark in told.remarks)
    with pytest.raises(ConfigError, match="missing says what means a missing label in the CSV"):
        targets_of(store, TrainConfig(missing=("nan",)))


BAD = {
    "several": ("id,grade,age\nimage-0,1,40\n", "line 1: columns 'grade', 'age' are neither"),
    "positive": ("id,label:g[positive=5]\nimage-0,1\nimage-1,2\n", "no class '5' to be positive"),
    "short": ("id,grade\nimage-0\n", "line 2: 1 cells, expected 2"),
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


def drawn(
    seed: int, images: int, classes: int, largest: int
) -> tuple[Targets, list[str], np.ndarray]:
    """Targets of two tasks, groups of up to so many images, and which images take part."""
    generator = np.random.default_rng(seed)
    shares = generator.dirichlet(np.ones(classes))
    columns = [generator.choice(classes, images, p=shares), generator.integers(-1, 2, images)]
    names = {"grade": tuple("abcdef"[:classes]), "marker": ("no", "yes")}
    splits = generator.choice(["train", "val", "test"], images, p=[0.7, 0.1, 0.2]).tolist()
    groups = [f"patient-{generator.integers(images // largest + 1)}" for _ in range(images)]
    if largest == 1:
        groups = [""] * images
    return Targets(names, np.stack(columns, axis=1), splits), groups, generator.random(images) < 0.9


def share(
    targets: Targets, groups: list[str], done: np.ndarray, fraction: float, seed: int
) -> np.ndarray | None:
    """Which images are trained on; None where the fraction is refused as too small."""
    try:
        splits = np.array(train_share(targets, groups, done, fraction, seed))
    except ConfigError:
        return None
    before = np.array(targets.splits)
    assert (splits[(before != "train") | ~done] == before[(before != "train") | ~done]).all()
    assert set(splits[(before == "train") & done]) <= {"train", UNUSED}
    return (splits == "train") & done


FRACTIONS = st.floats(0.01, 1.0)
SEEDS = st.integers(0, 2**63 - 1)


@given(SEEDS, st.integers(2, 150), st.integers(2, 5), st.sampled_from([1, 3, 8]),
       FRACTIONS, FRACTIONS)  # fmt: skip
def test_shares_are_nested_and_keep_groups_whole(
    seed: int, images: int, classes: int, largest: int, one: float, other: float
) -> None:
    """A smaller share lies in a larger one, no group is cut, and the other splits stay."""
    targets, groups, done = drawn(seed % 1000, images, classes, largest)
    small, large = (share(targets, groups, done, f, seed) for f in sorted((one, other)))
    if small is not None:
        assert large is not None
        assert not (small & ~large).any()
        train = done & (np.array(targets.splits) == "train")
        left = {g for g, t, s in zip(groups, train, small, strict=True) if t and not s}
        taken = {g for g, s in zip(groups, small, strict=True) if s}
        assert not (left & taken) - {""}
    whole = share(targets, groups, done, 1.0, seed)
    assert whole is not None
    assert (whole == (done & (np.array(targets.splits) == "train"))).all()


@given(SEEDS, st.integers(20, 300), st.integers(2, 5), FRACTIONS)
def test_a_share_has_its_part_of_every_class(
    seed: int, images: int, classes: int, fraction: float
) -> None:
    """Of a class of the first task come its images times the fraction, to the nearest whole."""
    targets, groups, done = drawn(seed % 1000, images, classes, 1)
    taken = share(targets, groups, done, fraction, seed)
    if taken is None:
        return
    train = done & (np.array(targets.splits) == "train")
    for task, names in enumerate(targets.tasks.values()):
        for label in range(len(names)):
            own = targets.labels[:, task] == label
            expected = fraction * (own & train).sum()
            assert ((own & taken).sum() > 0) == ((own & train).sum() > 0)
            if task == 0:
                assert abs((own & taken).sum() - expected) <= 0.5 + 1e-9


def test_a_share_is_even_over_combinations_of_labels() -> None:
    """Over many seeds, each combination of two tasks' labels keeps its part, rare ones too."""
    targets, groups, done = drawn(3, 300, 3, 1)
    taken = [share(targets, groups, done, 0.3, seed) for seed in range(200)]
    found = np.mean([one for one in taken if one is not None], axis=0)
    train = done & (np.array(targets.splits) == "train")
    for combination in np.unique(targets.labels[train], axis=0):
        own = train & (targets.labels == combination).all(1)
        assert found[own].mean() == pytest.approx(0.3, abs=0.1)


@given(SEEDS, st.integers(20, 100), st.sampled_from([1, 4]))
def test_the_smallest_usable_fraction_is_what_the_error_says(
    seed: int, images: int, largest: int
) -> None:
    """The fraction that the error names works, and one that is clearly smaller does not."""
    targets, groups, done = drawn(seed % 1000, images, 4, largest)
    try:
        train_share(targets, groups, done, 1e-6, seed)
    except ConfigError as error:
        usable = float(str(error).rsplit(" ", 1)[1])
        assert share(targets, groups, done, usable, seed) is not None
        assert share(targets, groups, done, usable - 2e-4, seed) is None


def test_a_share_too_small_for_a_class_is_refused_in_words() -> None:
    """The error names the class, how many images there are, and the smallest fraction that works."""
    labels = np.array([[0]] * 40 + [[1]] * 2)
    targets = Targets({"finding": ("normal", "rare")}, labels, ["train"] * 42)
    with pytest.raises(ConfigError) as caught:
        train_share(targets, [""] * 42, np.ones(42, bool), 0.1, 0)
    assert str(caught.value) == (
        "train_fraction 0.1 of 42 training images leaves none of class rare (2 images, task "
        "finding); the smallest usable fraction is 0.25"
    )


def test_unused_images_are_not_loaded(make_store: MakeStore) -> None:
    """A share of a store loads its own images and all of validation and test; seeds differ."""
    store = make_store(100)
    whole = load_features(store)
    loaded = {}
    for seed in (0, 1):
        targets = targets_of(store, TrainConfig(train_fraction=0.25, seed=seed))
        features = load_features(store, targets=targets)
        loaded[seed] = set(features.ids)
        assert abs(features.splits.count("train") - 15) <= 1  # groups of two are whole
        for split in ("val", "test"):
            assert features.splits.count(split) == whole.splits.count(split)
        assert UNUSED not in features.splits
        assert len(features.tokens["neck"]) == len(features.ids)
    assert loaded[0] != loaded[1]


def test_a_share_of_folds_leaves_the_folds_alone(make_store: MakeStore) -> None:
    """With folds too, only the fold's own training part shrinks."""
    store = make_store(100)
    whole = np.array(targets_of(store, TrainConfig(folds=4, fold=1)).splits)
    part = np.array(targets_of(store, TrainConfig(folds=4, fold=1, train_fraction=0.5)).splits)
    assert (part[whole != "train"] == whole[whole != "train"]).all()
    assert 0.4 < (part == "train").sum() / (whole == "train").sum() < 0.6
