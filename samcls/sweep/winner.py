"""The winner of a sweep: trained as `samcls train` would, and scored on the test split, once.

best = score_winner(store, Path("sweep"), space, rows[0], tried=120, device="cpu", log=print)
best["test"]["auc"], best["test_opened"]
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from samcls.learn.runs.folder import MARK, load_run
from samcls.learn.runs.repeats import train_repeats
from samcls.learn.runs.train import train
from samcls.store.feature_store import FeatureStore
from samcls.sweep.leaderboard import Row
from samcls.sweep.space import Space

__all__ = ["place_for", "score_winner"]

WINNER = "winner"

Log = Callable[[str], None]


def score_winner(
    store: FeatureStore,
    folder: Path,
    space: Space,
    winner: Row,
    tried: int,
    device: str,
    log: Log,
    *,
    allow_leak: bool = False,
    strict: bool = False,
) -> dict[str, Any]:
    """Train the winner as `samcls train` would, with its baselines, and open the test split.

    Args:
        store: The sweep's.
        folder: The sweep's; the run is kept in its folder `winner`.
        space: Says how many seeds and folds, and which share is the largest.
        winner: First of the leaderboard.
        tried: Configurations that validation chose between.
        device: Where it is trained.
        log: Called with a sentence on anything that a user should know.
        allow_leak: As for `train`.
        strict: As for `train`.

    Returns:
        `config`, `key`, `validation`, `test`, `figures`, `run`, and `test_opened`: how many winners of
        this folder the test split has been opened for.
    """
    config = replace(winner.configuration, train_fraction=space.fractions[-1])
    run, opened = place_for(folder, winner.key, log)
    if not (run / MARK).exists():
        log(f"training the best of {tried} configurations as `samcls train` would, to score test")
    options: dict[str, Any] = {"device": device, "allow_leak": allow_leak, "strict": strict}
    found: dict[str, Any]
    if space.seeds > 1 or space.folds:
        found = train_repeats(
            store, config, run, log, seeds=space.seeds, folds=space.folds, **options
        )
    elif (run / MARK).exists():
        found = {"run": str(run), **load_run(run).metrics}
    else:
        found = train(store, config, run, log, **options).to_dict()
    # Validation chose between all these before it chose the winner's epoch and its baselines.
    found = {**found, "models_tried": found["models_tried"] + tried - 1}
    return {
        "config": winner.to_dict(space.varied)["configuration"],
        "key": winner.key,
        "validation": found["validation"],
        "test": found["test"],
        "figures": found,
        "run": str(run),
        "test_opened": opened,
    }


def place_for(folder: Path, key: str, log: Log) -> tuple[Path, int]:
    """Make room for a winner's run; return its folder, and for how many winners the test split was opened.

    Args:
        folder: The sweep's.
        key: Of what has won; a former winner of another one is kept beside it.
        log: Told where there was one.
    """
    place = folder / WINNER
    _set_aside(place, key)
    opened = 1 + len(list(folder.glob(f"{WINNER}-*")))
    if opened > 1:
        log(
            f"the test split is scored for the {opened}th winner of this folder: its space has "
            "changed. Report that number with the figures"
        )
    place.mkdir(exist_ok=True)
    (place / "configuration").write_text(key, encoding="utf-8")
    return place / "run", opened


def _set_aside(place: Path, key: str) -> None:
    """Keep a former winner of another configuration beside the new one."""
    mark = place / "configuration"
    former = mark.read_text(encoding="utf-8") if mark.exists() else None
    if former is not None and former != key:
        place.rename(place.with_name(f"{WINNER}-{former[:12]}"))
