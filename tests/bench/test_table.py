"""The benchmarks' common record."""

import json

from samcls.bench.table import Bench, measure


def test_a_table_has_the_promised_keys_and_leaves_out_what_says_nothing() -> None:
    """JSON holds bench, machine and rows; only a compared figure has a baseline and a ratio."""
    table = Bench("store", [measure("a", 3.0, "GB/s", "b", 2.0), measure("b", 2.0, "GB/s")])
    values = json.loads(json.dumps(table.to_dict()))
    assert values["bench"] == "store"
    assert values["rows"][0] == {
        "measure": "a",
        "value": 3.0,
        "unit": "GB/s",
        "baseline": "b",
        "ratio": 1.5,
    }
    assert values["rows"][1] == {"measure": "b", "value": 2.0, "unit": "GB/s"}
    assert values["machine"]["cores"] >= 1
    assert values["machine"]["packages"]["numpy"]
