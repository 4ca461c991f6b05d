"""What stands under a run's table: labelled images, the positive class, what is in several splits."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from samcls.errors import ConfigError
from samcls.learn.features.targets import targets_of
from samcls.learn.runs.folder import load_run
from samcls.learn.runs.inputs import check, settled
from samcls.learn.runs.notes import facts_of
from samcls.learn.runs.repeats import train_repeats
from samcls.learn.runs.train import train
from samcls.learn.settings import TrainConfig
from samcls.store.feature_store import FeatureStore, RowTable

MakeStore = Callable[..., FeatureStore]
QUICK = TrainConfig(epochs=1, intervals=0)


def with_pictures(store: FeatureStore, same: dict[int, int]) -> FeatureStore:
    """The store with a digest for each image, some of them another's."""
    digests = np.zeros((len(store), 32), dtype=np.uint8)
    digests[:, 0] = np.arange(1, len(store) + 1)
    for row, other in same.items():
        digests[row] = digests[other]
    FeatureStore.open(store.path, mode="r+").rewrite_column("sha256", digests)
    return FeatureStore.open(store.path)


def test_a_group_in_several_splits_stops_training(make_store: MakeStore, tmp_path: Path) -> None:
    """Unless it is allowed, and then the run's notes and metrics say so for good."""
    groups = ["p"] * 2 + [f"q{i}" for i in range(38)]
    store = make_store(
        40,
        groups=groups,
        splits=["train", "test"] + ["train", "val", "test", "train"] * 9 + ["train", "val"],
    )
    with pytest.raises(
        ConfigError, match=r"1 group of 2 images lies in several splits: p .*--allow-leak"
    ):
        train(store, QUICK, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match="in several splits"):
        train_repeats(store, QUICK, tmp_path / "several", seeds=2)
    result = train(store, QUICK, tmp_path / "run", allow_leak=True)
    assert result.notes[0].startswith("a leak that was allowed: 1 group of 2 images")
    metrics = load_run(tmp_path / "run").metrics
    assert metrics["leaks"]["groups"]["count"] == 1
    assert metrics["notes"] == list(result.notes)


def test_folds_keep_groups_whole_and_need_no_leave(make_store: MakeStore) -> None:
    """Under folds the stored splits are not used, so what they divide does not matter."""
    store = make_store(40, groups=[f"p{i // 4}" for i in range(40)])
    config = TrainConfig(folds=4)
    facts = facts_of(store, config, targets_of(store, config))
    assert facts.leaks["groups"]["count"] == 0


def test_pictures_in_several_splits_are_a_note(make_store: MakeStore) -> None:
    """Published benchmarks have them: the figures stand, with the sentence under them."""
    labels = np.array([[0, 0, 1, 0, 1] * 8]).T
    store = with_pictures(make_store(40, labels=labels), {4: 2, 3: 0, 8: 7})
    result = train(store, QUICK)
    assert result.notes[0].startswith(
        "2 pictures stand in several splits pixel for pixel, with equal"
    )
    assert result.notes[1].startswith(
        "1 picture stands in several splits pixel for pixel, with contra"
    )
    assert result.leaks["contradictory"]["first"][0]["images"] == {
        "train": ["image-7"],
        "val": ["image-8"],
    }
    with pytest.raises(ConfigError, match="--strict"):
        train(store, QUICK, strict=True)


def test_every_fold_says_the_same_of_pictures(make_store: MakeStore) -> None:
    """Twins in two folds are counted once, whichever fold is tested."""
    store = with_pictures(make_store(40), {20: 0, 21: 1, 22: 2, 23: 3})
    notes = {}
    for fold in (0, 1, 2):
        config = TrainConfig(folds=3, fold=fold)
        notes[fold] = facts_of(store, config, targets_of(store, config)).notes
    assert notes[0] == notes[1] == notes[2]
    assert "several folds" in notes[0][0]
    assert notes[0][-2] == (
        "labelled images of task malignancy: all folds 40 of 40 "
        f"(benign: {(store.labels == 0).sum()}, malignant: {(store.labels == 1).sum()})"
    )


