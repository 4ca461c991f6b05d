"""An evaluation on another data set: what is different there, and what recalibration would do."""

from collections.abc import Iterator

from samcls.report.about import About
from samcls.report.blocks import (
    Block,
    Cell,
    Part,
    Table,
    Text,
    figure,
    from_table,
    interval,
    shortened,
)
from samcls.report.places import pointer, table_of
from samcls.report.subject import CannotShow

__all__ = ["elsewhere"]

FIGURES = {
    "auc": "AUC",
    "average_precision": "average precision",
    "sensitivity_at_threshold": "sensitivity at the threshold",
    "specificity_at_threshold": "specificity at the threshold",
    "balanced_accuracy": "balanced accuracy",
    "brier": "Brier score",
}
AFTER = {
    "sensitivity_at_threshold": "sensitivity",
    "specificity_at_threshold": "specificity",
    "ece_scaled": "calibration error",
    "brier": "Brier score",
}


def elsewhere(about: About) -> Iterator[Block]:
    """Yield figures here and inside, shares of classes, drift, and recalibration."""
    yield from about.each("here and inside", _here)
    yield from about.each("shares of classes", _shares)
    yield from about.attempt("how unfamiliar the images are", lambda: _drift(about))
    yield from about.attempt("recalibration", lambda: _recalibrated(about))


def _here(about: About, task: str) -> Iterator[Block]:
    found = about.subject.evaluation
    rows: list[tuple[Part, ...]] = []
    for name, title in FIGURES.items():
        cells: list[Cell] = []
        for kind in ("figures", "inside"):
            cells += from_table(*table_of(found[kind], f"{about.subject.file}#/{kind}", task), name)
        between = found["difference"][task].get(name, {})
        place = pointer(f"{about.subject.file}#/difference", task, name)
        cells += [
            figure(between.get("difference"), f"{place}/difference", sign=True),
            interval(between.get("interval"), f"{place}/interval", sign=True),
        ]
        if cells[0].value is not None:
            rows.append((title, *cells))
    yield Table(
        f"Here and inside{about.of(task)}",
        ("", "here", "95 %", "inside", "95 %", "difference", "95 %"),
        tuple(rows),
        "Inside: the run's own test images. Differences of two sets of images, by the method of variance estimates recovery.",
    )


def _shares(about: About, task: str) -> Iterator[Block]:
    shares = about.subject.evaluation["shares"].get(task, {})
    place = pointer(f"{about.subject.file}#/shares", task)
    kinds = ("here", "inside", "predicted")
    yield Table(
        f"How common each class is{about.of(task)}",
        ("class", "here", "inside", "mean probability here"),
        tuple(
            (
                shortened(name),
                *(figure(one[kind], f"{pointer(place, name)}/{kind}") for kind in kinds),
            )
            for name, one in list(shares.items())[:100]
        ),
        "Shares of the labels here and among the run's own test images; probabilities that do not follow are a matter of "
        "calibration.",
    )


def _drift(about: About) -> Iterator[Block]:
    found = about.subject.evaluation.get("drift")
    if not found:
        raise CannotShow(
            "the run keeps no digests of its training images, being of a sweep or an earlier version"
        )
    place = f"{about.subject.file}#/drift"
    yield Text(
        (
            "Of the images here ", figure(100 * found["beyond_95"], f"{place}/beyond_95", 1),
            " % lie beyond the 95th percentile of training's distances (by chance 5 %); the median one lies at the ",
            figure(found["median_percentile"], f"{place}/median_percentile", 0), "th percentile (by chance the 50th).",
        )
    )  # fmt: skip


def _recalibrated(about: About) -> Iterator[Block]:
    found = about.subject.evaluation.get("recalibrated")
    if not found:
        raise CannotShow(
            "none was asked for: samcls evaluate --recalibrate 0.2 fits temperature and threshold on a part"
        )
    for task in about.subject.tasks:
        rows: list[tuple[Part, ...]] = []
        for name, title in AFTER.items():
            cells: list[Cell] = []
            for when in ("before", "after"):
                base = f"{about.subject.file}#/recalibrated/{when}"
                table, place = table_of(found[when], base, task)
                cells.append(figure(table.get(name), f"{place}/{name}"))
            rows.append((title, *cells))
        yield Table(
            f"Recalibrated{about.of(task)}",
            ("", "before", "after"),
            tuple(rows),
            f"Temperature and threshold fitted on {found['fitted_on']} images ({found['part']}); figures are of the other {found['scored']}.",
        )
