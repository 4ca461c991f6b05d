"""Two equally good models, compared over and over: how often p falls under 0.05.

1,000 comparisons a line, of 200 resamples each; patients share half of the scores' variance, and the
two models 60 % of it. "Judged" is the share of comparisons that had five patients of each class.

Each image with a label of its own:

images  a patient  patients  judged    DeLong       AUC     Brier  accuracy
    58          1        58    1.00     0.056     0.046     0.053     0.050
    58          3        20    1.00     0.035     0.038     0.047     0.046
    58         10         6    0.99     0.049     0.045     0.045     0.030
   156          1       156    1.00     0.054     0.053     0.052     0.046
   156          3        52    1.00     0.046     0.054     0.049     0.044
   156         10        16    1.00     0.046     0.048     0.045     0.042
   400          1       400    1.00     0.050     0.049     0.049     0.050
   400          3       134    1.00     0.053     0.052     0.055     0.045
   400         10        40    1.00     0.054     0.058     0.055     0.063

Each patient with one label for all images:

images  a patient  patients  judged    DeLong       AUC     Brier  accuracy
    58          1        58    1.00     0.056     0.046     0.053     0.050
    58          3        20    0.73     0.034     0.033     0.045     0.040
    58         10         6    0.00  withheld  withheld     0.031     0.023
   156          1       156    1.00     0.054     0.053     0.052     0.046
   156          3        52    1.00     0.052     0.051     0.053     0.048
   156         10        16    0.57     0.035     0.042     0.047     0.038
   400          1       400    1.00     0.050     0.049     0.049     0.050
   400          3       134    1.00     0.041     0.044     0.045     0.040
   400         10        40    1.00     0.042     0.044     0.041     0.037

    python -m pytest -m slow -s tests/learn/score/test_null.py        # some 20 minutes of one core
"""

import numpy as np
import pytest

from samcls.learn.score.delong import delong
from samcls.learn.score.paired import compare

SIZES = (58, 156, 400)
EACH = (1, 3, 10)  # images a patient


def drawn(
    generator: np.random.Generator, images: int, each: int, *, shared: bool
) -> tuple[np.ndarray, list[np.ndarray], list[str]]:
    """Labels, two models' probabilities and patients; both models are as good as each other."""
    places = np.arange(images) // each
    patients = places[-1] + 1
    sick = generator.random(patients)[places] if shared else generator.random(images)
    labels = (sick < 0.3).astype(np.int64)

    def pair(number: int) -> np.ndarray:
        common = generator.normal(size=number)
        return np.sqrt(0.6) * common + np.sqrt(0.4) * generator.normal(size=(2, number))

    scores = np.sqrt(0.5) * (pair(patients)[:, places] + pair(images)) + 1.2 * labels - 1.4
    p = 1 / (1 + np.exp(-scores))
    return labels, [np.stack([1 - one, one], 1) for one in p], [f"patient-{i}" for i in places]


def rejected(
    images: int, each: int, times: int, resamples: int, *, shared: bool
) -> dict[str, tuple[float, int]]:
    """For each test the share of comparisons called significant, of those that it judged."""
    generator = np.random.default_rng(images + each)
    found: dict[str, list[float | None]] = {}
    for number in range(times):
        labels, (a, b), patients = drawn(generator, images, each, shared=shared)
        if len(np.unique(labels)) < 2:
            continue
        got = compare(labels, a, b, resamples, number, patients)
        values = {name: got[name]["p"] for name in ("delong", "auc", "brier", "accuracy")}
        for name, p in values.items():
            found.setdefault(name, []).append(p)
    kept = {name: [p for p in ps if p is not None] for name, ps in found.items()}
    return {
        name: (float(np.mean(np.array(p) < 0.05)) if p else np.nan, len(p))
        for name, p in kept.items()
    }


def line(images: int, each: int, found: dict[str, tuple[float, int]], times: int) -> str:
    """A line of the table."""
    cells = [" withheld" if n < 100 else f"{share:9.3f}" for share, n in found.values()]
    judged = min(n for _, n in found.values()) / times
    return f"{images:6} {each:10} {-(-images // each):9} {judged:7.2f} {' '.join(cells)}"


@pytest.mark.parametrize("each", [1, 10])
def test_a_null_difference_is_seldom_significant(each: int) -> None:
    """Of 16 patients with ten images each as of single images, though not to the last per cent."""
    found = rejected(156, each, 60, 100, shared=False)
    assert all(n == 60 and share <= 0.15 for share, n in found.values())


def test_images_of_a_patient_taken_for_patients_are_often_significant() -> None:
    """DeLong's test of single images errs where patients have one label and ten images each."""
    p: dict[bool, list[float]] = {True: [], False: []}
    for seed in range(150):
        generator = np.random.default_rng(seed)
        labels, (a, b), patients = drawn(generator, 400, 10, shared=True)
        for known, groups in ((True, patients), (False, None)):
            p[known].append(delong(labels == 1, a[:, 1], b[:, 1], groups)["p"])
    assert np.mean(np.array(p[False]) < 0.05) > 0.25
    assert np.mean(np.array(p[True]) < 0.05) < 0.12


@pytest.mark.slow
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("images", SIZES)
@pytest.mark.parametrize("each", EACH)
def test_a_null_difference_is_significant_one_time_in_twenty(
    images: int, each: int, shared: bool
) -> None:
    """Three to seven times in a hundred by DeLong's test and by resampled AUC and Brier score."""
    found = rejected(images, each, 1000, 200, shared=shared)
    print(line(images, each, found, 1000))  # noqa: T201 - the table
    for name in ("delong", "auc", "brier"):
        share, judged = found[name]
        assert judged < 100 or 0.03 <= share <= 0.07, (name, share)
