"""What a sweep found, as Python and JSON know it.

result = sweep("features.zarr", "sweep", space)
result.best["test"]["auc"], result.to_dict()
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

from samcls.learn.score.headline import headlines
from samcls.sweep.leaderboard import Row

__all__ = ["SweepResult"]


@dataclass(frozen=True)
class SweepResult:
    """What a sweep found.

    Attributes:
        sweep: Its folder.
        runs: Runs that the space has asked for so far.
        finished: Those that are done, now or before.
        failed: Those that failed, with their reasons in their folders.
        made: Runs that were trained now.
        seconds: Wall time of training them, scoring and plotting left out.
        runs_a_minute: Of the runs made now; None where there were none.
        configurations: Configurations that have a rank.
        selection: What `select` says of the choice: the winner's validation AUC and its corrected one.
        best: The winner: `config`, `validation` and `test` (each a table of figures), `figures` (what
            `samcls train` says of it, baselines included), `run` (its folder) and `test_opened`
            (winners of this folder that the test split was scored for).
        rows: The leaderboard.
        efficiency: Where the space has shares, the data-efficiency curve on `validation` and `test`, and
            the `outlook` at twice the images.
        failures: (digest, reason) of each failed run.
    """

    sweep: str
    runs: int
    finished: int
    failed: int
    made: int
    seconds: float
    runs_a_minute: float | None
    configurations: int
    selection: dict[str, Any]
    best: dict[str, Any]
    rows: tuple[Row, ...]
    efficiency: dict[str, Any]
    failures: tuple[tuple[str, str], ...]

    def __repr__(self) -> str:
        """How many runs there were, and what the winner is and scores."""
        first = (
            f"SweepResult of {self.sweep}: {self.finished} of {self.runs} runs finished, "
            f"{self.failed} failed, {self.made} made now in {self.seconds:.1f} s"
        )
        chosen = f"{self.configurations} configurations ranked; the best is in {self.best['run']}"
        return "\n  ".join([first, chosen, *headlines(self.best)])

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON knows them."""
        plain = asdict(replace(self, rows=()))
        return plain | {"rows": [row.to_dict() for row in self.rows]}
