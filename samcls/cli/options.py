"""Options that several verbs share, and what they have in common."""

import typer

__all__ = ["ALLOW_LEAK", "DEVICE", "MISSING", "STRICT", "names"]

ALLOW_LEAK = typer.Option(
    "--allow-leak",
    help="Let a group lie in several splits; every table then says so.",
    rich_help_panel="Data",
)
MISSING = typer.Option(
    help="Texts that mean a missing label, besides an empty cell: nan,NA; comma-separated.",
    rich_help_panel="Data",
)
DEVICE = typer.Option(
    help="auto (the GPU where there is one), cpu or cuda.", rich_help_panel="Machine"
)
STRICT = typer.Option(
    "--strict",
    help="Make identical pixels in several splits an error, not a warning.",
    rich_help_panel="Data",
)


def names(text: str | None) -> list[str] | None:
    """Return the entries of a comma-separated option; None where it was not given."""
    return None if text is None else [part.strip() for part in text.split(",")]
