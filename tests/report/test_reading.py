"""What lies beside a run is believed only where it is the run's: its store, its audit, the run of an evaluation."""

import json
import shutil
from pathlib import Path

import pytest
from support.pages import text_of
from support.planted import planted_store

import samcls
from samcls.deploy.evaluate import evaluate
from samcls.errors import InputError, RunError
from samcls.learn.runs.folder import MARK
from samcls.learn.runs.writing import place_run
from samcls.report.reading import subject_of
from samcls.report.report import report
from samcls.report.subject import CannotShow

QUICK = {"epochs": 2, "intervals": 50, "batch_size": 32}


def changed(source: Path, place: Path, **metrics: object) -> Path:
    """A copy of a run with other figures; None takes one out."""
    found = {**json.loads((source / "metrics.json").read_text()), **metrics}
    kept = {name: value for name, value in found.items() if value is not None}
    files = {one.name: one.read_bytes() for one in source.iterdir() if one.name != MARK}
    place_run(place, files | {"metrics.json": json.dumps(kept).encode()})
    return place


def test_a_store_of_other_images_or_settings_is_refused(made, tmp_path: Path) -> None:
    """By name with the reason; one that only lies where the command named it is left out, and it is said."""
    with pytest.raises(InputError, match=r"is not the store of .*run: .* images are not in it"):
        subject_of(made["run"], store=made.stores["elsewhere"])
    other = planted_store(tmp_path, 240, window=1)
    with pytest.raises(InputError, match="its features were made with other settings"):
        subject_of(made["run"], store=other.path)
    with pytest.raises(CannotShow, match="name it with --store"):
        _ = subject_of(made["run"]).columns


def test_an_audit_of_other_images_is_refused_and_the_effect_on_another_run_left_out(
    made, tmp_path: Path
) -> None:
    """What an audit says of another run's figures is not told of this one."""
    samcls.audit(made.stores["run"], tmp_path / "audit", run=made["run"])
    file = tmp_path / "audit" / "audit.json"
    found = json.loads(file.read_text())
    problem = {"kind": "near", "ids": ["stranger-1", "stranger-2"], "across_splits": True}
    file.write_text(json.dumps({**found, "problems": [problem] * 3}))
    with pytest.raises(InputError, match="is an audit of other images"):
        subject_of(made["run"], audit=file)
    effect = {"run": "/home/them/theirs", "test_images": 99, "affected": 7, "ids": [], "tasks": {}}
    file.write_text(json.dumps({**found, "effect": effect}))
    subject = subject_of(made["run"], audit=file)
    assert subject.audit["effect"] == {}
    assert any("it is of another run, theirs" in note for note in subject.audit["notes"])


def test_an_evaluation_keeps_its_own_classes_and_thresholds_when_its_run_has_gone_or_changed(
    made, tmp_path: Path
) -> None:
    """Another run at the same place says nothing of the evaluation, and its head is not named."""
    run, there = tmp_path / "run", tmp_path / "evaluation"
    shutil.copytree(made["run"], run)
    evaluate(run, made.stores["elsewhere"], there, allow_leak=True)
    before = subject_of(there)
    assert before.runs
    answers = before.answers("malignancy").answers
    shutil.rmtree(run)
    assert subject_of(there).runs == ()
    samcls.train(made.stores["run"], run, head="linear", positive=["benign"], **QUICK)
    after = subject_of(there)
    assert after.runs == ()
    assert "is another run than the one that was evaluated" in after.reason
    assert after.tasks == {"malignancy": ("benign", "malignant")}
    assert after.answers("malignancy").answers.tolist() == answers.tolist()
    report(there, tmp_path / "r.html")
    text = text_of(tmp_path / "r.html")
    assert "linear on features" not in text
    assert "is another run than the one that was evaluated" in text


def test_the_runs_own_test_images_are_no_external_validation(made, tmp_path: Path) -> None:
    """It is said on the first screen and by the checks."""
    store = planted_store(tmp_path, 240, strength=1.5)
    sha = store.sha256.copy()
    assert sha.shape == (240, 32)
    evaluate(made["run"], made.stores["run"], tmp_path / "own", splits=["test"], allow_leak=True)
    found = json.loads((tmp_path / "own" / "evaluation.json").read_text())
    found["seen"] = {"train": 0, "val": 0, "test": 47}
    files = {one.name: one.read_bytes() for one in (tmp_path / "own").iterdir() if one.name != MARK}
    place_run(tmp_path / "seen", files | {"evaluation.json": json.dumps(found).encode()})
    told = report(tmp_path / "seen", tmp_path / "r.html")
    text = text_of(tmp_path / "r.html")
    assert "47 of them are the run's own test images" in text
    assert any("this is no external validation" in one.sentence for one in told.checks.found)


