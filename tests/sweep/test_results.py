"""A sweep's folder: whole runs or none, one store, tables that say what validation said."""

import csv
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.stores import FINGERPRINT, LEVELS, batch, table
from support.sweeps import record, write_record

from samcls.config import digest, to_dict
from samcls.errors import InputError, OverwriteRefused
from samcls.learn.features.tensors import ChannelScaler, load_features
from samcls.learn.fit.fit import fit
from samcls.learn.fit.prediction import predict_logits, to_probabilities
from samcls.learn.runs.folder import Run, load_run
from samcls.learn.settings import TrainConfig
from samcls.store.feature_store import FeatureStore
from samcls.sweep.folder import open_sweep
from samcls.sweep.leaderboard import leaderboard, trial_score
from samcls.sweep.outcomes import (
    RunFailure,
    read_failures,
    read_runs,
    sweep_away,
    write_failure,
)
from samcls.sweep.parquet import results_parquet
from samcls.sweep.space import Space, parse_space
from samcls.sweep.tables import results_csv, results_table, write_tables
from samcls.sweep.work import Site, run_group

CONFIG = TrainConfig(epochs=3, levels=("neck",))
GRID = "search = 'grid'\n{}\n[fixed]\nepochs = 3\n[space]\ndropout = [0.0, 0.1, 0.2]\n"


def grid(options: str = "") -> Space:
    return parse_space(GRID.format(options))


def store_at(path: Path, images: int = 30, seed: int = 0) -> FeatureStore:
    store = FeatureStore.create(path, FINGERPRINT, LEVELS, table(images))
    store.write(batch(0, images, seed))
    return FeatureStore.open(path)


def assert_equal(one: Run, other: Run) -> None:
    assert one.config == other.config
    assert dict(one.tasks) == dict(other.tasks)
    assert dict(one.metrics) == dict(other.metrics)
    assert one.history == other.history
    assert one.said.ids == other.said.ids
    np.testing.assert_array_equal(one.said.labels, other.said.labels)
    for task, values in one.said.probabilities.items():
        np.testing.assert_array_equal(values, other.said.probabilities[task])
    for name in ("auc", "loss", "key", "scored"):
        assert getattr(one, name) == getattr(other, name)


@pytest.mark.parametrize(
    "tasks",
    [{"grade": ("1", "2", "3")}, {"melanoma": ("no", "yes"), "keratosis": ("no", "yes", "maybe")}],
)
def test_a_record_is_read_back_as_it_was(tasks: dict[str, tuple[str, ...]], tmp_path: Path) -> None:
    """Config, figures, history and predictions come back to the last bit."""
    written = [record(replace(CONFIG, seed=s), tasks=tasks, how="together") for s in range(3)]
    for one in written:
        write_record(tmp_path, one)
    found = read_runs(tmp_path)
    assert list(found) == sorted(one.key for one in written)
    for one in written:
        assert_equal(found[one.key], one)


def test_missing_labels_survive(tmp_path: Path) -> None:
    """An image without a label comes back without one."""
    labels = np.array([[0], [1], [-1], [0], [1]])
    write_record(tmp_path, record(CONFIG, labels=labels))
    (found,) = read_runs(tmp_path).values()
    np.testing.assert_array_equal(found.said.labels, labels)


