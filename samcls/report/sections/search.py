"""A sweep: what was tried, how it ranks, and what choosing the best of it is worth."""

from collections.abc import Iterator

from samcls.report.about import About
from samcls.report.blocks import Block, Cell, Part, Table, Text, count, figure, interval, shortened
from samcls.report.pictures.searched import settings
from samcls.report.subject import CannotShow

__all__ = ["search"]

MOST = 20  # configurations of the table


def search(about: About) -> Iterator[Block]:
    """Yield the corrected figure of the winner, the leaderboard and the settings."""
    board = about.subject.board
    chosen = board.get("selection", {})
    file = "leaderboard.json"
    yield Text(
        (
            "Between ", count(chosen["tried"], f"{file}#/selection/tried"), " configurations validation prefers one with AUC ",
            figure(chosen["auc"], f"{file}#/selection/auc"), "; without the luck of that choice it is ",
            figure(chosen["corrected"], f"{file}#/selection/corrected"), " (95 % ",
            interval(chosen["interval"], f"{file}#/selection/interval"), ", bootstrap-bias-corrected, Tsamardinos et al. 2018, on ",
            count(chosen["images"], f"{file}#/selection/images"), " images).",
        )
    )  # fmt: skip
    rows = [row for row in board["rows"] if row["rank"] is not None]
    lost = [row for row in board["rows"] if row["rank"] is None]
    names = _varied(rows)
    lines = []
    for place, row in enumerate(board["rows"]):
        if row["rank"] is None or row["rank"] > MOST:
            continue
        where = f"{file}#/rows/{place}"
        cells: list[Part] = [count(row["rank"], f"{where}/rank")]
        cells += [
            _setting(row["configuration"].get(name), f"{where}/configuration/{name}")
            for name in names
        ]
        cells += [
            count(row["n"], f"{where}/n"),
            figure(row["auc"], f"{where}/auc"),
            figure(row["auc_std"], f"{where}/auc_std"),
        ]
        lines.append(
            (
                *cells,
                figure(row["loss"], f"{where}/loss"),
                figure(row["seconds"], f"{where}/seconds", 1),
            )
        )
    rest = len(rows) - len(lines)
    yield Table(
        "Leaderboard, by validation",
        ("rank", *names, "runs", "AUC", "± over runs", "loss", "seconds"),
        tuple(lines),
        (f"{rest} more are in leaderboard.json. " if rest > 0 else "")
        + (f"{len(lost)} configurations have no rank: runs failed or are missing. " if lost else "")
        + "Of equals the one with the smaller loss stands first. The test split was scored for the winner alone.",
        (),
    )
    drawing = about.attempt("settings", lambda: _settings(about))
    yield from drawing


def _settings(about: About) -> Iterator[Block]:
    picture = about.picture("settings", "settings", lambda: _drawn(about))
    yield picture


def _drawn(about: About):  # type: ignore[no-untyped-def]
    found = settings(about.subject.path)
    if found is None:
        raise CannotShow("no setting varied")
    return found


def _varied(rows: list[dict]) -> list[str]:  # type: ignore[type-arg]
    """Return the settings that are not the same in all configurations."""
    names = rows[0]["configuration"] if rows else {}
    return [
        name for name in names if len({str(row["configuration"].get(name)) for row in rows}) > 1
    ]


def _setting(value: object, source: str) -> Part:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return shortened(", ".join(map(str, value)) if isinstance(value, list) else value)
    return Cell(f"{value:g}", float(value), source)
