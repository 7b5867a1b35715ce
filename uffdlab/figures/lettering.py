"""Text in figures: its size, line breaks, and characters that the font lacks."""

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
_LONGEST_TITLE = 400  # characters


@functools.cache
def _font(*, bold: bool = False) -> FontProperties:
    return FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal")


@functools.cache
def _drawable() -> frozenset[int]:
    return frozenset(get_font(findfont(_font())).get_charmap())


def _plain(text: str) -> str:
    # For a character that the bundled font lacks, matplotlib would warn and draw an empty box.
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
    """Write one line of text at `x` and `y`, in inches. It is vertically centred on `y`. `size` is in points."""
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
    """Return the width of a line in inches. `size` is in points."""
    path = TextPath((0, 0), _plain(text).replace("$", "S"), size=size, prop=_font(bold=bold))
    return float(path.get_extents().width) / POINTS


@functools.lru_cache(maxsize=256)
def glyph(letter: str, size: float) -> Path:
    """Return the outline of a letter in points. Its origin is the middle of a capital letter."""
    path = TextPath((0, 0), letter, size=size, prop=_font(bold=True))
    box = path.get_extents()
    # With this origin, dots and question marks have the right height. Here y points up.
    middle = size * 0.36 if letter != "·" else (box.y0 + box.y1) / 2
    shift = Affine2D().translate(-(box.x0 + box.x1) / 2, -middle)
    return shift.transform_path(path)


def wrapped(text: str, width: float, size: float) -> list[str]:
    """Break text into lines of at most `width` inches. A word is broken only if it is longer than a line."""
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
