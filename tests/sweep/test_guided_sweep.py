"""Guided networks and their controls in one sweep, on equal terms."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from samcls.config import digest
from samcls.errors import RunError
from samcls.learn.fit.fit import fit
from samcls.learn.fit.loop import Loop
from samcls.learn.runs.train import train
from samcls.learn.settings import TrainConfig
from samcls.store.feature_store import FeatureStore
from samcls.sweep.outcomes import read_run, read_runs, run_path
from samcls.sweep.shared import SharedFeatures
from samcls.sweep.space import parse_space
from samcls.sweep.sweep import plan_sweep, sweep
from samcls.sweep.work import Site, run_group

MakeStore = Callable[..., FeatureStore]

SPACE = """
search = "grid"
seeds = 2
[fixed]
head = "guided:test_resnet"
pretrained = false
epochs = 1
batch_size = 16
intervals = 0
patience = 0
[space]
control = ["none", "plain", "shuffled", "se"]
"""


def store_of(make_store: MakeStore) -> FeatureStore:
    pixels = np.random.default_rng(3).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    return make_store(40, pixels=pixels, views=("identity",))


def test_controls_share_weights_and_schedule_seed_by_seed(
    make_store: MakeStore, tmp_path: Path
) -> None:
    """Where nothing is learned, all controls of a seed end with one network, and seeds differ."""
    rates = "learning_rate = 1e-30\nbackbone_learning_rate = 1e-30\n[space]"
    store, folder = store_of(make_store), tmp_path / "sweep"
    result = sweep(store.path, folder, parse_space(SPACE.replace("[space]", rates)))
    assert (result.finished, result.failed, result.configurations) == (8, 0, 4)
    records = read_runs(folder)
    found = {
        (record.config.control, record.config.seed): load_file(
            folder / "runs" / key / "head.safetensors"
        )
        for key, record in records.items()
    }
    names = [k for k in found["plain", 0] if "running" not in k and "tracked" not in k]
    assert len(names) > 20
    for (control, seed), own in found.items():
        for name in names:
            torch.testing.assert_close(
                own[name], found["plain", seed][name], rtol=0, atol=1e-20, msg=f"{control}: {name}"
            )
    first = next(name for name in names if found["plain", 0][name].dim() > 1)
    assert not torch.equal(found["plain", 0][first], found["plain", 1][first])
    assert len({tuple(e.learning_rate for e in one.history) for one in records.values()}) == 1
    assert not list(folder.glob("checkpoints/*"))


def test_a_guided_run_of_a_sweep_is_what_train_makes_of_its_config(
    make_store: MakeStore, tmp_path: Path
) -> None:
    """Weights bit for bit; each share of a study has its curve for each control, on test too."""
    text = SPACE.replace("seeds = 2", "seeds = 1\nfractions = [0.5, 1.0]").replace(
        '"none", "plain", "shuffled", "se"', '"none", "shuffled"'
    )
    store, folder = store_of(make_store), tmp_path / "sweep"
    plan = plan_sweep(store.path, folder, parse_space(text))
    assert plan.seconds is not None
    assert plan.seconds > 0
    result = sweep(store.path, folder, parse_space(text))
    assert (result.finished, result.failed) == (4, 0)
    for key, record in read_runs(folder).items():
        single = train(store, record.config, tmp_path / key)
        assert record.auc == single.validation["auc"]
        mine = load_file(folder / "runs" / key / "head.safetensors")
        alone = load_file(tmp_path / key / "head.safetensors")
        assert all(torch.equal(value, alone[name]) for name, value in mine.items())
        (point,) = [
            point
            for point in result.efficiency["test"]
            if point["fraction"] == record.config.train_fraction
            and ("shuffled" in point["head"]) == (record.config.control == "shuffled")
        ]
        assert point["auc"] == single.test["auc"]


LONG = TrainConfig(head="guided:test_resnet", pretrained=False, epochs=3, intervals=0)


def site_of(store: FeatureStore, folder: Path) -> tuple[Site, Path]:
    """Where a sweep works, and where it puts the run of `LONG` away."""
    site = Site(store.path, str(folder / "sweep"), str(folder / "shared"))
    return site, folder / "sweep" / "checkpoints" / f"{digest(LONG)}.pt"


class Cut(Exception):
    pass


def test_a_run_that_was_cut_off_in_a_sweep_goes_on(
    make_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three epochs the two that were put away are not trained again."""
    store, config = store_of(make_store), LONG
    site, kept = site_of(store, tmp_path)
    kept.parent.mkdir(parents=True)
    features, _ = SharedFeatures(Path(site.shared), store).features(config)

    def cut(line: str) -> None:
        if line.startswith("epoch 2 "):
            raise Cut

    with pytest.raises(Cut):
        fit(features, config, cut, kept, seconds=0.0)
    trained, epoch = [], Loop.epoch
    monkeypatch.setattr(Loop, "epoch", lambda self: trained.append(epoch(self)))
    (ended,) = run_group(site, (config,))
    assert (ended[1], len(trained), kept.exists()) == (None, 1, False)
    single = train(store, config, tmp_path / "run")
    found = read_run(run_path(site.folder, config))
    assert found is not None
    assert single.validation["auc"] == found.auc


def test_a_run_that_failed_in_a_sweep_keeps_what_it_trained(
    make_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk, say, costs no epochs: tried again, it goes on from its checkpoint."""
    config = LONG
    site, kept = site_of(store_of(make_store), tmp_path)
    epoch = Loop.epoch

    def fails(self: Loop) -> None:
        if self.done == 2:
            raise RunError("the checkpoint cannot be written: No space left on device")
        epoch(self)

    monkeypatch.setattr("samcls.learn.fit.loop.CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(Loop, "epoch", fails)
    (ended,) = run_group(site, (config,))
    assert ended[1] is not None
    assert kept.exists()
    trained: list[None] = []
    monkeypatch.setattr(Loop, "epoch", lambda self: trained.append(epoch(self)))
    (again,) = run_group(site, (config,))
    assert (again[1], len(trained), kept.exists()) == (None, 1, False)
