"""Sentences that a run's files allow: for the paper's methods and results, and for checklists.

    facts = facts_of(about)
    facts["selection"]           # parts of a sentence, each number with its source; absent where not known

A fact is a function and a line in `FACTS`. One that raises CannotShow is not there.
"""

from collections.abc import Callable, Iterator, Mapping

from samcls.data.manifest import SPLITS
from samcls.learn.heads.controls import MEANINGS
from samcls.learn.runs.page import class_counts, group_counts
from samcls.report.about import About
from samcls.report.blocks import Cell, Part, count, figure, from_table, interval, shortened
from samcls.report.places import pointer
from samcls.report.sections.making import commands
from samcls.report.sections.summary import claim_parts
from samcls.report.subject import CannotShow

__all__ = ["FACTS", "METHODS", "RESULTS", "facts_of"]

Parts = Iterator[Part]

# In which order facts make the paragraphs of a paper.
METHODS = (
    "data_source", "data_counts", "groups", "labels", "preprocessing", "encoder", "model", "training", "selection",
    "threshold", "baselines", "metrics", "uncertainty", "test_opened", "environment",
)  # fmt: skip
RESULTS = (
    "performance",
    "claims",
    "calibration",
    "utility",
    "subgroups",
    "robustness",
    "audit",
    "external",
)


def facts_of(about: About) -> dict[str, tuple[Part, ...]]:
    """Return the sentences that can be told, by name."""
    if not about.subject.runs and not about.subject.external:
        return {}
    found = {}
    for name, tell in FACTS.items():
        try:
            parts = tuple(tell(about))
        except CannotShow:
            continue
        if parts:
            found[name] = parts
    return found


def _data_source(about: About) -> Parts:
    subject = about.subject
    if subject.external:
        found = subject.evaluation["images"]
        yield from (
            "The images are ",
            count(found["scored"], f"{subject.file}#/images/scored"),
            " labelled images of another data set, ",
        )
        yield from (
            count(found["failed"], f"{subject.file}#/images/failed"),
            " of which could not be read.",
        )
        return
    images, file = subject.metrics["images"], subject.file
    total = sum(images[split] for split in SPLITS)
    yield from (Cell(f"{total:,}", float(total), f"{file}#images/total"), " images were used; ")
    yield from (
        count(images.get("failed", 0), f"{file}#/images/failed"),
        " more could not be read and were left out.",
    )


def _data_counts(about: About) -> Parts:
    subject = about.subject
    run = subject.run
    first = f"{subject.first}predictions.csv"
    for task, names in run.tasks.items():
        counts = class_counts(run, task)
        yield f"{shortened(task)}: "
        for split in SPLITS:
            yield f"{split} "
            for place, name in enumerate(names[:12]):
                yield from (
                    f"{', ' if place else ''}{shortened(name, 30)} ",
                    count(counts[split][name], f"{first}, split {split}#count/{task}/{name}"),
                )
            yield "; " if split != SPLITS[-1] else ". "


def _groups(about: About) -> Parts:
    run = about.subject.run
    counts = group_counts(run)
    if not counts:
        yield "Patients were not named: every image was taken on its own, in splits and in intervals."
        return
    first = f"{about.subject.first}predictions.csv"
    divided = about.subject.trained.get("leaks", {}).get("groups", {}).get("count", 0)
    kept = (
        "were kept in one split each"
        if not divided
        else f"were divided between splits in {divided} cases"
    )
    yield f"Groups (patients or lesions) {kept}: "
    for split in SPLITS:
        yield from (
            f"{split} ",
            count(counts[split], f"{first}, split {split}#groups"),
            ", " if split != SPLITS[-1] else ".",
        )


def _labels(about: About) -> Parts:
    subject = about.subject
    labelled = subject.trained.get("labelled", {})
    for task in subject.run.tasks:
        if task not in labelled:
            raise CannotShow("the run is of an earlier version")
        place = pointer(f"{subject.trained_file}#/labelled", task)
        yield f"Labels of {shortened(task)}: "
        for split in SPLITS:
            yield from (
                f"{split} ",
                count(labelled[task][split], f"{place}/{split}"),
                ", " if split != SPLITS[-1] else ". ",
            )
    yield "An image without a label of a task was left out of that task."


def _audit(about: About) -> Parts:
    found = about.subject.audit
    if not found:
        leaks = about.subject.trained.get("leaks")
        if not leaks:
            raise CannotShow("not looked for")
        equal = leaks["equal"]["count"] + leaks["contradictory"]["count"]
        yield "By digests of pixels, "
        yield from (
            Cell(str(equal), float(equal), f"{about.subject.trained_file}#twins"),
            " pictures stand in several splits; near-duplicates were not looked for.",
        )
        return
    yield from (
        "An audit (samcls audit) of ",
        count(found["images"], "audit.json#/images"),
        " images found ",
    )
    told = [(code, number) for code, number in found["counts"].items()]
    for place, (code, number) in enumerate(told):
        yield from (f"{', ' if place else ''}{code} ", count(number, f"audit.json#/counts/{code}"))
    yield ("; " if told else "nothing; ")
    yield from (count(found["leaks"], "audit.json#/leaks"), " findings lay across splits.")


