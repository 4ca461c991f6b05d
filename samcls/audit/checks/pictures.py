"""`unreadable`, `blank`, `tiny`, `mostly-padding` and `odd-mode`: what a picture looks like by itself."""

from collections.abc import Callable, Iterator

import numpy as np

from samcls.audit.finding import Finding
from samcls.audit.material import Material

__all__ = ["find"]

CONTRAST = 2.0  # grey levels of 255, standard deviation
SIDE = 16  # pixels
SMALL = 4  # times smaller than the median picture's shorter side
BORDER = 0.5  # share of the picture
RARE = 0.1  # share of pictures of the other mode


def find(material: Material, note: Callable[[str], None]) -> Iterator[Finding]:
    """Yield what each picture gives cause for."""
    for row, error in enumerate(material.errors):
        if error and not material.there[row]:
            yield material.finding("unreadable", [row], f"{material.ids[row]}: {error}")
    looks = material.looks
    if looks is None:
        return
    rows = np.flatnonzero(material.there & looks.there)
    typical = float(np.median(looks.sizes[rows].min(1))) if len(rows) else 0.0
    shares = looks.grey[rows].mean() if len(rows) else 0.0
    odd = None if shares in (0.0, 1.0) or RARE < shares < 1 - RARE else bool(shares < 0.5)
    if odd is None and 0 < shares < 1:
        note(f"{100 * shares:.0f} % of the pictures are grey, the others coloured")
    for row in rows.tolist():
        name = material.ids[row]
        height, width = looks.sizes[row].tolist()
        if looks.contrast[row] < CONTRAST:
            told = f"{name}: contrast {looks.contrast[row]:.1f} of 255 grey levels"
            yield material.finding("blank", [row], told, 1 - looks.contrast[row] / CONTRAST)
        elif looks.border[row] > BORDER:
            told = f"{name}: {100 * looks.border[row]:.0f} % is a flat border"
            yield material.finding("mostly-padding", [row], told, looks.border[row])
        if min(height, width) < SIDE or min(height, width) * SMALL < typical:
            told = f"{name}: {height} x {width} pixels, where the median's shorter side is {typical:.0f}"
            yield material.finding("tiny", [row], told)
        if odd is not None and looks.grey[row] == odd:
            mode, other = ("grey", "coloured") if odd else ("coloured", "grey")
            yield material.finding("odd-mode", [row], f"{name}: {mode}, where others are {other}")
