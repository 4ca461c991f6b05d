"""Benches measure, and what they print is what scripts may rely on."""

from samcls.bench.encoder import bench_encoder


def test_the_encoder_bench_compares_with_the_reference() -> None:
    """Speed and memory stand beside the reference's, and every level's distance is small."""
    bench = bench_encoder("vit_t", size=128, repeats=1, device="cpu").to_dict()
    assert bench["bench"] == "encoder"
    assert bench["machine"]["cores"] >= 1
    rows = {row["measure"]: row for row in bench["rows"]}
    assert rows["fast path float32"]["ratio"] > 0
    assert rows["fast path float32"]["baseline"] == "segment_anything float32"
    for level in ("patch", "early", "middle", "late", "neck"):
        assert rows[f"fast path float32, {level}: relative difference"]["value"] < 1e-5
        assert rows[f"fast path bfloat16, {level}: cosine"]["value"] > 0.999
    assert rows["fast path bfloat16, neck: relative difference"]["value"] > 1e-4
    assert rows["fast path float32, --levels early, share of the time"]["value"] > 0
