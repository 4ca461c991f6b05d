"""Features that another store has of a picture are copied, not encoded again, and are the same bits."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from samcls.data.manifest import Manifest, read_manifest
from samcls.encode.extract import ExtractOptions, extract
from samcls.encode.sam import SamEncoder
from samcls.errors import ConfigError, FingerprintMismatch, StoreError
from samcls.store.feature_store import FeatureStore
from samcls.store.verify import verify

OPTIONS = ExtractOptions(encoder="vit_t", size=64, levels="neck", window=2, batch=2, device="cpu")
IMAGES = 9


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Nine pictures."""
    rng = np.random.default_rng(0)
    lines = ["id,path,split,label"]
    for i in range(IMAGES):
        pixels = rng.integers(0, 256, (30 + i, 64 - i, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        lines.append(f"image{i},{i}.png,{('train', 'train', 'val', 'test')[i % 4]},{'ab'[i % 2]}")
    (tmp_path / "m.csv").write_text("\n".join(lines) + "\n")
    return read_manifest(tmp_path / "m.csv")


def picked(manifest: Manifest, rows: Sequence[int], prefix: str = "") -> Manifest:
    chosen = [manifest.rows[row] for row in rows]
    return replace(
        manifest, rows=tuple(replace(row, id=prefix + row.id, group="") for row in chosen)
    )


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures the encoder was given, by batch."""
    given: list[int] = []
    forward = SamEncoder.forward

    def counted(
        self: SamEncoder, frames: torch.Tensor, valid: Sequence[tuple[int, int]]
    ) -> dict[str, torch.Tensor]:
        given.append(sum(extent != (0, 0) for extent in valid))
        return forward(self, frames, valid)

    monkeypatch.setattr(SamEncoder, "forward", counted)
    return given


def same_rows(store: FeatureStore, rows: list[int], old: FeatureStore) -> None:
    """The first rows of a store hold what rows of another do."""
    here = slice(0, len(rows))
    np.testing.assert_array_equal(store.read("neck", here), old.read("neck", rows))
    np.testing.assert_array_equal(store.sha256[here], old.sha256[rows])
    np.testing.assert_array_equal(store.valid[here], old.valid[rows])


def test_a_part_in_another_order_is_copied_bit_for_bit(
    manifest: Manifest, tmp_path: Path, encoded: list[int]
) -> None:
    """Rows are found by their pixels, whatever their ids: nothing is encoded, and the summary says so."""
    old = FeatureStore.open(extract(manifest, tmp_path / "old.zarr", OPTIONS).store)
    encoded.clear()
    rows = [8, 2, 5, 0]
    options = replace(OPTIONS, reuse=(old.path,), precision="auto")
    summary = extract(picked(manifest, rows, "other"), tmp_path / "new.zarr", options)
    assert (summary.done, summary.reused, summary.skipped, sum(encoded)) == (4, 4, 0, 0)
    store = FeatureStore.open(summary.store)
    assert store.ids == [f"otherimage{row}" for row in rows]
    same_rows(store, rows, old)
    assert verify(summary.store).ok


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_two_stores_are_joined_and_the_rest_is_encoded(
    manifest: Manifest, tmp_path: Path, encoded: list[int], workers: int
) -> None:
    """Of a picture that both have the first one's is taken; a repeated picture is reused too."""
    a = extract(picked(manifest, range(4)), tmp_path / "a.zarr", OPTIONS).store
    b = extract(picked(manifest, range(2, 7)), tmp_path / "b.zarr", OPTIONS).store
    encoded.clear()
    options = replace(OPTIONS, reuse=(a, b), workers=workers)
    summary = extract(manifest, tmp_path / "both.zarr", options)
    assert (summary.done, summary.reused) == (IMAGES, 7)
    assert sum(encoded) == (2 if workers == 1 else 0)
    store = FeatureStore.open(summary.store)
    np.testing.assert_array_equal(
        store.read("neck", slice(0, 4)), FeatureStore.open(a).read("neck")
    )
    np.testing.assert_array_equal(
        store.read("neck", slice(4, 7)), FeatureStore.open(b).read("neck", slice(2, 5))
    )
    assert verify(summary.store).ok


def test_an_extract_that_reuses_is_resumed(
    manifest: Manifest, tmp_path: Path, encoded: list[int]
) -> None:
    """Cut off, it goes on where it stopped, with or without the other store."""
    old = extract(manifest, tmp_path / "old.zarr", OPTIONS).store
    encoded.clear()
    options = replace(OPTIONS, reuse=(old,), flush_seconds=0.0)

    def stop(done: int, *_: int) -> None:
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(manifest, tmp_path / "new.zarr", options, progress=stop)
    summary = extract(manifest, tmp_path / "new.zarr", options)
    assert summary.skipped >= 2
    assert summary.skipped + summary.reused == summary.done == IMAGES
    assert not encoded
    same_rows(FeatureStore.open(summary.store), list(range(IMAGES)), FeatureStore.open(old))


def test_stores_that_cannot_be_reused_are_refused(manifest: Manifest, tmp_path: Path) -> None:
    """Other settings are told side by side; the store itself, none, and damage by their names."""
    old = extract(manifest, tmp_path / "old.zarr", OPTIONS).store
    new = tmp_path / "new.zarr"
    with pytest.raises(FingerprintMismatch, match="window"):
        extract(manifest, new, replace(OPTIONS, window=4, reuse=(old,)))
    with pytest.raises(ConfigError, match=r"--reuse names .*old\.zarr, the store that is written"):
        extract(manifest, old, replace(OPTIONS, reuse=(old,)))
    with pytest.raises(StoreError, match=r"no feature store at .*none\.zarr"):
        extract(manifest, new, replace(OPTIONS, reuse=(str(tmp_path / "none.zarr"),)))
    assert not new.exists()
    shard = next(f for f in Path(old, "features").rglob("c/*/0/0/0/0") if f.is_file())
    shard.unlink()
    with pytest.raises(StoreError, match=r"old\.zarr: level neck lacks the features"):
        extract(manifest, new, replace(OPTIONS, reuse=(old,)))
