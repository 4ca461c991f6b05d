"""The two stages and the store between them: extract, train, store."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from samcls.cli.shell import Outcome, progress_bar, say, show_table, verb

__all__ = ["register"]

_SHOWN_FAILURES = 10


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command("extract")(verb(_extract))
    store = typer.Typer(help="Look after a feature store.", no_args_is_help=True)
    store.command("info")(verb(_store_info))
    app.add_typer(store, name="store")


def _extract(
    manifest: Annotated[Path, typer.Argument(help="CSV with id, path, split and labels.")],
    store: Annotated[str, typer.Argument(help="Feature store to make or to go on with.")],
    root: Annotated[
        Path | None, typer.Option(help="Folder that the manifest's relative paths start from.")
    ] = None,
    encoder: Annotated[
        str, typer.Option(help="vit_b, vit_l, vit_h, or vit_t: a built-in, UNTRAINED miniature.")
    ] = "vit_t",
    checkpoint: Annotated[
        Path | None, typer.Option(help="Official SAM checkpoint; by default the one fetched.")
    ] = None,
    levels: Annotated[
        str, typer.Option(help="patch, early, middle, late, neck, block:<i>; comma-separated.")
    ] = "all",
    window: Annotated[int, typer.Option(help="Pooling window, in map cells; 1 keeps all.")] = 4,
    size: Annotated[
        int | None, typer.Option(help="Encoder input in pixels, a multiple of 16.")
    ] = None,
    resize: Annotated[str, typer.Option(help="longest (keep the aspect, pad) or stretch.")] = (
        "longest"
    ),
    storage: Annotated[str, typer.Option(help="float16 or float32.")] = "float16",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    batch: Annotated[int | None, typer.Option(help="Images encoded together.")] = None,
    seed: Annotated[int, typer.Option(help="Of vit_t's untrained weights.")] = 0,
) -> Outcome:
    """Stage one: encode every image of a manifest once. Run it again to go on after a stop."""
    from samcls.data.manifest import check_files, check_labels, read_manifest

    rows = read_manifest(manifest, root)
    check_labels(rows)
    missing = check_files(rows)
    if missing:
        say(f"{len(missing)} of {len(rows)} files do not exist; their rows will be marked failed")
    from samcls.encode.extract import ExtractOptions, extract

    options = ExtractOptions(
        encoder=encoder,
        checkpoint=str(checkpoint) if checkpoint else None,
        levels=levels,
        window=window,
        size=size,
        resize=resize,  # type: ignore[arg-type]  # the options check it
        storage=storage,
        device=device,
        batch=batch,
        seed=seed,
    )
    if encoder == "vit_t":
        say("vit_t is UNTRAINED: seeded random weights, for trying things out and for controls")
    with progress_bar("extract") as progress:
        summary = extract(rows, store, options, progress)
    values = asdict(summary)
    values["failures"] = [{"id": i, "reason": reason} for i, reason in summary.failures]

    def show() -> None:
        rate = f", {summary.images_per_second:.1f} images/s" if summary.images_per_second else ""
        typer.echo(
            f"{summary.store}: {summary.done} of {summary.images} images done"
            f" ({summary.skipped} before), {summary.failed} failed, "
            f"{summary.bytes / 1e6:.1f} MB, {summary.seconds:.1f} s{rate}"
        )
        _list_failures(summary.failures)

    return Outcome(values, show, exit_status=3 if summary.failed else 0)


def _list_failures(failures: tuple[tuple[str, str], ...]) -> None:
    for image, reason in failures[:_SHOWN_FAILURES]:
        say(f"failed: {image}: {reason}")
    if len(failures) > _SHOWN_FAILURES:
        say(f"... and {len(failures) - _SHOWN_FAILURES} more; --json lists them all")


def _store_info(
    store: Annotated[str, typer.Argument(help="Feature store.")],
) -> Outcome:
    """Say what a store holds and what made it."""
    import numpy as np

    from samcls.store.feature_store import FeatureStore
    from samcls.store.schema import DONE, FAILED

    opened = FeatureStore.open(store)
    status = opened.status
    splits, counts = np.unique(opened.splits, return_counts=True)
    values: dict[str, Any] = {
        "store": opened.path,
        "images": len(opened),
        "done": int((status == DONE).sum()),
        "failed": int((status == FAILED).sum()),
        "splits": {str(k): int(n) for k, n in zip(splits, counts, strict=True)},
        "tasks": {name: list(classes) for name, classes in opened.tasks.items()},
        "levels": {name: list(asdict(shape).values()) for name, shape in opened.levels.items()},
        "fingerprint": opened.fingerprint.to_dict(),
        "payload_bytes": opened.payload_bytes,
        "bytes": opened.stored_bytes,
    }
    failures = tuple((opened.ids[r], opened.errors[r]) for r in np.flatnonzero(status == FAILED))

    def show() -> None:
        pending = values["images"] - values["done"] - values["failed"]
        typer.echo(
            f"{opened.path}: {len(opened)} images: {values['done']} done, {values['failed']} "
            f"failed, {pending} pending"
        )
        typer.echo("splits: " + ", ".join(f"{k} {n}" for k, n in values["splits"].items()))
        for name, classes in opened.tasks.items():
            typer.echo(f"task {name}: {', '.join(classes)}")
        typer.echo(f"size: {opened.stored_bytes / 1e6:.1f} MB for {opened.payload_bytes / 1e6:.1f}")
        show_table(
            ["level", "channels", "rows", "cols"],
            [[k, *map(str, asdict(v).values())] for k, v in opened.levels.items()],
        )
        for name, value in opened.fingerprint.to_dict().items():
            typer.echo(f"{name}: {value}")
        _list_failures(failures)

    return Outcome(values, show)
