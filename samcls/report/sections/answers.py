"""What is answered at the threshold that validation chose: confusion, rates, classes, and order where there is one."""

from collections.abc import Iterator

import numpy as np

from samcls.learn.score.metrics import roc_auc
from samcls.report.about import About
from samcls.report.blocks import (
    Block,
    Cell,
    Part,
    Table,
    Text,
    count,
    figure,
    from_table,
    interval,
    shortened,
)
from samcls.report.pictures.tables import MOST, confusion
from samcls.report.results import threshold_rule
from samcls.report.subject import Answers, CannotShow

__all__ = ["given"]

TITLES = {
    "sensitivity": "sensitivity (recall)",
    "specificity": "specificity",
    "precision": "positive predictive value (precision)",
    "negative_predictive_value": "negative predictive value",
}
LAST = {"f1": "F1", "accuracy": "accuracy"}
PREVALENCES = (0.01, 0.05, 0.1, 0.2, 0.5)
CLASSES = 100  # rows of the table by class
FIXED = 0.95  # sensitivity at which specificity is read off


def given(about: About) -> Iterator[Block]:
    """Yield confusion and rates of each task."""
    yield from about.each("answers", _of_task)


def _of_task(about: About, task: str) -> Iterator[Block]:
    answers = about.subject.answers(task)
    found = about.results.operating(task)
    if len(answers.classes) <= MOST:
        yield about.picture(
            f"confusion-{task}",
            "confusion",
            lambda: confusion(found.table, answers.classes, answers.source, task),
        )
    else:
        yield Text(
            (
                f"A confusion of {len(answers.classes)} classes is not drawn; the table tells of each class.",
            ),
            "note",
        )
    if answers.binary:
        yield from _rates(about, answers)
        yield from about.attempt("the threshold's own uncertainty", lambda: _uncertain(about, task))
        yield _elsewhere(about, answers)
    else:
        yield _classes(about, answers)
    if task in _ordinal(about):
        yield _order(about, answers)
    yield _last(about, answers)


def _rates(about: About, answers: Answers) -> Iterator[Block]:
    found, source = about.results.operating(answers.task), f"{answers.source}#rates/{answers.task}"
    (quiet, alarm), (missed, hit) = found.table.tolist()
    threshold = answers.point.threshold
    cut = figure(threshold, f"{answers.source}#threshold/{answers.task}", 4)
    name = shortened(answers.classes[1])
    subject = about.subject
    clean = "" if subject.folds else "; nothing was fitted on these images"
    whose = (
        " Answers are of the runs' mean probability; the first table holds the mean of each run's own figures."
        if len(subject.runs) > 1 and not subject.folds
        else ""
    )
    yield Text(
        (
            f"Class {name} is answered above a probability of ", cut, f", {threshold_rule(subject, answers.task)}{clean}.{whose} ",
            count(hit, f"{source}/hit"), " found, ", count(missed, f"{source}/missed"), " missed, ",
            count(alarm, f"{source}/alarm"), " false alarms, ", count(quiet, f"{source}/quiet"), " rightly quiet.",
        )
    )  # fmt: skip
    rows: list[tuple[Part, ...]] = [
        (
            title,
            figure(found.figures[key], f"{source}/{key}"),
            interval(found.intervals[key], f"{source}/{key}_interval"),
        )
        for key, title in TITLES.items()
    ]
    sensitivity, specificity = found.figures["sensitivity"], found.figures["specificity"]
    if sensitivity is not None and specificity is not None:
        plus = sensitivity / (1 - specificity) if specificity < 1 else None
        minus = (1 - sensitivity) / specificity if specificity > 0 else None
        rows.append(
            (
                "likelihood ratio of a positive answer",
                figure(plus, f"{source}/lr_plus", 2),
                Cell(""),
            )
        )
        rows.append(
            (
                "likelihood ratio of a negative answer",
                figure(minus, f"{source}/lr_minus", 2),
                Cell(""),
            )
        )
    if about.subject.external or len(about.subject.runs) == 1:
        table, place = about.subject.figures(answers.task)
        cell, ends = from_table(table, place, "sensitivity_at_specificity")
        rows.append(("sensitivity where specificity is 0.9, on these images", cell, ends))
    at = _specificity_at(answers)
    rows.append(
        (
            f"specificity where sensitivity is {FIXED}, on these images",
            figure(at, f"{source}/specificity_at"),
            Cell(""),
        )
    )
    yield Table(
        f"At the threshold{about.of(answers.task)}",
        ("", "value", "95 % interval"),
        tuple(rows),
        "Rows that name a rate are read off the ROC of these very images, and promise nothing for others.",
    )


def _specificity_at(answers: Answers) -> float | None:
    chance, true = answers.probabilities[:, 1], answers.labels == 1
    if true.all():
        return None
    cuts = np.sort(chance[true])
    cut = cuts[int(np.floor((1 - FIXED) * len(cuts) + 1e-9))] if len(cuts) else 0.0
    return float((chance[~true] < cut).mean())


def _uncertain(about: About, task: str) -> Iterator[Block]:
    found = about.results.thresholds(task)
    if found is None:
        raise CannotShow("under six groups of a class are in validation")
    (low, high), rates = found
    own = about.subject.answers(task, "val")
    source = f"{own.source}#threshold_range/{task}"
    yield Text(
        (
            (f"The threshold rests on {int((own.labels == 1).sum())} validation images of the class. With other validation images "
            "(500 resamples of groups) it would lie from "),
            figure(low, f"{source}/low"), " to ", figure(high, f"{source}/high"),
            " in 95 of 100, and sensitivity on the images here from ", figure(float(rates[0, 0]), f"{source}/sensitivity_low"),
            " to ", figure(float(rates[1, 0]), f"{source}/sensitivity_high"), ", specificity from ",
            figure(float(rates[0, 1]), f"{source}/specificity_low"), " to ", figure(float(rates[1, 1]), f"{source}/specificity_high"),
            ".",
        ),
        "note",
    )  # fmt: skip


