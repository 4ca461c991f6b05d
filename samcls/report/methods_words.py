"""Sentences on what was done: images, encoder, head, choice, and how figures were made.

Each yields the parts of a paragraph, numbers with their sources; one that cannot be told raises CannotShow.
"""

from collections.abc import Iterator

from samcls.data.manifest import SPLITS
from samcls.learn.heads.controls import MEANINGS
from samcls.learn.heads.registry import head_class
from samcls.learn.runs.page import class_counts, group_counts
from samcls.report.about import About
from samcls.report.blocks import Cell, Part, count, figure, shortened
from samcls.report.places import pointer
from samcls.report.results import threshold_rule
from samcls.report.sections.making import commands as commands_of
from samcls.report.subject import CannotShow

__all__ = [
    "audit",
    "baselines",
    "commands",
    "cost",
    "data_counts",
    "data_source",
    "encoder",
    "environment",
    "groups",
    "labels",
    "metrics",
    "model",
    "model_files",
    "preprocessing",
    "selection",
    "test_opened",
    "threshold",
    "training",
    "uncertainty",
]

Parts = Iterator[Part]


def data_source(about: About) -> Parts:
    """Yield the fact `data_source`."""
    subject = about.subject
    if subject.external:
        found = subject.evaluation["images"]
        yield from (
            count(found["scored"], f"{subject.file}#/images/scored"),
            " labelled images of another data set were scored; ",
            count(found["failed"], f"{subject.file}#/images/failed"),
            " more could not be read, ",
            count(found["unlabelled"], f"{subject.file}#/images/unlabelled"),
            " had no label of the run's classes.",
        )
        return
    images, file = subject.metrics["images"], subject.file
    total = sum(images[split] for split in SPLITS)
    yield from (Cell(f"{total:,}", float(total), f"{file}#images/total"), " images were used")
    share = subject.run.config.train_fraction
    yield f" (training images are a share of {share:g} of those there were)" if share < 1 else ""
    if "failed" in images:
        yield from (
            "; ",
            count(images["failed"], f"{file}#/images/failed"),
            " more could not be read and were left out.",
        )
    else:
        yield "."


def data_counts(about: About) -> Parts:
    """Yield the fact `data_counts`."""
    run, first = about.subject.run, f"{about.subject.first}predictions.csv"
    yield _of_fold(about)
    for task, names in run.tasks.items():
        counts = class_counts(run, task)
        yield f"{shortened(task)}: "
        splits = _splits(about)
        for split, title in splits.items():
            yield f"{title} "
            for place, name in enumerate(names[:12]):
                number = count(counts[split][name], f"{first}, split {split}#count/{task}/{name}")
                yield from (f"{', ' if place else ''}{shortened(name, 30)} ", number)
            yield "; " if split != [*splits][-1] else ". "


def groups(about: About) -> Parts:
    """Yield the fact `groups`."""
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
    lacking = sum(not group for group in run.predictions("test").groups) if run.scored else 0
    yield f"{_of_fold(about)}Groups (patients or lesions) {kept}: "
    splits = _splits(about)
    for split, title in splits.items():
        number = count(counts[split], f"{first}, split {split}#groups")
        yield from (f"{title} ", number, ", " if split != [*splits][-1] else ".")
    yield f" {lacking} test images have no group." if lacking else ""


def labels(about: About) -> Parts:
    """Yield the fact `labels`."""
    subject = about.subject
    labelled = subject.trained.get("labelled", {})
    yield _of_fold(about)
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


def _of_fold(about: About) -> str:
    """Return whose counts they are, where folds divide the images anew."""
    config = about.subject.run.config
    return f"In fold {config.fold} of {config.folds}: " if about.subject.folds else ""


def _splits(about: About) -> dict[str, str]:
    """Return splits of the predictions; where inner folds choose, what was learned from stands in `val`."""
    inner = about.subject.run.config.inner
    return {"val": "train and val", "test": "test"} if inner else {split: split for split in SPLITS}


