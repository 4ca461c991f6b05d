"""Pictures of sweeps of any size, and the data-efficiency curve behind one of them."""

import math
import xml.etree.ElementTree as ET
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.stats import ttest_1samp, ttest_rel
from support.sweeps import record

from samcls.config import digest
from samcls.learn.runs.folder import Run
from samcls.learn.settings import TrainConfig
from samcls.sweep.efficiency import efficiency
from samcls.sweep.leaderboard import Row, leaderboard
from samcls.sweep.plots import (
    PICTURES,
    Searched,
    data_efficiency,
    learning_curves,
    marginals,
    plot_sweep,
)
from samcls.sweep.space import Space, parse_space

WIDE = (
    "runs = {}\nseed = 3\n[fixed]\nepochs = 4\n"
    "[[space]]\nhead = ['slca']\nreduction = [4, 8, 16]\ngate_bias = [true, false]\n"
    "levels = [['neck'], ['early', 'neck'], ['patch', 'early', 'middle', 'late', 'neck']]\n"
    "learning_rate = {{low = 1e-4, high = 3e-2, log = true}}\n"
    "[[space]]\nhead = ['linear', 'mlp']\ndropout = {{low = 0.0, high = 0.5}}\n"
)
SHARES = (
    "search = 'grid'\nseeds = 4\nfractions = [0.1, 0.5, 1.0]\n[fixed]\nepochs = 1\n"
    "[space]\nhead = ['slca', 'linear']\ndropout = [0.0, 0.1]\n"
)


def sweep(space: Space) -> tuple[list[Row], dict[str, Run]]:
    records = {}
    for i, trial in enumerate(space.trials()):
        for j, member in enumerate(trial.members):
            strength = member.train_fraction * (1.5 if member.head == "slca" else 1.0)
            one = record(member, strength, images=30, draw=100 * i + j)
            records[one.key] = one
    return leaderboard(records, space), records


def texts(figure: Figure) -> str:
    return " ".join(text.get_text() for text in figure.findobj(mpl.text.Text))


@pytest.mark.parametrize(("runs", "expected"), [(1, 1), (3, 2), (40, 2)])
def test_a_sweep_of_any_size_is_drawn(runs: int, expected: int, tmp_path: Path) -> None:
    """Each picture is a whole SVG and a PNG; of a single run there is nothing to compare."""
    space = parse_space(WIDE.format(runs))
    rows, records = sweep(space)
    written = plot_sweep(tmp_path, Searched(rows, records, space))
    assert len(written) == 2 * expected
    for path in written:
        assert path.parent == tmp_path / "plots"
        if path.suffix == ".svg":
            assert ET.parse(path).getroot().tag.endswith("svg")  # noqa: S314 # our own file
        else:
            assert path.read_bytes().startswith(b"\x89PNG")


def test_the_same_sweep_gives_the_same_picture(tmp_path: Path) -> None:
    """An SVG hangs on its sweep alone: it can be compared and kept under version control."""
    space = parse_space(WIDE.format(12))
    rows, records = sweep(space)
    first, second = (plot_sweep(tmp_path / name, Searched(rows, records, space)) for name in "ab")
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_a_picture_is_a_function_and_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands in the registry is drawn beside the others."""

    def seconds(searched: Searched) -> Figure:
        figure = Figure()
        figure.subplots().plot([row.seconds for row in searched.rows])
        return figure

    monkeypatch.setitem(PICTURES, "seconds", seconds)
    space = parse_space(WIDE.format(3))
    written = plot_sweep(tmp_path, Searched(*sweep(space), space))
    assert {"seconds.svg", "seconds.png", "marginals.svg"} <= {path.name for path in written}


def test_nothing_ranked_draws_nothing(tmp_path: Path) -> None:
    """No empty pictures."""
    assert plot_sweep(tmp_path, Searched([], {}, parse_space(WIDE.format(3)))) == []
    assert not (tmp_path / "plots").exists()


def test_marginals_show_each_setting_for_those_that_read_it() -> None:
    """A panel a setting, logarithmic as it was drawn, holding the points of its own heads."""
    space = parse_space(WIDE.format(40))
    rows, _ = sweep(space)
    figure = marginals(rows, space)
    panels = {panel.get_xlabel(): panel for panel in figure.axes if panel.get_visible()}
    assert set(panels) == {
        "head", "reduction (channels / hidden)", "gate bias", "levels", "learning rate",
        "dropout (share)",
    }  # fmt: skip
    assert panels["learning rate"].get_xscale() == "log"
    assert panels["dropout (share)"].get_xscale() == "linear"
    counts = {"slca": sum(row.configuration.head == "slca" for row in rows)}
    for key, number in (
        ("learning rate", counts["slca"]),
        ("dropout (share)", 40 - counts["slca"]),
    ):
        points = sum(len(c.get_offsets()) for c in panels[key].collections)
        winner_is_here = (rows[0].configuration.head == "slca") == (key == "learning rate")
        assert points == number + winner_is_here
    levels = [text.get_text() for text in panels["levels"].get_xticklabels()]
    assert "early +\nneck" in levels
    assert {"yes", "no"} == {t.get_text() for t in panels["gate bias"].get_xticklabels()}
    assert {"slca", "linear", "mlp", "median", "winner"} <= set(texts(figure).split())


def test_many_values_are_cut_to_the_best() -> None:
    """Of 31 combinations of levels the twelve with the best medians are shown, and it says so."""
    names = ["patch", "early", "middle", "late", "neck"]
    subsets = [[n for i, n in enumerate(names) if bits >> i & 1] for bits in range(1, 32)]
    space = parse_space(f"search = 'grid'\n[fixed]\nepochs = 1\n[space]\nlevels = {subsets}\n")
    rows, _ = sweep(space)
    (panel,) = marginals(rows, space).axes
    assert panel.get_title() == "best 12 of 31 values"
    assert len(panel.get_xticks()) == 12
    assert sum(len(c.get_offsets()) for c in panel.collections if len(c.get_offsets())) >= 12


def test_learning_curves_name_winner_and_others() -> None:
    """The winner, the next nine and the rest are told apart."""
    space = parse_space(WIDE.format(25))
    rows, records = sweep(space)
    said = texts(learning_curves(rows, records))
    for words in ("winner", "ranks 2 to 10", "15 others", "epoch chosen", "validation loss (nats)"):
        assert words in said


def test_drawing_leaves_no_global_state(tmp_path: Path) -> None:
    """A notebook's own style and figures are as they were."""
    before = dict(mpl.rcParams)
    space = parse_space(WIDE.format(3))
    plot_sweep(tmp_path, Searched(*sweep(space), space))
    assert dict(mpl.rcParams) == before