def test_a_real_run_is_a_run_folder_without_its_test_split(tmp_path: Path) -> None:
    """Figures are those of the chosen epoch, the one reader reads it, and test is nowhere in it."""
    store = store_at(tmp_path / "store.zarr")
    raw = load_features(store, ("neck",))
    scaler = ChannelScaler.fit(raw, raw.rows("train"))
    features = raw.standardised(scaler)
    fitted = fit(features, CONFIG)
    logits = predict_logits(fitted.head, features, features.rows("val"))
    said = to_probabilities(logits, features.tasks)
    run_group(Site(store.path, str(tmp_path), str(tmp_path / "shared")), (CONFIG,))
    (found,) = read_runs(tmp_path).values()
    assert (found.auc, found.loss) == (fitted.best.val_auc, fitted.best.val_loss)
    assert found.history == fitted.history
    assert found.said.ids == tuple(
        one for one, split in zip(features.ids, features.splits, strict=True) if split == "val"
    )
    np.testing.assert_array_equal(found.said.probabilities["label"], said["label"])
    folder = tmp_path / "runs" / found.key
    again = load_run(folder)
    assert_equal(again, found)
    assert again.fingerprint == store.fingerprint.to_dict()
    rows = features.rows("val")
    repeated = again.model.probabilities(
        {level: values[rows] for level, values in raw.tokens.items()},
        {level: values[rows] for level, values in raw.counts.items()},
    )
    np.testing.assert_allclose(repeated["label"], said["label"], atol=1e-6)
    tested = {one for one, split in zip(store.ids, store.splits, strict=True) if split == "test"}
    for path in folder.iterdir():
        if path.suffix in {".csv", ".json", ".toml"}:
            assert not any(f"{one}," in path.read_text() for one in tested)
    assert not again.scored
    with pytest.raises(InputError, match=r"says nothing of split test: runs of a sweep are scored"):
        again.predictions("test")


@pytest.mark.parametrize(
    "name",
    ["COMPLETE", "config.toml", "metrics.json", "history.csv", "predictions.csv", "head.json"],
)
@pytest.mark.parametrize("how", ["deleted", "cut", "flipped"])
def test_a_damaged_run_is_not_there_and_is_done_again(name: str, how: str, tmp_path: Path) -> None:
    """Whatever happened to a run's file, the run is ignored, and writing it again mends it."""
    made = record(CONFIG)
    write_record(tmp_path, made)
    path = tmp_path / "runs" / made.key / name
    content = path.read_bytes()
    if how == "deleted":
        path.unlink()
    elif how == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    assert read_runs(tmp_path) == {}
    write_record(tmp_path, made)
    assert list(read_runs(tmp_path)) == [made.key]


def test_strangers_among_the_runs_are_ignored(tmp_path: Path) -> None:
    """A run under another's name, a half-made folder and a stray file are no runs."""
    made = record(CONFIG)
    write_record(tmp_path, made)
    runs = tmp_path / "runs"
    shutil.copytree(runs / made.key, runs / ("0" * 64))
    shutil.copytree(runs / made.key, runs / f".{made.key}.1.part")
    (runs / "notes.txt").write_text("mine")
    assert list(read_runs(tmp_path)) == [made.key]
    assert read_failures(tmp_path) == {}


def test_a_finished_run_is_not_written_twice(tmp_path: Path) -> None:
    """Of two records of one config the first stays, and a failure does not take its place."""
    write_record(tmp_path, record(CONFIG, seconds=1.0))
    write_record(tmp_path, record(CONFIG, seconds=2.0))
    write_failure(tmp_path, RunFailure(CONFIG, "diverged"))
    assert [one.metrics["seconds"] for one in read_runs(tmp_path).values()] == [1.0]
    assert read_failures(tmp_path) == {}
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [digest(CONFIG)]


def test_a_failure_is_kept_with_its_reason_until_the_run_is_done(tmp_path: Path) -> None:
    """The reason can be read back; a later success takes the failure's place."""
    write_failure(tmp_path, RunFailure(CONFIG, "training diverged: lower learning_rate"))
    (failure,) = read_failures(tmp_path).values()
    assert failure.reason == "training diverged: lower learning_rate"
    assert failure.config == CONFIG
    assert read_runs(tmp_path) == {}
    write_record(tmp_path, record(CONFIG))
    assert list(read_runs(tmp_path)) == [digest(CONFIG)]
    assert read_failures(tmp_path) == {}


