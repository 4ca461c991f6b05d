"""Look at this machine before anything is begun."""

from dataclasses import asdict
from typing import Annotated

import typer

from samcls.cli.shell import Outcome, verb

__all__ = ["register"]

MARKS = {"ok": "ok", "note": "note", "problem": "PROBLEM"}


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("doctor")(verb(_doctor))


def _doctor(
    store: Annotated[
        str, typer.Argument(help="Where a store is, or would be made: a path or a URL.")
    ] = "features.zarr",
    deep: Annotated[
        bool, typer.Option("--deep", help="Hash the weights, and not look at their sizes alone.")
    ] = False,
) -> Outcome:
    """Say whether this machine can do the job, and what to do about what is missing."""
    from samcls.doctor import examine

    found = list(examine(store, deep=deep))
    ok = all(check.ok for check in found)
    values = {"ok": ok, "checks": [{**asdict(check), "ok": check.ok} for check in found]}

    def show() -> None:
        width = max(len(check.name) for check in found)
        for check in found:
            typer.echo(f"{MARKS[check.state]:7}  {check.name:{width}}  {check.found}")
            if check.remedy:
                typer.echo(f"{'':7}  {'':{width}}  -> {check.remedy}")
        problems = sum(not check.ok for check in found)
        counted = f"{problems} problem{'s' if problems > 1 else ''}"
        typer.echo(f"\n{counted}" if problems else "\nNothing stands in the way.")

    return Outcome(values, show, exit_status=0 if ok else 1)
