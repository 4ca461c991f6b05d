"""The coded checks: each finds what it is for, passes where it is not there, and says where it cannot judge."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.planted import planted_store

from samcls.learn.runs.folder import Run
from samcls.learn.runs.predictions import Predictions, predictions_csv
from samcls.report.checks import CHECKS, Checked, checks_of
from samcls.report.reading import subject_of
from samcls.report.results import Results
from samcls.report.subject import Subject

TASKS = {"malignancy": ("benign", "malignant")}


def checked(subject: Subject, *silence: str) -> Checked:
    return checks_of(Results(subject), silence)


def codes(subject: Subject) -> dict[str, str]:
    """Level by code."""
    return {one.code: one.level for one in checked(subject).found}


@pytest.fixture
def subject(made) -> Subject:
    return subject_of(made["run"], store=made.stores["run"])


def with_metrics(subject: Subject, **changes: Any) -> Subject:
    """The subject, its run's figures changed."""
    runs = tuple(replace(run, metrics={**run.metrics, **changes}) for run in subject.runs)
    return replace(subject, runs=runs, metrics={**subject.metrics, **changes})


def saying(
    run: Run,
    said: Callable[[np.ndarray, np.random.Generator], np.ndarray],
    images: int = 400,
    **more: Any,
) -> Run:
    """The run with other test predictions: of images of alternating labels."""
    rng = np.random.default_rng(run.config.seed)
    labels = np.arange(images) % 2
    chance = np.clip(said(labels, rng), 1e-6, 1 - 1e-6).astype(np.float32)
    found = Predictions(
        more.get("ids") or tuple(f"image-{i}" for i in range(images)), labels[:, None],
        {"malignancy": np.stack([1 - chance, chance], 1)}, more.get("groups", ()),
    )  # fmt: skip
    own = predictions_csv(run.said, ["val"] * len(run.said.ids), run.tasks)
    rows = own + predictions_csv(found, ["test"] * images, run.tasks).split(b"\n", 1)[1]
    return replace(run, tables={**run.tables, "predictions.csv": rows, "controls.csv": b""})