def _preprocessing(about: About) -> Parts:
    made = about.subject.run.fingerprint
    resize = {
        "longest": "the longer side resized and the rest padded",
        "stretch": "stretched to a square",
    }
    views = len(made.get("views", ()))
    told = resize.get(str(made.get("resize")), str(made.get("resize")))
    yield (
        f"Images were decoded to RGB, {told} ({made.get('input_size')} pixels), and normalised by the encoder's own means and "
        f"deviations; {'features of ' + str(views) + ' views were stored' if views > 1 else 'features of the unturned image were stored'}, as means "
        f"over {made.get('window')} x {made.get('window')} windows in {made.get('storage')}. Features were standardised by training's means and "
        "deviations of each channel."
    )


def _encoder(about: About) -> Parts:
    run = about.subject.run
    weights = run.metrics.get("weights", {})
    source = weights.get("untrained") or weights.get("file") or "a file of unknown name"
    kind = "with random weights" if weights.get("untrained") else "with trained weights"
    levels = ", ".join(map(str, run.fingerprint.get("levels", ())))
    yield (
        f"Features came from the frozen encoder {run.fingerprint.get('encoder')} {kind} ({shortened(source)}, sha256 "
        f"{str(run.fingerprint.get('checkpoint_sha256'))[:16]}…), at the levels {levels}."
    )


def _model(about: About) -> Parts:
    subject = about.subject
    run = subject.run
    tasks = "; ".join(
        f"{shortened(task)} ({len(names)} classes)" for task, names in run.tasks.items()
    )
    yield f"The head {run.config.head} on these features, with "
    yield from (
        count(subject.trained.get("parameters", 0), f"{subject.trained_file}#/parameters"),
        f" trained values, answers {tasks} with probabilities.",
    )


def _training(about: About) -> Parts:
    config = about.subject.run.config
    seeds = sorted({run.config.seed for run in about.subject.runs})
    yield (
        f"Heads that are trained by epochs used AdamW (learning rate {config.learning_rate:g}, weight decay {config.weight_decay:g}, batches of "
        f"{config.batch_size}, dropout {config.dropout:g}, at most {config.epochs} epochs, {config.warmup:g} of them warm-up, stopped "
        f"{config.patience} epochs after the last gain), loss {config.loss.replace('_', ' ')}, class weights {config.class_weights}; seed"
        f"{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}. Regressions were solved for each strength of a grid."
    )


def _selection(about: About) -> Parts:
    subject = about.subject
    run = subject.run
    how = f"by inner folds ({run.config.select})" if run.config.inner else "on the validation split"
    folds = f", in each of {run.config.folds} folds" if run.config.folds else ""
    yield from (
        f"Models were chosen {how}{folds} by AUC, between ",
        count(subject.trained.get("models_tried", 0), f"{subject.trained_file}#/models_tried"),
    )
    yield " models, controls included."


def _test_opened(about: About) -> Parts:
    subject = about.subject
    if not subject.run.scored:
        raise CannotShow("not opened")
    if subject.run.config.folds and len(subject.runs) > 1:
        yield "Every image was tested by the model of the fold that had not seen it, after everything was chosen."
        return
    yield (
        "The test split was scored once, after everything was chosen."
        if subject.opened == 1
        else (f"The test split was scored {subject.opened} times, for as many winners of a sweep.")
    )


def _threshold(about: About) -> Parts:
    for task, classes in about.subject.tasks.items():
        point = about.subject.points[task]
        if point.threshold is None:
            yield f"{shortened(task)}: the most probable class is answered. "
            continue
        own = about.subject.answers(task, "val" if about.subject.runs else "test")
        yield f"{shortened(task)}: class {shortened(classes[-1])} is answered above a probability of "
        yield figure(point.threshold, f"{own.source}#threshold/{task}", 4)
        yield ", which has the largest sensitivity + specificity on validation (Youden). "


def _uncertainty(about: About) -> Parts:
    del about
    yield (
        "95 % intervals of figures are jackknife intervals over groups (patients; images where none are named), in Wilson's form with "
        "Student's t. Differences to controls are paired: standard deviations over 1,000 resamples of groups against a t distribution. "
        "Bands of curves are percentiles over 500 resamples of groups. A figure that rests on fewer than six groups of a class has none."
    )


def _metrics(about: About) -> Parts:
    several = any(len(classes) > 2 for classes in about.subject.tasks.values())
    mean = "; of more than two classes the mean over classes against the rest" if several else ""
    yield (
        f"Discrimination: area under the ROC curve (AUC){mean}, average precision. Calibration: slope, calibration in the large, observed over "
        "expected, Brier score, log loss. Clinical utility: net benefit. At the threshold: sensitivity, specificity, predictive values."
    )


