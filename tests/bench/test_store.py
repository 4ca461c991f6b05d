"""The store's benchmark, small."""

from pathlib import Path

from samcls.bench.store import bench_store


def test_every_alternative_is_measured_and_nothing_is_left(tmp_path: Path) -> None:
    """One run compares writing, reading, verifying, disk and codecs, and removes what it made."""
    (tmp_path / "work").mkdir()
    table = bench_store(megabytes=3, repeats=1, folder=tmp_path / "work")
    rows = {row.measure: row for row in table.rows}
    for name in ("samcls, none", "zarr-python, none", "one .npy an image", "one .pt an image"):
        assert rows[f"write, {name}"].value > 0
        for order in ("in shard order", "shuffled"):
            assert rows[f"read {order}, {name}"].ratio is not None
    assert rows["read whole, samcls, none"].baseline == "numpy.load"
    assert (
        rows["codec none, payload / disk"].value
        < rows["codec zstd-3-bit, payload / disk"].value * 2
    )
    assert not list((tmp_path / "work").iterdir())
