"""What is known of finished runs: show."""

from pathlib import Path
from typing import Annotated

import typer

from samcls.cli.shell import Outcome, verb

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command("show")(verb(_show))


def _show(
    run: Annotated[Path, typer.Argument(help="A run; a folder of seeds or folds; or a sweep.")],
) -> Outcome:
    """Show a run: what it is, on what, chosen how, its figures with intervals, its files."""
    from samcls.learn.runs.page import facts_of_runs, page_of

    page = page_of(run)
    return Outcome(facts_of_runs(run), lambda: typer.echo(page, nl=False))
