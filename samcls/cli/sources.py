"""`samcls manifest NAME`: a verb for each source, made from the source's own signature.

The sources are imported when one of their verbs is asked for, so that `samcls --help` stays light.
"""

import inspect
import typing
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from samcls.cli.shell import Outcome, show_table, verb

if TYPE_CHECKING:
    from samcls.data.summary import Summary

__all__ = ["Sources"]


class Sources(TyperGroup):
    """The verbs of `samcls.data.sources.SOURCES`."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of the sources, in the registry's order."""
        del ctx
        from samcls.data.sources import SOURCES

        return list(SOURCES)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command of a source."""
        del ctx
        from samcls.data.sources import SOURCES

        if cmd_name not in SOURCES:
            return None
        one = typer.Typer(add_completion=False, rich_markup_mode=None)
        one.command(cmd_name)(verb(source_verb(SOURCES[cmd_name])))
        return typer.main.get_command(one)


def source_verb(source: Callable[..., "Summary"]) -> Callable[..., Outcome]:
    """Return a function for typer that calls a source and shows the summary of its manifest.

    What the source needs becomes an argument and each keyword an option, with the help, and where
    it is named otherwise the name, that stand in its annotation.
    """

    def call(**given: Any) -> Outcome:
        return _written(source(given.pop(first), given.pop("out"), **given))

    annotations = typing.get_type_hints(source, include_extras=True)
    own = inspect.signature(source).parameters
    first = next(iter(own))
    parameters = [_parameter(one, annotations[name]) for name, one in own.items()]
    call.__doc__ = (source.__doc__ or "").partition("\n")[0]
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {one.name: one.annotation for one in parameters}
    return call


def _parameter(one: inspect.Parameter, annotation: Any) -> inspect.Parameter:
    """Return a parameter of a source as typer reads it."""
    kind, *names, text = typing.get_args(annotation)
    kinds = {str | Path: Path, Sequence[str]: list[str]}
    default = list(one.default) if isinstance(one.default, tuple) else one.default
    if one.kind is inspect.Parameter.KEYWORD_ONLY:
        names = names or [f"--{one.name.replace('_', '-')}"]
        # An option without a text of its own shows no default.
        shown = default not in ("", [])
        option: Any = typer.Option(*names, help=text, show_default=shown)
    else:
        option = typer.Argument(help=text)
    return one.replace(annotation=Annotated[kinds.get(kind, kind), option], default=default)


def _written(summary: "Summary") -> Outcome:
    values: dict[str, Any] = {**asdict(summary), "manifest": str(summary.manifest)}

    def show() -> None:
        patients = f" of {summary.group_count} groups" if summary.groups else ""
        typer.echo(f"{summary.manifest}: {summary.images} images{patients}")
        show_table(["", *summary.splits], _counts(summary))
        for task, classes in summary.tasks.items():
            if len(classes) == 2:
                typer.echo(
                    f"{task}: scores are those of {classes[-1]!r}, the last class; sensitivity too"
                )
        if summary.ordinal:
            typer.echo(f"steps of one scale: {', '.join(summary.ordinal)}")
        if summary.meta:
            typer.echo(f"kept and never learned: {', '.join(summary.meta)}")
        for reason, count in summary.ignored.items():
            typer.echo(f"left out: {count} {reason}")
        for note in summary.notes:
            typer.echo(note)

    return Outcome(values, show)


def _counts(summary: "Summary") -> list[list[str]]:
    """Lines of the table: images, groups, and the classes of each task."""
    rows = [["images", *map(str, summary.splits.values())]]
    if summary.groups:
        rows.append(["groups (patients)", *map(str, summary.groups.values())])
    for task, names in summary.tasks.items():
        rows += [
            [f"{task} = {name}", *(str(counts[name]) for counts in summary.counts[task].values())]
            for name in names
        ]
        if task in summary.missing:
            rows.append([f"{task} missing", *map(str, summary.missing[task].values())])
    return rows
