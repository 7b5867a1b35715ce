"""Letters in figures: what they measure, where lines break, characters that the font has not."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.path import Path
from matplotlib.text import TextPath
from matplotlib.transforms import Affine2D

from uffdlab.figures.style import INK, POINTS, TITLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_LINES = 4  # of a title
_LONGEST_TITLE = 400


@functools.cache
def _font(*, bold: bool = False) -> FontProperties:
    return FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal")


@functools.cache
def _drawable() -> frozenset[int]:
    return frozenset(get_font(findfont(_font())).get_charmap())


def _plain(text: str) -> str:
    # A character that the bundled font has no picture of would draw a warning and an empty box.
    return "".join(char if ord(char) in _drawable() and char.isprintable() else "□" for char in text)


def write(
    axes: Axes,
    x: float,
    y: float,
    text: str,
    size: float,
    *,
    align: str = "left",
    colour: str = INK,
    bold: bool = False,
) -> None:
    """Write one line at `x` and `y`, in inches; it is centred on `y`."""
    axes.text(
        x,
        y,
        _plain(text),
        fontproperties=_font(bold=bold),
        size=size,
        color=colour,
        ha=align,
        va="center",
        parse_math=False,
    )


@functools.lru_cache(maxsize=512)
def measure(text: str, size: float, *, bold: bool = False) -> float:
    """Give the width of a line in inches; `size` is in points."""
    path = TextPath((0, 0), _plain(text).replace("$", "S"), size=size, prop=_font(bold=bold))
    return float(path.get_extents().width) / POINTS


@functools.lru_cache(maxsize=256)
def glyph(letter: str, size: float) -> Path:
    """Give the outline of a letter, in points, around the middle of a capital."""
    path = TextPath((0, 0), letter, size=size, prop=_font(bold=True))
    box = path.get_extents()
    # Around the middle of a capital, so that dots and question marks sit on one line; y points up here.
    middle = size * 0.36 if letter != "·" else (box.y0 + box.y1) / 2
    shift = Affine2D().translate(-(box.x0 + box.x1) / 2, -middle)
    return shift.transform_path(path)


def wrapped(text: str, width: float, size: float) -> list[str]:
    """Break text into lines of at most `width` inches; words are broken only where one alone does not fit."""
    bold = size == TITLE
    lines: list[str] = []
    line = ""
    for word in text[:_LONGEST_TITLE].split():
        longer = f"{line} {word}".strip()
        if measure(longer, size, bold=bold) <= width:
            line = longer
            continue
        if line:
            lines.append(line)
        line = word
        while (needed := measure(line, size, bold=bold)) > width:
            cut = max(1, int(len(line) * width / needed) - 1)
            lines.append(line[:cut])
            line = line[cut:]
    lines.append(line)
    return lines if len(lines) <= _MOST_LINES else [*lines[: _MOST_LINES - 1], lines[_MOST_LINES - 1][:-1] + "…"]
