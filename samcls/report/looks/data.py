"""What a run rests on: whether it ended, its images, groups, encoder, and how often the test was opened."""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from samcls.files import few
from samcls.report.looks import Found, Level
from samcls.report.results import Results
from samcls.report.subject import CannotShow, Subject

__all__ = ["absent", "groups", "leak", "left_out", "opened", "unfinished", "untrained"]

TWINS = ("equal", "contradictory")  # what a run calls equal pictures in several splits
LEAKED = 0.01  # share of test images with a twin or their group elsewhere, from which figures are taken for wrong
ALIKE = 0.2  # share of images that share a name but for its last part
FAILED = 0.01  # share of images that could not be encoded
# A patient's number followed by a side, a view or a running number of up to three digits: P012_left, case-7-03.
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
