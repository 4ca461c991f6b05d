"""MedMNIST's .npz files to manifests, with MedMNIST's own splits.

Only the headers of the images and the labels are read.

    summary = medmnist_manifest("breastmnist.npz", "breastmnist.csv", positive=["0"])
"""

from pathlib import Path
from typing import Annotated

import numpy as np
from jaxtyping import Shaped

from samcls.data.arrays import array_shapes, load_array
from samcls.data.manifest import SPLITS, Row
from samcls.data.manifest_file import refuse_existing
from samcls.data.sources.options import Ordinal, Out, Overwrite, Positive
from samcls.data.summary import Summary, finish
from samcls.errors import ImageError, ManifestError

__all__ = ["medmnist_manifest"]


def medmnist_manifest(
    npz: Annotated[str | Path, "MedMNIST file of any size, such as breastmnist.npz."],
    out: Out,
    *,
    positive: Positive = (),
    ordinal: Ordinal = (),
    overwrite: Overwrite = False,
) -> Summary:
    """From a MedMNIST .npz, with MedMNIST's own splits.

    Labels of shape (N,) or (N, 1) become the task `label`; (N, k) become `label_0` to `label_{k-1}`.
    Ids are the split and the row: `train_00017`.

    Args:
        npz: Arrays `{train,val,test}_images`, (image, row, col) grey or (image, row, col, 3) RGB,
            and `{train,val,test}_labels`, integers.
        out: The CSV to write.
        positive: Which of a task's two classes sensitivity and its like are of.
        ordinal: Tasks whose classes are steps of one scale.
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
    return finish(rows, tasks, out, positive=positive, ordinal=ordinal, overwrite=overwrite)


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
