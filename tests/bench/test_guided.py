"""The bench of guided networks counts what is added and times steps side by side."""

import pytest

from samcls.bench.guided import bench_guided
from samcls.errors import ConfigError


def test_gates_stand_beside_the_plain_network_and_too_dear_ones_beside_cheaper() -> None:
    """Every count names its reduction; a network that one halves too much gets a larger one."""
    bench = bench_guided(
        ("test_resnet",), "vit_t", 4, 2, "test_resnet", size=32, batch=4, steps=1, device="cpu"
    ).to_dict()
    rows = {row["measure"]: row for row in bench["rows"]}
    label = "test_resnet at 160"
    assert rows[f"{label}: parameters"]["value"] == pytest.approx(0.4, abs=0.1)
    dear = rows[f"{label}: parameters added, reduction 2"]["value"]
    assert dear > 5
    cheap = [row["value"] for name, row in rows.items() if f"{label}: parameters added" in name][1:]
    assert len(cheap) == 1
    assert cheap[0] <= 5
    plain = "step of test_resnet at 32, 4 images: plain"
    gated = rows["step of test_resnet at 32, 4 images: gated by SLCA, window 4"]
    assert gated["baseline"] == plain
    assert gated["ratio"] == pytest.approx(gated["value"] / rows[plain]["value"])
    more = [row["ratio"] for name, row in rows.items() if "gated by SLCA" in name]
    assert all(ratio > 1.1 for ratio in more[:-1])


def test_unknown_networks_are_said_before_anything_is_measured() -> None:
    """The error names what timm knows."""
    with pytest.raises(ConfigError, match="timm knows no model 'resnet1520'"):
        bench_guided(("resnet1520",))
