"""`samcls explain` from outside: its files, its scores, its refusals, and its page in a real browser."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.cli import samcls as command
from support.deployed import Deployed, deployed, picture

import samcls
from samcls.data.images import read_image
from samcls.deploy.predictor import load_predictor
from samcls.errors import InputError, OverwriteRefused
from samcls.explain.explain import explain
from samcls.explain.scores import HIGHER, LOWER, agreement, ranks, score_of
from samcls.explain.subject import of_store
from samcls.store.feature_store import FeatureStore

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
SAID = """
<script>
const broken = [...document.images].filter(i => !i.naturalWidth).length;
const wide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
document.body.innerHTML = "<pre>" + [document.images.length, broken, wide,
  performance.getEntriesByType("resource").filter(e => !e.name.startsWith("data:")).length].join() + "</pre>";
</script></body>
"""

MakeStore = Callable[..., FeatureStore]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    """Pictures of two classes, their features, and a run."""
    data = deployed(tmp_path_factory.mktemp("made"))
    data.run("linear", head="linear")
    return data


def test_files_hold_the_numbers_and_the_overlays(made: Deployed, tmp_path: Path) -> None:
    """Maps and bias sum to the logits; overlays are as large as the pictures; images are named."""
    pytest.importorskip("scipy")
    out = tmp_path / "out"
    found = explain(
        made.root / "linear", out, store=made.store, manifest=made.root / "manifest.csv", shown=3
    )
    with np.load(out / "evidence.npz") as kept:
        sums = sum(kept[k].sum((2, 3)) for k in kept.files if k.startswith("map:"))
        np.testing.assert_allclose(sums + kept["bias"], kept["logits"], atol=1e-5)
        assert kept["ids"].tolist() == list(found.evidence.ids)
    told = json.loads((out / "manifest.json").read_text())
    assert told["method"] == "exact"
    assert told["error"] < 1e-5
    assert len(told["overlays"]) == 3
    for name, file in told["overlays"].items():
        number = found.evidence.ids.index(name)
        assert read_image(str(out / file)).shape[:2] == found.subject.picture(number).shape[:2]
    assert found.neighbours is not None
    assert list(found.neighbours.ids) == list(found.shown)
    assert {len(near) for near in found.neighbours.ids.values()} == {5}
    with pytest.raises(OverwriteRefused, match="not empty"):
        explain(made.root / "linear", out, store=made.store)


def test_pictures_that_are_gone_cost_their_overlays(tmp_path: Path) -> None:
    """Evidence stays, and the reason names the path; without pictures there are numbers alone."""
    data = deployed(tmp_path)
    run = data.run("linear", head="linear")
    (data.root / "06.png").unlink()
    found = explain(
        run,
        store=data.store,
        manifest=data.root / "manifest.csv",
        scores=False,
        ids=["image-06", "image-07"],
    )
    assert len(found.evidence.ids) == 2
    assert list(found.pictures) == [1]
    assert any("06.png" in note for note in found.notes)
    assert "all levels, without the picture" in found.html()
    assert any("scores" in note for note in explain(run, store=data.store, ids=["image-07"]).notes)


def test_the_store_of_the_run_is_found_or_asked_for(made: Deployed, tmp_path: Path) -> None:
    """By the command that trained it; otherwise the error names --store."""
    with pytest.raises(InputError, match="--store"):
        explain(made.root / "linear")
    run = tmp_path / "run"
    shutil.copytree(made.root / "linear", run)
    environment = json.loads((run / "environment.json").read_text())
    environment["command"] = ["samcls", "train", str(made.store), str(run)]
    (run / "environment.json").write_text(json.dumps(environment))
    assert len(explain(run, scores=False).evidence.ids) > 5


def test_new_pictures_and_arrays(made: Deployed, tmp_path: Path) -> None:
    """Files are encoded now; a run explains an array, and gives a figure as large as it."""
    rng = np.random.default_rng(0)
    image = picture(rng, 120, 31, 57)
    Image.fromarray(image).save(tmp_path / "new.png")
    found = explain(made.root / "linear", images=[tmp_path / "new.png"])
    assert found.neighbours is None
    run = samcls.load_run(made.root / "linear")
    own = run.explain(image)
    np.testing.assert_allclose(own.contrast.logit, found.contrast.logit, atol=1e-6)
    assert own.figure(0).shape == image.shape
    with pytest.raises(InputError, match="encoded now"):
        explain(made.root / "linear", images=tmp_path / "new.png", ids="a")
    assert isinstance(samcls.explain(run, images=tmp_path / "new.png").text(), str)
    assert callable(samcls.explain)


def test_other_pictures_get_no_overlay(tmp_path: Path) -> None:
    """A file that was exchanged since is named, and nothing is drawn on it."""
    data = deployed(tmp_path)
    run = data.run("linear", head="linear")
    Image.fromarray(np.zeros((10, 200, 3), np.uint8)).save(data.root / "06.png")
    found = explain(
        run, store=data.store, manifest=data.root / "manifest.csv", scores=False, ids="image-06"
    )
    assert not found.pictures
    assert any("is not the picture that was encoded" in note for note in found.notes)


def test_what_does_not_go_together_is_refused_at_once(made: Deployed, tmp_path: Path) -> None:
    """Options that would be ignored, a folder that cannot be, one image's verdict."""
    run = made.root / "linear"
    (tmp_path / "file").write_text("")
    for options, message in (
        ({"what": "gate", "task": "grade"}, "gates are of no task"),
        ({"scores": False, "through": 4}, "leave out --no-scores"),
        ({"masks": tmp_path / "none"}, "no folder of masks"),
        ({"out": tmp_path / "file" / "sub"}, "cannot be made a folder"),
        ({"split": "foo"}, "expected one of"),
    ):
        with pytest.raises(InputError, match=message):
            explain(run, store=made.store, **options)  # type: ignore[arg-type]
    one = score_of(HIGHER, {"evidence": np.ones(4), "random": np.zeros(4)}, ("a",) * 4)
    assert not one.beats("random")
    assert one.to_dict()["gaps"]["random"] == [1.0, None, None]


