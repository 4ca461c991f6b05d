"""An audit finds what was planted, and only that, and says what it did not look for."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from scipy.ndimage import gaussian_filter

import samcls
from samcls.audit.aligned import aligned
from samcls.audit.looks import thumb_of
from samcls.audit.nearest import nearest, unit
from samcls.data.images import pixel_digest
from samcls.data.manifest import read_manifest
from samcls.errors import InputError, ManifestError, OverwriteRefused

SIDE = 96
COLUMNS = ["id", "path", "split", "group", "grade", "meta:camera"]


def texture(seed: int) -> np.ndarray:
    """A picture unlike any other: coloured noise of several sizes."""
    rng = np.random.default_rng(seed)
    layers = [gaussian_filter(rng.standard_normal((SIDE, SIDE, 3)), (s, s, 0)) for s in (2, 4, 8)]
    whole = sum(layer / layer.std() for layer in layers)
    return np.clip(128 + 30 * whole, 0, 255).astype(np.uint8)


def compressed(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=70)
    return Image.open(file).convert("RGB")


TWINS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "mirrored": ImageOps.mirror,
    "turned": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "compressed": compressed,
    "cropped": lambda image: image.crop((0, 4, SIDE - 5, SIDE - 1)),
    "brightened": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
}


class Planted:
    """A data set that is written as it is told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[list[str]] = []

    def add(self, image: np.ndarray | Image.Image, split: str, label: str, **more: str) -> str:
        name = f"p{len(self.rows):03}"
        picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
        picture.save(self.folder / f"{name}.png")
        own = [more.get("group", ""), label, more.get("camera", "")]
        self.rows.append([name, f"{name}.png", split, *own])
        return name

    def write(self) -> Path:
        path = self.folder / "manifest.csv"
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *self.rows])
        return path


