"""The command line, in this process but for what only one of its own can show."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.cli import samcls

EXTRACT = (
    "--encoder",
    "vit_t",
    "--size",
    "64",
    "--window",
    "2",
    "--levels",
    "early,neck",
    "--batch",
    "8",
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two classes that differ in brightness, 24 small images each."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for label, level in (("benign", 90), ("malignant", 150)):
        (root / label).mkdir()
        for i in range(24):
            pixels = np.clip(rng.normal(level, 40, (40, 30 + i, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / label / f"{i:02}.png")
    (root / "benign" / "notes.txt").write_text("not an image")
    return root


@pytest.fixture(scope="module")
def store(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("extracted")
    manifest, path = folder / "manifest.csv", folder / "features.zarr"
    assert samcls("manifest", "folder", pictures, manifest).returncode == 0
    assert samcls("extract", manifest, path, *EXTRACT).returncode == 0
    return path


def test_help_shows_the_main_road_first() -> None:
    """Whoever types `samcls` alone reads in order what a study takes."""
    shown = samcls("--help").stdout.split("Commands:")[1].split("\n")
    verbs = [line.split()[0] for line in shown if line.startswith("  ") and line[2:3].isalpha()]
    assert verbs[:5] == ["manifest", "extract", "train", "report", "predict"]


def test_help_is_light() -> None:
    """`samcls --help` answers without torch, zarr or scikit-learn, so it is quick."""
    code = "import sys, samcls.cli; print(sorted({'torch', 'zarr', 'sklearn'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_version_and_verbs_are_listed() -> None:
    """The first screen names every verb."""
    command = [sys.executable, "-m", "samcls", "--version"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert shown.startswith("samcls ")
    assert shown == samcls("--version").stdout
    listed = samcls("--help").stdout
    for name in ("manifest", "extract", "train", "demo", "store", "weights"):
        assert f"\n  {name}" in listed


def test_json_is_one_object_with_the_promised_keys(store: Path, tmp_path: Path) -> None:
    """Each verb's `--json` prints one JSON object, and nothing else, on stdout."""
    manifest = store.parent / "manifest.csv"
    extract = json.loads(samcls("extract", manifest, store, *EXTRACT, "--json").stdout)
    promised = {"store", "images", "done", "failed", "skipped", "seconds", "images_per_second"}
    assert promised | {"bytes"} <= set(extract)
    assert (extract["images"], extract["done"], extract["skipped"]) == (48, 48, 48)
    train = json.loads(samcls("train", store, tmp_path / "run", "--epochs", "3", "--json").stdout)
    assert {"run", "head", "epochs", "seconds", "parameters", "validation", "test"} <= set(train)
    assert {"auc", "accuracy"} <= set(train["test"]) & set(train["validation"])
    assert set(train["baselines"]) >= {"majority", "logistic"}
    info = json.loads(samcls("store", "info", store, "--json").stdout)
    assert info["fingerprint"]["encoder"] == "vit_t"
    assert info["levels"] == {"early": [192, 2, 2, 16], "neck": [256, 2, 2, 16]}


def test_several_seeds_are_shown_as_mean_and_spread(store: Path, tmp_path: Path) -> None:
    """`--seeds` ends with a table of means, keeps each run, and exits with 0."""
    done = samcls("train", store, tmp_path / "runs", "--seeds", "2", "--epochs", "2")
    assert done.returncode == 0, done.stderr
    assert "each of these 2 runs scored the test split once; figures are their means" in done.stdout
    assert len(list((tmp_path / "runs").glob("*/COMPLETE"))) == 2


def test_a_folder_source_names_what_it_leaves_out(pictures: Path, tmp_path: Path) -> None:
    """Files that are no images are counted and named by suffix."""
    shown = samcls("manifest", "folder", pictures, tmp_path / "m.csv").stdout
    assert "left out: 1 files ending in .txt" in shown
    assert "label: scores are those of 'malignant', the last class" in shown


