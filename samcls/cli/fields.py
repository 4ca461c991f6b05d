"""Options of a verb made from a dataclass: each field's spelling, help, heading and default.

A field with a sentence of help is an option; what the user gave arrives as one dictionary. Listing
options imports nothing but the dataclass.

    @options_from(TrainConfig)
    def _train(store: ..., given: dict[str, Any]) -> Outcome: ...

    app.command("train", cls=Grouped)(verb(_train))
"""

import functools
import inspect
from collections.abc import Callable, Container
from dataclasses import fields
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand

from samcls.cli.shell import Outcome
from samcls.config import Group, Option, options_of

__all__ = ["Grouped", "options_from"]

HEADINGS = ("Arguments", "Options", *get_args(Group))

Verb = Callable[..., Outcome]


def options_from(cls: type, *, without: Container[str] = ()) -> Callable[[Verb], Verb]:
    """Add the fields of a dataclass to a verb's options; it is called with `given`, what was given.

    Args:
        cls: Its fields are made by `samcls.config.option`.
        without: Names of fields that are no options of the verb.
    """

    def decorate(function: Verb) -> Verb:
        hints, known = get_type_hints(cls), options_of(cls)
        made = [
            _parameter(field.name, hints[field.name], field.default, known[field.name])
            for field in fields(cls)
            if known[field.name].text and field.name not in without
        ]
        lists = {name for name, hint in hints.items() if get_origin(hint) is tuple}

        @functools.wraps(function)
        def command(**values: Any) -> Outcome:
            asked = {one.name: values.pop(one.name) for one in made}
            given = {
                name: _split(value) if name in lists else value
                for name, value in asked.items()
                if value is not None
            }
            return function(**values, given=given)

        own = inspect.signature(function)
        kept = [p.replace(kind=p.KEYWORD_ONLY) for n, p in own.parameters.items() if n != "given"]
        command.__signature__ = own.replace(parameters=[*kept, *made])  # type: ignore[attr-defined]
        command.__annotations__ = {one.name: one.annotation for one in [*kept, *made]}
        return command

    return decorate


class Grouped(TyperCommand):
    """A verb whose help lists its options under headings, in lines that a pipe or a log takes too.

    Rich's panels would say the same in boxes; importing Rich costs more than all else that help does.
    """

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write every option under its heading."""
        sections: dict[str, list[tuple[str, str]]] = {heading: [] for heading in HEADINGS}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            argument = param.param_type_name == "argument"
            heading = "Arguments" if argument else getattr(param, "rich_help_panel", None)
            if record is not None:
                sections.setdefault(heading or "Options", []).append(record)
        for heading, records in sections.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


def _parameter(name: str, hint: Any, default: Any, known: Option) -> inspect.Parameter:
    """Return the option of a field; None says that it was not given, whatever its default."""
    plain = next((a for a in get_args(hint) if a is not NoneType), hint)
    literal = get_origin(hint) is Literal or get_origin(plain) is Literal
    if get_origin(hint) is Literal:
        plain = hint
    several = get_origin(hint) is tuple
    asked = str if literal or several else plain
    flags = known.flags or (f"--{name.replace('_', '-')}",)
    if asked is bool:
        flags = tuple(f"{flag}/--no-{flag.removeprefix('--')}" for flag in flags)
    metavar = "|".join(get_args(plain)) if literal else "A,B,..." if several else None
    option = typer.Option(
        *flags,
        help=_help(default, known),
        metavar=metavar,
        show_default=False,
        rich_help_panel=known.group,
    )
    annotation = Annotated[asked | None, option]  # type: ignore[valid-type]
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )


def _help(default: Any, known: Option) -> str:
    """Return the field's sentence, the heads that read it, and its default where it has one to show."""
    said = known.text
    if known.heads and known.group != "Guided":
        said += f" For {', '.join(known.heads)}."
    if default is None or default == ():
        return said
    shown = {True: "yes", False: "no"}[default] if isinstance(default, bool) else default
    return f"{said} [default: {shown}]"


def _split(text: str) -> tuple[str, ...]:
    """Return the entries of a comma-separated list; none of an empty text."""
    return tuple(part.strip() for part in text.split(",")) if text.strip() else ()
