"""What a table says under its figures: how many labelled images, and how often test was scored."""

from typing import Any

import pytest

from samcls.cli.tables import show_figures

FIGURES = {
    "auc": 0.8,
    "auc_interval": [0.7, 0.875],
    "accuracy": 0.75,
    "accuracy_interval": None,
    "balanced_accuracy": 0.7,
    "ece": 0.1,
    "images": 20,
}
RESULT: dict[str, Any] = {
    "head": "slca",
    "images": {"train": 60, "val": 20, "test": 20, "failed": 0},
    "labelled": {"grade": {"train": 50, "val": 20, "test": 18}},
    "models_tried": 3,
    "notes": ["a note"],
    "validation": FIGURES,
    "test": FIGURES,
    "baselines": {},
}


def shown(result: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines under the table."""
    show_figures(result)
    return capsys.readouterr().out.split("\n\n")[-1].splitlines()


def test_a_run_says_what_was_labelled_and_what_it_scored(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Images without a label are not counted, and the run speaks of itself alone."""
    assert shown(RESULT, capsys) == [
        "trained on 50 labelled images, chosen on 20, tested on 18",
        "this run scored the test split once; models tried: 3",
        "a note",
    ]


def test_a_withheld_interval_is_a_dash(capsys: pytest.CaptureFixture[str]) -> None:
    """The AUC's is shown, the accuracy's is not there to show."""
    show_figures(RESULT)
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "slca head" in line]
    assert row.split() == [
        "slca",
        "head",
        "0.800",
        "0.700",
        "to",
        "0.875",
        "0.750",
        "-",
        "0.700",
        "0.100",
        "0.800",
    ]


def test_each_task_has_its_own_count_of_labels(capsys: pytest.CaptureFixture[str]) -> None:
    """Two tasks that are labelled apart have a line each."""
    both = {"grade": RESULT["labelled"]["grade"], "stage": {"train": 9, "val": 8, "test": 7}}
    tasks = {"tasks": {"grade": FIGURES, "stage": FIGURES}}
    lines = shown({**RESULT, "labelled": both, "validation": tasks, "test": tasks}, capsys)
    assert lines[:2] == [
        "grade: trained on 50 labelled images, chosen on 20, tested on 18",
        "stage: trained on 9 labelled images, chosen on 8, tested on 7",
    ]


def test_several_runs_scored_test_several_times(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing that was scored by five runs is said to have been tested once."""
    lines = shown({**RESULT, "runs": [{}] * 5}, capsys)
    assert lines[1] == (
        "each of these 5 runs scored the test split once; figures are their means; models tried: 3"
    )


def test_folds_test_each_image_once_a_seed(capsys: pytest.CaptureFixture[str]) -> None:
    """The pooled table's images are what was tested."""
    lines = shown({**RESULT, "runs": [{}] * 6, "pooled": [FIGURES, FIGURES]}, capsys)
    assert lines[:2] == [
        "mean of 6 runs; models tried: 3",
        "each of 20 images was tested once for each of 2 seeds, by a run that had not seen it",
    ]
    assert lines[2] == "all folds' images together: AUC 0.800, 0.700 to 0.875"
