"""What comes out of runs: predict, evaluate, export."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from samcls.cli.options import ALLOW_LEAK, names
from samcls.cli.shell import Outcome, progress_bar, say, showing, verb

if TYPE_CHECKING:
    from samcls.deploy.predict import PredictSummary

__all__ = ["register"]

SHOWN_FAILURES = 10

CHECKPOINT = typer.Option(
    help="File of the encoder's weights; by default found by the digest that the run keeps."
)
DEVICE = typer.Option(help="auto (the GPU where there is one), cpu or cuda.")
BATCH = typer.Option("--batch", "--batch-size", help="Images encoded together; chosen by default.")


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command("predict")(verb(_predict))
    app.command("evaluate")(verb(_evaluate))


def _predict(
    run: Annotated[Path, typer.Argument(help="A run; or a folder of seeds or folds, averaged.")],
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Files, folders, a manifest (.csv), an .npz, DICOM; - takes a path a line from stdin.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="CSV to write, or to go on with; standard output by default."),
    ] = None,
    by: Annotated[
        str, typer.Option(help="image, or group: a row for each patient, the mean of its logits.")
    ] = "image",
    store: Annotated[
        str | None, typer.Option(help="Feature store to keep the pictures' features in.")
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Folder that a manifest's relative paths start from.")
    ] = None,
    checkpoint: Annotated[Path | None, CHECKPOINT] = None,
    device: Annotated[str, DEVICE] = "auto",
    batch: Annotated[int | None, BATCH] = None,
    as_json: bool = False,
) -> Outcome:
    """Predict pictures with a run. Run it again with the same --out to go on after a stop."""
    from samcls.deploy.predict import predict

    stream = None if out is not None or as_json else _tell
    with progress_bar("predict") as progress:
        summary = predict(
            run,
            inputs,
            out,
            by=by,
            store=store,
            root=root,
            checkpoint=checkpoint,
            device=device,
            batch=batch,
            stream=stream,
            progress=progress,
            log=say,
        )
    values = _as_json(summary)
    return Outcome(values, lambda: _show(summary), exit_status=3 if summary.failed else 0)


def _evaluate(
    run: Annotated[Path, typer.Argument(help="A run; or a folder of seeds or folds, averaged.")],
    data: Annotated[
        str,
        typer.Argument(
            metavar="STORE",
            help="Feature store made with the run's settings; or a manifest (.csv).",
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="Folder to keep the result in.")] = None,
    classes: Annotated[
        Path | None,
        typer.Option(
            help="CSV with columns from, to (and task): the data set's classes as the run's."
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Splits to score, comma-separated; all by default.")
    ] = None,
    recalibrate: Annotated[
        str | None,
        typer.Option(
            help="Part that temperature and threshold are fitted anew on, a share or a split: a row apart."
        ),
    ] = None,
    allow_leak: Annotated[bool, ALLOW_LEAK] = False,
    store: Annotated[
        str | None, typer.Option(help="Feature store for a manifest's images; OUT.zarr by default.")
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Folder that a manifest's relative paths start from.")
    ] = None,
    checkpoint: Annotated[Path | None, CHECKPOINT] = None,
    device: Annotated[str, DEVICE] = "auto",
    batch: Annotated[int | None, BATCH] = None,
) -> Outcome:
    """Score a frozen run on another data set: external validation, for which nothing is fitted."""
    from samcls.deploy.evaluate import evaluate
    from samcls.deploy.page import evaluation_page

    found = evaluate(
        run,
        data,
        out,
        classes=classes,
        splits=names(split) or (),
        recalibrate=recalibrate,
        allow_leak=allow_leak,
        store=store,
        root=root,
        checkpoint=checkpoint,
        device=device,
        batch=batch,
        log=say,
    )
    values = {**found.figures, **found.to_dict(), "out": None if out is None else str(out)}

    def show() -> None:
        typer.echo(evaluation_page(found.to_dict()), nl=False)
        if out is not None:
            typer.echo(f"kept in {out}: evaluation.json, predictions.csv")

    return Outcome(values, show, exit_status=3 if found.images["failed"] else 0)


def _tell(text: str) -> None:
    """Show some text at once on standard output, whose failures are told from those of other files."""
    with showing():
        sys.stdout.write(text)


def _show(summary: "PredictSummary") -> None:
    for image, reason in summary.failures[:SHOWN_FAILURES]:
        say(f"failed: {image}: {reason}")
    if len(summary.failures) > SHOWN_FAILURES:
        say(f"... and {len(summary.failures) - SHOWN_FAILURES} more")
    if any(summary.seen.values()):
        known = ", ".join(f"{count} in {split}" for split, count in summary.seen.items() if count)
        say(
            f"warning: the run knows pictures among these from its own data: {known} (column seen); those it "
            "was trained on are answered too well"
        )
    say(
        f"{summary.out or 'predictions'}: {summary.images} images ({summary.skipped} before), "
        f"{summary.failed} failed, {summary.seconds:.1f} s, {summary.images_per_second:.1f} images/s"
    )


def _as_json(summary: "PredictSummary") -> dict[str, Any]:
    values = asdict(summary)
    values["failures"] = [{"id": name, "reason": reason} for name, reason in summary.failures]
    if summary.out is not None:
        del values["predictions"]
    return values
