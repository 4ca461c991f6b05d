"""A study in one file, on the command line: `samcls run`."""

from pathlib import Path
from typing import Annotated

import typer

from samcls.cli.shell import Outcome, say, show_table, verb

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("run")(verb(_run))


def _run(
    pipeline: Annotated[Path, typer.Argument(help="TOML file of steps, each a samcls command.")],
    start: Annotated[
        str | None,
        typer.Option(
            "--from", help="Do this step and all that follow from it again, changed or not."
        ),
    ] = None,
    dry: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Say what would be done, why, and what encoding would cost; do nothing.",
        ),
    ] = False,
) -> Outcome:
    """Do a study's steps, each only where something that it rests on changed; run it again to go on after a stop."""
    from samcls.pipeline.file import load_pipeline
    from samcls.pipeline.run import run_pipeline

    found = run_pipeline(load_pipeline(pipeline), start=start, dry=dry, log=say)

    def show() -> None:
        rows = [
            [
                one.step,
                one.state,
                "-" if one.seconds is None else f"{one.seconds:.1f}",
                one.makes or "-",
                one.why + (f" ({one.price})" if one.price else ""),
            ]
            for one in found.steps
        ]
        show_table(["step", "state", "seconds", "makes", "why"], rows)

    return Outcome(found.to_dict(), show, 0 if found.ok else 1)
