"""Stage one and the store that it fills: extract, store; and the demo of it all."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from samcls.cli.fields import Grouped, options_from
from samcls.cli.options import ALLOW_LEAK, MISSING, STRICT, names
from samcls.cli.shell import Outcome, progress_bar, say, show_table, verb
from samcls.cli.tables import show_side_by_side
from samcls.encode.options import ExtractOptions

if TYPE_CHECKING:
    from samcls.data.leaks import Leaks
    from samcls.data.manifest import Manifest
    from samcls.encode.extract import ExtractSummary

__all__ = ["register"]

SHOWN_FAILURES = 10


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command("extract", cls=Grouped)(verb(_extract))
    app.command("demo")(verb(_demo))


@options_from(ExtractOptions)
def _extract(
    manifest: Annotated[Path, typer.Argument(help="CSV with id, path, split and labels.")],
    store: Annotated[str, typer.Argument(help="Feature store to make or to go on with.")],
    given: dict[str, Any],
    root: Annotated[
        Path | None,
        typer.Option(
            help="Folder that the manifest's relative paths start from.", rich_help_panel="Data"
        ),
    ] = None,
    missing: Annotated[str | None, MISSING] = None,
    allow_leak: Annotated[bool, ALLOW_LEAK] = False,
    strict: Annotated[bool, STRICT] = False,
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Say what it would cost, and what is cheaper; write nothing."),
    ] = False,
    check: Annotated[
        int, typer.Option(help="Afterwards, compare so many images with a float32 encoding.")
    ] = 0,
) -> Outcome:
    """Stage one: encode every image of a manifest once. Run it again to go on after a stop."""
    from samcls.data.manifest import check_files, check_labels, read_manifest

    rows = read_manifest(manifest, root, missing=names(missing) or ())
    for line in _tasks_of(rows):
        say(line)
    check_labels(rows)
    absent = check_files(rows)
    if absent:
        say(f"{len(absent)} of {len(rows)} files do not exist; their rows will be marked failed")
    from samcls.encode.extract import extract

    options = ExtractOptions(**given)
    if plan:
        return _planned(len(rows), options)
    _warn_untrained(options.encoder, options.random_weights)
    with progress_bar("extract") as progress:
        summary = extract(rows, store, options, progress, say, allow_leak=allow_leak)
    values = _as_json(summary)
    if check:
        from samcls.encode.changes import in_store_order
        from samcls.encode.check import check_precision
        from samcls.store.feature_store import FeatureStore

        placed = in_store_order(rows, FeatureStore.open(store))
        checked = check_precision(placed, store, options, check)
        values["check"] = [asdict(error) for error in checked]

    def show() -> None:
        rate = f", {summary.images_per_second:.1f} images/s" if summary.images_per_second else ""
        typer.echo(
            f"{summary.store}: {summary.done} of {summary.images} images done"
            f" ({summary.skipped} before), {summary.failed} failed, "
            + (f"{summary.removed} removed and unused, " if summary.removed else "")
            + (f"{summary.reused} reused, " if options.reuse else "")
            + f"{summary.bytes / 1e6:.1f} MB, {summary.seconds:.1f} s{rate}"
        )
        _list_failures(summary.failures)
        say(summary.leaks.counted(summary.store))
        _warn_of_leaks(summary.leaks, strict)
        if check:
            show_table(
                ["level", "what", "relative error", "worst cosine", "worst, in channel std"],
                [
                    [
                        e["level"],
                        e["what"],
                        f"{e['relative']:.1e}",
                        f"{e['cosine']:.6f}",
                        f"{e['worst']:.2e}",
                    ]
                    for e in values["check"]
                ],
            )

    refused = strict and bool(summary.leaks.pictures())
    return Outcome(values, show, exit_status=1 if refused else 3 if summary.failed else 0)


def _tasks_of(manifest: "Manifest") -> list[str]:
    """Print what will be learned of a manifest, what will not, and what is doubtful about its labels."""
    from samcls.data.labels import labelled
    from samcls.data.manifest import SPLITS

    codes, lines = manifest.labels(), []
    for column, (task, classes) in enumerate(manifest.tasks.items()):
        said = labelled(task, classes, codes[:, column], manifest.splits, SPLITS)
        positive = f"; the positive class is {classes[-1]}" if len(classes) == 2 else ""
        ordered = "; its classes are ordered" if task in manifest.ordinal else ""
        lines.append(f"{said}{positive}{ordered}")
    if manifest.meta:
        lines.append(f"kept and never learned from: {', '.join(manifest.meta)}")
    return [*lines, *(f"warning: {remark}" for remark in manifest.remarks)]


def _warn_of_leaks(leaks: "Leaks", strict: bool) -> None:
    if divided := leaks.divided_groups():
        say(f"warning: a leak that was allowed: {divided}")
    for sentence in leaks.pictures():
        say(f"{'error' if strict else 'warning'}: {sentence}")
    if strict and leaks.pictures():
        say("--strict makes this an error; everything was encoded, and the store is whole")


def _planned(images: int, options: ExtractOptions) -> Outcome:
    from samcls.encode.plan import plan

    rows = plan(images, options)

    def show() -> None:
        show_table(
            ["choice", "minutes", "GB on disk", "GB of memory", "s an image"],
            [
                [
                    row.choice,
                    f"{row.minutes:.1f}",
                    f"{row.bytes / 1e9:.3f}",
                    f"{row.memory / 1e9:.2f}",
                    f"{row.seconds_per_image:.3g}",
                ]
                for row in rows
            ],
        )
        typer.echo(f"{images} images; timed on this machine, block by block; nothing was written")

    return Outcome({"images": images, "plan": [asdict(row) for row in rows]}, show)


def _list_failures(failures: tuple[tuple[str, str], ...]) -> None:
    for image, reason in failures[:SHOWN_FAILURES]:
        say(f"failed: {image}: {reason}")
    if len(failures) > SHOWN_FAILURES:
        say(f"... and {len(failures) - SHOWN_FAILURES} more; --json lists them all")


def _warn_untrained(encoder: str, random_weights: bool = False) -> None:
    if encoder == "vit_t" or random_weights:
        say(
            f"{encoder} is UNTRAINED: seeded random weights, for trying things out and for controls"
        )


def _demo(
    directory: Annotated[Path, typer.Argument(help="Folder to make.")] = Path("samcls-demo"),
    images: Annotated[int, typer.Option(help="Number of phantoms.")] = 600,
    seed: Annotated[int, typer.Option(help="Of the phantoms.")] = 1,
) -> Outcome:
    """Run the whole pipeline on built-in images, with a trained encoder and an untrained one."""
    from samcls.demo import run_demo

    with progress_bar("extract") as progress:
        result = run_demo(directory, images, seed, say, progress)
    values = {
        "directory": str(directory),
        "seconds": result.seconds,
        "extract": {name: _as_json(one) for name, one in result.extract.items()},
        "train": result.train,
        "commands": result.commands,
    }

    def show() -> None:
        show_side_by_side(
            {"lite0": result.train["lite0"], "vit_t, UNTRAINED": result.train["vit_t"]}
        )
        spent = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in result.seconds.items())
        typer.echo(
            f"{spent}\n\n"
            "lite0 is trained on ImageNet; vit_t has random weights and shows what that is worth. SAM's own\n"
            f"vit_b, vit_l and vit_h: samcls weights list. Everything is in {directory}. The same by hand:"
        )
        for command in result.commands:
            typer.echo(f"  {command}")
        typer.echo("Next, with your own images:  samcls manifest folder DIR manifest.csv")

    return Outcome(values, show)


def _as_json(summary: "ExtractSummary") -> dict[str, Any]:
    failures = [{"id": image, "reason": reason} for image, reason in summary.failures]
    return {**asdict(summary), "failures": failures, "leaks": summary.leaks.to_dict()}
