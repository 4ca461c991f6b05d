"""On a store an audit also sees features: near-duplicates without pictures, doubtful labels, and what leaks did."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.cli import samcls as command
from support.deployed import TINY, Deployed, deployed, picture

import samcls
from samcls.audit.checks.labels import suspicion
from samcls.audit.maps import compressed, mean_features
from samcls.errors import FingerprintMismatch, InputError
from samcls.store.feature_store import FeatureStore


@pytest.fixture(scope="module")
def leaky(tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    """A data set whose training images hold twins of its test images."""
    made = deployed(tmp_path_factory.mktemp("leaky"))
    with (made.root / "manifest.csv").open() as file:
        header, *rows = list(csv.reader(file))
    for row in [row for row in rows if row[2] == "test"][:3]:
        twin = Image.open(made.root / row[1]).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        twin.save(made.root / f"twin-{row[1]}")
        rows.append([f"twin-{row[0]}", f"twin-{row[1]}", "train", f"other {row[3]}", *row[4:]])
    with (made.root / "leaky.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    samcls.extract(made.root / "leaky.csv", made.root / "leaky.zarr", keep_pixels=48, **TINY)
    return Deployed(made.root, made.root / "leaky.zarr")


def test_pictures_that_a_store_keeps_confirm_twins(leaky: Deployed) -> None:
    """As the manifest's do; the row that failed is named, and the others are audited."""
    by_store = samcls.audit(leaky.store)
    by_files = samcls.audit(leaky.store, manifest=leaky.root / "leaky.csv")
    for found in (by_store, by_files):
        twins = {one.ids for one in found.of("near") if one.across}
        assert len(twins) == 3
        assert all(two == f"twin-{one}" for one, two in twins)
        assert [one.ids for one in found.of("unreadable")] == [("image-00",)]
        assert found.images == 66


def test_features_alone_find_twins_and_say_that_they_are_less_sure(tmp_path: Path) -> None:
    """A picture brightened a little is its own nearest other by features too."""
    rng = np.random.default_rng(3)
    rows = ["id,path,split,grade"]
    for i in range(40):
        image = picture(rng, 90 + 60 * rng.random(), 64, 64)
        if i == 39:
            image = np.clip(np.asarray(Image.open(tmp_path / "0.png")) + 2.0, 0, 255).astype(
                np.uint8
            )
        Image.fromarray(image).save(tmp_path / f"{i}.png")
        rows.append(f"i{i},{i}.png,{'train' if i < 30 else 'test'},{'ab'[i % 2]}")
    (tmp_path / "m.csv").write_text("\n".join(rows) + "\n")
    samcls.extract(tmp_path / "m.csv", tmp_path / "s.zarr", **TINY)
    found = samcls.audit(samcls.open_store(tmp_path / "s.zarr"))
    assert ("i0", "i39") in {one.ids for one in found.of("near")}
    assert any("told by features alone" in note for note in found.notes)
    assert any("UNTRAINED" in note for note in found.notes)
    with pytest.raises(InputError, match="a store keeps no paths"):
        samcls.audit(tmp_path / "s.zarr", write=tmp_path / "clean.csv")


