"""Runs, seeds, folds and sweeps' winners compared: on the same images, or not at all."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from samcls.cli.tables import show_comparison
from samcls.errors import InputError
from samcls.learn.runs.compare import compare_runs
from samcls.learn.runs.folder import load_run, load_runs
from samcls.learn.runs.predictions import read_predictions
from samcls.learn.runs.repeats import train_repeats
from samcls.learn.runs.train import train
from samcls.learn.score.paired import compare
from samcls.learn.settings import TrainConfig
from samcls.store.feature_store import FeatureStore

MakeStore = Callable[..., FeatureStore]
CONFIG = TrainConfig(
    head="slca", epochs=2, batch_size=32, learning_rate=1e-2, reduction=2, intervals=20
)


def test_runs_are_compared_on_the_same_images(make_store: MakeStore, tmp_path: Path) -> None:
    """Two heads of one store are compared image by image; other images are counted and refused."""
    store = make_store(200, strength=6.0)
    train(store, CONFIG, tmp_path / "slca")
    train(store, replace(CONFIG, head="linear"), tmp_path / "linear")
    train(store, replace(CONFIG, folds=2), tmp_path / "fold")
    slca, linear, fold = (load_run(tmp_path / name) for name in ("slca", "linear", "fold"))
    result = compare_runs(slca, linear)
    auc = result["tasks"]["malignancy"]["auc"]
    assert auc["first"] == pytest.approx(slca.metrics["test"]["auc"], abs=1e-9)
    assert auc["second"] == pytest.approx(linear.metrics["test"]["auc"], abs=1e-9)
    assert auc["difference"] == pytest.approx(auc["first"] - auc["second"])
    assert (result["images"], result["groups"]) == (40, 20)
    with pytest.raises(
        InputError,
        match=r"not scored on the same test images: 40 and 100, of which \d+ in both, \d+ only in "
        r".*slca \(image-\d+, image-\d+, image-\d+, \.\.\.\), \d+ only in .*fold",
    ):
        compare_runs(slca, fold)
    with pytest.raises(InputError, match="got 1 run to compare; expected two or more"):
        compare_runs(slca)


def test_patients_are_drawn_as_a_whole(
    make_store: MakeStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The groups of the predictions are those of the comparison, and the table counts them."""
    splits = ["train"] * 60 + ["val"] * 20 + ["test"] * 72
    groups = [f"patient-{i // 3}" for i in range(152)]
    store = make_store(152, splits=splits, groups=groups, strength=2.0)
    for head in ("slca", "linear"):
        train(store, replace(CONFIG, head=head), tmp_path / head, allow_leak=True)
    slca, linear = (load_run(tmp_path / head) for head in ("slca", "linear"))
    result = compare_runs(slca, linear)
    said = [read_predictions(r.path / "predictions.csv", r.tasks, "test") for r in (slca, linear)]
    expected = compare(
        said[0].labels[:, 0],
        *(one.probabilities["malignancy"] for one in said),
        groups=groups[80:],
    )
    assert result["tasks"]["malignancy"] == expected
    assert (result["images"], result["groups"]) == (72, 25)
    show_comparison(result)
    assert "malignancy, 72 images of 25 groups of split test" in capsys.readouterr().out


def test_folders_of_seeds_are_compared_seed_by_seed(make_store: MakeStore, tmp_path: Path) -> None:
    """The means are those of each folder's summary; other seeds are compared by their means alone."""
    store = make_store(100, strength=4.0)
    means = {}
    for head in ("slca", "linear"):
        result = train_repeats(store, replace(CONFIG, head=head), tmp_path / head, seeds=2)
        means[head] = result["test"]["auc"]
    slca, linear = load_runs(tmp_path / "slca"), load_runs(tmp_path / "linear")
    result = compare_runs(slca, linear[::-1])
    assert result["seeds"] == [0, 1]
    assert result["runs"] == [str(tmp_path / "slca"), str(tmp_path / "linear")]
    auc = result["tasks"]["malignancy"]["auc"]
    assert auc["first"] == pytest.approx(means["slca"])
    assert auc["second"] == pytest.approx(means["linear"])
    assert len(auc["by_seed"]) == 2
    uneven = compare_runs(slca, linear[0])
    auc = uneven["tasks"]["malignancy"]["auc"]
    assert auc["first"] == pytest.approx(means["slca"])
    assert auc["second"] == pytest.approx(linear[0].metrics["test"]["auc"])
    assert "by_seed" not in auc
    assert "seeds" not in uneven
    assert uneven["seeds_by_run"] == [[0, 1], [0]]
    assert uneven["notes"][0].startswith("means over 2 and 1 seeds, which are not the same ones: p")
    with pytest.raises(InputError, match="holds seed 0 2 times; expected each seed once"):
        compare_runs([slca[0], slca[0]], linear)
    with pytest.raises(InputError, match="different settings; expected those of one config"):
        compare_runs([slca[0], linear[1]], linear)
    (tmp_path / "slca" / "summary.json").unlink()
    with pytest.raises(InputError, match=r"slca is unfinished: it has no summary\.json"):
        load_runs(tmp_path / "slca")
    with pytest.raises(InputError, match="is not a run folder"):
        load_runs(tmp_path)


