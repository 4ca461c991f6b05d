"""A pipeline does what changed and nothing else, whenever it was stopped; a step that fails stops what needs it alone."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.cli import samcls as command

from samcls.errors import ConfigError, RunError
from samcls.pipeline.file import VERBS, Pipeline, load_pipeline
from samcls.pipeline.run import Ran, run_pipeline

STUDY = """
[[step]]
run = "manifest folder photos m.csv"

[[step]]
run = "extract m.csv f.zarr --encoder vit_t"

[[step]]
name = "slca"
run = "train f.zarr run --head slca"

[[step]]
name = "linear"
run = "train f.zarr run-linear --head linear"

[[step]]
run = "compare run run-linear"

[[step]]
run = "report run --out report.html"
"""


class Fake:
    """Makes what a command would make, in no time: a file of its arguments and of what it was given."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.makes = {step.arguments: step.makes for step in pipeline.steps}
        self.ran: list[str] = []
        self.fails: set[str] = set()

    def __call__(self, arguments: Sequence[str], folder: Path, words: Path) -> int:
        verb = next(name for name in (" ".join(arguments[:2]), arguments[0]) if name in VERBS)
        self.ran.append(verb)
        words.write_text("error: on purpose\n" if verb in self.fails else "fine\n")
        if verb in self.fails:
            return 1
        made = self.makes[tuple(arguments)]
        if made is not None:
            (folder / made).write_text(" ".join(arguments))
        return 0


def study(folder: Path, text: str = STUDY) -> tuple[Pipeline, Fake]:
    (folder / "photos").mkdir(exist_ok=True)
    if not (folder / "photos" / "a.png").exists():
        (folder / "photos" / "a.png").write_text("a")
    (folder / "study.toml").write_text(text)
    pipeline = load_pipeline(folder / "study.toml")
    return pipeline, Fake(pipeline)


def states(ran: Ran) -> dict[str, str]:
    return {one.step: one.state for one in ran.steps}


def test_a_second_call_does_nothing(tmp_path: Path) -> None:
    """Every step is kept, and says so."""
    pipeline, fake = study(tmp_path)
    first = run_pipeline(pipeline, execute=fake)
    assert set(states(first).values()) == {"done"}
    assert fake.ran == ["manifest folder", "extract", "train", "train", "compare", "report"]
    again = run_pipeline(pipeline, execute=fake)
    assert set(states(again).values()) == {"kept"}
    assert len(fake.ran) == 6
    assert [one.seconds for one in again.steps] == [one.seconds for one in first.steps]


def test_one_changed_option_does_its_step_and_what_needs_it(tmp_path: Path) -> None:
    """The other training is kept; what was there is kept beside it."""
    pipeline, fake = study(tmp_path)
    run_pipeline(pipeline, execute=fake)
    before = (tmp_path / "run").read_text()
    pipeline, fake = study(tmp_path, STUDY.replace("--head slca", "--head slca --epochs 5"))
    ran = run_pipeline(pipeline, execute=fake)
    assert states(ran) == {
        "manifest-folder": "kept", "extract": "kept", "slca": "done", "linear": "kept", "compare": "done", "report": "done",
    }  # fmt: skip
    assert ran.steps[2].why == "the command changed"
    assert ran.steps[4].why == "step slca changed"
    assert (tmp_path / "run.before-1").read_text() == before


def test_an_added_image_does_all_that_follows_from_it(tmp_path: Path) -> None:
    """The folder that the manifest is made of is part of its key; extract goes on where it was."""
    pipeline, fake = study(tmp_path)
    run_pipeline(pipeline, execute=fake)
    (tmp_path / "photos" / "b.png").write_text("b")
    ran = run_pipeline(pipeline, execute=fake)
    assert set(states(ran).values()) == {"done"}
    assert ran.steps[0].why == "photos changed"
    assert (tmp_path / "m.csv.before-1").exists()
    assert not (tmp_path / "f.zarr.before-1").exists()


def test_what_is_gone_is_made_again(tmp_path: Path) -> None:
    """With the reason."""
    pipeline, fake = study(tmp_path)
    run_pipeline(pipeline, execute=fake)
    (tmp_path / "run-linear").unlink()
    ran = run_pipeline(pipeline, execute=fake)
    assert {one.step: one.why for one in ran.steps if one.state == "done"} == {
        "linear": "run-linear is gone"
    }


def test_a_failing_step_stops_what_needs_it_and_nothing_else(tmp_path: Path) -> None:
    """The report of the other run is made; once mended, only what was missing is done."""
    text = STUDY + '\n[[step]]\nname = "audit"\nrun = "audit f.zarr --out audit"\n'
    pipeline, fake = study(tmp_path, text)
    fake.fails = {"train"}
    ran = run_pipeline(pipeline, execute=fake)
    assert states(ran) == {
        "manifest-folder": "done", "extract": "done", "slca": "failed", "linear": "failed", "compare": "waits",
        "report": "waits", "audit": "done",
    }  # fmt: skip
    assert not ran.ok
    assert ran.steps[2].why == "exit status 1: error: on purpose"
    fake.fails, fake.ran = set(), []
    assert run_pipeline(pipeline, execute=fake).ok
    assert fake.ran == ["train", "train", "compare", "report"]


