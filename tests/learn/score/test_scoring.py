"""Metrics: equal to scikit-learn's and to medmnist's evaluator, never a crash or a NaN."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, roc_auc_score
from support.data import DATA as REAL

from samcls.learn.score.scoring import auc, majority_class, resample, score

DATA = REAL / "medmnist"


def table(labels: np.ndarray, probabilities: np.ndarray, **options: Any) -> dict[str, Any]:
    """The table of one task with classes named by letters."""
    classes = tuple("abcdefgh"[: probabilities.shape[1]])
    options = {"majority": {"task": 0}, "parts": 0} | options
    return score(labels[:, None], {"task": probabilities}, {"task": classes}, **options)


def case(seed: int, images: int, classes: int, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), generator.integers(0, classes, images)])
    probabilities = generator.dirichlet(np.ones(classes), len(labels))
    return labels, probabilities.round(1) if ties else probabilities


@given(st.integers(0, 2**31), st.integers(1, 60), st.integers(2, 6), st.booleans())
def test_figures_equal_scikit_learns(seed: int, images: int, classes: int, ties: bool) -> None:
    """AUC, accuracy and balanced accuracy are scikit-learn's, ties among scores or not."""
    labels, p = case(seed, images, classes, ties)
    got = table(labels, p, majority={"task": 1})
    if classes == 2:
        expected, answer = roc_auc_score(labels, p[:, 1]), (p[:, 1] > 0.5).astype(int)
    else:
        expected = np.mean([roc_auc_score(labels == c, p[:, c]) for c in range(classes)])
        answer = p.argmax(1)
    assert got["auc"] == pytest.approx(expected, abs=1e-12)
    assert got["accuracy"] == pytest.approx(accuracy_score(labels, answer), abs=1e-12)
    recall = balanced_accuracy_score(labels, answer)
    assert got["balanced_accuracy"] == pytest.approx(recall, abs=1e-12)
    assert got["majority"] == pytest.approx((labels == 1).mean(), abs=1e-12)
    assert auc(labels[:, None], {"task": p}) == got["auc"]


def medmnist_auc(labels: np.ndarray, scores: np.ndarray, task: str) -> float:
    """medmnist's `getAUC`, as published (MedMNIST/MedMNIST, medmnist/evaluator.py)."""
    if task == "multi-label, binary-class":
        columns = range(scores.shape[1])
        return float(np.mean([roc_auc_score(labels[:, i], scores[:, i]) for i in columns]))
    if task == "binary-class":
        return float(roc_auc_score(labels, scores[:, -1]))
    classes = range(scores.shape[1])
    return float(np.mean([roc_auc_score(labels == i, scores[:, i]) for i in classes]))


def medmnist_acc(labels: np.ndarray, scores: np.ndarray, task: str) -> float:
    """medmnist's `getACC`, as published."""
    if task == "multi-label, binary-class":
        columns = range(scores.shape[1])
        return float(np.mean([np.mean(labels[:, i] == (scores[:, i] > 0.5)) for i in columns]))
    if task == "binary-class":
        return float(np.mean(labels == (scores[:, -1] > 0.5)))
    return float(np.mean(labels == scores.argmax(1)))


@given(st.integers(0, 2**31), st.integers(1, 60), st.integers(2, 6), st.booleans())
def test_figures_equal_medmnists_formula(seed: int, images: int, classes: int, ties: bool) -> None:
    """AUC and ACC are medmnist's for binary, multi-class and multi-label tasks, ties or not."""
    labels, p = case(seed, images, classes, ties)
    task = "binary-class" if classes == 2 else "multi-class"
    got = table(labels, p)
    assert got["auc"] == pytest.approx(medmnist_auc(labels, p, task), abs=1e-12)
    assert got["accuracy"] == pytest.approx(medmnist_acc(labels, p, task), abs=1e-12)
    several = [case(seed + i, images, 2, ties) for i in range(classes)]
    columns = np.stack([y for y, _ in several], axis=1)
    names = [str(i) for i in range(classes)]
    both = score(
        columns,
        {name: q for name, (_, q) in zip(names, several, strict=True)},
        dict.fromkeys(names, ("no", "yes")),
        dict.fromkeys(names, 0),
        parts=0,
    )
    scores = np.stack([q[:, 1] for _, q in several], axis=1)
    task = "multi-label, binary-class"
    assert both["auc"] == pytest.approx(medmnist_auc(columns, scores, task), abs=1e-12)
    assert both["accuracy"] == pytest.approx(medmnist_acc(columns, scores, task), abs=1e-12)


