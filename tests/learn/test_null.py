"""Two equally good models, compared over and over: how often p falls under 0.05.

By 1,000 comparisons a cell (`python -m pytest -m slow tests/learn/test_null.py -s`): images of a
patient share half of their variance and two models' scores 60 % of theirs. In the upper table a
patient's images have labels of their own; in the lower they share one, so that of 6 patients too few
are of either class, and of 16 often. "DeLong blind" and "bootstrap blind" take every image for a
patient of its own, and "share" is the usual p of a bootstrap: twice the share of resamples beyond 0.

TABLE
"""

import numpy as np

from samcls.learn.paired import compare

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
