"""The threshold is the one with the best Youden index on validation, and is read off elsewhere."""

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from samcls.learn.score.operating import answered, fit_threshold
from samcls.learn.score.scoring import score


def two(scores: list[float]) -> np.ndarray:
    values = np.array(scores, dtype=np.float32)
    return np.stack([1 - values, values], 1)


@pytest.mark.parametrize("seed", range(20))
def test_no_threshold_of_a_roc_curve_has_a_better_youden_index(seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, 60)
    p = two(np.round(np.clip(0.3 * labels + generator.random(60) * 0.7, 0, 1), 2).tolist())
    threshold = fit_threshold(labels, p)
    assert threshold is not None
    alarms, hits, _ = roc_curve(labels, p[:, 1], drop_intermediate=False)
    said = answered(p, threshold)
    found = said[labels == 1].mean() - said[labels == 0].mean()
    assert found == pytest.approx((hits - alarms).max())


def test_of_equal_thresholds_the_nearest_to_a_half_is_taken() -> None:
    assert fit_threshold(np.array([0, 1]), two([0.1, 0.9])) == pytest.approx(0.5)
    assert fit_threshold(np.array([0, 1]), two([0.6, 0.8])) == pytest.approx(0.7)


def test_without_both_classes_or_different_scores_it_is_a_half() -> None:
    assert fit_threshold(np.array([1, 1, -1]), two([0.1, 0.2, 0.9])) == 0.5
    assert fit_threshold(np.array([1, 0]), two([0.3, 0.3])) == 0.5
    assert fit_threshold(np.array([-1, -1]), two([0.3, 0.4])) == 0.5


def test_more_than_two_classes_have_none_and_the_most_probable_is_answered() -> None:
    p = np.array([[0.2, 0.5, 0.3], [0.6, 0.2, 0.2]], dtype=np.float32)
    assert fit_threshold(np.array([1, 0]), p) is None
    assert answered(p, None).tolist() == [1, 0]


def test_a_table_says_its_figures_at_the_threshold_with_intervals() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, (200, 1))
    p = two(np.clip(0.2 * labels[:, 0] + generator.random(200) * 0.3, 0, 1).tolist())
    threshold = fit_threshold(labels[:, 0], p)
    table = score(labels, {"t": p}, {"t": ("a", "b")}, {"t": 0}, thresholds={"t": threshold})
    said = answered(p, threshold)
    assert table["threshold"] == threshold
    assert table["sensitivity"] == 0  # no score is above a half
    assert table["sensitivity_at_threshold"] == pytest.approx(said[labels[:, 0] == 1].mean())
    assert table["specificity_at_threshold"] == pytest.approx(1 - said[labels[:, 0] == 0].mean())
    low, high = table["sensitivity_at_threshold_interval"]
    assert low < table["sensitivity_at_threshold"] < high
