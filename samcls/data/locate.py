r"""Image files by the names that a table gives them: with or without suffix, at any depth of a folder.

A name that is a file's path is that file. Only where some names are not, the folder is looked through
once, and a name is found where exactly one picture fits it.

    locator = Locator(Path("images/"))
    locator.find("patient1\\scan07")
"""

import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

from samcls.data.pictures import is_picture
from samcls.data.tree import SHOWN, walk

__all__ = ["Locator"]


@dataclass
class Locator:
    """Finds files below a folder, and counts how they were found.

    Attributes:
        base: The folder, resolved.
        searched: Names that were found by looking through the folder.
        absent: Names that no file fits.
    """

    base: Path
    searched: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)

    def find(self, name: str) -> tuple[str | None, str]:
        """Return the absolute path of a name's file, or None with what is wrong; "" for an absent file."""
        # Exports of Windows programs use its own mark between folders.
        for text in dict.fromkeys((name, name.replace("\\", "/"))):
            path = os.path.normpath(self.base / text)
            if os.path.isfile(path):  # noqa: PTH113 - strings, in bulk
                return path, ""
            if os.path.isdir(path):  # noqa: PTH112
                return None, f"the path {name!r} is a folder: expected an image file"
        wanted = PurePosixPath(os.path.normpath(name.replace("\\", "/")))
        found = [] if wanted.is_absolute() else self._fitting(wanted)
        if len(found) > 1:
            shown = ", ".join(found[:SHOWN])
            return None, f"the path {name!r} fits {len(found)} files: {shown}"
        if not found:
            self.absent.append(name)
            return None, ""
        self.searched.append(f"{name} is {found[0]}")
        return str(self.base / found[0]), ""

    def notes(self) -> list[str]:
        """How files were found where their names are not their paths."""
        if not self.searched:
            return []
        count, first = len(self.searched), self.searched[0]
        return [f"{count} image(s) were found by name, each the only one that fits, first {first}"]

    @cached_property
    def _by_name(self) -> dict[str, list[PurePosixPath]]:
        """Files by their lower-case names, with and without suffix."""
        index: dict[str, list[PurePosixPath]] = {}
        for file in map(PurePosixPath, walk(self.base).files):
            for key in {file.name.lower(), file.stem.lower()}:
                index.setdefault(key, []).append(file)
        return index

    def _fitting(self, wanted: PurePosixPath) -> list[str]:
        """Files that end in the wanted path: as it is, without suffix, or in other letters."""
        candidates = self._by_name.get(wanted.name.lower(), [])
        depth = len(wanted.parts)
        spelled = [(file, file.parts[-depth:]) for file in candidates]
        bare = [
            (file, file.with_suffix("").parts[-depth:])
            for file in candidates
            if is_picture(self.base / file)
        ]
        lower = tuple(part.lower() for part in wanted.parts)
        for pairs in (spelled, bare):
            for alike in (
                [file for file, parts in pairs if parts == wanted.parts],
                [file for file, parts in pairs if tuple(map(str.lower, parts)) == lower],
            ):
                if alike:
                    return [str(file) for file in alike]
        return []