@given(st.integers(0, 2**31), st.integers(1, 40), st.booleans())
def test_the_auc_is_its_closed_form(seed: int, images: int, ties: bool) -> None:
    """It is the share of pairs of a positive and a negative ranked rightly, ties counting half."""
    labels, p = case(seed, images, 2, ties)
    up, down = p[labels == 1, 1], p[labels == 0, 1]
    pairs = (up[:, None] > down).mean() + 0.5 * (up[:, None] == down).mean()
    assert table(labels, p)["auc"] == pytest.approx(pairs, abs=1e-12)


@given(st.integers(0, 2**31), st.integers(1, 40), st.integers(2, 4), st.booleans())
def test_missing_labels_are_as_if_their_images_were_not_there(
    seed: int, images: int, classes: int, ties: bool
) -> None:
    """Every figure of a split with missing labels is that of its labelled images alone."""
    labels, p = case(seed, images, classes, ties)
    missing = np.random.default_rng(seed).random(len(labels)) < 0.4
    got = table(np.where(missing, -1, labels), p)
    assert got == table(labels[~missing], p[~missing])


@given(st.integers(0, 2**31), st.integers(1, 30), st.booleans(), st.sampled_from([0, 1]))
def test_one_class_splits_have_what_scikit_learn_defines(
    seed: int, images: int, ties: bool, only: int
) -> None:
    """With one class only, what compares classes is null and the rest is scikit-learn's."""
    _, p = case(seed, images, 2, ties)
    labels = np.full(len(p), only)
    got, answers = table(labels, p), (p[:, 1] > 0.5).astype(int)
    assert got["auc"] is None
    assert got["sensitivity_at_specificity"] is None
    assert got["accuracy"] == pytest.approx(accuracy_score(labels, answers))
    assert got["brier"] == pytest.approx(np.mean((p[:, 1] - labels) ** 2))
    right = pytest.approx((answers == only).mean())
    assert got["balanced_accuracy"] == right
    assert (got["sensitivity"], got["specificity"]) == ((right, None) if only else (None, right))
    if only:
        assert got["f1"] == pytest.approx(f1_score(labels, answers, zero_division=0))
        assert got["average_precision"] == pytest.approx(1.0)
    else:
        assert got["f1"] is None
        assert got["average_precision"] is None
    json.dumps(got, allow_nan=False)