def test_labelled_images_are_counted_by_split_and_class(make_store: MakeStore) -> None:
    """An image without a label is in its split and in no class."""
    labels = np.array([[0, 1, -1, 0, 1, 1, 0, 0, 1, -1]]).T
    store = make_store(10, labels=labels)
    notes = facts_of(store, QUICK, targets_of(store, QUICK)).notes
    assert notes == (
        (
            "labelled images of task malignancy: train 5 of 6 (benign: 3, malignant: 2); "
            "val 2 of 2 (benign: 1, malignant: 1); test 1 of 2 (benign: 0, malignant: 1)"
        ),
        "sensitivity, specificity, precision and F1 of task malignancy are of class malignant",
    )


def test_the_positive_class_is_a_choice(make_store: MakeStore, tmp_path: Path) -> None:
    """Figures are of the class that was named; the run keeps it, and the folds do not move."""
    store = make_store(60)
    usual = targets_of(store, TrainConfig(folds=3))
    turned = targets_of(store, TrainConfig(folds=3, positive=("benign",)))
    assert turned.tasks == {"malignancy": ("malignant", "benign")}
    assert turned.labels.tolist() == (1 - usual.labels).tolist()
    assert turned.splits == usual.splits
    config = TrainConfig(epochs=2, intervals=0, positive=("malignancy=benign",))
    result = train(store, config, tmp_path / "run")
    assert any(note.endswith("of task malignancy are of class benign") for note in result.notes)
    run = load_run(tmp_path / "run")
    assert run.tasks == {"malignancy": ("malignant", "benign")}
    plain = train(store, TrainConfig(epochs=2, intervals=0))
    first, second = result.baselines["logistic"]["test"], plain.baselines["logistic"]["test"]
    assert first["sensitivity"] == pytest.approx(second["specificity"])
    assert first["auc"] == pytest.approx(second["auc"])


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("Benign", "no task has a class 'Benign' .*did you mean 'benign'"),
        ("m=maligant", "task 'm' has no class 'maligant' .*did you mean 'malignant'"),
        ("g=2", "task 'g' has 3 classes .*labels of two classes"),
        ("yes", "stands in tasks a, b; name one, as in --positive a=yes"),
    ],
)
def test_a_positive_class_that_cannot_be_is_refused(
    make_store: MakeStore, entry: str, says: str
) -> None:
    """The sentence says what there is, what may be meant and what to do."""
    tasks = {
        "m": ("benign", "malignant"),
        "g": ("0", "1", "2"),
        "a": ("no", "yes"),
        "b": ("no", "yes"),
    }
    store = make_store(30, tasks=tasks)
    with pytest.raises(ConfigError, match=says):
        check(store, TrainConfig(positive=(entry,)))


def test_ordered_tasks_are_learned_so_by_heads_that_can(make_store: MakeStore) -> None:
    """What the manifest declares is the default; a config that names tasks, or none, wins."""
    path = make_store(30, tasks={"g": ("0", "1", "2"), "h": ("0", "1", "2")}).path
    store = FeatureStore.open(path, mode="r+")
    columns = (store.ids, store.splits, store.groups, store.tasks, store.labels)
    store.update_table(RowTable(*columns, ordinal=("g",)))
    store = FeatureStore.open(path)
    for config, ordinal in (
        (TrainConfig(), ("g",)),
        (TrainConfig(head="linear"), ("g",)),
        (TrainConfig(head="logistic"), ()),
        (TrainConfig(ordinal=("h",)), ("h",)),
        (TrainConfig(ordinal=("none",)), ("none",)),
        (TrainConfig(tasks=("h",)), ()),
    ):
        assert settled(config, check(store, config)).ordinal == ordinal


def test_medmnist_files_keep_medmnists_order(make_store: MakeStore) -> None:
    """Scores of the official evaluator are of its own last class, so no other can be positive."""
    store = make_store(40, tasks={"label": ("0", "1")})
    with pytest.raises(
        ConfigError, match="has the classes 1, 0; breastmnist has 0, 1, in that order"
    ):
        train(store, TrainConfig(positive=("0",)), medmnist="breastmnist")


def test_doubtful_classes_of_the_store_are_said_in_training(make_store: MakeStore) -> None:
    """A class that may mean a missing label is named where it is learned."""
    store = make_store(40, tasks={"label": ("nan", "pos")})
    said: list[str] = []
    train(store, QUICK, log=said.append)
    assert any("'nan'" in line and "--missing nan" in line for line in said)
