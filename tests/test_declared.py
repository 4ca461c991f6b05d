"""Manifests that were once learned from wrongly, run as a user runs them: each is told or refused."""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.cli import Done, samcls

from samcls.store.feature_store import FeatureStore

SPLITS = ["train"] * 18 + ["val"] * 6 + ["test"] * 6
EXTRACT = ("--encoder", "vit_t", "--size", 64, "--levels", "neck")
TRAIN = ("--epochs", 1, "--head", "linear", "--config", "quick.toml")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty noisy pictures, bright where the number is odd."""
    folder = tmp_path_factory.mktemp("declared")
    generator = np.random.default_rng(0)
    for i in range(30):
        pixels = np.clip(generator.normal(90 + 60 * (i % 2), 30, (24, 24)), 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"p{i:02}.png")
    (folder / "quick.toml").write_text("intervals = 0\n")
    return folder


def run(images: Path, *commands: Sequence[object]) -> list[Done]:
    """What each command gave, one after the other, in the folder of the pictures."""
    with contextlib.chdir(images):
        return [samcls(*command) for command in commands]


def manifest(images: Path, name: str, columns: dict[str, Sequence[str]]) -> Path:
    path = images / f"{name}.csv"
    lines = [",".join(["id", "path", "split", *columns])]
    for i, split in enumerate(SPLITS):
        cells = [f"p{i:02}", f"p{i:02}.png", split, *(column[i] for column in columns.values())]
        lines.append(",".join(cells))
    path.write_text("\n".join(lines) + "\n")
    return path


PLAIN = ["neg", "pos"] * 15


def test_a_good_manifest_is_told_and_two_spellings_are_named(images: Path) -> None:
    """Tasks, classes and counts are printed; of `0` and `0.0` it is said that they are one class."""
    good = manifest(images, "good", {"label": PLAIN})
    numbers = [str(i % 2) if i % 3 else f"{i % 2}.0" for i in range(30)]
    spelled = manifest(images, "spelled", {"label": numbers})
    plain, doubtful = run(
        images,
        ["extract", good, images / "good.zarr", *EXTRACT],
        ["extract", spelled, images / "spelled.zarr", *EXTRACT],
    )
    assert plain.returncode == 0
    assert (
        "labelled images of task label: train 18 of 18 (neg: 9, pos: 9); val 6 of 6 (neg: 3, pos: 3); "
        "test 6 of 6 (neg: 3, pos: 3); the positive class is pos\n"
    ) in plain.stderr
    assert "warning" not in plain.stderr
    assert doubtful.returncode == 0
    assert "'0.0' (5 images)" in doubtful.stderr
    assert "are taken as one class, '0'" in doubtful.stderr
    assert FeatureStore.open(images / "spelled.zarr").tasks == {"label": ("0", "1")}


def test_a_class_that_means_missing_is_named_with_the_remedy(images: Path) -> None:
    """`nan` is a class until --missing says that it is none; the store follows without encoding."""
    labels = ["nan" if i in {0, 1, 18, 19} else name for i, name in enumerate(PLAIN)]
    path, store = manifest(images, "nan", {"label": labels}), images / "nan.zarr"
    extract = ["extract", path, store, *EXTRACT]
    first, told, trained = run(
        images,
        extract,
        [*extract, "--missing", "nan,NA"],
        ["train", store, images / "nan-run", *TRAIN],
    )
    assert "'nan' (4 images) is taken for a class" in first.stderr
    assert "--missing nan" in first.stderr
    assert "had the classes nan, neg, pos and has neg, pos" in told.stderr
    assert "no label is spelled 'NA'" in told.stderr
    assert "(30 before)" in told.stdout
    assert FeatureStore.open(store).tasks == {"label": ("neg", "pos")}
    assert "train 16 of 18 (neg: 8, pos: 8)" in trained.stdout


def test_a_patient_in_three_splits_is_refused_by_every_verb(images: Path) -> None:
    """extract, train, sweep and verify name the groups and the option; with it, tables say so."""
    groups = [f"g{i % 3}" for i in range(30)]
    path, store = manifest(images, "g", {"label": PLAIN, "group": groups}), images / "g.zarr"
    space, folder = images / "space.toml", images / "sweep"
    space.write_text(
        'search = "grid"\n[fixed]\nepochs = 1\nintervals = 0\nhead = "linear"\n[space]\ndropout = [0.0]\n'
    )
    (refused,) = run(images, ["extract", path, store, *EXTRACT])
    said = "3 groups of 30 images lie in several splits: g0 (train 6, val 2, test 2)"
    assert (refused.returncode, store.exists()) == (2, False)
    train = ["train", store, images / "g-run", *TRAIN]
    sweep = ["sweep", store, folder, "--space", space]
    verify = ["store", "verify", store, "--manifest", path]
    made, no_run, no_sweep, wrong = run(
        images,
        ["extract", path, store, *EXTRACT, "--allow-leak"],
        train,
        sweep,
        [*verify, "--json"],
    )
    assert made.returncode == 0
    assert (no_run.returncode, (images / "g-run").exists()) == (2, False)
    assert (no_sweep.returncode, folder.exists()) == (2, False)
    for result in (refused, no_run, no_sweep):
        assert said in result.stderr
        assert "--allow-leak" in result.stderr
    (problem,) = json.loads(wrong.stdout)["problems"]
    assert (problem["kind"], wrong.returncode) == ("group in several splits", 1)
    assert said in problem["detail"]
    trained, swept, sound = run(
        images,
        [*train, "--allow-leak"],
        [*sweep, "--allow-leak", "--positive", "neg"],
        [*verify, "--allow-leak"],
    )
    assert f"a leak that was allowed: {said}" in trained.stdout
    assert f"a leak that was allowed: {said}" in swept.stdout
    assert "of task label are of class neg" in swept.stdout
    assert (sound.returncode, said in sound.stderr) == (0, True)


def test_columns_beside_the_label_are_no_tasks_by_accident(images: Path) -> None:
    """Sex and age must be declared; as meta columns they are kept, and never learned."""
    beside = {"sex": ["F", "M"] * 15, "age": [str(40 + i) for i in range(30)]}
    extra = manifest(images, "extra", {"label": PLAIN, **beside})
    meta = {f"meta:{name}": column for name, column in beside.items()}
    declared, store = manifest(images, "declared", {"label": PLAIN, **meta}), images / "extra.zarr"
    refused, made = run(
        images, ["extract", extra, store, *EXTRACT], ["extract", declared, store, *EXTRACT]
    )
    assert refused.returncode == 2
    assert (
        "line 1: columns 'label', 'sex', 'age' are neither declared nor reserved" in refused.stderr
    )
    assert made.returncode == 0
    assert "kept and never learned from: sex, age" in made.stderr
    assert FeatureStore.open(store).tasks == {"label": ("neg", "pos")}
    assert FeatureStore.open(store).meta == beside


def test_a_manifest_chooses_the_positive_class(images: Path) -> None:
    """The store is relabelled in place, and figures are of the class that was chosen."""
    first, store = manifest(images, "first", {"label": PLAIN}), images / "chosen.zarr"
    second = manifest(images, "second", {"label:label[positive=neg]": PLAIN})
    _, turned, trained, wrong = run(
        images,
        ["extract", first, store, *EXTRACT],
        ["extract", second, store, *EXTRACT],
        ["train", store, images / "chosen-run", *TRAIN],
        ["train", store, images / "wrong-run", *TRAIN, "--positive", "Neg"],
    )
    assert "had the classes neg, pos and has pos, neg" in turned.stderr
    assert "(30 before)" in turned.stdout
    assert "precision and F1 of task label are of class neg\n" in trained.stdout
    assert wrong.returncode == 2
    assert "did you mean 'neg'?" in wrong.stderr


def test_pictures_in_several_splits_are_told_and_with_strict_an_error(images: Path) -> None:
    """Nothing that was encoded is lost: the store is whole, and the exit status is 1."""
    twins = images / "twins"
    twins.mkdir()
    for i in range(30):
        source = images / f"p{0 if i in {18, 25} else i:02}.png"
        (twins / f"p{i:02}.png").write_bytes(source.read_bytes())
    path, store = manifest(twins, "m", {"label": PLAIN}), twins / "m.zarr"
    extract, train = ["extract", path, store, *EXTRACT], ["train", store, twins / "run", *TRAIN]
    strict, again, sound, wrong, refused, trained = run(
        images,
        [*extract, "--strict"],
        [*extract, "--json"],
        ["store", "verify", store],
        ["store", "verify", store, "--strict"],
        [*train, "--strict"],
        train,
    )
    assert strict.returncode == 1
    assert "error: 1 picture stands in several splits pixel for pixel, with contra" in strict.stderr
    assert "30 of 30 images done" in strict.stdout
    assert again.returncode == 0
    assert json.loads(again.stdout)["leaks"]["contradictory"]["images"] == 3
    assert (sound.returncode, wrong.returncode, refused.returncode) == (0, 1, 2)
    assert "p00 (train) = p18 (val) = p25 (test)" in trained.stdout