def test_a_run_with_columns_shows_gates_and_refuses_bare_pictures(made: Deployed) -> None:
    """Columns have no place in the picture; without them pictures cannot be answered."""
    run = made.run("columns", head="slca", with_meta=["sex", "age"])
    found = explain(run, store=made.store, what="gate")
    assert "meta" not in found.evidence.places
    assert "meta" in explain(run, store=made.store, scores=False).contrast.maps
    with pytest.raises(InputError, match="meta:sex"):
        explain(run, images=made.root / "06.png")


def test_windows_that_matter_go_first(made: Deployed) -> None:
    """Evidence is better than a random map at telling what the run does, and a randomised head's is another."""
    found = explain(made.root / "linear", store=made.store, split="train")
    deletion, insertion = found.scores["deletion"], found.scores["insertion"]
    assert (deletion.better, insertion.better) == (LOWER, HIGHER)
    assert deletion.beats("random")
    assert insertion.beats("random")
    assert abs(found.scores["agreement with a randomised head"].values["evidence"]) < 0.9
    assert "lower" in found.text()


def test_a_run_that_learned_nothing_has_evidence_for_nothing(
    make_store: MakeStore, tmp_path: Path
) -> None:
    """On shuffled labels the labelled class gains no more by evidence than by a random map; on true ones it does."""
    beats = {}
    for name, strength in (("true", 3.0), ("shuffled", 0.0)):
        store = make_store(images=300, name=f"{name}.zarr", strength=strength)
        samcls.train(store, tmp_path / name, head="linear", epochs=20, intervals=0)
        found = explain(tmp_path / name, store=store)
        beats[name] = found.scores["insertion, labelled class"].beats("random")
        assert found.scores["insertion"].beats("random")
        assert ("labelled class: evidence is not better" in found.text()) == (name == "shuffled")
    assert beats == {"true": True, "shuffled": False}


def test_pictures_are_blanked_and_encoded_again(made: Deployed) -> None:
    """Scores through the encoder, each level's locality, and what they cost, told before."""
    told: list[str] = []
    found = explain(
        made.root / "linear", store=made.store, split="train", through=3, log=told.append
    )
    assert {"pixel deletion", "pixel insertion"} <= set(found.scores)
    assert any("encoding" in line for line in told)
    for one in found.locality.values():
        assert 0 < one["area"] < one["inside"] <= 1


def test_evidence_is_held_against_masks(made: Deployed, tmp_path: Path) -> None:
    """Where a mask covers all, all of the evidence is inside; where there is none, the error names the files."""
    store = FeatureStore.open(made.store)
    subject = of_store(load_predictor(made.root / "linear"), store, split="train")
    for number, name in enumerate(subject.ids):
        height, width = subject.picture(number).shape[:2]
        Image.fromarray(np.full((height, width), 255, np.uint8)).save(
            tmp_path / f"{name}_segmentation.png"
        )
    found = explain(made.root / "linear", store=made.store, split="train", masks=tmp_path)
    assert found.scores["mass in the mask"].values["evidence"] == pytest.approx(1)
    assert found.scores["pointing game"].values["evidence"] == 1
    with pytest.raises(InputError, match="has no mask"):
        explain(made.root / "linear", store=made.store, split="train", masks=made.root)


def test_scores_count_groups_whole() -> None:
    """A group is drawn whole or not at all; ranks are by size, padding last."""
    values = {"evidence": np.array([1.0, 2.0, 3.0]), "random": np.zeros(3)}
    one = score_of(HIGHER, values, ("a", "a", ""))
    assert one.values["evidence"] == 2
    assert one.intervals["evidence"] == (1.5, 3.0)
    assert one.beats("random")
    assert not score_of(LOWER, values, ("", "", "")).beats("random")
    order = np.array([[[0.5, 9.0], [0.1, 0.7]]])
    there = np.array([[[True, False], [True, True]]])
    assert ranks(order, there).tolist() == [[[1, 3], [2, 0]]]
    assert agreement(order, order, there).tolist() == pytest.approx([1.0])


@pytest.mark.skipif(BROWSER is None, reason="needs chromium: apt install chromium")
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_in_a_browser(made: Deployed, tmp_path: Path, width: int) -> None:
    """Every picture loads from the page itself, nothing is asked for, and it is no wider than the window."""
    found = explain(made.root / "linear", store=made.store, split="train", shown=2)
    page = tmp_path / "explain.html"
    page.write_text(found.html().replace("</body>", SAID))
    command: list[Any] = [
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'p'}",
        f"--window-size={width},900",
        "--dump-dom",
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    said = re.search(r"<pre>(.*?)</pre>", done.stdout)
    assert said is not None
    images, broken, wide, asked = said[1].split(",")
    assert int(images) > 6
    assert (broken, wide, asked) == ("0", "false", "0")


def test_the_command_prints_one_object(made: Deployed) -> None:
    """With --json; gates need a head that has them."""
    done = command("explain", made.root / "linear", "--store", made.store, "--no-scores", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["unit"] == "logit"
    refused = command("explain", made.root / "linear", "--store", made.store, "--what", "gate")
    assert refused.returncode == 2
    assert "no gates" in refused.stderr