def test_a_change_that_failed_and_was_taken_back_is_no_step_kept(tmp_path: Path) -> None:
    """What was made under the other command is not taken for what the first one made."""
    pipeline, fake = study(tmp_path)
    run_pipeline(pipeline, execute=fake)
    changed, failing = study(tmp_path, STUDY.replace("--head linear", "--head se"))

    def half(arguments: Sequence[str], folder: Path, words: Path) -> int:
        failing(arguments, folder, words)  # it makes its output, and is killed before it can say so
        return 137

    assert states(run_pipeline(changed, execute=half))["linear"] == "failed"
    back, fake = study(tmp_path)
    ran = run_pipeline(back, execute=fake)
    assert states(ran)["linear"] == "done"
    assert (tmp_path / "run-linear").read_text() == "train f.zarr run-linear --head linear"


def test_a_step_needs_what_lies_inside_of_what_another_makes(tmp_path: Path) -> None:
    """However its path is spelled; and it is no file of its own."""
    text = STUDY + '\n[[step]]\nname = "one"\nrun = "card ./run/seed-0 card.md"\n'
    pipeline, _ = study(tmp_path, text)
    assert pipeline.steps[-1].needs == ("slca",)


def test_a_dry_run_says_what_would_be_done_and_does_nothing(tmp_path: Path) -> None:
    """And why; no file is written."""
    pipeline, fake = study(tmp_path)
    ran = run_pipeline(pipeline, dry=True, execute=fake)
    assert set(states(ran).values()) == {"would run"}
    assert fake.ran == []
    assert {one.name for one in tmp_path.iterdir()} == {"photos", "study.toml"}


def test_a_step_and_all_that_follow_can_be_asked_for(tmp_path: Path) -> None:
    """`--from`; an unknown one is refused with what was meant."""
    pipeline, fake = study(tmp_path)
    run_pipeline(pipeline, execute=fake)
    ran = run_pipeline(pipeline, start="linear", execute=fake)
    assert {name for name, state in states(ran).items() if state == "done"} == {"linear", "compare"}
    with pytest.raises(ConfigError, match="there is no step liner; did you mean linear"):
        run_pipeline(pipeline, start="liner", execute=fake)


def test_all_that_is_wrong_with_a_file_is_said_at_once(tmp_path: Path) -> None:
    """Unknown verbs, missing outputs, two steps that make one thing, names taken twice."""
    (tmp_path / "study.toml").write_text(
        """
        [[step]]
        run = "trian f.zarr run"
        [[step]]
        run = "train f.zarr"
        [[step]]
        name = "a"
        run = "train f.zarr run"
        [[step]]
        name = "a"
        run = "train f.zarr other"
        [[step]]
        run = "train g.zarr run"
        colour = "red"
        """
    )
    with pytest.raises(ConfigError) as error:
        load_pipeline(tmp_path / "study.toml")
    for words in (
        "5 problems", "there is no step trian; did you mean train", "train names nothing that it makes",
        "expected a text that no other step has", "run is made by step a already", "colour: unknown key",
    ):  # fmt: skip
        assert words in str(error.value)


def test_two_processes_do_not_run_one_pipeline(tmp_path: Path) -> None:
    """The second is refused while the first is at it."""
    pipeline, fake = study(tmp_path)

    def nested(arguments: Sequence[str], folder: Path, words: Path) -> int:
        with pytest.raises(RunError, match="runs already, in another process"):
            run_pipeline(pipeline, execute=fake)
        return fake(arguments, folder, words)

    run_pipeline(pipeline, execute=nested)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Images of two classes."""
    rng = np.random.default_rng(0)
    for i in range(48):
        name = ("benign", "malignant")[i % 2]
        place = tmp_path / "photos" / name
        place.mkdir(parents=True, exist_ok=True)
        level = 90 + 60 * (i % 2)
        Image.fromarray(rng.normal(level, 30, (40, 40, 3)).clip(0, 255).astype(np.uint8)).save(
            place / f"{i:02}.png"
        )
    return tmp_path


def test_a_study_runs_from_pictures_to_a_report_and_goes_on_after_a_kill(photos: Path) -> None:
    """Killed while it encodes, run again, then ten images more: each time only what changed."""
    study = STUDY.replace(
        "--encoder vit_t", "--encoder vit_t --size 64 --window 2 --batch 4"
    ).replace("--head", "--epochs 3 --head")
    (photos / "study.toml").write_text(study)
    whole = [sys.executable, "-m", "samcls", "run", str(photos / "study.toml"), "--json"]
    process = subprocess.Popen(
        whole, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    end = time.monotonic() + 60
    while not (photos / "f.zarr").exists() and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    done = command("run", photos / "study.toml", "--json")
    assert done.returncode == 0, done.stderr
    first = {one["step"]: one["state"] for one in json.loads(done.stdout)["steps"]}
    assert first["manifest-folder"] == "kept"
    assert {first[name] for name in ("slca", "linear", "compare", "report")} == {"done"}
    assert (photos / "report.html").stat().st_size > 50_000
    assert "AUC" in (photos / "study.logs" / "compare.log").read_text().upper()
    again = command("run", photos / "study.toml")
    assert again.returncode == 0
    assert again.stdout.count("kept") == 6
