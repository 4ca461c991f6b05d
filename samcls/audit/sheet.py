"""The contact sheet `audit.html`: every finding in a table that sorts, in one file that asks for nothing else.

Thumbnails stand in it only where they are asked for, since they are pictures of patients. Every text of the
manifest is escaped.

    html = contact_sheet(findings, material)
"""

import base64
from html import escape

import numpy as np

from samcls.audit.finding import CODES, Finding, Findings
from samcls.audit.material import Material
from samcls.data.images import png_bytes

__all__ = ["contact_sheet"]

SIDE = 128  # pixels, of a thumbnail's longer side
SHOWN = 4  # thumbnails of one finding
MOST = 2000  # findings with thumbnails: some 30 MB

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: #1b1f24;
  background: #fff; }
h1 { font-size: 1.4rem; } table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .4rem .6rem; border-bottom: 1px solid #d7dce1; }
th button { all: unset; cursor: pointer; font-weight: 600; } th button:focus-visible { outline: 2px solid #0b62c4; }
th[aria-sort=ascending] button::after { content: " \\25B2"; } th[aria-sort=descending] button::after { content: " \\25BC"; }
td.pictures { white-space: nowrap; } img { max-width: 128px; max-height: 128px; margin-right: 4px; image-rendering: auto; }
.across { color: #9b1c1c; font-weight: 600; } .code { font-family: ui-monospace, monospace; }
label { margin-right: 1rem; } .advice { color: #57606a; }
@media (prefers-color-scheme: dark) { body { background: #0f1419; color: #dde3ea; } th, td { border-color: #30363d; }
  .across { color: #ff8f8f; } .advice { color: #9aa4af; } }
"""
SCRIPT = """
const body = document.querySelector("tbody");
for (const button of document.querySelectorAll("th button")) button.addEventListener("click", () => {
  const head = button.parentElement, place = [...head.parentElement.children].indexOf(head);
  const up = head.getAttribute("aria-sort") !== "ascending";
  for (const one of head.parentElement.children) one.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const key = row => row.children[place].dataset.key ?? row.children[place].textContent;
  const rows = [...body.rows].sort((a, b) => {
    const x = key(a), y = key(b), order = x !== "" && y !== "" && !isNaN(x) && !isNaN(y) ? x - y : x.localeCompare(y);
    return up ? order : -order;
  });
  body.append(...rows);
});
for (const box of document.querySelectorAll("input")) box.addEventListener("change", () => {
  const shown = new Set([...document.querySelectorAll("input:checked")].map(one => one.value));
  for (const row of body.rows) row.hidden = !shown.has(row.dataset.code);
});
"""


def contact_sheet(found: Findings, material: Material | None = None) -> str:
    """Return the page.

    Args:
        found: What to show.
        material: Where the pictures are; None shows none.
    """
    pictures = {} if material is None else {name: row for row, name in enumerate(material.ids)}
    boxes = "".join(
        f'<label><input type="checkbox" value="{code}" checked> <span class="code">{code}</span> {number}</label>'
        for code, number in found.counts.items()
    )
    head = ["code", "similarity", "splits", "images", "found"]
    if material is not None:
        head.insert(0, "pictures")
    titles = "".join(f'<th scope="col"><button>{name}</button></th>' for name in head)
    rows = "".join(
        _row(one, material if place < MOST else None, pictures, shown=material is not None)
        for place, one in enumerate(found)
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in found.notes)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Audit of {escape(found.source)}</title><style>{STYLE}</style></head><body>"
        f"<h1>Audit of {escape(found.source)}</h1><p>{escape(found.sentence())}</p><p>{boxes}</p>"
        f"<table><thead><tr>{titles}</tr></thead><tbody>{rows}</tbody></table><h2>Notes</h2><ul>{notes}</ul>"
        f"<script>{SCRIPT}</script></body></html>\n"
    )


def _row(one: Finding, material: Material | None, pictures: dict[str, int], *, shown: bool) -> str:
    cells = []
    if shown:
        images = (
            ""
            if material is None
            else "".join(_picture(material, pictures[n]) for n in one.ids[:SHOWN])
        )
        cells.append(f'<td class="pictures" data-key="{len(one.ids)}">{images}</td>')
    similarity = "" if one.similarity is None else f"{one.similarity:.3f}"
    splits = " | ".join(one.splits)
    mark = ' class="across"' if one.across else ""
    named = "<br>".join(
        escape(name) + (f" <span class=advice>{escape(label)}</span>" if label else "")
        for name, label in zip(one.ids, one.labels, strict=True)
    )
    cells += [
        f'<td class="code">{one.code}</td>',
        f'<td data-key="{similarity}">{similarity}</td>',
        f"<td{mark}>{escape(splits)}</td>",
        f"<td>{named}</td>",
        f'<td>{escape(one.sentence)}<div class="advice">{escape(CODES[one.code].advice)}</div></td>',
    ]
    return f'<tr data-code="{one.code}">{"".join(cells)}</tr>'


def _picture(material: Material, row: int) -> str:
    """Return a thumbnail inside the page; nothing where the picture cannot be read."""
    if material.read is None or not material.there[row]:
        return ""
    image = material.read(row)
    step = max(1, -(-max(image.shape[:2]) // SIDE))
    # Means of whole blocks: enough for a thumbnail, and no second way to resize.
    height, width = (max(1, side // step) for side in image.shape[:2])
    part = image[: height * step, : width * step][: height * step]
    if part.shape[0] >= step and part.shape[1] >= step:
        part = part.reshape(height, step, width, step, 3).mean((1, 3)).astype(np.uint8)
    text = base64.b64encode(png_bytes(part)).decode()
    return f'<img alt="{escape(material.ids[row])}" src="data:image/png;base64,{text}">'
