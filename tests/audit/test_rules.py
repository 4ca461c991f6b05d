"""The rules by which an audit tells twins from strangers and doubtful labels from rare ones."""

import numpy as np
import pytest

from samcls.audit.checks.labels import _claimed
from samcls.audit.checks.twins import _of_the_same
from samcls.audit.threshold import ranked, threshold_of


def test_a_set_of_twins_is_completed() -> None:
    """Of three images that two pairs link, the third pair is named; pairs and large sets are left as they are."""
    assert _of_the_same(np.array([[0, 4], [2, 4], [1, 3]]), 6).tolist() == [[0, 2]]
    assert _of_the_same(np.array([[0, 1], [1, 2], [0, 2]]), 3).shape == (0, 2)
    chain = np.stack([np.arange(60), np.arange(1, 61)], axis=1)
    assert _of_the_same(chain, 61).shape == (0, 2)
    assert _of_the_same(np.zeros((0, 2), np.int64), 6).shape == (0, 2)


def test_images_that_surely_have_a_twin_say_nothing_of_strangers() -> None:
    """One image in five has seven twins; the threshold is that of the others alone, and own copies reach it."""
    rng = np.random.default_rng(0)
    far = rng.normal(0.3, 0.05, 400)
    strangers = np.stack([far + 0.1, far], axis=1)
    twins = np.full((100, 2), 0.99)
    own = rng.uniform(0.9, 0.99, (64, 3))
    alone = threshold_of(strangers, own, least=0.1)
    both = threshold_of(np.concatenate([strangers, twins]), own, least=0.1)
    assert both == alone
    assert 0.4 < both.value < 0.7
    assert both.power == 1
    assert "100 % of some images' own copies reach it" in both.sentence


def test_no_more_than_half_of_own_copies_may_be_missed() -> None:
    """However alike strangers are; without copies, what strangers reach alone decides, and is at least the least."""
    own = np.linspace(0.5, 0.9, 101)[:, None]
    alike = np.full((50, 2), 0.65)
    assert threshold_of(alike, own, least=0.1).value == pytest.approx(0.65)
    assert threshold_of(np.full((50, 2), 0.98), own, least=0.1).value == pytest.approx(0.7)
    without = threshold_of(alike, None, least=0.8)
    assert without.value == 0.8
    assert without.sentence.endswith("strangers reach 0.650")


def test_the_sixth_nearest_is_looked_up_or_the_farthest_of_fewer() -> None:
    """From pairs in any order, each named once."""
    pairs = np.array([[0, i] for i in range(1, 9)])
    similarity = np.linspace(0.1, 0.8, 8)
    found = ranked(pairs, similarity, 9)
    assert found[0] == pytest.approx([0.8, 0.3])
    assert found[1] == pytest.approx([0.1, 0.1])


def test_a_rare_class_is_not_suspected_for_being_rare() -> None:
    """Its images are given low probabilities as a rule, and only one that another class claims is named."""
    labels = np.array([0] * 90 + [1] * 10)
    rare = np.where(labels == 1, 0.3, 0.05)
    said = np.stack([1 - rare, rare], axis=1)
    assert (_claimed(said, labels) == labels).all()
    assert (said.argmax(1) != labels).sum() == 10
    said[95] = [0.99, 0.01]
    assert np.flatnonzero(_claimed(said, labels) != labels).tolist() == [95]