def test_features_of_blocks_are_those_of_all(
    leaky: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many images are read at once never shows."""
    store = FeatureStore.open(leaky.store)
    rows = np.flatnonzero(store.status == 1)
    whole = mean_features(store, rows)
    monkeypatch.setattr("samcls.audit.maps.BLOCK", 7)
    np.testing.assert_allclose(mean_features(store, rows), whole, rtol=1e-5)


def test_wrong_labels_are_ranked_first() -> None:
    """Of two classes that lie apart, one label in ten turned: nearly all of these lead the list."""
    rng = np.random.default_rng(0)
    truth = np.arange(300) % 2
    features = compressed(rng.normal(size=(300, 40)) + 2.0 * truth[:, None] * (np.arange(40) < 8))
    given = truth.copy()
    turned = rng.choice(300, 30, replace=False)
    given[turned] = 1 - given[turned]
    first = np.argsort(-suspicion(features, given, [""] * 300))[:30]
    assert len(set(first) & set(turned)) >= 27


def test_what_the_leak_did_stands_beside_the_figures(leaky: Deployed) -> None:
    """Without the affected test images, and trained again without their twins: each with its interval."""
    path = leaky.run("run", head="logistic")
    effect = samcls.audit(leaky.store, run=path).effect
    assert effect["affected"] == 3
    assert effect["learned_twins"] == 3
    own = samcls.load_run(path).metrics["test"]
    first = effect["tasks"]["grade"]["auc"]
    assert first["all"] == pytest.approx(own["auc"])
    assert first["difference"] == pytest.approx(first["without"] - first["all"])
    assert first["interval"][0] <= first["difference"] <= first["interval"][1]
    again = effect["retrained"]
    assert again["removed"] == 3
    assert again["tasks"]["grade"]["auc"]["before"] == pytest.approx(own["auc"])
    assert list(leaky.root.glob("samcls-audit-*")) == []


def test_the_control_leaves_as_many_others_out(
    leaky: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training images that are no test image's twin, as many as there are twins, and none twice."""
    asked: list[set[str]] = []

    def retrained(runs: object, store: object, removed: list[str]) -> dict[str, object]:
        del runs, store
        assert len(set(removed)) == len(removed)
        asked.append(set(removed))
        return {"asked": len(asked)}

    monkeypatch.setattr("samcls.audit.effect._retrained", retrained)
    path = leaky.run("run", head="logistic")
    again = samcls.audit(leaky.store, run=path).effect["retrained"]
    twins, others = asked
    assert again == {"removed": 3, "tasks": {"asked": 1}, "control": {"asked": 2}}
    assert all(name.startswith("twin-") for name in twins)
    assert len(others) == 3
    assert not others & twins
    known = samcls.open_store(leaky.store)
    assert {known.splits[known.ids.index(name)] for name in others} == {"train"}


def test_without_twins_in_training_the_run_is_that_of_a_manifest_without_them(
    leaky: Deployed, tmp_path: Path
) -> None:
    """Training images that are left out take no part at all."""
    from samcls.learn.runs.train import train
    from samcls.learn.settings import TrainConfig

    store = FeatureStore.open(leaky.store)
    gone = [name for name in store.ids if name.startswith("twin-")]
    config = TrainConfig(head="logistic", intervals=0)
    left = train(store, config, leave_out=gone)
    original = deployed(tmp_path)
    plain = train(FeatureStore.open(original.store), config)
    assert left.test["auc"] == pytest.approx(plain.test["auc"], abs=1e-6)


def test_a_run_of_another_store_is_refused(leaky: Deployed, tmp_path: Path) -> None:
    """By what differs; and on a manifest there are no features to train on."""
    path = leaky.run("run", head="logistic")
    samcls.extract(leaky.root / "manifest.csv", tmp_path / "other.zarr", **{**TINY, "window": 1})
    with pytest.raises(FingerprintMismatch, match="window"):
        samcls.audit(tmp_path / "other.zarr", run=path)
    with pytest.raises(InputError, match="name the store"):
        samcls.audit(leaky.root / "leaky.csv", run=path)
    with pytest.raises(InputError, match="are not in"):
        samcls.audit(leaky.store, manifest=_without_last(leaky.root / "leaky.csv", tmp_path))


def _without_last(manifest: Path, folder: Path) -> Path:
    rows = list(csv.reader(manifest.read_text().splitlines()))[:-1]
    place = rows[0].index("path")
    for row in rows[1:]:
        row[place] = str(manifest.parent / row[place])
    with (folder / "short.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder / "short.csv"


def test_pictures_that_are_gone_are_counted(leaky: Deployed, tmp_path: Path) -> None:
    """The rest is audited as before, and what could not be compared is named."""
    rows = list(csv.reader((leaky.root / "leaky.csv").read_text().splitlines()))
    place, name = rows[0].index("path"), rows[0].index("id")
    for row in rows[1:]:
        gone = row[name] == "twin-image-06"
        row[place] = str(tmp_path / "gone.png" if gone else leaky.root / row[place])
    with (tmp_path / "gone.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    found = samcls.audit(leaky.store, manifest=tmp_path / "gone.csv")
    assert found.images == 66
    assert len([one for one in found.of("near") if one.across]) == 2
    (note,) = [note for note in found.notes if "cannot be read now" in note]
    assert note.startswith("1 of 66 pictures cannot be read now (twin-image-06)")
    assert "near twins of it are not found" in note


def test_stored_views_say_what_twins_look_like_by_features(tmp_path: Path) -> None:
    """Without them, strangers alone decide; with them, the share of views that is found stands in the notes."""
    rng = np.random.default_rng(3)
    rows = ["id,path,split,grade"]
    for i in range(24):
        Image.fromarray(picture(rng, 90 + 4 * i, 40, 40)).save(tmp_path / f"{i}.png")
        rows.append(f"i{i},{i}.png,{'train' if i < 18 else 'test'},{'ab'[i % 2]}")
    (tmp_path / "m.csv").write_text("\n".join(rows) + "\n")
    said = {}
    for views in ("none", "flip"):
        store = tmp_path / f"{views}.zarr"
        samcls.extract(tmp_path / "m.csv", store, views=views, **TINY)
        (said[views],) = [
            note for note in samcls.audit(store).notes if note.startswith("twins are from")
        ]
    assert "own copies" not in said["none"]
    assert "of some images' own copies reach it, and strangers reach" in said["flip"]


def test_pictures_that_changed_since_are_refused(leaky: Deployed, tmp_path: Path) -> None:
    """What would confirm twins must be what the features are of."""
    rows = list(csv.reader((leaky.root / "leaky.csv").read_text().splitlines()))
    place = rows[0].index("path")
    for row in rows[1:]:
        row[place] = str(leaky.root / row[place])
    rows[2][place] = rows[3][place]
    with (tmp_path / "moved.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    with pytest.raises(InputError, match=r"1 pictures of .* are not those that"):
        samcls.audit(leaky.store, manifest=tmp_path / "moved.csv")


def test_a_store_half_extracted_is_audited_as_far_as_it_is(leaky: Deployed) -> None:
    """And the rest is said to be pending."""
    store = FeatureStore.open(leaky.store)
    half = store.status.copy()
    half[40:] = 0
    store._known["status"] = half
    found = samcls.audit(store)
    assert found.images == 39
    assert any("27 of 67 images are pending" in note for note in found.notes)
    store._known["status"] = np.zeros_like(half)
    with pytest.raises(InputError, match=r"no image of .* is encoded"):
        samcls.audit(store)


def test_a_store_or_a_run_says_what_an_encoder_was_trained_on(leaky: Deployed) -> None:
    """A twin is none of them; each image of the same pixels is."""
    of_store = samcls.audit(leaky.store, pretraining=leaky.root / "features.zarr")
    of_run = samcls.audit(leaky.store, pretraining=leaky.run("run", head="logistic"))
    assert len(of_store.of("pretraining")) == 63
    assert len(of_run.of("pretraining")) == 66


def test_the_command_line_says_it_in_words_and_in_json(leaky: Deployed, tmp_path: Path) -> None:
    """Exit status 0 whatever is found, 1 with --strict where figures are wrong."""
    path = leaky.run("run", head="logistic")
    said = command("audit", leaky.store, "--run", path, "--out", tmp_path / "found", "--json")
    values = json.loads(said.stdout)
    assert not values["ok"]
    assert {"kind", "ids", "splits", "labels", "similarity", "advice"} <= set(values["problems"][0])
    assert values["counts"]["near"] >= 3
    told = command("audit", leaky.store, "--strict")
    assert told.returncode == 1
    assert "near: " in told.stdout
    assert "across splits (the same picture turned" in told.stdout
