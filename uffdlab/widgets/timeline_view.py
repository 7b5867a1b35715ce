"""TimelineView: what was done and seen, in lanes, to step through while a grid follows."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

import traitlets

from uffdlab.snapshot import Snapshot
from uffdlab.widgets import _export, _lanes
from uffdlab.widgets._base import LabWidget
from uffdlab.widgets._loop import later, soon
from uffdlab.widgets._source import css, javascript

if TYPE_CHECKING:
    import os

    from uffdlab.timeline import Entry, Timeline
    from uffdlab.widgets.page_grid import PageGrid

_SHOWN = 500  # the newest
_PAUSE = 0.1  # s


class TimelineView(LabWidget):
    """The entries of a timeline, a column each, in lanes: touches, messages, ioctls, page tables.

    Parameters
    ----------
    timeline : Timeline
        ``lab.timeline``.
    grid : PageGrid, optional
        Shows the pages as they were last seen at the chosen entry.

    Attributes
    ----------
    position : int
        Trait.  Number of the chosen entry; the newest one while things happen.
    """

    _esm = javascript("timeline_view.js")
    _css = css("page_grid.css", "timeline_view.css")
    _keywords = ("timeline", "grid")

    position = traitlets.Int(-1).tag(sync=True)
    _events: traitlets.List[dict[str, Any]] = traitlets.List().tag(sync=True)
    _lanes = traitlets.Dict(_lanes.LANES).tag(sync=True)

    def __init__(self, timeline: Timeline, grid: PageGrid | None = None, **keywords: Any) -> None:
        self._timeline, self._grid, self._due = timeline, grid, False
        super().__init__(**keywords)
        self.observe(self._stepped, "position")
        self._releases = (timeline.listen(self._happened),)
        self.refresh()

    def _happened(self, _entry: Entry) -> None:
        # On any thread, perhaps ten thousand times a second.
        if not self._due:
            self._due = True
            soon(self._soon)

    def _soon(self) -> None:
        later(_PAUSE, self.refresh)

    def refresh(self) -> None:
        """Bring the page up to date and go to the newest entry."""
        self._due = False
        newest = list(self._timeline)[-_SHOWN:]
        with self.hold_sync():
            self._events = _lanes.events(newest)
            self.position = newest[-1].number if newest else -1

    def step(self, by: int) -> None:
        """Go `by` entries on, or back if negative, as far as there are any."""
        if len(self._timeline):
            oldest = max(0, len(self._timeline) - _SHOWN)
            self.position = min(max(oldest, self.position + by), len(self._timeline) - 1)

    def _stepped(self, _change: object) -> None:
        # The pages as they were last seen at that entry.
        grid = self._grid
        if grid is None or not 0 <= self.position < len(self._timeline):
            return
        here = grid.snapshot
        for number in range(self.position, -1, -1):
            seen = self._timeline[number].what
            if isinstance(seen, Snapshot) and (seen.region, seen.start, len(seen)) == (
                here.region,
                here.start,
                len(here),
            ):
                grid.show(seen, grid.before)
                return

    # --- without a live kernel

    def to_svg(self, path: str | os.PathLike[str] | None = None) -> str:
        """Give the lanes as SVG text, and write it to `path` if given."""
        return _export.deliver(_lanes.svg("Timeline", self._events), path)

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """Give the lanes and the table as HTML, and write it to `path` if given."""
        table = self._timeline._repr_html_()  # IPython's protocol
        return _export.deliver(self.to_svg() + table, path)

    def to_csv(self, path: str | os.PathLike[str] | None = None) -> str:
        """Give one line an entry: number, lane, start and duration in µs, text, change, who wakes its DONTWAKE."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["number", "kind", "at_us", "took_us", "text", "change", "woken_by"])
        for each in _lanes.events(list(self._timeline)):
            gap = "" if each["gap"] is None else "nobody" if each["gap"] < 0 else each["gap"]
            writer.writerow([each[key] for key in ("n", "lane", "at", "took", "text", "change")] + [gap])
        return _export.deliver(out.getvalue(), path)

    def fallback(self) -> dict[str, str]:
        """Give the lanes and the table."""
        return {"text/html": self.to_html()}
