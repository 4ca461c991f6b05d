"""What is wrong with a data set, on the command line."""

from pathlib import Path
from typing import Annotated

import typer

from samcls.cli.shell import Outcome, progress_bar, say, verb

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("audit")(verb(_audit))


def _audit(
    data: Annotated[str, typer.Argument(help="Feature store, or a manifest (.csv).")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for findings.csv, audit.json and the contact sheet audit.html."),
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(
            help="Of a store: where its pictures are, by which near-duplicates are confirmed."
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            help="Run of the store: what leaks did to its figures, also trained again without twins."
        ),
    ] = None,
    pretraining: Annotated[
        Path | None,
        typer.Option(
            help="Store, run or text of digests of the images that the encoder was trained on."
        ),
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Folder that the manifest's relative paths start from.")
    ] = None,
    images: Annotated[
        bool, typer.Option("--images", help="Show thumbnails of the pictures in the contact sheet.")
    ] = False,
    write: Annotated[
        Path | None,
        typer.Option(
            help="Write a manifest in which twins share a group and a split, without contradictions."
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 where anything makes figures wrong.")
    ] = False,
) -> Outcome:
    """Look for twins, leaks across splits, contradictory labels, odd pictures and what gives labels away."""
    from samcls.audit.audit import audit
    from samcls.audit.page import audit_page

    with progress_bar("audit") as progress:
        found = audit(
            data,
            out,
            manifest=manifest,
            run=run,
            pretraining=pretraining,
            images=images,
            write=write,
            root=root,
            log=say,
            progress=progress,
        )
    values = found.to_dict()
    if out is not None:
        values["out"] = str(out)

    def show() -> None:
        typer.echo(audit_page(found), nl=False)

    return Outcome(values, show, exit_status=1 if strict and not found.ok else 0)
