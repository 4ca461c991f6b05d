"""ISIC 2017, Part 3, to a manifest: two binary tasks, with the challenge's own splits.

Only names and the label tables are read.

    summary = isic2017_manifest("isic2017/", "isic2017.csv")
"""

from pathlib import Path, PurePosixPath
from typing import Annotated

from samcls.data.images import SUFFIXES
from samcls.data.manifest import SPLITS, Row, csv_lines
from samcls.data.manifest_file import refuse_existing
from samcls.data.pictures import by_suffix
from samcls.data.sources.options import Out, Overwrite, Positive
from samcls.data.summary import Summary, finish
from samcls.data.tree import Tree, existing_folder, walk
from samcls.errors import ManifestError

__all__ = ["isic2017_manifest"]

ISIC2017_LABELS = {
    "train": "ISIC-2017_Training_Part3_GroundTruth.csv",
    "val": "ISIC-2017_Validation_Part3_GroundTruth.csv",
    "test": "ISIC-2017_Test_v2_Part3_GroundTruth.csv",
}
ISIC2017_TASKS = ("melanoma", "seborrheic_keratosis")


def isic2017_manifest(
    directory: Annotated[str | Path, "Holds the three label CSVs and the images."],
    out: Out,
    *,
    positive: Positive = (),
    overwrite: Overwrite = False,
) -> Summary:
    """From ISIC 2017, Part 3: the published label CSVs and an image folder, two binary tasks.

    Args:
        directory: Holds, at any depth, the three published label CSVs under their own names and
            the images, named by their ids. Rows without an image and images without a row are left
            out and counted in the notes.
        out: The CSV to write.
        positive: Which of a task's two classes sensitivity and its like are of; `1` by default.
        overwrite: Replace a manifest that is there.

    Raises:
        ManifestError: A CSV is missing or is not as published, no image is found, or an id has
            several.
        OverwriteRefused: Something is at `out` already.
    """
    out = Path(out)
    refuse_existing(out, overwrite=overwrite)
    home = existing_folder(directory)
    tree = walk(home)
    labels = {split: _isic_labels(tree, split) for split in SPLITS}
    images = _images_by_stem(tree)
    rows, absent = [], []
    for split, table in labels.items():
        for name, values in table.items():
            found = images.pop(name, [])
            if len(found) > 1:
                raise ManifestError(
                    f"image {name} is there {len(found)} times in {directory}: {found[0]} and "
                    f"{found[1]}; keep one, or name a folder that holds one copy of the data set"
                )
            if found:
                rows.append(Row(name, str(home / found[0]), None, split, "", values))
            else:
                absent.append(name)
    if not rows:
        raise ManifestError(
            f"none of the {len(absent)} labelled images is in {directory}: expected files such as "
            f"{absent[0]}.jpg at any depth below it"
        )
    notes = []
    if absent:
        notes.append(f"{len(absent)} labelled image(s) have no file, first {absent[0]}")
    if images:
        notes.append(f"{len(images)} image(s) have no label, first {min(images)}")
    return finish(
        rows,
        ISIC2017_TASKS,
        out,
        positive=positive,
        left_out=tree.left_out.counts(),
        notes=[*notes, *tree.left_out.notes()],
        overwrite=overwrite,
    )


def _isic_labels(tree: Tree, split: str) -> dict[str, tuple[str, ...]]:
    """Values "0" or "1" of both tasks, by image id, in the CSV's order."""
    name = ISIC2017_LABELS[split]
    places = (PurePosixPath(file) for file in tree.files)
    found = sorted((file for file in places if file.name == name), key=lambda f: len(f.parts))
    if not found:
        raise ManifestError(
            f"{name} is not in {tree.root} or below: put the published labels of the {split} split there"
        )
    source = tree.root / found[0]
    lines = csv_lines(source, "label file")
    header = ["image_id", *ISIC2017_TASKS]
    if not lines or [cell.strip() for cell in lines[0][1]] != header:
        raise ManifestError(f"{source}: expected the header {','.join(header)}")
    table: dict[str, tuple[str, ...]] = {}
    for line, cells in lines[1:]:
        values = tuple(
            {"0.0": "0", "1.0": "1", "0": "0", "1": "1"}.get(v.strip()) for v in cells[1:]
        )
        if len(values) != len(ISIC2017_TASKS) or None in values or cells[0].strip() in table:
            raise ManifestError(
                f"{source}, line {line}: {','.join(cells)!r} is not a new image id with a value "
                "0.0 or 1.0 for each task"
            )
        table[cells[0].strip()] = tuple(value or "" for value in values)
    return table


def _images_by_stem(tree: Tree) -> dict[str, list[str]]:
    """Images by name without suffix; all other files are counted as left out."""
    images: dict[str, list[str]] = {}
    for file in tree.files:
        place = PurePosixPath(file)
        if place.suffix.lower() in SUFFIXES:
            images.setdefault(place.stem, []).append(file)
        elif place.name not in ISIC2017_LABELS.values():
            tree.left_out.add(by_suffix(file), file)
    return images
