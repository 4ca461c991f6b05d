"""Curves and their bands, against scikit-learn and closed forms."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import precision_recall_curve, roc_auc_score, roc_curve

from samcls.learn.score.curves import Curves


def said(images: int = 300, seed: int = 0, strength: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Labels and calibrated probabilities."""
    rng = np.random.default_rng(seed)
    chance = 1 / (1 + np.exp(-strength * rng.normal(size=images) + 0.7))
    return rng.random(images) < chance, chance.astype(np.float32)


@given(st.integers(0, 10_000), st.integers(12, 80), st.integers(1, 9))
def test_the_roc_curve_is_scikit_learns_and_its_area_the_auc(
    seed: int, images: int, levels: int
) -> None:
    """Also where many scores tie."""
    rng = np.random.default_rng(seed)
    positive = rng.random(images) < 0.4
    positive[:2] = [True, False]
    scores = rng.integers(0, levels + 1, images) / (levels + 1)
    curve = Curves(positive, scores).roc()
    x, y, _ = roc_curve(positive, scores, drop_intermediate=False)
    assert np.allclose(curve.x, x)
    assert np.allclose(curve.y, y)
    area = float(((curve.x[1:] - curve.x[:-1]) * (curve.y[1:] + curve.y[:-1]) / 2).sum())
    assert area == pytest.approx(roc_auc_score(positive, scores), abs=1e-12)


def test_precision_by_recall_is_scikit_learns() -> None:
    """At every threshold."""
    positive, scores = said()
    curve = Curves(positive, scores).precision_recall()
    precision, recall, _ = precision_recall_curve(positive, scores)
    assert np.allclose(curve.y[1:], precision[-2::-1])
    assert np.allclose(curve.x[1:], recall[-2::-1])


def test_net_benefit_is_vickers_and_elkins_formula() -> None:
    """True positives less weighed false ones; of always answering, the share of the class at threshold 0."""
    positive, scores = said()
    curves = Curves(positive, scores)
    curve, everyone = curves.net_benefit(), curves.treat_all()
    for place in (4, 19, 49):
        t = curve.x[place]
        above = scores > t
        expected = ((above & positive).sum() - t / (1 - t) * (above & ~positive).sum()) / len(
            scores
        )
        assert curve.y[place] == pytest.approx(expected, abs=1e-12)
        share = positive.mean()
        assert everyone.y[place] == pytest.approx(share - (1 - share) * t / (1 - t), abs=1e-12)


def test_slope_and_intercept_are_those_of_a_logistic_regression() -> None:
    """Slope by scikit-learn without penalty; of twice as extreme logits half of it."""
    positive, scores = said(800)
    p = scores.astype(np.float64)
    logits = np.log(p / (1 - p))
    slope = LogisticRegression(C=np.inf, tol=1e-10).fit(logits[:, None], positive).coef_[0, 0]
    found = Curves(positive, scores).calibration()
    assert found.slope == pytest.approx(slope, rel=1e-4)
    assert found.ratio == pytest.approx(positive.sum() / p.sum())
    extreme = Curves(positive, 1 / (1 + np.exp(-2 * logits))).calibration()
    assert extreme.slope == pytest.approx(slope / 2, rel=1e-4)
    low, high = found.intervals["slope"]
    assert low < found.slope < high


def test_probabilities_that_hardly_differ_have_a_slope_all_the_same() -> None:
    """The fit finds it in few steps wherever the probabilities lie."""
    positive, scores = said(400)
    near = 0.5 + 0.002 * (scores.astype(np.float64) - 0.5)
    logits = np.log(near / (1 - near))
    slope = (
        LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000)
        .fit(1000 * logits[:, None], positive)
        .coef_[0, 0]
        * 1000
    )
    assert Curves(positive, near).calibration().slope == pytest.approx(slope, rel=1e-3)


def test_outcomes_that_scores_separate_have_no_slope() -> None:
    """It has no end, and none is told; nor an interval where resamples are separated. The curve is finite."""
    positive = np.arange(60) >= 30
    found = Curves(positive, np.linspace(0.01, 0.99, 60)).calibration()
    assert np.isnan(found.slope)
    assert found.intervals["slope"] is None
    assert np.isfinite(found.smooth.y).all()
    nearly = positive.copy()
    nearly[[29, 30]] = nearly[[30, 29]]  # some resamples leave the two out
    found = Curves(nearly, np.linspace(0.01, 0.99, 60)).calibration()
    assert np.isfinite(found.slope)
    assert found.intervals["slope"] is None
    assert found.intervals["ratio"] is not None


def test_bands_hold_the_curve_and_are_the_same_each_time() -> None:
    """Percentiles of resamples around the curve; no chance from one call to the next."""
    positive, scores = said(400)
    for name in ("roc", "precision_recall", "net_benefit"):
        first, again = (getattr(Curves(positive, scores), name)() for _ in range(2))
        assert np.array_equal(first.low, again.low)
        inside = (first.low <= first.y + 0.03) & (first.y - 0.03 <= first.high)
        assert inside.mean() > 0.97


def test_images_of_one_patient_widen_the_band() -> None:
    """Twenty copies of each image of 40 are 40 images' worth, if they are said to be of one patient."""
    positive, scores = said(40, seed=3)
    many, alike = np.repeat(positive, 20), np.repeat(scores, 20)
    groups = [f"patient {i // 20}" for i in range(len(many))]
    apart, together = Curves(many, alike).net_benefit(), Curves(many, alike, groups).net_benefit()
    wide, narrow = (float((one.high - one.low).mean()) for one in (together, apart))
    assert wide > 3 * narrow


def test_few_groups_have_no_band() -> None:
    """Five patients with the class: a curve, and nothing around it."""
    positive = np.arange(40) < 20
    groups = [f"patient {i // 4}" for i in range(40)]
    curves = Curves(positive, np.linspace(1, 0, 40), groups)
    assert curves.roc().low is None
    assert curves.calibration().intervals["slope"] is None


def test_tenths_hold_equally_many_images() -> None:
    """Where scores do not tie."""
    positive, scores = said(300)
    bins = Curves(positive, scores).calibration().bins
    assert bins.images.tolist() == [30.0] * 10
    assert (bins.share * bins.images).sum() == pytest.approx(positive.sum())


def test_one_class_has_no_curves() -> None:
    """With the reason."""
    with pytest.raises(ValueError, match="images are of one class"):
        Curves(np.ones(5, dtype=bool), np.linspace(0, 1, 5))


@pytest.mark.slow
def test_intervals_of_the_slope_hold_the_truth() -> None:
    """Of 200 samples of calibrated probabilities, 300 images each, about 95 in 100 intervals hold slope 1."""
    held = 0
    for seed in range(200):
        positive, scores = said(300, seed)
        low, high = Curves(positive, scores).calibration().intervals["slope"]
        held += low <= 1 <= high
    assert 180 <= held <= 199
