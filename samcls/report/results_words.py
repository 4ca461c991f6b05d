"""Sentences on what came out: figures, claims, calibration, utility, subgroups, elsewhere.

Each yields the parts of a paragraph, numbers with their sources; one that cannot be told raises CannotShow.
"""

from collections.abc import Callable, Iterator

from samcls.learn.score.curves import Curves
from samcls.report.about import GALLERY, About
from samcls.report.blocks import Cell, Part, count, figure, from_table, interval, shortened
from samcls.report.places import pointer
from samcls.report.sections.summary import claim_parts
from samcls.report.subject import CannotShow

__all__ = [
    "calibration",
    "claims",
    "explain",
    "external",
    "failures",
    "performance",
    "robustness",
    "sample_size",
    "subgroups",
    "utility",
]

Parts = Iterator[Part]


def performance(about: About) -> Parts:
    """Yield the fact `performance`."""
    subject = about.subject
    for task in subject.tasks:
        table, place = subject.figures(task)
        auc, ends = from_table(table, place, "auc")
        if auc.value is None:
            continue
        yield from (f"AUC of {shortened(task)} was ", auc)
        if ends.value is not None:
            yield from (" (95 % ", ends, ")")
        try:
            found = about.results.operating(task)
        except CannotShow:
            found = None
        if found is not None and "sensitivity" in found.figures:
            source = f"{subject.answers(task).source}#rates/{task}"
            mean = len(subject.runs) > 1 and not subject.folds
            yield "; of the seeds' mean answer" if mean else ""
            for name in ("sensitivity", "specificity"):
                yield from (f", {name} ", figure(found.figures[name], f"{source}/{name}"))
                if found.intervals[name] is not None:
                    yield from (
                        " (",
                        interval(found.intervals[name], f"{source}/{name}_interval"),
                        ")",
                    )
        yield ". "


def claims(about: About) -> Parts:
    """Yield the fact `claims`."""
    for claim in about.results.claims.values():
        yield f"{shortened(claim.task)}: "
        yield from claim_parts(about, claim)
        yield " "


def calibration(about: About) -> Parts:
    """Yield the fact `calibration`."""
    yield from _each_binary(about, _calibration)


def _calibration(about: About, task: str) -> Parts:
    for scaled in (False, True):
        found = about.results.calibration(task, 1, scaled)
        source = f"{about.subject.answers(task).source}#calibration/{task}/1/{'scaled' if scaled else 'plain'}"
        start = (
            "at the temperature fixed on validation "
            if scaled
            else f"Calibration of {shortened(task)}: "
        )
        yield from (start, "slope ", figure(found.slope, f"{source}/slope", 2), ", intercept ")
        yield from (
            figure(found.intercept, f"{source}/intercept", 2, sign=True),
            ". " if scaled else "; ",
        )


def _each_binary(about: About, tell: Callable[[About, str], Parts]) -> Parts:
    """Yield the sentences of each task of two classes that they can be told of."""
    for task, classes in about.subject.tasks.items():
        if len(classes) == 2:
            try:
                yield from tuple(tell(about, task))
            except CannotShow:
                continue


def utility(about: About) -> Parts:
    """Yield the fact `utility`."""
    yield from _each_binary(about, _utility)


def _utility(about: About, task: str) -> Parts:
    answers = about.subject.answers(task)
    answers.need_both(1)
    curves = Curves(answers.labels == 1, answers.probabilities[:, 1], answers.groups)
    curve, everyone = curves.net_benefit(), curves.treat_all()
    useful = curve.x[(curve.y > everyone.y + 1e-9) & (curve.y > 1e-9)]
    if len(useful):
        yield (
            f"For {shortened(task)} net benefit is above both treating all and treating none at {len(useful)} of 99 thresholds, the lowest "
            f"{useful.min():g} and the highest {useful.max():g}. "
        )
    else:
        yield f"For {shortened(task)} net benefit is nowhere above both treating all and treating none. "


def sample_size(about: About) -> Parts:
    """Yield the fact `sample_size`."""
    for task, classes in about.subject.tasks.items():
        answers = about.subject.answers(task)
        table, place = about.subject.figures(task)
        yield from (
            f"{shortened(task)}: ",
            count(len(answers.labels), f"{answers.source}#count/{task}"),
            f" {about.subject.split} images",
        )
        if len(classes) == 2:
            events = int((answers.labels == 1).sum())
            yield from (
                ", ",
                count(events, f"{answers.source}#count/{task}/{classes[-1]}"),
                f" of class {shortened(classes[-1])}",
            )
        ends = table.get("auc_interval")
        if ends:
            width = ends[1] - ends[0]
            yield from (
                "; the interval of the AUC is ",
                Cell(f"{width:.3f}", width, f"{place}/auc_interval#width"),
                " wide",
            )
        yield ". "
    yield "The number of images was not chosen by a calculation of the tool's."


def subgroups(about: About) -> Parts:
    """Yield the fact `subgroups`."""
    for task in about.subject.tasks:
        gaps = about.results.gaps(task)
        told = [gap for gap in gaps if not gap.withheld]
        bad = [gap for gap in told if gap.p is not None and gap.p < 0.05]
        if not told:
            continue
        columns = ", ".join(dict.fromkeys(shortened(gap.column, 30) for gap in told))
        yield (
            f"{shortened(task)}: of {len(told)} subgroups by {columns}, {len(bad)} had an AUC that differs from all other images' by more than noise "
            "(corrected). "
        )


def failures(about: About) -> Parts:
    """Yield the fact `failures`."""
    if not about.config.worst:
        raise CannotShow("not asked for")
    yield f"The {about.config.worst} worst answers of each task by loss are listed, and the confusion is shown."


def explain(about: About) -> Parts:
    """Yield the fact `explain`."""
    if GALLERY not in about.names:
        raise CannotShow("no evidence is shown")
    yield "Evidence maps (terms of windows that sum, with the bias, to the logit) are shown of the worst answers, with the nearest training images."


def external(about: About) -> Parts:
    """Yield the fact `external`."""
    if not about.subject.external:
        raise CannotShow("not done")
    for task, table in about.subject.evaluation["difference"].items():
        one = table.get("auc")
        if one:
            place = pointer(f"{about.subject.file}#/difference", task, "auc")
            yield from (
                f"Against the run's own test images AUC of {shortened(task)} differs by ",
                figure(one["difference"], f"{place}/difference", sign=True),
            )
            if one["interval"]:
                yield from (
                    " (95 % ",
                    interval(one["interval"], f"{place}/interval", sign=True),
                    ")",
                )
            yield ". "


def robustness(about: About) -> Parts:
    """Yield the fact `robustness`."""
    subject = about.subject
    if subject.seeds < 2:
        raise CannotShow("one seed")
    seeds = subject.seeds
    folds = f" and {subject.run.config.folds} folds" if subject.run.config.folds else ""
    spread = subject.trained["test"].get("auc_std")
    yield f"Over {seeds} seeds{folds}"
    if spread is not None:
        yield from (
            " the test AUC has a standard deviation of ",
            figure(spread, f"{subject.trained_file}#/test/auc_std"),
        )
    yield "."
