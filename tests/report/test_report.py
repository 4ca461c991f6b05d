"""Reports of every kind of run: whole, the same twice, asking for nothing, and saying what they cannot show."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.cli import samcls as command
from support.pages import text_of
from support.planted import planted_store

import samcls
from samcls.errors import ConfigError, InputError, OverwriteRefused
from samcls.report.report import report
from samcls.report.settings import ReportConfig

KINDS = ("run", "tasks", "ordinal", "seeds", "folds", "sweep", "evaluation")


@pytest.mark.parametrize("kind", KINDS)
def test_a_report_of_each_kind_is_the_same_twice_and_asks_for_nothing(
    made, tmp_path: Path, kind: str
) -> None:
    """Equal bytes from equal inputs; no address but those of XML's name spaces, no date, no path of this machine."""
    store = made.stores[
        "elsewhere"
        if kind == "evaluation"
        else "run"
        if kind in ("run", "seeds", "folds", "sweep")
        else kind
    ]
    first = report(made[kind], tmp_path / "a.html", store=store)
    again = report(made[kind], tmp_path / "b.html", store=store)
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert page == (tmp_path / "b.html").read_text(encoding="utf-8")
    assert first.bytes == len(page.encode()) < 3_000_000
    assert set(re.findall(r"https?://[^\s\"'<>)]+", page)) <= {
        "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink", "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
        "http://purl.org/dc/elements/1.1/", "http://creativecommons.org/ns#",
    }  # fmt: skip
    assert "<!DOCTYPE svg" not in page
    assert again.checks == first.checks
    assert "being of an earlier version" not in text_of(
        tmp_path / "a.html"
    )  # no key is missed by us
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    for place in re.findall(r'href="#([^"]+)"', page):
        assert place in ids


def test_the_first_screen_says_what_the_figures_allow(made, tmp_path: Path) -> None:
    """AUC with its interval, the difference to the control with p, what chose between how many, and the test opened once."""
    report(made["run"], tmp_path / "r.html", store=made.stores["run"])
    text = text_of(tmp_path / "r.html")
    metrics = json.loads((made["run"] / "metrics.json").read_text())
    assert f"has AUC {metrics['test']['auc']:.3f}" in text
    assert re.search(
        r"It is (ahead of|behind) the control that validation prefers \(.*?\) by \d\.\d{3} \(difference 95 %",
        text,
    )
    assert re.search(r"which is (not )?more than noise: p \d", text)
    assert f"chose between {metrics['models_tried']} models" in text
    assert "opened once, after all this" in text
    assert "48 test images of 24 patients or lesions" in text


def test_every_display_that_van_calster_names_is_there_for_each_task(made, tmp_path: Path) -> None:
    """Discrimination, calibration, decision curve and probabilities by outcome, of both tasks, each also as files."""
    found = report(made["tasks"], tmp_path / "r.html", figures=tmp_path / "figures")
    for task in ("malignancy", "itch-pain"):
        for name in ("roc", "calibration", "decision", "risk", "precision-recall", "confusion"):
            for form in ("pdf", "png", "svg"):
                assert (tmp_path / "figures" / f"{name}-{task}.{form}").stat().st_size > 1000
    assert (tmp_path / "figures" / "numbers.csv").exists()
    assert len(found.figures) == len(list((tmp_path / "figures").iterdir()))


def test_ordered_classes_have_their_own_table(made, tmp_path: Path) -> None:
    """Quadratic kappa, and how many answers lie how far away; of unordered classes there is none."""
    report(made["ordinal"], tmp_path / "o.html")
    text = text_of(tmp_path / "o.html")
    assert "quadratic weighted kappa" in text
    assert "off by 3" in text
    report(made["run"], tmp_path / "r.html")
    assert "quadratic weighted kappa" not in text_of(tmp_path / "r.html")


def test_subgroups_are_withheld_where_too_few(made, tmp_path: Path) -> None:
    """48 test images: sites of few images tell nothing but their number."""
    report(made["run"], tmp_path / "r.html", store=made.stores["run"])
    text = text_of(tmp_path / "r.html")
    assert "withheld: under 20 images" in text or "withheld: under 5 images of a class" in text
    assert "(Bonferroni)" in text


def test_a_report_of_an_evaluation_has_both_data_sets(made, tmp_path: Path) -> None:
    """Figures here and inside, shares of classes, and recalibration on the part that was asked for."""
    report(made["evaluation"], tmp_path / "e.html")
    text = text_of(tmp_path / "e.html")
    for words in (
        "Here and inside",
        "How common each class is",
        "Recalibrated",
        "On the run's own test images it has",
    ):
        assert words in text
    assert "The sweep" not in text


