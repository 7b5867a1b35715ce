"""Figures of page states: for paper, and for readers without a live kernel.

A page is a cell with a letter, a colour and a hatch (:mod:`uffdlab.palette`); no state is told by colour alone, and
every picture carries a text made from the same data.  The same data give the same bytes.
"""

from __future__ import annotations

import base64
import functools
import html
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PatchCollection, PathCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import Rectangle
from matplotlib.path import Path as MplPath
from matplotlib.text import TextPath
from matplotlib.transforms import Affine2D

from uffdlab import pte
from uffdlab.errors import UsageError
from uffdlab.palette import LOOKS, MIXED, Look, looks_of
from uffdlab.pte import State
from uffdlab.snapshot import Difference, Snapshot, html_table

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

__all__ = ["Comparison", "Picture", "Table", "compare", "entry", "entry_table", "grid", "side_by_side"]

_MOST_CELLS = 2048  # more pages than this share cells
_CELLS_OF_A_MAP = 1024
_COLUMNS = ((64, 8), (256, 16), (_MOST_CELLS, 32))  # up to so many cells: columns
_SPOKEN_GROUPS = 12
_TABLE_ROWS = 16
_MOST_LINES = 4  # of a title
_LONGEST_TITLE = 400

_PAPER, _INK, _FAINT, _LINE = "#FFFFFF", "#1A1A1A", "#595959", "#7A7A7A"
_DPI = 100  # of the layout; pictures are written at twice that
_POINTS = 72.0
_RC: Any = {
    "hatch.linewidth": 0.7,
    "svg.hashsalt": "uffdlab",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
    "savefig.bbox": None,
}
_SUFFIXES = (".png", ".svg", ".pdf")

# Sizes in inches and points.
_MARGIN = 0.16
_GUTTER = 0.3  # row numbers, at least
_GAP = 0.3  # between two grids
_NAME = 2.2  # for a name above a narrow grid, at most
_SWATCH = 0.22
_TITLE, _PANEL, _SMALL = 12.0, 10.5, 8.5


