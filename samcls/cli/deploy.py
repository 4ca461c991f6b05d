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
    app.command("export")(verb(_export))
    app.command("card")(verb(_card))


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


def _export(
    run: Annotated[Path, typer.Argument(help="A run; or a folder of seeds or folds, averaged.")],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to make.")],
    form: Annotated[str, typer.Option("--format", help="onnx, torch-export or both.")] = "onnx",
    head_only: Annotated[
        bool,
        typer.Option(
            "--head-only", help="Leave the encoder out: cached features in, probabilities out."
        ),
    ] = False,
    images: Annotated[
        list[str] | None,
        typer.Option(
            help="Pictures to check with, as for predict (a manifest, say); 64 of them are taken. Built-in "
            "ones by default."
        ),
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Folder that a manifest's relative paths start from.")
    ] = None,
    checkpoint: Annotated[Path | None, CHECKPOINT] = None,
) -> Outcome:
    """Hand a run over as a folder that runs without samcls, checked against the run before it is there."""
    from samcls.deploy.handover import hand_over

    found = hand_over(
        run,
        directory,
        images=images or (),
        form=form,
        head_only=head_only,
        checkpoint=checkpoint,
        root=root,
        log=say,
    )
    values = {**asdict(found), "folder": str(found.folder), "files": list(found.files)}

    def show() -> None:
        typer.echo(
            f"{found.folder}: {', '.join(found.files)}\n{found.checked} pictures checked, alone and in batches of "
            f"2 and 7: {found.equal} of {found.checked} equal classes, a probability differs by "
            f"{found.worst:.1e} at most; {found.seconds:.1f} s"
        )

    return Outcome(values, show)


def _card(
    run: Annotated[Path, typer.Argument(help="A run; a folder of seeds or folds; or a sweep.")],
    out: Annotated[Path | None, typer.Argument(help="File to write; none prints it.")] = None,
) -> Outcome:
    """Write a run's model card: Markdown with the front matter of the Hugging Face Hub."""
    from samcls.deploy.card import card_of
    from samcls.errors import OverwriteRefused
    from samcls.files import write_whole

    text = card_of(run)
    if out is not None:
        if out.exists():
            raise OverwriteRefused(f"{out} is there already; name another file, or remove it first")
        write_whole(out, text.encode())
    values = {"card": text} if out is None else {"file": str(out)}
    return Outcome(
        values, lambda: typer.echo(text if out is None else f"{out}", nl=out is not None)
    )


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
