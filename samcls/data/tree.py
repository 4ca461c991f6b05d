"""A folder's files: each one found once, or counted with the reason why it is left out.

No link to a folder is followed: what it leads to is either found under its own name or lies outside. A
link to a file counts where nothing else leads to that file within the folder, as in a data set kept by
git-annex. 100,000 files take about two seconds; none is opened.

    tree = walk(Path("breast/"))
    tree.files, tree.left_out.counts()
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from samcls.errors import ManifestError

__all__ = ["LeftOut", "Tree", "escaped", "existing_folder", "walk"]

SYSTEM = "system files (._*, .DS_Store, Thumbs.db, desktop.ini, __MACOSX)"
HIDDEN = "hidden files, or files in hidden folders"
NAMES = "files whose name is not UTF-8, holds a line break or ends in white space"
UNREADABLE = "folders that cannot be read"
OUTWARD = "links that lead out of the folder"
ABOVE = "links to a folder above them"
AGAIN = "links to files that are there anyway"
FOLDERS = "links to folders, whose files are found under their own names"
BROKEN = "links that lead nowhere"
OTHER = "pipes, sockets and devices"

NAMED = (UNREADABLE, NAMES, OUTWARD, BROKEN)  # what a reader may have to act upon
SYSTEM_NAMES = re.compile(
    r"\._.*|\.ds_store|thumbs\.db|ehthumbs\.db|desktop\.ini|icon\r", re.IGNORECASE
)
SHOWN = 5


class LeftOut:
    """Files that are no row, by the reason; nothing disappears without one."""

    def __init__(self) -> None:
        self.files: dict[str, list[str]] = {}

    def add(self, reason: str, file: str) -> None:
        """Leave a file out."""
        self.files.setdefault(reason, []).append(file)

    def counts(self) -> dict[str, int]:
        """How many for each reason."""
        return {reason: len(files) for reason, files in sorted(self.files.items())}

    def notes(self) -> list[str]:
        """Return the names behind the reasons that a reader may have to act upon."""
        notes = []
        for reason in NAMED:
            if files := self.files.get(reason, []):
                more = f" and {len(files) - SHOWN} more" if len(files) > SHOWN else ""
                shown = ", ".join(escaped(file) for file in files[:SHOWN])
                notes.append(f"left out, {reason}: {shown}{more}")
        if OUTWARD in self.files:
            notes.append("what lies behind links can be had by a copy that follows them (cp -rL)")
        return notes


@dataclass(frozen=True)
class Tree:
    """What lies below a folder.

    Attributes:
        root: The folder, resolved.
        files: Paths relative to it with forward slashes, sorted by folder and name.
        folders: Likewise, the folders that were looked into.
        left_out: Everything else.
    """

    root: Path
    files: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    left_out: LeftOut = field(default_factory=LeftOut)


def existing_folder(directory: str | Path) -> Path:
    """Return the resolved path of a folder; ManifestError where there is none."""
    if not Path(directory).is_dir():
        raise ManifestError(f"{directory} is not a folder: name one that holds the images")
    return Path(directory).resolve()


def walk(root: Path) -> Tree:
    """All files of a folder at any depth, and what is left out of them.

    Args:
        root: A folder that is there, resolved.
    """
    tree = Tree(root)
    links: list[str] = []
    for reason, file in _below(root, tree, links):
        if reason:
            tree.left_out.add(reason, file)
        else:
            tree.files.append(file)
    real = {os.path.join(root, file) for file in tree.files}  # noqa: PTH118 - strings, in bulk
    for link in links:
        reason = _reason_of_link(root, link, real)
        if reason:
            tree.left_out.add(reason, link)
        else:
            tree.files.append(link)
    tree.files.sort(key=lambda file: file.split("/"))
    return tree


def escaped(name: str) -> str:
    r"""Return a file's name as it can be printed: bytes that are not UTF-8 as `\xe9`, line breaks as `\n`."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return text.replace("\n", "\\n").replace("\r", "\\r")


def _below(root: Path, tree: Tree, links: list[str]) -> Iterator[tuple[str, str]]:
    """Pairs of reason and file, without a reason for a file that stays; links are put aside."""
    seen: set[tuple[int, int]] = set()
    pending = [("", "")]  # no recursion: a folder may be deeper than Python's stack
    while pending:
        folder, why = pending.pop()
        try:
            with os.scandir(root / folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
            identity = _identity(root / folder)
        except OSError as error:
            yield UNREADABLE, f"{folder or '.'} ({error.strerror})"
            continue
        if identity in seen:  # a folder can be mounted within itself
            continue
        seen.add(identity)
        if not why and folder:
            tree.folders.append(folder)
        inner = []
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            reason = why or _reason_of_name(entry.name)
            if entry.is_dir(follow_symlinks=False):
                inner.append((path, reason))
                continue
            reason = reason or _reason_of_entry(entry)
            if entry.is_symlink() and not reason:
                links.append(path)
            else:
                yield reason, path
        pending += reversed(inner)


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _reason_of_name(name: str) -> str:
    if SYSTEM_NAMES.fullmatch(name) or name == "__MACOSX":
        return SYSTEM
    try:
        name.encode()
    except UnicodeEncodeError:
        return NAMES
    if "\n" in name or "\r" in name:
        return NAMES
    return HIDDEN if name.startswith(".") else ""


def _reason_of_entry(entry: os.DirEntry[str]) -> str:
    """Why something that is no folder and whose name is in order cannot be a file of a manifest."""
    if not (entry.is_file(follow_symlinks=False) or entry.is_symlink()):
        return OTHER
    return NAMES if entry.name != entry.name.rstrip() else ""  # a manifest drops white space


def _reason_of_link(root: Path, link: str, real: set[str]) -> str:
    """Why a link is left out; empty where it alone leads to a file within the folder."""
    target = os.path.realpath(root / link)
    if not os.path.exists(target):  # noqa: PTH110 - strings, in bulk
        return BROKEN
    home = str(root)
    if target == home or os.path.join(home, link).startswith(target.rstrip("/") + "/"):  # noqa: PTH118
        return ABOVE
    if not target.startswith(home.rstrip("/") + "/"):
        return OUTWARD
    if os.path.isdir(target):  # noqa: PTH112 - strings, in bulk
        return FOLDERS
    if target in real:
        return AGAIN
    real.add(target)
    return ""