class Picture:
    """A figure with a text that says the same.

    Attributes
    ----------
    figure : matplotlib.figure.Figure
    alt : str
        What the picture shows, in words, made from the data.
    """

    def __init__(self, figure: Figure, alt: str) -> None:
        self.figure = figure
        self.alt = alt

    def png(self) -> bytes:
        """Give the picture as PNG with two pixels to a CSS pixel."""
        return self._written("png")

    def svg(self) -> str:
        """Give the picture as SVG."""
        return self._written("svg").decode()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the picture to `path`, as its suffix says: .png, .svg or .pdf."""
        path = Path(path)
        if path.suffix.lower() not in _SUFFIXES:
            raise UsageError(f"a picture is written as {', '.join(_SUFFIXES)}, not {path.suffix or 'without a suffix'}")
        path.write_bytes(self._written(path.suffix.lower()[1:]))
        return path

    def _written(self, form: str) -> bytes:
        # No dates, no versions: the same data give the same bytes.
        metadata: dict[str, dict[str, str | None]] = {
            "png": {"Software": None, "Description": self.alt},
            "svg": {"Date": None, "Creator": None, "Description": self.alt},
            "pdf": {"CreationDate": None, "Producer": None, "Creator": None, "Subject": self.alt},
        }
        out = io.BytesIO()
        with mpl.rc_context(_RC):
            self.figure.savefig(
                out,
                format=form,
                dpi=2 * _DPI,
                facecolor=_PAPER,
                edgecolor="none",
                bbox_inches=None,
                metadata=metadata[form],
            )
        return out.getvalue()

    def _repr_html_(self) -> str:
        return self._img(self.png())

    def _img(self, png: bytes) -> str:
        width = round(self.figure.get_figwidth() * _DPI)
        data = base64.b64encode(png).decode()
        return (
            f'<img alt="{html.escape(self.alt)}" width="{width}" style="max-width:100%;height:auto" '
            f'src="data:image/png;base64,{data}"/>'
        )

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
        # text/html has the alt text; image/png is what a notebook that is not trusted may show.
        png = self.png()
        data = {"text/plain": str(self), "text/html": self._page(png), "image/png": base64.b64encode(png).decode()}
        return data, {"image/png": {"width": round(self.figure.get_figwidth() * _DPI), "alt": self.alt}}

    def _page(self, png: bytes) -> str:
        return self._img(png)

    def __str__(self) -> str:
        return self.alt


class Comparison(Picture):
    """Two snapshots side by side, and what changed.

    Attributes
    ----------
    difference : Difference
        ``after - before``.
    """

    def __init__(self, figure: Figure, alt: str, difference: Difference) -> None:
        super().__init__(figure, alt)
        self.difference = difference

    def _repr_html_(self) -> str:
        return self._page(self.png())

    def _page(self, png: bytes) -> str:
        lines = "".join(f"<li>{html.escape(line)}</li>" for line in str(self.difference).splitlines())
        return f"{self._img(png)}<ul>{lines}</ul>"

    def __str__(self) -> str:
        return str(self.difference)


def grid(snapshot: Snapshot, *, title: str | None = None) -> Picture:
    """Draw a snapshot as a grid of pages.

    Parameters
    ----------
    snapshot : Snapshot
        Up to 2,048 pages have a cell each; of more, several share a cell.
    title : str, optional
        Names the region, the kernel and the witness if not given.

    Raises
    ------
    UsageError
        If the snapshot has no pages.
    """
    title = title or f"{_what(snapshot)}{_where(snapshot)}"
    return Picture(_draw(title, [("", snapshot)]), f"{title}: {_spoken(snapshot)}.")


def compare(before: Snapshot, after: Snapshot, *, title: str | None = None) -> Comparison:
    """Draw two snapshots of the same pages side by side.

    Parameters
    ----------
    before, after : Snapshot
    title : str, optional
        Names the region, the kernel and the witness if not given.

    Raises
    ------
    UsageError
        If they are not of the same pages, or of none.
    """
    difference = after - before
    alike = _where(before) == _where(after)
    title = title or _what(before) + (_where(before) if alike else "")
    names = (
        ["before", "after"]
        if alike
        else [f"before,{_where(before).removeprefix(',')}", f"after,{_where(after).removeprefix(',')}"]
    )
    panels = list(zip(names, (before, after), strict=True))
    alt = f"{title}. " + " ".join(f"{name.capitalize()}: {_spoken(snapshot)}." for name, snapshot in panels)
    return Comparison(_draw(title, panels), alt, difference)


def side_by_side(snapshots: Mapping[str, Snapshot], *, title: str | None = None) -> Picture:
    """Draw the same pages on several kernels next to each other.

    Parameters
    ----------
    snapshots : mapping of str to Snapshot
        By the name that stands above each.
    title : str, optional
        Names the first one's region if not given.

    Raises
    ------
    UsageError
        If there are none, or one of them has no pages.
    """
    if not snapshots:
        raise UsageError("there is nothing to draw; give at least one snapshot, as {name: snapshot}")
    title = title or _what(next(iter(snapshots.values())))
    alt = f"{title}. " + " ".join(f"{name}: {_spoken(snapshot)}." for name, snapshot in snapshots.items())
    return Picture(_draw(title, list(snapshots.items())), alt)


def _what(snapshot: Snapshot) -> str:
    pages = "1 page" if len(snapshot) == 1 else f"{len(snapshot):,} pages"
    return f"{snapshot.region}: {pages} of {_size(snapshot.page_size)}"


def _where(snapshot: Snapshot) -> str:
    kernel = f" on {snapshot.kernel}" if snapshot.kernel else ""
    return f"{kernel}, seen by {snapshot.witness}"


def _size(size: int) -> str:
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB")):
        if size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size >> 10} KiB"


def _spoken(snapshot: Snapshot) -> str:
    groups = snapshot.groups(pte.MAPPING)
    said = [f"{str(group).replace('?', ' unknown')}" for group in groups[:_SPOKEN_GROUPS]]
    if len(groups) > len(said):
        said.append(f"and {len(groups) - len(said)} more groups")
        looks, which = looks_of(snapshot.states, snapshot.known)
        counts = np.bincount(which, minlength=len(looks)).tolist()
        said.append("in all " + ", ".join(f"{count} {look.words}" for look, count in zip(looks, counts, strict=True)))
    return "; ".join(said)


# --- drawing
#
# One pair of axes covers the whole figure, with inches from the top left as its coordinates; so what is measured is
# what is drawn, and nothing is moved by a layout engine.


class _Grid(NamedTuple):
    """A snapshot as cells."""

    name: str
    first: int  # page number of the first cell's first page
    per_cell: int
    columns: int
    skip: int  # empty cells at the beginning of the first row
    looks: list[Look]
    which: NDArray[np.intp]  # for each cell its look
    counts: dict[str, int]  # letter → pages

    @property
    def rows(self) -> int:
        return -(-(self.skip + self.which.size) // self.columns)

    def row_number(self, row: int) -> int:
        return self.first + (row * self.columns - self.skip) * self.per_cell


def _cells(name: str, snapshot: Snapshot) -> _Grid:
    looks, which = looks_of(snapshot.states, snapshot.known)
    counts = {look.letter: int(n) for look, n in zip(looks, np.bincount(which, minlength=len(looks)), strict=True)}
    per_cell = 1
    if len(snapshot) > _MOST_CELLS:
        while -(-len(snapshot) // per_cell) > _CELLS_OF_A_MAP:
            per_cell *= 2
        padded = np.pad(which, (0, -which.size % per_cell), mode="edge").reshape(-1, per_cell)
        mixed = padded.min(axis=1) != padded.max(axis=1)
        which = np.where(mixed, len(looks), padded[:, 0])
        looks = [*looks, MIXED]
    columns = next(columns for most, columns in _COLUMNS if which.size <= most)
    columns = min(columns, which.size)
    # Rows begin at round page numbers, but a single row at its first page.
    skip = snapshot.first // per_cell % columns if which.size > columns else 0
    return _Grid(name, snapshot.first, per_cell, columns, skip, looks, which, counts)


def _draw(title: str, panels: Sequence[tuple[str, Snapshot]]) -> Figure:
    if not all(len(snapshot) for _, snapshot in panels):
        raise UsageError("there are no pages to draw; take a snapshot of at least one page")
    grids = [_cells(name, snapshot) for name, snapshot in panels]
    side = {8: 0.36, 16: 0.28}.get(grids[0].columns, 0.2 if grids[0].columns > 8 else 0.36)
    legend = _legend(grids)
    gutter = max(_GUTTER, *(_measure(str(g.row_number(g.rows - 1)), _SMALL) + 0.12 for g in grids))
    widths = [gutter + max(g.columns * side, min(_measure(g.name, _PANEL), _NAME) if g.name else 0) for g in grids]
    width = max(2 * _MARGIN + sum(widths) + _GAP * (len(grids) - 1), 4.6)
    inner = width - 2 * _MARGIN
    titles = _wrapped(title, inner, _TITLE)
    names = [
        _wrapped(g.name, grid_width - gutter, _PANEL) if g.name else []
        for g, grid_width in zip(grids, widths, strict=True)
    ]
    lines = _flow(legend, inner)

    top = _MARGIN + 0.22 * len(titles) + 0.06
    body = top + 0.2 * max(map(len, names)) + (0.08 if any(names) else 0) + 0.18
    bottom = body + max(g.rows for g in grids) * side + 0.16
    height = bottom + 0.3 * len(lines) + _MARGIN - 0.06

    with mpl.rc_context(_RC):
        figure = Figure(figsize=(width, height), dpi=_DPI, facecolor=_PAPER, layout=None)
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        for number, line in enumerate(titles):
            _write(axes, _MARGIN, _MARGIN + 0.22 * number + 0.11, line, _TITLE, bold=True)
        left = _MARGIN
        for g, name_lines, grid_width in zip(grids, names, widths, strict=True):
            for number, line in enumerate(name_lines):
                _write(axes, left + gutter, top + 0.2 * number + 0.1, line, _PANEL)
            _draw_grid(axes, g, left + gutter, body, side)
            left += grid_width + _GAP
        for number, entries in enumerate(lines):
            for x, look, words in entries:
                y = bottom + 0.3 * number + 0.15
                _draw_cells(axes, look, np.array([[_MARGIN + x + _SWATCH / 2, y]]), _SWATCH)
                _write(axes, _MARGIN + x + _SWATCH + 0.08, y, words, _SMALL + 0.5)
    return figure


def _draw_grid(axes: Axes, g: _Grid, left: float, top: float, side: float) -> None:
    slots = np.arange(g.which.size) + g.skip
    centres = np.stack([left + (slots % g.columns + 0.5) * side, top + (slots // g.columns + 0.5) * side], axis=1)
    for index, look in enumerate(g.looks):
        chosen = centres[g.which == index]
        if len(chosen):
            _draw_cells(axes, look, chosen, side, label=f"{g.name}{look.letter}")
    every = 1 if g.columns <= 8 else 4 if g.columns <= 16 else 8
    if g.rows > 1:
        for column in range(0, g.columns, every):
            label = f"+{column * g.per_cell}"
            _write(axes, left + (column + 0.5) * side, top - 0.09, label, _SMALL, align="center", colour=_FAINT)
    else:
        for column in range(0, g.columns, every):
            label = str(g.first + column * g.per_cell)
            _write(axes, left + (column + 0.5) * side, top - 0.09, label, _SMALL, align="center")
        return
    rows_every = math.ceil(0.17 / side)
    for row in range(0, g.rows, rows_every):
        label = str(g.row_number(row))
        _write(axes, left - 0.07, top + (row + 0.5) * side, label, _SMALL, align="right")


def _draw_cells(axes: Axes, look: Look, centres: NDArray[np.float64], side: float, *, label: str = "") -> None:
    size = side * 0.92
    squares = [Rectangle((x - size / 2, y - size / 2), size, size) for x, y in centres.tolist()]
    layers = [PatchCollection(squares, facecolor=look.colour, edgecolor=_LINE, linewidth=0.5)]
    if look.hatch:
        ink = _shade(look.colour)
        layers.append(PatchCollection(squares, facecolor="none", edgecolor=ink, linewidth=0, hatch=look.hatch))
    for layer in layers:
        axes.add_collection(layer, autolim=False)
    glyph = _glyph(look.letter, size * _POINTS * (0.62 if len(look.letter) == 1 else 0.5))
    # Over a hatch the letter has a rim of the cell's colour.
    for colour, rim in [(look.colour, 2.2), (look.ink, 0)] if look.hatch else [(look.ink, 0)]:
        letters = PathCollection(
            [glyph],
            facecolor=colour,
            edgecolor=colour,
            linewidth=rim,
            offsets=centres,
            offset_transform=axes.transData,
            label=label,
        )
        # Offsets in inches, glyphs in points that look the same at every resolution.
        letters.set_transform(Affine2D().scale(1 / _POINTS) + axes.figure.dpi_scale_trans)
        axes.add_collection(letters, autolim=False)


def _shade(colour: str) -> str:
    # The same colour, darker (lighter if it is dark), for its hatch.
    parts = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
    factor = 0.62 if sum(parts) > 200 else 2.0
    return "#" + "".join(f"{min(255, round(part * factor)):02X}" for part in parts)


def _legend(grids: Sequence[_Grid]) -> list[tuple[Look, str]]:
    # What occurs in any of the grids, with the number of pages in each.
    entries = []
    for look in LOOKS.values():
        counts = [g.counts.get(look.letter, 0) for g in grids]
        if any(counts):
            entries.append((look, f"{look.words}: {' → '.join(f'{count:,}' for count in counts)}"))
    mixed = [int((g.which == len(g.looks) - 1).sum()) if g.looks[-1] is MIXED else 0 for g in grids]
    if any(mixed):
        entries.append((MIXED, f"{MIXED.words} in a cell of {grids[0].per_cell} pages"))
    elif grids[0].per_cell > 1:
        entries[-1] = (entries[-1][0], f"{entries[-1][1]}   (a cell is {grids[0].per_cell} pages)")
    return entries


def _flow(legend: Sequence[tuple[Look, str]], width: float) -> list[list[tuple[float, Look, str]]]:
    # Legend entries from left to right, a new line where the next does not fit.
    lines: list[list[tuple[float, Look, str]]] = [[]]
    x = 0.0
    for look, words in legend:
        needed = _SWATCH + 0.08 + _measure(words, _SMALL + 0.5)
        if lines[-1] and x + needed > width:
            lines.append([])
            x = 0.0
        lines[-1].append((x, look, words))
        x += needed + 0.25
    return lines


# --- text


@functools.cache
def _font(*, bold: bool = False) -> FontProperties:
    return FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal")


@functools.cache
def _drawable() -> frozenset[int]:
    return frozenset(get_font(findfont(_font())).get_charmap())


def _plain(text: str) -> str:
    # A character that the bundled font has no picture of would draw a warning and an empty box.
    return "".join(char if ord(char) in _drawable() and char.isprintable() else "□" for char in text)


def _write(
    axes: Axes,
    x: float,
    y: float,
    text: str,
    size: float,
    *,
    align: str = "left",
    colour: str = _INK,
    bold: bool = False,
) -> None:
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
def _measure(text: str, size: float, *, bold: bool = False) -> float:
    # Width in inches.
    path = TextPath((0, 0), _plain(text).replace("$", "S"), size=size, prop=_font(bold=bold))
    return float(path.get_extents().width) / _POINTS


@functools.lru_cache(maxsize=256)
def _glyph(letter: str, size: float) -> MplPath:
    path = TextPath((0, 0), letter, size=size, prop=_font(bold=True))
    box = path.get_extents()
    # Around the middle of a capital, so that dots and question marks sit on one line; y points up here.
    middle = size * 0.36 if letter != "·" else (box.y0 + box.y1) / 2
    shift = Affine2D().translate(-(box.x0 + box.x1) / 2, -middle)
    return shift.transform_path(path)


def _wrapped(text: str, width: float, size: float) -> list[str]:
    # Lines that fit into `width` inches; words are broken only where one alone does not fit.
    bold = size == _TITLE
    lines: list[str] = []
    line = ""
    for word in text[:_LONGEST_TITLE].split():
        longer = f"{line} {word}".strip()
        if _measure(longer, size, bold=bold) <= width:
            line = longer
            continue
        if line:
            lines.append(line)
        line = word
        while (needed := _measure(line, size, bold=bold)) > width:
            cut = max(1, int(len(line) * width / needed) - 1)
            lines.append(line[:cut])
            line = line[cut:]
    lines.append(line)
    return lines if len(lines) <= _MOST_LINES else [*lines[: _MOST_LINES - 1], lines[_MOST_LINES - 1][:-1] + "…"]


# --- tables


class Table(NamedTuple):
    """A table as data; shows itself as HTML with header cells, or as text."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def _repr_html_(self) -> str:
        return html_table(self.title, self.heads, self.rows, self.note)

    def __str__(self) -> str:
        columns = list(zip(self.heads, *self.rows, strict=True))
        widths = [max(map(len, column)) for column in columns]
        lines = [
            "  ".join(cell.ljust(size) for cell, size in zip(row, widths, strict=True)).rstrip()
            for row in (self.heads, *self.rows)
        ]
        return "\n".join([self.title, *lines, *([self.note] if self.note else [])])


