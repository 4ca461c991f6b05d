"""Run folders: complete or not believed, safe to open, never overwritten."""

import csv
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from samcls.errors import InputError, OverwriteRefused
from samcls.learn.features.tensors import ChannelScaler, Features, load_features
from samcls.learn.fit.prediction import Model, shape_of
from samcls.learn.fit.schedule import Epoch
from samcls.learn.heads.registry import build_head
from samcls.learn.runs.environment import environment
from samcls.learn.runs.folder import load_run
from samcls.learn.runs.writing import begin_run, run_files, write_run
from samcls.learn.settings import TrainConfig
from samcls.store.feature_store import FeatureStore

MakeStore = Callable[..., FeatureStore]
CONFIG = TrainConfig(levels=("neck", "block:1"), seed=3, reduction=2, hidden=3)
HISTORY = [Epoch(1, 0.1, 0.7, 0.6, None), Epoch(2, 0.05, 0.1 + 0.2, 0.5, 0.75)]
TASKS = {"malignancy": ("benign", "malignant"), "grade": ("low", "mid, or so", "malignant")}


def untrained(features: Features) -> Model:
    generator = torch.Generator().manual_seed(0)
    shape = shape_of(features)
    head = build_head(CONFIG, shape, generator)
    scaler = ChannelScaler.fit(features, features.rows("train"))
    return Model(CONFIG, shape, features.tasks, scaler, head)


@pytest.fixture
def features(make_store: MakeStore) -> Features:
    labels = np.stack([np.arange(12) % 2, np.arange(12) % 3], axis=1)
    labels[5, 1] = -1
    return load_features(make_store(12, tasks=TASKS, labels=labels), levels=CONFIG.levels)


@pytest.fixture
def run(tmp_path: Path, features: Features) -> Path:
    model = untrained(features)
    probabilities = model.probabilities(features.tokens, features.counts)
    path = tmp_path / "runs" / "first"
    begin_run(path, CONFIG)
    write_run(path, run_files(model, features, probabilities, HISTORY, {"test": {"auc": None}}))
    return path


def test_a_run_is_read_back(run: Path, features: Features) -> None:
    """Config, fingerprint, figures and model come back; the model's probabilities bit for bit."""
    again = load_run(run)
    assert again.config == CONFIG
    assert again.fingerprint == features.fingerprint
    assert again.metrics == {"test": {"auc": None}}
    assert again.model.tasks == TASKS
    assert list(again.model.shape.channels.items()) == [("neck", 4), ("block:1", 6)]
    assert again.model.shape.window == 2
    expected = untrained(features).probabilities(features.tokens, features.counts)
    got = again.model.probabilities(features.tokens, features.counts)
    for task in TASKS:
        assert np.array_equal(got[task], expected[task])
        np.testing.assert_allclose(got[task].sum(1), 1, atol=1e-6)