def test_a_sweep_goes_on_only_over_the_same_store(tmp_path: Path) -> None:
    """Another space is welcome; other features, images or labels, or a foreign folder are not."""
    store = store_at(tmp_path / "a.zarr")
    folder = tmp_path / "sweep"
    open_sweep(folder, grid(), store)
    left = folder / "runs" / ".x.1.part"
    left.mkdir(parents=True)
    open_sweep(folder, grid("seeds = 2"), store)
    assert "seeds = 2" in (folder / "space.toml").read_text()
    sweep_away(folder)
    assert not left.exists()
    other = FeatureStore.create(
        tmp_path / "b.zarr", replace(FINGERPRINT, input_size=128), LEVELS, table(30)
    )
    with pytest.raises(OverwriteRefused, match=r"other content; name another folder\n  input_size"):
        open_sweep(folder, grid(), other)
    rows = table(30)
    relabelled = FeatureStore.create(
        tmp_path / "c.zarr", FINGERPRINT, LEVELS, replace(rows, labels=1 - rows.labels)
    )
    relabelled.write(batch(0, 30))
    with pytest.raises(OverwriteRefused, match="images, labels and splits: "):
        open_sweep(folder, grid(), relabelled)
    content = (folder / "sweep.json").read_text()
    (folder / "sweep.json").write_text(
        content.replace('"format_version": 2', '"format_version": 1')
    )
    with pytest.raises(OverwriteRefused, match=r"of format 1, .* winner can still be read"):
        open_sweep(folder, grid(), store)
    (folder / "sweep.json").write_text("{")
    with pytest.raises(OverwriteRefused, match="cannot be read"):
        open_sweep(folder, grid(), store)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(OverwriteRefused, match="something else than a sweep"):
        open_sweep(tmp_path / "mine", grid(), store)


def test_the_leaderboard_ranks_means_over_seeds_and_folds() -> None:
    """A row holds the mean and deviation over its runs; the best mean stands first."""
    space = grid("seeds = 2\nfolds = 2")
    records = {}
    for trial, strength in zip(space.trials(), (0.5, 3.0, 1.5), strict=True):
        for number, member in enumerate(trial.members):
            one = record(member, strength, draw=number)
            records[one.key] = one
    rows = leaderboard(records, space)
    assert [row.rank for row in rows] == [1, 2, 3]
    assert [row.configuration.dropout for row in rows] == [0.1, 0.2, 0.0]
    for row in rows:
        found = [records[key] for key in row.runs]
        aucs = [one.auc for one in found]
        assert (row.n, row.planned, row.failed) == (4, 4, 0)
        assert row.auc == pytest.approx(np.mean(aucs))
        assert row.auc_std == pytest.approx(np.std(aucs, ddof=1))
        assert row.accuracy == pytest.approx(np.mean([r.validation["accuracy"] for r in found]))
        assert row.loss == pytest.approx(np.mean([r.loss for r in found]))
        assert row.seconds == pytest.approx(1.0)
        assert {space.neutral(one.config) for one in found} == {row.configuration}
    shuffled = dict(sorted(records.items(), reverse=True))
    assert leaderboard(shuffled, space) == rows


def test_ties_go_to_the_lower_loss() -> None:
    """Of equal AUCs the configuration with the lower validation loss is ahead."""
    space = grid()
    records = {}
    for config, loss in zip(space.configurations(), (0.5, 0.3, 0.4), strict=True):
        one = record(config, 2.0, loss=loss)
        records[one.key] = one
    assert [row.configuration.dropout for row in leaderboard(records, space)] == [0.1, 0.2, 0.0]


def test_what_cannot_be_ranked_stands_last_without_a_rank() -> None:
    """Missing or failed runs, and an undefined AUC, cost a configuration its rank."""
    space = grid("seeds = 2")
    first, second, third = space.trials()
    whole = [record(member) for member in first.members]
    half = record(second.members[0], 5.0)
    labels = np.zeros((9, 1), dtype=np.int64)
    undefined = [record(member, labels=labels) for member in third.members]
    records = {one.key: one for one in [*whole, half, *undefined]}
    failure = RunFailure(second.members[1], "diverged")
    rows = leaderboard(records, space, {failure.key: failure})
    assert [row.rank for row in rows] == [1, None, None]
    assert rows[0].key == first.key
    by_key = {row.key: row for row in rows}
    assert (by_key[second.key].n, by_key[second.key].failed) == (1, 1)
    assert by_key[third.key].auc is None
    assert trial_score(second.members, records) is None
    assert trial_score(third.members, records) is None
    assert trial_score(first.members, records) == pytest.approx(
        (np.mean([one.auc for one in whole]), -np.mean([one.loss for one in whole]))
    )