def test_a_sweep_tells_the_corrected_figure_and_the_learning_curve(made, tmp_path: Path) -> None:
    """The winner without the luck of the choice, the leaderboard, settings, and the AUC at twice the images or why not."""
    report(made["sweep"], tmp_path / "s.html")
    text = text_of(tmp_path / "s.html")
    board = json.loads((made["sweep"] / "leaderboard.json").read_text())
    assert f"without the luck of that choice it is {board['selection']['corrected']:.3f}" in text
    assert "Leaderboard, by validation" in text
    assert "What was tried" in text
    assert "with twice as many about" in text


def test_an_unfinished_run_has_a_report_that_says_so(made, tmp_path: Path) -> None:
    """Every section says why it is empty, and the check is an error; so of a run whose predictions are gone."""
    for name in ("COMPLETE", "predictions.csv"):
        cut = tmp_path / f"without-{name}"
        shutil.copytree(made["run"], cut)
        (cut / name).unlink()
        found = report(cut, tmp_path / f"{name}.html")
        text = text_of(tmp_path / f"{name}.html")
        assert ("unfinished" if name == "COMPLETE" else "damaged") in text
        assert [one.code for one in found.checks.errors] == ["SC011"]
        assert "Not shown: in short" in text
        assert "TRIPOD+AI" in text


def test_seeds_of_which_one_is_missing_are_unfinished(made, tmp_path: Path) -> None:
    """The folder's summary is written last; without it nothing is averaged."""
    cut = tmp_path / "seeds"
    shutil.copytree(made["seeds"], cut)
    (cut / "summary.json").unlink()
    found = report(cut, tmp_path / "r.html")
    assert [one.code for one in found.checks.errors] == ["SC011"]


def test_runs_of_a_sweep_were_not_tested_and_a_report_says_it(made, tmp_path: Path) -> None:
    """Validation figures alone exist; no test figure is made up."""
    run = next(iter((made["sweep"] / "runs").iterdir()))
    report(run, tmp_path / "r.html")
    text = text_of(tmp_path / "r.html")
    assert "the test split was not scored" in text.lower()
    assert "The test split was not opened" in text


