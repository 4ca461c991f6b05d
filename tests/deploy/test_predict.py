"""A run says of its own images, given as files, what it said; of others it says all that it can."""

import csv
import hashlib
import json
import os
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.cli import samcls as command
from support.deployed import TINY, Deployed, picture
from support.dicoms import dicom

import samcls
from samcls.deploy.predict import predict
from samcls.deploy.predictor import Predictor, load_predictor
from samcls.deploy.table import Table
from samcls.errors import ImageError, InputError, OverwriteRefused
from samcls.learn.runs.folder import MARK
from samcls.learn.runs.operating import operating_points
from samcls.learn.runs.operating import validation_of as validation

HEADS = {
    "slca": {"head": "slca"},
    "logistic": {"head": "logistic"},
    "ensemble": {"head": "ensemble:slca"},
    "guided": {"head": "guided:test_resnet", "pretrained": False, "epochs": 1},
}


@cache
def opened(path: Path) -> Predictor:
    """A run as a predictor, whose encoder is opened once for all tests."""
    return load_predictor(path)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", HEADS)
def test_the_runs_own_images_give_its_own_predictions(
    made: Deployed, name: str, tmp_path: Path
) -> None:
    """Bit for bit at the batch of the extract; at another one, and of a network over pixels, within 1e-6."""
    run = made.run(name, **HEADS[name])
    own = {row["id"]: row for row in rows_of(run / "predictions.csv")}
    for batch, bits in ((8, True), (3, False)):
        out = tmp_path / f"{batch}.csv"
        found = predict(run, [made.root / "manifest.csv"], out, batch=batch)
        assert (found.images, found.failed) == (64, 1)
        said = [row for row in rows_of(out) if not row["error"]]
        assert [row["id"] for row in said] == list(own)
        for row in said:
            want = own[row["id"]]
            if bits and name != "guided":
                assert row["p_malignant"] == want["p_malignant"]
            assert abs(float(row["p_malignant"]) - float(want["p_malignant"])) <= 1e-6
            assert row["seen"] == want["split"]


def test_arrays_and_paths_are_predicted_as_scikit_learn_has_it(made: Deployed) -> None:
    run = samcls.load_run(made.run("slca", **HEADS["slca"]))
    paths = [made.root / f"{i:02}.png" for i in (6, 7, 14)]
    arrays = [np.asarray(Image.open(path)) for path in paths]
    p = run.predict_proba(paths)
    assert p.shape == (3, 2)
    assert np.allclose(p.sum(1), 1)
    assert np.array_equal(p, run.predict_proba(arrays))
    assert run.classes_.tolist() == ["benign", "malignant"]
    threshold = operating_points([run])["grade"].threshold
    assert threshold == run.metrics["validation"]["threshold"]
    want = np.where(p[:, 1] > threshold, "malignant", "benign")
    assert run.predict(paths).tolist() == want.tolist()


def test_a_grey_array_is_the_picture_with_three_equal_colours(made: Deployed) -> None:
    run = opened(made.run("slca", **HEADS["slca"]))
    grey = np.random.default_rng(0).integers(0, 256, (5, 20, 30), dtype=np.uint8)
    assert np.array_equal(run.predict_proba(grey), run.predict_proba(np.stack([grey] * 3, -1)))


def test_what_was_kept_of_validation_is_what_follows_from_its_predictions(made: Deployed) -> None:
    run = samcls.load_run(made.run("logistic", **HEADS["logistic"]))
    (kept,) = operating_points([run]).values()
    said = validation([run])
    fresh = operating_points([run, run])["grade"]  # of several nothing is written down
    assert (kept.temperature, kept.threshold) == (fresh.temperature, fresh.threshold)
    assert len(said.ids) == 16


