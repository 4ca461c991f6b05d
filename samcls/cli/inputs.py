"""What goes in: manifests and checkpoints."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from samcls.cli.shell import Outcome, progress_bar, show_table, verb
from samcls.cli.sources import Sources
from samcls.files import few

if TYPE_CHECKING:
    from samcls.encode.weights import Checkpoint

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    manifest = typer.Typer(
        cls=Sources, help="Build a manifest: one row for each image.", no_args_is_help=True
    )
    manifest.callback()(_sources)
    app.add_typer(manifest, name="manifest")
    weights = typer.Typer(help="Encoders and their weights.", no_args_is_help=True)
    weights.command("list")(verb(_list))
    weights.command("fetch")(verb(_fetch))
    weights.command("verify")(verb(_verify))
    app.add_typer(weights, name="weights")


def _sources() -> None:
    """Build a manifest: one row for each image."""


def _list() -> Outcome:
    """List the encoders: what each is, its size and licence, and which weights are on this machine."""
    from samcls.encode.catalogue import catalogue
    from samcls.encode.weights import listing

    found = catalogue()
    values = {
        "checkpoints": [
            {**asdict(one.checkpoint), "path": str(one.path), "state": one.state}
            for one in listing()
        ],
        "encoders": [asdict(one) for one in found],
    }

    def show() -> None:
        rows = [
            [
                one.name,
                f"{one.entry.parameters:.1f}" if one.entry.parameters else "",
                str(one.entry.size or ""),
                "" if one.bytes is None else f"{one.bytes / 1e6:.0f}",
                one.state,
                one.entry.licence,
                one.entry.about,
            ]
            for one in found
        ]
        show_table(
            ["encoder", "M values", "pixels", "MB", "weights", "licence", "what it is"], rows
        )
        for source in dict.fromkeys(one.entry.source for one in found):
            names = [one.name for one in found if one.entry.source == source]
            typer.echo(f"{few(names, 3)}: {source}")
        typer.echo(
            "Any of timm's models is an encoder: --encoder timm:MODEL. A file of your own: --checkpoint "
            "FILE, nothing is fetched then."
        )

    return Outcome(values, show)


def _fetch(
    name: Annotated[str, typer.Argument(help="vit_b, vit_l or vit_h.")],
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Folder to put it in; the cache by default.")
    ] = None,
) -> Outcome:
    """Download an official checkpoint, going on where a stopped download ended, and verify it."""
    from samcls.encode.fetching import fetch
    from samcls.encode.weights import find

    record = find(name)
    with progress_bar(f"fetch {name}", "bytes") as progress:
        path = fetch(name, directory, lambda done, total: progress(done, total, 0))
    return _verified(record, path)


def _verify(
    name: Annotated[str, typer.Argument(help="vit_b, vit_l, vit_h or lite0.")],
    path: Annotated[
        Path | None, typer.Argument(help="The file; by default the one that was fetched.")
    ] = None,
) -> Outcome:
    """Check a checkpoint file's size and SHA-256 against the official ones."""
    from samcls.encode.weights import find, place, verify
    from samcls.errors import WeightsError

    record = find(name)
    file = path or place(record)
    try:
        verify(name, file)
    except WeightsError as error:
        if path is None or not path.is_file():
            raise
        raise WeightsError(_said_of(name, path, str(error))) from error
    return _verified(record, file)


def _said_of(name: str, path: Path, difference: str) -> str:
    """Say of a file that is not the official one what it is, and whether it can be used all the same."""
    from samcls.encode.sam import held_by
    from samcls.errors import WeightsError

    reason = difference.partition(" Remove it")[0]
    try:
        held = held_by(name, path)
    except WeightsError as error:
        return f"{reason} {error}"
    return f"{reason} It holds {held}, and can be used: --encoder {name} --checkpoint {path}"


def _verified(record: "Checkpoint", path: Path) -> Outcome:
    values = {"name": record.name, "path": str(path), "sha256": record.sha256, "ok": True}
    return Outcome(values, lambda: typer.echo(f"{path} is {record.name}: sha256 {record.sha256}"))
