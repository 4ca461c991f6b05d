"""How often 95 % intervals hold the truth, over samples of patients whose truth is known.

A patient's images share a part of their score and, unless said otherwise, their label. The slow test
prints the table that `samcls/learn/score/intervals.py` quotes:

    pytest -m slow -s tests/learn/score/test_coverage.py        # some twenty minutes of one core
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from samcls.learn.score.metrics import FIGURES, figures
from samcls.learn.score.scoring import resample, score

HEADER = "shown held images groups"
SHOWN = ("auc", "brier")
TASK = {"task": ("healthy", "ill")}


@dataclass(frozen=True)
class Setting:
    """Images of patients, of whom a share is ill.

    Attributes:
        images: Number of images.
        each: Images a patient.
        ill: Share of patients that are ill; of images, where each has a label of its own.
        own: Whether each image has a label of its own.
        alike: Correlation of the scores of one patient's images of one class.
        strength: By how many standard deviations scores of the ill are higher.
        exactly: Ill patients in every sample, in place of a share.
    """

    images: int
    each: int
    ill: float = 0.3
    own: bool = False
    alike: float = 0.5
    strength: float = 1.2
    exactly: int = 0

    def __str__(self) -> str:
        which = f"{self.exactly} ill" if self.exactly else f"{self.ill:.0%} ill"
        labels = "own" if self.own else "shared"
        return f"{self.images} / {self.each}, {which}, {labels}, {self.alike:g}, {self.strength:g}"

    def sample(self, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Patient, label, and probability of being ill."""
        patient = np.arange(self.images) // self.each
        patients = patient[-1] + 1
        labels = generator.random(patients) < self.ill
        if self.exactly:
            labels = np.arange(patients) < self.exactly
        labels = generator.random(self.images) < self.ill if self.own else labels[patient]
        noise = np.sqrt(self.alike) * generator.normal(size=patients)[patient]
        noise += np.sqrt(1 - self.alike) * generator.normal(size=self.images)
        logits = self.strength * (self.strength * labels + noise - self.strength / 2)
        logits += np.log(self.ill / (1 - self.ill))
        return patient, labels.astype(np.int64), 1 / (1 + np.exp(-logits))

    def truth(self) -> np.ndarray:
        """Every figure over a million patients of one image."""
        many = Setting(1_000_000, 1, self.ill, strength=self.strength)
        _, labels, positive = many.sample(np.random.default_rng(7))
        ones = np.ones((1, len(labels)))
        return figures(ones, labels, np.stack([1 - positive, positive], axis=1))[:, 0]


def held(setting: Setting, samples: int, draws: int = 0) -> dict[str, Any]:
    """Share of samples whose interval holds the truth, of those that have one.

    Args:
        setting: What is drawn.
        samples: How often.
        draws: Bootstrap samples behind the percentiles that stand beside; 0 leaves these out.

    Returns:
        For each of `SHOWN` the share that was held and the share that was `shown`; and of the
        percentiles of images and of groups.
    """
    truth = dict(zip(FIGURES, setting.truth(), strict=True))
    found: dict[str, list[bool]] = {
        f"{how} {name}": [] for how in ("held", "shown", "images", "groups") for name in SHOWN
    }
    generator = np.random.default_rng(1)
    for sample in range(samples):
        patient, labels, positive = setting.sample(generator)
        p = np.stack([1 - positive, positive], axis=1)
        groups = [str(one) for one in patient]
        table = score(labels[:, None], {"task": p}, TASK, {"task": 0}, groups=groups)
        for name in SHOWN:
            ends = table[f"{name}_interval"]
            found[f"shown {name}"].append(ends is not None)
            if ends is not None:
                found[f"held {name}"].append(ends[0] <= truth[name] <= ends[1])
                for how, drawn in _percentiles(patient, labels, p, draws, sample):
                    low, high = np.nanpercentile(drawn[FIGURES.index(name)], (2.5, 97.5))
                    found[f"{how} {name}"].append(low <= truth[name] <= high)
    return {what: float(np.mean(each)) if each else np.nan for what, each in found.items()}


def _percentiles(
    patient: np.ndarray, labels: np.ndarray, p: np.ndarray, draws: int, seed: int
) -> Iterator[tuple[str, np.ndarray]]:
    for how, unit in (("images", np.arange(len(labels))), ("groups", patient)):
        if draws:
            rows = np.concatenate(list(resample(int(unit[-1]) + 1, draws, seed)))[1:]
            yield how, figures(rows[:, unit], labels, p)


def test_intervals_of_patients_hold_the_truth_about_as_often_as_they_say() -> None:
    """Three images a patient: about 95 of 100 intervals of every figure hold it."""
    found = held(Setting(156, 3), 300)
    for name in SHOWN:
        assert 0.91 <= found[f"held {name}"] <= 0.985
        assert found[f"shown {name}"] > 0.95


def test_intervals_of_few_positives_hold_the_truth_too() -> None:
    """With as few as six positives of 58 images, an AUC's interval is no narrower than it should."""
    assert held(Setting(58, 1, 6 / 58, exactly=6), 300)["held auc"] >= 0.9


SETTINGS = [
    *(Setting(n, each, own=own) for own in (False, True) for n in (58, 156, 400) for each in (1, 3, 10)
      if not own or each > 1),
    *(Setting(n, each, alike=1.0) for n in (58, 156, 400) for each in (3, 10)),
    *(Setting(58, 1, 6 / 58, exactly=6, strength=strength) for strength in (0.8, 1.2, 2.0)),
    *(Setting(400, 1, ill=0.1, strength=strength) for strength in (0.8, 2.0)),
]  # fmt: skip


@pytest.mark.slow
def test_intervals_hold_the_truth_at_every_size() -> None:
    """At 58, 156 and 400 images of 1, 3 and 10 a patient, 92 to 98 of 100 intervals hold it."""
    wrong = []
    sys.stdout.write(f"\n{'':36}AUC: {HEADER}   Brier: {HEADER}\n")
    for setting in SETTINGS:
        found = held(setting, 1000, 200)
        parts = [[found[f"{how} {name}"] for how in HEADER.split()] for name in SHOWN]
        line = "".join(f"{share:8.3f}" for part in parts for share in part)
        sys.stdout.write(f"{setting!s:36}{line}\n")
        sys.stdout.flush()
        for name, (shown, share, *_) in zip(SHOWN, parts, strict=True):
            if setting.exactly and name == "brier":
                continue  # with as many ill in each sample, it varies less than it does in truth
            # Three standard errors of a share of the samples that had an interval.
            slack = 3 * np.sqrt(0.05 * 0.95 / max(1, 1000 * shown))
            if shown > 0.1 and not 0.92 - slack <= share <= 0.98 + slack:
                wrong.append((str(setting), name, share))
    assert not wrong
