"""`samcls train --head guided:` end to end, on tiny stores that keep pixels."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import typer
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from samcls.cli.learn import register
from samcls.config import to_toml
from samcls.errors import FingerprintMismatch, InputError
from samcls.explain.gates import attention_maps
from samcls.learn.features.tensors import load_features, with_pixels
from samcls.learn.fit.prediction import predict_logits, to_probabilities
from samcls.learn.heads.guided.backbone import have_weights
from samcls.learn.heads.guided.net import GuidedNet
from samcls.learn.runs.folder import load_run
from samcls.learn.runs.predictions import read_predictions
from samcls.learn.runs.train import train
from samcls.learn.settings import TrainConfig
from samcls.store.feature_store import FeatureStore
from samcls.store.schema import LevelShape

MakeStore = Callable[..., FeatureStore]

CONFIG = TrainConfig(
    head="guided:test_resnet", pretrained=False, epochs=2, batch_size=16, intervals=0
)


def pictures(images: int, side: int = 32) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (images, side, side, 3), dtype=np.uint8)


@pytest.fixture
def store(make_store: MakeStore) -> FeatureStore:
    return make_store(40, pixels=pictures(40))


@pytest.mark.parametrize("control", ["none", "plain", "shuffled", "se"])
def test_a_saved_run_says_again_what_it_said(
    store: FeatureStore, tmp_path: Path, control: str
) -> None:
    """Read back, the network's probabilities of the test images are those of predictions.csv."""
    result = train(store, replace(CONFIG, control=control), tmp_path / "run")
    run = load_run(tmp_path / "run")
    net = run.model.head
    assert isinstance(net, GuidedNet)
    assert result.parameters == sum(value.numel() for value in net.parameters())
    assert not (tmp_path / "run" / "checkpoint.pt").exists()
    raw = with_pixels(load_features(store), store)
    features = raw.standardised(run.model.scaler)
    rows = features.rows("test")
    again = to_probabilities(predict_logits(net, features, rows), features.tasks)
    said = read_predictions(tmp_path / "run" / "predictions.csv", features.tasks, "test")
    np.testing.assert_allclose(again["malignancy"], said.probabilities["malignancy"], atol=1e-6)
    given = (raw.tokens, raw.counts, raw.views, raw.pixels)
    if control == "shuffled":
        with pytest.raises(InputError, match="other images' features"):
            run.model.probabilities(*given)
    else:
        found = run.model.probabilities(*given)
        np.testing.assert_allclose(found["malignancy"][rows], again["malignancy"], atol=1e-6)


def test_every_baseline_stands_beside_a_network_with_bilinear_gates(store: FeatureStore) -> None:
    """SLCA alone takes the pooled features that were read, where gates are enlarged bilinearly."""
    config = replace(CONFIG, upsampling="bilinear", epochs=1)
    result = train(store, config, every_baseline=True)
    assert {"linear", "se", "slca, shuffled"} <= set(result.baselines)


def test_streamed_images_and_features_train_the_same_network(
    store: FeatureStore, tmp_path: Path
) -> None:
    """Where memory is short, from scratch files, bit for bit; each fold is a run like any other."""
    config = replace(CONFIG, epochs=1, folds=2, jitter=0.1)
    for name, memory in (("memory", None), ("streamed", 1000)):
        train(store, config, tmp_path / name, memory=memory)
    one, two = (load_file(tmp_path / k / "head.safetensors") for k in ("memory", "streamed"))
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    said = [(tmp_path / k / "predictions.csv").read_text() for k in ("memory", "streamed")]
    assert said[0] == said[1]


def samcls(*arguments: object) -> tuple[int, str, str]:
    app = typer.Typer()
    app.callback()(lambda: None)
    register(app)
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    return result.exit_code, result.stdout, result.stderr


