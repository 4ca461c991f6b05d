"""Differences of models on the same images: DeLong's test, resampled groups, seeds, Holm."""

import json

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, roc_auc_score

from samcls.learn.score.delong import delong, places_of
from samcls.learn.score.paired import against_first, compare, compare_means


def case(seed: int, images: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of two classes and probabilities that know half of them."""
    generator = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(2), generator.integers(0, 2, images)])
    p = generator.dirichlet(np.ones(2), len(labels))
    p[: len(p) // 2] += np.eye(2)[labels[: len(p) // 2]]
    return labels, p / p.sum(1, keepdims=True)


def by_definition(positive: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """DeLong's structural components as written in the paper: psi over all pairs."""
    up, down = scores[positive], scores[~positive]
    psi = (up[:, None] > down) + 0.5 * (up[:, None] == down)
    return psi.mean(1), psi.mean(0)


@given(st.integers(0, 2**31), st.integers(4, 60), st.booleans())
def test_delong_is_the_papers_covariance(seed: int, images: int, ties: bool) -> None:
    """Difference and standard error by ranks equal those written out over all pairs."""
    generator = np.random.default_rng(seed)
    positive = np.r_[True, True, False, False, generator.random(images) < 0.4]
    a, b = (generator.normal(size=len(positive)) + s * positive for s in (1.0, 0.5))
    if ties:
        a, b = a.round(), b.round()
    got = delong(positive, a, b)
    (v1, w1), (v2, w2) = by_definition(positive, a), by_definition(positive, b)
    covariance = np.cov(np.stack([v1, v2])) / len(v1) + np.cov(np.stack([w1, w2])) / len(w1)
    contrast = np.array([1.0, -1.0])
    expected = max(0.0, contrast @ covariance @ contrast)
    difference = roc_auc_score(positive, a) - roc_auc_score(positive, b)
    assert got["difference"] == pytest.approx(difference, abs=1e-12)
    assert got["standard_error"] == pytest.approx(np.sqrt(expected), abs=1e-7)


def test_delong_rejects_as_often_as_it_says() -> None:
    """Between two equally good scores, p falls under 0.05 in about 5 % of samples."""
    generator = np.random.default_rng(0)
    rejected = 0
    for _ in range(400):
        positive = np.arange(120) < 50
        shared = generator.normal(size=120) + positive
        a, b = (shared + generator.normal(size=120) for _ in range(2))
        rejected += delong(positive, a, b)["p"] < 0.05
    assert 0.02 <= rejected / 400 <= 0.09


def obuchowski(
    positive: np.ndarray, first: np.ndarray, second: np.ndarray, groups: list[str]
) -> float:
    """The variance of a difference of AUCs as the paper writes it, group by group."""
    psi = [np.zeros((0, 0))] * 2
    for i, scores in enumerate((first, second)):
        up, down = scores[positive], scores[~positive]
        psi[i] = (up[:, None] > down) + 0.5 * (up[:, None] == down)
    d = psi[0] - psi[1]
    theta, (m, n) = d.mean(), d.shape
    names = np.array(groups)
    ups, downs = names[positive], names[~positive]
    s10 = s01 = s11 = 0.0
    holding = set(ups), set(downs), set(groups)
    for group in holding[2]:
        v10 = (d.mean(1)[ups == group] - theta).sum()
        v01 = (d.mean(0)[downs == group] - theta).sum()
        s10, s01, s11 = s10 + v10**2, s01 + v01**2, s11 + v10 * v01
    a, b, c = (len(names) for names in holding)
    s10, s01, s11 = s10 * a / ((a - 1) * m), s01 * b / ((b - 1) * n), s11 * c / (c - 1)
    return float(s10 / m + s01 / n + 2 * s11 / (m * n))


@given(st.integers(0, 2**31), st.integers(10, 60), st.integers(2, 6), st.booleans())
def test_delong_of_groups_is_obuchowskis(seed: int, images: int, size: int, ties: bool) -> None:
    """Components summed over a group, of either class or of both, and t of groups - 1."""
    generator = np.random.default_rng(seed)
    positive = np.r_[True, True, False, False, generator.random(images) < 0.4]
    groups = [
        f"patient-{one}" for one in generator.integers(0, len(positive) // size, len(positive))
    ]
    groups[:4] = ["patient-a", "patient-b", "patient-b", "patient-c"]
    a, b = (generator.normal(size=len(positive)) + s * positive for s in (1.0, 0.5))
    if ties:
        a, b = a.round(), b.round()
    got = delong(positive, a, b, groups)
    variance = max(0.0, obuchowski(positive, a, b, groups))
    assert got["standard_error"] == pytest.approx(np.sqrt(variance), abs=1e-7)
    if got["z"] is not None:
        p = 2 * scipy.stats.t.sf(abs(got["z"]), len(set(groups)) - 1)
        assert got["p"] == pytest.approx(p)


def test_groups_of_one_image_are_no_groups() -> None:
    """Then DeLong's test and the resamples are those of single images, to the last digit."""
    labels, p = case(4, 60)
    other = case(5, 60)[1]
    alone = [f"patient-{i}" for i in range(len(labels))]
    assert delong(labels == 1, p[:, 1], other[:, 1], alone) == delong(
        labels == 1, p[:, 1], other[:, 1]
    )
    assert compare(labels, p, other, groups=alone) == compare(labels, p, other)
    assert compare(labels, p, other, groups=[""] * len(labels)) == compare(labels, p, other)


def test_an_image_without_a_group_is_its_own() -> None:
    """Empty names are not one group."""
    assert places_of(["", "b", "", "a", "b"]).tolist() == [0, 1, 2, 3, 1]


def test_repeated_images_of_a_patient_add_nothing() -> None:
    """Each image three times over, under its patient, gives the answer of the images alone."""
    labels, p = case(4, 80)
    other = case(5, 80)[1]
    groups = [str(i) for i in range(len(labels))] * 3
    thrice = np.tile(labels, 3), np.tile(p, (3, 1)), np.tile(other, (3, 1))
    once, grouped, blind = (
        compare(labels, p, other),
        compare(*thrice, groups=groups),
        compare(*thrice),
    )
    assert (grouped["images"], grouped["groups"]) == (246, 82)
    for name in ("auc", "brier", "accuracy"):
        for key, value in once[name].items():
            assert grouped[name][key] == pytest.approx(value), (name, key)
        assert np.ptp(blind[name]["difference_interval"]) < 0.65 * np.ptp(
            once[name]["difference_interval"]
        )
    assert grouped["delong"]["standard_error"] == pytest.approx(once["delong"]["standard_error"])


def test_the_brier_scores_test_is_a_paired_t_test_over_groups() -> None:
    """Of groups of one size, p is that of a t-test on the groups' mean differences."""
    labels, p = case(4, 88)
    other = case(5, 88)[1]
    groups = [f"patient-{i % 30}" for i in range(90)]
    got = compare(labels, p, other, resamples=20_000, groups=groups)["brier"]
    squares = (p[:, 1] - labels) ** 2 - (other[:, 1] - labels) ** 2
    test = scipy.stats.ttest_1samp(squares.reshape(3, 30).mean(0), 0.0)
    first, second = (brier_score_loss(labels, one[:, 1]) for one in (p, other))
    assert got["difference"] == pytest.approx(first - second)
    assert got["p"] == pytest.approx(test.pvalue, rel=0.05)
    assert got["difference_interval"] == pytest.approx(test.confidence_interval(), abs=0.002)


def test_too_few_groups_are_not_judged() -> None:
    """Under five groups nothing is; under five of a class, no figure that hangs on that class."""
    labels, p = case(4, 58)
    other = case(5, 58)[1]
    few = compare(labels, p, other, groups=[f"patient-{i % 4}" for i in range(60)])
    assert few["withheld"] == "there are 4 groups; under 5 no intervals and p can be believed"
    names = ("auc", "brier")
    assert [few[name]["p"] for name in names] == [None, None]
    assert few["auc"]["difference"] is not None
    assert few["delong"]["p"] is None
    patients = [f"sick-{i % 4}" if y else f"well-{i % 9}" for i, y in enumerate(labels)]
    rare = compare(labels, p, other, groups=patients, classes=("benign", "malignant"))
    assert rare["withheld"] == (
        "there are 4 groups of class malignant; under 5 no intervals and p of figures by class can "
        "be believed"
    )
    assert rare["auc"]["difference_interval"] is None
    assert rare["delong"]["difference_interval"] is None
    assert rare["brier"]["p"] is not None
    assert compare(labels, p, other)["withheld"] is None
    json.dumps([few, rare], allow_nan=False)


def test_a_difference_that_no_resample_changes_is_no_smaller_than_they_tell() -> None:
    """One model always right, the other always wrong: p is one over the resamples and one."""
    labels = np.arange(40) % 2
    right = np.eye(2)[labels]
    got = compare(labels, right, 1 - right, resamples=99)
    assert got["accuracy"]["difference_interval"] == [1.0, 1.0]
    assert got["accuracy"]["p"] == got["auc"]["p"] == pytest.approx(0.01)


def test_several_comparisons_are_corrected_by_holm() -> None:
    """Smallest p times their number, the next times one less, never falling and never above 1."""
    labels, p = case(4, 150)
    others = [case(seed, 150)[1] for seed in (5, 6)]
    found = against_first(labels, [[p], *([one] for one in others), [p]])
    for name in ("auc", "brier", "delong"):
        plain = [one[name]["p"] for one in found]
        known = sorted(value for value in plain if value is not None)
        steps = [min(1.0, (len(known) - i) * value) for i, value in enumerate(known)]
        expected = dict(zip(known, np.maximum.accumulate(steps), strict=True))
        assert [one[name].get("p_holm") for one in found] == [expected.get(v) for v in plain]
    alone = compare(labels, p, others[0])
    assert "p_holm" not in alone["auc"]
    assert {k: v for k, v in found[0]["auc"].items() if k != "p_holm"} == alone["auc"]


def test_a_comparison_is_paired() -> None:
    """A model is equal to itself; a far better one is found better; missing labels are left out."""
    labels, p = case(2, 150)
    even = np.full_like(p, 0.5)
    same, better = compare(labels, p, p), compare(labels, p, even)
    assert same["auc"]["difference"] == 0
    assert same["auc"]["p"] == 1
    assert same["delong"]["z"] is None
    assert better["auc"]["difference_interval"][0] > 0
    assert better["auc"]["p"] < 0.01
    assert better["delong"]["p"] < 0.01
    labels[100:] = -1
    assert compare(labels, p, even) == compare(labels[:100], p[:100], even[:100])
    json.dumps([same, better], allow_nan=False)


def test_means_over_seeds_are_compared_image_by_image_and_seed_by_seed() -> None:
    """One seed is a comparison of two models; of three, the mean of theirs, and SciPy's t-test."""
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 2, 150)
    labels[140:] = -1

    def answer(shift: float) -> np.ndarray:
        score = 1 / (1 + np.exp(-generator.normal(size=150) - shift * labels))
        return np.stack([1 - score, score], axis=1)

    first, second = ([answer(shift) for _ in range(3)] for shift in (1.5, 1.0))
    single, alone = (
        compare(labels, first[0], second[0]),
        compare_means(labels, first[:1], second[:1]),
    )
    assert alone["auc"] == single["auc"] | {
        "by_seed": [single["auc"]["difference"]],
        "seeds_p": None,
    }
    found = compare_means(labels, first, second, resamples=200, seed=4)
    each = [compare(labels, *pair, 200, 4) for pair in zip(first, second, strict=True)]
    for name in ("auc", "accuracy"):
        differences = [one[name]["difference"] for one in each]
        assert found[name]["by_seed"] == pytest.approx(differences)
        assert found[name]["difference"] == pytest.approx(np.mean(differences))
        assert found[name]["first"] == pytest.approx(np.mean([one[name]["first"] for one in each]))
        t_test = scipy.stats.ttest_rel(
            *([one[name][k] for one in each] for k in ("first", "second"))
        )
        assert found[name]["seeds_p"] == pytest.approx(t_test.pvalue)
    low, high = found["auc"]["difference_interval"]
    widths = [np.ptp(one["auc"]["difference_interval"]) for one in each]
    assert 0 < high - low < max(widths)
    json.dumps(found, allow_nan=False)
