"""A table of damage: whatever is done to a store's files, no cell of it is silently wrong.

Reading gives what was written or an error that names the store and a remedy; extract never starts anew
what holds work; verify finds the damage; repair brings every value back. The whole table, each file of a
store deleted, flipped, truncated and taken from another store, is slow and prints itself:

    python -m pytest -m slow -s tests/store/test_damage.py
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from support.extracting import SMALL, image_folder

from samcls.data.manifest import Manifest, read_manifest
from samcls.encode.extract import extract
from samcls.encode.repair import repair
from samcls.errors import SamclsError
from samcls.learn.features.tensors import load_features, with_pixels
from samcls.store.feature_store import FeatureStore, RowTable
from samcls.store.schema import Partition
from samcls.store.verify import verify

IMAGES = 9
OPTIONS = replace(SMALL, levels="early,neck", keep_pixels=16)
COLUMNS = ("id", "split", "group", "label", "valid", "sha256", "error", "status")
Sound = tuple[Path, Manifest, dict[str, object]]
PAYLOADS = ("features/early", "features/neck", "pixels")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Sound:
    """Two stores of equal shape and other images; the manifest, and all values, of the first."""
    place = tmp_path_factory.mktemp("sound")
    manifests = []
    for seed, name in enumerate(("s.zarr", "other.zarr")):
        folder = place / name.removesuffix(".zarr")
        folder.mkdir()
        manifest = read_manifest(image_folder(folder, [(40 + i, 60) for i in range(IMAGES)], seed))
        first = FeatureStore.open(extract(manifest, folder / "first.zarr", OPTIONS).store)
        FeatureStore.create(
            place / name,
            first.fingerprint,
            first.levels,
            table_of(manifest),
            partition=Partition(1, 4),
            pixels=first.pixel_size,
        )
        extract(manifest, place / name, OPTIONS)
        manifests.append(manifest)
    return place, manifests[0], all_that_is_read(place / "s.zarr")


def table_of(manifest: Manifest) -> RowTable:
    return RowTable(
        manifest.ids, manifest.splits, manifest.groups, manifest.tasks, manifest.labels()
    )


def all_that_is_read(path: Path) -> dict[str, object]:
    """Everything that readers of ours give, through each of them."""
    store = FeatureStore.open(path)
    features = with_pixels(load_features(store), store)
    assert features.pixels is not None
    lazy = store.to_xarray()
    return {
        **{name: store.read(name) for name in store.levels},
        **{f"lazy {name}": np.asarray(store.to_dask(name).compute()) for name in store.levels},
        **{f"tokens {name}": np.asarray(x) for name, x in features.tokens.items()},
        **{f"counts {name}": np.asarray(x) for name, x in features.counts.items()},
        "pixels": store.pixels(),
        "images": features.pixels.values.numpy(),
        "labels": store.labels,
        "status": store.status,
        "valid": store.valid,
        "sha256": store.sha256,
        "splits": store.splits,
        "groups": (store.groups, features.groups),
        "ids": (store.ids, features.ids, lazy["id"].values.tolist()),
        "errors": store.errors,
        "described": (store.tasks, store.fingerprint, store.levels, store.partition, store.codec),
    }


def differs(found: dict[str, object], expected: dict[str, object]) -> list[str]:
    return [
        name
        for name, value in expected.items()
        if not (
            np.array_equal(found[name], value)  # type: ignore[arg-type]
            if isinstance(value, np.ndarray)
            else found[name] == value
        )
    ]


def flip(file: Path, at: float = 0.5) -> None:
    content = bytearray(file.read_bytes())
    content[int(at * (len(content) - 1))] ^= 4
    file.write_bytes(content)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


def from_other(file: Path) -> None:
    """Put the other store's file of the same place there."""
    store = next(parent for parent in file.parents if parent.name == "s.zarr")
    other = store.parents[1] / "sound-other.zarr"
    shutil.copy(other / file.relative_to(store), file)


