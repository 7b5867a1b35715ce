"""Pictures of a timeline, faults, an entry's bits and text, each with alt text: for pages without a live kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from uffdlab.figures import Picture
from uffdlab.widgets._data import timeline_lanes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from uffdlab.pte import Bit

_INK, _LINE, _GAP = "#1A1A1A", "#7A7A7A", "#D55E00"
# Colour, ink and letter of a lane; the letter identifies it without the colour.
_MARKS = {
    "touch": ("#009E73", "#000000", "T"),
    "message": ("#EC8A4A", "#000000", "M"),
    "ioctl": ("#0072B2", "#FFFFFF", "I"),
    "snapshot": ("#E69F00", "#000000", "S"),
}
_OTHER = ("#BBBBBB", "#000000", "·")
_MOST_ALT_TEXTS = 40
_DPI = 100
_BITS_A_ROW = 16
_KINDS = {"minor": ("o", "#0072B2"), "wp": ("s", "#D55E00"), "missing": ("^", "#009E73")}
_LETTER, _TEXT_LINE = 0.0765, 0.18  # inches: the width of a letter of code, the height of a line
_UNITS = ((1e6, "s"), (1e3, "ms"), (1, "µs"))
_OTHER_KIND = ("D", "#7A7A7A")


def lanes(title: str, rows: Sequence[dict[str, Any]]) -> Picture:
    """Draw the events of :func:`uffdlab.widgets._data.timeline_lanes.events`, each in its own column."""
    names = [
        lane for lane in (*timeline_lanes.LANES, timeline_lanes.OTHER) if any(row["lane"] == lane for row in rows)
    ] or ["ioctl"]
    axes = _axes(1.3 + 0.27 * max(12, len(rows)), 0.6 + 0.36 * len(names))
    axes.set_xlim(-5, max(12, len(rows)))
    axes.set_ylim(len(names) - 0.3, -1.2)
    _write(axes, -4.9, -0.9, title, bold=True)
    where = {row["n"]: at for at, row in enumerate(rows)}
    for y, lane in enumerate(names):
        axes.plot([-0.6, max(12, len(rows)) - 0.4], [y, y], color=_LINE, linewidth=0.8, zorder=0)
        _write(axes, -4.9, y, timeline_lanes.LANES.get(lane, lane))
    for x, row in enumerate(rows):
        y = names.index(row["lane"])
        if row["gap"] is not None:
            end = where.get(row["gap"], len(rows) - 0.4)
            axes.plot([x, end], [y + 0.42, y + 0.42], color=_GAP, linewidth=2, linestyle=(0, (3, 1.5)))
        colour, ink, letter = _MARKS.get(row["lane"], _OTHER)
        axes.add_patch(Rectangle((x - 0.38, y - 0.32), 0.76, 0.64, facecolor=colour, edgecolor=_INK, linewidth=0.7))
        axes.text(x, y, letter, color=ink, ha="center", va="center", size=8, weight="bold")
    texts = [f"at {row['at']:,} µs {row['text']}" + (f" ({row['change']})" if row["change"] else "") for row in rows]
    texts += [f"and {len(texts) - _MOST_ALT_TEXTS} more"] * (len(texts) > _MOST_ALT_TEXTS)
    gaps = sum(row["gap"] is not None for row in rows)
    asleep = f" Dashed lines: {gaps} with DONTWAKE, until the waiting threads are woken." if gaps else ""
    in_alt = [*texts[:_MOST_ALT_TEXTS], *texts[-1:]] if len(texts) > _MOST_ALT_TEXTS else texts
    return Picture(axes.figure, f"{title}: {'; '.join(in_alt) or 'nothing has happened'}.{asleep}")  # type: ignore[arg-type]


def faults(title: str, points: Sequence[tuple[float, int, str]], summary: str) -> Picture:
    """Draw faults as points: time (µs), page, kind (``"minor, write"``); each kind has its own marker and colour."""
    figure = Figure(figsize=(7, 2.8), dpi=_DPI, facecolor="#FFFFFF", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    unit, name = next(
        unit for unit in _UNITS if max((when for when, _, _ in points), default=1) >= unit[0] or unit[0] == 1
    )
    for kind in dict.fromkeys(kind for _, _, kind in points):
        marker, colour = _KINDS.get(kind.split(",")[0], _OTHER_KIND)
        chosen = [(when / unit, page) for when, page, each in points if each == kind]
        full = colour if kind.endswith("write") else "#FFFFFF"
        times, pages = zip(*chosen, strict=True)
        axes.scatter(times, pages, marker=marker, edgecolors=colour, facecolors=full, label=kind, s=28)
    shown = [page for _, page, _ in points] or [0]
    axes.set(title=title, xlabel=name, ylabel="page", ylim=(min(shown) - 0.9, max(shown) + 0.9))
    axes.patch.set_facecolor("none")
    axes.tick_params(color=_LINE, labelcolor=_INK)
    for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
        text.set_color(_INK)
    axes.spines[:].set_color(_LINE)
    axes.ticklabel_format(useOffset=False)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    if points:
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), labelcolor=_INK, frameon=False)
    return Picture(figure, f"{title}: {summary}.")


def bits(title: str, fields: Sequence[Bit]) -> Picture:
    """Draw the fields of an entry, highest first, with numbers, names and values; fields that are set are filled."""
    lines = [fields[at : at + _BITS_A_ROW] for at in range(0, len(fields), _BITS_A_ROW)]
    axes = _axes(0.62 * _BITS_A_ROW + 0.2, 0.45 + 0.85 * len(lines))
    axes.set_xlim(-0.1, _BITS_A_ROW + 0.1)
    axes.set_ylim(len(lines), -0.45)
    _write(axes, 0, -0.25, title, bold=True)
    for y, line in enumerate(lines):
        for x, bit in enumerate(line):
            number = str(bit.number) if bit.width == 1 else f"{bit.number + bit.width - 1}–{bit.number}"
            value = str(bit.value) if bit.width <= 5 else f"{bit.value:#x}"
            face, ink = ("#0072B2", "#FFFFFF") if bit.value else ("#F1F1F1", "#000000")
            box = Rectangle((x, y + 0.3), 1, 0.5, facecolor=face, edgecolor=_LINE, linewidth=0.8)
            axes.add_patch(box)
            size: Any = {"ha": "center", "va": "center", "parse_math": False}
            axes.text(x + 0.5, y + 0.12, number, size=7, color=_INK, **size)
            axes.text(x + 0.5, y + 0.44, bit.name[:12], size=6, color=ink, **size)
            axes.text(x + 0.5, y + 0.66, value, size=7 if len(value) < 8 else 5, weight="bold", color=ink, **size)
    set_fields = ", ".join(bit.name if bit.width == 1 else f"{bit.name} {bit.value:#x}" for bit in fields if bit.value)
    return Picture(axes.figure, f"{title}: {set_fields or 'no bit is set'}.")  # type: ignore[arg-type]


def text(lines: Sequence[tuple[str, str]], alt: str) -> Picture:
    """Draw lines of text, each with its style: ``"bold"``, ``"plain"`` or ``"code"`` (monospace)."""
    widest = max((len(line) for _, line in lines), default=0)
    axes = _axes(max(4.0, 0.2 + widest * _LETTER), _TEXT_LINE * (len(lines) + 1))
    axes.set_xlim(0, 1)
    axes.set_ylim(len(lines), -1)
    left = 0.1 / axes.figure.get_figwidth()  # type: ignore[union-attr]
    for y, (how, line) in enumerate(lines):
        weight, family = "bold" if how == "bold" else "normal", "monospace" if how == "code" else "sans-serif"
        axes.text(left, y, line, color=_INK, va="center", size=9, weight=weight, family=family, parse_math=False)
    return Picture(axes.figure, alt)  # type: ignore[arg-type]


def _axes(width: float, height: float) -> Axes:
    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="#FFFFFF", layout=None)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    return axes


def _write(axes: Axes, x: float, y: float, text: str, *, bold: bool = False) -> None:
    weight = "bold" if bold else "normal"
    axes.text(x, y, text, color=_INK, ha="left", va="center", size=9, weight=weight, parse_math=False)
