"""Look after a feature store: what it holds, whether it is sound, and how it is made whole again."""

from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from samcls.cli.options import ALLOW_LEAK, MISSING, STRICT, names
from samcls.cli.shell import Outcome, progress_bar, say, show_table, verb

if TYPE_CHECKING:
    from samcls.data.manifest import Manifest
    from samcls.store.feature_store import FeatureStore
    from samcls.store.verify import VerifyReport

__all__ = ["register"]

SHOWN = 10
UNREADABLE = {"row array missing", "row array damaged", "row array misplaced"}
NOT_DAMAGE = {
    "image changed": "To encode changed images again: samcls extract M.csv {} --changed encode",
    "image unreadable": "Images that cannot be read keep their features; put the files back",
    "not in the manifest": "To follow the manifest: samcls extract M.csv {} --removed keep",
    "not in the store": "To follow the manifest: samcls extract M.csv {}",
    "manifest differs": "To follow the manifest: samcls extract M.csv {}",
    "group in several splits": "Give each group one split and extract again (nothing is encoded "
    "anew), or accept it with --allow-leak",
    "picture in several splits": "Take one of the two out of the manifest, or leave --strict out",
}


def register(app: typer.Typer) -> typer.Typer:
    """Add the verbs to the command line; return the group, which `repair` joins."""
    store = typer.Typer(help="Look after a feature store.", no_args_is_help=True)
    store.command("info")(verb(_info))
    store.command("verify")(verb(_verify))
    store.command("repair")(verb(_repair))
    app.add_typer(store, name="store")
    return store


_Store = Annotated[str, typer.Argument(help="Feature store: a folder or a URL.")]


def _info(store: _Store) -> Outcome:
    """Say what a store holds and what made it."""
    import numpy as np

    from samcls.store.feature_store import FeatureStore
    from samcls.store.schema import DONE, FAILED, REMOVED

    opened = FeatureStore.open(store)
    status = opened.status
    names = np.array(opened.splits)[status != REMOVED]
    splits, counts = np.unique(names, return_counts=True)
    values: dict[str, Any] = {
        "store": opened.path,
        "images": len(opened),
        "done": int((status == DONE).sum()),
        "failed": int((status == FAILED).sum()),
        "removed": int((status == REMOVED).sum()),
        "splits": {str(k): int(n) for k, n in zip(splits, counts, strict=True)},
        "tasks": {name: list(classes) for name, classes in opened.tasks.items()},
        "levels": {name: list(asdict(shape).values()) for name, shape in opened.levels.items()},
        "pixels": opened.pixel_size,
        "fingerprint": opened.fingerprint.to_dict(),
        "checkpoint": opened.checkpoint,
        "payload_bytes": opened.payload_bytes,
        "bytes": opened.stored_bytes,
    }
    failed = np.flatnonzero(status == FAILED).tolist()
    ids, errors = (opened.ids, opened.errors) if failed else ([], [])

    def show() -> None:
        removed = values["removed"]
        pending = len(opened) - values["done"] - values["failed"] - removed
        typer.echo(
            f"{opened.path}: {len(opened)} images: {values['done']} done, {values['failed']} "
            f"failed, {pending} pending" + (f", {removed} removed and unused" if removed else "")
        )
        typer.echo("splits: " + ", ".join(f"{k} {n}" for k, n in values["splits"].items()))
        for name, classes in opened.tasks.items():
            typer.echo(f"task {name}: {', '.join(classes)}")
        typer.echo(f"size: {values['bytes'] / 1e6:.1f} MB for {opened.payload_bytes / 1e6:.1f}")
        show_table(
            ["level", "channels", "rows", "cols", "patch"],
            [[k, *map(str, asdict(v).values())] for k, v in opened.levels.items()],
        )
        if opened.pixel_size:
            typer.echo(f"pixels: each image at {opened.pixel_size} x {opened.pixel_size}")
        for name, value in opened.fingerprint.to_dict().items():
            typer.echo(f"{name}: {value}")
        for name, known in opened.checkpoint.items():
            typer.echo(f"checkpoint {name}: {known or 'not an official checkpoint'}")
        if opened.provenance:
            typer.echo(opened.provenance)
        _list([f"failed: {ids[row]}: {errors[row]}" for row in failed], "samcls extract --json")

    return Outcome(values, show)


def _verify(
    store: _Store,
    manifest: Annotated[
        Path | None,
        typer.Option(help="Compare its rows, and the images' pixels, with the store's too."),
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Folder that the manifest's relative paths start from.")
    ] = None,
    missing: Annotated[str | None, MISSING] = None,
    allow_leak: Annotated[bool, ALLOW_LEAK] = False,
    strict: Annotated[bool, STRICT] = False,
) -> Outcome:
    """Name every image that is damaged, lost or not what it should be; exit 1 if there is one."""
    from samcls.data.manifest import read_manifest
    from samcls.store.verify import verify

    with progress_bar("verify", "shards") as progress:
        report = verify(store, progress=progress)
    sound = not any(p.kind in {"metadata damaged", *UNREADABLE} for p in report.problems)
    if manifest is not None:
        rows = read_manifest(manifest, root, missing=names(missing) or [])
        if sound:
            report = _compared(report, rows, allow_leak)
        else:
            say(f"{report.store} is damaged; it was not compared with {manifest}")
    warnings: list[str] = []
    leaks: dict[str, Any] = {}
    if sound:
        report, warnings, leaks = _leaks(report, strict)
    values = {
        "store": report.store,
        "ok": report.ok,
        "checked": report.checked,
        "bytes": report.bytes,
        "problems": [asdict(problem) for problem in report.problems],
        "leaks": leaks,
        "notes": list(report.notes),
    }

    def show() -> None:
        _show(report)
        for sentence in warnings:
            say(f"warning: {sentence}")

    return Outcome(values, show, exit_status=0 if report.ok else 1)


