"""A frozen run on another data set: its figures, what may explain them, and nothing that is fitted."""

import json
from pathlib import Path

import numpy as np
import pytest
from support.cli import samcls as command
from support.deployed import Deployed, deployed

import samcls
from samcls.deploy.evaluate import evaluate, load_evaluation
from samcls.deploy.predict import predict
from samcls.errors import FingerprintMismatch, InputError, OverwriteRefused
from samcls.learn.score.scoring import auc
from samcls.learn.score.unpaired import differences


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    """The same kind of images, brighter and of another seed: another hospital."""
    return deployed(tmp_path_factory.mktemp("other"), seed=7, shift=25)


def test_figures_are_those_of_what_predict_says(
    made: Deployed, other: Deployed, tmp_path: Path
) -> None:
    run = made.run("slca", head="slca")
    found = evaluate(run, other.store, tmp_path / "out")
    rows = predict(run, [other.root / "manifest.csv"], batch=8).predictions
    good = [row for row in rows if not row["error"]]
    p = np.array([[float(row["p_benign"]), float(row["p_malignant"])] for row in good], np.float32)
    store = samcls.open_store(other.store)
    labels = store.labels[np.isin(store.ids, [row["id"] for row in good])].astype(np.int64)
    assert found.figures["auc"] == pytest.approx(auc(labels, {"grade": p}))
    threshold = samcls.load_run(run).metrics["validation"]["threshold"]
    assert found.figures["threshold"] == threshold
    answers = p[:, 1] > threshold
    sensitivity = answers[labels[:, 0] == 1].mean()
    assert found.figures["sensitivity_at_threshold"] == pytest.approx(sensitivity)
    assert found.images == {"scored": 63, "failed": 1, "unlabelled": 0}
    assert load_evaluation(tmp_path / "out")["figures"] == json.loads(json.dumps(found.figures))


def test_inside_stands_what_the_run_said_of_its_own_test_images(
    made: Deployed, other: Deployed
) -> None:
    run = samcls.load_run(made.run("slca", head="slca"))
    found = evaluate(run.path, other.store)
    assert found.inside["auc"] == run.metrics["test"]["auc"]
    between = found.difference["grade"]["auc"]
    assert between["difference"] == pytest.approx(found.figures["auc"] - found.inside["auc"])
    low, high = between["interval"]
    assert low < between["difference"] < high


def test_the_difference_of_two_proportions_has_newcombes_interval() -> None:
    """Newcombe (1998), table II, method 10: 56/70 - 48/80 from Wilson's intervals is 0.0524 to 0.3339."""
    first = {"a": 56 / 70, "a_interval": [0.6917, 0.8769]}
    second = {"a": 48 / 80, "a_interval": [0.4904, 0.7004]}
    found = differences(first, second, ("a",))["a"]
    assert found["difference"] == pytest.approx(0.2)
    assert found["interval"] == pytest.approx([0.0524, 0.3339], abs=2e-3)


def test_the_runs_own_images_are_refused_and_told_where_they_are_accepted(made: Deployed) -> None:
    run = made.run("slca", head="slca")
    with pytest.raises(InputError, match=r"47 of 63 images stood in the run's own training"):
        evaluate(run, made.store)
    own = evaluate(run, made.store, splits=["test"])
    assert own.figures["auc"] == samcls.load_run(run).metrics["test"]["auc"]
    assert own.seen == {"train": 0, "val": 0, "test": 16}
    assert "16 of 16 images are the run's own test images" in own.notes[0]
    assert "a leak that was allowed" in evaluate(run, made.store, allow_leak=True).notes[0]


def test_drift_and_subgroups_are_told(made: Deployed, other: Deployed) -> None:
    found = evaluate(made.run("slca", head="slca"), other.store)
    own = evaluate(made.run("slca", head="slca"), made.store, splits=["test"])
    assert found.drift["median_percentile"] > own.drift["median_percentile"]
    sexes = found.subgroups["sex"]
    assert sexes["f"]["images"] + sexes["m"]["images"] == 63
    assert sum(part["images"] for part in found.subgroups["age"].values()) == 63
    assert found.shares["grade"]["benign"]["here"] == pytest.approx(32 / 63)


