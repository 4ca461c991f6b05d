"""The table of predictions: what is written is what is read."""

from pathlib import Path

import numpy as np

from samcls.learn.runs.predictions import Predictions, predictions_csv, read_predictions

TASKS = {"malignancy": ("benign", "malignant"), "group": ("a", "b", "c")}


def said(images: int = 9) -> Predictions:
    """Of two tasks with missing labels; the third image has no group."""
    generator = np.random.default_rng(0)
    labels = np.stack([generator.integers(-1, len(c), images) for c in TASKS.values()], axis=1)
    probabilities = {
        task: generator.dirichlet(np.ones(len(c)), images).astype(np.float32)
        for task, c in TASKS.items()
    }
    groups = [f"patient {i // 2}, left" for i in range(images)]
    groups[2] = ""
    return Predictions(tuple(f"é-{i}" for i in range(images)), labels, probabilities, tuple(groups))


def test_groups_labels_and_probabilities_are_read_as_they_were_written(tmp_path: Path) -> None:
    """Each image of the split comes back with its group, or with none where it has none."""
    given = said()
    splits = ["test"] * 9
    (tmp_path / "predictions.csv").write_bytes(predictions_csv(given, splits, TASKS))
    read = read_predictions(tmp_path / "predictions.csv", TASKS, "test")
    assert (read.ids, read.groups) == (given.ids, given.groups)
    assert np.array_equal(read.labels, given.labels)
    for task in TASKS:
        assert np.array_equal(read.probabilities[task], given.probabilities[task])


def test_a_table_without_groups_says_that_no_image_has_one(tmp_path: Path) -> None:
    """Tables of an earlier version, which lack the column, are read as before."""
    path = tmp_path / "predictions.csv"
    path.write_text("id,split,task,label,p_no,p_yes\nx,val,t,yes,0.25,0.75\ny,val,t,,0.5,0.5\n")
    read = read_predictions(path, {"t": ("no", "yes")}, "val")
    assert (read.ids, read.groups) == (("x", "y"), ("", ""))
    assert read.labels.tolist() == [[1], [-1]]
