"""Stage one keeps its promises: exact, resumable, and one bad image costs one row."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from segment_anything.utils.transforms import ResizeLongestSide
from support.extracting import SMALL, features, image_folder

from samcls.data.manifest import Manifest, read_manifest
from samcls.encode.base import LEVELS
from samcls.encode.extract import ExtractOptions, extract
from samcls.encode.pipeline import Pipeline
from samcls.encode.sam import load_encoder
from samcls.errors import ConfigError, FingerprintMismatch, RunError, StoreError
from samcls.store.feature_store import FeatureStore
from samcls.store.schema import DONE, FAILED
from samcls.views import VIEW_SETS, transform


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    sizes = [
        (40, 40),
        (30, 50),
        (64, 20),
        (64, 64),
        (100, 90),
        (17, 80),
        (33, 33),
        (64, 48),
        (9, 9),
    ]
    return read_manifest(image_folder(tmp_path, sizes))


def test_the_store_holds_the_reference_pooled_over_windows(
    manifest: Manifest, tmp_path: Path
) -> None:
    """Each stored value equals segment_anything's map, averaged by hand over its window's picture."""
    extract(manifest, tmp_path / "s.zarr", replace(SMALL, storage="float32"))
    store = FeatureStore.open(tmp_path / "s.zarr")
    body = load_encoder("vit_t", input_size=64)
    for row, entry in enumerate(manifest.rows):
        image = np.asarray(Image.open(entry.path))
        resized = ResizeLongestSide(64).apply_image(image)
        frame = np.zeros((64, 64, 3), dtype=np.uint8)
        frame[: resized.shape[0], : resized.shape[1]] = resized
        maps = body(torch.from_numpy(frame)[None], [resized.shape[:2]])
        rows, cols = (-(-side // 16) for side in resized.shape[:2])
        assert store.valid[row].tolist() == list(resized.shape[:2])
        for level in LEVELS:
            for r, c in np.ndindex(2, 2):
                cell = maps[level][0, :, r * 2 : min(r * 2 + 2, rows), c * 2 : min(c * 2 + 2, cols)]
                expected = cell.mean((1, 2)) if cell.numel() else torch.zeros(cell.shape[0])
                found = store.read(level, [row])[0, 0, :, r, c]
                np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_a_bad_image_costs_its_own_row(manifest: Manifest, tmp_path: Path) -> None:
    """Missing, empty and truncated files are listed with their reasons; the others are as they were."""
    whole = extract(manifest, tmp_path / "whole.zarr", SMALL)
    assert (whole.done, whole.failed, whole.skipped) == (9, 0, 0)
    (tmp_path / "1.png").unlink()
    (tmp_path / "4.png").write_bytes(b"")
    (tmp_path / "6.png").write_bytes((tmp_path / "6.png").read_bytes()[:200])
    summary = extract(manifest, tmp_path / "s.zarr", SMALL)
    assert (summary.done, summary.failed) == (6, 3)
    assert [image for image, _ in summary.failures] == ["image1", "image4", "image6"]
    for (_, reason), word in zip(summary.failures, ["exist", "empty", "truncated"], strict=True):
        assert word in reason
    store, reference = FeatureStore.open(summary.store), FeatureStore.open(whole.store)
    good = np.flatnonzero(store.status == DONE)
    assert np.flatnonzero(store.status == FAILED).tolist() == [1, 4, 6]
    for level in LEVELS:
        np.testing.assert_array_equal(store.read(level, good), reference.read(level, good))
        assert not store.read(level, [1, 4, 6]).any()


def test_a_mended_image_is_taken_up_and_the_rest_left_alone(
    manifest: Manifest, tmp_path: Path
) -> None:
    """Running again encodes failed rows only, and gives what a clean run gives."""
    whole = extract(manifest, tmp_path / "whole.zarr", SMALL)
    (tmp_path / "5.png").rename(tmp_path / "away.png")
    assert extract(manifest, tmp_path / "s.zarr", SMALL).failed == 1
    (tmp_path / "away.png").rename(tmp_path / "5.png")
    summary = extract(manifest, tmp_path / "s.zarr", SMALL)
    assert (summary.done, summary.failed, summary.skipped) == (9, 0, 8)
    store, reference = FeatureStore.open(summary.store), FeatureStore.open(whole.store)
    for level, values in features(reference).items():
        np.testing.assert_array_equal(store.read(level), values)
    assert store.errors == [""] * 9


def test_the_batch_does_not_show(manifest: Manifest, tmp_path: Path) -> None:
    """Other batch sizes agree within one unit in the last place of float16, mostly exactly."""
    one = extract(manifest, tmp_path / "one.zarr", replace(SMALL, batch=1))
    many = extract(manifest, tmp_path / "many.zarr", replace(SMALL, batch=16))
    for level, values in features(FeatureStore.open(one.store)).items():
        other = FeatureStore.open(many.store).read(level)
        np.testing.assert_allclose(values, other, rtol=2**-10, atol=2**-12)


def test_views_are_encodings_of_the_transformed_image(manifest: Manifest, tmp_path: Path) -> None:
    """Each view holds what a store of the transformed files would, with its own valid cells."""
    options = replace(SMALL, views="d4", levels="early,neck")
    store = FeatureStore.open(extract(manifest, tmp_path / "d4.zarr", options).store)
    for view, name in enumerate(VIEW_SETS["d4"]):
        folder = tmp_path / name
        folder.mkdir()
        for row in manifest.rows:
            image = np.asarray(Image.open(row.path))
            Image.fromarray(transform(image, name)).save(folder / Path(row.path).name)
        shutil.copy(manifest.source, folder / "manifest.csv")
        alone = replace(options, views="none")
        other = extract(read_manifest(folder / "manifest.csv"), folder / "s.zarr", alone)
        reference = FeatureStore.open(other.store)
        for level in store.levels:
            np.testing.assert_array_equal(store.read(level)[:, view], reference.read(level)[:, 0])
            np.testing.assert_array_equal(store.counts(level, view=view), reference.counts(level))


def test_identical_images_are_encoded_once(manifest: Manifest, tmp_path: Path) -> None:
    """A copy under another id, in its own batch or another, takes the features that are there."""
    for copy in (2, 3, 8):
        shutil.copy(tmp_path / "0.png", tmp_path / f"{copy}.png")
    encoded = []
    options = replace(SMALL, levels="neck")
    encoder = load_encoder("vit_t", levels=("neck",), input_size=64)
    encoder.register_forward_hook(lambda _m, args, _o: encoded.extend(args[1]))
    pipeline = Pipeline(manifest.rows, encoder, SMALL, print)
    done: dict[int, dict[str, np.ndarray]] = {}
    for batch in pipeline.run(np.arange(9), {}, done.__getitem__):
        for i, row in enumerate(batch.rows):
            done[int(row)] = {level: x[i] for level, x in batch.features.items()}
    assert sum(extent != (0, 0) for extent in encoded) == 6
    store = FeatureStore.open(extract(manifest, tmp_path / "s.zarr", options).store)
    for row in (2, 3, 8):
        np.testing.assert_array_equal(store.read("neck", [row]), store.read("neck", [0]))
        np.testing.assert_array_equal(done[row]["neck"], store.read("neck", [row])[0])


def test_running_out_of_memory_halves_what_is_encoded_at_once(
    manifest: Manifest, tmp_path: Path
) -> None:
    """The device takes fewer images, the user is told, and the results agree."""
    whole = FeatureStore.open(extract(manifest, tmp_path / "s.zarr", SMALL).store)
    encoder = load_encoder("vit_t", input_size=64)

    def small_device(_module: object, args: tuple[torch.Tensor, object]) -> None:
        if len(args[0]) > 1:
            raise torch.OutOfMemoryError("no room")

    encoder.register_forward_pre_hook(small_device)
    said: list[str] = []
    pipeline = Pipeline(manifest.rows, encoder, SMALL, said.append)
    for batch in pipeline.run(np.arange(9), {}, lambda _: {}):
        for level, values in batch.features.items():
            reference = whole.read(level, batch.rows)
            np.testing.assert_allclose(values, reference, rtol=2**-10, atol=2**-12)
    assert said == [
        "out of memory: encoding 2 images at once from here on",
        "out of memory: encoding 1 images at once from here on",
    ]


def test_auto_precision_goes_on_with_the_stores(manifest: Manifest, tmp_path: Path) -> None:
    """A store begun in float32 is continued in float32, whatever this machine would choose."""
    extract(manifest, tmp_path / "s.zarr", SMALL)
    again = extract(manifest, tmp_path / "s.zarr", replace(SMALL, precision="auto"))
    assert again.skipped == 9
    with pytest.raises(FingerprintMismatch, match="precision"):
        extract(manifest, tmp_path / "s.zarr", replace(SMALL, precision="bfloat16"))


def test_timm_models_fill_the_same_store(manifest: Manifest, tmp_path: Path) -> None:
    """Levels of different strides are pooled and counted each on its own grid."""
    options = ExtractOptions(
        encoder="timm:convnext_atto", size=64, window=2, random_weights=True, precision="float32"
    )
    store = FeatureStore.open(extract(manifest, tmp_path / "s.zarr", options).store)
    assert {name: shape.rows for name, shape in store.levels.items()} == {
        "early": 8,
        "middle": 4,
        "late": 2,
        "neck": 1,
    }
    assert store.counts("early").sum() > store.counts("late").sum() > 0
    assert not store.fingerprint.mean[0].is_integer()
    assert store.fingerprint.encoder == "timm:convnext_atto"


def test_another_request_on_the_same_store_is_refused(manifest: Manifest, tmp_path: Path) -> None:
    """Another window, or another manifest, names what differs and leaves the store as it was."""
    extract(manifest, tmp_path / "s.zarr", SMALL)
    with pytest.raises(FingerprintMismatch, match="window"):
        extract(manifest, tmp_path / "s.zarr", replace(SMALL, window=4))
    fewer = replace(manifest, rows=manifest.rows[1:])
    with pytest.raises(StoreError, match="cannot follow its new manifest"):
        extract(fewer, tmp_path / "s.zarr", SMALL)
    assert (FeatureStore.open(tmp_path / "s.zarr").status == DONE).all()


def test_a_changed_manifest_is_followed(manifest: Manifest, tmp_path: Path) -> None:
    """New rows at the end are encoded, changed splits are taken over, and nothing is encoded twice."""
    first = replace(manifest, rows=manifest.rows[:5])
    extract(first, tmp_path / "s.zarr", SMALL)
    moved = (replace(manifest.rows[0], split="test"), *manifest.rows[1:])
    said: list[str] = []
    grown = replace(manifest, rows=moved)
    summary = extract(grown, tmp_path / "s.zarr", SMALL, log=said.append)
    assert (summary.done, summary.skipped) == (9, 5)
    assert "4" in said[0]
    store = FeatureStore.open(tmp_path / "s.zarr")
    assert store.splits == ["test", *manifest.splits[1:]]
    whole = FeatureStore.open(extract(manifest, tmp_path / "whole.zarr", SMALL).store)
    for level, values in features(whole).items():
        np.testing.assert_array_equal(store.read(level), values)


def test_a_running_scheduler_gives_the_result_of_one_process(
    manifest: Manifest, tmp_path: Path, dask_address: str
) -> None:
    """Two workers of a cluster, by its address, write the arrays that one process writes, bit for bit."""
    options = replace(SMALL, levels="early,neck", batch=1)
    (tmp_path / "4.png").write_bytes(b"")
    one = FeatureStore.open(extract(manifest, tmp_path / "one.zarr", options).store)
    there = replace(options, dask=dask_address)
    summary = extract(manifest, tmp_path / "two.zarr", there)
    two = FeatureStore.open(summary.store)
    assert (summary.done, summary.failed) == (8, 1)
    assert two.partition.shard_rows == 1
    assert two.errors == one.errors
    np.testing.assert_array_equal(two.sha256, one.sha256)
    np.testing.assert_array_equal(two.valid, one.valid)
    for level, values in features(one).items():
        np.testing.assert_array_equal(two.read(level), values)


def test_a_worker_that_dies_is_replaced(manifest: Manifest, tmp_path: Path) -> None:
    """Of `--workers 2`, killing one in the middle costs its shard a second try, and nothing else."""
    psutil = pytest.importorskip("psutil")  # comes with distributed
    whole = FeatureStore.open(extract(manifest, tmp_path / "whole.zarr", SMALL).store)
    killed: list[int] = []

    def workers() -> list[int]:
        """Processes that multiprocessing spawned, its resource tracker left out."""
        family = psutil.Process().children(recursive=True)
        return [one.pid for one in family if "spawn_main" in " ".join(one.cmdline())]

    before = workers()  # of a cluster that other tests share

    def kill_one(done: int, _total: int, _failed: int, _written: int) -> None:
        if done and not killed:
            victims = [pid for pid in workers() if pid not in before]
            assert len(victims) == 2
            killed.append(victims[0])
            os.kill(victims[0], signal.SIGKILL)

    summary = extract(manifest, tmp_path / "s.zarr", replace(SMALL, workers=2), kill_one)
    assert killed
    assert summary.done == 9
    store = FeatureStore.open(summary.store)
    assert store.partition.shard_rows == 1
    np.testing.assert_array_equal(store.sha256, whole.sha256)
    for level, values in features(whole).items():
        np.testing.assert_array_equal(store.read(level), values)


def test_a_scheduler_that_is_not_there_is_said(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address without a scheduler says how to start one."""
    monkeypatch.setattr("samcls.cluster.PATIENCE", "1s")
    with pytest.raises(RunError, match="dask scheduler"):
        extract(manifest, tmp_path / "s.zarr", replace(SMALL, dask="tcp://127.0.0.1:9"))


