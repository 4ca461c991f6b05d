"""Splits keep groups whole, classes even and every class in every split."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samcls.data.manifest import Row
from samcls.data.splits import draw_missing_splits, draw_splits, shares_of

SHARES = shares_of("0.7,0.1,0.2")


def counts(labels: list[str], splits: list[str]) -> dict[str, list[int]]:
    found = Counter(zip(labels, splits, strict=True))
    return {c: [found[c, s] for s in ("train", "val", "test")] for c in sorted(set(labels))}


def test_images_without_groups_are_apportioned_class_by_class() -> None:
    """Each class is shared to the nearest whole number, at least one image for each split."""
    labels = ["a"] * 50 + ["b"] * 20 + ["c"] * 3 + ["d"] * 7
    splits = draw_splits([(c,) for c in labels], [""] * 80, SHARES, 0)
    assert counts(labels, splits) == {
        "a": [35, 5, 10],
        "b": [14, 2, 4],
        "c": [1, 1, 1],
        "d": [5, 1, 1],
    }


def test_the_seed_decides() -> None:
    """Equal seeds draw equal splits, and other seeds others."""
    labels = [("a",), ("b",)] * 30
    first, again, other = (draw_splits(labels, [""] * 60, SHARES, seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_every_image_is_as_likely_to_be_tested() -> None:
    """Over seeds, an image's place in the list does not matter."""
    labels = [("a",), ("b",)] * 10
    tested = [
        np.array(draw_splits(labels, [""] * 20, SHARES, seed)) == "test" for seed in range(400)
    ]
    share = np.mean(tested, axis=0)
    assert abs(share - 0.2).max() < 0.08  # four standard deviations of 400 draws


def test_too_few_groups_for_all_splits_go_to_train_first() -> None:
    """A class of one group is learned, one of two is learned and tested, and none is lost."""
    labels = ["a"] * 40 + ["rare"] * 3 + ["rarer"] * 2
    groups = [""] * 40 + ["r1", "r1", "r2", "s1", "s1"]
    for seed in range(20):
        found = counts(labels, draw_splits([(c,) for c in labels], groups, SHARES, seed))
        assert [n > 0 for n in found["rare"]] == [True, False, True]
        assert found["rarer"] == [2, 0, 0]


def test_several_tasks_and_missing_labels_are_even_at_once() -> None:
    """Each class of each task, and what is missing, is within two groups of its share."""
    random = np.random.default_rng(0)
    labels, groups = [], []
    for patient in range(200):
        own = "m" if random.random() < 0.15 else "n", str(random.integers(3))
        for _ in range(random.integers(1, 6)):
            labels.append((own[0], own[1] if random.random() < 0.8 else ""))
            groups.append(f"P{patient}")
    splits = draw_splits(labels, groups, SHARES, 0)
    for task in (0, 1):
        names = [label[task] for label in labels]
        for found in counts(names, splits).values():
            shares = np.array(found) / sum(found)
            assert abs(shares - [0.7, 0.1, 0.2]).max() < 10 / sum(found)


@given(st.data())
def test_groups_stay_whole_and_no_class_is_lost(data: st.DataObject) -> None:
    """Whatever the groups, one has one split, and train holds every class of one-class groups."""
    sizes = data.draw(st.lists(st.integers(1, 9), min_size=3, max_size=40))
    classes = data.draw(st.lists(st.sampled_from("abc"), min_size=len(sizes), max_size=len(sizes)))
    labels = [c for c, size in zip(classes, sizes, strict=True) for _ in range(size)]
    groups = [f"g{i}" for i, size in enumerate(sizes) for _ in range(size)]
    splits = draw_splits([(c,) for c in labels], groups, SHARES, data.draw(st.integers(0, 9)))
    assert len(set(zip(groups, splits, strict=True))) == len(sizes)
    found = counts(labels, splits)
    for c in set(classes):
        present = sum(n > 0 for n in found[c])
        assert found[c][0] > 0
        assert present == min(3, classes.count(c))


def rows(*splits: str) -> list[Row]:
    return [Row(str(i), f"/{i}.png", None, s, "", ("ab"[i % 2],)) for i, s in enumerate(splits)]


def test_given_splits_are_kept_and_a_missing_val_is_drawn_from_train() -> None:
    """Test stays as it is; nothing is drawn where nothing is missing."""
    given = rows(*["train"] * 16, *["test"] * 4)
    drawn, notes = draw_missing_splits(given, SHARES, 0)
    assert [row.split for row in drawn[16:]] == ["test"] * 4
    assert Counter(row.split for row in drawn) == {"train": 14, "val": 2, "test": 4}
    assert notes == [
        "there is no val: it was drawn from train, classes even, each image by itself, seed 0"
    ]
    whole = rows("train", "train", "val", "val")
    assert draw_missing_splits(whole, SHARES, 0) == (whole, ["there is no test split"])


@pytest.mark.slow
def test_a_hundred_thousand_images_take_seconds() -> None:
    """The draw is linear in the number of images."""
    labels = [(str(i % 7),) for i in range(100_000)]
    splits = draw_splits(labels, [""] * 100_000, SHARES, 0)
    counts = Counter(splits)
    for split, wanted in {"train": 70_000, "val": 10_000, "test": 20_000}.items():
        assert abs(counts[split] - wanted) <= 1  # each of seven classes is divided for itself