def _elsewhere(about: About, answers: Answers) -> Table:
    """Return predictive values where the class is rarer or more common than here."""
    found, source = (
        about.results.operating(answers.task),
        f"{answers.source}#prevalence/{answers.task}",
    )
    sensitivity, specificity = found.figures["sensitivity"], found.figures["specificity"]
    here = float((answers.labels == 1).mean())
    rows = []
    for share in sorted({*PREVALENCES, here}):
        if sensitivity is None or specificity is None:
            continue
        positive = sensitivity * share + (1 - specificity) * (1 - share)
        negative = (1 - sensitivity) * share + specificity * (1 - share)
        told = f"{100 * share:.3g} %" + (" (here)" if share == here else "")
        rows.append(
            (
                Cell(told, share, mark="strong" if share == here else ""),
                figure(
                    sensitivity * share / positive if positive else None,
                    f"{source}/{share:g}/positive",
                ),
                figure(
                    specificity * (1 - share) / negative if negative else None,
                    f"{source}/{share:g}/negative",
                ),
            )
        )
    return Table(
        f"Predictive values where the class is rarer or more common{about.of(answers.task)}",
        ("share of the class", "positive predictive value", "negative predictive value"),
        tuple(rows),
        "By Bayes' rule from sensitivity and specificity, which are taken to stay; a test split is often richer in cases than care.",
    )


def _classes(about: About, answers: Answers) -> Table:
    ones, said = np.ones((1, len(answers.labels))), answers.answers
    counts = np.bincount(answers.labels, minlength=len(answers.classes))
    order = sorted(np.argsort(-counts, kind="stable")[:CLASSES].tolist())
    rows = []
    for c in order:
        true, answered = answers.labels == c, said == c
        source = f"{answers.source}#class/{answers.task}/{c}"
        both = true.any() and not true.all()
        auc = float(roc_auc(ones, true, answers.probabilities[:, c])[0]) if both else None
        rows.append(
            (
                shortened(answers.classes[c]),
                count(true.sum(), f"{source}/images"),
                figure(auc, f"{source}/auc"),
                figure(
                    float(answered[true].mean()) if true.any() else None, f"{source}/sensitivity"
                ),
                figure(
                    float((~answered[~true]).mean()) if not true.all() else None,
                    f"{source}/specificity",
                ),
                figure(
                    float(true[answered].mean()) if answered.any() else None, f"{source}/precision"
                ),
            )
        )
    rest = len(answers.classes) - len(order)
    return Table(
        f"Each class against the rest{about.of(answers.task)}",
        ("class", "images", "AUC", "sensitivity", "specificity", "precision"),
        tuple(rows),
        "The most probable class is answered."
        + (f" {rest} rarer classes are left out." if rest else ""),
    )


def _ordinal(about: About) -> tuple[str, ...]:
    return about.subject.run.config.ordinal if about.subject.runs else ()


def _order(about: About, answers: Answers) -> Table:
    """Return how far answers lie from labels, in classes."""
    away = np.abs(answers.answers - answers.labels)
    source = f"{answers.source}#order/{answers.task}"
    most = len(answers.classes) - 1
    table, place = about.subject.figures(answers.task)
    kappa, ends = from_table(table, place, "kappa")
    rows: list[tuple[Part, ...]] = [("quadratic weighted kappa", kappa, ends)]
    rows.append(
        ("mean distance, in classes", figure(float(away.mean()), f"{source}/distance"), Cell(""))
    )
    for step in range(most + 1):
        number = int((away == step).sum())
        told = "right" if step == 0 else f"off by {step}"
        rows.append(
            (told, count(number, f"{source}/off/{step}"), Cell(f"{100 * number / len(away):.1f} %"))
        )
    return Table(
        f"In order{about.of(answers.task)}",
        ("", "value", "95 % interval, or share"),
        tuple(rows),
        "The classes have an order: "
        + ", ".join(shortened(name, 20) for name in answers.classes[:20])
        + ".",
    )


def _last(about: About, answers: Answers) -> Table:
    """Return F1 and accuracy, beside always answering the commonest class."""
    table, place = about.subject.figures(answers.task)
    rows: list[tuple[Part, ...]] = []
    if answers.binary:
        found, source = (
            about.results.operating(answers.task),
            f"{answers.source}#rates/{answers.task}",
        )
        rows += [
            (
                f"{title} at the threshold",
                figure(found.figures[key], f"{source}/{key}"),
                interval(found.intervals[key], f"{source}/{key}_interval"),
            )
            for key, title in LAST.items()
        ]
    for key, title in LAST.items():
        cell, ends = from_table(table, place, key)
        rows.append((f"{title}, most probable class", cell, ends))
    rows.append(
        (
            "accuracy of always answering training's commonest class",
            figure(table.get("majority"), f"{place}/majority"),
            Cell(""),
        )
    )
    return Table(
        f"F1 and accuracy{about.of(answers.task)}",
        ("", "value", "95 % interval"),
        tuple(rows),
        "Last on purpose: both hang on how common the class is, and on the threshold.",
    )
