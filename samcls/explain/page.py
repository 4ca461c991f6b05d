"""What was explained as text, and as one page to look at that asks for nothing else.

The page holds pictures of patients wherever there are pictures. Every text of a manifest is escaped.
"""

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from samcls.data.images import data_uri
from samcls.explain.overlay import coloured, fitted
from samcls.explain.scores import Score
from samcls.learn.runs.text import aligned, printable

if TYPE_CHECKING:
    from samcls.explain.explained import Explained

__all__ = ["explain_page", "explain_text", "verdicts"]

SIDE, SMALL, NEAR = 320, 150, 96  # pixels of pictures in the page
QUALITY = 88
HEAD = ("score", "images", "better", "map", "mean", "95 % interval", "evidence minus it")

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #1b1f24;
  background: #fff; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.05rem; margin: 0 0 .4rem; overflow-wrap: anywhere; }
article { border-top: 1px solid #d7dce1; padding: 1rem 0; } img { max-width: 100%; display: block; }
.maps { display: flex; flex-wrap: wrap; gap: .8rem; align-items: flex-end; } figure { margin: 0; max-width: 100%; }
figcaption { font-size: .82rem; color: #57606a; overflow-wrap: anywhere; } .near figure { width: 96px; }
table { border-collapse: collapse; margin: .6rem 0; } th, td { text-align: left; padding: .25rem .7rem .25rem 0;
  border-bottom: 1px solid #d7dce1; } td.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; } .scale { display: flex; gap: .6rem; align-items: center; flex-wrap: wrap; }
.scale img { height: 18px; width: 240px; image-rendering: pixelated; border: 1px solid #57606a; }
.wrong { color: #9b1c1c; font-weight: 600; }
@media (prefers-color-scheme: dark) { body { background: #0f1419; color: #dde3ea; } article, th, td { border-color: #30363d; }
  figcaption { color: #9aa4af; } .wrong { color: #ff8f8f; } }
@media print { article { break-inside: avoid; } }
"""


def verdicts(scores: Mapping[str, Score]) -> list[str]:
    """Return a sentence for each score that evidence does not win against a control."""
    found = []
    for name, score in scores.items():
        lost = {k: gap for k, gap in score.gaps.items() if not score.beats(k)}
        if lost:
            told = ", ".join(
                f"{control} ({gap:+.3f}, {low:+.3f} to {high:+.3f})"
                for control, (gap, low, high) in lost.items()
            )
            found.append(
                f"{name}: evidence is not better, by more than noise, than the maps {told}; {score.better} is better"
            )
    return found


def explain_text(found: "Explained") -> str:
    """Return the page of text that `samcls explain` prints."""
    lines = [found.sentence]
    lines += _score_lines(found.scores)
    for level, one in found.locality.items():
        lines.append(
            f"locality of {level}: {100 * one['inside']:.0f} % of the change falls into the blanked window, which is "
            f"{100 * one['area']:.1f} % of the picture"
        )
    lines += verdicts(found.scores)
    lines += [f"note: {note}" for note in found.notes]
    return "".join(f"{printable(line)}\n" for line in lines)


def _score_lines(scores: Mapping[str, Score]) -> list[str]:
    return ["", *aligned([list(HEAD), *_rows(scores)]), ""] if scores else []


def _rows(scores: Mapping[str, Score]) -> list[list[str]]:
    """Return a row for each map of each score, by the columns of `HEAD`."""
    rows = []
    for name, score in scores.items():
        for place, (kind, value) in enumerate(score.values.items()):
            low, high = score.intervals[kind]
            gap = score.gaps.get(kind)
            told = "" if gap is None else f"{gap[0]:+.3f} ({gap[1]:+.3f} to {gap[2]:+.3f})"
            first = [name, str(score.images), score.better] if place == 0 else [""] * 3
            rows.append([*first, kind, f"{value:.3f}", f"{low:.3f} to {high:.3f}", told])
    return rows


def explain_page(found: "Explained") -> str:
    """Return the page."""
    images = "".join(_image(found, number) for number in found.shown)
    notes = "".join(f"<li>{escape(note)}</li>" for note in (*verdicts(found.scores), *found.notes))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(found.title)}</title><style>{STYLE}</style></head><body>"
        f"<h1>{escape(found.title)}</h1><p>{escape(found.sentence)}</p>{_scale(found)}"
        f"{_table(found.scores)}{_locality(found)}<ul>{notes}</ul>{images}</body></html>\n"
    )


def _scale(found: "Explained") -> str:
    ramp = np.linspace(-found.scale, found.scale, 61)[None]
    strip = coloured(ramp, found.scale, np.full((1, 61, 3), 160.0))
    low, middle, high = found.ends
    return (
        f'<p class="scale"><span>{escape(low)}</span>{_img(strip.repeat(6, 0), "colour scale")}<span>{escape(high)}'
        f"</span></p><p>{escape(middle)}</p>"
    )


def _table(scores: Mapping[str, Score]) -> str:
    if not scores:
        return ""
    head = "".join(f'<th scope="col">{name}</th>' for name in HEAD)
    rows = "".join(
        f"<tr>{''.join(_cell(text, number=place == 1 or place > 3) for place, text in enumerate(row))}</tr>"
        for row in _rows(scores)
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _cell(text: str, *, number: bool) -> str:
    mark = ' class="n"' if number else ""
    return f"<td{mark}>{escape(text)}</td>"


def _locality(found: "Explained") -> str:
    if not found.locality:
        return ""
    rows = "".join(
        f'<tr><td>{escape(level)}</td><td class="n">{100 * one["inside"]:.0f} %</td>'
        f'<td class="n">{100 * one["area"]:.1f} %</td></tr>'
        for level, one in found.locality.items()
    )
    return (
        "<p>Locality: one window of the picture is blanked and encoded again. The nearer the share of the change that "
        "falls into it is to 100 %, the further a map of that level may be believed.</p>"
        '<div class="scroll"><table><thead><tr><th scope="col">level</th><th scope="col">change inside</th>'
        f'<th scope="col">share of the picture</th></tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _image(found: "Explained", number: int) -> str:
    name = found.evidence.ids[number]
    picture = found.pictures.get(number)
    parts = []
    if picture is not None:
        small = fitted(picture, SIDE)
        parts.append(_figure(small, "picture"))
        parts.append(_figure(found.drawn(number, small), "all levels"))
        tiny = fitted(picture, SMALL)
        parts += [
            _figure(found.drawn(number, tiny, level), text)
            for level, text in found.captions(number).items()
        ]
    else:
        values = found.grid[number]
        parts.append(
            _figure(
                coloured(values, found.scale, np.full((*values.shape, 3), 160.0))
                .repeat(8, 0)
                .repeat(8, 1),
                "all levels, without the picture",
            )
        )
    near = ""
    if found.neighbours is not None:
        figures = [
            f"<figure>{_near(found, one)}<figcaption><bdi>{escape(one)}</bdi><br>{escape(label)}<br>distance {far:.1f}</figcaption></figure>"
            for one, label, far in zip(
                found.neighbours.ids[number],
                found.neighbours.labels[number],
                found.neighbours.distances[number],
                strict=True,
            )
        ]
        near = f'<p>Nearest training images, by features:</p><div class="maps near">{"".join(figures)}</div>'
    mark = ' class="wrong"' if found.wrong(number) else ""
    return (
        f"<article><h2><bdi>{escape(name)}</bdi></h2><p{mark}>{escape(found.said(number))}</p>"
        f'<div class="maps">{"".join(parts)}</div>{near}</article>'
    )


def _near(found: "Explained", name: str) -> str:
    picture = found.near_picture(name)
    return "" if picture is None else _img(fitted(picture, NEAR), name)


def _figure(picture: np.ndarray, caption: str) -> str:
    return f"<figure>{_img(picture, caption)}<figcaption>{escape(caption)}</figcaption></figure>"


def _img(picture: np.ndarray, alt: str) -> str:
    return f'<img alt="{escape(alt)}" src="{data_uri(picture, QUALITY)}">'