def audit(about: About) -> Parts:
    """Yield the fact `audit`."""
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
        "An audit (samcls audit" + (", by features alone" if "made" in found else "") + ") of ",
        count(found["images"], "audit.json#/images"),
        " images found ",
    )
    told = [(code, number) for code, number in found["counts"].items()]
    for place, (code, number) in enumerate(told):
        yield from (f"{', ' if place else ''}{code} ", count(number, f"audit.json#/counts/{code}"))
    yield ("; " if told else "nothing; ")
    yield from (count(found["leaks"], "audit.json#/leaks"), " findings lay across splits.")


def preprocessing(about: About) -> Parts:
    """Yield the fact `preprocessing`."""
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


def encoder(about: About) -> Parts:
    """Yield the fact `encoder`."""
    run = about.subject.run
    weights = run.metrics.get("weights", {})
    source = weights.get("file") or "a file that is not known"
    kind = (
        f"with random weights ({about.subject.untrained})"
        if about.subject.untrained
        else f"with weights of {shortened(source)}"
    )
    levels = ", ".join(map(str, run.fingerprint.get("levels", ())))
    yield (
        f"Features came from the frozen encoder {run.fingerprint.get('encoder')} {kind} (sha256 "
        f"{str(run.fingerprint.get('checkpoint_sha256'))[:16]}…), at the levels {levels}."
    )


def model(about: About) -> Parts:
    """Yield the fact `model`."""
    subject = about.subject
    run = subject.run
    tasks = "; ".join(
        f"{shortened(task)} ({len(names)} classes)" for task, names in run.tasks.items()
    )
    kind = (
        "An image network gated by these features"
        if head_class(run.config.head).fitting == "network"
        else "The head"
    )
    yield f"{kind}, {run.config.head}, with "
    yield from (
        count(subject.trained.get("parameters", 0), f"{subject.trained_file}#/parameters"),
        f" trained values, answers {tasks} with probabilities.",
    )
    if run.config.with_meta:
        yield f" Beside the image it is given the columns {', '.join(map(shortened, run.config.with_meta))}."


def training(about: About) -> Parts:
    """Yield the fact `training`: how the head is fitted, by what kind it is."""
    config = about.subject.run.config
    seeds = sorted({run.config.seed for run in about.subject.runs})
    named = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    stop = (
        f"stopped {config.patience} epochs after the last gain on what chooses"
        if config.patience
        else "none left out"
    )
    descent = (
        f"AdamW (learning rate {config.learning_rate:g}, weight decay {config.weight_decay:g}, batches of {config.batch_size}, at most "
        f"{config.epochs} epochs, the first {100 * config.warmup:g} % of them warm-up, {stop}), loss {config.loss.replace('_', ' ')}, class weights {config.class_weights}; {named}"
    )
    fitting = head_class(config.head).fitting
    if fitting == "solution":
        yield f"The head {config.head} was solved for each number of a grid, without epochs and without chance."
    elif fitting == "ensemble":
        parts = ", ".join(
            dict.fromkeys(part.head for part in head_class(config.head).heads(config))
        )
        by_epochs = f" (heads trained by epochs, {parts}, with {descent})" if parts else ""
        yield f"The head averages the probabilities of its members{by_epochs}, and regressions solved for each strength of a grid."
    elif fitting == "network":
        start = "pretrained weights" if config.pretrained else "random weights"
        rate = (
            "frozen"
            if config.freeze_backbone
            else f"trained at learning rate {config.backbone_learning_rate:g}"
        )
        yield f"The image network began from {start} and was {rate}; with {descent}."
    else:
        yield f"The head was trained with {descent}; dropout {config.dropout:g}."


def selection(about: About) -> Parts:
    """Yield the fact `selection`."""
    subject = about.subject
    run = subject.run
    board = subject.board.get("tried")
    if board:
        yield "A sweep chose between "
        yield from (
            count(board, "leaderboard.json#/tried"),
            " configurations by mean validation AUC; within its winner, m",
        )
    else:
        yield "M"
    how = f"by inner folds ({run.config.select})" if run.config.inner else "on the validation split"
    folds = f", in each of {run.config.folds} folds" if run.config.folds else ""
    yield f"odels were chosen {how}{folds} by AUC"
    tried = subject.trained.get("models_tried")
    if tried is not None:
        yield from (
            ", between ",
            count(tried, f"{subject.trained_file}#/models_tried"),
            " models, controls included",
        )
    yield "."


