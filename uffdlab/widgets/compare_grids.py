"""CompareGrids: the same pages on several kernels side by side, with the differences from the first marked."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ipywidgets  # type: ignore[import-untyped]
import traitlets

from uffdlab import figures
from uffdlab.errors import UsageError
from uffdlab.observations.snapshot import Difference
from uffdlab.widgets._assets import css
from uffdlab.widgets._base.controls import LabBox
from uffdlab.widgets._export import html_page
from uffdlab.widgets.page_grid import PageGrid

if TYPE_CHECKING:
    import os

    from uffdlab.observations.snapshot import Snapshot


_MODES = (("what differs from the first", "changed"), ("all pages", "after"), ("alternating with the first", "flicker"))
_WIDE: Any = {"description_width": "initial"}
_PANE = {"flex": "1 1 300px", "min_width": "0"}


class CompareGrids(html_page.Pictured, LabBox):
    """One grid for each snapshot; pages that equal those of the first snapshot are faded.

    Pages with the same number are compared, whatever the names of their regions, their addresses and page frames.

    Parameters
    ----------
    snapshots : mapping of str to Snapshot
        Snapshots of as many pages, by name; the others are compared with the first.

    Attributes
    ----------
    differences : dict of str to Difference
        The differences of each other snapshot from the first.
    mode : Dropdown
        What the other grids show: ``"changed"``, ``"after"``, ``"flicker"``.

    Raises
    ------
    UsageError
        If there are fewer than two, or they show different pages.
    """

    _keywords = ("snapshots",)
    grids: Sequence[PageGrid] = ()

    def __init__(self, snapshots: Mapping[str, Snapshot], **keywords: Any) -> None:
        if len(snapshots) < 2:
            raise UsageError("there is nothing to compare; give at least two snapshots, as {name: snapshot}")
        (self._first, one), *others = snapshots.items()
        self._snapshots = dict(snapshots)
        self.differences: dict[str, Difference] = {
            name: Difference(one, other, across_labs=True) for name, other in others
        }
        grids = [PageGrid(one)]
        grids += [PageGrid(other, one, mode="changed", across_labs=True) for _, other in others]
        self.grids = grids
        for grid in grids:
            grid._chooses = False  # noqa: SLF001 - a widget of this package
        self.mode = ipywidgets.Dropdown(options=_MODES, value="changed", description="show", style=_WIDE)
        for grid in grids[1:]:
            traitlets.dlink((self.mode, "value"), (grid, "mode"))
        panes = [
            ipywidgets.VBox([ipywidgets.HTML(f"<p><b>{html.escape(name)}</b></p>"), grid], layout=_PANE)
            for name, grid in zip(snapshots, grids, strict=True)
        ]
        side_by_side = ipywidgets.HBox(panes, layout={"flex_flow": "row wrap"})
        super().__init__([ipywidgets.HTML(self._summary()), self.mode, side_by_side], **keywords)
        # All grids share one cursor.
        for grid in grids[1:]:
            ipywidgets.link((grids[0], "cursor"), (grid, "cursor"))

    def _summary(self) -> str:
        items = ""
        for name, difference in self.differences.items():
            lines = [str(change) for change in difference.changes()]
            text = "; ".join(lines) if lines else f"the same on {len(difference.before)} pages"
            items += f"<li>{html.escape(f'{name} against {self._first}: {text}')}</li>"
        return f"<ul>{items}</ul>"

    # --- without a live kernel

    def picture(self) -> figures.Picture:
        """Return the grids side by side as a picture with alt text."""
        return figures.side_by_side(self._snapshots)

    def static(self) -> str:
        """Return the differences, and a picture of each snapshot with its alt text, as HTML."""
        pictures = "".join(
            f"<p>{html.escape(name)}</p>{figures.grid(snapshot)._repr_html_()}"
            for name, snapshot in self._snapshots.items()
        )
        return self._summary() + pictures

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return one self-contained HTML page with all grids, interactive without a kernel."""
        parts = [grid.part(name) for name, grid in zip(self._snapshots, self.grids, strict=True)]
        summary = f'<div class="uffdlab">{self._summary()}</div>'
        return html_page.deliver(html_page.page("The same pages compared", parts, css("page_grid.css"), summary), path)

    def to_csv(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return a CSV table, one line for each page of each snapshot; each line begins with the snapshot's name."""
        lines: list[list[str]] = []
        for name, snapshot in self._snapshots.items():
            head, *rows = csv.reader(io.StringIO(snapshot.to_csv()))
            lines += [["snapshot", *head]] * (not lines) + [[name, *row] for row in rows]
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows(lines)
        return html_page.deliver(out.getvalue(), path)

    def close(self) -> None:
        """Close the widget and all grids."""
        for grid in self.grids:
            grid.close()
        super().close()