# In which bit of a present page's word each state lies.
_BITS = {
    "x86-64": {
        State.PRESENT: 0,
        State.WRITABLE: 1,
        State.UFFD_WP: 10,
        State.ACCESSED: 5,
        State.DIRTY: 6,
        State.SOFT_DIRTY: 11,
        State.HUGE: 7,
        State.PROTNONE: 8,
        State.SPECIAL: 9,
    },
    "arm64": {
        State.PRESENT: 0,
        State.WRITABLE: 51,
        State.UFFD_WP: 58,
        State.ACCESSED: 10,
        State.DIRTY: 55,
        State.SPECIAL: 56,
    },
    "pagemap": {
        State.PRESENT: 63,
        State.SWAPPED: 62,
        State.FILE: 61,
        State.GUARD: 58,
        State.UFFD_WP: 57,
        State.EXCLUSIVE: 56,
        State.SOFT_DIRTY: 55,
    },
    "pagemap-scan": {
        State.PRESENT: 3,
        State.SWAPPED: 4,
        State.FILE: 2,
        State.GUARD: 8,
        State.HUGE: 6,
        State.SPECIAL: 5,
        State.SOFT_DIRTY: 7,
    },
}
_ALWAYS = (State.PRESENT, State.WRITABLE, State.UFFD_WP, State.DIRTY, State.ACCESSED, State.SOFT_DIRTY)


