"""Figures of models on the same images, and what another draw of images would make of their differences.

The same resamples serve every model, and images of one group are drawn together. A difference is
judged by its standard deviation over resamples against a t distribution, because shares of
resamples on one side of zero call a null difference significant too often: of 16 patients with 10
images each 12 % of the time, at a level of 5 %.

    compare(labels, first, second, groups=patients)["auc"]["p"]
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import t, ttest_1samp

from samcls.learn.score.delong import delong, places_of
from samcls.learn.score.metrics import FIGURES, figures, mean_defined
from samcls.learn.score.scoring import labelled, resample

__all__ = ["FEWEST", "against_first", "compare", "compare_means"]

ALIKE = 1e-9  # differences of figures nearer to each other differ by rounding alone
FEWEST = 5  # groups of a class, or of all images, under which no difference is judged
OF_ALL_IMAGES = ("accuracy", "brier", "ece")  # figures that no single class can make or break

Labels = Int[np.ndarray, " image"]
Answer = Float[np.ndarray, "image class"]
PerResample = Float[np.ndarray, " resample"]


def compare(
    labels: Labels,
    first: Answer,
    second: Answer,
    resamples: int = 1000,
    seed: int = 0,
    groups: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Figures of two models on the same images, and their differences (first - second).

    Args:
        labels: Class indices; images with -1 are left out.
        first: One model's probabilities.
        second: The other's.
        resamples: Number of resamples.
        seed: Of the draws.
        groups: Of each image, what is drawn as a whole; "" for an image that is drawn alone. None
            means that each is.
        classes: Names, for sentences.

    Returns:
        For each figure `first`, `second`, `difference`, `difference_interval` (95 %) and two-sided
        `p`; for two classes `delong`; `images` and `groups`, the number of labelled images and of
        what was drawn as a whole; and `withheld`, why intervals and p are None where too few groups
        were there to judge by, else None.
    """
    return against_first(labels, [[first], [second]], resamples, seed, groups, classes)[0]


