"""The first screen: what the figures allow to be said, beside every control, and what they rest on."""

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from samcls.learn.heads.controls import MEANINGS
from samcls.report.about import About
from samcls.report.blocks import (
    Block,
    Cell,
    Part,
    Table,
    Text,
    chance,
    count,
    figure,
    from_table,
    interval,
    shortened,
)
from samcls.report.pictures.tables import forest
from samcls.report.places import pointer, table_of
from samcls.report.results import Claim
from samcls.report.subject import CannotShow

__all__ = ["claim_parts", "headline_parts", "summary"]

# Columns of the table of controls, by the name of the figure.
COLUMNS = {
    "auc": "AUC",
    "average_precision": "average precision",
    "sensitivity_at_threshold": "sensitivity",
    "specificity_at_threshold": "specificity",
    "brier": "Brier",
}


def summary(about: About) -> Iterator[Block]:
    """Claims, the table of controls, what was selected on what, and how often the test was opened."""
    subject = about.subject
    if subject.kind == "unfinished":
        raise CannotShow(subject.reason)
    yield from about.each("figures", _headline)
    yield from about.attempt("what they rest on", lambda: [Text(tuple(_rests_on(about)))])
    yield Text(tuple(_checks(about)))
    yield from about.each("controls", _controls)


def _headline(about: About, task: str) -> Iterator[Block]:
    parts = list(headline_parts(about, task))
    claim = about.results.claims.get(task)
    if claim is not None:
        parts += [" ", *claim_parts(about, claim)]
    name = [Cell(f"{shortened(task)}: ", mark="strong")] if about.several else []
    yield Text((*name, *parts), "lead")


def headline_parts(about: About, task: str) -> Iterator[Part]:
    """Yield the sentence of the figure: what has which AUC on which images.

    Args:
        about: What is reported.
        task: Name.

    Raises:
        CannotShow: nothing was scored.
    """
    subject = about.subject
    table, place = subject.figures(task)
    value, ends = from_table(table, place, "auc")
    answers = subject.answers(task)
    made = _made(about)
    yield f"On {len(answers.labels):,} {subject.split} images{_units(answers.groups)}, {made}"
    if value.value is None:
        yield f" has no AUC for {shortened(task)}: {_why(about, task)}."
        return
    yield " has AUC "
    yield Cell(value.text, value.value, value.source, "strong")
    if ends.value is not None:
        yield from (" (95 % ", ends, ")")
    else:
        yield f" (no interval: {_no_interval(about)})"
    if len(answers.classes) > 2:
        yield ", the mean over classes against the rest"
    yield "."
    inside = subject.evaluation.get("inside")
    if inside:
        own, source = table_of(inside, f"{subject.file}#/inside", task)
        between = subject.evaluation["difference"].get(task, {}).get("auc", {})
        yield from (
            " On the run's own test images it has ",
            figure(own.get("auc"), f"{source}/auc"),
        )
        if between.get("interval"):
            source = pointer(f"{subject.file}#/difference", task, "auc")
            yield from (
                "; the difference is ",
                figure(between["difference"], f"{source}/difference", sign=True),
                " (95 % ",
                interval(between["interval"], f"{source}/interval", sign=True),
                ")",
            )
        yield "."


def claim_parts(about: About, claim: Claim) -> Iterator[Part]:
    """Yield the sentences of the claim: against which control, by how much, and whether that is noise.

    Args:
        about: What is reported.
        claim: Of a task.
    """
    yield from _against(about, claim, "the control that validation prefers")
    best = about.results.hindsight.get(claim.task)
    if best is not None:
        yield " Held against the control that is highest on the test images themselves "
        yield from _against(about, best, "", start=False)


def _against(about: About, claim: Claim, how: str, *, start: bool = True) -> Iterator[Part]:
    source = f"{about.subject.folder}predictions.csv and controls.csv, split test#difference/{claim.task}/{claim.control}"
    if claim.ahead:
        word = "ahead of"
    elif claim.behind:
        word = "behind"
    else:
        word = "ahead of" if claim.difference >= 0 else "behind"
    told = f"{how} ({claim.against})" if how else f"({claim.against}),"
    yield f"It is {word} {told} by " if start else f"{told} it is {word.removesuffix(' of')} by "
    yield figure(abs(claim.difference), f"{source}/size")
    if claim.interval is None or claim.p is None:
        yield "; too few groups are there to say whether that is noise."
        return
    yield " (difference 95 % "
    yield interval(claim.interval, f"{source}/interval", sign=True)
    yield (
        "), which is more than noise: p "
        if claim.ahead or claim.behind
        else "), which is not more than noise: p "
    )
    yield chance(claim.p, f"{source}/p")
    yield "."


