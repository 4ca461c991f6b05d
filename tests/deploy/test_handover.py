"""`samcls export`: what is handed over was seen to say what was measured, or it is not there."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from support.cli import samcls as command
from support.deployed import Deployed

from samcls.deploy.export.formats import load_exported
from samcls.deploy.handover import hand_over
from samcls.errors import ExportError, InputError, OverwriteRefused
from samcls.learn.runs.folder import MARK

QUICKLY = {"form": "torch-export", "head_only": True}


def test_a_run_is_checked_on_its_own_pictures_against_what_it_wrote(
    made: Deployed, tmp_path: Path
) -> None:
    told: list[str] = []
    run = made.run("logistic", head="logistic")
    found = hand_over(
        run, tmp_path / "model", images=[made.root / "manifest.csv"], log=told.append, **QUICKLY
    )
    assert (found.checked, found.equal) == (63, 63)
    assert found.worst < 1e-5
    assert any("63 of 63 pictures are the run's own" in one for one in told)
    assert any("00.png cannot be read" in one for one in told)
    assert set(found.files) == {one.name for one in (tmp_path / "model").iterdir()}
    text = (tmp_path / "model" / "README.md").read_text()
    assert yaml.safe_load(text.split("---\n")[1])["library_name"] == "samcls"
    assert load_exported(tmp_path / "model") is not None


def test_a_run_that_says_something_else_here_is_not_handed_over(
    made: Deployed, tmp_path: Path
) -> None:
    """As on a machine whose encoder gives other features than those that were measured."""
    run = tmp_path / "run"
    shutil.copytree(made.run("logistic", head="logistic"), run)
    header, *lines = (run / "predictions.csv").read_text().splitlines()
    place = header.split(",").index("p_malignant")
    moved = []
    for line in lines:
        cells = line.split(",")
        cells[place] = f"{min(1.0, float(cells[place]) + 0.01):.9g}"
        moved.append(",".join(cells))
    content = "\n".join([header, *moved]) + "\n"
    (run / "predictions.csv").write_text(content)
    mark = json.loads((run / MARK).read_text())
    mark["sha256"]["predictions.csv"] = hashlib.sha256(content.encode()).hexdigest()
    (run / MARK).write_text(json.dumps(mark))
    with pytest.raises(ExportError, match=r"differs by 0\.01"):
        hand_over(run, tmp_path / "model", images=[made.root / "manifest.csv"], **QUICKLY)
    assert not (tmp_path / "model").exists()


def test_the_verb_says_what_it_checked(made: Deployed, tmp_path: Path) -> None:
    run = made.run("logistic", head="logistic")
    options = ("--format", "torch-export", "--head-only", "--json")
    done = command("export", run, tmp_path / "model", *options)
    values = json.loads(done.stdout)
    assert done.returncode == 0
    assert values["checked"] == values["equal"] > 0
    assert values["folder"] == str(tmp_path / "model")
    assert "model.pt2" in values["files"]
    again = command("export", run, tmp_path / "model", *options)
    assert again.returncode == 2
    assert "name a new or empty folder" in again.stderr


def test_what_cannot_be_checked_or_written_is_said_before_any_work(
    made: Deployed, tmp_path: Path
) -> None:
    run = made.run("logistic", head="logistic")
    (tmp_path / "bad.png").write_text("no picture")
    with pytest.raises(InputError, match="none of the pictures can be read"):
        hand_over(run, tmp_path / "model", images=[tmp_path / "bad.png"], **QUICKLY)
    (tmp_path / "taken").mkdir()
    np.save(tmp_path / "taken" / "mine.npy", np.zeros(1))
    with pytest.raises(OverwriteRefused, match=r"holds mine\.npy"):
        hand_over(run, tmp_path / "taken", **QUICKLY)
    meta = made.run("meta", head="linear", with_meta=["sex", "age"])
    with pytest.raises(ExportError, match="sex, age"):
        hand_over(meta, tmp_path / "model", **QUICKLY)
    assert not (tmp_path / "model").exists()


def test_whoever_can_read_one_file_of_the_folder_can_read_all(
    made: Deployed, tmp_path: Path
) -> None:
    hand_over(made.run("logistic", head="logistic"), tmp_path / "model", **QUICKLY)
    modes = {one.stat().st_mode & 0o777 for one in (tmp_path / "model").iterdir()}
    assert len(modes) == 1
