"""The images: how many of each class in each split, what stands in several, and what an audit found."""

from collections.abc import Iterator

from samcls.audit.finding import CODES
from samcls.data.manifest import SPLITS
from samcls.learn.runs.page import FIGURES as TITLES
from samcls.learn.runs.page import class_counts, group_counts
from samcls.report.about import About
from samcls.report.blocks import (
    Block,
    Listing,
    Part,
    Table,
    Text,
    count,
    figure,
    interval,
    shortened,
)
from samcls.report.places import pointer
from samcls.report.subject import CannotShow

__all__ = ["data"]

CLASSES = 200  # rows of a table of classes


def data(about: About) -> Iterator[Block]:
    """Yield counts, leaks and findings."""
    if about.subject.external:
        yield from about.attempt("images", lambda: _scored(about))
    else:
        yield from about.attempt("images", lambda: _counts(about))
        yield from about.attempt("images in several splits", lambda: _leaks(about))
    yield from about.attempt("audit", lambda: _audit(about))


def _scored(about: About) -> Iterator[Block]:
    found, file = about.subject.evaluation, about.subject.file
    titles = {
        "scored": "scored",
        "failed": "could not be encoded",
        "unlabelled": "without a label of the run's classes",
    }
    rows: list[tuple[Part, ...]] = [
        (title, count(found["images"][key], f"{file}#/images/{key}"))
        for key, title in titles.items()
    ]
    rows += [
        (f"seen by the run in {split}", count(number, f"{file}#/seen/{split}"))
        for split, number in found["seen"].items()
    ]
    yield Table("Images", ("", "images"), tuple(rows))
    if found["notes"]:
        yield Listing(tuple((str(note),) for note in found["notes"]))


def _counts(about: About) -> Iterator[Block]:
    subject = about.subject
    run, metrics, file = subject.run, subject.metrics, subject.file
    source = f"{subject.first}predictions.csv"
    # Where inner folds choose, what was learned from stands in split val of the predictions.
    splits = (
        {"val": "train and val", "test": "test"} if run.config.inner else {k: k for k in SPLITS}
    )
    images = metrics["images"]
    rows: list[tuple[Part, ...]] = []
    if not run.config.inner:
        rows.append(
            ("images", *(count(images[split], f"{file}#/images/{split}") for split in splits))
        )
    groups = group_counts(run)
    if groups:
        rows.append(
            (
                "groups (patients)",
                *(count(groups[k], f"{source}, split {k}#groups") for k in splits),
            )
        )
    for task, names in run.tasks.items():
        counts = class_counts(run, task)
        rows += [
            (
                shortened(f"{task}: {name}"),
                *(
                    count(counts[k][name], f"{source}, split {k}#count/{task}/{name}")
                    for k in splits
                ),
            )
            for name in names[:CLASSES]
        ]
        labelled = metrics.get("labelled", {}).get(task)
        if labelled and not run.config.inner and any(labelled[k] < images[k] for k in splits):
            missing = [count(images[k] - labelled[k], f"{file}#missing/{task}/{k}") for k in splits]
            rows.append((shortened(f"{task}: no label"), *missing))
    fold = (
        f" Counts are of fold {run.config.fold} of {run.config.folds}." if run.config.folds else ""
    )
    failed = images.get("failed")
    told = "How many images could not be encoded is not kept."
    if failed is not None:
        told = (
            f"{failed} images could not be encoded and were left out."
            if failed
            else "Every image was encoded."
        )
    share = run.config.train_fraction
    drawn = f" Training images are a share of {share:g}, drawn by the seed." if share < 1 else ""
    yield Table(
        "Images by split and class", ("", *splits.values()), tuple(rows), told + fold + drawn
    )


