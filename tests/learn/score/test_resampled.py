"""The corrected t test of repeated divisions: by hand, and against divisions of nothing but noise."""

import numpy as np
import pytest
from scipy.stats import ttest_1samp
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import RepeatedStratifiedKFold

from samcls.learn.score.resampled import corrected_mean


def test_it_is_the_t_test_with_a_larger_variance() -> None:
    """By as much as divisions share; without tested images it is the plain test."""
    values = [0.1, 0.3, 0.2, -0.1, 0.15]
    plain = ttest_1samp(values, 0)
    found = corrected_mean(values, train=1.0, test=0.0)
    assert found["p"] == pytest.approx(plain.pvalue)
    assert found["interval"] == pytest.approx(list(plain.confidence_interval()))
    wider = corrected_mean(values, train=4.0, test=1.0)
    assert wider["mean"] == pytest.approx(np.mean(values))
    error = np.sqrt((1 / 5 + 1 / 4) * np.var(values, ddof=1))
    reach = (wider["interval"][1] - wider["interval"][0]) / 2
    assert reach == pytest.approx(2.776445 * error, rel=1e-5)
    assert wider["p"] > found["p"]


def test_what_cannot_be_judged_is_said() -> None:
    """One division, equal ones, none."""
    assert corrected_mean([0.5], 4.0, 1.0)["interval"] is None
    assert corrected_mean([0.0, 0.0], 4.0, 1.0)["p"] == 1.0
    assert corrected_mean([0.5, 0.5], 4.0, 1.0)["p"] == 0.0
    with pytest.raises(ValueError, match="no values"):
        corrected_mean([], 4.0, 1.0)


@pytest.mark.slow
def test_differences_of_nothing_are_seldom_significant() -> None:
    """Two models of which neither is better, 5 folds twice: the plain t test errs several times as often."""
    found = {"corrected": 0, "plain": 0}
    number = 300
    for seed in range(number):
        generator = np.random.default_rng(seed)
        x, y = generator.normal(size=(80, 8)), generator.integers(0, 2, 80)
        apart = []
        for train, test in RepeatedStratifiedKFold(
            n_splits=5, n_repeats=2, random_state=seed
        ).split(x, y):
            scores = []
            for half in (slice(0, 4), slice(4, 8)):
                model = LogisticRegression().fit(x[train, half], y[train])
                scores.append(roc_auc_score(y[test], model.decision_function(x[test, half])))
            apart.append(scores[0] - scores[1])
        found["corrected"] += corrected_mean(apart, 64.0, 16.0)["p"] < 0.05
        found["plain"] += ttest_1samp(apart, 0).pvalue < 0.05
    print({name: count / number for name, count in found.items()})  # noqa: T201 - shown by pytest -s
    assert found["corrected"] / number < 0.09
    assert found["plain"] > 2 * found["corrected"]
