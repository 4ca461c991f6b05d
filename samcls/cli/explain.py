"""Where a run looked: `samcls explain`."""

from pathlib import Path
from typing import Annotated

import typer

from samcls.cli.options import names
from samcls.cli.shell import Outcome, say, verb

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("explain")(verb(_explain))


def _explain(
    run: Annotated[Path, typer.Argument(help="A run; or a folder of seeds, averaged.")],
    store: Annotated[
        str | None,
        typer.Option(
            help="Feature store of the images; by default the one that the run was trained on."
        ),
    ] = None,
    ids: Annotated[str | None, typer.Option(help="Images of the store, comma-separated.")] = None,
    split: Annotated[
        str | None, typer.Option(help="Images of this split, where none is named; test by default.")
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Option(help="File, folder or manifest of pictures, encoded now; may be given again."),
    ] = None,
    manifest: Annotated[
        Path | None, typer.Option(help="Where the store's pictures are, for overlays.")
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Folder that a manifest's relative paths start from.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="Of the run's tasks; the first by default.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--class", help="Class that evidence is for; of two the last, of more the one answered."
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(help="Class it is held against; the other, or the mean of all others."),
    ] = None,
    what: Annotated[
        str, typer.Option(help="evidence, or gate: where attention is open.")
    ] = "evidence",
    shown: Annotated[
        int,
        typer.Option(min=0, help="Images with overlays and a place in the page, the worst first."),
    ] = 24,
    scores: Annotated[
        bool,
        typer.Option("--scores/--no-scores", help="Hold evidence against maps that know nothing."),
    ] = True,
    through: Annotated[
        int, typer.Option(min=0, help="Blank and encode again the pictures of so many images.")
    ] = 0,
    masks: Annotated[
        Path | None, typer.Option(help="Folder of masks, ID.png, in which evidence should lie.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the numbers, overlays and explain.html.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="File of the encoder's weights, where it is not found.")
    ] = None,
    device: Annotated[
        str, typer.Option(help="auto (the GPU where there is one), cpu or cuda.")
    ] = "auto",
) -> Outcome:
    """Tell which windows of each picture a run's answer comes from, and how far that may be believed."""
    from samcls.explain.explain import explain

    found = explain(
        run,
        out,
        store=store,
        ids=names(ids) or (),
        split=split,
        images=images or (),
        manifest=manifest,
        root=root,
        task=task,
        name=name,
        against=against,
        what=what,
        shown=shown,
        scores=scores,
        through=through,
        masks=masks,
        checkpoint=checkpoint,
        device=device,
        log=say,
    )
    values = found.to_dict() | {"out": None if out is None else str(out)}
    return Outcome(values, lambda: typer.echo(found.text(), nl=False))
