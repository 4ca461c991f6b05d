"""Folders of images to manifests, with the splits that the folders name or a seeded draw.

Names are read, and of each picture the header, for its number of frames: 10,000 files take about three
seconds. The draw keeps groups whole and every class in every split, however rare the class.

    summary = folder_manifest("breast/", "breast.csv", group="^([^_]+)_", seed=0)
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated

from samcls.data.images import SUFFIXES
from samcls.data.manifest import SPLIT_SPELLINGS, SPLITS, Row
from samcls.data.manifest_file import refuse_existing
from samcls.data.pictures import FrameRule, find_pictures, mask_note
from samcls.data.sources.options import Frames, Ordinal, Out, Overwrite, Positive, Seed, Split
from samcls.data.splits import SHARES, draw_missing_splits, shares_of
from samcls.data.summary import Summary, finish
from samcls.data.tree import NAMES, SHOWN, Tree, escaped, existing_folder, walk
from samcls.errors import ConfigError, ManifestError

__all__ = ["folder_manifest"]

TASK = "label"
OUTSIDE = "images beside the class folders"


def folder_manifest(
    directory: Annotated[str | Path, "root/<class>/* or root/<split>/<class>/*."],
    out: Out,
    *,
    group: Annotated[
        str,
        "Patient of an image, from its path below its class: a regular expression whose first "
        "bracket is the patient, such as '^(P[0-9]+)_', or `folder` for the first folder there.",
    ] = "",
    split: Split = "",
    positive: Positive = (),
    ordinal: Ordinal = (),
    frames: Frames = "all",
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> Summary:
    """From a folder for each class, with a seeded stratified split where there is none.

    Folders at the first level are splits if all of them have a split's name, in any common
    spelling. Otherwise every class is split at random, groups whole, and each split gets at least
    one image of each class. Where there is no val, it is taken from train. Images may lie at any
    depth below their class. Every other file is counted with the reason why it is left out; links
    are not followed out of the folder, nor to another folder.

    Args:
        directory: The root. Ids are paths relative to it.
        out: The CSV to write; its task is named `label`.
        group: How the patient stands in the path of an image below its class; nothing for none.
        split: Shares of train, val and test.
        positive: Which of two classes sensitivity and its like are of.
        ordinal: `label`, where the classes are steps of one scale.
        frames: Which frames of a file with several are rows: all, first or middle. The file is
            their group where there is no other.
        seed: The same files and seed give the same splits.
        overwrite: Replace a manifest that is there.

    Raises:
        ManifestError: There are no class folders, one class only, a class too small to split, or
            split folders that do not go together.
        ConfigError: The shares are not three positive ones of 1, or an option names what is not
            there.
        OverwriteRefused: Something is at `out` already.
    """
    out = Path(out)
    refuse_existing(out, overwrite=overwrite)
    shares = shares_of(split or SHARES)
    rule = FrameRule(frames)
    group_of = _group_rule(group)
    tree = walk(existing_folder(directory))
    images = _find_images(tree)
    _check_classes(tree, images)
    patients = _patients(images, group, group_of)
    rows = [
        row for image in images for row in _rows(tree, image, patients.get(image.file, ""), rule)
    ]
    given = {row.split for row in rows}
    if split and "val" in given:
        raise ConfigError(
            f"--split {split} has nothing to draw: the folders of {tree.root} give train and val; "
            "leave the option out"
        )
    _check_sizes(tree, rows, 3 if given == {""} else 1 if "val" in given else 2)
    rows, notes = draw_missing_splits(rows, shares, seed)
    left = tree.left_out
    return finish(
        sorted(rows, key=lambda row: (SPLITS.index(row.split), row.labels)),
        [TASK],
        out,
        positive=positive,
        ordinal=ordinal,
        left_out=left.counts(),
        notes=[*notes, *rule.notes(), *mask_note([i.file for i in images]), *left.notes()],
        overwrite=overwrite,
    )


@dataclass(frozen=True)
class _Image:
    """A picture in its class folder."""

    file: str
    split: str
    name: str
    below: str
    frames: int


def _find_images(tree: Tree) -> list[_Image]:
    """Return the pictures of all class folders, and what else is there counted as left out."""
    splits = _split_folders(tree)
    depth = 2 if splits else 1
    _refuse_names(tree, depth)
    inside: dict[str, tuple[str, str, str]] = {}
    for file in tree.files:
        parts = file.split("/")
        if len(parts) > depth:
            inside[file] = (splits.get(parts[0], ""), parts[depth - 1], "/".join(parts[depth:]))
    beside = [file for file in tree.files if file not in inside]
    for file in find_pictures(tree, beside):
        tree.left_out.add(OUTSIDE, file)
    pictures = find_pictures(tree, inside)
    return [_Image(file, *inside[file], frames) for file, frames in pictures.items()]


def _folders(tree: Tree, depth: int) -> list[str]:
    return [folder for folder in tree.folders if folder.count("/") == depth - 1]


def _split_folders(tree: Tree) -> dict[str, str]:
    """Return the split of each folder at the first level, or nothing where they are classes."""
    folders = _folders(tree, 1)
    splits = [SPLIT_SPELLINGS.get(folder.lower()) for folder in folders]
    named = [split for split in splits if split]
    if len(named) < max(2, len(folders)):
        if "train" in named:
            raise ManifestError(
                f"{tree.root} holds {', '.join(folders)}: expected split folders alone (train, "
                "val, test, of which train and one more are needed) or class folders alone"
                f"{_more(tree)}"
            )
        return {}
    if len(set(named)) < len(named) or "train" not in named:
        raise ManifestError(
            f"{tree.root} holds {', '.join(folders)}: expected one folder for each split, train "
            f"among them{_more(tree)}"
        )
    return dict(zip(folders, named, strict=True))


def _refuse_names(tree: Tree, depth: int) -> None:
    """Refuse a class folder whose name cannot stand in a manifest: without it a class is lost."""
    for file in tree.left_out.files.get(NAMES, []):
        folders = file.split("/")[:-1][:depth]
        wrong = [part for part in folders if escaped(part) != part]
        if wrong:
            raise ManifestError(
                f"the folder {escaped(wrong[0])} in {tree.root} has a name that is not UTF-8 or "
                "holds a line break, which no class of a manifest can bear: rename it"
            )


def _more(tree: Tree) -> str:
    """Return what was left out and may be why something is not there."""
    return "".join(f"\n  {note}" for note in tree.left_out.notes())


def _check_classes(tree: Tree, images: Sequence[_Image]) -> None:
    """Refuse a root without two classes, or with a class that holds no image at all."""
    home = tree.root
    depth = 2 if _split_folders(tree) else 1
    classes = dict.fromkeys(folder.rpartition("/")[2] for folder in _folders(tree, depth))
    more = _more(tree)
    if not classes:
        raise ManifestError(
            f"{home} holds no class folders: expected {home.name}/<class>/<image> or "
            f"{home.name}/<split>/<class>/<image>{more}"
        )
    counts = Counter(image.name for image in images)
    if empty := [name for name in classes if not counts[name]]:
        raise ManifestError(
            f"no readable image in the class folder(s) {', '.join(empty)} of {home}: expected "
            f"DICOM files, or files named {', '.join(sorted(SUFFIXES))}{more}"
        )
    if len(counts) == 1:
        raise ManifestError(
            f"{home} holds one class only, {next(iter(counts))}: expected at least two{more}"
        )


def _group_rule(group: str) -> re.Pattern[str] | None:
    if not group:
        return None
    try:
        rule = re.compile(r"([^/]+)/" if group == "folder" else group)
    except re.error as error:
        raise ConfigError(
            f"the group {group!r} is no regular expression ({error}); expected one such as "
            "'^(P[0-9]+)_', or `folder`"
        ) from error
    if not rule.groups:
        raise ConfigError(
            f"the group {group!r} has no bracket that says which part of the path is the patient: "
            "expected for example '^(P[0-9]+)_'"
        )
    return rule


def _patients(images: Sequence[_Image], group: str, rule: re.Pattern[str] | None) -> dict[str, str]:
    """Return the group of each file; refuse files that the rule does not fit, for they might be anyone's."""
    if rule is None:
        return {}
    match = rule.match if group == "folder" else rule.search
    found = {image.file: match(image.below) for image in images}
    patients = {file: (one[1] or "").strip() if one else "" for file, one in found.items()}
    wrong = [file for file, patient in patients.items() if not patient]
    if wrong:
        example = PurePosixPath(wrong[0])
        raise ManifestError(
            f"the group {group!r} names no patient for {len(wrong)} of {len(images)} images, first "
            f"{', '.join(wrong[:SHOWN])}: expected a rule that fits every path below its class, "
            f"such as {example.name}"
        )
    return patients


def _rows(tree: Tree, image: _Image, patient: str, rule: FrameRule) -> list[Row]:
    frames = rule.rows_of(image.frames)
    group = patient or (image.file if len(frames) > 1 else "")
    path = str(tree.root / image.file)
    return [
        Row(image.file + one.suffix, path, one.index, image.split, group, (image.name,))
        for one in frames
    ]


def _check_sizes(tree: Tree, rows: Sequence[Row], least: int) -> None:
    """Refuse a class of fewer groups than splits are drawn from it."""
    groups: dict[str, set[str]] = {}
    for row in rows:
        if row.split in {"", "train"}:
            groups.setdefault(row.labels[0], set()).add(row.group or row.id)
    if small := {name: len(found) for name, found in groups.items() if len(found) < least}:
        shown = ", ".join(f"{name} ({count})" for name, count in small.items())
        what = "groups of images" if any(row.group for row in rows) else "images"
        raise ManifestError(
            f"too few {what} to split in {tree.root}: {shown}; expected at least {least} of each "
            "class"
        )
