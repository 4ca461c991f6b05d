"""Groups and pictures in several splits are found, counted and named."""

from pathlib import Path

import numpy as np
import pytest

from samcls.data.leaks import find_leaks, refuse_divided_groups
from samcls.data.manifest import read_manifest
from samcls.errors import ManifestError


def digests(*numbers: int) -> np.ndarray:
    found = np.zeros((len(numbers), 32), dtype=np.uint8)
    found[:, 0] = numbers
    return found


def test_a_group_in_two_splits_is_named_with_its_images() -> None:
    """Groups of one split, and images without a group, are none of it."""
    found = find_leaks(
        ["a", "b", "c", "d", "e", "f"],
        ["train", "test", "train", "train", "test", "val"],
        ["p1", "p1", "p2", "p2", "", ""],
    )
    assert found.groups.names == ("p1",)
    assert found.groups.units == ({"train": ("a",), "test": ("b",)},)
    assert found.divided_groups() == (
        "1 group of 2 images lies in several splits: p1 (train 1, test 1)"
    )


def test_a_picture_in_two_splits_is_named_by_its_labels() -> None:
    """Equal and contradictory labels are counted apart; a missing label contradicts nothing."""
    found = find_leaks(
        list("abcdefgh"),
        ["train", "test", "train", "val", "train", "test", "train", "train"],
        [""] * 8,
        digests(1, 1, 2, 2, 3, 3, 4, 4),
        np.array([[0], [0], [0], [1], [0], [-1], [0], [1]]),
    )
    assert found.equal.names == ("a", "e")
    assert found.contradictory.units == ({"train": ("c",), "val": ("d",)},)
    assert found.pictures() == [
        (
            "2 pictures stand in several splits pixel for pixel, with equal labels, 4 images in all: "
            "a (train) = b (test); e (train) = f (test)"
        ),
        (
            "1 picture stands in several splits pixel for pixel, with contradictory labels, 2 images in "
            "all: c (train) = d (val)"
        ),
    ]
    assert found.to_dict()["contradictory"] == {
        "count": 1,
        "images": 2,
        "first": [{"name": "c", "images": {"train": ["c"], "val": ["d"]}}],
    }


def test_images_that_take_no_part_leak_nothing() -> None:
    """Without a split, or with pixels that are not known, an image stands nowhere."""
    found = find_leaks(
        list("abcd"), ["train", "", "train", "test"], ["p", "p", "", ""], digests(1, 1, 0, 0)
    )
    assert not found.groups
    assert not found.equal
    assert found.pictures() == []
    assert found.divided_groups() == ""


def test_every_pair_of_a_large_set_is_found() -> None:
    """Against counting by hand: 2,000 images in 300 groups and 300 pictures."""
    generator = np.random.default_rng(0)
    splits = generator.choice(["train", "val", "test"], 2000, p=[0.96, 0.02, 0.02]).tolist()
    groups = [f"g{i}" for i in generator.integers(0, 300, 2000)]
    numbers = generator.integers(0, 300, 2000)
    sha = np.zeros((2000, 32), dtype=np.uint8)
    sha[:, :2] = numbers[:, None] // [256, 1] % 256
    sha[:, 31] = 1
    ids = [str(i) for i in range(2000)]
    found = find_leaks(ids, splits, groups, sha)

    def expected(keys: list) -> set:
        return {
            k
            for k in set(keys)
            if len({s for s, own in zip(splits, keys, strict=True) if own == k}) > 1
        }

    assert set(found.groups.names) == expected(groups)
    assert {numbers[int(name)] for name in found.equal.names} == expected(numbers.tolist())


def test_a_manifest_with_a_divided_group_is_refused(tmp_path: Path) -> None:
    """The error counts groups and images, names the first, and says what to do."""
    path = tmp_path / "m.csv"
    path.write_text("id,path,split,group,y\na,1,train,g0,0\nb,2,val,g0,1\nc,3,test,g1,1\n")
    with pytest.raises(ManifestError) as caught:
        refuse_divided_groups(read_manifest(path))
    said = str(caught.value)
    assert "1 group of 2 images lies in several splits: g0 (train 1, val 1)" in said
    assert "--allow-leak" in said
    assert "--folds" in said
