"""`import samcls`: what a user of Python meets first."""

import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

import samcls
from samcls.errors import ConfigError, ManifestError, OverwriteRefused

TINY = {"encoder": "vit_t", "size": 64, "window": 2, "levels": ["early", "neck"], "batch": 8}
QUICK = {"head": "linear", "epochs": 2, "intervals": 10}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a manifest of 32 images of two classes, one of them broken, and their store."""
    root = tmp_path_factory.mktemp("work")
    rng, rows = np.random.default_rng(0), ["id,path,split,label:grade,meta:sex"]
    for i in range(32):
        name, level = ("benign", 90) if i % 2 else ("malignant", 150)
        pixels = np.clip(rng.normal(level, 40, (40, 30, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / f"{i:02}.png")
        split = ("train", "train", "val", "test")[i // 2 % 4]
        rows.append(f"{i:02},{i:02}.png,{split},{name},f")
    (root / "00.png").write_bytes(b"no picture")
    (root / "manifest.csv").write_text("\n".join(rows))
    samcls.extract(root / "manifest.csv", root / "features.zarr", **TINY)
    return root


def test_importing_the_package_imports_nothing_heavy() -> None:
    """`import samcls` loads no other package and no other file of its own, and lists its names."""
    code = (
        "import sys; before = set(sys.modules); import samcls; dir(samcls); "
        "new = {name.split('.')[0] for name in set(sys.modules) - before}; "
        "print(sorted(new - sys.stdlib_module_names), 'samcls.api' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "['samcls'] False"
    assert set(samcls.__all__) <= set(dir(samcls))


def test_every_name_is_there_with_its_documentation() -> None:
    """Each name of `__all__` loads, and says what it takes; an unknown one names those."""
    for name in samcls.__all__:
        assert getattr(samcls, name).__doc__
    with pytest.raises(
        AttributeError, match=r"no attribute 'fit'; it has SLCAClassifier, audit, explain, extract"
    ):
        samcls.fit  # noqa: B018 # the look-up is what is tested


def test_a_manifest_may_be_a_path_or_read_before(work: Path) -> None:
    """Extract takes both, goes on where it stopped, and its summary says so."""
    manifest = samcls.read_manifest(work / "manifest.csv")
    summary = samcls.extract(manifest, work / "features.zarr", **TINY)
    assert (summary.images, summary.done, summary.failed, summary.skipped) == (32, 31, 1, 31)
    assert "31 of 32 images done (31 before), 1 failed" in repr(summary)
    assert "failed: 00: " in repr(summary)
    assert repr(manifest).splitlines() == [
        f"Manifest {work / 'manifest.csv'}: 32 images",
        "  splits: train 16, val 8, test 8",
        "  label grade: benign 16, malignant 16",
        "  meta: sex",
    ]


def test_a_store_says_what_it_holds(work: Path) -> None:
    """Printing one names encoder, images, levels and labels."""
    store = samcls.open_store(work / "features.zarr")
    assert repr(store).splitlines() == [
        f"FeatureStore {work / 'features.zarr'}: encoder vit_t, input 64 px",
        "  images: 31 done, 1 failed",
        "  levels: early 192 x 2 x 2, neck 256 x 2 x 2; window 2, float16",
        "  label grade: benign, malignant",
    ]


def test_a_damaged_store_can_still_be_printed(work: Path, tmp_path: Path) -> None:
    """What cannot be read is said, not raised: a debugger may print a store at any time."""
    shutil.copytree(work / "features.zarr", tmp_path / "s.zarr")
    store = samcls.open_store(tmp_path / "s.zarr")
    shutil.rmtree(tmp_path / "s.zarr" / "status")
    assert "cannot be read: " in repr(store)


def test_a_run_is_trained_and_loaded_by_its_path(work: Path, tmp_path: Path) -> None:
    """`train` takes a path or a store, settings by name; `load_run` gives the same figures back."""
    result = samcls.train(work / "features.zarr", tmp_path / "run", levels="neck", **QUICK)
    run = samcls.load_run(tmp_path / "run")
    assert run.config.levels == ("neck",)
    assert run.metrics["test"]["auc"] == result.test["auc"]
    again = samcls.train(samcls.open_store(work / "features.zarr"), None, run.config)
    assert again.test == result.test
    for shown in (repr(run), repr(result)):
        assert "linear head" in shown
        assert f"test: AUC {result.test['auc']:.3f}" in shown
    with pytest.raises(OverwriteRefused):
        samcls.train(work / "features.zarr", tmp_path / "run")


def test_several_seeds_and_folds_are_runs_of_one_folder(work: Path, tmp_path: Path) -> None:
    """As on the command line; what is printed is short, and the folder is needed."""
    store = work / "features.zarr"
    result = samcls.train(store, tmp_path / "runs", seeds=2, **QUICK)
    assert [one["name"] for one in result["runs"]] == ["seed-0", "seed-1"]
    assert repr(result).startswith(f"2 runs in {tmp_path / 'runs'}: linear head")
    assert len(repr(result).splitlines()) < 14
    folded = samcls.train(store, tmp_path / "folds", folds=2, **QUICK)
    assert [one["name"] for one in folded["runs"]] == ["seed-0-fold-0", "seed-0-fold-1"]
    with pytest.raises(ConfigError, match="folds is 1; expected 0"):
        samcls.train(store, tmp_path / "one", folds=1, **QUICK)
    with pytest.raises(ConfigError, match=r"got seeds=2, folds=0, run=None; expected .* a folder"):
        samcls.train(store, seeds=2, **QUICK)


def test_a_config_file_gives_way_to_settings(work: Path, tmp_path: Path) -> None:
    """As on the command line, what is given by name wins over the file."""
    (tmp_path / "c.toml").write_text('head = "slca"\nepochs = 1\nintervals = 0\nseed = 3\n')
    result = samcls.train(work / "features.zarr", None, tmp_path / "c.toml", head="se")
    assert (result.head, result.epochs) == ("se", 1)


def test_a_sweep_takes_a_dict_or_a_file(work: Path, tmp_path: Path) -> None:
    """The same space in both forms asks for the same runs, and the package can be called as a function."""
    space = {
        "search": "grid",
        "fixed": {"epochs": 1, "intervals": 0},
        "space": {"head": ["linear", "se"], "learning_rate": [0.01]},
    }
    result = samcls.sweep(work / "features.zarr", tmp_path / "sweep", space)
    assert (result.finished, result.configurations) == (2, 2)
    assert "2 of 2 runs finished, 0 failed" in repr(result)
    (tmp_path / "space.toml").write_text(
        'search = "grid"\n[fixed]\nepochs = 1\nintervals = 0\n'
        '[space]\nhead = ["linear", "se"]\nlearning_rate = [0.01]\n'
    )
    assert isinstance(sys.modules["samcls"].sweep, ModuleType)  # the folder, once it is imported
    again = samcls.sweep(work / "features.zarr", tmp_path / "sweep", tmp_path / "space.toml")
    assert again.made == 0


def test_what_is_wrong_is_said_before_any_work(work: Path, tmp_path: Path) -> None:
    """An unknown option names the nearest; a bad manifest makes no store."""
    with pytest.raises(ConfigError, match="encodr: unknown option; did you mean encoder"):
        samcls.extract(work / "manifest.csv", tmp_path / "s.zarr", encodr="vit_t")
    with pytest.raises(ConfigError, match="did you mean learning_rate"):
        samcls.train(work / "features.zarr", tmp_path / "run", learnin_rate=1.0)
    with pytest.raises(ManifestError, match="does not exist"):
        samcls.extract(tmp_path / "none.csv", tmp_path / "s.zarr")
    with pytest.raises(ConfigError, match="a space holds texts"):
        samcls.sweep(work / "features.zarr", tmp_path / "sweep", {"name": None})
    assert list(tmp_path.iterdir()) == []