def test_only_the_largest_share_and_the_asked_folds_count() -> None:
    """Runs on smaller shares, of other folds or other seeds do not enter the leaderboard."""
    space = grid("fractions = [0.5, 1.0]")
    (trial, *_) = space.trials()
    small, large = (record(member) for member in trial.members)
    strangers = [
        record(replace(trial.configuration, folds=3, fold=1), 9.0),
        record(replace(trial.configuration, seed=5), 9.0),
    ]
    records = {one.key: one for one in [small, large, *strangers]}
    (row,) = leaderboard(records, space)
    assert row.runs == (large.key,)


def test_under_halving_the_last_round_stands_first() -> None:
    """A configuration that was trained longer is ahead of one that was cut early."""
    space = parse_space(
        "search = 'halving'\nruns = 4\n[fixed]\nepochs = 9\n[halving]\nmin_epochs = 3\n"
        "[space]\ndropout = {low = 0.0, high = 0.5}\n"
    )
    short, long = (replace(space.configurations()[0], epochs=n) for n in (3, 9))
    records = {one.key: one for one in (record(short, 9.0), record(long, 1.0))}
    assert [
        row.configuration.epochs for row in leaderboard(records, space, longest_first=True)
    ] == [9, 3]


def test_tables_hold_every_setting_and_figure() -> None:
    """CSV and Parquet hold the same rows, best first, with lists, unset values and tasks."""
    tasks = {"melanoma": ("no", "yes"), "keratosis": ("no", "yes")}
    made = [
        record(replace(CONFIG, dropout=0.1 * i, window=w), strength, tasks=tasks)
        for i, (w, strength) in enumerate([(None, 0.0), (4, 4.0), (8, 2.0)])
    ]
    rows = results_table({one.key: one for one in made})
    assert [row["auc"] for row in rows] == sorted((one.auc for one in made), reverse=True)
    assert set(to_dict(CONFIG)) <= set(rows[0])
    assert rows[0]["auc.melanoma"] == made[1].validation["tasks"]["melanoma"]["auc"]
    read = list(csv.DictReader(io.StringIO(results_csv(rows).decode())))
    assert [json.loads(row["levels"]) for row in read] == [["neck"]] * 3
    assert {row["window"] for row in read} == {"", "4", "8"}
    assert [float(row["auc"]) for row in read] == [row["auc"] for row in rows]
    parquet = pq.read_table(io.BytesIO(results_parquet(rows)))
    assert parquet.to_pylist() == rows
    assert parquet.schema.field("levels").type == pa.list_(pa.string())
    assert parquet.schema.field("window").type == pa.int64()
    unset = results_parquet(results_table({made[0].key: made[0]}))
    assert pq.read_table(io.BytesIO(unset)).schema.field("window").type == pa.int64()


def test_written_tables_say_how_many_were_tried(tmp_path: Path) -> None:
    """leaderboard.json holds the rows, the number of configurations tried, and what was added."""
    space = grid()
    records = {one.key: one for one in map(record, space.configurations())}
    rows = leaderboard(records, space)
    write_tables(tmp_path, records, rows, {"selection": {"winner": rows[0].key}})
    board = json.loads((tmp_path / "leaderboard.json").read_text())
    assert board["tried"] == 3
    assert board["selection"] == {"winner": rows[0].key}
    assert [row["auc"] for row in board["rows"]] == [row.auc for row in rows]
    assert rows[0].to_dict(["dropout"])["configuration"] == {
        "dropout": rows[0].configuration.dropout
    }
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 4
    assert pq.read_table(tmp_path / "results.parquet").num_rows == 3


def test_nothing_finished_makes_empty_tables(tmp_path: Path) -> None:
    """A sweep of which no run has finished still has its tables."""
    write_tables(tmp_path, {}, [])
    assert json.loads((tmp_path / "leaderboard.json").read_text())["rows"] == []
    assert pq.read_table(tmp_path / "results.parquet").num_rows == 0
