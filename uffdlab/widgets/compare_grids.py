"""CompareGrids: the same pages on several kernels side by side, with the differences from the first marked."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import ipywidgets  # type: ignore[import-untyped]
import traitlets

from uffdlab import figures
from uffdlab.errors import UsageError
from uffdlab.observations.snapshot import Difference
from uffdlab.widgets._assets import css
from uffdlab.widgets._base.controls import LabBox
from uffdlab.widgets._base.static_output import OutputHolder
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

    Parameters
    ----------
    snapshots : mapping of str to Snapshot
        Snapshots of as many pages, by name; the others are compared with the first.
    across_labs : bool
        Whether they are of different labs: then pages with the same number are compared, whatever the names of their
        regions, their addresses and page frames.  See :class:`uffdlab.observations.snapshot.Difference`.

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

    _keywords = ("snapshots", "across_labs")
    grids: Sequence[PageGrid] = ()
    _comparison: figures.Comparison | None = None  # what uffdlab.compare() returned, if it is shown here

    def __init__(self, snapshots: Mapping[str, Snapshot], *, across_labs: bool = True, **keywords: Any) -> None:
        if len(snapshots) < 2:
            raise UsageError("there is nothing to compare; give at least two snapshots, as {name: snapshot}")
        (self._first, one), *others = snapshots.items()
        self._snapshots = dict(snapshots)
        self.differences: dict[str, Difference] = {name: Difference(one, other, across_labs) for name, other in others}
        grids = [PageGrid(one)]
        grids += [PageGrid(other, one, mode="changed", across_labs=across_labs) for _, other in others]
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

    @classmethod
    def of(cls, comparison: figures.Comparison) -> Self:
        """Return the live form of what :func:`uffdlab.compare` returned; the picture is its static form."""
        difference = comparison.difference
        snapshots = {"before": difference.before, "after": difference.after}
        grids = cls(snapshots, across_labs=difference.across_labs)
        grids._comparison = comparison
        return grids

    def output_part(self) -> OutputHolder:
        """Return the first grid, which has JavaScript of its own."""
        return self.grids[0]

    def live_bundle(self) -> dict[str, Any]:
        """Return the MIME bundle of the live widget."""
        return {**super().live_bundle(), "text/plain": "\n".join(self._lines())}

    def _lines(self) -> list[str]:
        texts = []
        for name, difference in self.differences.items():
            lines = [str(change) for change in difference.changes()]
            text = "; ".join(lines) if lines else f"the same on {len(difference.before)} pages"
            texts.append(f"{name} against {self._first}: {text}")
        return texts

    def _summary(self) -> str:
        return f"<ul>{''.join(f'<li>{html.escape(line)}</li>' for line in self._lines())}</ul>"

    # --- without a live kernel

    def picture(self) -> figures.Picture:
        """Return the grids side by side as a picture with alt text."""
        if self._comparison is not None:
            return self._comparison
        return figures.side_by_side(self._snapshots)

    def static(self) -> str:
        """Return the differences, and a picture of each snapshot with its alt text, as HTML."""
        if self._comparison is not None:
            return self._comparison._repr_html_()
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
