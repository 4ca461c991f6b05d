"""What every part writes and says in one way: files replaced whole, JSON, the first few of many names.

write_whole(folder / "summary.json", to_json(summary))
raise ConfigError(f"unknown images {few(ids)}")
"""

import difflib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ["PART", "few", "meant", "to_json", "write_whole"]

PART = ".part"  # ends the name of a file that is being written


def write_whole(path: str | Path, content: bytes) -> None:
    """Replace a file so that whoever looks finds the old one or the new one, never a part.

    The content is on the disk before it gets the file's name.

    Raises:
        OSError: The disk is full or refuses; the old file stays.
    """
    path = Path(path)
    part = path.with_name(path.name + PART)
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def to_json(value: Any) -> bytes:
    """Indented JSON in UTF-8 with a last line end; NaN and infinity are no JSON.

    Raises:
        ValueError: The value holds a number that is not finite.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode()


def few(names: Iterable[object], most: int = 5) -> str:
    """Return the first few names, and how many more there are: `a, b, c and 4 more`."""
    named = [str(name) for name in names]
    more = f" and {len(named) - most} more" if len(named) > most else ""
    return ", ".join(named[:most]) + more


def meant(name: str, known: Iterable[str]) -> str:
    """Return what an unknown name was meant for, to end a sentence with: `; did you mean neck?`, or nothing."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""
