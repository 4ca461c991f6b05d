"""How far figures would change: over splits, seeds, folds, epochs, and with more training images."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from samcls.learn.score.headline import of_task
from samcls.learn.score.metrics import FIGURES, figures
from samcls.report.about import About
from samcls.report.blocks import Block, Listing, Part, Table, Text, count, figure
from samcls.report.pictures.tables import history, spread
from samcls.report.places import table_of
from samcls.report.subject import CannotShow

__all__ = ["stability"]


def stability(about: About) -> Iterator[Block]:
    """Yield what is known of training, validation and test, of seeds and folds, and of more images."""
    if about.subject.external:
        raise CannotShow("it is of training; report the run itself")
    if not about.subject.runs:
        raise CannotShow(about.subject.reason)
    yield from about.each("splits", _splits)
    yield from about.attempt("seeds and folds", lambda: _runs(about))
    yield from about.attempt("epochs", lambda: _epochs(about))
    yield from about.attempt("more training images", lambda: _outlook(about))


def _splits(about: About, task: str) -> Iterator[Block]:
    subject = about.subject
    column = list(subject.tasks).index(task)
    rows = []
    names = ("val", "test") if subject.run.config.inner else ("train", "val", "test")
    for split in names:
        if subject.folds and split != "test":
            continue  # which other folds test
        try:
            said = subject.said(split)
        except CannotShow:  # runs of a sweep say nothing of training and test
            continue
        known = said.labels[:, column] >= 0
        labels, chance = said.labels[known, column], said.probabilities[task][known]
        if not len(labels):
            continue
        values = figures(np.ones((1, len(labels))), labels, chance.astype(np.float64))[:, 0]
        likely = np.clip(chance[np.arange(len(labels)), labels].astype(np.float64), 1e-12, 1)
        source = f"{subject.folder}predictions.csv, split {split}#split/{task}"
        rows.append(
            (
                {"train": "training", "val": "validation"}.get(split, split),
                count(len(labels), f"{source}/images"),
                figure(values[FIGURES.index("auc")], f"{source}/auc"),
                figure(values[FIGURES.index("brier")], f"{source}/brier"),
                figure(-np.log(likely).mean(), f"{source}/log_loss"),
            )
        )
    seeds = " Of the seeds' mean answer." if subject.seeds > 1 else ""
    yield Table(
        f"Training, validation and test{about.of(task)}",
        ("split", "images", "AUC", "Brier score", "log loss (nats)"),
        tuple(rows),
        "A head that is far better on training's own images has learned them by heart; what counts is the test."
        + seeds,
    )


def _runs(about: About) -> Iterator[Block]:
    subject = about.subject
    if len(subject.runs) < 2:
        raise CannotShow("there is one run: train with --seeds 5 or --folds 5 in a new folder")
    for task in subject.tasks:
        rows: list[tuple[Part, ...]] = []
        aucs = []
        for run in subject.runs:
            place = f"{subject.base}{run.path.name}/metrics.json#"
            cells: list[Part] = [
                run.path.name,
                str(run.config.seed),
                str(run.config.fold) if run.config.folds else "\N{EN DASH}",
            ]
            for split in ("validation", "test"):
                table, where = table_of(run.metrics.get(split, {}), f"{place}/{split}", task)
                cells.append(figure(table.get("auc"), f"{where}/auc"))
            cells.append(count(run.metrics["best_epoch"], f"{place}/best_epoch"))
            rows.append(tuple(cells))
            if (auc := of_task(run.metrics.get("test", {}), task).get("auc")) is not None:
                aucs.append(auc)
        yield Table(
            f"Runs{about.of(task)}",
            ("run", "seed", "fold", "validation AUC", "test AUC", "epoch"),
            tuple(rows),
        )
        if len(aucs) == len(subject.runs):
            names, file = [run.path.name for run in subject.runs], f"{subject.folder}metrics.json"
            yield about.picture(
                f"runs-{task}", "runs", partial(spread, names, aucs, "test AUC", file)
            )


def _epochs(about: About) -> Iterator[Block]:
    run = about.subject.run
    if len(run.history) < 2:
        raise CannotShow(f"the head {run.config.head} is not trained by epochs, or its parts are")
    file = f"{about.subject.first}history.csv"
    yield about.picture(
        "training", "epochs", lambda: history(run.history, run.metrics["best_epoch"], file)
    )


def _outlook(about: About) -> Iterator[Block]:
    found = about.subject.board.get("efficiency", {})
    if not found.get("validation"):
        raise CannotShow(
            "a learning curve needs a sweep with several shares of the training images (fractions)"
        )
    from samcls.report.pictures.searched import learning_curve

    for split in ("test", "validation"):
        if found.get(split):
            points = found[split]
            yield about.picture(
                f"learning-curve-{split}",
                "learning curve",
                partial(learning_curve, points, split),
            )
            break
    outlook = found.get("outlook") or []
    if outlook:
        yield Listing(tuple((one["said"],) for one in outlook))
    else:
        yield Text(
            (
                "At twice the images: not told, since that needs three shares and two seeds or more.",
            ),
            "note",
        )