def _leaks(about: About) -> Iterator[Block]:
    leaks = about.subject.metrics.get("leaks")
    if not leaks:
        raise CannotShow("the run is of an earlier version, which did not look")
    titles = {
        "groups": "groups (patients) in several splits",
        "equal": "pictures that are equal pixel for pixel in several splits",
        "contradictory": "such pictures whose labels differ",
    }
    file = f"{about.subject.file}#/leaks"
    yield Table(
        "What stands in several splits",
        ("", "found", "images"),
        tuple(
            (
                title,
                count(leaks[key]["count"], f"{file}/{key}/count"),
                count(leaks[key]["images"], f"{file}/{key}/images"),
            )
            for key, title in titles.items()
            if key in leaks
        ),
        "Of all images that took part, by digests of their pixels.",
    )


def _audit(about: About) -> Iterator[Block]:
    found = about.subject.audit
    if not found:
        raise CannotShow(
            "no audit was made (beside a report, stores of up to 20,000 images are): samcls audit STORE --run RUN --out DIR, then --audit DIR"
        )
    counts = found["counts"]
    across = {
        code: sum(1 for one in found["problems"] if one["kind"] == code and one["across_splits"])
        for code in counts
    }
    where = "audit.json"
    yield Text(
        (
            "An audit of ", count(found["images"], f"{where}#/images"), " images found ",
            *((count(len(found["problems"]), f"{where}#problems"), " things to look at, ") if counts else ("nothing",)),
            *((count(found["leaks"], f"{where}#/leaks"), " of them across splits.") if counts else (".",)),
        )
    )  # fmt: skip
    if counts:
        yield Table(
            "Findings",
            ("finding", "number", "across splits", "what it means", "what to do"),
            tuple(
                (
                    code, count(number, f"{where}#/counts/{code}"), count(across[code], f"{where}#across/{code}"),
                    CODES[code].meaning if code in CODES else "", CODES[code].advice if code in CODES else "",
                )
                for code, number in counts.items()
            ),
            "Lists to look at, not verdicts: near-duplicates and doubtful labels must be judged by eye.",
            (0, 3, 4),
        )  # fmt: skip
    yield from about.attempt("figures without the findings", lambda: _effect(about))
    if found.get("notes"):
        yield Listing(tuple((note,) for note in found["notes"]))


def _effect(about: About) -> Iterator[Block]:
    effect = about.subject.audit.get("effect")
    if not effect:
        raise CannotShow(
            "the audit was not held against this run: samcls audit STORE --run RUN --out DIR, then --audit DIR"
        )
    if not effect["affected"]:
        yield Text(
            (
                "No test image has a twin, or its group, in training or validation: the figures stand as they are.",
            )
        )
        return
    rows = []
    for task, table in effect["tasks"].items():
        for name, one in table.items():
            place = pointer("audit.json#/effect/tasks", task, name)
            rows.append(
                (
                    shortened(task), TITLES.get(name, name), figure(one["all"], f"{place}/all"), figure(one["without"], f"{place}/without"),
                    figure(one["difference"], f"{place}/difference", sign=True), interval(one["interval"], f"{place}/interval", sign=True),
                )
            )  # fmt: skip
    yield Table(
        "Figures without affected test images",
        ("task", "figure", "all", "without", "difference", "95 %"),
        tuple(rows),
        f"{effect['affected']} of {effect['test_images']} test images have a twin, or their group, in training or validation.",
        (0, 1),
    )
    retrained = effect.get("retrained")
    if retrained:
        lines = []
        for kind, title in (
            ("tasks", "without their twins in training"),
            ("control", "without as many other images"),
        ):
            for task, table in retrained.get(kind, {}).items():
                place = pointer(f"audit.json#/effect/retrained/{kind}", task, "auc")
                one = table["auc"]
                lines.append(
                    (
                        shortened(task), title, figure(one["before"], f"{place}/before"), figure(one["after"], f"{place}/after"),
                        figure(one["difference"], f"{place}/difference", sign=True), interval(one["interval"], f"{place}/interval", sign=True),
                    )
                )  # fmt: skip
        yield Table(
            "AUC, trained again",
            ("task", "trained", "before", "after", "difference", "95 %"),
            tuple(lines),
            "",
            (0, 1),
        )
