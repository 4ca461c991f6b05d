"""Figures by each of the manifest's columns: how many images, and how far a subgroup is from all others."""

from collections.abc import Iterator

from samcls.report.about import About
from samcls.report.blocks import Block, Cell, Table, chance, count, figure, interval, shortened
from samcls.report.gaps import FEWEST_EVENTS, FEWEST_IMAGES
from samcls.report.pictures.tables import forest

__all__ = ["subgroups"]


def subgroups(about: About) -> Iterator[Block]:
    """Yield a table of each task's subgroups, and the gaps as a picture."""
    _ = about.subject.columns  # every task needs them, so it is said once
    yield from about.each("subgroups", _of_task)


def _of_task(about: About, task: str) -> Iterator[Block]:
    gaps = about.results.gaps(task)
    answers = about.subject.answers(task)
    told = [gap for gap in gaps if not gap.withheld]
    rows = []
    for gap in gaps:
        source = f"{answers.source}#subgroup/{task}/{gap.column}/{gap.part}"
        cells = (
            figure(gap.auc, f"{source}/auc"), figure(gap.rest, f"{source}/rest"),
            figure(gap.gap, f"{source}/gap", sign=True), interval(gap.interval, f"{source}/interval", sign=True),
            chance(gap.p, f"{source}/p"), figure(gap.sensitivity, f"{source}/sensitivity"),
            figure(gap.specificity, f"{source}/specificity"),
        )  # fmt: skip
        if gap.withheld:
            cells = (Cell(f"withheld: {gap.withheld}"), *(Cell("") for _ in cells[1:]))  # type: ignore[assignment]
        rows.append(
            (
                shortened(gap.column), shortened(gap.part),
                count(gap.images, f"{source}/images"), count(gap.events, f"{source}/events"), *cells,
            )
        )  # fmt: skip
    events = (
        f"of {shortened(answers.classes[1])}" if answers.binary else "not of the commonest class"
    )
    yield Table(
        f"Subgroups{about.of(task)}",
        (
            "column",
            "subgroup",
            "images",
            events,
            "AUC",
            "AUC of all others",
            "gap",
            "95 % of the gap",
            "p",
            "sensitivity",
            "specificity",
        ),
        tuple(rows),
        f"Gaps are a subgroup's AUC less that of all other images, over 1,000 resamples of groups; intervals and p are corrected for "
        f"the {len(told)} looked at (Bonferroni). Withheld below {FEWEST_IMAGES} images or {FEWEST_EVENTS} of a class. Sensitivity "
        "and specificity: at the one threshold of the run.",
        (0, 1),
    )
    lines = [
        (f"{gap.column}: {gap.part} ({gap.images})", gap.gap, gap.interval)
        for gap in told
        if gap.gap is not None
    ]
    if lines:
        yield about.picture(
            f"subgroups-{task}",
            "subgroups",
            lambda: forest(
                f"Gaps between subgroups{about.of(task)}", lines, "AUC less that of all other images", answers.source,
                "Each subgroup beside all other images, with the interval that holds for all of them together; 0 is no gap.", 0.0,
            ),
        )  # fmt: skip