def calibrated(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a right model would say of normal features whose means lie one apart."""
    return 1 / (1 + np.exp(-(rng.normal(size=len(labels)) + labels - 0.5)))


def said_by(
    subject: Subject, said: Callable[[np.ndarray, np.random.Generator], np.ndarray], **more: Any
) -> Subject:
    return replace(
        subject, store=None, runs=tuple(saying(run, said, **more) for run in subject.runs)
    )


def test_every_check_passes_finds_or_says_why_it_cannot_judge(subject: Subject) -> None:
    """No code is lost, whatever the subject."""
    told = checked(subject)
    known = (
        {one.code for one in told.found}
        | {c for c, _ in told.passed}
        | {c for c, _, _ in told.unjudged}
    )
    assert known == set(CHECKS)
    assert all(why for _, _, why in told.unjudged)


def test_leaks_are_found(subject: Subject) -> None:
    """SC001: a divided group is an error; one equal picture of many is a warning, some are an error."""
    nothing = {"count": 0, "images": 0, "first": []}
    clean = {"groups": nothing, "equal": nothing, "contradictory": nothing}
    base = with_metrics(subject, leaks=clean)
    assert "SC001" not in codes(base)
    groups = {**clean, "groups": {"count": 2, "images": 5, "first": []}}
    assert codes(with_metrics(base, leaks=groups))["SC001"] == "error"
    twin = {"name": "a", "images": {"train": ["a"], "test": ["b"]}}
    one = {**clean, "equal": {"count": 1, "images": 2, "first": [twin]}}
    assert (
        codes(with_metrics(said_by(base, calibrated), leaks=one))["SC001"] == "warning"
    )  # 1 of 400
    assert codes(with_metrics(base, leaks=one))["SC001"] == "error"  # 1 of 48
    audit = {
        "counts": {},
        "problems": [],
        "images": 1,
        "effect": {"affected": 9, "test_images": 48},
    }
    assert codes(replace(base, audit=audit))["SC001"] == "error"
    assert codes(replace(base, audit=audit | {"made": "by features"}))["SC001"] == "warning"


def test_a_head_that_is_not_ahead_of_a_control_is_told(subject: Subject) -> None:
    """SC002: the head that says what its best control says is not ahead; without controls nothing can be judged."""
    assert "SC002" in codes(subject)
    told = checked(said_by(subject, calibrated))
    assert "SC002" in {code for code, _, _ in told.unjudged}


def test_seeds_that_disagree_are_told(made) -> None:
    """SC003: AUCs that range over more than 0.05."""
    seeds = subject_of(made["seeds"])

    def spread(*aucs: float) -> Subject:
        runs = tuple(
            replace(run, metrics={**run.metrics, "test": {**run.metrics["test"], "auc": auc}})
            for run, auc in zip(seeds.runs, aucs, strict=True)
        )
        return replace(seeds, runs=runs)

    assert codes(spread(0.7, 0.72, 0.8))["SC003"] == "warning"
    assert "SC003" in {code for code, _ in checked(spread(0.7, 0.72, 0.74)).passed}
    one = checked(subject_of(made["run"]))
    assert any(code == "SC003" and "--seeds 5" in why for code, _, why in one.unjudged)


def test_a_winner_at_the_edge_of_the_space_is_told(made) -> None:
    """SC004: the best of three learning rates is the largest; in the middle it is not told."""
    sweep = subject_of(made["sweep"])

    def board(*rates: float) -> Subject:
        rows = [
            {"rank": i + 1, "configuration": {"head": "slca", "learning_rate": rate}}
            for i, rate in enumerate(rates)
        ]
        return replace(sweep, board={**sweep.board, "rows": rows})

    assert codes(board(0.1, 0.01, 0.001))["SC004"] == "warning"
    assert "SC004" not in codes(board(0.01, 0.1, 0.001))


def test_small_tests_are_told(subject: Subject) -> None:
    """SC005: under 100 images of the rarer class a warning, under six groups an error, else nothing."""
    assert codes(subject)["SC005"] == "warning"
    assert "SC005" not in codes(with_units(said_by(subject, calibrated), 200))
    assert codes(with_units(said_by(subject, calibrated), 5))["SC005"] == "error"


def with_units(subject: Subject, groups: int) -> Subject:
    table = {
        **subject.metrics["test"],
        "units": {"classes": {"benign": groups, "malignant": groups}},
    }
    return with_metrics(subject, test=table)


def test_probabilities_that_do_not_happen_are_told(subject: Subject) -> None:
    """SC006: right ones pass; logits three times too large do not."""
    assert "SC006" not in codes(said_by(subject, calibrated))

    def extreme(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        p = calibrated(labels, rng)
        return p**3 / (p**3 + (1 - p) ** 3)

    assert codes(said_by(subject, extreme))["SC006"] == "warning"


def test_a_subgroup_that_fares_worse_is_told(made, tmp_path: Path) -> None:
    """SC007: images of one site are answered by chance."""
    subject = subject_of(made["run"])
    site = np.arange(400) % 4 < 2

    def said(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        p = calibrated(3 * labels - 1, rng)
        return np.where(site, rng.random(len(labels)), p)

    labels = (np.arange(400) % 2)[:, None]
    meta = {"site": ["far" if one else "near" for one in site]}
    store = planted_store(tmp_path, 400, labels=labels, meta=meta)
    bad = replace(said_by(subject, said), store=store)
    assert codes(bad)["SC007"] == "warning"
    good = replace(said_by(subject, calibrated), store=store)
    assert "SC007" in {code for code, _ in checked(good).passed}


def test_an_untrained_encoder_is_an_error(subject: Subject) -> None:
    """SC009: told by the weights that were drawn, or by what the store says of them; whatever the figures."""
    runs = tuple(
        replace(run, fingerprint={**run.fingerprint, "encoder": "lite0"}) for run in subject.runs
    )
    trained = with_metrics(replace(subject, runs=runs), notes=[], weights={"file": "lite0.pth"})
    assert "SC009" in {code for code, _ in checked(trained).passed}
    drawn = {"untrained": "random weights of seed 0"}
    assert codes(with_metrics(trained, weights=drawn))["SC009"] == "error"
    assert codes(with_metrics(trained, notes=["the encoder is UNTRAINED"]))["SC009"] == "error"
    unknown = checked(with_metrics(trained, weights={}))
    assert "SC009" in {code for code, _, _ in unknown.unjudged}


@pytest.mark.parametrize(
    ("names", "likely"),
    [
        ("P{n:04}_left P{n:04}_right", True),
        ("case-{n}-1 case-{n}-2", True),
        ("{n:05}L {n:05}R", True),
        ("ISIC_{a:07} ISIC_{b:07}", False),
        ("train_{a:05} train_{b:05}", False),
        ("{a} {b}", False),
    ],
)
def test_images_that_are_named_as_if_of_one_patient_are_told(
    subject: Subject, names: str, likely: bool
) -> None:
    """SC010: where no groups were named; running numbers alone are no sign."""
    pair = names.split()
    ids = tuple(
        pair[i % 2].format(n=i // 2, a=2 * (i // 2), b=2 * (i // 2) + 1) for i in range(400)
    )
    assert ("SC010" in codes(said_by(subject, calibrated, ids=ids))) == likely
    groups = tuple(f"p{i // 2}" for i in range(400))
    assert "SC010" not in codes(said_by(subject, calibrated, ids=ids, groups=groups))


def test_a_split_without_a_class_and_images_left_out_are_told(subject: Subject) -> None:
    """SC012 and SC014."""
    assert "SC012" in {code for code, _ in checked(subject).passed}
    left_out = with_metrics(subject, images={"train": 90, "val": 10, "test": 48, "failed": 20})
    assert codes(left_out)["SC014"] == "warning"


def test_a_choice_between_many_on_few_is_told(subject: Subject) -> None:
    """SC013: more than twenty models to a validation image of the rarest class."""
    assert codes(with_metrics(subject, models_tried=5000))["SC013"] == "note"
    assert "SC013" not in codes(with_metrics(subject, models_tried=30))


def test_a_lower_figure_elsewhere_is_told(made) -> None:
    """SC015: where the interval of the difference lies below zero."""
    here = subject_of(made["evaluation"])

    def gap(low: float, high: float) -> Subject:
        found = {"malignancy": {"auc": {"difference": (low + high) / 2, "interval": [low, high]}}}
        return replace(here, evaluation={**here.evaluation, "difference": found})

    assert codes(gap(-0.2, -0.1))["SC015"] == "warning"
    assert "SC015" not in codes(gap(-0.2, 0.1))


def test_what_is_accepted_comes_last_and_is_no_error(subject: Subject) -> None:
    """It is listed all the same."""
    bad = with_metrics(subject, weights={"untrained": "random"})
    told = checked(bad, "SC009")
    assert [one.code for one in told.found if one.silenced] == ["SC009"] == [told.found[-1].code]
    assert "SC009" not in {one.code for one in told.errors}