@pytest.fixture
def planted(tmp_path: Path) -> Planted:
    """Forty pictures without a defect."""
    found = Planted(tmp_path)
    for i in range(40):
        split = ["train", "train", "val", "test"][i % 4]
        found.add(texture(i), split, "ab"[i // 4 % 2])
    return found


def pairs(found: samcls.audit, code: str) -> set[tuple[str, ...]]:  # type: ignore[valid-type]
    return {tuple(sorted(one.ids)) for one in found.of(code)}


def test_a_clean_data_set_has_no_twins(planted: Planted) -> None:
    """Pictures of one kind are not taken for each other, and notes say what was not looked for."""
    found = samcls.audit(planted.write())
    assert found.ok
    assert not found.of("exact", "near", "contradiction", "blank", "tiny", "odd-mode")
    assert any("label-suspect and off-topic need the features" in note for note in found.notes)
    assert any("no image has a group" in note for note in found.notes)


@pytest.mark.parametrize("how", TWINS)
def test_each_kind_of_twin_is_found_across_splits(planted: Planted, how: str) -> None:
    """One finding, of both images and no other, with a remedy."""
    twin = planted.add(TWINS[how](Image.fromarray(texture(0))), "test", "a")
    found = samcls.audit(planted.write())
    assert pairs(found, "near") == {("p000", twin)}
    (one,) = found.of("near")
    assert one.leak
    assert one.splits == ("train", "test")
    assert 0.8 < (one.similarity or 0) <= 1
    assert "--write" in one.advice
    assert not found.ok


def test_equal_pixels_are_one_finding_and_no_near_ones(planted: Planted) -> None:
    """Three copies are named together, and only the first of them is compared with others."""
    copies = [planted.add(texture(5), split, "b") for split in ("train", "test")]
    found = samcls.audit(planted.write())
    assert pairs(found, "exact") == {("p005", *copies)}
    assert not found.of("near", "contradiction")


def test_twins_with_other_labels_contradict(planted: Planted) -> None:
    """Both labels are named; a missing label contradicts nothing."""
    planted.add(TWINS["turned"](Image.fromarray(texture(0))), "train", "b")
    planted.add(texture(1), "train", "")
    found = samcls.audit(planted.write())
    (one,) = found.of("contradiction")
    assert one.ids == ("p000", "p040")
    assert "grade=a against grade=b" in one.sentence
    assert len(found.of("exact")) == 1


def test_groups_in_two_splits_are_leaks(planted: Planted) -> None:
    """By name, with the number of images in each."""
    for split in ("train", "train", "test"):
        planted.add(texture(100 + len(planted.rows)), split, "a", group="patient 7")
    (one,) = samcls.audit(planted.write()).of("group-leak")
    assert one.sentence == "group patient 7 lies in several splits: train 2, test 1"
    assert one.leak


def test_odd_pictures_have_codes(planted: Planted) -> None:
    """Blank, tiny, mostly padding, grey among coloured, and one that cannot be read."""
    blank = planted.add(np.full((SIDE, SIDE, 3), 90, np.uint8), "train", "a")
    tiny = planted.add(texture(200)[:12, :12], "train", "a")
    padded = np.zeros((2 * SIDE, 2 * SIDE, 3), np.uint8)
    padded[20 : 20 + SIDE, 30 : 30 + SIDE] = texture(201)
    mostly = planted.add(padded, "train", "a")
    grey = planted.add(np.repeat(texture(202)[:, :, :1], 3, axis=2), "train", "a")
    broken = planted.add(texture(203), "train", "a")
    (planted.folder / f"{broken}.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    found = samcls.audit(planted.write())
    for code, name in [
        ("blank", blank),
        ("tiny", tiny),
        ("mostly-padding", mostly),
        ("unreadable", broken),
    ]:
        assert pairs(found, code) == {(name,)}, code
    assert (grey,) in pairs(found, "odd-mode")
    assert found.images == 44


def test_a_camera_that_tells_the_label_is_named(planted: Planted) -> None:
    """With its AUC and interval; one that does not is not."""
    for row in planted.rows:
        row[-1] = "old" if row[4] == "a" else "new"
    (one,) = samcls.audit(planted.write()).of("acquisition")
    assert "meta:camera alone tells the label with AUC 1.000 (" in one.sentence
    for number, row in enumerate(planted.rows):
        row[-1] = "old" if number % 2 else "new"
    assert not samcls.audit(planted.write()).of("acquisition")


def test_classes_that_a_split_lacks_are_grave(planted: Planted) -> None:
    """Their figures cannot be told."""
    planted.add(texture(300), "train", "c")
    found = samcls.audit(planted.write())
    assert {one.sentence for one in found.of("absent-class")} == {
        "task grade: no image of class c in split val",
        "task grade: no image of class c in split test",
    }
    assert not found.ok
    assert any("class c has 1 images" in one.sentence for one in found.of("imbalance"))


def test_a_clean_manifest_has_no_leak_left(planted: Planted) -> None:
    """Twins share group and split, contradictions are gone, everything else and its order stays."""
    planted.add(TWINS["cropped"](Image.fromarray(texture(3))), "train", "a")
    planted.add(TWINS["turned"](Image.fromarray(texture(0))), "train", "b")
    manifest = planted.write()
    before = manifest.read_bytes()
    clean = planted.folder / "clean.csv"
    first = samcls.audit(manifest, write=clean)
    assert not first.ok
    assert manifest.read_bytes() == before
    rows = {row.id: row for row in read_manifest(clean).rows}
    assert set(rows) == {row[0] for row in planted.rows} - {"p000", "p041"}
    assert rows["p003"].group == rows["p040"].group == "twins of p003"
    assert rows["p003"].split == rows["p040"].split == "train"
    assert samcls.audit(clean).ok
    with pytest.raises(OverwriteRefused, match="is there already"):
        samcls.audit(manifest, write=clean)


def test_findings_are_a_table_that_pandas_reads(planted: Planted, tmp_path: Path) -> None:
    """Also from the folder, where JSON says the same; a folder of something else is left alone."""
    pandas = pytest.importorskip("pandas")
    planted.add(texture(5), "test", "b")
    out = tmp_path / "audit"
    found = samcls.audit(planted.write(), out)
    table = pandas.DataFrame(found.table())
    assert table.loc[table.kind == "exact", "ids"].tolist() == ["p005 | p040"]
    assert len(pandas.read_csv(out / "findings.csv")) == len(found)
    kept = json.loads((out / "audit.json").read_text())
    assert kept["problems"] == [one.to_dict() for one in found]
    samcls.audit(planted.write(), out)
    (out / "mine.txt").write_text("")
    with pytest.raises(OverwriteRefused, match=r"mine\.txt"):
        samcls.audit(planted.write(), out)


def test_the_contact_sheet_shows_pictures_only_where_asked(
    planted: Planted, tmp_path: Path
) -> None:
    """What a manifest says is escaped, and nothing is asked of the network."""
    planted.add(texture(5), "test", "<script>alert(1)</script>")
    manifest = planted.write()
    found = samcls.audit(manifest, tmp_path / "plain")
    plain = (tmp_path / "plain" / "audit.html").read_text()
    assert found.of("contradiction")
    assert "<img" not in plain
    assert "<script>alert" not in plain
    samcls.audit(manifest, tmp_path / "shown", images=True)
    shown = (tmp_path / "shown" / "audit.html").read_text()
    assert shown.count("data:image/png;base64,") >= 2
    assert "http" not in shown.replace("http-equiv", "")
    with pytest.raises(InputError, match="--out DIR"):
        samcls.audit(manifest, images=True)


def test_small_and_dull_data_sets_are_told_so(tmp_path: Path) -> None:
    """One image, one class, no label, constant pictures: each clear, none an error."""
    one = Planted(tmp_path)
    one.add(texture(0), "train", "a")
    notes = samcls.audit(one.write()).notes
    assert any("there is one picture" in note for note in notes)
    assert any("every label is a" in note for note in notes)
    for shade in range(20, 60, 4):
        one.add(np.full((SIDE, SIDE, 3), shade, np.uint8), "train", "")
    found = samcls.audit(one.write())
    assert len(found.of("blank")) == 10
    assert not found.of("near")
    for row in one.rows:
        row[4] = ""
    assert any("no image has a label" in note for note in samcls.audit(one.write()).notes)


def test_nothing_to_look_at_is_an_error(planted: Planted) -> None:
    """A manifest without files or one that is not there says which."""
    manifest = planted.write()
    for row in planted.rows:
        (planted.folder / row[1]).unlink()
    with pytest.raises(ManifestError, match="none of the 40 images"):
        samcls.audit(manifest)
    with pytest.raises(ManifestError, match="does not exist"):
        samcls.audit(planted.folder / "other.csv")


def test_the_search_in_blocks_is_that_of_the_whole_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal rows too: neighbours are left out by their number."""
    rng = np.random.default_rng(0)
    vectors = unit(rng.standard_normal((301, 7)).astype(np.float32))
    vectors[200] = vectors[3]
    whole = vectors @ vectors.T
    np.fill_diagonal(whole, -np.inf)
    monkeypatch.setattr("samcls.audit.nearest.BLOCK_BYTES", 4 * 320 * 13)
    places, values = nearest(vectors, 5)
    assert values == pytest.approx(-np.sort(-whole, axis=1)[:, :5], abs=1e-6)
    assert places[3, 0] == 200
    assert places[200, 0] == 3
    assert nearest(vectors[:1], 5)[0].shape == (1, 0)


def test_similarity_is_one_under_every_symmetry_and_low_between_strangers() -> None:
    """And a blank picture is like nothing, not even itself."""
    one = thumb_of(texture(0))
    turned = [np.rot90(seen, k) for seen in (one, one[:, ::-1]) for k in range(4)]
    thumbs = np.stack([one, *turned, thumb_of(texture(1)), np.zeros_like(one)])
    with_first = np.array([[0, i] for i in range(1, len(thumbs))])
    similarity = aligned(thumbs, with_first)
    assert similarity[:8] == pytest.approx(np.ones(8), abs=1e-4)
    assert similarity[8] < 0.6
    assert similarity[9] == 0


@pytest.mark.parametrize(
    ("share", "top", "left"), [(0.04, 0, 3), (0.06, 5, 1), (0.08, 3, 7), (0.1, 2, 5)]
)
def test_crops_at_any_offset_are_registered(
    share: float, top: int, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Moved and scaled until it fits, a crop is as like its picture as a compressed copy; the grid alone is not."""
    whole, length = texture(0), round(SIDE * (1 - share))
    crop = np.ascontiguousarray(whole[top:, left:][:length, :length])
    thumbs = np.stack([thumb_of(whole), thumb_of(crop[:, ::-1])])
    pair = np.array([[0, 1], [1, 0]])
    fitted = aligned(thumbs, pair)
    assert (fitted > 0.97).all()
    monkeypatch.setattr("samcls.audit.aligned.STEPS_OF_FIT", 0)
    assert (aligned(thumbs, pair) < fitted - 0.015).all()


def test_the_smallest_crops_stay_twins(planted: Planted) -> None:
    """Two pixels in a hundred lost are found without a crop of the grid being better than the whole."""
    length = round(SIDE * 0.98)
    twin = planted.add(texture(0)[1 : 1 + length, :length], "test", "a")
    assert pairs(samcls.audit(planted.write()), "near") == {("p000", twin)}


def test_images_that_the_encoder_was_trained_on_are_named(planted: Planted, tmp_path: Path) -> None:
    """By digests in a text; one that holds something else is refused with what was met."""
    manifest = planted.write()
    known = tmp_path / "known.txt"
    known.write_text(pixel_digest(texture(7)) + "\n" + "0" * 64 + "\n")
    found = samcls.audit(manifest, pretraining=known)
    assert pairs(found, "pretraining") == {("p007",)}
    assert not found.ok
    known.write_text("d41d8cd98f00b204e9800998ecf8427e\n")
    with pytest.raises(InputError, match=r"d41d8cd98f.*64 hexadecimal digits"):
        samcls.audit(manifest, pretraining=known)


def test_images_of_one_group_have_no_independent_witness(planted: Planted) -> None:
    """Nothing is told of labels out of folds, and nothing fails."""
    for number, row in enumerate(planted.rows):
        row[3], row[5] = "the only patient", "ab"[number % 2]
    found = samcls.audit(planted.write())
    assert not found.of("acquisition")
    assert len(found.of("group-leak")) == 1
