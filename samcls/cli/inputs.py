"""What goes in: manifests and checkpoints."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from samcls.cli.shell import Outcome, progress_bar, show_table, verb
from samcls.errors import ConfigError

if TYPE_CHECKING:
    from samcls.data.summary import Summary
    from samcls.encode.weights import Checkpoint

__all__ = ["register"]

_OUT = typer.Argument(help="Manifest to write.")
_OVERWRITE = typer.Option("--overwrite", help="Replace a manifest that is there.")


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    manifest = typer.Typer(help="Build a manifest: one row for each image.", no_args_is_help=True)
    manifest.command("medmnist")(verb(_medmnist))
    manifest.command("folder")(verb(_folder))
    manifest.command("isic2017")(verb(_isic2017))
    app.add_typer(manifest, name="manifest")
    weights = typer.Typer(help="The official SAM checkpoints.", no_args_is_help=True)
    weights.command("list")(verb(_list))
    weights.command("fetch")(verb(_fetch))
    weights.command("verify")(verb(_verify))
    app.add_typer(weights, name="weights")


def _medmnist(
    npz: Annotated[
        Path, typer.Argument(help="MedMNIST file of any size, such as breastmnist.npz.")
    ],
    out: Annotated[Path, _OUT],
    overwrite: Annotated[bool, _OVERWRITE] = False,
) -> Outcome:
    """From a MedMNIST .npz, with MedMNIST's own splits."""
    from samcls.data.sources import medmnist_manifest

    return _written(medmnist_manifest(npz, out, overwrite=overwrite))


def _folder(
    directory: Annotated[Path, typer.Argument(help="root/<class>/* or root/<split>/<class>/*.")],
    out: Annotated[Path, _OUT],
    seed: Annotated[int, typer.Option(help="Of the split, where the folders give none.")] = 0,
    fractions: Annotated[
        str, typer.Option(help="Shares of train, val and test, where the folders give no split.")
    ] = "0.7,0.1,0.2",
    overwrite: Annotated[bool, _OVERWRITE] = False,
) -> Outcome:
    """From a folder for each class, with a seeded stratified split where there is none."""
    from samcls.data.folders import folder_manifest

    shares = _shares(fractions)
    return _written(
        folder_manifest(directory, out, seed=seed, fractions=shares, overwrite=overwrite)
    )


def _shares(text: str) -> tuple[float, float, float]:
    try:
        train, val, test = (float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(
            f"--fractions is {text!r}; expected three numbers for train, val and test, such as "
            "0.7,0.1,0.2"
        ) from error
    return train, val, test


def _isic2017(
    directory: Annotated[Path, typer.Argument(help="Holds the three label CSVs and the images.")],
    out: Annotated[Path, _OUT],
    overwrite: Annotated[bool, _OVERWRITE] = False,
) -> Outcome:
    """From ISIC 2017, Part 3: the published label CSVs and an image folder, two binary tasks."""
    from samcls.data.sources import isic2017_manifest

    return _written(isic2017_manifest(directory, out, overwrite=overwrite))


def _written(summary: "Summary") -> Outcome:
    values: dict[str, Any] = {**asdict(summary), "manifest": str(summary.manifest)}

    def show() -> None:
        typer.echo(f"{summary.manifest}: {summary.images} images")
        rows = [
            [f"{task} = {name}", *(str(by_class[name]) for by_class in counts.values())]
            for task, counts in summary.counts.items()
            for name in summary.tasks[task]
        ]
        show_table(["images", *summary.splits], rows)
        for task, classes in summary.tasks.items():
            if len(classes) == 2:
                typer.echo(f"{task}: scores are those of {classes[-1]!r}, the last class")
        for suffix, count in summary.ignored.items():
            typer.echo(f"left out: {count} files ending in {suffix}")
        for note in summary.notes:
            typer.echo(note)

    return Outcome(values, show)


def _list() -> Outcome:
    """The known checkpoints, and which of them are on this machine."""
    from samcls.encode.weights import listing

    found = listing()
    values = {
        "checkpoints": [
            {**asdict(one.checkpoint), "path": str(one.path), "state": one.state} for one in found
        ]
    }

    def show() -> None:
        rows = [
            [one.checkpoint.name, f"{one.checkpoint.bytes:,}", one.state, str(one.path)]
            for one in found
        ]
        show_table(["name", "bytes", "state", "path"], rows)

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
    name: Annotated[str, typer.Argument(help="vit_b, vit_l or vit_h.")],
    path: Annotated[
        Path | None, typer.Argument(help="The file; by default the one that was fetched.")
    ] = None,
) -> Outcome:
    """Check a checkpoint file's size and SHA-256 against the official ones."""
    from samcls.encode.weights import cache_dir, find, verify
    from samcls.errors import WeightsError

    record = find(name)
    file = path or cache_dir() / record.file_name
    try:
        verify(name, file)
    except WeightsError as error:
        if path is None or not path.is_file():
            raise
        raise WeightsError(_said_of(name, path, str(error))) from error
    return _verified(record, file)


def _said_of(name: str, path: Path, difference: str) -> str:
    """Say of a file that is not the official one what it is, and whether it can be used all the same."""
    from samcls.encode.encoder import held_by
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
