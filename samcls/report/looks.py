"""What the coded checks look at: each yields level, sentence and remedy of what it found.

`error` is what makes figures wrong or empty, `warning` what a reader must know to read them, `note` what is worth
doing. A check that cannot judge raises CannotShow. Limits are our own choice unless a source is named.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np

from samcls.files import few
from samcls.learn.score.headline import of_task
from samcls.learn.score.intervals import FEWEST
from samcls.report.results import Results
from samcls.report.subject import CannotShow, Subject

__all__ = [
    "Found",
    "Level",
    "absent",
    "calibrated",
    "control",
    "edge",
    "elsewhere",
    "flattered",
    "groups",
    "leak",
    "left_out",
    "opened",
    "seeds",
    "small",
    "subgroups",
    "unfinished",
    "untrained",
]

Level = Literal["error", "warning", "note"]
Found = Iterator[tuple[Level, str, str]]

TWINS = ("equal", "contradictory")  # what a run calls equal pictures in several splits
LEAKED = 0.01  # share of test images with a twin or their group elsewhere, from which figures are taken for wrong
RANGE = 0.05  # of the AUC over seeds, from which one run says little
EVENTS = (
    100  # of the rarer class, that external validations should have (Collins et al., Stat Med 2016)
)
ALIKE = 0.2  # share of images that share a name but for its last part
TRIED = 20  # models to a validation image of the rarer class, from which choosing flatters
OPTIMISM = 0.02  # of the winner's validation AUC
FAILED = 0.01  # share of images that could not be encoded

# A patient's number followed by a side, a view or a running number of one or two digits: P012_left, case-7-03.
SERIES = re.compile(
    r"^(?!\d{4}-\d\d-\d\d$)(?P<stem>.*?\d)"
    r"(?:(?:[-_ .]?(?:left|right|od|os|l|r|cc|mlo|lcc|rcc|lmlo|rmlo|ap|pa|lat|[a-h]))+"
    r"|[-_ .](?:slice|image|img|im|frame|view|scan|s|i)?[-_ .]?\d{1,3})$",
    re.I,
)
PERSONAL = re.compile(r"patient|subject|person|case|lesion|study|exam|mrn|pid", re.I)


def unfinished(results: Results) -> Found:
    """Yield that the run is not finished."""
    if results.subject.kind == "unfinished":
        yield (
            "error",
            results.subject.reason,
            "run the same command again; it goes on where it stopped",
        )
    elif not results.subject.runs:
        raise CannotShow(results.subject.reason)


def leak(results: Results) -> Found:
    """Yield groups and twins that stand in several splits."""
    subject = results.subject
    if subject.external:
        yield from _seen(subject)
        return
    leaks, images = subject.metrics.get("leaks"), _tested(results)
    if leaks is None:
        raise CannotShow(
            subject.reason or "the run keeps nothing of it, being of a sweep or an earlier version"
        )
    if groups := _counted(leaks, "groups"):
        yield (
            "error",
            f"{groups} groups (patients) stand in several splits: figures are too good for new patients",
            "give each group one split, or train with --folds, which keeps groups whole",
        )
    twins = _counted(leaks, "equal") + _counted(leaks, "contradictory")
    folds = bool(subject.folds)  # where every image is tested
    pictures = sum(leaks.get(k, {}).get("images", 0) for k in TWINS) if folds else _in_test(leaks)
    effect = subject.audit.get("effect", {})
    affected = int(effect.get("affected", 0))
    if affected:
        told = f"{affected} of {effect['test_images']} test images have a twin, or their group, in training or validation"
        sure = "made" not in subject.audit  # by pictures, not by features alone
        level: Level = "error" if sure and affected > LEAKED * effect["test_images"] else "warning"
        told += "" if sure else ", by features alone, which take some look-alikes for twins"
        remedy = "see the figures without them under Data; look at the pairs (samcls audit --manifest), clean, train again"
        yield level, told, remedy
    if twins:
        level = "error" if pictures > LEAKED * max(1, images) else "warning"
        places = "folds" if folds else "splits"
        one = twins == 1
        told = (
            f"{twins} picture{'' if one else 's'} stand{'s' if one else ''} in several {places} pixel for pixel, with "
            f"{pictures} test image{'' if pictures == 1 else 's'} among them"
        )
        yield (
            level,
            told,
            "samcls audit STORE --run RUN tells what they did to the figures; --write cleans",
        )


def _seen(subject: Subject) -> Found:
    """Yield images of an evaluation that the run had met."""
    seen, scored = subject.evaluation.get("seen", {}), subject.evaluation["images"]["scored"]
    learned = int(seen.get("train", 0)) + int(seen.get("val", 0))
    if learned:
        yield (
            "error",
            f"{learned} of {scored} images stood in the run's own training or validation: figures are too good",
            "take them out of the manifest and evaluate again",
        )
    if own := int(seen.get("test", 0)):
        yield (
            "warning",
            f"{own} of {scored} images are the run's own test images: this is no external validation",
            "evaluate on images that the run has never met",
        )
    if not learned and not own and not subject.evaluation.get("drift"):
        raise CannotShow(
            "the run keeps no digests of its images, so that it cannot be told whether it met some of these"
        )


def control(results: Results, task: str) -> Found:
    """Yield controls that the head is not ahead of."""
    if task not in results.claims:
        kept = results.subject.controls
        raise CannotShow(
            "the AUC is not defined"
            if kept
            else "no controls that could be compared are kept with it"
        )
    claim, best = results.claims[task], results.hindsight.get(task)
    for one, how in ((claim, "which validation prefers"), (best, "the highest on the test images")):
        if one is None or one.ahead:
            continue
        said = "behind" if one.behind else "not ahead by more than noise of"
        ends = (
            "" if one.interval is None else f" ({one.interval[0]:+.3f} to {one.interval[1]:+.3f})"
        )
        yield (
            "warning",
            f"{task}: {one.head} is {said} {one.against}, {how}: {one.difference:+.3f} AUC{ends}",
            "report the control beside it, and prefer the simpler one where they are level",
        )


def seeds(results: Results, task: str) -> Found:
    """Yield that seeds disagree."""
    runs = results.subject.runs
    if not runs or results.subject.external:
        raise CannotShow(results.subject.reason or "it is of training, and this is an evaluation")
    by_seed: dict[int, list[float | None]] = {}
    for run in runs:
        table = of_task(run.metrics.get("test", {}), task)
        by_seed.setdefault(run.config.seed, []).append(table.get("auc"))
    if len(by_seed) < 2:
        raise CannotShow("there is one seed; train with --seeds 5 in a new folder to know")
    means = [
        float(np.mean([v for v in own if v is not None]))
        for own in by_seed.values()
        if None not in own
    ]
    if means and max(means) - min(means) > RANGE:
        yield (
            "warning",
            f"{task}: test AUC goes from {min(means):.3f} to {max(means):.3f} over {len(means)} seeds",
            "report mean and spread, or average the seeds' answers, as samcls predict and evaluate do",
        )


def edge(results: Results) -> Found:
    """Yield settings of the winner at the edge of what was tried."""
    rows = results.subject.board.get("rows", [])
    ranked = [row for row in rows if row.get("rank")]
    if not rows:
        raise CannotShow("this is no sweep")
    if len(ranked) < 3:
        raise CannotShow(f"{len(ranked)} configurations have a rank; an edge needs three")
    winner = ranked[0]["configuration"]
    at = []
    for name, value in winner.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        own = [
            row["configuration"].get(name)
            for row in ranked
            if row["configuration"].get("head") == winner.get("head")
        ]
        tried = sorted(
            {one for one in own if isinstance(one, int | float) and not isinstance(one, bool)}
        )
        if len(tried) >= 3 and value in (tried[0], tried[-1]):
            at.append(f"{name} {value:g} (tried {tried[0]:g} to {tried[-1]:g})")
    if at:
        yield (
            "warning",
            f"the best setting lies at the edge of what was tried: {', '.join(at)}",
            "widen the space there; the sweep goes on in the same folder",
        )


def small(results: Results, task: str) -> Found:
    """Yield that few test images are of a class."""
    table, _ = results.subject.figures(task)
    answers = results.subject.answers(task)
    counts = np.bincount(answers.labels, minlength=len(answers.classes))
    rare = int(counts[counts > 0].min()) if counts.any() else 0
    units = table.get("units", {}).get("classes", {})
    groups = min((count for count in units.values() if count), default=rare)
    name = answers.classes[int(np.argmin(np.where(counts > 0, counts, counts.max() + 1)))]
    ends = table.get("auc_interval")
    wide = "" if ends is None else f"; the AUC's 95 % interval is {ends[1] - ends[0]:.2f} wide"
    if groups < FEWEST:
        yield (
            "error",
            f"{task}: {groups} groups of class {name} are in the test split, too few for any interval",
            "test on more images, or train with --folds, which tests every image once",
        )
    elif rare < EVENTS:
        yield (
            "warning",
            f"{task}: {rare} test images of class {name}, where validations should have {EVENTS} or more{wide}",
            "claim no more than the interval allows; --folds 5 tests every image once",
        )


def calibrated(results: Results, task: str) -> Found:
    """Yield that probabilities are not what happens."""
    if len(results.subject.tasks[task]) != 2:
        raise CannotShow("it is judged for two classes; for more, see the curves")
    found = results.calibration(task, 1, False)
    slope, large = found.intervals["slope"], found.intervals["intercept"]
    off = []
    if slope is not None and not slope[0] <= 1 <= slope[1]:
        off.append(f"slope {found.slope:.2f} ({slope[0]:.2f} to {slope[1]:.2f}, right is 1)")
    if large is not None and not large[0] <= 0 <= large[1]:
        off.append(
            f"intercept {found.intercept:+.2f} ({large[0]:+.2f} to {large[1]:+.2f}, right is 0)"
        )
    if off:
        after = results.calibration(task, 1, True)
        yield (
            "warning",
            (
                f"{task}: probabilities are off: {', '.join(off)}; at the temperature slope {after.slope:.2f}, "
                f"intercept {after.intercept:+.2f}"
            ),
            "use the probabilities as ranks, or recalibrate on images of the place of use (samcls evaluate --recalibrate)",
        )


def subgroups(results: Results, task: str) -> Found:
    """Yield subgroups that differ from all other images."""
    bad = [
        gap
        for gap in results.gaps(task)
        if gap.p is not None and gap.p < 0.05 and gap.gap is not None
    ]
    if bad:
        told = "; ".join(
            f"{one.column} {one.part[:40]}: {one.gap:+.3f} (p {one.p:.3f}, corrected)"
            for one in bad[:5]
        )
        yield (
            "warning",
            f"{task}: AUC differs between subgroups: {told}",
            "report them apart; look for what differs in how those images were made",
        )


def opened(results: Results) -> Found:
    """Yield that the test split was opened more than once."""
    if not results.subject.runs or results.subject.external:
        raise CannotShow(results.subject.reason or "it is of training, and this is an evaluation")
    if not results.subject.run.scored:
        raise CannotShow("it was not opened")
    if results.subject.opened > 1:
        yield (
            "warning",
            f"the test split was opened {results.subject.opened} times, for as many winners of this folder",
            "report that number; figures of the last winner are too good by as much as the choice saw",
        )


def untrained(results: Results) -> Found:
    """Yield that the encoder has random weights."""
    subject = results.subject
    if not subject.runs:
        raise CannotShow(subject.reason)
    if subject.untrained:
        yield (
            "error",
            f"the encoder is untrained ({subject.untrained}): figures say what random features are worth",
            "extract with trained weights: --encoder lite0, or samcls weights fetch vit_b",
        )
    elif not subject.run.metrics.get("weights"):
        raise CannotShow("the run keeps nothing of where its encoder's weights came from")


def groups(results: Results) -> Found:
    """Yield that images look grouped and no groups were named."""
    subject = results.subject
    said = subject.test
    if all(said.groups):
        return
    if any(said.groups):
        lacking = said.groups.count("")
        yield (
            "warning",
            f"{lacking} of {len(said.groups)} {subject.split} images have no group, and are each taken on their own",
            "name every image's patient in the manifest, and extract again, which encodes nothing anew",
        )
        return
    columns = [
        name for name in (subject.store.meta if subject.store else {}) if PERSONAL.search(name)
    ]
    stems = Counter(found["stem"] for one in said.ids if (found := SERIES.match(one)))
    shared = sum(count for count in stems.values() if count > 1)
    if columns:
        yield (
            "warning",
            f"no groups were named, and there is a column {columns[0]}: intervals take each image on its own",
            "name the patient's column when the manifest is made (--group), and extract again, which encodes nothing anew",
        )
    elif shared > ALIKE * len(said.ids):
        first = next(stem for stem, count in stems.items() if count > 1)
        alike = [one for one in said.ids if one.startswith(first)]
        yield (
            "warning",
            (
                f"no groups were named, and {shared} of {len(said.ids)} test images are named as if several were of one patient "
                f"({few(alike, 3)}): intervals may be too narrow, and splits may share patients"
            ),
            "give the manifest a column group, and extract again, which encodes nothing anew",
        )


def absent(results: Results, task: str) -> Found:
    """Yield classes that no scored image has."""
    classes = results.subject.tasks[task]
    answers = results.subject.answers(task)
    counts = np.bincount(answers.labels, minlength=len(classes))
    none = [name for name, number in zip(classes, counts.tolist(), strict=True) if not number]
    if none:
        yield (
            "error" if len(none) >= len(classes) - 1 else "warning",
            f"{task}: no scored image is of class {few(none)}; its figures are left out",
            "split anew, stratified, or score images of that class",
        )


def flattered(results: Results, task: str) -> Found:
    """Yield that validation chose between many on few."""
    subject = results.subject
    if subject.external:
        raise CannotShow("it is of training, and this is an evaluation")
    tried = int(subject.metrics.get("models_tried", 0))
    answers = subject.answers(task, "val")
    rare = int(np.bincount(answers.labels, minlength=len(answers.classes)).min())
    if rare and tried > TRIED * rare:
        yield (
            "note",
            (
                f"{task}: {tried} models were chosen between on {rare} validation images of the rarest class: validation "
                "figures are flattered"
            ),
            "choose by inner folds (--select inner:5)",
        )
    optimism = subject.board.get("selection", {}).get("optimism")
    if optimism is not None and optimism > OPTIMISM and task == next(iter(subject.tasks)):
        yield (
            "note",
            f"choosing flattered the winner's validation AUC by {optimism:.3f}",
            "report the corrected one, and never the winner's own validation AUC",
        )


def left_out(results: Results) -> Found:
    """Yield that images could not be encoded."""
    images = results.subject.metrics.get("images", {})
    if "failed" not in images:
        raise CannotShow(results.subject.reason or "the run keeps no count of them")
    failed, total = (
        int(images.get("failed", 0)),
        sum(int(images.get(k, 0)) for k in ("train", "val", "test", "scored", "failed")),
    )
    if failed and failed > FAILED * max(1, total):
        yield (
            "warning",
            f"{failed} of {total} images could not be encoded and were left out",
            "samcls store info STORE lists them with reasons",
        )


def elsewhere(results: Results, task: str) -> Found:
    """Yield that figures are lower on other data."""
    if not results.subject.external:
        raise CannotShow("this is no evaluation on another data set")
    found = results.subject.evaluation.get("difference", {}).get(task, {}).get("auc", {})
    ends = found.get("interval")
    if ends is None:
        raise CannotShow(f"the difference of {task} has no interval")
    if ends[1] < 0:
        yield (
            "warning",
            (
                f"{task}: AUC is lower here than on the run's own test images by {-found['difference']:.3f} "
                f"({-ends[1]:.3f} to {-ends[0]:.3f})"
            ),
            "report both; see how classes, subgroups and the images themselves differ",
        )


def _counted(leaks: Mapping[str, Any], kind: str) -> int:
    return int(leaks.get(kind, {}).get("count", 0))


def _in_test(leaks: Mapping[str, Any]) -> int:
    """Return how many test images have an equal picture elsewhere, as far as the run lists them."""
    listed = [one for kind in TWINS for one in leaks.get(kind, {}).get("first", [])]
    named = {name for one in listed for name in one.get("images", {}).get("test", [])}
    unlisted = _counted(leaks, "equal") + _counted(leaks, "contradictory") - len(listed)
    return len(named) + max(0, unlisted)


def _tested(results: Results) -> int:
    try:
        return len(results.subject.test.ids)
    except CannotShow:
        return 0
