"""The figures beyond AUC and accuracy, calibration and comparison: equal to references."""

import numpy as np
import pytest
from hypothesis import given
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

from samcls.learn.score.calibration import cooled, fit_temperature
from samcls.learn.score.metrics import FIGURES, figures, predicted


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