def entry_table(snapshot: Snapshot, pages: Iterable[int] | None = None) -> Table:
    """Make a table of raw entries and the bits they hold: 1, 0, or ? where this witness cannot know.

    Parameters
    ----------
    snapshot : Snapshot
    pages : iterable of int, optional
        Page numbers in the region; the first page of each group (at most 16) if not given.

    Raises
    ------
    UsageError
        If the snapshot does not have one of the pages.
    """
    note = ""
    if pages is None:
        groups = snapshot.groups()
        pages = [group.first for group in groups[:_TABLE_ROWS]]
        if len(groups) > _TABLE_ROWS:
            note = f"the first pages of {_TABLE_ROWS} groups of {len(groups)}"
    chosen = [snapshot[_index(snapshot, page)] for page in pages]
    set_somewhere = State(0)
    for page in chosen:
        set_somewhere |= State(int(page.states[0]))
    bits = [*_ALWAYS, *(state for state in State if state not in _ALWAYS and state in set_somewhere)]
    where = _BITS[snapshot.form]
    heads = ["page", "raw word", "level", "frame"]
    heads += [f"{pte.state_name(bit)} ({where[bit]})" if bit in where else pte.state_name(bit) for bit in bits]
    rows = []
    for page in chosen:
        states, known = int(page.states[0]), int(page.known[0])
        frame = int(page.frames()[0])
        rows.append(
            (
                str(page.first),
                f"{int(page.words[0]):#018x}",
                pte.LEVEL_NAMES[int(page.levels[0])] or "?",
                f"{frame:#x}" if frame >= 0 else "",
                *(("1" if states & bit else "0") if known & bit else "?" for bit in bits),
                pte.describe(states, known),
            )
        )
    return Table(f"{_what(snapshot)}{_where(snapshot)}", (*heads, "in words"), tuple(rows), note)


def entry(snapshot: Snapshot, page: int) -> Table:
    """Take one page's raw word apart, bit by bit, highest first.

    Raises
    ------
    UsageError
        If the snapshot does not have the page.
    """
    one = snapshot[_index(snapshot, page)]
    word, level = int(one.words[0]), int(one.levels[0])
    rows = tuple(
        (
            str(bit.number) if bit.width == 1 else f"{bit.number + bit.width - 1}–{bit.number}",
            bit.name,
            str(bit.value) if bit.width <= 5 else f"{bit.value:#x}",
            bit.meaning,
        )
        for bit in pte.explain(one.form, word, level)
    )
    at = f" in a {pte.LEVEL_NAMES[level]}" if level else ""
    title = f"{one.region}, page {page}{_where(one)}: {word:#018x}{at}"
    return Table(title, ("bit", "name", "value", "means"), rows, pte.describe(one.states[0], one.known[0]))


def _index(snapshot: Snapshot, page: int) -> int:
    if page not in snapshot.pages:
        last = snapshot.first + len(snapshot) - 1
        raise UsageError(f"this snapshot has pages {snapshot.first} to {last}; there is no page {page}")
    return page - snapshot.first