def test_predictions_have_a_row_for_each_image_and_task(run: Path, features: Features) -> None:
    """Ids, splits, label names and every float32 probability can be read from the table."""
    with (run / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "id", "split", "group", "task", "label", "p_benign", "p_malignant", "p_low", "p_mid, or so",
    ]  # fmt: skip
    assert len(rows) == 24
    expected = untrained(features).probabilities(features.tokens, features.counts)
    for i, row in enumerate(rows):
        task = list(TASKS)[i % 2]
        assert (row["id"], row["split"]) == (features.ids[i // 2], features.splits[i // 2])
        assert row["task"] == task
        label = int(features.labels[i // 2, i % 2])
        assert row["label"] == ("" if label < 0 else TASKS[task][label])
        given = np.array([row[f"p_{name}"] for name in TASKS[task]], dtype=np.float32)
        assert np.array_equal(given, expected[task][i // 2])
    assert rows[0]["p_low"] == ""


def test_history_has_a_row_for_each_epoch(run: Path) -> None:
    """Numbers keep all their digits, and an undefined AUC is an empty cell."""
    lines = (run / "history.csv").read_text().splitlines()
    assert lines == [
        "epoch,learning_rate,train_loss,val_loss,val_auc",
        "1,0.1,0.7,0.6,",
        "2,0.05,0.30000000000000004,0.5,0.75",
    ]


def test_json_files_are_strict(run: Path) -> None:
    """Every JSON file parses without NaN or Infinity."""

    def refuse(name: str) -> None:
        raise AssertionError(name)

    names = sorted(p.name for p in run.glob("*.json"))
    assert names == ["environment.json", "fingerprint.json", "head.json", "metrics.json"]
    for name in names:
        json.loads((run / name).read_text(), parse_constant=refuse)


def test_the_environment_names_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line stands there without the user's name, in the home folder or elsewhere."""
    monkeypatch.setenv("HOME", "/home/alice")
    given = ["/home/alice/bin/samcls", "train", "/home/alice/a.zarr", "/data/alice/run", "--seed=1"]
    monkeypatch.setattr(sys, "argv", given)
    found = environment()
    assert found["command"] == ["samcls", "train", "~/a.zarr", "/data/user/run", "--seed=1"]
    assert found["packages"]["torch"]
    assert found["threads"] == torch.get_num_threads()


class CutOff(dict[str, bytes]):
    """Files of which only the first few are handed out before an interrupt."""

    def __init__(self, files: dict[str, bytes], whole: int) -> None:
        super().__init__(files)
        self.whole = whole

    def items(self) -> Iterator[tuple[str, bytes]]:  # type: ignore[override]
        yield from itertools.islice(super().items(), self.whole)
        raise KeyboardInterrupt


@pytest.mark.parametrize("whole", range(9))
def test_the_mark_is_written_last(run: Path, whole: int) -> None:
    """A run cut off after any number of its eight files is unfinished and can be started again."""
    files = {p.name: p.read_bytes() for p in run.iterdir() if p.name != "COMPLETE"}
    assert len(files) == 8
    (run / "COMPLETE").unlink()
    begin_run(run, CONFIG)
    with pytest.raises(KeyboardInterrupt):
        write_run(run, CutOff(files, whole))
    with pytest.raises(InputError, match=r"is unfinished: it has no COMPLETE mark; train it again"):
        load_run(run)
    begin_run(run, CONFIG)
    write_run(run, files)
    assert load_run(run).config == CONFIG


def test_restarting_an_unfinished_run_is_said_and_clean(run: Path) -> None:
    """What an unfinished run left is removed, half-written files too, and the log says so."""
    (run / "COMPLETE").unlink()
    (run / "head.json.part").write_text("{")
    lines: list[str] = []
    begin_run(run, CONFIG, lines.append)
    assert lines == [f"{run} holds an unfinished run; starting it again from the beginning"]
    assert [p.name for p in run.iterdir()] == ["config.toml"]


def test_a_checkpoint_is_not_thrown_away_for_other_settings(run: Path) -> None:
    """Hours of work stay; the error names what differs, and the same settings go on."""
    (run / "COMPLETE").unlink()
    (run / "checkpoint.pt").write_bytes(b"hours")
    with pytest.raises(
        OverwriteRefused, match=r"other settings \(batch_size = 64 there, batch_size = 8"
    ):
        begin_run(run, replace(CONFIG, batch_size=8))
    assert (run / "checkpoint.pt").read_bytes() == b"hours"
    begin_run(run, CONFIG)
    assert sorted(p.name for p in run.iterdir()) == ["checkpoint.pt", "config.toml"]


def test_nothing_is_overwritten(run: Path, tmp_path: Path) -> None:
    """A finished run, a folder with anything else in it and a file are refused and left alone."""
    with pytest.raises(OverwriteRefused, match="first holds a finished run; name another folder"):
        begin_run(run, CONFIG)
    assert load_run(run).config == CONFIG
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.txt").write_text("words")
    (other / "config.toml").write_text("seed = 1\n")
    with pytest.raises(OverwriteRefused, match=r"thesis holds chapter\.txt, which no run wrote"):
        begin_run(other, CONFIG)
    assert (other / "config.toml").read_text() == "seed = 1\n"
    with pytest.raises(OverwriteRefused, match="is a file; name a folder"):
        begin_run(other / "chapter.txt", CONFIG)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    """A folder that is no run says how to make one."""
    with pytest.raises(InputError, match="is not a run folder; make one with: samcls train STORE"):
        load_run(tmp_path / "none")


@pytest.mark.parametrize("name", ["head.safetensors", "head.json", "metrics.json"])
def test_a_changed_file_is_found(run: Path, name: str) -> None:
    """One flipped bit or a missing file is an error that names the file."""
    content = bytearray((run / name).read_bytes())
    content[-2] ^= 1
    (run / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name} is not what the run wrote"):
        load_run(run)
    (run / name).unlink()
    with pytest.raises(InputError, match=rf"is damaged: .*{name}"):
        load_run(run)
