"""What the coded checks look at, a function each: it yields level, sentence and remedy of what it found.

`error` is what makes figures wrong or empty, `warning` what a reader must know to read them, `note` what is worth
doing. A check that cannot judge raises CannotShow. Limits are our own choice unless a source is named.
"""

from collections.abc import Iterator
from typing import Literal

__all__ = ["Found", "Level"]

Level = Literal["error", "warning", "note"]
Found = Iterator[tuple[Level, str, str]]