def _made(about: About) -> str:
    subject = about.subject
    if not subject.runs:
        return shortened(str(subject.evaluation.get("run", "the run")))
    run = subject.run
    encoder = str(run.fingerprint.get("encoder", "an unknown encoder"))
    random = "untrained " if subject.untrained else ""
    runs = ""
    if subject.folds:
        seeds = subject.seeds
        runs = f", each image told by the fold that had not seen it{f', the mean of {seeds} seeds' if seeds > 1 else ''},"
    elif len(subject.runs) > 1:
        runs = f", the mean of {len(subject.runs)} runs,"
    return f"{run.config.head} on features of {random}{encoder}{runs}"


def _no_interval(about: About) -> str:
    runs = about.subject.runs
    if runs and not runs[0].config.intervals:
        return "the run was trained with intervals = 0"
    if about.subject.folds and about.subject.seeds > 1:
        return "of folds under several seeds none is made"
    return "too few groups"


def _units(groups: tuple[str, ...]) -> str:
    named, lacking = {group for group in groups if group}, groups.count("")
    if not named:
        return " (patients not named)"
    rest = f", {lacking:,} of them without one," if lacking else ""
    return f" of {len(named):,} patients or lesions{rest}"


def _why(about: About, task: str) -> str:
    answers = about.subject.answers(task)
    known = {answers.classes[c] for c in answers.labels.tolist()}
    if not known:
        return "no image has a label"
    return (
        f"all images are of class {shortened(known.pop())}"
        if len(known) == 1
        else "it is not defined"
    )


def _checks(about: About) -> Iterator[Part]:
    """Yield how many checks found something, by level."""
    open_ = [one for one in about.checks.found if not one.silenced]
    accepted = len(about.checks.found) - len(open_)
    counts = {
        level: sum(one.level == level for one in open_) for level in ("error", "warning", "note")
    }
    told = [
        Cell(f"{number} {level}{'s' if number > 1 else ''}", mark=level)
        for level, number in counts.items()
        if number
    ]
    yield "Checks: "
    for place, cell in enumerate(told):
        yield from (", " if place else "", cell)
    yield "nothing found" if not told else ""
    yield f", {accepted} accepted" if accepted else ""
    yield f"; {len(about.checks.passed)} passed, {len(about.checks.unjudged)} could not be judged. They follow the tables."


def _rests_on(about: About) -> Iterator[Part]:
    subject = about.subject
    if subject.external:
        found = subject.evaluation
        yield "Nothing was fitted on these images: threshold and temperature are the run's own. "
        if own := int(found["seen"].get("test", 0)):
            yield from (
                count(own, f"{subject.file}#/seen/test"),
                " of them are the run's own test images. ",
            )
        yield from (
            count(found["images"]["failed"], f"{subject.file}#/images/failed"),
            " images failed, ",
        )
        yield from (
            count(found["images"]["unlabelled"], f"{subject.file}#/images/unlabelled"),
            " had no label.",
        )
        return
    metrics, file = subject.metrics, subject.file
    if not subject.run.scored:
        yield "The test split was not opened. Runs of a sweep keep figures of validation alone: report the sweep."
        return
    images = metrics["images"]
    folds, inner = subject.folds, subject.run.config.inner
    yield f"In each of {folds} folds: t" if folds else "T"
    yield from ("rained on ", count(images["train"], f"{file}#/images/train"), " images; ")
    if inner:
        yield f"inner folds of them ({subject.run.config.select}) chose between "
    else:
        yield from (
            "validation (",
            count(images["val"], f"{file}#/images/val"),
            " images) chose between ",
        )
    tried = metrics.get("models_tried")
    yield "a number that is not kept of" if tried is None else count(tried, f"{file}#/models_tried")
    several = " in all" if len(subject.runs) > 1 else ""
    board = subject.board.get("tried")
    if board:
        yield from (
            f" models of the winner{several}, and before that between ",
            count(board, "leaderboard.json#/tried"),
            " configurations",
        )
    else:
        yield f" models{several}, controls included"
    if folds:
        yield ". Every image was tested by a model that had not seen it, after all this."
        return
    times = subject.opened
    once = ". The test split was opened once, after all this."
    yield once if times == 1 else f". The test split was opened {times} times."


