"""What its figures are worth: controls, seeds, size, calibration, subgroups, choices, and other data."""

import numpy as np

from samcls.learn.score.headline import of_task
from samcls.learn.score.intervals import FEWEST
from samcls.report.looks import Found
from samcls.report.results import Results
from samcls.report.subject import CannotShow

__all__ = ["calibrated", "control", "edge", "elsewhere", "flattered", "seeds", "small", "subgroups"]

RANGE = 0.05  # of the AUC over seeds, from which one run says little
EVENTS = (
    100  # of the rarer class, that external validations should have (Collins et al., Stat Med 2016)
)
TRIED = 20  # models to a validation image of the rarer class, from which choosing flatters
OPTIMISM = 0.02  # of the winner's validation AUC


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