def test_the_verb_trains_a_frozen_network_with_its_options(
    store: FeatureStore, tmp_path: Path
) -> None:
    """Options reach the config, and a frozen backbone trains gates and classifier alone."""
    options = ("--head", "guided:resnet18", "--no-pretrained", "--freeze-backbone", "--epochs", 1)
    more = ("--gate", "multiply", "--stages", "stage2,stage4", "--jitter", 0.1, "--json")
    status, out, err = samcls("train", store.path, tmp_path / "run", *options, *more)
    assert status == 0, err
    assert "gates add" in err
    run = load_run(tmp_path / "run")
    assert run.config.gate == "multiply"
    assert isinstance(run.model.head, GuidedNet)
    assert list(run.model.head.gates) == ["stage2", "stage4"]
    body = sum(value.numel() for value in run.model.head.body.parameters())
    whole = sum(value.numel() for value in run.model.head.parameters())
    assert json.loads(out)["parameters"] == whole - body > 0


@pytest.mark.parametrize(
    ("head", "kept", "said"),
    [
        (
            "guided:test_resnet",
            False,
            "the store keeps none; extract into another store with --keep-pixels 224",
        ),
        ("guided:resnet18000", True, "timm knows no model 'resnet18000'"),
        ("guided:test_vit", True, "has no stages that timm lists"),
    ],
)
def test_the_verb_says_what_stands_against_a_network(
    make_store: MakeStore, tmp_path: Path, head: str, kept: bool, said: str
) -> None:
    """Before anything is read or written, with exit status 2."""
    store = make_store(20, pixels=pictures(20) if kept else None)
    status, _, err = samcls("train", store.path, tmp_path / "run", "--head", head)
    assert status == 2
    assert said in " ".join(err.split())
    assert not (tmp_path / "run").exists()


