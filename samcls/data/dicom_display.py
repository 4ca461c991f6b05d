"""From stored DICOM values to what a viewer shows, after PS3.3 C.7.6.3, C.11.1, C.11.2 and C.7.6.16.2.

Grey: modality table or rescale, then VOI table or the first window, then the inversion of MONOCHROME1;
without either, minimum..maximum. A blank element is an absent one. In enhanced objects rescale and window
stand in the functional groups, those of the frame before those that all frames share.

    rgb = show_grey(values, dataset, frame, little_endian=True)
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8

from samcls.data.arrays import to_rgb
from samcls.data.dicom_file import number, numbers, present, text
from samcls.errors import ImageError

__all__ = ["show_colours", "show_grey"]

COLOURS = ("Red", "Green", "Blue")
FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


@dataclass(frozen=True)
class Table:
    """A look-up table.

    Attributes:
        entries: Unsigned.
        start: The value that the first entry is for.
        bits: Of an entry.
    """

    entries: Shaped[np.ndarray, " entry"]
    start: int
    bits: int

    def look_up(self, values: Shaped[np.ndarray, "row col"]) -> Shaped[np.ndarray, "row col"]:
        """Return the entry of each value; those beyond the ends get the first and the last."""
        places = np.rint(values).astype(np.int64) - self.start
        found: np.ndarray = self.entries[np.clip(places, 0, len(self.entries) - 1)]
        return found


def show_grey(
    values: Shaped[np.ndarray, "row col"], dataset: Any, frame: int, *, little_endian: bool
) -> UInt8[np.ndarray, "row col 3"]:
    """Show one frame of MONOCHROME1, MONOCHROME2 or PALETTE COLOR.

    Padding (PixelPaddingValue, up to its range limit) takes no part in minimum..maximum and is black.

    Args:
        values: As stored.
        dataset: The file's elements.
        frame: Number of the frame, for what the functional groups say of it.
        little_endian: Byte order of tables that are written as words.
    """
    if text(dataset, "PhotometricInterpretation") == "PALETTE COLOR":
        return _palette(values, dataset, little_endian)
    padding = _padding(values, dataset)
    bits = _few_bits(values, dataset)
    shown = None if padding is None or not padding.any() else ~padding
    values, bits, signed = _modality(values, bits, dataset, frame, little_endian)
    seen = _voi(values, dataset, frame, little_endian, signed)
    rgb = to_rgb(values, bits, shown) if seen is None else to_rgb(seen, None, shown)
    inverted = text(dataset, "PhotometricInterpretation") == "MONOCHROME1"
    if inverted or text(dataset, "PresentationLUTShape") == "INVERSE":
        rgb = 255 - rgb
        if shown is not None:
            rgb[~shown] = 0
    return rgb


def show_colours(
    values: Shaped[np.ndarray, "row col 3"], dataset: Any
) -> UInt8[np.ndarray, "row col 3"]:
    """Show RGB by the rule of `to_rgb`."""
    return to_rgb(values, _few_bits(values, dataset))


def _few_bits(values: Shaped[np.ndarray, "..."], dataset: Any) -> int | None:
    """Bits stored, where they are so few that values are not scaled from their own range."""
    bits = int(number(dataset, "BitsStored") or 0)
    return bits if values.dtype.kind == "u" and 0 < bits <= 8 else None


def _groups(dataset: Any, frame: int, macro: str) -> list[Any]:
    """Where to look for elements: the frame's functional group, the shared one, the file itself."""
    places = []
    per_frame = present(dataset, "PerFrameFunctionalGroupsSequence")
    shared = present(dataset, "SharedFunctionalGroupsSequence")
    for groups, item in ((per_frame, frame), (shared, 0)):
        if groups is not None and item < len(groups):
            inner = present(groups[item], macro)
            places += [] if inner is None else [inner[0]]
    return [*places, dataset]


def _modality(
    values: Shaped[np.ndarray, "row col"],
    bits: int | None,
    dataset: Any,
    frame: int,
    little_endian: bool,
) -> tuple[Shaped[np.ndarray, "row col"], int | None, bool]:
    """Values of the modality, such as Hounsfield units, with their bits and whether they are signed."""
    signed = values.dtype.kind != "u"
    table = _table(dataset, "ModalityLUTSequence", little_endian, signed)
    if table is not None:
        kind = np.uint8 if table.bits <= 8 else np.uint16
        few = table.bits if table.bits < 8 else None
        return table.look_up(values).astype(kind), few, False
    for place in _groups(dataset, frame, "PixelValueTransformationSequence"):
        slope, intercept = number(place, "RescaleSlope"), number(place, "RescaleIntercept")
        if slope is None and intercept is None:
            continue
        slope, intercept = 1.0 if slope is None else slope, intercept or 0.0
        if slope == 0 or not math.isfinite(slope) or not math.isfinite(intercept):
            raise ImageError(
                f"its rescale of slope {slope:g} and intercept {intercept:g} leaves no picture"
            )
        # An identity would turn 8-bit values into doubles, and those are scaled.
        if (slope, intercept) != (1, 0):
            return (
                values.astype(np.float64) * slope + intercept,
                None,
                _negative(dataset, signed, slope, intercept),
            )
        break
    return values, bits, signed