def test_recalibration_is_fitted_on_a_part_and_told_of_the_rest(
    made: Deployed, other: Deployed
) -> None:
    run = made.run("slca", head="slca")
    plain = evaluate(run, other.store)
    found = evaluate(run, other.store, recalibrate="val")
    row = found.recalibrated
    assert (row["fitted_on"], row["scored"]) == (16, 47)
    assert row["before"]["auc"] == row["after"]["auc"]
    assert row["before"]["threshold"] == plain.figures["threshold"]
    assert found.figures == plain.figures
    share = evaluate(run, other.store, recalibrate="0.25").recalibrated
    assert 8 <= share["fitted_on"] <= 24
    with pytest.raises(InputError, match="expected a share between 0 and 1"):
        evaluate(run, other.store, recalibrate="some")


def test_classes_of_other_names_are_mapped_by_a_file(
    made: Deployed, other: Deployed, tmp_path: Path
) -> None:
    run = made.run("slca", head="slca")
    text = (other.root / "manifest.csv").read_text().replace("label:grade", "label:diagnosis")
    text = text.replace(",malignant,", ",carcinoma,").replace(",benign,", ",cyst,")
    text = text.replace("\nimage-02,02.png", "\nimage-02," + str(other.root / "02.png"))
    (other.root / "renamed.csv").write_text(text)
    with pytest.raises(InputError, match="say what carcinoma, cyst is with --classes FILE"):
        evaluate(run, other.root / "renamed.csv", store=tmp_path / "s.zarr")
    (tmp_path / "classes.csv").write_text("from,to\ncarcinoma,malignant\ncyst,benign\n")
    found = evaluate(
        run, other.root / "renamed.csv", store=tmp_path / "s.zarr", classes=tmp_path / "classes.csv"
    )
    assert found.figures == evaluate(run, other.store).figures
    (tmp_path / "half.csv").write_text("from,to\ncarcinoma,malignant\ncyst,\n")
    half = evaluate(run, tmp_path / "s.zarr", classes=tmp_path / "half.csv")
    assert half.images["unlabelled"] == 32
    assert half.figures["auc"] is None
    (tmp_path / "wrong.csv").write_text("from,to\ncarcinoma,malign\n")
    with pytest.raises(InputError, match=r"line 2: to 'malign'.*did you mean malignant"):
        evaluate(run, tmp_path / "s.zarr", classes=tmp_path / "wrong.csv")


def test_seeds_are_averaged(made: Deployed, other: Deployed) -> None:
    folder = made.run("seeds", head="linear", seeds=3)
    found = evaluate(folder, other.store)
    rows = predict(folder, [other.root / "manifest.csv"], batch=8).predictions
    good = [row for row in rows if not row["error"]]
    p = np.array([[float(row["p_benign"]), float(row["p_malignant"])] for row in good], np.float32)
    store = samcls.open_store(other.store)
    labels = store.labels[np.isin(store.ids, [row["id"] for row in good])].astype(np.int64)
    assert found.figures["auc"] == pytest.approx(auc(labels, {"grade": p}))


def test_what_cannot_be_evaluated_is_said_in_a_sentence(
    made: Deployed, other: Deployed, tmp_path: Path
) -> None:
    run = made.run("slca", head="slca")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(OverwriteRefused, match="taken is there already"):
        evaluate(run, other.store, tmp_path / "taken")
    (other.root / "bare.csv").write_text("path\n02.png\n")
    with pytest.raises(InputError, match="has no label column"):
        evaluate(run, other.root / "bare.csv", store=tmp_path / "s.zarr")
    with pytest.raises(InputError, match="name a place for their features"):
        evaluate(run, other.root / "manifest.csv")
    with pytest.raises(InputError, match="unknown split dev"):
        evaluate(run, other.store, splits=["dev"])
    samcls.extract(
        other.root / "manifest.csv",
        tmp_path / "w4.zarr",
        encoder="vit_t",
        size=64,
        window=4,
        batch=8,
    )
    with pytest.raises(FingerprintMismatch, match="window"):
        evaluate(run, tmp_path / "w4.zarr")
    with pytest.raises(InputError, match="holds no evaluation"):
        load_evaluation(tmp_path)
    assert not (tmp_path / "s.zarr").exists()


def test_the_page_says_what_a_reader_asks(made: Deployed, other: Deployed, tmp_path: Path) -> None:
    run = made.run("slca", head="slca")
    done = command("evaluate", run, other.store, "--out", tmp_path / "out", "--recalibrate", "0.3")
    assert done.returncode == 3  # one image failed
    for said in (
        "63 images scored, 1 failed",
        "AUC",
        "threshold",
        "recalibrated on",
        "sex",
        "drift:",
    ):
        assert said in done.stdout
    values = json.loads(command("evaluate", run, other.store, "--json").stdout)
    assert values["auc"] == values["figures"]["auc"]