def _leaks(
    report: "VerifyReport", strict: bool
) -> tuple["VerifyReport", list[str], dict[str, Any]]:
    """Return what stands in several splits: warnings, of which pictures are problems where that was asked."""
    from samcls.encode.changes import leaks_in
    from samcls.store.feature_store import FeatureStore
    from samcls.store.verify import Problem

    found = leaks_in(FeatureStore.open(report.store))
    divided, pictures = found.divided_groups(), found.pictures()
    told = {problem.detail for problem in report.problems}
    warnings = [divided] if divided and divided not in told else []
    if not strict:
        return report, [*warnings, *pictures], found.to_dict()
    wrong = [Problem(None, "", "sha256", "picture in several splits", said) for said in pictures]
    return replace(report, problems=(*report.problems, *wrong)), warnings, found.to_dict()


def _compared(report: "VerifyReport", manifest: "Manifest", allow_leak: bool) -> "VerifyReport":
    """Add what the manifest and its images contradict."""
    from samcls.encode.changes import manifest_problems
    from samcls.store.feature_store import FeatureStore

    store = FeatureStore.open(report.store)
    found = manifest_problems(manifest, store, allow_leak=allow_leak)
    return replace(report, problems=(*report.problems, *found))


def _repair(
    store: _Store,
    manifest: Annotated[
        Path | None,
        typer.Option(help="That the store was made from; needed where ids or labels are damaged."),
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Folder that the manifest's relative paths start from.")
    ] = None,
    missing: Annotated[str | None, MISSING] = None,
) -> Outcome:
    """Restore what can be restored; images that are lost become pending, for extract to do again."""
    import numpy as np

    from samcls.data.manifest import read_manifest
    from samcls.encode.changes import table_of
    from samcls.store.feature_store import FeatureStore
    from samcls.store.repair import repair
    from samcls.store.schema import PENDING
    from samcls.store.verify import verify

    rows = None if manifest is None else read_manifest(manifest, root, missing=names(missing) or [])
    before = after = verify(store)
    if not before.ok:
        repair(store, before, None if rows is None else table_of(rows), say)
        after = verify(store)
    opened = FeatureStore.open(store)
    pending = np.flatnonzero(opened.status == PENDING).tolist()
    ids = opened.ids
    values = {
        "store": after.store,
        "ok": after.ok,
        "problems": [asdict(problem) for problem in before.problems],
        "pending": [ids[row] for row in pending],
        "remaining": [asdict(problem) for problem in after.problems],
    }

    def show() -> None:
        _show(before)
        _show(after)
        if pending:
            typer.echo(
                f"{len(pending)} images are pending; to encode them, with the same weights as before: "
                + _extract_again(opened)
            )

    return Outcome(values, show, exit_status=0 if after.ok else 1)


def _extract_again(store: "FeatureStore") -> str:
    """Say how a store's pending images are encoded with its own settings."""
    from samcls.encode.options import ExtractOptions
    from samcls.store.schema import REMOVED

    kept = bool((store.status == REMOVED).any())
    options = ExtractOptions.of(store.fingerprint, removed="keep" if kept else "refuse")
    given = [
        f" --{field.name.replace('_', '-')} {getattr(options, field.name)}"
        for field in fields(options)
        if getattr(options, field.name) != field.default
    ]
    return f"samcls extract M.csv {store.path}{''.join(given)}"


def _show(report: "VerifyReport") -> None:
    for note in report.notes:
        say(f"{report.store}: {note}")
    if report.ok:
        typer.echo(f"{report.store}: {report.checked} images checked, all sound")
        return
    typer.echo(
        f"{report.store}: {report.checked} images checked, {len(report.rows)} hit, "
        f"{len(report.problems)} problems"
    )
    _list(
        [
            f"{problem.kind}: {problem.level}"
            + (f", row {problem.row}" if problem.row is not None else "")
            + (f" ({problem.id})" if problem.id else "")
            + (f": {problem.detail}" if problem.detail else "")
            for problem in report.problems
        ],
        "--json",
    )
    kinds = {problem.kind for problem in report.problems}
    advice = [NOT_DAMAGE[kind].format(report.store) for kind in NOT_DAMAGE if kind in kinds]
    if kinds - set(NOT_DAMAGE):
        repair = f"samcls store repair {report.store} --manifest M.csv"
        advice.append(f"To restore what can be, and have the rest encoded again: {repair}")
    for line in dict.fromkeys(advice):
        typer.echo(line)


def _list(lines: list[str], everything: str) -> None:
    for line in lines[:SHOWN]:
        say(line)
    if len(lines) > SHOWN:
        say(f"... and {len(lines) - SHOWN} more; {everything} lists them all")
