"""What an audit sees of each picture, without an encoder: size, colour, borders, and a small grey copy.

Every picture is decoded once, in threads, by the same rules as in stage one. A picture that cannot be read keeps
its row and its reason. 2,750 JPEGs of 256 x 256 take some four seconds on two cores, and 4 kB each.

    looks = look_at(lambda row: read_image(row.path, row.index), rows)
    looks.thumbs, looks.sha256, looks.errors
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from samcls.data.images import make_frame, pixel_digest
from samcls.errors import ImageError

__all__ = ["SIDE", "Looks", "look_at", "thumb_of"]

SIDE = 64  # pixels, of a thumb
DECODERS = 4  # threads; decoding and hashing release the interpreter
FLAT = 2  # grey levels that a border may vary by
GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601

Picture = UInt8[np.ndarray, "row col 3"]


@dataclass(frozen=True, eq=False)
class Looks:
    """One row for each picture.

    Attributes:
        thumbs: Grey, 0..255, the whole picture squeezed into a square.
        sha256: Of the decoded pixels; zeros where a picture cannot be read.
        sizes: Height and width in pixels.
        grey: Whether all three colours are equal throughout.
        contrast: Standard deviation of the grey values, 0..127.5.
        border: Share of the picture in flat rows and columns at its edges, 0..1.
        errors: Why a picture cannot be read; empty where it can.
    """

    thumbs: UInt8[np.ndarray, "image side side"]
    sha256: UInt8[np.ndarray, "image 32"]
    sizes: Int[np.ndarray, "image 2"]
    grey: Bool[np.ndarray, " image"]
    contrast: Float[np.ndarray, " image"]
    border: Float[np.ndarray, " image"]
    errors: tuple[str, ...]

    @property
    def there(self) -> Bool[np.ndarray, " image"]:
        """Which pictures could be read."""
        return np.array([not error for error in self.errors], dtype=bool)


def look_at(
    read: Callable[[Any], Picture],
    rows: Sequence[Any],
    progress: Callable[[int, int], None] | None = None,
) -> Looks:
    """Decode every picture once.

    Args:
        read: Gives a row's picture, RGB 0..255, or raises `ImageError`.
        rows: What `read` is given.
        progress: Called with how many are done, of how many.
    """
    looks = Looks(
        np.zeros((len(rows), SIDE, SIDE), np.uint8),
        np.zeros((len(rows), 32), np.uint8),
        np.zeros((len(rows), 2), np.int64),
        np.zeros(len(rows), bool),
        np.zeros(len(rows), np.float32),
        np.zeros(len(rows), np.float32),
        (),
    )

    def one(place: int) -> str:
        try:
            image = read(rows[place])
        except ImageError as error:
            return str(error)
        looks.sha256[place] = np.frombuffer(bytes.fromhex(pixel_digest(image)), np.uint8)
        looks.thumbs[place] = thumb_of(image)
        looks.sizes[place] = image.shape[:2]
        looks.grey[place] = not (image != image[:, :, :1]).any()
        shades = image @ GREY
        looks.contrast[place] = shades.std()
        looks.border[place] = _border(shades)
        return ""

    errors = []
    with ThreadPoolExecutor(DECODERS, thread_name_prefix="look") as pool:
        for done, error in enumerate(pool.map(one, range(len(rows))), start=1):
            errors.append(error)
            if progress is not None:
                progress(done, len(rows))
    return Looks(**{**vars(looks), "errors": tuple(errors)})


def thumb_of(image: Picture) -> UInt8[np.ndarray, "side side"]:
    """Return a picture's small grey copy, both sides brought to `SIDE`."""
    small = make_frame(image, SIDE, "stretch").pixels
    found: np.ndarray = np.clip(small @ GREY + 0.5, 0, 255).astype(np.uint8)
    return found


def _border(shades: Float[np.ndarray, "row col"]) -> float:
    """Return the share of a picture in rows and columns at its edges that do not vary and are alike."""
    flat_rows = np.ptp(shades, axis=1) <= FLAT
    flat_cols = np.ptp(shades, axis=0) <= FLAT
    if flat_rows.all():
        return 1.0
    inner_rows, inner_cols = (np.flatnonzero(~flat) for flat in (flat_rows, flat_cols))
    height = inner_rows[-1] - inner_rows[0] + 1
    width = inner_cols[-1] - inner_cols[0] + 1 if len(inner_cols) else 0
    return 1.0 - float(height * width) / shades.size