def test_opened(about: About) -> Parts:
    """Yield the fact `test_opened`."""
    subject = about.subject
    if not subject.run.scored:
        raise CannotShow("not opened")
    if subject.run.config.folds and len(subject.runs) > 1:
        yield "Every image was tested by a model that had not seen it, after everything was chosen."
    elif subject.opened > 1:
        yield f"The test split was scored {subject.opened} times, for as many winners of a sweep."
    elif len(subject.runs) > 1:
        yield f"The test split was scored once by each of {len(subject.runs)} seeds, after everything was chosen."
    else:
        yield "The test split was scored once, after everything was chosen."


def threshold(about: About) -> Parts:
    """Yield the fact `threshold`."""
    subject = about.subject
    for task, classes in subject.tasks.items():
        point = subject.points[task]
        if point.threshold is None:
            yield f"{shortened(task)}: the most probable class is answered. "
            continue
        own = subject.answers(task, "val" if subject.runs else "test")
        yield f"{shortened(task)}: class {shortened(classes[-1])} is answered above a probability of "
        yield figure(point.threshold, f"{own.source}#threshold/{task}", 4)
        yield f", {threshold_rule(subject, task)}. "


def uncertainty(about: About) -> Parts:
    """Yield the fact `uncertainty`."""
    del about
    yield (
        "95 % intervals of figures are jackknife intervals over groups (patients; images where none are named), in Wilson's form with "
        "Student's t. Differences to controls are paired: standard deviations over 1,000 resamples of groups against a t distribution. "
        "Bands of curves are percentiles over 500 resamples of groups. A figure that rests on fewer than six groups of a class has none."
    )


def metrics(about: About) -> Parts:
    """Yield the fact `metrics`."""
    several = any(len(classes) > 2 for classes in about.subject.tasks.values())
    mean = "; of more than two classes the mean over classes against the rest" if several else ""
    yield (
        f"Discrimination: area under the ROC curve (AUC){mean}, average precision. Calibration: slope, calibration in the large, observed over "
        "expected, Brier score, log loss. Clinical utility: net benefit. At the threshold: sensitivity, specificity, predictive values."
    )


def baselines(about: About) -> Parts:
    """Yield the fact `baselines`."""
    names = [MEANINGS.get(name, name) for name in about.subject.controls]
    if not names:
        raise CannotShow("the run kept no controls")
    judged = "The head is held against the one that validation prefers, by a paired difference of AUCs over resamples of groups."
    yield f"Controls on the same features and splits: {'; '.join(names)}. {judged if about.results.claims else ''}"


def environment(about: About) -> Parts:
    """Yield the fact `environment`."""
    found = about.subject.environment
    packages = ", ".join(
        f"{name} {version}" for name, version in found.get("packages", {}).items() if version
    )
    yield f"Made with {packages or 'unknown versions'}, Python {found.get('python', 'unknown')}, on {about.subject.run.metrics.get('device', 'cpu')}."


def cost(about: About) -> Parts:
    """Yield the fact `cost`."""
    total = sum(run.metrics.get("seconds", 0.0) for run in about.subject.runs)
    if not total:
        raise CannotShow("not known")
    folder = f"{about.subject.folder}metrics.json"
    yield from (
        "Training, controls and scoring took ",
        figure(total, f"{folder}#sum/seconds", 1),
        " seconds.",
    )


def commands(about: About) -> Parts:
    """Yield the fact `commands`."""
    yield f"The same again: {'; '.join(commands_of(about.subject))}"


def model_files(about: About) -> Parts:
    """Yield the fact `model_files`."""
    yield f"The run's files and their sha256 are listed; head.safetensors is the model, {about.subject.run.path.name}/COMPLETE its checksums."
