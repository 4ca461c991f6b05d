"""A thousand single flipped bytes over every file of a store; a few minutes, so marked slow.

python -m pytest -m slow tests/store/test_flips.py
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from support.extracting import SMALL, image_folder
from support.stores import pick

from samcls.data.manifest import read_manifest
from samcls.encode.changes import table_of
from samcls.encode.extract import extract
from samcls.encode.repair import repair
from samcls.store.feature_store import FeatureStore, RowBatch
from samcls.store.layout import COLUMNS, RESULTS
from samcls.store.repair import prepare_repair
from samcls.store.schema import DONE, Partition
from samcls.store.verify import verify

FLIPS = 1000
ENCODED = 40  # every so many, the lost rows are really encoded; otherwise written as they were


def decoded(path: Path, levels: list[str]) -> dict[str, Any] | None:
    """Everything that plain zarr-python reads; None where it cannot."""
    names = [*(f"features/{level.replace(':', '_')}" for level in levels), *COLUMNS, *RESULTS]
    try:
        group = zarr.open_group(path, mode="r", zarr_format=3)
        values: dict[str, Any] = {"attributes": json.dumps(dict(group.attrs), sort_keys=True)}
        for name in names:
            array = group[name]
            values[name] = np.asarray(array[:])
            values[f"{name} attributes"] = json.dumps(dict(array.attrs), sort_keys=True)
    except Exception:  # noqa: BLE001 - any failure to read is a change
        return None
    return values


def same(found: dict[str, Any] | None, expected: dict[str, Any]) -> bool:
    return found is not None and all(
        np.array_equal(found[name], values)
        and getattr(found[name], "dtype", None) == getattr(values, "dtype", None)
        for name, values in expected.items()
    )


def flip(file: Path, rng: np.random.Generator) -> bytes:
    """Change one byte to another value; return what the file held."""
    content = file.read_bytes()
    at, by = int(rng.integers(len(content))), int(rng.integers(1, 256))
    file.write_bytes(content[:at] + bytes([content[at] ^ by]) + content[at + 1 :])
    return content


@pytest.mark.slow
def test_a_thousand_flips_are_found_and_repaired(tmp_path: Path) -> None:
    """Each flip that changes what any reader decodes is found, and repair brings every value back."""
    source = image_folder(tmp_path, [(40 + i, 60 - i) for i in range(23)])
    (tmp_path / "7.png").write_bytes(b"no picture")
    manifest, path = read_manifest(source), tmp_path / "s.zarr"
    options = replace(SMALL, levels="early,neck", batch=None)  # as a repair chooses it
    made = FeatureStore.open(extract(manifest, tmp_path / "made.zarr", options).store)
    whole = RowBatch(
        rows=np.arange(23),
        features={level: made.read(level) for level in made.levels},
        valid=made.valid,
        sha256=made.sha256,
        status=made.status,
        error=made.errors,
    )
    store = FeatureStore.create(
        path, made.fingerprint, made.levels, table_of(manifest), partition=Partition(2, 8)
    )
    store.write(whole)
    levels = list(made.levels)
    expected = decoded(path, levels)
    assert expected is not None
    rng = np.random.default_rng(0)
    counts = {"changed": 0, "found": 0, "encoded": 0}
    for number in range(FLIPS):
        files = sorted(f for f in path.rglob("*") if f.is_file())
        sizes = np.array([f.stat().st_size for f in files])
        by_size = sizes / sizes.sum() if number % 2 else None  # else metadata would hardly be hit
        file = files[rng.choice(len(files), p=by_size)]
        before = flip(file, rng)
        changed = not same(decoded(path, levels), expected)
        report = verify(path)
        counts["changed"] += changed
        counts["found"] += not report.ok
        assert not (changed and report.ok), f"flip {number} in {file} was not found"
        if report.ok:
            file.write_bytes(before)
        elif number % ENCODED:
            lost = prepare_repair(path, report, table_of(manifest))
            FeatureStore.open(path, mode="r+").write(pick(whole, lost))
        else:
            counts["encoded"] += len(repair(manifest, str(path)).encoded)
        assert same(decoded(path, levels), expected), f"flip {number} in {file} was not repaired"
        assert verify(path).ok
    print(counts)  # noqa: T201 - the figures of a run that takes minutes
    assert counts["changed"] > FLIPS / 2
    assert counts["encoded"]
    assert (FeatureStore.open(path).status == DONE).sum() == 22