def _controls(about: About, task: str) -> Iterator[Block]:
    rows = list(_rows(about, task))
    shown = {k: v for k, v in COLUMNS.items() if any(row.table.get(k) is not None for row in rows)}
    lines = []
    for row in rows:
        cells: list[Part] = [Cell(shortened(row.name), mark="strong" if row is rows[0] else "")]
        for key in shown:
            cells.append(from_table(row.table, row.place, key)[0])
            cells += [row.interval] if key == "auc" else []
        lines.append(tuple(cells) if about.subject.external else (*cells, row.validation))
    header = [
        title
        for key, title in shown.items()
        for title in ([title, "95 % interval"] if key == "auc" else [title])
    ]
    last = () if about.subject.external else ("validation AUC",)
    title = "Here, and inside" if about.subject.external else "This run and its controls"
    yield Table(
        f"{title}{about.of(task)}",
        ("", *header, *last),
        tuple(lines),
        _table_note(about, task, shown),
    )
    drawn = [
        (row.name, float(row.table["auc"]), row.ends)
        for row in rows
        if row.table.get("auc") is not None
    ]
    if len(drawn) > 1:
        yield about.picture(
            f"controls-{task}",
            "controls",
            lambda: forest(
                f"AUC{about.of(task)}", drawn, f"AUC on {about.subject.split} images", about.subject.file,
                "AUC with its 95 % interval over other test images; intervals that overlap say nothing of the paired difference.",
            ),
        )  # fmt: skip


@dataclass(frozen=True)
class _Row:
    """A model of the table of controls."""

    name: str
    table: Mapping[str, Any]
    place: str
    validation: Cell
    ends: tuple[float, float] | None
    interval: Cell


def _rows(about: About, task: str) -> Iterator[_Row]:
    """Yield this run, and whatever stands beside it."""
    subject, dash = about.subject, Cell("\N{EN DASH}")
    own = dash
    if not subject.external and "validation" in subject.metrics:
        table, place = table_of(subject.metrics["validation"], f"{subject.file}#/validation", task)
        own = figure(table.get("auc"), f"{place}/auc")
    first = "here" if subject.external else f"this run: {subject.run.config.head}"
    yield _row(first, *subject.figures(task), own)
    if subject.external:
        place = f"{subject.file}#/inside"
        yield _row(
            "inside: its own test images",
            *table_of(subject.evaluation["inside"], place, task),
            dash,
        )
    for name, found in subject.metrics.get("baselines", {}).items():
        if "test" not in found:
            continue
        base = pointer(f"{subject.file}#/baselines", name)
        validation, place = table_of(found.get("validation", {}), f"{base}/validation", task)
        chosen = figure(validation.get("auc"), f"{place}/auc")
        table, place = table_of(found["test"], f"{base}/test", task)
        if pooled := about.results.pooled(name, task):
            table, place = pooled, f"{subject.folder}controls.csv, {name}#pooled/{task}"
        row = _row(MEANINGS.get(name, name), table, place, chosen)
        ends = about.results.control_interval(name, task) if row.ends is None else None
        if ends is not None:
            source = f"{subject.folder}controls.csv, {name}#auc_interval/{task}"
            row = replace(row, ends=ends, interval=interval(ends, source))
        yield row


def _row(name: str, table: Mapping[str, Any], place: str, validation: Cell) -> _Row:
    found = table.get("auc_interval")
    ends = None if found is None else (float(found[0]), float(found[1]))
    return _Row(name, table, place, validation, ends, from_table(table, place, "auc")[1])


def _table_note(about: About, task: str, shown: Container[str]) -> str:
    subject = about.subject
    notes = ["Intervals: jackknife over groups, in Wilson's form with Student's t."]
    if "sensitivity_at_threshold" in shown:
        name = shortened(subject.tasks[task][-1])
        notes.append(
            f"Sensitivity and specificity are of class {name}, at each model's own threshold from validation."
        )
    if subject.folds:
        notes.append("Figures are of all folds' images together, where one seed was trained.")
    elif len(subject.runs) > 1:
        notes.append("Mean \N{PLUS-MINUS SIGN} standard deviation over seeds.")
    return " ".join(notes)
