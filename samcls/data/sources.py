"""Data sets as they are published to manifests: MedMNIST arrays, ISIC 2017, folders of images.

Only names, headers and label tables are read, so 1,000 images take a tenth of a second. Whatever is left
out of a manifest is counted in the summary that each function returns.

    summary = medmnist_manifest("breastmnist.npz", "breastmnist.csv")
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from samcls.data.arrays import array_shapes, load_array
from samcls.data.folders import folder_manifest
from samcls.data.images import SUFFIXES
from samcls.data.manifest import SPLITS, Row, csv_lines
from samcls.data.manifest_file import refuse_existing
from samcls.data.summary import Summary, by_suffix, existing_folder, files_below, finish
from samcls.errors import ImageError, ManifestError

__all__ = ["Summary", "folder_manifest", "isic2017_manifest", "medmnist_manifest"]

ISIC2017_LABELS = {
    "train": "ISIC-2017_Training_Part3_GroundTruth.csv",
    "val": "ISIC-2017_Validation_Part3_GroundTruth.csv",
    "test": "ISIC-2017_Test_v2_Part3_GroundTruth.csv",
}
ISIC2017_TASKS = ("melanoma", "seborrheic_keratosis")


def medmnist_manifest(npz: str | Path, out: str | Path, *, overwrite: bool = False) -> Summary:
    """Make a manifest of a MedMNIST .npz of any size, with MedMNIST's own splits.

    Labels of shape (N,) or (N, 1) become the task `label`; (N, k) become `label_0` to `label_{k-1}`.
    Ids are the split and the row: `train_00017`.

    Args:
        npz: Arrays `{train,val,test}_images`, (image, row, col) grey or (image, row, col, 3) RGB,
            and `{train,val,test}_labels`, integers.
        out: The CSV to write.
        overwrite: Replace a manifest that is there.

    Raises:
        ManifestError: The file is no such .npz; the message says what it holds.
        OverwriteRefused: Something is at `out` already.
    """
    out = Path(out)
    refuse_existing(out, overwrite=overwrite)
    # The file itself may be a link to a name without the suffix, as in a download cache.
    file = Path(npz).parent.resolve() / Path(npz).name
    if not file.is_file():
        raise ManifestError(f"the MedMNIST file {npz} does not exist: name an .npz file")
    labels = _medmnist_labels(file)
    width = next(iter(labels.values())).shape[1]
    tasks = ["label"] if width == 1 else [f"label_{column}" for column in range(width)]
    rows = [
        Row(f"{split}_{i:05}", f"{file}#{split}_images", i, split, "", tuple(map(str, values)))
        for split, array in labels.items()
        for i, values in enumerate(array.tolist())
    ]
    return finish(rows, tasks, out, overwrite=overwrite)


def isic2017_manifest(
    directory: str | Path, out: str | Path, *, overwrite: bool = False
) -> Summary:
    """Make a manifest of ISIC 2017, Part 3: two binary tasks, with the challenge's own splits.

    Args:
        directory: Holds, at any depth, the three published label CSVs under their own names and
            the images, named by their ids. Rows without an image and images without a row are left
            out and counted in the notes.
        out: The CSV to write.
        overwrite: Replace a manifest that is there.

    Raises:
        ManifestError: A CSV is missing or is not as published, no image is found, or an id has
            several.
        OverwriteRefused: Something is at `out` already.
    """
    out = Path(out)
    refuse_existing(out, overwrite=overwrite)
    home = existing_folder(directory)
    files = files_below(home)
    labels = {split: _isic_labels(home, files, split) for split in SPLITS}
    images, ignored = _images_by_stem(files, set(ISIC2017_LABELS.values()))
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
                rows.append(Row(name, str(found[0]), None, split, "", values))
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
    return finish(rows, ISIC2017_TASKS, out, ignored=ignored, notes=notes, overwrite=overwrite)


def _medmnist_labels(file: Path) -> dict[str, Shaped[np.ndarray, "image task"]]:
    """Labels of each split, checked against the shapes of the images."""
    try:
        shapes = array_shapes(str(file))
        expected = [f"{split}_{kind}" for split in SPLITS for kind in ("images", "labels")]
        if missing := [name for name in expected if name not in shapes]:
            raise ManifestError(
                f"{file} is no MedMNIST file: it lacks {', '.join(missing)} and holds "
                f"{', '.join(shapes) or 'nothing'}"
            )
        labels = {split: load_array(str(file), f"{split}_labels") for split in SPLITS}
    except ImageError as error:
        raise ManifestError(f"{file} cannot be used as a MedMNIST file: {error}") from error
    for split, array in labels.items():
        _check_medmnist(file, split, shapes[f"{split}_images"], array)
    if len({array.shape[1:] for array in labels.values()}) > 1:
        raise ManifestError(f"{file}: the splits' labels differ in their number of columns")
    return {split: array.reshape(len(array), -1) for split, array in labels.items()}


def _check_medmnist(
    file: Path, split: str, images: tuple[int, ...], labels: Shaped[np.ndarray, "..."]
) -> None:
    if len(images) != 3 and not (len(images) == 4 and images[3] in (1, 3)):
        raise ManifestError(
            f"{file}: {split}_images has shape {images}, expected (image, row, col) or "
            "(image, row, col, 3); volumes are not supported"
        )
    if labels.ndim not in (1, 2) or len(labels) != images[0] or labels.size == 0:
        raise ManifestError(
            f"{file}: {split}_labels has shape {labels.shape} for {images[0]} images, expected "
            f"({images[0]},) or ({images[0]}, tasks)"
        )
    if labels.dtype.kind not in "iu":
        raise ManifestError(
            f"{file}: {split}_labels is of type {labels.dtype}, expected integers that number "
            "the classes"
        )


def _isic_labels(home: Path, files: Sequence[Path], split: str) -> dict[str, tuple[str, ...]]:
    """Values "0" or "1" of both tasks, by image id, in the CSV's order."""
    name = ISIC2017_LABELS[split]
    found = sorted((file for file in files if file.name == name), key=lambda file: len(file.parts))
    if not found:
        raise ManifestError(
            f"{name} is not in {home} or below: put the published labels of the {split} split there"
        )
    lines = csv_lines(found[0], "label file")
    header = ["image_id", *ISIC2017_TASKS]
    if not lines or [cell.strip() for cell in lines[0][1]] != header:
        raise ManifestError(f"{found[0]}: expected the header {','.join(header)}")
    table: dict[str, tuple[str, ...]] = {}
    for line, cells in lines[1:]:
        values = tuple(
            {"0.0": "0", "1.0": "1", "0": "0", "1": "1"}.get(v.strip()) for v in cells[1:]
        )
        if len(values) != len(ISIC2017_TASKS) or None in values or cells[0].strip() in table:
            raise ManifestError(
                f"{found[0]}, line {line}: {','.join(cells)!r} is not a new image id with a value "
                "0.0 or 1.0 for each task"
            )
        table[cells[0].strip()] = tuple(value or "" for value in values)
    return table


def _images_by_stem(
    files: Sequence[Path], expected: set[str]
) -> tuple[dict[str, list[Path]], Counter[str]]:
    """Readable images by name without suffix, and the suffixes of all other files."""
    images: dict[str, list[Path]] = {}
    others = []
    for file in files:
        if file.suffix.lower() in SUFFIXES:
            images.setdefault(file.stem, []).append(file)
        elif file.name not in expected:
            others.append(file)
    return images, by_suffix(others)
