"""The figures beyond AUC and accuracy, calibration and comparison: equal to references."""

import json

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    cohen_kappa_score,
    f1_score,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from samcls.learn.calibration import cooled, fit_temperature
from samcls.learn.compare import compare, compare_means, delong
from samcls.learn.figures import FIGURES, figures, predicted


def case(seed: int, images: int, classes: int, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), generator.integers(0, classes, images)])
    p = generator.dirichlet(np.ones(classes), len(labels))
    p[: len(p) // 2] += np.eye(classes)[labels[: len(p) // 2]]
    p /= p.sum(1, keepdims=True)
    return labels, p.round(1) if ties else p


def table(labels: np.ndarray, p: np.ndarray) -> dict[str, float]:
    values = figures(np.ones((1, len(labels))), labels, p)[:, 0]
    return dict(zip(FIGURES, values.tolist(), strict=True))


def at_specificity(truth: np.ndarray, scores: np.ndarray) -> float:
    false, true, _ = roc_curve(truth, scores, drop_intermediate=False)
    return float(true[false <= 0.1 + 1e-12].max())


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 60), st.integers(2, 5), st.booleans())
def test_figures_equal_scikit_learns(seed: int, images: int, classes: int, ties: bool) -> None:
    """Every figure that scikit-learn has is scikit-learn's, on random cases with ties."""
    labels, p = case(seed, images, classes, ties)
    got, answers = table(labels, p), predicted(p)
    positives = [1] if classes == 2 else range(classes)

    def mean(function: object) -> float:
        return float(np.mean([function(labels == c, p[:, c]) for c in positives]))  # type: ignore[operator]

    how = {"average": "binary" if classes == 2 else "macro", "zero_division": 0}
    specific = [recall_score(labels != c, answers != c, zero_division=0) for c in positives]
    expected = {
        "auc": mean(roc_auc_score),
        "average_precision": mean(average_precision_score),
        "sensitivity_at_specificity": mean(at_specificity),
        "f1": f1_score(labels, answers, **how),
        "sensitivity": recall_score(labels, answers, **how),
        "specificity": float(np.mean(specific)),
        "kappa": cohen_kappa_score(labels, answers, weights="quadratic"),
    }
    if not ties:
        truth = labels if classes == 2 else np.eye(classes)[labels]
        expected["brier"] = (
            brier_score_loss(labels, p[:, 1])
            if classes == 2
            else np.mean(((p - truth) ** 2).sum(1))
        )
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, abs=1e-12), name


def test_calibration_error_is_its_definition() -> None:
    """The error is the mean gap between sureness and accuracy in 15 bins, open on the left."""
    labels, p = case(0, 400, 3, ties=False)
    p[0], labels[0] = (1.0, 0.0, 0.0), 0
    sure, right = p.max(1), p.argmax(1) == labels
    expected = 0.0
    for b in range(15):
        inside = (sure > b / 15) & (sure <= (b + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - sure[inside].mean())
    assert table(labels, p)["ece"] == pytest.approx(expected, abs=1e-12)


def test_a_known_temperature_is_found() -> None:
    """Labels drawn from probabilities that are then sharpened give that sharpening back."""
    generator = np.random.default_rng(0)
    p = generator.dirichlet(np.ones(3), 20_000)
    labels = (generator.random((len(p), 1)) > p.cumsum(1)).sum(1)
    sharp = cooled(p, 1 / 2.5)
    temperature = fit_temperature(labels, sharp)
    assert temperature == pytest.approx(2.5, rel=0.05)
    before, after = (table(labels, q)["ece"] for q in (sharp, cooled(sharp, temperature)))
    assert after < 0.02
    assert before > 0.1
    assert np.array_equal(cooled(sharp, temperature).argmax(1), sharp.argmax(1))
    assert fit_temperature(np.full(5, -1), p[:5]) == 1.0


def by_definition(positive: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """DeLong's structural components as written in the paper: psi over all pairs."""
    up, down = scores[positive], scores[~positive]
    psi = (up[:, None] > down) + 0.5 * (up[:, None] == down)
    return psi.mean(1), psi.mean(0)


@settings(max_examples=30, deadline=None)
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


def test_a_comparison_is_paired() -> None:
    """A model is equal to itself; a far better one is found better; missing labels are left out."""
    labels, p = case(2, 150, 2, ties=False)
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
