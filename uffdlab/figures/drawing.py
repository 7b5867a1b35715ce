"""Draw grids of pages with matplotlib.

One pair of axes covers the whole figure. Its coordinates are inches from the top left corner, so everything is drawn
where it was computed, and no layout engine moves it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PatchCollection, PathCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.transforms import Affine2D

from uffdlab.errors import UsageError
from uffdlab.figures.lettering import glyph, measure, wrapped, write
from uffdlab.figures.palette import ABSENT, CELL_STYLES, MIXED, CellStyle, cell_styles
from uffdlab.figures.style import DPI, FAINT, LINE, PANEL, PAPER, POINTS, RC, SMALL, TITLE
from uffdlab.observations.snapshot import Snapshot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

_MOST_CELLS = 2048  # with more pages, several share a cell
_CELLS_OF_A_MAP = 1024
_COLUMNS = ((64, 8), (256, 16), (_MOST_CELLS, 32))  # (number of cells at most, columns)

# In inches.
_MARGIN = 0.16
_GUTTER = 0.3  # minimum, for row numbers
_GAP = 0.3  # between two grids
_NAME = 2.2  # maximum, for a name above a narrow grid
_SWATCH = 0.22


class AbsentCells(PatchCollection):
    """The squares of absent pages."""


class AbsentLetters(PathCollection):
    """The letters in them."""


class _Grid(NamedTuple):
    # A snapshot as cells.

    name: str
    first: int  # page number of the first cell's first page
    per_cell: int
    columns: int
    skip: int  # empty cells at the beginning of the first row
    styles: list[CellStyle]
    which: NDArray[np.intp]  # for each cell its style
    counts: dict[str, int]  # letter → pages

    @property
    def rows(self) -> int:
        return -(-(self.skip + self.which.size) // self.columns)

    def row_number(self, row: int) -> int:
        return self.first + (row * self.columns - self.skip) * self.per_cell


def _cells(name: str, snapshot: Snapshot) -> _Grid:
    styles, which = cell_styles(snapshot.states, snapshot.known)
    counts = {style.letter: int(n) for style, n in zip(styles, np.bincount(which, minlength=len(styles)), strict=True)}
    per_cell = 1
    if len(snapshot) > _MOST_CELLS:
        while -(-len(snapshot) // per_cell) > _CELLS_OF_A_MAP:
            per_cell *= 2
        padded = np.pad(which, (0, -which.size % per_cell), mode="edge").reshape(-1, per_cell)
        mixed = padded.min(axis=1) != padded.max(axis=1)
        which = np.where(mixed, len(styles), padded[:, 0])
        styles = [*styles, MIXED]
    columns = next(columns for most, columns in _COLUMNS if which.size <= most)
    columns = min(columns, which.size)
    # Rows begin at round page numbers, but a single row at its first page.
    skip = snapshot.first // per_cell % columns if which.size > columns else 0
    return _Grid(name, snapshot.first, per_cell, columns, skip, styles, which, counts)


def draw(title: str, panels: Sequence[tuple[str, Snapshot]]) -> Figure:
    """Draw snapshots side by side, each below its name, with a legend.

    Raises
    ------
    UsageError
        A snapshot has no pages.
    """
    if not all(len(snapshot) for _, snapshot in panels):
        raise UsageError("there are no pages to draw; take a snapshot of at least one page")
    grids = [_cells(name, snapshot) for name, snapshot in panels]
    side = {8: 0.36, 16: 0.28}.get(grids[0].columns, 0.2 if grids[0].columns > 8 else 0.36)
    legend = _legend(grids)
    gutter = max(_GUTTER, *(measure(str(g.row_number(g.rows - 1)), SMALL) + 0.12 for g in grids))
    widths = [gutter + max(g.columns * side, min(measure(g.name, PANEL), _NAME) if g.name else 0) for g in grids]
    width = max(2 * _MARGIN + sum(widths) + _GAP * (len(grids) - 1), 4.6)
    inner = width - 2 * _MARGIN
    titles = wrapped(title, inner, TITLE)
    names = [
        wrapped(g.name, grid_width - gutter, PANEL) if g.name else []
        for g, grid_width in zip(grids, widths, strict=True)
    ]
    lines = _flow(legend, inner)

    top = _MARGIN + 0.22 * len(titles) + 0.06
    body = top + 0.2 * max(map(len, names)) + (0.08 if any(names) else 0) + 0.18
    bottom = body + max(g.rows for g in grids) * side + 0.16
    height = bottom + 0.3 * len(lines) + _MARGIN - 0.06

    with mpl.rc_context(RC):
        figure = Figure(figsize=(width, height), dpi=DPI, facecolor=PAPER, layout=None)
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        for number, line in enumerate(titles):
            write(axes, _MARGIN, _MARGIN + 0.22 * number + 0.11, line, TITLE, bold=True)
        left = _MARGIN
        for g, name_lines, grid_width in zip(grids, names, widths, strict=True):
            for number, line in enumerate(name_lines):
                write(axes, left + gutter, top + 0.2 * number + 0.1, line, PANEL)
            _draw_grid(axes, g, left + gutter, body, side)
            left += grid_width + _GAP
        for number, entries in enumerate(lines):
            for x, style, text in entries:
                y = bottom + 0.3 * number + 0.15
                _draw_cells(axes, style, np.array([[_MARGIN + x + _SWATCH / 2, y]]), _SWATCH)
                write(axes, _MARGIN + x + _SWATCH + 0.08, y, text, SMALL + 0.5)
    return figure


def _draw_grid(axes: Axes, g: _Grid, left: float, top: float, side: float) -> None:
    slots = np.arange(g.which.size) + g.skip
    centres = np.stack([left + (slots % g.columns + 0.5) * side, top + (slots // g.columns + 0.5) * side], axis=1)
    for index, style in enumerate(g.styles):
        chosen = centres[g.which == index]
        if len(chosen):
            _draw_cells(axes, style, chosen, side, label=f"{g.name}{style.letter}")
    every = 1 if g.columns <= 8 else 4 if g.columns <= 16 else 8
    if g.rows > 1:
        for column in range(0, g.columns, every):
            label = f"+{column * g.per_cell}"
            write(axes, left + (column + 0.5) * side, top - 0.09, label, SMALL, align="center", colour=FAINT)
    else:
        for column in range(0, g.columns, every):
            label = str(g.first + column * g.per_cell)
            write(axes, left + (column + 0.5) * side, top - 0.09, label, SMALL, align="center")
        return
    rows_every = math.ceil(0.17 / side)
    for row in range(0, g.rows, rows_every):
        label = str(g.row_number(row))
        write(axes, left - 0.07, top + (row + 0.5) * side, label, SMALL, align="right")


def _draw_cells(axes: Axes, style: CellStyle, centres: NDArray[np.float64], side: float, *, label: str = "") -> None:
    size = side * 0.92
    squares = [Rectangle((x - size / 2, y - size / 2), size, size) for x, y in centres.tolist()]
    cells, letter = (AbsentCells, AbsentLetters) if style.letter == ABSENT else (PatchCollection, PathCollection)
    layers = [cells(squares, facecolor=style.colour, edgecolor=LINE, linewidth=0.5)]
    if style.hatch:
        ink = _shade(style.colour)
        layers.append(PatchCollection(squares, facecolor="none", edgecolor=ink, linewidth=0, hatch=style.hatch))
    for layer in layers:
        axes.add_collection(layer, autolim=False)
    outline = glyph(style.letter, size * POINTS * (0.62 if len(style.letter) == 1 else 0.5))
    # On a hatch the letter has an outline in the cell's colour.
    for colour, line_width in [(style.colour, 2.2), (style.ink, 0)] if style.hatch else [(style.ink, 0)]:
        letters = letter(
            [outline],
            facecolor=colour,
            edgecolor=colour,
            linewidth=line_width,
            offsets=centres,
            offset_transform=axes.transData,
            label=label,
        )
        # Offsets are in inches, glyphs in points, so they have the same size at every resolution.
        letters.set_transform(Affine2D().scale(1 / POINTS) + axes.figure.dpi_scale_trans)
        axes.add_collection(letters, autolim=False)


def _shade(colour: str) -> str:
    # Returns a darker shade of the colour for its hatch, or a lighter one if the colour is dark.
    parts = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
    factor = 0.62 if sum(parts) > 200 else 2.0
    return "#" + "".join(f"{min(255, round(part * factor)):02X}" for part in parts)


def _legend(grids: Sequence[_Grid]) -> list[tuple[CellStyle, str]]:
    # Returns the styles that occur in the grids, with the number of pages in each grid.
    entries = []
    for style in CELL_STYLES.values():
        counts = [g.counts.get(style.letter, 0) for g in grids]
        if any(counts):
            entries.append((style, f"{style.text}: {' → '.join(f'{count:,}' for count in counts)}"))
    mixed = [int((g.which == len(g.styles) - 1).sum()) if g.styles[-1] is MIXED else 0 for g in grids]
    if any(mixed):
        entries.append((MIXED, f"{MIXED.text} in a cell of {grids[0].per_cell} pages"))
    elif grids[0].per_cell > 1:
        entries[-1] = (entries[-1][0], f"{entries[-1][1]}   (a cell is {grids[0].per_cell} pages)")
    return entries


def _flow(legend: Sequence[tuple[CellStyle, str]], width: float) -> list[list[tuple[float, CellStyle, str]]]:
    # Places the legend's entries from left to right, and starts a new line if the next one does not fit.
    lines: list[list[tuple[float, CellStyle, str]]] = [[]]
    x = 0.0
    for style, text in legend:
        needed = _SWATCH + 0.08 + measure(text, SMALL + 0.5)
        if lines[-1] and x + needed > width:
            lines.append([])
            x = 0.0
        lines[-1].append((x, style, text))
        x += needed + 0.25
    return lines
