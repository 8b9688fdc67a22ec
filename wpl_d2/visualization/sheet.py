"""Rows of pictures on one sheet, below a heading and titles and above a legend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from .draw import Color, font, heatmap, to_image

GAP = 10
_PAPER, _INK, _FRAME = (250, 250, 250), (30, 30, 30), (190, 190, 190)
_LINE = 26  # height of a line of text with its margin
_TITLE, _TEXT = 16, 14

Row = dict[str, Image.Image]
"""Column title to picture."""


def compose(
    rows: Sequence[Row], legend: Mapping[str, Color], heading: str, note: str = "", weights: bool = False
) -> Image.Image:
    """Put rows of pictures below a heading and their titles, and above a legend of the classes' colors.

    Args:
        rows: all with the same titles.
        legend: (r, g, b) by class name.
        heading: what is shown.
        note: a line below the legend.
        weights: whether to add the color scale of weights.
    """
    lefts = np.cumsum([GAP, *(_column_width(title, rows) + GAP for title in rows[0])]).tolist()
    width = max(lefts[-1], *(_text_width(text) + 2 * GAP for text in (heading, note)))
    tops = np.cumsum([2 * _LINE, *(max(cell.height for cell in row.values()) + GAP for row in rows)]).tolist()
    entries = _legend_places(legend, width)
    bottom = tops[-1] + (entries[-1][1] + _LINE if entries else 0)
    canvas = Image.new("RGB", (width, bottom + _LINE * (bool(note) + weights) + GAP), _PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.text((GAP, 5), heading, fill=_INK, font=font(_TITLE))
    for x, title in zip(lefts, rows[0], strict=False):
        draw.text((x, _LINE + 5), title, fill=_INK, font=font(_TITLE))
        for top, row in zip(tops, rows, strict=False):
            picture = row[title]
            draw.rectangle((x - 1, top - 1, x + picture.width, top + picture.height), outline=_FRAME)
            canvas.paste(picture, (x, top))
    for (x, y), (name, color) in zip(entries, legend.items(), strict=True):
        draw.rectangle((x, tops[-1] + y + 4, x + 16, tops[-1] + y + 20), fill=tuple(color), outline=_INK)
        draw.text((x + 22, tops[-1] + y + 4), name, fill=_INK, font=font(_TEXT))
    if note:
        draw.text((GAP, bottom + 4), note, fill=_INK, font=font(_TEXT))
    if weights:
        _draw_scale(canvas, bottom + _LINE * bool(note) + 4)
    return canvas


def _text_width(text: str, size: int = _TITLE) -> int:
    return int(font(size).getlength(text)) + 1


def _column_width(title: str, rows: Sequence[Row]) -> int:
    return max(_text_width(title), *(row[title].width for row in rows))


def _legend_places(legend: Mapping[str, Color], width: int) -> list[tuple[int, int]]:
    """The corner of each class's swatch, relative to the legend's, in lines of at most `width` pixels."""
    places, x, y = [], GAP, 0
    for name in legend:
        needed = 22 + _text_width(name, _TEXT) + 2 * GAP
        if x > GAP and x + needed > width:
            x, y = GAP, y + _LINE
        places.append((x, y))
        x += needed
    return places


def _draw_scale(canvas: Image.Image, top: int) -> None:
    """Draw the color scale of weights."""
    draw = ImageDraw.Draw(canvas)
    ramp = to_image(heatmap(np.tile(np.linspace(0, 1, 160), (16, 1))))
    start = "weight: none"
    x = GAP + _text_width(start, _TEXT) + 8
    draw.text((GAP, top), start, fill=_INK, font=font(_TEXT))
    canvas.paste(ramp, (x, top + 1))
    draw.text((x + ramp.width + 8, top), "full", fill=_INK, font=font(_TEXT))
