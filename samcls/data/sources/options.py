"""What sources have in common: the options that several take, with the help that each shows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from samcls.data.splits import SHARES

__all__ = ["Frames", "Ordinal", "Out", "Overwrite", "Positive", "Seed", "Split"]

Out = Annotated[str | Path, "Manifest to write."]
Overwrite = Annotated[bool, "Replace a manifest that is there."]
Positive = Annotated[
    Sequence[str],
    "Class that sensitivity is of, one of a task's two: CLASS, or TASK=CLASS where there are "
    "several tasks. May be repeated.",
]
Ordinal = Annotated[
    Sequence[str], "Tasks whose classes are steps of one scale, as numbers; comma-separated."
]
Seed = Annotated[int, "Of the split, where one is drawn."]
Split = Annotated[
    str, f"Shares of train, val and test, where the split is drawn; {SHARES} by default."
]
Frames = Annotated[str, "Of a file with several: all (a row each, in one split), first or middle."]