def _negative(dataset: Any, signed: bool, slope: float, intercept: float) -> bool:
    """Whether any value that can be stored is below 0 after the rescale."""
    bits = int(number(dataset, "BitsStored") or 16)
    ends = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return min(end * slope + intercept for end in ends) < 0


def _voi(
    values: Shaped[np.ndarray, "row col"],
    dataset: Any,
    frame: int,
    little_endian: bool,
    signed: bool,
) -> UInt8[np.ndarray, "row col"] | None:
    """Through the file's VOI table or first window, 0..255; None where it has neither."""
    for place in _groups(dataset, frame, "FrameVOILUTSequence"):
        table = _table(place, "VOILUTSequence", little_endian, signed)
        if table is not None:
            return _bytes(table.look_up(values) / (2.0**table.bits - 1))
        pairs = zip(numbers(place, "WindowCenter"), numbers(place, "WindowWidth"), strict=False)
        for centre, width in pairs:
            if centre is not None and width is not None:
                return _bytes(_window(values, centre, width, text(place, "VOILUTFunction")))
    return None


def _window(
    values: Shaped[np.ndarray, "row col"], centre: float, width: float, function: str | None
) -> Float[np.ndarray, "row col"]:
    """Values through a window, 0..1, by PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    function = function or "LINEAR"
    if function not in FUNCTIONS:
        raise ImageError(
            f"its VOI LUT function is not known: expected one of {', '.join(FUNCTIONS)}"
        )
    least = 1 if function == "LINEAR" else 0
    if not math.isfinite(centre) or not math.isfinite(width) or width < least or width <= 0:
        raise ImageError(
            f"its window of centre {centre:g} and width {width:g} shows nothing: expected a width "
            f"of {'1 or more' if least else 'more than 0'}"
        )
    distance = values.astype(np.float64) - centre
    if function == "SIGMOID":
        shown: np.ndarray = 1 / (1 + np.exp(np.clip(-4 * distance / width, -700, 700)))
    elif function == "LINEAR_EXACT":
        shown = distance / width + 0.5
    elif width == 1:
        shown = (distance > -0.5).astype(np.float64)
    else:
        shown = (distance + 0.5) / (width - 1) + 0.5
    return shown


def _bytes(shown: Float[np.ndarray, "row col"]) -> UInt8[np.ndarray, "row col"]:
    if not np.isfinite(shown).all():
        shown = np.where(np.isfinite(shown), shown, 0)
    rounded: np.ndarray = np.rint(np.clip(shown, 0, 1) * 255).astype(np.uint8)
    return rounded


def _padding(
    values: Shaped[np.ndarray, "row col"], dataset: Any
) -> Bool[np.ndarray, "row col"] | None:
    """Which pixels pad the picture; None where the file names no padding."""
    prefix = (
        {4: "Float", 8: "DoubleFloat"}[values.dtype.itemsize] if values.dtype.kind == "f" else ""
    )
    value = number(dataset, f"{prefix}PixelPaddingValue")
    if value is None:
        return None
    limit = number(dataset, f"{prefix}PixelPaddingRangeLimit")
    limit = value if limit is None else limit
    if values.dtype.kind == "f":
        if math.isnan(value):
            unset: np.ndarray = np.isnan(values)
            return unset
    else:
        stored = int(number(dataset, "BitsStored") or 8 * values.dtype.itemsize)
        value, limit = (_as_stored(int(one), stored, values.dtype.kind) for one in (value, limit))
    low, high = min(value, limit), max(value, limit)
    return (values >= low) & (values <= high)


def _as_stored(value: int, bits: int, kind: str) -> int:
    """Return a number as the pixels hold it, where its own element has another sign or more bits."""
    value %= 2**bits
    return value - 2**bits if kind == "i" and value >= 2 ** (bits - 1) else value


def _table(dataset: Any, name: str, little_endian: bool, signed: bool) -> Table | None:
    """Return the first table of a sequence; None where it is absent or blank."""
    items = present(dataset, name)
    if items is None:
        return None
    descriptor, data = numbers(items[0], "LUTDescriptor"), present(items[0], "LUTData")
    if not descriptor or data is None:
        return None
    return _build(descriptor, _words(data, little_endian), signed)


def _build(
    descriptor: list[float | None], words: Shaped[np.ndarray, " word"], signed: bool
) -> Table:
    """Return a table of which the descriptor says the entries, the first value and the bits."""
    count, start, bits = _described(descriptor, signed)
    if len(words) < count <= 2 * len(words) and bits <= 8:
        words = words.astype("<u2").view(np.uint8)  # two entries a word, the low byte first
    if len(words) < count:
        raise ImageError(
            f"it is damaged: a look-up table of {count} entries holds {len(words)} of them"
        )
    entries = words[:count]
    if bits <= 8 and entries.max() > 255:
        bits = 16  # writers that name the bits of the screen
    return Table(entries, start, bits)


def _described(descriptor: list[float | None], signed: bool) -> tuple[int, int, int]:
    """Entries, first value and bits, whichever sign the descriptor was written with."""
    if len(descriptor) != 3 or None in descriptor:
        raise ImageError("it is damaged: a look-up table's descriptor is not of three numbers")
    count, start, bits = (int(value or 0) for value in descriptor)
    count = count % 65536 or 65536
    start = start % 65536
    start = start - 65536 if signed and start >= 32768 else start
    if not 1 <= bits <= 16:
        raise ImageError(f"it is damaged: a look-up table has entries of {bits} bits")
    return count, start, bits


def _words(data: Any, little_endian: bool) -> Shaped[np.ndarray, " word"]:
    """Return data of a table as words, whether they were written as numbers or as bytes."""
    if isinstance(data, bytes):
        data = data + b"\0" * (len(data) % 2)
        return np.frombuffer(data, "<u2" if little_endian else ">u2").astype(np.uint16)
    return (np.atleast_1d(np.asarray(data, dtype=np.int64)) % 65536).astype(np.uint16)


def _palette(
    values: Shaped[np.ndarray, "row col"], dataset: Any, little_endian: bool
) -> UInt8[np.ndarray, "row col 3"]:
    """Colours of a palette's numbers, by PS3.3 C.7.6.3.1.5, the high byte of deeper ones."""
    tables = [_palette_table(dataset, colour, values, little_endian) for colour in COLOURS]
    if max(int(table.entries.max()) for table in tables) <= 255:
        tables = [Table(table.entries, table.start, min(table.bits, 8)) for table in tables]
    shown = [table.look_up(values).astype(np.uint16) << (16 - table.bits) >> 8 for table in tables]
    return np.ascontiguousarray(np.stack(shown, axis=-1).astype(np.uint8))