def compare_means(
    labels: Labels,
    first: Sequence[Answer],
    second: Sequence[Answer],
    resamples: int = 1000,
    seed: int = 0,
    groups: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Mean figures of two configs' models, one a seed, and their differences seed by seed.

    Images are drawn with replacement, the same for all models, and the means are taken in each
    resample: `difference_interval` and `p` say what other images would change, with these models as
    they are. What other seeds would change, the differences seed by seed say.

    Args:
        labels: As for `compare`.
        first: Probabilities of one config's models, one a seed.
        second: The other's, as many and in the same order of seeds.
        resamples: As for `compare`.
        seed: As for `compare`.
        groups: As for `compare`.
        classes: As for `compare`.

    Returns:
        As `compare`, of the means and without `delong`; each figure with `by_seed`, the difference
        at each seed, and `seeds_p` of a paired two-sided t-test over seeds, None of fewer than two
        seeds or where the differences are all alike.
    """
    arms = [first, second]
    return against_first(labels, arms, resamples, seed, groups, classes, seed_by_seed=True)[0]


def against_first(
    labels: Labels,
    arms: Sequence[Sequence[Answer]],
    resamples: int = 1000,
    seed: int = 0,
    groups: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    *,
    seed_by_seed: bool = False,
) -> list[dict[str, Any]]:
    """Return the first arm's mean figures against each other arm's, all on the same draws.

    Args:
        labels: As for `compare`.
        arms: The models of each, whose figures are averaged.
        resamples: As for `compare`.
        seed: As for `compare`.
        groups: As for `compare`.
        classes: As for `compare`.
        seed_by_seed: Whether the models of the arms are partners, as in `compare_means`.

    Returns:
        For each arm but the first what `compare` gives; of more than one, each p has `p_holm`
        beside it (and `seeds_p` its `seeds_p_holm`): corrected over these comparisons by Holm (1979).
    """
    kept, y, answers = labelled(labels, arms[0][0])
    places = places_of(
        [g for g, k in zip(groups, kept, strict=True) if k] if groups else [""] * len(y)
    )
    judge = _Judge(y, places, classes or [str(c) for c in range(answers.shape[1])])
    every = [[one[kept] for one in arm] for arm in arms]
    values = [_resampled(y, places, arm, resamples, seed) for arm in every]
    means = [mean_defined(arm) for arm in values]
    found = []
    for arm, mean, own in zip(every[1:], means[1:], values[1:], strict=True):
        result: dict[str, Any] = {
            name: judge.difference(name, means[0][i], mean[i])
            | (_over_seeds(values[0][:, i, 0] - own[:, i, 0]) if seed_by_seed else {})
            for i, name in enumerate(FIGURES)
        }
        both = len(np.unique(y)) == 2 and answers.shape[1] == 2
        if both and len(every[0]) == len(arm) == 1 and not seed_by_seed:
            result["delong"] = judge.delong(every[0][0][:, 1], arm[0][:, 1])
        found.append(result | judge.unit())
    if len(found) > 1:
        for name in (*FIGURES, "delong"):
            _correct([one[name] for one in found if name in one])
    return found


class _Judge:
    """What of a figure's difference can be said with so many groups.

    Args:
        labels: Of the labelled images.
        places: The number of each image's group.
        classes: Names.
    """

    def __init__(
        self, labels: Labels, places: Int[np.ndarray, " image"], classes: Sequence[str]
    ) -> None:
        self.labels, self.places = labels, places
        self.groups = int(places.max()) + 1 if len(places) else 0
        self.noun = "images" if self.groups == len(places) else "groups"
        holding = {c: len(np.unique(places[labels == c])) for c in np.unique(labels).tolist()}
        rare = {classes[c]: number for c, number in holding.items() if number < FEWEST}
        self.few: str | None = None
        if self.groups < FEWEST:
            self.few = f"there are {self.groups} {self.noun}"
        elif rare:
            told = ", ".join(f"{number} {self.noun} of class {c}" for c, number in rare.items())
            self.few = f"there are {told}"
        self.freedom = max(1, self.groups - 1)

    def unit(self) -> dict[str, Any]:
        """Return what was compared, and what of it is withheld."""
        what = "intervals and p" if self.groups < FEWEST else "intervals and p of figures by class"
        why = f"{self.few}; under {FEWEST} no {what} can be believed"
        return {
            "images": len(self.labels),
            "groups": self.groups,
            "withheld": why if self.few else None,
        }

    def difference(self, name: str, first: PerResample, second: PerResample) -> dict[str, Any]:
        """Return a figure of two models, their difference, its interval and p."""
        both = first - second
        drawn = both[1:][~np.isnan(both[1:])]
        result: dict[str, Any] = {
            "first": _plain(first[0]),
            "second": _plain(second[0]),
            "difference": _plain(both[0]),
            "difference_interval": None,
            "p": None,
        }
        if len(drawn) < 2 or np.isnan(both[0]) or self._withheld(name):
            return result
        error = drawn.std(ddof=1)
        if name in OF_ALL_IMAGES:
            # A resample's mean over so many groups varies a little less than a new sample's. What
            # is no mean varies more in resamples, and stays below its level without this.
            error *= np.sqrt(self.groups / self.freedom)
        margin = t.ppf(0.975, self.freedom) * error
        result["difference_interval"] = [float(both[0] - margin), float(both[0] + margin)]
        if abs(both[0]) <= ALIKE:
            result["p"] = 1.0
        else:
            by_t = 2 * t.sf(abs(both[0]) / error, self.freedom) if error > ALIKE else 0.0
            result["p"] = float(max(by_t, 1 / (len(drawn) + 1)))
        return result

    def delong(
        self, first: Float[np.ndarray, " image"], second: Float[np.ndarray, " image"]
    ) -> dict[str, Any]:
        """DeLong's test, without its judgement where there are too few groups for one."""
        names = [str(place) for place in self.places]
        found = delong(self.labels == 1, first, second, names)
        if self._withheld("auc"):
            found |= {"difference_interval": None, "z": None, "p": None}
        return found

    def _withheld(self, name: str) -> bool:
        return self.few is not None and (self.groups < FEWEST or name not in OF_ALL_IMAGES)


def _resampled(
    labels: Labels,
    places: Int[np.ndarray, " image"],
    answers: Sequence[Answer],
    resamples: int,
    seed: int,
) -> Float[np.ndarray, "model figure resample"]:
    """Every figure of every model, on the images themselves and then on each resample of groups."""
    groups = int(places.max()) + 1 if len(places) else 0
    blocks = []
    for counts in resample(groups, resamples, seed):
        parts = min(len(counts), max(1, len(places) // max(1, groups)))
        for part in np.array_split(counts, parts):
            weights = part[:, places]
            blocks.append(np.stack([figures(weights, labels, one) for one in answers]))
    return np.concatenate(blocks, axis=2)


def _over_seeds(differences: Float[np.ndarray, " seed"]) -> dict[str, Any]:
    defined = differences[~np.isnan(differences)]
    told = len(defined) > 1 and float(np.ptp(defined)) > ALIKE
    return {
        "by_seed": [_plain(value) for value in differences],
        "seeds_p": float(ttest_1samp(defined, 0.0).pvalue) if told else None,
    }


def _correct(tests: Sequence[dict[str, Any]]) -> None:
    """Give each p of one figure's comparisons Holm's corrected one."""
    for name in ("p", "seeds_p"):
        known = sorted((one for one in tests if one.get(name) is not None), key=lambda x: x[name])
        highest = 0.0
        for place, one in enumerate(known):
            highest = max(highest, min(1.0, (len(known) - place) * one[name]))
            one[f"{name}_holm"] = highest


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