def test_efficiency_follows_each_heads_best_configuration() -> None:
    """Means, Student's intervals and paired differences are SciPy's, over the same seeds."""
    space = parse_space(SHARES)
    rows, records = sweep(space)
    points = efficiency(rows, records, space)
    assert [(point.head, point.fraction) for point in points] == [
        (head, share) for head in ("slca", "linear") for share in (0.1, 0.5, 1.0)
    ]
    best = {}
    for row in rows:
        best.setdefault(row.configuration.head, row.configuration)

    def aucs(config: TrainConfig, share: float) -> list[float]:
        members = space.trial(config, (share,)).members
        return [records[digest(member)].auc or math.nan for member in members]

    for point in points:
        found = aucs(best[point.head], point.fraction)
        assert point.configuration == digest(best[point.head])
        assert (point.auc, point.runs) == (pytest.approx(np.mean(found)), 4)
        expected = ttest_1samp(found, 0).confidence_interval(0.95)
        assert point.interval == pytest.approx((expected.low, expected.high))
        if point.head == "slca":
            assert point.difference is None
            continue
        leading = aucs(best["slca"], point.fraction)
        gap = ttest_rel(found, leading).confidence_interval(0.95)
        assert point.difference == pytest.approx(np.mean(found) - np.mean(leading))
        assert point.difference_interval == pytest.approx((gap.low, gap.high))
    assert points[0].to_dict()["interval"] == list(points[0].interval or ())


def test_efficiency_leaves_out_what_is_missing() -> None:
    """A share at which a run is missing has no point, and a single seed no interval."""
    space = parse_space(SHARES.replace("seeds = 4", "seeds = 1"))
    rows, records = sweep(space)
    lost = space.trial(rows[0].configuration, (0.5,)).members[0]
    del records[digest(lost)]
    points = efficiency(rows, records, space)
    shares = [point.fraction for point in points if point.head == rows[0].configuration.head]
    assert shares == [0.1, 1.0]
    assert all(point.interval is None and point.runs == 1 for point in points)
    assert efficiency([], {}, space) == []


def test_the_curve_shows_shares_and_heads(tmp_path: Path) -> None:
    """A line for each head over the shares in per cent; a sweep with shares draws it."""
    space = parse_space(SHARES)
    rows, records = sweep(space)
    points = efficiency(rows, records, space)
    figure = data_efficiency(points)
    figure.draw_without_rendering()
    (panel,) = figure.axes
    assert [t.get_text() for t in panel.get_xticklabels()] == ["10 %", "50 %", "100 %"]
    assert len(panel.containers) == 2
    assert "mean of 4 runs (seeds and folds); bars: 95 % over these runs" in texts(figure)
    searched = Searched(rows, records, space, {"validation": points})
    names = {path.name for path in plot_sweep(tmp_path, searched)}
    assert {"data_efficiency.svg", "data_efficiency.png"} <= names
