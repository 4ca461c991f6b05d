"""Folders of images to manifests, with the splits that the folders name or a seeded draw.

Only names are read: 100,000 files take about ten seconds. The draw is made within each
class, so that every split holds every class in the same share, however rare the class.

    summary = folder_manifest("breast/", "breast.csv", seed=0)
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from samcls.data.images import SUFFIXES
from samcls.data.manifest import SPLIT_SPELLINGS, SPLITS, Row
from samcls.data.manifest_file import refuse_existing
from samcls.data.summary import Summary, by_suffix, existing_folder, files_below, finish, is_shown
from samcls.errors import ConfigError, ManifestError

__all__ = ["FRACTIONS", "folder_manifest"]

FRACTIONS = (0.7, 0.1, 0.2)


def folder_manifest(
    directory: str | Path,
    out: str | Path,
    seed: int = 0,
    fractions: tuple[float, float, float] = FRACTIONS,
    *,
    overwrite: bool = False,
) -> Summary:
    """Make a manifest of a folder of classes: `root/<class>/*` or `root/<split>/<class>/*`.

    Folders at the first level are splits if all of them have a split's name, in any common
    spelling. Otherwise every class is split at random, and each split gets at least one image of
    each class. Where there is no val, it is taken from train. Images may lie at any depth below
    their class; hidden folders are passed over.

    Args:
        directory: The root. Ids are paths relative to it.
        out: The CSV to write; its task is named `label`.
        seed: The same files and seed give the same splits.
        fractions: Shares of train, val and test.
        overwrite: Replace a manifest that is there.

    Raises:
        ManifestError: There are no class folders, one class only, a class too small to split, or
            split folders that do not go together.
        ConfigError: The fractions are not three positive shares of 1.
        OverwriteRefused: Something is at `out` already.
    """
    out = Path(out)
    refuse_existing(out, overwrite=overwrite)
    if min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ConfigError(
            f"the fractions {fractions} are not usable: expected three positive shares of train, "
            "val and test that add up to 1"
        )
    home = existing_folder(directory)
    split_folders = _split_folders(home)
    found = (
        {split: _class_files(folder) for split, folder in split_folders.items()}
        if split_folders
        else {"": _class_files(home)}
    )
    images = {
        split: {
            name: [file for file in files if file.suffix.lower() in SUFFIXES]
            for name, files in classes.items()
        }
        for split, classes in found.items()
    }
    kept = {file for classes in images.values() for files in classes.values() for file in files}
    # Files beside the class folders are left out too, so all that lies below the root is counted.
    ignored = by_suffix([file for file in files_below(home) if file not in kept])
    _check_classes(home, images)
    placed, notes = _place(home, images, seed, fractions)
    rows = [
        Row(file.relative_to(home).as_posix(), str(file), None, split, "", (name,))
        for split in SPLITS
        for name, files in placed.get(split, {}).items()
        for file in files
    ]
    return finish(rows, ["label"], out, ignored=ignored, notes=notes, overwrite=overwrite)


def _folders_in(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir() and is_shown(child.name))


def _class_files(folder: Path) -> dict[str, list[Path]]:
    """Files of each class folder, at any depth."""
    return {child.name: files_below(child) for child in _folders_in(folder)}


def _split_folders(home: Path) -> dict[str, Path]:
    """The folders of the splits, or nothing where the first level holds classes."""
    folders = _folders_in(home)
    splits = [SPLIT_SPELLINGS.get(folder.name.lower()) for folder in folders]
    named = [split for split in splits if split]
    if len(named) < max(2, len(folders)):
        if "train" in named:
            raise ManifestError(
                f"{home} holds {', '.join(folder.name for folder in folders)}: expected split "
                "folders alone (train, val, test, of which train and one more are needed) or "
                "class folders alone"
            )
        return {}
    if len(set(named)) < len(named) or "train" not in named:
        raise ManifestError(
            f"{home} holds {', '.join(folder.name for folder in folders)}: expected one folder "
            "for each split, train among them"
        )
    return dict(zip(named, folders, strict=True))


def _check_classes(home: Path, images: Mapping[str, Mapping[str, Sequence[Path]]]) -> None:
    """Refuse a root without two classes, or with a class that holds no image at all."""
    counts: Counter[str] = Counter()
    for classes in images.values():
        for name, files in classes.items():
            counts[name] += len(files)
    if not counts:
        raise ManifestError(
            f"{home} holds no class folders: expected {home.name}/<class>/<image> or "
            f"{home.name}/<split>/<class>/<image>"
        )
    if empty := [name for name, count in counts.items() if not count]:
        raise ManifestError(
            f"no readable image in the class folder(s) {', '.join(empty)} of {home}: expected "
            f"files named {', '.join(sorted(SUFFIXES))}"
        )
    if len(counts) == 1:
        raise ManifestError(
            f"{home} holds one class only, {next(iter(counts))}: expected at least two"
        )


def _place(
    home: Path,
    images: Mapping[str, Mapping[str, list[Path]]],
    seed: int,
    fractions: tuple[float, float, float],
) -> tuple[dict[str, dict[str, list[Path]]], list[str]]:
    """Splits of the images: those of the folders, or drawn for each class by itself."""
    placed = {split: dict(classes) for split, classes in images.items()}
    train, val, test = fractions
    if "" in placed:
        pool = placed.pop("")
        _check_sizes(home, pool, 3)
        placed["test"], pool = _draw(pool, test, seed)
        placed["val"], placed["train"] = _draw(pool, val / (train + val), seed)
        return placed, [f"no split folders: split at random within each class, seed {seed}"]
    notes = []
    if "val" not in placed:
        _check_sizes(home, placed["train"], 2)
        placed["val"], placed["train"] = _draw(placed["train"], val / (train + val), seed)
        notes.append(f"no val folder: val was drawn from train within each class, seed {seed}")
    if "test" not in placed:
        notes.append("no test folder: there is no test split")
    return placed, notes


def _check_sizes(home: Path, classes: Mapping[str, Sequence[Path]], least: int) -> None:
    if small := {name: len(files) for name, files in classes.items() if len(files) < least}:
        shown = ", ".join(f"{name} ({count})" for name, count in small.items())
        raise ManifestError(
            f"too few images to split in {home}: {shown}; expected at least {least} of each class"
        )


def _draw(
    classes: Mapping[str, list[Path]], share: float, seed: int
) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """Draw a share of each class, at least one image and never all; and what is left."""
    from sklearn.model_selection import train_test_split

    drawn, left = {}, {}
    for name, files in classes.items():
        count = min(max(1, round(share * len(files))), len(files) - 1)
        rest, taken = train_test_split(files, test_size=count, random_state=seed)
        drawn[name], left[name] = sorted(taken), sorted(rest)
    return drawn, left
