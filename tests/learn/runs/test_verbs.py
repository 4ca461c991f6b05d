"""Stage two's verbs and bench, run as a user runs them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.cli import samcls

from samcls.bench.train import bench_train
from samcls.store.feature_store import FeatureStore

MakeStore = Callable[..., FeatureStore]


def test_train_and_compare(make_store: MakeStore, tmp_path: Path) -> None:
    """Two runs and their comparison: JSON with the promised keys, and tables for people."""
    store = make_store(60, strength=4.0).path
    options = ("--epochs", 2, "--learning-rate", 0.01)
    first = samcls("train", store, tmp_path / "a", *options, "--json")
    values = json.loads(first.stdout)
    assert {"run", "head", "epochs", "seconds", "parameters", "validation", "test"} <= set(values)
    several = samcls("train", store, tmp_path / "b", *options, "--head", "knn", "--seeds", 2)
    assert several.returncode == 0
    assert "figures are their means" in several.stdout
    other = tmp_path / "b" / "seed-0"
    compared = json.loads(samcls("compare", tmp_path / "a", other, "--json").stdout)
    assert {"auc", "delong"} <= set(compared["tasks"]["malignancy"])
    seeds = samcls("compare", tmp_path / "b", tmp_path / "b", tmp_path / "b")
    assert "means over 2 seeds" in seeds.stdout
    assert "p seeds" in seeds.stdout
    assert "malignancy: A and C, 12 images of 6 groups of split test" in seeds.stdout
    wrong = samcls("train", store, tmp_path / "c", "--folds", 1)
    assert wrong.returncode == 2
    assert "folds is 1; expected 0 (the stored splits) or at least 2" in wrong.stderr


def test_the_bench_compares_four_ways_of_training() -> None:
    """Every form stands beside the full maps, and the pooled form's logits are the full form's."""
    bench = bench_train(side=8, channels=16, images=40, window=4, encoder_rate=100.0).to_dict()
    rows = {row["measure"]: row for row in bench["rows"]}
    compared = [name for name, row in rows.items() if row.get("baseline") == "epoch on full maps"]
    assert len(compared) == 3
    assert rows["epoch with the encoder in the loop"]["value"] > 40 / 100
    full, pooled = rows["epoch on full maps"]["value"], rows["epoch on pooled maps"]["value"]
    assert rows["full maps over pooled maps"]["value"] == pytest.approx(full / pooled)
    assert rows["logits, full against pooled"]["value"] < 1e-5