def test_a_bad_picture_costs_its_row_and_status_3(made: Deployed, tmp_path: Path) -> None:
    run = made.run("slca", **HEADS["slca"])
    (tmp_path / "text.png").write_text("no picture")
    inputs = [
        made.root / "06.png",
        tmp_path / "text.png",
        tmp_path / "gone.png",
        made.root / "07.png",
    ]
    done = command("predict", run, *inputs, "--out", tmp_path / "p.csv", "--json")
    assert done.returncode == 3
    values = json.loads(done.stdout)
    assert (values["images"], values["failed"]) == (4, 2)
    assert "predictions" not in values
    rows = rows_of(tmp_path / "p.csv")
    assert [Path(row["id"]).name for row in rows] == ["06.png", "text.png", "gone.png", "07.png"]
    assert [bool(row["error"]) for row in rows] == [False, True, True, False]
    assert "does not exist" in rows[2]["error"]
    assert rows[1]["p_benign"] == rows[1]["predicted"] == rows[1]["unfamiliar"] == ""
    with pytest.raises(ImageError, match=r"2 of 4 pictures cannot be used \(number 1, 2\)"):
        samcls.load_run(run).predict_proba(inputs)


def test_a_second_call_goes_on_and_gives_the_same_table(
    made: Deployed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after some rows, or with half a line at its end, the table ends as one that was not stopped."""
    run, whole, cut = (
        opened(made.run("slca", **HEADS["slca"])),
        tmp_path / "whole.csv",
        tmp_path / "cut.csv",
    )
    predict(run, [made.root / "manifest.csv"], whole)
    put = Table.put

    def stopping(table: Table, unit: int, lines: list[list[str]]) -> None:
        if unit == 20:
            raise KeyboardInterrupt
        put(table, unit, lines)

    with monkeypatch.context() as patch:
        patch.setattr(Table, "put", stopping)
        with pytest.raises(KeyboardInterrupt):
            predict(run, [made.root / "manifest.csv"], cut)
    assert len(rows_of(cut)) == 20
    with cut.open("a") as file:
        file.write("image-20,/some/pa")
    found = predict(run, [made.root / "manifest.csv"], cut)
    assert found.skipped == 19  # the one that failed was tried again
    assert cut.read_bytes() == whole.read_bytes()
    assert predict(run, [made.root / "manifest.csv"], cut).skipped == 63
    assert cut.read_bytes() == whole.read_bytes()


def test_a_picture_that_failed_is_tried_again(made: Deployed, tmp_path: Path) -> None:
    run, late = opened(made.run("slca", **HEADS["slca"])), tmp_path / "late.png"
    inputs = [made.root / "06.png", late, made.root / "07.png"]
    assert predict(run, inputs, tmp_path / "p.csv").failed == 1
    before = (tmp_path / "p.csv").stat().st_mtime
    Image.fromarray(picture(np.random.default_rng(1), 120, 40, 40)).save(late)
    os.utime(late, (before - 10, before - 10))
    found = predict(run, inputs, tmp_path / "p.csv")
    assert (found.skipped, found.failed) == (2, 0)
    assert [row["error"] for row in rows_of(tmp_path / "p.csv")] == ["", "", ""]
    os.utime(late, (before + 1000, before + 1000))
    with pytest.raises(OverwriteRefused, match="1 files are newer than"):
        predict(run, inputs, tmp_path / "p.csv")


def test_pictures_that_came_since_are_added_in_their_places(made: Deployed, tmp_path: Path) -> None:
    run, folder = opened(made.run("slca", **HEADS["slca"])), tmp_path / "scans"
    folder.mkdir()
    for name in ("b", "d"):
        shutil.copy(made.root / "06.png", folder / f"{name}.png")
    predict(run, [folder], tmp_path / "p.csv")
    shutil.copy(made.root / "07.png", folder / "c.png")
    os.utime(folder / "c.png")  # newer than the table
    assert predict(run, [folder], tmp_path / "p.csv").skipped == 2
    names = [Path(row["id"]).name for row in rows_of(tmp_path / "p.csv")]
    assert names == ["b.png", "c.png", "d.png"]


def test_a_table_of_something_else_is_never_overwritten(made: Deployed, tmp_path: Path) -> None:
    run, other = (
        opened(made.run("slca", **HEADS["slca"])),
        opened(made.run("logistic", **HEADS["logistic"])),
    )
    out = tmp_path / "p.csv"
    predict(run, [made.root / "06.png"], out)
    before = out.read_bytes()
    with pytest.raises(OverwriteRefused, match="another run"):
        predict(other, [made.root / "06.png"], out)
    with pytest.raises(OverwriteRefused, match="not among these"):
        predict(run, [made.root / "07.png"], out)
    assert out.read_bytes() == before
    out.write_text("id,path\n1,2\n")
    with pytest.raises(OverwriteRefused, match="its columns are id, path"):
        predict(run, [made.root / "06.png"], out)


def test_seeds_are_averaged_with_their_spread(made: Deployed, tmp_path: Path) -> None:
    folder = made.run("seeds", head="linear", seeds=3)
    predictor = load_predictor(folder)
    paths = [made.root / f"{i:02}.png" for i in (6, 7)]
    each = np.stack([samcls.load_run(run.path).predict_proba(paths) for run in predictor.runs])
    assert np.allclose(predictor.predict_proba(paths), each.mean(0), atol=1e-7)
    predict(folder, paths, tmp_path / "p.csv")
    for i, row in enumerate(rows_of(tmp_path / "p.csv")):
        answer = ["benign", "malignant"].index(row["predicted"])
        assert float(row["spread"]) == pytest.approx(each[:, i, answer].std(), abs=1e-6)


def test_folds_are_averaged_and_an_image_was_seen_where_any_of_them_saw_it(made: Deployed) -> None:
    folder = made.run("folds", head="linear", folds=4)
    predictor = load_predictor(folder)
    said = predictor.say([made.root / f"{i:02}.png" for i in range(1, 64)])
    stood = [
        [row["split"] for row in rows_of(run.path / "predictions.csv")] for run in predictor.runs
    ]
    for i, splits in enumerate(zip(*stood, strict=True)):
        assert said.seen[i] == next(one for one in ("train", "val", "test") if one in splits)
    validated = sum(splits.count("val") for splits in stood)
    assert len(validation(predictor.runs).ids) == validated


def test_by_group_a_patient_is_the_mean_of_its_logits(made: Deployed, tmp_path: Path) -> None:
    run = opened(made.run("slca", **HEADS["slca"]))
    predict(run, [made.root / "manifest.csv"], tmp_path / "images.csv")
    predict(run, [made.root / "manifest.csv"], tmp_path / "groups.csv", by="group")
    images = {row["id"]: row for row in rows_of(tmp_path / "images.csv")}
    own = {row["id"]: row["group"] for row in rows_of(made.root / "manifest.csv")}
    found = rows_of(tmp_path / "groups.csv")
    assert [row["group"] for row in found] == list(dict.fromkeys(own.values()))
    for row in found:
        members = [images[i] for i, group in own.items() if group == row["group"]]
        good = [one for one in members if not one["error"]]
        logs = np.log([[float(one["p_benign"]), float(one["p_malignant"])] for one in good]).mean(0)
        want = np.exp(logs) / np.exp(logs).sum()
        assert float(row["p_malignant"]) == pytest.approx(want[1], abs=1e-6)
        assert row["images"] == str(len(members))
        assert bool(row["error"]) == (len(good) < len(members))
    with pytest.raises(InputError, match="no picture has a group"):
        predict(run, [made.root / "06.png"], by="group")


def test_every_kind_of_input_gives_the_same_answers(made: Deployed, tmp_path: Path) -> None:
    """Files, a folder, a bare manifest, an archive, DICOM, and paths on standard input."""
    run, folder = opened(made.run("slca", **HEADS["slca"])), tmp_path / "scans"
    (folder / "inner").mkdir(parents=True)
    grey = np.random.default_rng(5).integers(0, 256, (4, 30, 40), dtype=np.uint8)
    for i, pixels in enumerate(grey):
        Image.fromarray(pixels).save(folder / "inner" / f"{i}.png")
        dicom(folder / f"{i}.dcm", pixels)
    (folder / "notes.txt").write_text("no picture")
    np.savez(tmp_path / "a.npz", pictures=grey, labels=np.zeros(4))
    (tmp_path / "bare.csv").write_text(
        "path\n" + "".join(f"scans/inner/{i}.png\n" for i in range(4))
    )
    files = [folder / "inner" / f"{i}.png" for i in range(4)]
    want = [row["p_malignant"] for row in predict(run, files).predictions]
    given: dict[str, object] = {
        "folder": [folder / "inner"],
        "archive": [tmp_path / "a.npz"],
        "array": [f"{tmp_path / 'a.npz'}#pictures"],
        "bare": [tmp_path / "bare.csv"],
        "dicom": [folder / f"{i}.dcm" for i in range(4)],
    }
    for name, inputs in given.items():
        assert [r["p_malignant"] for r in predict(run, inputs).predictions] == want, name
    said = predict(run, ["-"], stdin=[f"{file}\n" for file in files])
    assert [row["p_malignant"] for row in said.predictions] == want
    notes: list[str] = []
    assert predict(run, [folder], log=notes.append).images == 8
    assert any("files ending in .txt: 1" in note for note in notes)


def test_features_are_kept_in_a_store_on_request(made: Deployed, tmp_path: Path) -> None:
    run, files = (
        opened(made.run("slca", **HEADS["slca"])),
        [made.root / f"{i:02}.png" for i in (0, 6, 7)],
    )
    plain = predict(run, files).predictions
    kept = predict(run, files, store=tmp_path / "kept.zarr")
    assert [dict(one) for one in kept.predictions] == [dict(one) for one in plain]
    assert len(samcls.open_store(tmp_path / "kept.zarr")) == 3


def test_what_training_never_saw_is_unfamiliar(made: Deployed) -> None:
    """Uniform pictures lie farther out than nearly all of training, and test images do not."""
    predictor = opened(made.run("slca", **HEADS["slca"]))
    own = predictor.say([made.root / f"{i:02}.png" for i in (6, 7, 14, 15, 22, 23, 30, 31)])
    strange = predictor.say([np.full((40, 40), level, np.uint8) for level in (0, 255)])
    assert np.median(own.unfamiliar) < 90
    assert (strange.unfamiliar >= 95).all()
    assert own.seen == ("test",) * 8
    assert strange.seen == ("", "")


def test_rows_go_to_standard_output_where_no_table_is_named(made: Deployed) -> None:
    done = command("predict", made.run("slca", **HEADS["slca"]), made.root / "06.png")
    assert done.returncode == 0
    header, row = done.stdout.splitlines()
    assert header.startswith("id,path,task,p_benign,p_malignant,predicted,scaled_benign")
    assert row.startswith(f"{made.root / '06.png'},")
    assert "warning: the run knows pictures among these from its own data: 1 in test" in done.stderr


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (["empty"], "empty holds no picture: it is empty"),
        (["features.zarr"], "is a feature store, not a folder of pictures"),
        (["manifest.csv", "06.png"], "manifest.csv is a manifest and stands beside"),
        (["-"], "no path came on standard input"),
        (["flat.npz"], "holds no array of pictures"),
    ],
)
def test_what_cannot_be_predicted_is_said_in_a_sentence(
    made: Deployed, inputs: list[str], expected: str
) -> None:
    (made.root / "empty").mkdir(exist_ok=True)
    np.savez(made.root / "flat.npz", labels=np.zeros(3))
    named = [one if one == "-" else str(made.root / one) for one in inputs]
    with pytest.raises(InputError, match=expected):
        predict(opened(made.run("slca", **HEADS["slca"])), named, stdin=[])


def test_an_absent_gpu_is_said_in_a_sentence(made: Deployed) -> None:
    with pytest.raises(InputError, match="cuda"):
        predict(made.run("slca", **HEADS["slca"]), [made.root / "06.png"], device="cuda")


def test_runs_that_cannot_say_anything_of_single_pictures_are_refused(made: Deployed) -> None:
    shuffled = made.run(
        "shuffled", head="guided:test_resnet", pretrained=False, epochs=1, control="shuffled"
    )
    with pytest.raises(InputError, match="fed with other images' features"):
        predict(shuffled, [made.root / "06.png"])


def test_columns_beside_the_image_come_from_the_manifest(made: Deployed, tmp_path: Path) -> None:
    run = made.run("meta", head="linear", with_meta=["sex", "age"])
    own = {row["id"]: row["p_malignant"] for row in rows_of(run / "predictions.csv")}
    predict(run, [made.root / "manifest.csv"], tmp_path / "p.csv", batch=8)
    said = {
        row["id"]: row["p_malignant"] for row in rows_of(tmp_path / "p.csv") if not row["error"]
    }
    assert said.keys() == own.keys()
    assert max(abs(float(said[i]) - float(own[i])) for i in own) <= 1e-6
    with pytest.raises(InputError, match="needs meta:sex, meta:age"):
        predict(run, [made.root / "06.png"])


def test_forty_dicom_files_give_their_own_predictions(tmp_path: Path) -> None:
    """Deep greys with a window, extracted from a manifest and predicted as files, without it."""
    rng, lines = np.random.default_rng(2), ["id,path,split,label"]
    for i in range(40):
        depth = rng.normal(900 + 200 * (i % 2), 300, (36, 44)).clip(0, 4095).astype(np.uint16)
        dicom(tmp_path / f"{i:02}.dcm", depth, WindowCenter=1000, WindowWidth=1600)
        split = ("train", "train", "val", "test")[i // 2 % 4]
        lines.append(f"{i},{i:02}.dcm,{split},{'ab'[i % 2]}")
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n")
    samcls.extract(tmp_path / "manifest.csv", tmp_path / "s.zarr", **TINY)
    samcls.train(tmp_path / "s.zarr", tmp_path / "run", epochs=2, intervals=0)
    own = [row["p_b"] for row in rows_of(tmp_path / "run" / "predictions.csv")]
    said = predict(tmp_path / "run", [tmp_path / f"{i:02}.dcm" for i in range(40)], batch=8)
    assert [row["p_b"] for row in said.predictions] == own


def changed(run: Path, copy: Path, name: str, change: dict[str, object]) -> Path:
    """A run with other values in one of its files of JSON, and checksums that fit."""
    shutil.copytree(run, copy)
    values = json.loads((copy / name).read_text()) | change
    (copy / name).write_text(json.dumps(values))
    mark = json.loads((copy / MARK).read_text())
    mark["sha256"][name] = hashlib.sha256((copy / name).read_bytes()).hexdigest()
    (copy / MARK).write_text(json.dumps(mark))
    return copy


def test_weights_that_are_not_there_or_others_are_said_with_the_remedy(
    made: Deployed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    run, picture_ = made.run("slca", **HEADS["slca"]), made.root / "06.png"
    lost = changed(run, tmp_path / "lost", "metrics.json", {"weights": {"file": "mine.pth"}})
    with pytest.raises(
        InputError, match=r"weights mine\.pth \(sha256 .*name the file with --checkpoint"
    ):
        predict(lost, [picture_])
    other = {"weights": {"untrained": "random weights of seed 1"}}
    drawn = changed(run, tmp_path / "drawn", "metrics.json", other)
    with pytest.raises(InputError, match=r"checkpoint_sha256 +the run: \w+ +found: \w+"):
        predict(drawn, [picture_])


def test_a_run_by_a_newer_version_is_said_to_be_one(made: Deployed, tmp_path: Path) -> None:
    run = made.run("slca", **HEADS["slca"])
    newer = changed(run, tmp_path / "newer", "head.json", {"format_version": 99})
    with pytest.raises(InputError, match="of a newer version; update samcls"):
        predict(newer, [made.root / "06.png"])
