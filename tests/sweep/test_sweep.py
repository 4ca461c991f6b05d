"""A sweep as a whole: what single runs give, whoever runs it, whenever it was stopped."""

import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file
from support.cli import samcls
from support.planted import planted_store

from samcls.config import digest
from samcls.errors import ConfigError, RunError
from samcls.learn.runs.train import train
from samcls.learn.settings import TrainConfig
from samcls.store.feature_store import FeatureStore
from samcls.store.schema import LevelShape
from samcls.sweep.folder import open_sweep
from samcls.sweep.outcomes import read_failures, read_runs
from samcls.sweep.plan import groups_of
from samcls.sweep.shared import SharedFeatures, division
from samcls.sweep.space import parse_space
from samcls.sweep.sweep import plan_sweep, sweep

MakeStore = Callable[..., FeatureStore]

SPACE = """
search = "grid"
[fixed]
epochs = 3
batch_size = 16
intervals = 0
patience = 0
[space]
head = ["slca", "linear", "logistic"]
learning_rate = [0.003, 0.01]
reduction = [2, 3]
"""


LONGER = SPACE.replace("epochs = 3", "epochs = 12")  # which leaves time to kill what works on it

# A member's numbers are those of a single run, bit for bit, from 32 channels on.
WIDE = {"block:1": LevelShape(32, 4, 4, 16), "neck": LevelShape(64, 4, 4, 16)}


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A store that is read alone."""
    return planted_store(tmp_path_factory.mktemp("wide"), levels=WIDE)


@pytest.fixture(scope="module")
def whole(wide: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of the space, without a stop."""
    folder = tmp_path_factory.mktemp("whole") / "sweep"
    result = sweep(wide.path, folder, parse_space(SPACE))
    assert (result.runs, result.finished, result.failed) == (12, 12, 0)
    return folder