@pytest.mark.parametrize(
    "name",
    [
        "models_tried",
        "best_epoch",
        "labelled",
        "leaks",
        "select",
        "notes",
        "baselines",
        "epochs",
        "images",
    ],
)
def test_runs_of_earlier_versions_have_a_report_that_says_what_they_lack(
    made, tmp_path: Path, name: str
) -> None:
    """No figure is made up for what was not kept, and no check passes that could not look."""
    old = changed(made["run"], tmp_path / "old", **{name: None})
    told = report(old, tmp_path / "r.html")
    text = text_of(tmp_path / "r.html")
    assert "has AUC" in text
    passed = {code for code, _ in told.checks.passed}
    if name == "leaks":
        assert "SC001" not in passed
    if name == "images":
        assert "SC014" not in passed
        assert "Every image was encoded" not in text


def test_inner_folds_are_told_as_they_were(made, tmp_path: Path) -> None:
    """What was learned from is train and val together; no split of none is shown."""
    samcls.train(made.stores["run"], tmp_path / "inner", head="linear", select="inner:3", **QUICK)
    report(tmp_path / "inner", tmp_path / "r.html", store=made.stores["run"])
    text = text_of(tmp_path / "r.html")
    assert "Trained on 192 images; inner folds of them (inner:3) chose between" in text
    assert "train and val benign" in text
    assert "train benign 0" not in text


def test_folds_say_that_their_threshold_has_seen_test_images(made, tmp_path: Path) -> None:
    """Validation images of one fold are test images of another."""
    report(made["folds"], tmp_path / "r.html")
    text = text_of(tmp_path / "r.html")
    assert "most of which other folds test" in text
    assert "nothing was fitted on these images" not in text
    assert "In fold 0 of 3:" in text


def test_columns_shares_and_groups_stand_in_the_methods(made, tmp_path: Path) -> None:
    """A head that is given columns beside the image, a share of the training images, images without a group."""
    settings = {"head": "linear", "with_meta": ["sex", "age"], "train_fraction": 0.5, **QUICK}
    samcls.train(made.stores["run"], tmp_path / "run", **settings)
    report(tmp_path / "run", tmp_path / "r.html")
    text = text_of(tmp_path / "r.html")
    assert "Beside the image it is given the columns sex, age." in text
    assert "training images are a share of 0.5" in text
    partly = planted_store(
        tmp_path, 100, name="g.zarr", groups=[f"p{i}" if i % 10 == 4 else "" for i in range(100)]
    )
    samcls.train(partly, tmp_path / "partly", head="linear", **QUICK)
    told = report(tmp_path / "partly", tmp_path / "g.html")
    assert "10 of them without one" in text_of(tmp_path / "g.html")
    assert "SC010" in {one.code for one in told.checks.found}


def test_a_place_that_cannot_be_written_is_refused_before_any_work(made, tmp_path: Path) -> None:
    """A folder that is a file, and one that nobody may write."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written"):
        report(made["run"], tmp_path / "file" / "r.html")
    with pytest.raises(RunError, match="cannot be written"):
        report(made["run"], "/proc/r.html")


def test_the_home_folder_stands_in_no_report(
    made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is written as ~, wherever it comes from."""
    monkeypatch.setenv("HOME", str(made.root))
    report(made["evaluation"], tmp_path / "r.html")
    assert str(made.root) not in (tmp_path / "r.html").read_text()


def test_numbers_csv_holds_both_ends_and_spreads(made, tmp_path: Path) -> None:
    """An interval is value to high; a mean over seeds has its standard deviation."""
    report(made["seeds"], tmp_path / "r.html", figures=tmp_path / "f")
    (tmp_path / "f" / "mine.pdf").write_text("mine")
    found = report(made["seeds"], tmp_path / "r.html", figures=tmp_path / "f")
    assert not any("mine.pdf" in one for one in found.figures)
    lines = (tmp_path / "f" / "numbers.csv").read_text().splitlines()
    assert lines[0] == "section,table,row,column,value,high,spread,source"
    test = json.loads((made["seeds"] / "summary.json").read_text())["test"]
    low, high = test["auc_interval"]
    assert any(f"{low!r},{high!r},," in line for line in lines)
    assert any(f"{test['auc']!r},,{test['auc_std']!r}," in line for line in lines)