def test_failed_images_end_with_status_three(pictures: Path, tmp_path: Path) -> None:
    """A bad image is listed with its reason, the others are done, and the status says so."""
    lines = ["id,path,split,label"]
    lines += [f"good{i},{pictures}/benign/{i:02}.png,train,a" for i in range(6)]
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    lines.append("broken,broken.png,train,b")
    (tmp_path / "m.csv").write_text("\n".join(lines))
    done = samcls("extract", tmp_path / "m.csv", tmp_path / "s.zarr", *EXTRACT)
    assert done.returncode == 3
    assert "failed: broken: " in done.stderr
    assert "6 of 7 images done" in done.stdout
    again = samcls("extract", tmp_path / "m.csv", tmp_path / "s.zarr", *EXTRACT, "--json")
    assert again.returncode == 3
    assert json.loads(again.stdout)["failures"][0]["id"] == "broken"


BAD_MANIFESTS = {
    "duplicate": ("id,path,split,label\na,x.png,train,0\na,x.png,train,1\n", "duplicate"),
    "column": ("id,path,label\na,x.png,0\n", "split"),
    "split": ("id,path,split,label\na,x.png,training,0\n", "training"),
    "rows": ("id,path,split,label\n", "no rows"),
    "label": ("id,path,split,label\na,x.png,train,0\nb,x.png,test,7\n", "unknown label '7'"),
    "files": ("id,path,split,label\na,x.png,train,0\n", "--root"),
}


@pytest.mark.parametrize("case", BAD_MANIFESTS)
def test_a_bad_manifest_is_refused_before_any_weight(case: str, tmp_path: Path) -> None:
    """Each defect has its words and status 2, no traceback, and makes no store."""
    text, words = BAD_MANIFESTS[case]
    (tmp_path / "m.csv").write_text(text)
    # a checkpoint that does not exist would be the error if weights were looked at first
    absent = ("--encoder", "vit_h", "--checkpoint", tmp_path / "absent.pth")
    done = samcls("extract", tmp_path / "m.csv", tmp_path / "s.zarr", *absent)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "s.zarr").exists()


def test_errors_name_the_remedy_and_debug_shows_the_traceback(store: Path, tmp_path: Path) -> None:
    """A missing manifest, another window, an unknown setting and an existing run say what to do."""
    missing = samcls("extract", tmp_path / "no.csv", tmp_path / "s.zarr")
    assert (missing.returncode, "does not exist" in missing.stderr) == (2, True)
    assert "Traceback" in samcls("extract", tmp_path / "no.csv", "s.zarr", "--debug").stderr
    other = samcls("extract", store.parent / "manifest.csv", store, *EXTRACT, "--window", "4")
    assert other.returncode == 2
    assert "window  in the store: 2   asked for: 4" in other.stderr
    (tmp_path / "t.toml").write_text("learningrate = 1\nepochs = 'many'\n")
    config = samcls("train", store, tmp_path / "run", "--config", tmp_path / "t.toml")
    assert config.returncode == 2
    assert "learning_rate" in config.stderr
    assert "epochs" in config.stderr
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("precious")
    exists = samcls("train", store, tmp_path / "full")
    assert exists.returncode == 2
    assert "thesis.tex" in exists.stderr


def test_failures_with_json_are_json_too(tmp_path: Path) -> None:
    """A script that reads stdout gets an object on failure as well."""
    done = samcls("store", "info", tmp_path / "none.zarr", "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["exit_status"] == 2


def test_offline_fetch_says_where_to_put_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a network the error holds the path, the size and the hash to check by hand."""
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTPS_PROXY", "")
    done = samcls("weights", "fetch", "vit_b", "--dir", tmp_path)
    assert done.returncode == 1
    assert str(tmp_path / "sam_vit_b_01ec64.pth") in done.stderr
    assert "375,042,383" in done.stderr
    assert list(tmp_path.glob("*.pth")) == []


def test_the_demo_runs_and_goes_on(tmp_path: Path) -> None:
    """The demo leaves every artefact, prints the commands, and a second call does nothing twice."""
    first = samcls("demo", tmp_path / "demo", "--images", "24", "--json")
    assert first.returncode == 0, first.stderr
    values = json.loads(first.stdout)
    assert {name: one["done"] for name, one in values["extract"].items()} == {
        "lite0": 24,
        "vit_t": 24,
    }
    assert values["commands"][0].startswith("samcls extract ")
    for name in ("manifest.csv", "images", "features.zarr/zarr.json", "run/metrics.json"):
        assert (tmp_path / "demo" / name).exists()
    again = samcls("demo", tmp_path / "demo")
    assert again.returncode == 0
    assert "UNTRAINED" in again.stdout
    assert "lite0: ensemble:slca head" in again.stdout
    assert again.stdout.count("majority class") == 1
