"""The command line: verbs parse, call one function of the package, and print.

Exit status: 0 done; 1 failed; 2 usage or bad input; 3 finished, but some images failed and are listed.
"""

import sys
from typing import Any

import typer
from typer.core import TyperGroup

from samcls import __version__
from samcls.cli.audit import register as register_audit
from samcls.cli.bench import register as register_bench
from samcls.cli.deploy import register as register_deploy
from samcls.cli.doctor import register as register_doctor
from samcls.cli.explain import register as register_explain
from samcls.cli.inputs import register as register_inputs
from samcls.cli.learn import register as register_learn
from samcls.cli.pipeline import register as register_pipeline
from samcls.cli.report import register as register_report
from samcls.cli.runs import register as register_runs
from samcls.cli.shell import give_up_output, open_streams, say, settings
from samcls.cli.stages import register as register_stages
from samcls.cli.store import register as register_store
from samcls.cli.sweep import register as register_sweep

__all__ = ["app", "main"]

# The road that every study takes; help shows these first.
ROAD = ("manifest", "extract", "train", "report", "predict")


class Road(TyperGroup):
    """The command line, its main verbs first."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the verbs in the order of help."""
        names = super().list_commands(ctx)
        return [*ROAD, *(name for name in names if name not in ROAD)]


app = typer.Typer(
    name="samcls",
    cls=Road,
    help="Segment Anything features for medical image classification: cached once, trained on many "
    "times.",
    epilog="A first look, without any data or download: samcls demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)


def _version(asked: bool) -> bool:
    if asked:
        typer.echo(f"samcls {__version__}")
        raise typer.Exit
    return asked


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and stop."
    ),
    debug: bool = typer.Option(False, "--debug", help="Show tracebacks of errors."),
) -> None:
    del version
    settings["debug"] = debug


register_inputs(app)
register_audit(app)
register_stages(app)
register_store(app)
register_learn(app)
register_sweep(app)
register_runs(app)
register_deploy(app)
register_explain(app)
register_report(app)
register_pipeline(app)
register_doctor(app)
register_bench(app)


def main() -> None:
    """Run the command line; `--debug` may stand anywhere on it."""
    open_streams()
    arguments = [part for part in sys.argv[1:] if part != "--debug"]
    if len(arguments) != len(sys.argv) - 1:
        arguments.insert(0, "--debug")
    try:
        app(args=arguments)
    except KeyboardInterrupt:
        say("error: interrupted")
        sys.exit(1)
    except OSError as error:  # of --help and --version: verbs say theirs themselves
        say(f"error: standard output cannot be written: {error.strerror or error}")
        give_up_output()
        sys.exit(1)