def _palette_table(
    dataset: Any, colour: str, values: Shaped[np.ndarray, "row col"], little_endian: bool
) -> Table:
    descriptor = numbers(dataset, f"{colour}PaletteColorLookupTableDescriptor")
    plain = present(dataset, f"{colour}PaletteColorLookupTableData")
    segmented = present(dataset, f"Segmented{colour}PaletteColorLookupTableData")
    if not descriptor or (plain is None and segmented is None):
        raise ImageError(f"it is damaged: it has no {colour.lower()} palette")
    signed = values.dtype.kind == "i"
    words = _words(segmented if plain is None else plain, little_endian)
    if plain is not None:
        return _build(descriptor, words, signed)
    count, start, bits = _described(descriptor, signed)
    entries = _unfold(words, bits)
    if len(entries) < count:
        raise ImageError(
            f"it is damaged: a palette of {count} entries holds {len(entries)} of them"
        )
    return Table(entries[:count], start, bits)


def _unfold(words: Shaped[np.ndarray, " word"], bits: int) -> Shaped[np.ndarray, " entry"]:
    """Entries of a segmented palette, by PS3.3 C.7.9.2."""
    codes = (words.astype("<u2").view(np.uint8) if bits <= 8 else words).astype(np.int64).tolist()
    entries: list[int] = []
    _segments(codes, 0, None, bits, entries)
    return np.array(entries, dtype=np.uint16)


def _segments(
    codes: list[int], place: int, repeated: int | None, bits: int, entries: list[int]
) -> None:
    """Append the entries of segments from a place on: all, or those that one of them repeats."""
    size = 1 if bits <= 8 else 2
    for _ in range(len(codes) if repeated is None else repeated):
        if place + 2 >= len(codes) or len(entries) > 65536:  # a last byte may only fill up
            return
        kind, length = codes[place : place + 2]
        place += 2
        if kind == 0:
            entries += codes[place : place + length]
            place += length
        elif kind == 1 and entries:
            steps = np.linspace(entries[-1], codes[place], length + 1)[1:]
            entries += np.rint(steps).astype(int).tolist()
            place += 1
        elif kind == 2 and entries and repeated is None:
            parts = codes[place : place + 4 // size]
            offset = sum(part << (8 * size * i) for i, part in enumerate(parts))
            place += len(parts)
            _segments(codes, offset // size, length, bits, entries)
        else:
            raise ImageError("it is damaged: a segment of its palette is of no known kind")
