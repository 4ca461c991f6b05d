"""The command line, run inside the tests' own process: no second import of torch for each command."""

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

import pytest

from samcls.cli import main

__all__ = ["Done", "samcls"]


@dataclass(frozen=True)
class Done:
    """What a command left: the names are those of subprocess.CompletedProcess."""

    returncode: int
    stdout: str
    stderr: str


def samcls(*arguments: object) -> Done:
    """Run a command as `samcls ARGUMENTS` does, with its two streams caught and its exit status."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["samcls", *map(str, arguments)])
        try:
            main()
        except SystemExit as end:
            status = int(end.code or 0)
    return Done(status, out.getvalue(), err.getvalue())
