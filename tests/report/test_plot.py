"""Several runs in one picture."""

import json
from pathlib import Path

import pytest
from PIL import Image
from support.cli import samcls as command

from samcls.errors import ConfigError, InputError, OverwriteRefused
from samcls.report.plot import DISPLAYS, plot


@pytest.fixture(scope="module")
def second(made) -> Path:
    """Another run on the same images."""
    import samcls

    path = made.root / "second"
    if not path.exists():
        samcls.train(made.stores["run"], path, head="linear", epochs=2, intervals=50, batch_size=32)
    return path


@pytest.mark.parametrize("form", ["pdf", "png", "svg"])
def test_runs_stand_in_one_picture_in_every_format(
    made, second: Path, tmp_path: Path, form: str
) -> None:
    """A panel for each display, a line for each run with its name and figure; the same bytes twice."""
    displays = ["roc", "precision-recall", "calibration", "decision", "confusion", "forest"]
    file = tmp_path / f"figure.{form}"
    found = plot([made["run"], second], file, displays, labels=["ours", "theirs & $x$"])
    first = file.read_bytes()
    plot([made["run"], second], file, displays, labels=["ours", "theirs & $x$"])
    assert file.read_bytes() == first
    assert [one["name"] for one in found["runs"]] == ["ours", "theirs & $x$"]
    auc = json.loads((made["run"] / "metrics.json").read_text())["test"]["auc"]
    assert found["runs"][0]["auc"] == auc
    if form == "svg":
        text = first.decode()
        assert f"ours ({auc:.3f})" in text
        assert "theirs &amp; $x$" in text
    if form == "png":
        with Image.open(file) as picture:
            assert picture.size[0] > 2000


def test_a_sweep_draws_its_learning_curve(made, tmp_path: Path) -> None:
    """A line a head over the shares; of a single run there is none, and it is said."""
    plot([made["sweep"]], tmp_path / "f.svg", ["learning-curve"])
    text = (tmp_path / "f.svg").read_text()
    assert "share of the training images" in text
    assert "60 %" in text
    with pytest.raises(InputError, match="a learning curve needs a sweep with several shares"):
        plot([made["run"]], tmp_path / "g.svg", ["learning-curve"])


def test_labels_in_a_picture_do_not_overlap(made, second: Path, tmp_path: Path) -> None:
    """Names of the axes, ticks and legends of every panel are apart from each other's."""
    from samcls.report import canvas

    kept = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(canvas, "save", lambda figure, file: kept.append(figure) or file)
        plot(
            [made["run"], second],
            tmp_path / "f.pdf",
            ["roc", "calibration", "forest"],
            labels=["a" * 25, "b" * 25],
        )
    (figure,) = kept
    figure.canvas.draw()
    for panel in figure.axes:
        boxes = [
            t.get_window_extent()
            for t in (*panel.get_xticklabels(), *panel.get_yticklabels())
            if t.get_text()
        ]
        boxes += [panel.xaxis.label.get_window_extent(), panel.yaxis.label.get_window_extent()]
        boxes = [box for box in boxes if box.width > 1]
        for i, one in enumerate(boxes):
            assert not any(one.overlaps(other) for other in boxes[i + 1 :])


def test_what_cannot_be_drawn_together_is_refused(made, tmp_path: Path) -> None:
    """Other images, other classes, no such task, class or display, too many runs, a file that is no picture."""
    file = tmp_path / "f.pdf"
    cases = {
        ("run", "folds"): "were not scored on the same images",
        ("run", "ordinal"): "have other classes",
    }
    for kinds, words in cases.items():
        with pytest.raises(InputError, match=words):
            plot([made[kind] for kind in kinds], file, ["roc"])
    with pytest.raises(InputError, match="has no task grade"):
        plot([made["run"]], file, ["roc"], task="grade")
    with pytest.raises(ConfigError, match="has no class malign; did you mean malignant"):
        plot([made["run"]], file, ["roc"], name="malign")
    with pytest.raises(ConfigError, match="there is no display rox; did you mean roc"):
        plot([made["run"]], file, ["rox"])
    with pytest.raises(ConfigError, match="got 8 runs; a picture holds 1 to 7"):
        plot([made["run"]] * 8, file, ["roc"])
    with pytest.raises(ConfigError, match=r"ends with \.pdf, \.png or \.svg"):
        plot([made["run"]], tmp_path / "f.bmp", ["roc"])
    (tmp_path / "d.pdf").mkdir()
    with pytest.raises(OverwriteRefused, match="is a folder"):
        plot([made["run"]], tmp_path / "d.pdf", ["roc"])
    with pytest.raises(InputError, match="the test split was not scored"):
        plot([next((made["sweep"] / "runs").iterdir())], file, ["roc"])


def test_the_command_draws_what_is_asked_for(made, second: Path, tmp_path: Path) -> None:
    """Each display has its option."""
    file = tmp_path / "f.png"
    done = command("plot", made["run"], second, "--roc", "--forest", "--out", file, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["displays"] == ["roc", "forest"]
    help_text = command("plot", "--help").stdout
    assert all(f"--{name}" in help_text for name in DISPLAYS)