def edit(change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    """Damage that stays good JSON."""

    def done(file: Path) -> None:
        value = json.loads(file.read_text())
        change(value)
        file.write_text(json.dumps(value))

    return done


def swap(one: str, two: str) -> Callable[[Path], None]:
    def done(store: Path) -> None:
        content = (store / one).read_bytes()
        (store / one).write_bytes((store / two).read_bytes())
        (store / two).write_bytes(content)

    return done


HOW: dict[str, Callable[[Path], None]] = {
    "deleted": Path.unlink,
    "flipped": flip,
    "cut off": cut,
    "of another store": from_other,
}
SHARD = "features/neck/c/0/0/0/0/0"


def of_files(names: list[str], how: list[str]) -> dict[str, Callable[[Path], None]]:
    def damage(name: str, done: Callable[[Path], None]) -> Callable[[Path], None]:
        return lambda store: done(store / name)

    return {f"{name} {kind}": damage(name, HOW[kind]) for name in names for kind in how}


def chunk(name: str) -> str:
    tail = {"features": "/0/0/0/0", "pixels": "/0/0/0"}.get(name.partition("/")[0], "")
    return f"{name}/c/0{tail}" + ("/0" if name in {"label", "valid", "sha256"} else "")


def set_attribute(name: str, value: object) -> Callable[[Path], None]:
    def change(group: dict[str, object]) -> None:
        attributes = group["attributes"]
        assert isinstance(attributes, dict)
        attributes[name] = value
        if value is None:
            del attributes[name]

    return lambda store: edit(change)(store / "zarr.json")


def remove_folder(name: str) -> Callable[[Path], None]:
    return lambda store: shutil.rmtree(store / name)


ATTRIBUTES = ("created_by", "fingerprint", "tasks", "format_version", "store_id", "pixels")
QUICK = (
    "label/c/0/0 deleted",
    "label/c/0/0 of another store",
    "zarr.json deleted",
    "label/zarr.json flipped",
    "attribute tasks changed",
    "shards of a level swapped",
)
WHOLE: dict[str, Callable[[Path], None]] = {
    **of_files([chunk(name) for name in (*COLUMNS, *PAYLOADS)], list(HOW)),
    **of_files(
        ["zarr.json", *(f"{name}/zarr.json" for name in (*COLUMNS, *PAYLOADS))],
        ["deleted", "flipped", "cut off"],
    ),
    **{f"attribute {name} changed": set_attribute(name, "other") for name in ATTRIBUTES},
    **{f"attribute {name} deleted": set_attribute(name, None) for name in ATTRIBUTES},
    "all attributes deleted": lambda s: edit(lambda g: g.update(attributes={}))(s / "zarr.json"),
    "attributes but created_by deleted": lambda s: edit(
        lambda g: g.update(attributes={"created_by": "samcls"})
    )(s / "zarr.json"),
    "attributes of another store": lambda s: from_other(s / "zarr.json"),
    "shards of a level swapped": swap(SHARD, SHARD.replace("c/0", "c/1")),
    "shards of two levels swapped": swap(SHARD, SHARD.replace("neck", "early")),
    "chunks of two columns swapped": swap("split/c/0", "group/c/0"),
    "folder id deleted": remove_folder("id"),
    "folder status deleted": remove_folder("status"),
    "folder features deleted": remove_folder("features"),
    "both copies deleted": lambda s: (
        [(s / c / "metadata.json").unlink() for c in ("id", "status")] and None
    ),
    "one copy flipped": lambda s: flip(s / "id/metadata.json"),
    "zarr.json and one copy flipped": lambda s: (
        [flip(s / name) for name in ("zarr.json", "id/metadata.json")] and None
    ),
    "dtype changed": lambda s: edit(lambda a: a.update(data_type="uint16"))(s / "label/zarr.json"),
    "shape changed": lambda s: edit(lambda a: a.update(shape=[7]))(s / "status/zarr.json"),
    "patch size changed": lambda s: edit(lambda a: a.update(attributes={"patch_size": 8}))(
        s / "features/neck/zarr.json"
    ),
}


def outcome(
    place: Path,
    manifest: Manifest,
    expected: dict[str, object],
    folder: Path,
    damage: Callable[[Path], None],
) -> dict[str, str]:
    """Damage copies of the store; say what reading, extract, verify and repair did of it."""
    shutil.copytree(place / "other.zarr", folder / "sound-other.zarr")
    said = {}
    for verb in ("read", "extract", "verify", "repair"):
        path = folder / verb / "s.zarr"
        shutil.copytree(place / "s.zarr", path)
        damage(path)
        shards = {f: f.read_bytes() for f in path.rglob("*") if "/c/" in str(f) and f.is_file()}
        try:
            if verb == "read":
                said[verb] = "WRONG" if differs(all_that_is_read(path), expected) else "right"
            elif verb == "extract":
                summary = extract(manifest, path, OPTIONS)
                lost = [
                    f
                    for f, content in shards.items()
                    if "features" in str(f) and (not f.exists() or f.read_bytes() != content)
                ]
                said[verb] = (
                    "WRONG: shards were written anew" if lost else f"{summary.skipped} done"
                )
                try:
                    wrong = differs(all_that_is_read(path), expected)
                    said[verb] += ", then read " + ("WRONG" if wrong else "right")
                except SamclsError as error:
                    said[verb] += f", then read refused: {type(error).__name__}"
            elif verb == "verify":
                problems = verify(path).problems
                said[verb] = ", ".join(sorted({p.kind for p in problems})) or "nothing"
            else:
                summary_ = repair(manifest, str(path))
                assert summary_.after.ok
                said[verb] = f"restored, {len(summary_.encoded)} encoded"
                if wrong := differs(all_that_is_read(path), expected):
                    said[verb] = f"WRONG: {wrong}"
        except SamclsError as error:
            words = str(error).replace(str(path), "STORE")
            assert "STORE" in words, words
            said[verb] = f"refused: {words}" if verb == "repair" else "refused"
            assert verb != "extract" or all(f.read_bytes() == b for f, b in shards.items())
    return said


@pytest.mark.parametrize("name", QUICK)  # each kind once; the table has them all
def test_damage_is_never_silently_wrong(sound: Sound, tmp_path: Path, name: str) -> None:
    """Reading and extract refuse, or give what was written; verify finds it; repair undoes it."""
    said = outcome(*sound, tmp_path, WHOLE[name])
    assert said["read"] == "refused"
    assert "WRONG" not in str(said)
    assert said["verify"] != "nothing"
    assert said["repair"].startswith("restored")


@pytest.mark.slow
def test_the_whole_table_of_damage(sound: Sound, tmp_path: Path) -> None:
    """No cell of the table is silently wrong, and whatever can be known is restored."""
    for number, (name, damage) in enumerate(WHOLE.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        said = outcome(*sound, folder, damage)
        print(f"| {name} | " + " | ".join(v[:60] for v in said.values()) + " |")  # noqa: T201
        assert "WRONG" not in str(said), (name, said)
        assert said["verify"] != "nothing", name
        assert said["repair"].startswith("restored"), (name, said)
        shutil.rmtree(folder)


def test_consolidated_metadata_hides_no_rows(sound: Sound, tmp_path: Path) -> None:
    """Whoever consolidated it: rows that are appended later are read, by ours and by plain Zarr."""
    _, manifest, expected = sound
    path = tmp_path / "s.zarr"
    fewer = replace(manifest, rows=manifest.rows[:5])
    extract(fewer, path, OPTIONS)
    with pytest.warns(UserWarning, match="Consolidated metadata"):
        zarr.consolidate_metadata(path)
    assert len(FeatureStore.open(path)) == 5
    assert verify(path).ok
    extract(manifest, path, OPTIONS)
    assert len(FeatureStore.open(path)) == IMAGES
    assert zarr.open_group(path, mode="r")["status"].shape == (IMAGES,)  # type: ignore[union-attr]
    found = all_that_is_read(path)
    different = differs(found, expected)
    assert different == ["described"]  # shards of another size
