"""Pictures of snapshots: one grid, a comparison of two, or several side by side. Each has a text that says the same."""

from __future__ import annotations

import base64
import hashlib
import html
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from uffdlab import pte
from uffdlab.arguments import checked_function, must_be
from uffdlab.errors import UsageError
from uffdlab.figures.drawing import AbsentCells, AbsentLetters, draw
from uffdlab.figures.palette import cell_styles
from uffdlab.figures.style import ABSENT_INK_ON_DARK, ABSENT_ON_DARK, DPI, ON_DARK, PAPER, RC
from uffdlab.figures.titles import SNAPSHOT, what, where
from uffdlab.observations.snapshot import Difference, Snapshot

if TYPE_CHECKING:
    import os

_MOST_ALT_GROUPS = 12
_SUFFIXES = (".png", ".svg", ".pdf")
# Of JupyterLab, Notebook and nbconvert; of VS Code.
_DARK_THEMES = 'body[data-jp-theme-light="false"],body.vscode-dark,body.vscode-high-contrast'


class Picture:
    """A figure with a text that says the same.

    Attributes
    ----------
    figure : matplotlib.figure.Figure
    alt : str
        A text that says what the picture shows, made from the data.
    """

    def __init__(self, figure: Figure, alt: str) -> None:
        self.figure = figure
        self.alt = alt

    def png(self) -> bytes:
        """Return the picture as PNG, with two pixels for each CSS pixel."""
        return self._written("png")

    def svg(self) -> str:
        """Return the picture as SVG."""
        return self._written("svg").decode()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the picture to `path` in the format of its suffix (.png, .svg or .pdf), and return the path.

        Raises
        ------
        UsageError
            The suffix is another one.
        """
        path = Path(path)
        if path.suffix.lower() not in _SUFFIXES:
            raise UsageError(
                f"a picture cannot be saved as {path.suffix or 'a file without a suffix'}: use {', '.join(_SUFFIXES)}"
            )
        path.write_bytes(self._written(path.suffix.lower()[1:]))
        return path

    def dark_png(self) -> bytes:
        """Return the picture as PNG with light text and without a background, for pages with a dark theme."""
        texts: list[Any] = self.figure.findobj(Text)
        absent: list[Any] = self.figure.findobj(AbsentCells)
        letters: list[Any] = self.figure.findobj(AbsentLetters)
        before = [(each.set_color, each.get_color()) for each in texts]
        before += [(each.set_facecolor, each.get_facecolor()) for each in (*absent, *letters)]
        for text in texts:
            text.set_color(ON_DARK.get(to_hex(text.get_color()).upper(), text.get_color()))
        for cells, colour in ((absent, ABSENT_ON_DARK), (letters, ABSENT_INK_ON_DARK)):
            for each in cells:
                each.set_facecolor(colour)
        try:
            return self._drawn("png", "none")
        finally:
            for put, colour in before:
                put(colour)

    def _written(self, form: str) -> bytes:
        return self._drawn(form, PAPER)

    def _drawn(self, form: str, paper: str) -> bytes:
        # Without dates and versions, so that the same data give the same bytes.
        metadata: dict[str, dict[str, str | None]] = {
            "png": {"Software": None, "Description": self.alt},
            "svg": {"Date": None, "Creator": None, "Description": self.alt},
            "pdf": {"CreationDate": None, "Producer": None, "Creator": None, "Subject": self.alt},
        }
        out = io.BytesIO()
        with mpl.rc_context(RC):
            self.figure.savefig(
                out,
                format=form,
                dpi=2 * DPI,
                facecolor=paper,
                edgecolor="none",
                bbox_inches=None,
                metadata=metadata[form],
            )
        return out.getvalue()

    def _repr_html_(self) -> str:
        return self._img(self.png())

    def _img(self, png: bytes) -> str:
        # A dark theme replaces the image by a rule.  A viewer that takes styles away shows the light one.
        width = round(self.figure.get_figwidth() * DPI)
        name = f"uffdlab-{hashlib.sha256(png).hexdigest()[:12]}"
        light, dark = (base64.b64encode(each).decode() for each in (png, self.dark_png()))
        rule = f":is({_DARK_THEMES}) .{name}{{content:url(data:image/png;base64,{dark})}}"
        return (
            f'<img alt="{html.escape(self.alt)}" class="{name}" width="{width}" style="max-width:100%;height:auto" '
            f'src="data:image/png;base64,{light}"/><style>@media screen{{{rule}}}</style>'
        )

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
        # text/html has the alt text. A notebook that is not trusted shows image/png.
        png = self.png()
        data = {"text/plain": str(self), "text/html": self._page(png), "image/png": base64.b64encode(png).decode()}
        return data, {"image/png": {"width": round(self.figure.get_figwidth() * DPI), "alt": self.alt}}

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


@checked_function("figures.grid")
def grid(snapshot: Snapshot, *, title: str | None = None) -> Picture:
    """Draw a snapshot as a grid of pages.

    Parameters
    ----------
    snapshot : Snapshot
        With up to 2,048 pages, each has a cell. With more, several pages share a cell.
    title : str, optional
        By default the names of the region, the kernel and the witness.

    Raises
    ------
    UsageError
        The snapshot has no pages.
    """
    must_be(snapshot, Snapshot, "figures.grid()", SNAPSHOT)
    title = title or f"{what(snapshot)}{where(snapshot)}"
    return Picture(draw(title, [("", snapshot)]), f"{title}: {_alt_text(snapshot)}.")


@checked_function("uffdlab.compare", "uffdlab.compare(before, after)")
def compare(
    before: Snapshot, after: Snapshot, *, title: str | None = None, across_labs: bool | None = None
) -> Comparison:
    """Draw two snapshots of the same pages side by side; in a notebook as two grids to hover over.

    Parameters
    ----------
    before, after : Snapshot
    title : str, optional
        By default the names of the region, the kernel and the witness.
    across_labs : bool, optional
        Whether the two are of different labs: then pages with the same number are compared, without their frames.  By
        default so if the kernels, the regions' names or their addresses differ.

    Raises
    ------
    UsageError
        The snapshots are not of the same pages, or have no pages.
    """
    for each in (before, after):
        must_be(each, Snapshot, "uffdlab.compare()", SNAPSHOT)
    if across_labs is None:
        across_labs = len({(each.kernel, each.region, each.start) for each in (before, after)}) > 1
    difference = Difference(before, after, across_labs)
    alike = where(before) == where(after)
    title = title or what(before) + (where(before) if alike else "")
    names = (
        ["before", "after"]
        if alike
        else [f"before,{where(before).removeprefix(',')}", f"after,{where(after).removeprefix(',')}"]
    )
    panels = list(zip(names, (before, after), strict=True))
    alt = f"{title}. " + " ".join(f"{name.capitalize()}: {_alt_text(snapshot)}." for name, snapshot in panels)
    return Comparison(draw(title, panels), alt, difference)


@checked_function("figures.side_by_side", "figures.side_by_side({'with': one, 'without': other})")
def side_by_side(snapshots: Mapping[str, Snapshot], *, title: str | None = None) -> Picture:
    """Draw several snapshots side by side, for instance of the same pages on several kernels.

    Parameters
    ----------
    snapshots : mapping of str to Snapshot
        The key is the name above the snapshot.
    title : str, optional
        By default the name of the first snapshot's region.

    Raises
    ------
    UsageError
        There is no snapshot, or one of them has no pages.
    """
    must_be(snapshots, Mapping, "figures.side_by_side()", "{'with': one, 'without': other}, for example")
    for each in snapshots.values():
        must_be(each, Snapshot, "figures.side_by_side()", SNAPSHOT)
    if not snapshots:
        raise UsageError("there is nothing to draw; give at least one snapshot, as {name: snapshot}")
    title = title or what(next(iter(snapshots.values())))
    alt = f"{title}. " + " ".join(f"{name}: {_alt_text(snapshot)}." for name, snapshot in snapshots.items())
    return Picture(draw(title, list(snapshots.items())), alt)


def _alt_text(snapshot: Snapshot) -> str:
    groups = snapshot.groups(pte.MAPPING)
    texts = [f"{str(group).replace('?', ' unknown')}" for group in groups[:_MOST_ALT_GROUPS]]
    if len(groups) > len(texts):
        texts.append(f"and {len(groups) - len(texts)} more groups")
        styles, which = cell_styles(snapshot.states, snapshot.known)
        counts = np.bincount(which, minlength=len(styles)).tolist()
        texts.append(
            "in all " + ", ".join(f"{count} {style.text}" for style, count in zip(styles, counts, strict=True))
        )
    return "; ".join(texts)