@pytest.mark.parametrize(("flag", "classes"), [("breastmnist", 2), ("retinamnist", 5)])
@pytest.mark.parametrize("split", ["val", "test"])
def test_figures_equal_medmnists(flag: str, classes: int, split: str) -> None:
    """On the official labels, AUC and ACC are those of medmnist's own evaluator."""
    if not (DATA / f"{flag}.npz").exists():
        pytest.skip(f"needs {flag}.npz in {DATA}")
    from medmnist import Evaluator

    evaluator = Evaluator(flag, split, root=str(DATA))
    labels = evaluator.labels[:, 0].astype(np.int64)
    p = np.random.default_rng(0).dirichlet(np.ones(classes), len(labels)).astype(np.float32)
    p[: len(p) // 2] += 0.3 * np.eye(classes, dtype=np.float32)[labels[: len(p) // 2]]
    p /= p.sum(1, keepdims=True)
    official = evaluator.evaluate(p)
    got = table(labels, p)
    assert got["auc"] == pytest.approx(official.AUC, abs=1e-12)
    assert got["accuracy"] == pytest.approx(official.ACC, abs=1e-12)


def test_draws_do_not_depend_on_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many resamples are held at once, the same seed draws the same ones."""
    whole = np.concatenate(list(resample(20, 30, 1)))
    monkeypatch.setattr("samcls.learn.score.scoring.BLOCK_VALUES", 100)
    blocks = list(resample(20, 30, 1))
    assert len(blocks) == 7
    assert np.array_equal(np.concatenate(blocks), whole)


def test_a_class_absent_from_the_split_is_left_out_and_named() -> None:
    """The AUC is the mean over the classes present; the absent one is named, and nothing is NaN."""
    labels, p = case(1, 40, 4, ties=False)
    labels[labels == 2] = 3
    got = table(labels, p, parts=50)
    assert got["absent_classes"] == ["c"]
    expected = np.mean([roc_auc_score(labels == c, p[:, c]) for c in (0, 1, 3)])
    assert got["auc"] == pytest.approx(expected)
    json.dumps(got, allow_nan=False)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_split_of_one_class_has_no_auc(classes: int) -> None:
    """With one class only, AUC and its interval are null and the accuracies still stand."""
    _, p = case(0, 10, classes, ties=False)
    got = table(np.zeros(len(p), dtype=np.int64), p, parts=20)
    assert got["auc"] is None
    assert got["auc_interval"] is None
    assert got["accuracy"] == got["balanced_accuracy"]
    assert got["absent_classes"] == list("abc"[1:classes])
    assert auc(np.zeros((len(p), 1), dtype=np.int64), {"task": p}) is None
    json.dumps(got, allow_nan=False)


def test_missing_labels_leave_their_image_out_of_their_task_alone() -> None:
    """Each of several tasks is scored on its labelled images; the means over tasks stand on top."""
    generator = np.random.default_rng(2)
    labels = generator.integers(0, 2, (60, 2))
    labels[:20, 1] = -1
    p = {name: generator.dirichlet(np.ones(2), 60) for name in ("melanoma", "keratosis")}
    tasks = {"melanoma": ("no", "yes"), "keratosis": ("no", "yes")}
    got = score(labels, p, tasks, {"melanoma": 0, "keratosis": 1}, parts=30)
    first, second = got["tasks"]["melanoma"], got["tasks"]["keratosis"]
    assert (first["images"], second["images"], got["images"]) == (60, 40, 60)
    kept = labels[:, 1] >= 0
    expected = roc_auc_score(labels[kept, 1], p["keratosis"][kept, 1])
    assert second["auc"] == pytest.approx(expected)
    assert got["auc"] == pytest.approx((first["auc"] + second["auc"]) / 2)
    assert got["auc"] == auc(labels, p)
    assert got["majority"] == pytest.approx(
        ((labels[:, 0] == 0).mean() + (labels[kept, 1] == 1).mean()) / 2
    )
    low, high = got["auc_interval"]
    assert low < got["auc"] < high


def test_a_task_without_one_label_in_the_split_is_null() -> None:
    """A task that the split has no label of has null figures, and the other task's stand on top."""
    labels, p = case(0, 20, 2, ties=False)
    both = np.stack([labels, np.full(len(labels), -1)], axis=1)
    tasks = {"known": ("a", "b"), "unknown": ("a", "b")}
    got = score(both, {"known": p, "unknown": p}, tasks, {"known": 0, "unknown": 0}, parts=10)
    unknown = got["tasks"]["unknown"]
    assert (unknown.pop("images"), unknown.pop("absent_classes")) == (0, ["a", "b"])
    assert unknown.pop("units")["classes"] == {"a": 0, "b": 0}
    assert set(unknown) >= {"auc", "auc_interval", "majority", "kappa", "ece_interval"}
    assert not any(value is not None for value in unknown.values())
    assert got["auc"] == got["tasks"]["known"]["auc"]
    json.dumps(got, allow_nan=False)


def test_the_majority_class_is_the_largest_in_training() -> None:
    """Missing labels do not count, and the first of equally large classes wins."""
    assert majority_class(np.array([2, 1, -1, -1, -1, 2]), 3) == 2
    assert majority_class(np.array([1, 0]), 3) == 0
