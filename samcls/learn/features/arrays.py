"""Feature maps of several levels as one argument that scikit-learn can cut into folds.

Scikit-learn takes rows from whatever is given as X, and a dictionary of arrays has none. Taking rows
copies them, as it does of an array.

    X = LevelArrays({"neck": store.read("neck")[:, 0], "late": store.read("late")[:, 0]})
    cross_val_score(SLCAClassifier(), X, y)
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from sklearn.utils.validation import check_array

from samcls.learn.features.tensors import Features
from samcls.pooling import pool, to_tokens

__all__ = ["LevelArrays", "features_of"]


class LevelArrays:
    """Maps of several levels of the same images, image by image.

    Attributes:
        arrays: By level, (image, channel, row, col); or (image, channel), which is a map of one cell.

    Args:
        arrays: As above; levels may differ in channels and cells.

    Raises:
        ValueError: where there is no level, or they are of different numbers of images.
    """

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        self.arrays = {str(level): np.asarray(values) for level, values in arrays.items()}
        counts = {level: len(values) for level, values in self.arrays.items() if values.ndim}
        if not self.arrays or len(counts) < len(self.arrays) or len(set(counts.values())) > 1:
            told = ", ".join(f"{level} {number}" for level, number in counts.items())
            raise ValueError(
                f"got arrays of {told or 'no'} images; expected a level or more, each with a map for "
                "every image"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Number of images and of levels."""
        return len(self), len(self.arrays)

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, rows: Any) -> "LevelArrays":
        """Return some of the images, in every level.

        Args:
            rows: A slice, row numbers or a mask; scikit-learn writes `[rows, ...]`.
        """
        chosen = rows[0] if isinstance(rows, tuple) else rows
        if isinstance(chosen, int | np.integer):
            chosen = [chosen]
        return LevelArrays({level: values[chosen] for level, values in self.arrays.items()})

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError("maps of several levels are no single array; use .arrays[level]")

    def __repr__(self) -> str:
        shapes = ", ".join(f"{level} {values.shape}" for level, values in self.arrays.items())
        return f"LevelArrays({shapes})"


def features_of(
    arrays: Mapping[str, Float[np.ndarray, "image ..."]], window: int | None
) -> Features:
    """Return maps pooled over the window, as stage two knows features; without labels or splits.

    Args:
        arrays: By level, as in `LevelArrays`.
        window: Side of the pooling window, in cells of the maps; None means one cell.

    Raises:
        ValueError: where an array has other axes, is empty, or holds values that are not finite.
    """
    tokens, counts, grids = {}, {}, {}
    images = len(next(iter(arrays.values())))
    for level, values in arrays.items():
        found = check_array(values, dtype=np.float32, allow_nd=True, input_name=level)
        maps = found[:, :, None, None] if found.ndim == 2 else found
        if maps.ndim != 4:
            raise ValueError(f"{level} has {maps.ndim} axes; expected image, channel, row, col")
        given = torch.from_numpy(np.ascontiguousarray(maps))
        pooled, valid = pool(given, torch.ones(images, *maps.shape[2:]), window or 1)
        tokens[level], counts[level] = to_tokens(pooled), valid.flatten(1)
        grids[level] = (pooled.shape[2], pooled.shape[3])
    return Features(
        tokens=tokens,
        counts=counts,
        labels=torch.zeros(images, 1, dtype=torch.int64),
        ids=tuple(str(i) for i in range(images)),
        splits=("test",) * images,
        groups=("",) * images,
        tasks={},
        window=window or 1,
        grids=grids,
        views=1,
        fingerprint={},
        failed=0,
    )