@pytest.fixture(scope="module")
def longer(wide: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of the longer one."""
    folder = tmp_path_factory.mktemp("longer") / "sweep"
    sweep(wide.path, folder, parse_space(LONGER))
    return folder


def figures(folder: Path) -> dict[str, tuple[float | None, float]]:
    return {key: (record.auc, record.loss) for key, record in read_runs(folder).items()}


def board(folder: Path) -> object:
    rows = json.loads((folder / "leaderboard.json").read_text())["rows"]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def test_every_run_is_what_train_makes_of_its_config(
    wide: FeatureStore, whole: Path, tmp_path: Path
) -> None:
    """Validation figures and weights are those of `samcls train`, bit for bit."""
    for key, record in read_runs(whole).items():
        single = train(wide, record.config, tmp_path / key)
        assert record.auc == single.validation["auc"]
        mine = load_file(whole / "runs" / key / "head.safetensors")
        alone = load_file(tmp_path / key / "head.safetensors")
        assert mine.keys() == alone.keys()
        for name, value in mine.items():
            assert torch.equal(value, alone[name]), (record.config.head, name)


def test_processes_find_what_one_process_finds(
    wide: FeatureStore, whole: Path, tmp_path: Path
) -> None:
    """Figures of every run are equal, and so is the leaderboard."""
    sweep(wide.path, tmp_path / "two", parse_space(SPACE), workers=2)
    assert figures(tmp_path / "two") == figures(whole)
    assert board(tmp_path / "two") == board(whole)


def test_a_killed_sweep_goes_on_to_the_same_leaderboard(
    wide: FeatureStore, longer: Path, tmp_path: Path
) -> None:
    """SIGKILL at three moments loses no finished run and changes no figure."""
    folder = tmp_path / "killed"
    context = multiprocessing.get_context("forkserver")
    kept: set[str] = set()
    for wanted in (1, 3, 6):
        process = context.Process(target=sweep, args=(wide.path, folder, parse_space(LONGER)))
        process.start()
        deadline = time.monotonic() + 100
        while len(read_runs(folder)) < wanted and process.is_alive():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.kill()
        process.join()
        found = set(read_runs(folder))
        assert kept <= found
        kept = found
    result = sweep(wide.path, folder, parse_space(LONGER))
    assert result.made == 12 - len(kept)
    assert board(folder) == board(longer)


def test_dask_finds_the_same_even_where_a_worker_dies(
    wide: FeatureStore, longer: Path, tmp_path: Path, dask_address: str
) -> None:
    """Figures and leaderboard are those of one process; a dead worker's groups are done again."""
    from distributed import Client

    with Client(dask_address) as client:
        killed: list[int] = []

        def kill(ended: int, total: int, failed: int, written: int) -> None:
            del total, failed, written
            if ended and not killed:
                killed.append(next(iter(client.run(os.getpid).values())))
                os.kill(killed[0], signal.SIGKILL)

        result = sweep(
            wide.path,
            tmp_path / "dask",
            parse_space(LONGER),
            dask=dask_address,
            progress=kill,
        )
    assert killed
    assert (result.finished, result.failed) == (12, 0)
    assert figures(tmp_path / "dask") == figures(longer)
    assert board(tmp_path / "dask") == board(longer)


def test_the_test_split_does_not_choose(wide: FeatureStore, whole: Path, tmp_path: Path) -> None:
    """With the test labels permuted, the winner and every validation figure stay as they were."""
    labels = wide.labels.copy()
    test = np.flatnonzero(np.array(wide.splits) == "test")
    labels[test] = 1 - labels[test]
    # The features follow the labels, so the other labels are put over those of the first store.
    other = FeatureStore.open(shutil.copytree(wide.path, tmp_path / "permuted.zarr"), mode="r+")
    other.update_table(replace(other.table, labels=labels))
    space = parse_space(SPACE)
    one = sweep(wide.path, shutil.copytree(whole, tmp_path / "one"), space)  # all done already
    two = sweep(other.path, tmp_path / "two", space)
    assert (one.made, two.made) == (0, 12)
    assert one.best["key"] == two.best["key"]
    assert board(whole) == board(tmp_path / "two")
    assert one.best["test"]["auc"] == pytest.approx(1 - two.best["test"]["auc"])


def test_a_grown_space_makes_its_new_runs_alone(make_store: MakeStore, tmp_path: Path) -> None:
    """Finished runs are found by their digests, and a second winner is owned up to."""
    store, folder = make_store(levels=WIDE), tmp_path / "sweep"
    first = sweep(store.path, folder, parse_space(SPACE.replace("[0.003, 0.01]", "[1e-7]")))
    before = {path: path.stat().st_mtime_ns for path in (folder / "runs").iterdir()}
    grown = sweep(store.path, folder, parse_space(SPACE.replace("[0.003, 0.01]", "[1e-7, 0.05]")))
    assert (first.made, grown.made) == (6, 6)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    changed = first.best["key"] != grown.best["key"]
    assert grown.best["test_opened"] == 1 + changed
    again = sweep(store.path, folder, parse_space(SPACE.replace("[0.003, 0.01]", "[1e-7, 0.05]")))
    assert again.made == 0
    assert again.best["test"] == grown.best["test"]


def test_a_failed_run_is_written_down_and_stops_nobody(
    make_store: MakeStore, tmp_path: Path
) -> None:
    """It keeps its reason, is left alone by the next sweep, and is tried again on request."""
    store, folder = make_store(levels=WIDE), tmp_path / "sweep"
    space = parse_space(SPACE.replace("[0.003, 0.01]", "[0.003, 1e30]"))
    result = sweep(store.path, folder, space)
    assert (result.finished, result.failed) == (8, 4)
    assert all("lower learning_rate" in reason for _, reason in result.failures)
    assert set(read_failures(folder)) == {key for key, _ in result.failures}
    assert sweep(store.path, folder, space).made == 0
    assert sweep(store.path, folder, space, retry=True).made == 4


def test_a_space_that_fails_everywhere_says_why(make_store: MakeStore, tmp_path: Path) -> None:
    """No winner is made up."""
    space = parse_space('search="grid"\n[fixed]\nhead="slca"\n[space]\nlearning_rate=[1e30, 2e30]')
    with pytest.raises(RunError, match=r"nothing was scored\. Reasons: training diverged"):
        sweep(make_store(levels=WIDE).path, tmp_path / "sweep", space)


def test_what_the_store_cannot_serve_is_said_before_anything_runs(
    make_store: MakeStore, tmp_path: Path
) -> None:
    """Every reason at once, with what the store has."""
    space = parse_space(
        'search = "grid"\n[space]\nlevels = [["neck"], ["deep"]]\nwindow = [2, 3]\n'
    )
    with pytest.raises(ConfigError) as caught:
        sweep(make_store(levels=WIDE).path, tmp_path / "sweep", space)
    message = str(caught.value)
    assert "nothing was trained" in message
    assert "unknown level deep; the store has block:1, neck" in message
    assert "window 3 is no multiple of 2" in message
    assert not read_runs(tmp_path / "sweep")


def test_seeds_folds_and_shares_are_runs_of_one_configuration(
    make_store: MakeStore, tmp_path: Path
) -> None:
    """Ranked by their mean; the winner is trained with all of them."""
    text = SPACE.replace('["slca", "linear", "logistic"]', '["linear"]')
    space = parse_space("seeds = 2\nfractions = [0.5, 1.0]\n" + text)
    result = sweep(make_store(200, levels=WIDE).path, tmp_path / "sweep", space, plots=True)
    assert result.runs == 4 * 2 * 2
    first = result.rows[0]
    records = read_runs(tmp_path / "sweep")
    assert first.n == 2
    assert first.auc == pytest.approx(np.mean([records[key].auc for key in first.runs]))
    assert len(result.best["figures"]["runs"]) == 2
    curve = result.efficiency["test"]
    assert [point["fraction"] for point in curve] == [0.5, 1.0]
    winner = result.best["figures"]["test"]["auc"]
    assert curve[1]["auc"] == pytest.approx(winner)
    assert (tmp_path / "sweep" / "plots" / "data_efficiency_test.svg").exists()


def test_pictures_without_matplotlib_are_refused_before_anything_runs(
    make_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the extra; without pictures a sweep needs no matplotlib."""
    monkeypatch.delitem(sys.modules, "samcls.sweep.plots", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    store, space = make_store(levels=WIDE), parse_space(SPACE)
    with pytest.raises(ConfigError, match=r"pip install \"samcls\[report\]\""):
        sweep(store.path, tmp_path / "sweep", space, plots=True)
    assert not read_runs(tmp_path / "sweep")


def test_two_sweeps_do_not_share_a_folder(make_store: MakeStore, tmp_path: Path) -> None:
    """The second is told so and touches nothing."""
    folder = tmp_path / "sweep"
    folder.mkdir()
    store, space = make_store(levels=WIDE), parse_space(SPACE)
    open_sweep(folder, space, store)
    with (
        FileLock(folder / ".lock"),
        pytest.raises(RunError, match="another process is sweeping into"),
    ):
        sweep(store.path, folder, space)
    assert sweep(store.path, folder, space).made == 12


def test_files_of_features_are_those_of_train_and_made_once(
    make_store: MakeStore, tmp_path: Path
) -> None:
    """Mapped tokens equal loaded ones, and a second process of the machine maps the same file."""
    store = make_store(levels=WIDE)
    config = TrainConfig()
    first, scaler = SharedFeatures(tmp_path, store).features(config)
    files = {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in tmp_path.rglob("*.npy")}
    second, _ = SharedFeatures(tmp_path, store).features(replace(config, learning_rate=0.1))
    assert {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in tmp_path.rglob("*.npy")} == files
    assert first.ids == second.ids
    for level, tokens in first.tokens.items():
        assert isinstance(tokens, torch.Tensor)
        torch.testing.assert_close(tokens, second.tokens[level], rtol=0, atol=0)
        train_rows = tokens[first.rows("train")]
        weights = first.counts[level][first.rows("train")]
        mean = (train_rows * weights[:, :, None]).sum((0, 1)) / weights.sum()
        torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=0, atol=1e-5)
        assert scaler.std[level].min() > 0


def test_shares_of_the_training_split_are_divisions_of_their_own() -> None:
    """A share is drawn from the seed; the whole split is the same for every seed."""
    whole, share = TrainConfig(), TrainConfig(train_fraction=0.5)
    assert division(whole) == division(replace(whole, seed=1, learning_rate=0.1, head="linear"))
    assert division(share) != division(whole)
    assert division(share) != division(replace(share, seed=1))
    assert division(whole) != division(replace(whole, window=4))


def test_groups_hold_one_architecture_and_every_run_once(make_store: MakeStore) -> None:
    """Whatever the number of workers."""
    store = make_store(levels=WIDE)
    configs = [member for trial in parse_space(SPACE).trials() for member in trial.members]
    for workers in (1, 2, 5):
        groups = groups_of(configs, store, workers)
        flat = [config for group in groups for config in group]
        assert sorted(map(digest, flat)) == sorted(map(digest, configs))
        for group in groups:
            assert len({(config.head, config.reduction) for config in group}) == 1


def test_the_command_lists_runs_and_prints_one_json_object(
    make_store: MakeStore, tmp_path: Path
) -> None:
    """--dry-run trains and writes nothing; --json has the keys that scripts rely on."""
    store, file, folder = make_store(levels=WIDE), tmp_path / "space.toml", tmp_path / "sweep"
    file.write_text(SPACE)
    listed = samcls("sweep", store.path, folder, "--space", file, "--dry-run")
    assert "12 configurations, 12 runs, at most 3 epochs" in listed.stdout, listed.stderr
    assert "Nothing was trained" in listed.stdout
    assert not folder.exists()
    values = json.loads(samcls("sweep", store.path, folder, "--space", file, "--json").stdout)
    assert {"runs", "finished", "failed", "seconds", "best"} <= values.keys()
    assert {"config", "validation", "test"} <= values["best"].keys()
    shown = samcls("sweep", store.path, folder, "--space", file)
    assert "best of 12 configurations" in shown.stdout
    assert "this run scored the test split once" in shown.stdout
    assert "this sweep scored the test split for the winner" in shown.stdout
    missing = samcls("sweep", store.path, folder, "--space", "nowhere.toml")
    assert missing.returncode == 2
    assert "nowhere.toml" in missing.stderr


def test_a_plan_estimates_time(make_store: MakeStore, tmp_path: Path) -> None:
    """Of what is not done yet, from an epoch that was timed."""
    store = make_store(levels=WIDE)
    plan = plan_sweep(store.path, tmp_path / "sweep", parse_space(SPACE))
    assert plan.seconds is not None
    assert plan.seconds > 0
    assert len(plan.configs) == 12