@pytest.mark.parametrize("images", [10, 14])
def test_ten_images_have_a_report_without_intervals(tmp_path: Path, images: int) -> None:
    """Figures of two or three test images, no bands, no intervals, and an error that says so."""
    labels = (np.arange(images)[:, None] // 5) % 2
    store = planted_store(tmp_path, images, labels=labels)
    samcls.train(store, tmp_path / "run", head="linear", epochs=2)
    found = report(tmp_path / "run", tmp_path / "r.html")
    text = text_of(tmp_path / "r.html")
    assert "too few" in text
    assert "SC005" in {one.code for one in found.checks.errors}


def test_one_class_in_the_test_split_has_no_auc_and_the_report_says_why(tmp_path: Path) -> None:
    """Curves need images of both; the counts stand all the same."""
    images = 100
    labels = np.random.default_rng(0).integers(0, 2, (images, 1))
    labels[4::5] = 1  # every test image
    store = planted_store(tmp_path, images, labels=labels)
    samcls.train(store, tmp_path / "run", head="linear", epochs=2)
    found = report(tmp_path / "run", tmp_path / "r.html")
    text = text_of(tmp_path / "r.html")
    assert "all images are of class malignant" in text
    assert "20 of 20 labelled images are of class malignant" in text
    assert "SC012" in {one.code for one in found.checks.errors}


@pytest.mark.parametrize("classes", [120, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_thousand_classes_fit_in_a_report(tmp_path: Path, classes: int) -> None:
    """Nine classes are drawn, a hundred told of, no confusion; the page stays small."""
    images = 600 if classes < 1000 else 1500
    names = tuple(f"class {i}" for i in range(classes))
    labels = (np.arange(images) // 5 * 7 % classes)[:, None]
    store = planted_store(tmp_path, images, tasks={"kind": names}, labels=labels)
    samcls.train(store, tmp_path / "run", head="linear", epochs=1, intervals=0)
    found = report(tmp_path / "run", tmp_path / "r.html")
    text = text_of(tmp_path / "r.html")
    assert "more classes are not drawn" in text
    assert f"A confusion of {classes} classes is not drawn" in text
    assert found.bytes < 3_000_000


def test_names_that_are_code_do_no_harm(tmp_path: Path) -> None:
    """Scripts, quotes, marks of direction and 5,000 signs are shown as text, cut where they are long."""
    images = 100
    script = "<script>alert(1)</script>"
    ids = [
        f"{script}{i}" if i % 2 else f"“'\"{i}\u202e\x1b[31m" + "x" * 5000 for i in range(images)
    ]
    store = planted_store(
        tmp_path, images, ids=ids, tasks={'"><img src=x onerror=alert(2)>': ("عربي", "$x^{$ & <b>")},
        meta={"<i>site</i>": [script, "שלום"] * 50}, groups=[f"{script}-{i // 2}-{i % 5}" for i in range(images)],
    )  # fmt: skip
    samcls.train(store, tmp_path / "run", head="linear", epochs=2, allow_leak=True)
    found = report(tmp_path / "run", tmp_path / "r.html", store=store.path, figures=tmp_path / "f")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "<i>site" not in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert "x" * 200 not in page
    assert "عربي" in page
    assert page.count("<script>") == 1
    assert found.bytes < 3_000_000


def test_checks_alone_exit_with_one_where_any_is_an_error(made, tmp_path: Path) -> None:
    """`--check` prints code, level, sentence and remedy; a silenced error is listed as accepted and does not count."""
    untrained = samcls_run(made, tmp_path)
    done = command("report", str(untrained), "--check")
    assert done.returncode == 1
    assert "SC009 error: the encoder is untrained" in done.stdout
    (tmp_path / "report.toml").write_text('silence = ["SC009"]\n')
    done = command(
        "report", str(untrained), "--check", "--config", str(tmp_path / "report.toml"), "--json"
    )
    told = json.loads(done.stdout)
    assert {one["code"] for one in told["checks"] if one["silenced"]} == {"SC009"}
    assert done.returncode == (0 if told["ok"] else 1)


def samcls_run(made, tmp_path: Path) -> Path:
    """The run, as if its encoder had random weights."""
    from samcls.learn.runs.folder import MARK
    from samcls.learn.runs.writing import place_run

    source = made["run"]
    metrics = json.loads((source / "metrics.json").read_text())
    metrics["weights"] = {"untrained": "random weights of seed 0"}
    files = {one.name: one.read_bytes() for one in source.iterdir() if one.name != MARK}
    place_run(tmp_path / "untrained", files | {"metrics.json": json.dumps(metrics).encode()})
    return tmp_path / "untrained"


def test_the_command_writes_the_file_and_says_where(made, tmp_path: Path) -> None:
    """One JSON object with the keys that scripts rely on; a second time the report is replaced."""
    out = tmp_path / "new" / "report.html"
    for _ in range(2):
        done = command("report", str(made["run"]), "--out", str(out), "--worst", "3", "--json")
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert {"file", "bytes", "seconds", "checks"} <= set(told)
        assert told["bytes"] == out.stat().st_size
        assert all({"code", "level", "sentence"} <= set(one) for one in told["checks"])


def test_another_file_is_not_replaced(made, tmp_path: Path) -> None:
    """Only a former report is."""
    (tmp_path / "mine.html").write_text("<html>mine</html>")
    with pytest.raises(OverwriteRefused, match="is no report; name another file"):
        report(made["run"], tmp_path / "mine.html")
    with pytest.raises(InputError, match="is a folder; name a file"):
        report(made["run"], tmp_path)


def test_what_is_no_run_is_refused(made, tmp_path: Path) -> None:
    """With what was expected."""
    with pytest.raises(InputError, match="is no folder; name a run"):
        report(tmp_path / "nowhere", tmp_path / "r.html")
    with pytest.raises(InputError, match="is not a run folder"):
        report(tmp_path, tmp_path / "r.html")
    with pytest.raises(ConfigError, match="there is no check SC099"):
        report(made["run"], tmp_path / "r.html", config=ReportConfig(silence=("SC099",)))


def test_an_audit_that_was_kept_is_told_with_the_figures_without_it(made, tmp_path: Path) -> None:
    """Findings by code and the effect come from its file; anything else named as an audit is refused."""
    samcls.audit(made.stores["run"], tmp_path / "audit", run=made["run"])
    report(made["run"], tmp_path / "r.html", audit=tmp_path / "audit")
    text = text_of(tmp_path / "r.html")
    assert "An audit of 240 images found" in text
    (tmp_path / "no.json").write_text("{}")
    with pytest.raises(InputError, match="is no audit; make one with"):
        report(made["run"], tmp_path / "r.html", audit=tmp_path / "no.json")


def test_the_module_is_callable_too(made, tmp_path: Path) -> None:
    """`samcls.report(run, file)`, also a second time."""
    for _ in range(2):
        found = samcls.report(made["run"], tmp_path / "r.html")
        assert Path(found.file).exists()
