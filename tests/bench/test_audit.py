"""Planted twins and wrong labels are measured as they are defined."""

from pathlib import Path

import pytest
from support.deployed import deployed

from samcls.bench.audit import average_precision, bench_audit


def test_average_precision_counts_what_is_not_listed() -> None:
    """Scikit-learn's where all is listed; what is missing lowers it."""
    metrics = pytest.importorskip("sklearn.metrics")
    ranked = [True, True, False, True, False]
    expected = metrics.average_precision_score(ranked, [5, 4, 3, 2, 1])
    assert average_precision(ranked, 3)[0] == pytest.approx(expected)
    assert average_precision(ranked, 6) == pytest.approx((expected / 2, 2 / 6))
    assert average_precision([], 3) == (0.0, 0.0)


def test_the_bench_measures_every_way_of_finding(tmp_path: Path) -> None:
    """Pictures alone, features, both, and labels, on a small data set."""
    made = deployed(tmp_path)
    (tmp_path / "00.png").write_bytes((tmp_path / "01.png").read_bytes())
    few = tmp_path / "few.csv"
    lines = (made.root / "manifest.csv").read_text().splitlines()[:25]  # of every split and class
    few.write_text("\n".join(lines) + "\n")
    bench = bench_audit(few, encoders=("vit_t",), originals=4, rows=2000)
    values = {row.measure: row.value for row in bench.rows}
    assert values["pictures alone, samcls audit MANIFEST: average precision"] > 0.5
    assert {"vit_t with pictures, seconds", "vit_t features alone: average precision"} <= set(
        values
    )
    assert "vit_t SelfClean's rule: recall at precision 0.9" in values
    assert 0 <= values["vit_t, 20 % wrong labels: average precision"] <= 1