def _performance(about: About) -> Parts:
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
            for name in ("sensitivity", "specificity"):
                yield from (f", {name} ", figure(found.figures[name], f"{source}/{name}"))
                if found.intervals[name] is not None:
                    yield from (
                        " (",
                        interval(found.intervals[name], f"{source}/{name}_interval"),
                        ")",
                    )
        yield ". "


def _claims(about: About) -> Parts:
    for claim in about.results.claims.values():
        yield f"{shortened(claim.task)}: "
        yield from claim_parts(about, claim)
        yield " "


def _calibration(about: About) -> Parts:
    for task, classes in about.subject.tasks.items():
        if len(classes) != 2:
            continue
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


def _utility(about: About) -> Parts:
    from samcls.learn.score.curves import Curves

    for task, classes in about.subject.tasks.items():
        if len(classes) != 2:
            continue
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


def _baselines(about: About) -> Parts:
    names = [MEANINGS.get(name, name) for name in about.subject.controls]
    if not names:
        raise CannotShow("the run kept no controls")
    yield (
        f"Controls on the same features and splits: {', '.join(names)}. The head is held against the one that validation prefers, by a paired "
        "difference of AUCs over resamples of groups."
    )


def _sample_size(about: About) -> Parts:
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


def _subgroups(about: About) -> Parts:
    for task in about.subject.tasks:
        gaps = about.results.gaps(task)
        told = [gap for gap in gaps if not gap.withheld]
        bad = [gap for gap in told if gap.p is not None and gap.p < 0.05]
        columns = ", ".join(dict.fromkeys(shortened(gap.column, 30) for gap in gaps))
        yield (
            f"{shortened(task)}: of {len(told)} subgroups by {columns}, {len(bad)} had an AUC that differs from all other images' by more than noise "
            "(corrected). "
        )


def _failures(about: About) -> Parts:
    if not about.config.worst:
        raise CannotShow("not asked for")
    yield f"The {about.config.worst} worst answers of each task by loss are listed, and the confusion is shown."


def _explain(about: About) -> Parts:
    if not about.images or about.subject.store is None:
        raise CannotShow("no pictures were asked for")
    yield "Evidence maps (terms of windows that sum, with the bias, to the logit) are shown of the worst answers, with the nearest training images."


def _external(about: About) -> Parts:
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


def _robustness(about: About) -> Parts:
    subject = about.subject
    if len(subject.runs) < 2:
        raise CannotShow("one run")
    seeds = len({run.config.seed for run in subject.runs})
    folds = f" and {subject.run.config.folds} folds" if subject.run.config.folds else ""
    spread = subject.trained["test"].get("auc_std")
    yield f"Over {seeds} seeds{folds}"
    if spread is not None:
        yield from (
            " the test AUC has a standard deviation of ",
            figure(spread, f"{subject.trained_file}#/test/auc_std"),
        )
    yield "."


def _environment(about: About) -> Parts:
    found = about.subject.environment
    packages = ", ".join(
        f"{name} {version}" for name, version in found.get("packages", {}).items() if version
    )
    yield f"Made with {packages or 'unknown versions'}, Python {found.get('python', 'unknown')}, on {about.subject.run.metrics.get('device', 'cpu')}."


def _cost(about: About) -> Parts:
    total = sum(run.metrics.get("seconds", 0.0) for run in about.subject.runs)
    if not total:
        raise CannotShow("not known")
    folder = f"{about.subject.folder}metrics.json"
    yield from (
        "Training, controls and scoring took ",
        figure(total, f"{folder}#sum/seconds", 1),
        " seconds.",
    )


def _commands(about: About) -> Parts:
    yield f"The same again: {'; '.join(commands(about.subject))}"


def _model_files(about: About) -> Parts:
    yield f"The run's files and their sha256 are listed; head.safetensors is the model, {about.subject.run.path.name}/COMPLETE its checksums."


FACTS: Mapping[str, Callable[[About], Parts]] = {
    "model": _model,
    "data_source": _data_source,
    "data_counts": _data_counts,
    "groups": _groups,
    "labels": _labels,
    "audit": _audit,
    "preprocessing": _preprocessing,
    "encoder": _encoder,
    "training": _training,
    "selection": _selection,
    "test_opened": _test_opened,
    "threshold": _threshold,
    "uncertainty": _uncertainty,
    "metrics": _metrics,
    "performance": _performance,
    "claims": _claims,
    "calibration": _calibration,
    "utility": _utility,
    "baselines": _baselines,
    "sample_size": _sample_size,
    "subgroups": _subgroups,
    "failures": _failures,
    "explain": _explain,
    "external": _external,
    "robustness": _robustness,
    "environment": _environment,
    "cost": _cost,
    "commands": _commands,
    "model_files": _model_files,
}
