"""What twice the images would bring, from a sweep's own shares."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from samcls.cli import app
from samcls.learn.score.power_law import fit_power_law
from samcls.store.feature_store import FeatureStore
from samcls.sweep.outlook import Outlook
from samcls.sweep.space import parse_space
from samcls.sweep.sweep import sweep

MakeStore = Callable[..., FeatureStore]
SPACE = """
search = "grid"
seeds = 3
fractions = [0.2, 0.4, 0.7, 1.0]
[fixed]
intervals = 0
[space]
head = ["logistic", "knn"]
"""


def test_a_sweep_of_shares_looks_ahead_and_checks_itself(
    make_store: MakeStore, tmp_path: Path
) -> None:
    """The law through the test figures of each head; the last share foreseen from the others."""
    store = make_store(200, strength=1.0, groups=[""] * 200)
    result = sweep(store.path, tmp_path / "sweep", parse_space(SPACE))
    points = result.efficiency["test"]
    assert len(result.efficiency["outlook"]) == 2
    for one in result.efficiency["outlook"]:
        own = [point for point in points if point["head"] == one["head"]]
        assert one["measured"] == pytest.approx(own[-1]["auc"])
        low, high = one["interval"]
        assert low <= one["auc"] <= high
        low, high = one["foreseen_interval"]
        assert one["held"] == (low <= one["measured"] <= high)
    (tmp_path / "space.toml").write_text(SPACE)
    shown = CliRunner().invoke(
        app, ["sweep", store.path, str(tmp_path / "sweep"), "--space", str(tmp_path / "space.toml")]
    )
    assert shown.exit_code == 0, shown.output
    assert "training images; with twice as many about" in shown.output
    assert "was foreseen for all of them, which" in shown.output


def test_a_check_that_fails_says_so() -> None:
    """In capitals: an outlook that missed what was there is not to be counted on."""
    curve = np.array([[0.6, 0.61, 0.6, 0.7], [0.61, 0.6, 0.61, 0.7]])
    law = fit_power_law([0.1, 0.2, 0.5], 100.0, curve[:, :-1])
    foreseen, around = law.at(100.0, another=False)
    one = Outlook("logistic", 100.0, 0.75, (0.7, 0.8), foreseen, around, 0.9)
    assert one.held is False
    assert "which DID NOT HOLD" in str(one)
    assert Outlook("logistic", 100.0, 0.75, (0.7, 0.8), None, None, 0.7).held is None
