"""Exported folders: made of a run that was trained on real features, run by others, or not there at all."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.exporting import Subject, said, subject
from support.limits import files_of_at_most

from samcls.data.images import read_image
from samcls.data.manifest import read_manifest
from samcls.data.phantoms import write_phantoms
from samcls.deploy.export.folder import Export, export
from samcls.deploy.export.formats import load_exported
from samcls.deploy.export.selfcheck import cached, phantoms
from samcls.encode.encoders import open_encoder
from samcls.encode.extract import ExtractOptions, extract
from samcls.errors import ConfigError, ExportError, InputError, OverwriteRefused, RunError
from samcls.learn.runs.folder import load_runs
from samcls.learn.runs.operating import operating_points
from samcls.learn.runs.repeats import train_repeats
from samcls.learn.settings import TrainConfig
from samcls.store.feature_store import FeatureStore
from samcls.store.schema import Fingerprint

# What torch and onnxscript say of their own insides while they translate.
pytestmark = pytest.mark.filterwarnings("ignore")

ALONE = (
    "import runpy, sys; sys.modules.update(torch=None, samcls=None, PIL=None); "
    "sys.argv = ['check.py', *sys.argv[1:]]; runpy.run_path('check.py', run_name='__main__')"
)
OPTIONS = ExtractOptions(
    encoder="timm:test_resnet",
    random_weights=True,
    size=64,
    window=1,
    levels="middle,late",
    precision="float32",
    device="cpu",
)


class Trained:
    """Two seeds on features of phantoms, what they wrote of the test split, and its pictures."""

    def __init__(self, place: Path) -> None:
        manifest = read_manifest(write_phantoms(place / "data", n=30))
        extract(manifest, place / "features.zarr", OPTIONS)
        store = FeatureStore.open(place / "features.zarr")
        config = TrainConfig(head="slca", window=2, epochs=5)
        train_repeats(store, config, place / "run", seeds=2)
        runs = load_runs(place / "run")
        self.subject = Subject(
            [run.model for run in runs],
            open_encoder(OPTIONS),
            Fingerprint.from_dict(runs[0].fingerprint),
            operating_points(runs),
        )
        wrote = [run.predictions("test") for run in runs]
        paths = {row.id: row.path for row in manifest.rows}
        self.pictures = [read_image(paths[name]) for name in wrote[0].ids]
        self.labels = {"diagnosis": wrote[0].labels[:, 0]}
        self.wrote = np.mean([one.probabilities["diagnosis"] for one in wrote], axis=0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def whole(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """The one export of everything, in both forms: some twenty seconds."""
    return export(
        trained.subject,
        lambda pictures: said(trained.subject, pictures),
        tmp_path_factory.mktemp("whole") / "model",
        form="both",
        images=trained.pictures,
        labels=trained.labels,
        card="# Card\n\nTrained on phantoms.",
    )


@pytest.fixture(scope="module")
def small() -> Subject:
    return subject(head="linear", levels="early", size=32)


def check(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `check.py` where neither torch nor samcls nor Pillow can be imported."""
    command = [sys.executable, "-c", ALONE, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def head_of(given: Subject, place: Path, **options: object) -> Export:
    """Export the head alone, through torch.export: a second."""
    chosen = {"form": "torch-export", "head_only": True, **options}
    return export(given, lambda pictures: said(given, pictures), place, **chosen)  # type: ignore[arg-type]


def test_an_exported_model_says_what_the_run_wrote(trained: Trained, whole: Export) -> None:
    """Of the run's own images, as files: `predictions.csv`, the mean over seeds, to 1e-4."""
    import onnxruntime

    session = onnxruntime.InferenceSession(whole.folder / "model.onnx")
    found = [session.run(["diagnosis"], {"images": one[None]})[0] for one in trained.pictures]
    np.testing.assert_allclose(np.concatenate(found), trained.wrote, atol=1e-4)
    assert whole.checked == whole.equal == len(trained.pictures)
    assert whole.worst < 1e-4
    assert [one.name for one in session.get_inputs()] == ["images"]
    assert session.get_inputs()[0].shape == ["batch", "height", "width", 3]
    assert [one.name for one in session.get_outputs()] == ["diagnosis", "diagnosis:scaled"]


def test_the_folder_holds_what_the_readme_says(whole: Export) -> None:
    """Eight files, and a README that ends in the card."""
    assert whole.files == (
        "README.md", "check.py", "classes.json", "model.json", "model.onnx", "model.pt2", "model.safetensors",
        "test_images.npz",
    )  # fmt: skip
    assert sorted(file.name for file in whole.folder.iterdir()) == list(whole.files)
    text = (whole.folder / "README.md").read_text()
    assert "a row for each picture: benign, malignant" in text
    assert text.endswith("# Card\n\nTrained on phantoms.\n")
    about = json.loads((whole.folder / "classes.json").read_text())
    assert about["tasks"] == {"diagnosis": ["benign", "malignant"]}
    assert about["outputs"] == ["diagnosis", "diagnosis:scaled"]


def test_the_readmes_lines_run(trained: Trained, whole: Export) -> None:
    """As they stand, in the folder."""
    code = (whole.folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    picture = whole.folder / "picture.npy"
    np.save(picture, trained.pictures[0])
    try:
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=whole.folder, capture_output=True, text=True, check=True)
    finally:
        picture.unlink()
    shown = np.array(done.stdout.strip(" []\n").split(), dtype=float)
    np.testing.assert_allclose(shown, trained.wrote[0], atol=1e-4)


def test_a_stranger_can_check_it(trained: Trained, whole: Export, tmp_path: Path) -> None:
    """With numpy and onnxruntime alone; of a picture of his own he learns its probabilities."""
    done = check(whole.folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("ok, by") == 3
    np.save(tmp_path / "one.npy", trained.pictures[0])
    told = check(whole.folder, str(tmp_path / "one.npy"))
    assert told.stdout.startswith(f"diagnosis: benign {trained.wrote[0, 0]:.3f}"[:-1])
    np.save(tmp_path / "bad.npy", np.zeros((4, 4)))
    refused = check(whole.folder, str(tmp_path / "bad.npy"))
    assert refused.returncode == 2
    assert "expected uint8, (row, col, 3), RGB" in refused.stdout


def test_a_model_that_changed_is_found_out(whole: Export) -> None:
    """Exit status 1, and which picture."""
    file = whole.folder / "test_images.npz"
    kept, arrays = file.read_bytes(), dict(np.load(file))
    arrays["expected_1_0"] = arrays["expected_1_0"] + np.float32(2e-4)
    try:
        np.savez(file, **arrays)
        done = check(whole.folder)
    finally:
        file.write_bytes(kept)
    assert done.returncode == 1
    assert "picture 1, diagnosis: DIFFERS, by 2.0e-04" in done.stdout


def test_the_module_is_rebuilt_without_pickle(trained: Trained, whole: Export) -> None:
    """From weights and a description, to the same bits as the module that was traced."""
    graph = load_exported(whole.folder)
    with torch.no_grad():
        found = [graph(torch.from_numpy(one)[None])[0].numpy() for one in trained.pictures[:3]]
    np.testing.assert_allclose(np.concatenate(found), trained.wrote[:3], atol=2e-5)


def test_torchs_own_form_says_the_same(trained: Trained, whole: Export) -> None:
    """`model.pt2`, read back, of pictures of other sizes than those it was traced with."""
    module = torch.export.load(whole.folder / "model.pt2").module()
    with torch.no_grad():
        found = [module(torch.from_numpy(one)[None])[0].numpy() for one in trained.pictures]
    np.testing.assert_allclose(np.concatenate(found), trained.wrote, atol=1e-4)


@pytest.mark.slow
def test_without_onnx_a_stranger_needs_torch(small: Subject, tmp_path: Path) -> None:
    """`check.py` then runs `model.pt2`."""
    given = head_of(small, tmp_path / "model")
    assert "model.pt2" in given.files
    assert "model.onnx" not in given.files
    command = [sys.executable, "check.py"]
    done = subprocess.run(command, cwd=given.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Needs numpy and torch alone" in (given.folder / "check.py").read_text()


def test_the_head_alone_takes_cached_features(small: Subject, tmp_path: Path) -> None:
    """In both forms; a stranger checks it too, and samcls rebuilds it."""
    given = head_of(small, tmp_path / "model", form="both")
    assert {"model.onnx", "model.pt2"} < set(given.files)
    assert check(given.folder).returncode == 0
    picture = phantoms(1)[0]
    inputs = cached(picture, small.encoder, small.fingerprint, ["early"], 0)
    with torch.no_grad():
        found = load_exported(given.folder)(*map(torch.from_numpy, inputs))[0]
    right = said(small, [picture])["grade"]
    np.testing.assert_allclose(found.numpy(), right, atol=1e-6)


def test_what_differs_from_the_run_is_not_kept(small: Subject, tmp_path: Path) -> None:
    """The error has the numbers; nothing is there, and nothing beside it."""

    def wrong(pictures: list[np.ndarray]) -> dict[str, np.ndarray]:
        found = said(small, pictures)
        return found | {"side": found["side"][:, ::-1] if len(pictures) > 3 else found["side"]}

    with pytest.raises(
        ExportError, match=r"is not the run: of 6 pictures, a probability differs by"
    ):
        export(small, wrong, tmp_path / "model", form="torch-export", head_only=True)
    assert list(tmp_path.iterdir()) == []


def test_another_class_is_an_error_however_near(small: Subject, tmp_path: Path) -> None:
    """A threshold between what the run says and what the model says is no rounding."""
    pictures = phantoms(2)
    right = said(small, pictures)
    moved = right | {"side": right["side"] + np.float32([[-5e-5, 5e-5]])}
    point = replace(small.points["side"], threshold=float(right["side"][0, 1]) + 2e-5)
    edged = replace(small, points=small.points | {"side": point})
    calls = iter([said(small, phantoms(3)), moved])
    with pytest.raises(ExportError, match="1 of 2 pictures get another side"):
        export(
            edged, lambda _: next(calls), tmp_path / "model",
            form="torch-export", head_only=True, images=pictures,
        )  # fmt: skip


def test_an_auc_that_changed_is_an_error(small: Subject, tmp_path: Path) -> None:
    """Two pictures that change places, though hardly a probability does."""
    pictures = phantoms(2)
    right = said(small, pictures)
    even = np.full((2, 2), 0.5, dtype=np.float32)
    calls = iter([said(small, phantoms(3)), right | {"side": even}])
    labels = {"side": np.array([0, 1])}
    with pytest.raises(ExportError, match=r"the AUC of side is [01]\.0000 instead of 0\.5000"):
        export(
            small, lambda _: next(calls), tmp_path / "model",
            form="torch-export", head_only=True, images=pictures, labels=labels,
        )  # fmt: skip


def test_nothing_is_overwritten(small: Subject, tmp_path: Path) -> None:
    """A folder that holds something, or a file, is refused at once; an empty folder is taken."""
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OverwriteRefused, match=r"holds notes\.txt; name a new or empty folder"):
        head_of(small, tmp_path)
    with pytest.raises(OverwriteRefused, match="is a file"):
        head_of(small, tmp_path / "notes.txt")
    (tmp_path / "empty").mkdir()
    assert head_of(small, tmp_path / "empty").folder == tmp_path / "empty"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["empty", "notes.txt"]


@pytest.mark.parametrize("size", [2_000, 40_000])
def test_a_full_disk_leaves_nothing(small: Subject, tmp_path: Path, size: int) -> None:
    """Whichever file does not fit."""
    with files_of_at_most(size), pytest.raises(RunError, match="Nothing was left there"):
        head_of(small, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_asked_is_refused(small: Subject, tmp_path: Path) -> None:
    """An unknown form, and no images to check with."""
    with pytest.raises(ConfigError, match="form is 'pickle'; expected onnx, torch-export, both"):
        head_of(small, tmp_path / "model", form="pickle")
    with pytest.raises(ConfigError, match="no images to check with"):
        head_of(small, tmp_path / "model", images=[])


def test_a_damaged_description_is_named(small: Subject, tmp_path: Path) -> None:
    """Nothing is rebuilt of half a folder."""
    given = head_of(small, tmp_path / "model")
    (given.folder / "model.json").write_text('{"format_version": 9}')
    with pytest.raises(InputError, match="has format 9; this samcls reads format 1"):
        load_exported(given.folder)
    (given.folder / "model.json").unlink()
    with pytest.raises(InputError, match="cannot read the exported model"):
        load_exported(given.folder)
