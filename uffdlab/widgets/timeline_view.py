"""TimelineView: the entries of a timeline in lanes, to step through while a grid follows."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

import traitlets

from uffdlab.observations.html_table import html_table
from uffdlab.observations.snapshot import Snapshot
from uffdlab.widgets._assets import css, javascript
from uffdlab.widgets._base.event_loop import later, run_in_loop
from uffdlab.widgets._base.live import LiveWidget
from uffdlab.widgets._data import columns, timeline_lanes
from uffdlab.widgets._data import moment as timeline_moment
from uffdlab.widgets._data.moment import zero_ns
from uffdlab.widgets._export import drawings, html_page

if TYPE_CHECKING:
    import os

    from uffdlab.figures import Picture
    from uffdlab.lab import Lab
    from uffdlab.target.timeline import Timeline, TimelineEntry
    from uffdlab.widgets.page_grid import PageGrid

_SHOWN = 500  # the newest
_PRINTED = 60  # the newest, in a picture
_PAUSE = 0.2  # s
_NEWEST = -1  # a position: the browser need not know yet which entry is the newest


class TimelineView(html_page.Pictured, LiveWidget):
    """The entries of a timeline, each in its own column, in lanes: touches, messages, ioctls, page tables.

    Parameters
    ----------
    timeline : Timeline
        ``lab.timeline``.
    grid : PageGrid, optional
        Shows the latest snapshot up to the chosen entry.

    Attributes
    ----------
    position : int
        Trait.  Number of the chosen entry; it follows the newest entry until the user steps back.
        Set it to -1 to go to the newest entry and follow again.
    events : list of dict
        The newest 500 entries: ``n``, ``lane``, ``at`` and ``took`` in µs, ``text``, ``change``, ``gap``.
    """

    _esm = javascript("timeline_view.js")
    _css = css("page_grid.css", "timeline_view.css")
    _keywords = ("timeline", "grid")

    position = traitlets.Int(-1).tag(sync=True)
    # Columns: number, lane, at, took, entry that wakes (-1 none, -2 no gap), text, change.
    _events = traitlets.Bytes().tag(sync=True)
    _lanes = traitlets.Dict(timeline_lanes.LANES).tag(sync=True)

    def __init__(self, timeline: Timeline, grid: PageGrid | None = None, **keywords: Any) -> None:
        self._timeline, self._grid, self._update_pending = timeline, grid, False
        self.events: list[dict[str, Any]] = []
        super().__init__(**keywords)
        self.observe(self._stepped, "position")
        self.observe(self.update_soon, "_events")
        self._listen()

    def _listen(self) -> None:
        for release in self._releases:
            release()
        self._releases = (self._timeline.listen(self._on_timeline),)
        self.follow_lab(self._timeline)
        self.refresh()

    def _switch_to(self, lab: Lab) -> None:
        self._timeline, self.events = lab.timeline, []
        self._listen()

    def _on_timeline(self, _entry: TimelineEntry) -> None:
        # Called on any thread, perhaps ten thousand times per second.
        if not self._update_pending:
            self._update_pending = True
            run_in_loop(self._update)

    def _update(self) -> None:
        later(_PAUSE, self.refresh)

    def catch_up(self) -> None:
        """Show every pending update now."""
        if self._update_pending:
            self.refresh()

    def refresh(self) -> None:
        """Update the browser; move to the newest entry unless the user has stepped back or plays."""
        self._update_pending = False
        follows = not self.events or self.position == self.events[-1]["n"]
        newest = self._timeline.newest(_SHOWN)
        lab = self._timeline.lab
        running = () if lab is None or self.ended else lab.touches
        self.events = timeline_lanes.events(newest, zero_ns(self._timeline), running)
        with self.hold_sync():
            self._events = _packed(self.events)
            numbers = [each["n"] for each in self.events]
            if not numbers:
                self.position = _NEWEST
            elif follows:
                self.position = numbers[-1]
            elif self.position not in numbers:  # too old by now, or a touch that has ended meanwhile
                touch = next((n for n in numbers if self._is_end_of(n, self.position)), numbers[0])
                self.position = touch

    def _is_end_of(self, number: int, running: int) -> bool:
        # Whether an entry is the end of the touch that was shown as running.
        what = self._timeline[number].what if number >= 0 else None
        return running < -1 and getattr(what, "number", None) == -2 - running and self._timeline[number].kind == "touch"

    def step(self, by: int) -> None:
        """Move `by` entries forward, or back if negative, within the entries shown."""
        if self.events:
            at = min(max(0, self._index() + by), len(self.events) - 1)
            self.position = self.events[at]["n"]

    def _index(self) -> int:
        return next((at for at, each in enumerate(self.events) if each["n"] == self.position), 0)

    def _stepped(self, _change: object = None) -> None:
        # Show the latest snapshot up to that entry, among the entries shown.
        if self.position == _NEWEST and self.events:
            self.position = self.events[-1]["n"]  # comes here again
            return
        grid = self._grid
        if grid is None or not self.events:
            return
        here, index = grid.snapshot, self._index()
        for each in reversed(self.events[: index + 1]):
            seen = self._timeline[each["n"]].what if each["n"] >= 0 else None
            if isinstance(seen, Snapshot) and (seen.region, seen.start, len(seen)) == (
                here.region,
                here.start,
                len(here),
            ):
                past = index < len(self.events) - 1
                grid.show_moment(seen, timeline_moment.moment(self._timeline, seen.time_ns), past=past)
                return

    # --- without a live kernel

    def picture(self) -> Picture:
        """Return a picture of the newest entries with alt text."""
        return drawings.lanes("Timeline", self.events[-_PRINTED:])

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return one self-contained HTML page, to step through the entries without a kernel."""
        style = css("page_grid.css", "timeline_view.css")
        return html_page.deliver(html_page.page("Timeline", [self.part()], style), path)

    def part(self) -> html_page.Part:
        """Return the timeline as a part of an HTML page without a kernel."""
        state = {"position": self.position, "_lanes": dict(self._lanes)}
        return html_page.Part("Timeline", "timeline_view.js", state, {"_events": self._events})

    def to_csv(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return CSV, one line for each entry: number, lane, start and duration in µs, text, change, waking entry."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["number", "kind", "at_us", "took_us", "text", "change", "woken_by"])
        for each in timeline_lanes.events(list(self._timeline), zero_ns(self._timeline)):
            gap = "" if each["gap"] is None else "nobody" if each["gap"] < 0 else each["gap"]
            writer.writerow([each[key] for key in ("n", "lane", "at", "took", "text", "change")] + [gap])
        return html_page.deliver(out.getvalue(), path)

    def fallback(self) -> dict[str, str]:
        """Return the lanes as a picture, and the table, by MIME type."""
        picture = self.picture()
        rows = [(f"{each['at']:,.1f}", _took(each["took"]), each["text"], each["change"]) for each in self.events]
        table = html_table("Timeline", ("at, µs", "took, µs", "what happened", "what changed"), rows)
        return {"text/html": picture._repr_html_() + table, "text/plain": picture.alt}


def _took(us: float) -> str:
    return "not ended" if us < 0 else f"{us:,.1f}" if us else ""


def _packed(events: list[dict[str, Any]]) -> bytes:
    numbers, texts = columns.numbers, columns.texts
    lanes = [*timeline_lanes.LANES]
    return columns.packed(
        len(events),
        numbers((each["n"] for each in events), "i4"),
        numbers((lanes.index(each["lane"]) if each["lane"] in lanes else len(lanes) for each in events), "u1"),
        numbers((each["at"] for each in events), "f8"),
        numbers((each["took"] for each in events), "f8"),
        numbers((-2 if each["gap"] is None else each["gap"] for each in events), "i4"),
        texts(each["text"] for each in events),
        texts(each["change"] for each in events),
    )