def test_a_second_writer_is_refused(manifest: Manifest, tmp_path: Path) -> None:
    """While one extract writes a store, another says who holds it."""
    holder = "from samcls.store.lock import writer_lock; import sys, time\n"
    holder += "with writer_lock(sys.argv[1]): print('held', flush=True); time.sleep(60)"
    command = [sys.executable, "-c", holder, str(tmp_path / "s.zarr")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        with pytest.raises(StoreError, match=str(child.pid)):
            extract(manifest, tmp_path / "s.zarr", SMALL)
        child.kill()
    said: list[str] = []
    assert extract(manifest, tmp_path / "s.zarr", SMALL, log=said.append).done == 9
    assert said


def test_options_are_refused_before_anything_is_touched() -> None:
    """Each option out of range names itself, its value and what was expected."""
    for options, words in (
        ({"encoder": "vit_t", "window": 17}, "window is 17; expected 1 to 16"),
        ({"size": 100}, "multiple of 16"),
        ({"levels": "neck,nose"}, "unknown level 'nose'"),
        ({"batch": 0}, "batch is 0"),
        ({"storage": "int8"}, "float16 or float32"),
        ({"encoder": "vit_g"}, "unknown encoder 'vit_g'"),
        ({"precision": "int4"}, "auto or float32 or bfloat16"),
        ({"views": "all"}, "none, flip, d4"),
        (
            {"encoder": "timm:resnet18", "checkpoint": "x.pth", "random_weights": True},
            "x.pth brings some; leave one of them out",
        ),
    ):
        with pytest.raises(ConfigError, match=words):
            ExtractOptions(**options)


CHILD = """
import json, sys
from samcls.data.manifest import read_manifest
from samcls.encode.extract import ExtractOptions, extract
from samcls.store import writer
writer.COST_RATIO = 1  # write often, so that there is something to find after a kill
options = ExtractOptions(**json.loads(sys.argv[3]), flush_seconds=0.0)
extract(read_manifest(sys.argv[1]), sys.argv[2], options)
"""


def killed_after(command: list[str], store: Path, rows: int, delay: float) -> None:
    """Start an extract and SIGKILL it some time after it has finished a number of rows."""
    child = subprocess.Popen(command)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and child.poll() is None:
        if FeatureStore.exists(store) and (FeatureStore.open(store).status == DONE).sum() >= rows:
            break
        time.sleep(0.05)
    time.sleep(delay)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL


@pytest.mark.parametrize("kills", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_killed_at_random_moments_and_resumed_is_as_uninterrupted(
    tmp_path: Path, kills: int
) -> None:
    """SIGKILL at random moments, then resume: bit for bit the arrays of an uninterrupted run."""
    rng = np.random.default_rng()
    source = image_folder(tmp_path, [(int(h), int(w)) for h, w in rng.integers(20, 150, (160, 2))])
    options = {"encoder": "vit_t", "size": 128, "window": 2, "batch": 2, "precision": "float32"}
    store = tmp_path / "killed.zarr"
    command = [sys.executable, "-c", CHILD, str(source), str(store), json.dumps(options)]
    done = 0
    for _ in range(kills):
        killed_after(command, store, done + int(rng.integers(2, 10)), float(rng.uniform(0, 0.1)))
        status = FeatureStore.open(store).status
        assert done < (status == DONE).sum() < len(status)
        done = int((status == DONE).sum())
    for place in (store, tmp_path / "whole.zarr"):
        extract(read_manifest(source), place, ExtractOptions(**options))  # type: ignore[arg-type]
    resumed, whole = FeatureStore.open(store), FeatureStore.open(tmp_path / "whole.zarr")
    assert (resumed.status == DONE).all()
    np.testing.assert_array_equal(resumed.sha256, whole.sha256)
    np.testing.assert_array_equal(resumed.valid, whole.valid)
    for level, values in features(whole).items():
        assert values.any()
        np.testing.assert_array_equal(resumed.read(level), values)