def test_folds_are_compared_on_all_their_test_images(make_store: MakeStore, tmp_path: Path) -> None:
    """Two folders of folds, even of other folds, meet image by image; the figures are the pooled ones."""
    store = make_store(90, strength=3.0)
    pooled = {
        name: train_repeats(store, replace(CONFIG, head=head), tmp_path / name, folds=folds)[
            "pooled"
        ]
        for name, head, folds in (("a", "slca", 3), ("b", "linear", 3), ("c", "linear", 2))
    }
    a, b, c = (load_runs(tmp_path / name) for name in "abc")
    result = compare_runs(a, b)
    auc = result["tasks"]["malignancy"]["auc"]
    assert auc["first"] == pytest.approx(pooled["a"][0]["auc"])
    assert auc["second"] == pytest.approx(pooled["b"][0]["auc"])
    assert (result["images"], result["groups"]) == (90, 45)
    assert result["tasks"]["malignancy"]["delong"]["p"] is not None
    assert result["notes"][0] == (
        "test images of all folds together (3, 3 folds), each as the run said that never saw it"
    )
    assert compare_runs(a, c)["tasks"]["malignancy"]["auc"]["second"] == pytest.approx(
        pooled["c"][0]["auc"]
    )
    with pytest.raises(
        InputError, match="holds fold 0, 2 of seed 0; expected each of 3 folds once"
    ):
        compare_runs([a[0], a[2]], b)
    with pytest.raises(InputError, match="compare folds on their test images"):
        compare_runs(a, b, split="val")
    with pytest.raises(InputError, match="90 and 30, of which 30 in both, 60 only in"):
        compare_runs(a, b[0])


def test_more_runs_are_compared_with_the_first(
    make_store: MakeStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each pair has the table of the two alone, beside p corrected by Holm, and the note says so."""
    store = make_store(150, strength=2.0)
    for head in ("slca", "linear", "knn"):
        train(store, replace(CONFIG, head=head), tmp_path / head)
    runs = [load_run(tmp_path / head) for head in ("slca", "linear", "knn")]
    result = compare_runs(*runs)
    assert "tasks" not in result
    assert [pair["runs"] for pair in result["comparisons"]] == [
        [str(tmp_path / "slca"), str(tmp_path / other)] for other in ("linear", "knn")
    ]
    for pair, other in zip(result["comparisons"], runs[1:], strict=True):
        alone = compare_runs(runs[0], other)["tasks"]["malignancy"]["auc"]
        got = dict(pair["tasks"]["malignancy"]["auc"])
        assert got.pop("p_holm") >= got["p"]
        assert got == alone
    show_comparison(result)
    shown = capsys.readouterr().out
    assert "malignancy: A and C, 30 images of 15 groups of split test" in shown
    assert "p Holm" in shown.splitlines()[5]
    assert "p Holm: corrected for the 2 comparisons of each figure" in shown


def test_a_sweeps_winner_is_a_run(make_store: MakeStore, tmp_path: Path) -> None:
    """The sweep's folder, its folder `winner` and the run inside it are one and the same."""
    run = tmp_path / "sweep" / "winner" / "run"
    train(make_store(100, strength=4.0), CONFIG, run)
    for path in (tmp_path / "sweep", run.parent, run):
        assert [one.path for one in load_runs(path)] == [run]


def test_other_labels_classes_and_groups_are_refused_in_words(
    make_store: MakeStore, tmp_path: Path
) -> None:
    """Counts and an example of labels, the positive class, classes, tasks, and groups."""
    labels = np.random.default_rng(0).integers(0, 2, (60, 1))
    changed = labels.copy()
    changed[4], changed[9] = 1 - labels[4], -1
    base = {"labels": labels, "strength": 4.0}
    stores = {
        "base": base,
        "labels": base | {"labels": changed},
        "positive": base | {"tasks": {"malignancy": ("malignant", "benign")}},
        "classes": base | {"tasks": {"malignancy": ("no", "yes")}},
        "tasks": base | {"tasks": {"melanoma": ("benign", "malignant")}},
        "groups": base | {"groups": [f"patient-{i // 5}" for i in range(30)] + ["one"] * 30},
        "ungrouped": base | {"groups": [""] * 60},
    }
    for name, options in stores.items():
        made = make_store(60, name=f"{name}.zarr", **options)
        train(made, CONFIG, tmp_path / name, allow_leak=True)
    words = {
        "labels": r"2 of 12 test images have others, such as image-4 \(malignancy: \w+ and \w+\)",
        "positive": "the positive class is malignant in .*base and benign in .*positive; .*--positive",
        "classes": "classes benign, malignant in .*base and no, yes in .*classes",
        "tasks": r"base learned malignancy \(benign, malignant\) and .*tasks melanoma",
        "groups": "group their images differently: image-4 belongs to patient-test-0 and patient-0",
    }
    first = load_run(tmp_path / "base")
    for name, expected in words.items():
        with pytest.raises(InputError, match=expected):
            compare_runs(first, load_run(tmp_path / name))
    assert compare_runs(load_run(tmp_path / "ungrouped"), first)["groups"] == 6
