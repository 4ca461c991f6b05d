"""What comes of a run, to forward: `samcls report` and `samcls plot`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from samcls.cli.fields import options_from
from samcls.cli.shell import Outcome, say, verb
from samcls.report.settings import ReportConfig

__all__ = ["register"]

RUNS = "A run, a folder of seeds or folds, a sweep, or an evaluation."


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command("report")(verb(_report))
    app.command("plot")(verb(_plot))


@options_from(ReportConfig)
def _report(
    run: Annotated[Path, typer.Argument(help=RUNS)],
    given: dict[str, Any],
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("report.html"),
    store: Annotated[
        str | None,
        typer.Option(
            help="Feature store of the images; by default the one that the run was trained on."
        ),
    ] = None,
    manifest: Annotated[
        Path | None, typer.Option(help="Where the store's pictures are, for --images.")
    ] = None,
    audit: Annotated[
        Path | None,
        typer.Option(
            help="Folder of samcls audit --out; without it the store's features are audited now."
        ),
    ] = None,
    images: Annotated[
        bool,
        typer.Option(
            "--images", help="Show failures as pictures, with evidence: pictures of patients."
        ),
    ] = False,
    figures: Annotated[
        Path | None,
        typer.Option(
            help="Folder for each picture as PDF, PNG and SVG, and for every number with its source."
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file of these options: lang, silence, worst.")
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Print the coded checks alone; exit with 1 if any is an error."
        ),
    ] = False,
) -> Outcome:
    """Write one HTML file of a run: figures with intervals, displays, checks, failures, and what is yours to write.

    It names images and groups of its failures: --worst 0 leaves them out.
    """
    from samcls.config import load_toml, parse, to_dict
    from samcls.report.report import checks, report
    from samcls.report.text import checks_text, report_text

    base = ReportConfig() if config is None else load_toml(ReportConfig, config)
    chosen = parse(ReportConfig, {**to_dict(base), **given}, "the options")
    if check:
        told = checks(run, store=store, audit=audit, config=chosen, log=say)
        values: dict[str, Any] = {
            "checks": [one.to_dict() for one in told.found],
            "ok": not told.errors,
        }
        return Outcome(
            values, lambda: typer.echo(checks_text(told), nl=False), 1 if told.errors else 0
        )
    found = report(
        run,
        out,
        store=store,
        manifest=manifest,
        audit=audit,
        images=images,
        figures=figures,
        config=chosen,
        log=say,
    )
    return Outcome(found.to_dict(), lambda: typer.echo(report_text(found), nl=False))


def _plot(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Runs of the same images, or folders of seeds, up to seven."),
    ],
    out: Annotated[Path, typer.Option(help="File to write: .pdf, .png or .svg.")] = Path(
        "figure.pdf"
    ),
    roc: Annotated[bool, typer.Option("--roc", help="Sensitivity by 1 - specificity.")] = False,
    precision_recall: Annotated[
        bool, typer.Option("--precision-recall", help="Precision by recall.")
    ] = False,
    calibration: Annotated[
        bool, typer.Option("--calibration", help="Share of the class by probability.")
    ] = False,
    decision: Annotated[bool, typer.Option("--decision", help="Net benefit by threshold.")] = False,
    confusion: Annotated[
        bool, typer.Option("--confusion", help="Images by label and answer, a panel each run.")
    ] = False,
    forest: Annotated[bool, typer.Option("--forest", help="AUCs with their intervals.")] = False,
    learning_curve: Annotated[
        bool,
        typer.Option(
            "--learning-curve",
            help="AUC by the number of training images: of runs of several shares, or a sweep.",
        ),
    ] = False,
    task: Annotated[
        str | None, typer.Option(help="Of the runs' tasks; the first by default.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--class", help="Class against the rest, of more than two; the last by default."
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help="Names of the runs in the picture, comma-separated; their folders' by default."
        ),
    ] = None,
) -> Outcome:
    """Draw several runs in one picture, a panel for each display that is asked for."""
    from samcls.cli.options import names
    from samcls.report.plot import DISPLAYS, plot

    asked = dict(
        zip(
            DISPLAYS,
            (roc, precision_recall, calibration, decision, confusion, forest, learning_curve),
            strict=True,
        )
    )
    found = plot(
        runs,
        out,
        [name for name, wanted in asked.items() if wanted],
        task=task,
        name=name,
        labels=names(labels) or (),
    )
    return Outcome(
        found,
        lambda: typer.echo(f"{found['file']}: {', '.join(found['displays'])} of {len(runs)} runs"),
    )