def test_weights_that_cannot_be_had_offline_name_the_way_out(
    store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pretrained weights are the default; before anything is read the error says how to do without."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    have_weights.cache_clear()
    status, _, err = samcls("train", store.path, tmp_path / "run", "--head", "guided:test_resnet")
    assert status != 0
    assert "--no-pretrained" in " ".join(err.split())
    assert "images:" not in err


def test_pretrained_weights_are_the_ones_that_timm_keeps(
    make_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frozen network keeps them, from timm's own cache, in timm's own format, without a connection."""
    made = timm.create_model("test_resnet", pretrained=False)
    repository = made.pretrained_cfg["hf_hub_id"].replace("/", "--")
    kept = tmp_path / f"models--{repository}"
    (kept / "snapshots" / "abc").mkdir(parents=True)
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("abc")
    save_file(made.state_dict(), kept / "snapshots" / "abc" / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    have_weights.cache_clear()
    config = replace(CONFIG, pretrained=True, freeze_backbone=True, epochs=1)
    train(make_store(40, pixels=pictures(40)), config, tmp_path / "run")
    saved = load_file(tmp_path / "run" / "head.safetensors")
    expected = {f"body.{k}": v for k, v in made.state_dict().items() if not k.startswith("fc.")}
    assert expected
    held = {name[name.index("body.") :]: v for name, v in saved.items() if "body." in name}
    assert held.keys() == expected.keys()
    assert all(torch.equal(held[name], value) for name, value in expected.items())


CHILD = """
import sys

from samcls.config import load_toml
from samcls.learn.fit import loop
from samcls.learn.runs.train import train
from samcls.learn.settings import TrainConfig
from samcls.store.feature_store import FeatureStore

def loaded(line):
    encoders = ("samcls.encode", "samcls.data.images", "segment_anything")
    print([name for name in sys.modules if name.startswith(encoders)], flush=True)

loop.CHECKPOINT_SECONDS = 0.0
train(FeatureStore.open(sys.argv[1]), load_toml(TrainConfig, sys.argv[2]), sys.argv[3], loaded)
"""


def test_a_killed_run_goes_on_to_the_same_network_without_an_encoder(
    store: FeatureStore, tmp_path: Path
) -> None:
    """SIGKILL between checkpoints changes no bit, and no encoder is ever loaded, let alone called."""
    run, settings = tmp_path / "killed", tmp_path / "config.toml"
    config = replace(CONFIG, epochs=15, patience=0, jitter=0.1)
    settings.write_text(to_toml(config))
    command = [sys.executable, "-c", CHILD, store.path, str(settings), str(run)]
    # Sums depend on the number of threads. Dask leaves its workers' in the environment of the
    # process that starts them, which has long begun with others.
    threads = str(torch.get_num_threads())
    same = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=same) as process:
        deadline = time.monotonic() + 100
        while not (run / "checkpoint.pt").exists() and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
        assert process.stdout is not None
        assert set(process.stdout.read().split()) == {"[]"}
    assert not (run / "COMPLETE").exists()
    told: list[str] = []
    train(store, config, run, told.append)
    assert any("going on after epoch" in line for line in told)
    train(store, config, tmp_path / "whole")
    ends = [load_file(tmp_path / name / "head.safetensors") for name in ("killed", "whole")]
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
    history = [(tmp_path / name / "history.csv").read_text() for name in ("killed", "whole")]
    assert history[0] == history[1]


def test_attention_maps_are_given_by_id(make_store: MakeStore, tmp_path: Path) -> None:
    """Every stage's A has the stage's size and is what the image's own features open."""
    store = make_store(40, pixels=pictures(40))
    train(store, CONFIG, tmp_path / "run")
    run = load_run(tmp_path / "run")
    maps = attention_maps(run, store, ["image-7", "image-3"])
    alone = attention_maps(run, store, ["image-3"])
    assert list(maps) == ["image-7", "image-3"]
    net = run.model.head
    assert isinstance(net, GuidedNet)
    assert list(maps["image-3"]) == list(net.gates) == ["stage3", "stage4"]
    for stage, point in zip(maps["image-3"], net.points(), strict=True):
        values = maps["image-3"][stage]
        assert values.shape[1:] == tuple(point.resize.size)
        assert values.min() > 0
        assert values.max() < 1
        np.testing.assert_allclose(values, alone["image-3"][stage], atol=1e-6)
        assert np.abs(values - maps["image-7"][stage]).max() > 1e-4
    row = store.ids.index("image-3")
    neck = torch.from_numpy(store.read("neck", [row])[0, 0].astype(np.float32))  # channel row col
    tokens = neck.flatten(1).T
    mean, std = (getattr(run.model.scaler, name)["neck"] for name in ("mean", "std"))
    point = net.points()[1]
    counts = torch.full((1, 16), 4.0)
    own, _ = point.resize.pooled(((tokens - mean) / std)[None], counts)
    gate = point.gate(own)[0].permute(2, 0, 1).detach().numpy()
    assert gate.shape == maps["image-3"]["stage4"].shape
    np.testing.assert_allclose(gate, maps["image-3"]["stage4"], atol=1e-5)


def test_maps_of_what_is_not_there_are_refused(make_store: MakeStore, tmp_path: Path) -> None:
    """Unknown images, other features and other heads each have their sentence."""
    store = make_store(40, pixels=pictures(40))
    train(store, CONFIG, tmp_path / "run")
    run = load_run(tmp_path / "run")
    with pytest.raises(InputError, match=r"no encoded image image-99; .* such as image-0"):
        attention_maps(run, store, ["image-99"])
    with pytest.raises(InputError, match=r"no view 'flip'; it holds identity"):
        attention_maps(run, store, ["image-1"], "flip")
    other = make_store(40, pixels=pictures(40), name="other.zarr", encoder="vit_b")
    with pytest.raises(FingerprintMismatch, match="encoder"):
        attention_maps(run, other, ["image-1"])
    train(store, replace(CONFIG, head="linear"), tmp_path / "linear")
    with pytest.raises(InputError, match="head linear, which has no stages"):
        attention_maps(load_run(tmp_path / "linear"), store, ["image-1"])


def test_a_window_that_hangs_over_the_frame_is_known_after_loading(
    make_store: MakeStore, tmp_path: Path
) -> None:
    """A run on a map that windows do not divide is rebuilt with the same resize."""
    levels: dict[str, Any] = {"neck": LevelShape(4, 3, 3, 16)}
    store = make_store(40, levels=levels, pixels=pictures(40), input_size=80)
    train(store, replace(CONFIG, epochs=1), tmp_path / "run")
    run = load_run(tmp_path / "run")
    assert run.model.shape.reach == {"neck": pytest.approx(80 / 96)}
    assert run.model.shape.pixels == 32
