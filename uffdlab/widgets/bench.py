"""Bench: all widgets as one workbench, with a new region and a new userfaultfd."""

from __future__ import annotations

import csv
import functools
import html
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets  # type: ignore[import-untyped]
import traitlets

from uffdlab.errors import FaultUnresolved, UffdlabError
from uffdlab.observations.page_text import page_range_text
from uffdlab.pte import State
from uffdlab.uapi import RegisterMode
from uffdlab.widgets._assets import css
from uffdlab.widgets._base.background import run_in_background
from uffdlab.widgets._base.controls import LabBox, StatusLine
from uffdlab.widgets._base.event_loop import run_in_loop
from uffdlab.widgets._base.lab_lifecycle import Follower, announce, counterpart, counterpart_userfaultfd
from uffdlab.widgets._base.live import EndBar
from uffdlab.widgets._base.static_output import OutputHolder
from uffdlab.widgets._data import page_marks
from uffdlab.widgets._export import html_page
from uffdlab.widgets._export.picture_stack import PictureStack
from uffdlab.widgets.fault_log import FaultLog
from uffdlab.widgets.ioctl_panel import IoctlPanel
from uffdlab.widgets.lab_panel import LabPanel
from uffdlab.widgets.page_grid import PageGrid
from uffdlab.widgets.pte_inspector import PteInspector
from uffdlab.widgets.timeline_view import TimelineView

if TYPE_CHECKING:
    import os

    from uffdlab.figures import Picture
    from uffdlab.lab import Lab
    from uffdlab.target.region import Region
    from uffdlab.target.timeline import TimelineEntry
    from uffdlab.target.touch import Touch


_NARROW = 256  # pages; a grid of more takes the whole width
_SMALL_PAGE = 4096  # bytes
_TABS = ("ioctl", "faults", "timeline", "page tables", "lab")
_NO_FAULT_AROUND = int(RegisterMode.MINOR | RegisterMode.WP)
_FAULTS = _TABS.index("faults")
_START_OVER = "unmap this region and close its userfaultfd; begin again with new ones"


class Bench(html_page.Pictured, Follower, LabBox):
    """A grid of a new region's pages, touches and ioctls on them, faults, timeline, page-table entries.

    The region's pages are in the page cache but not mapped, so touching one after registration is a minor fault.

    Parameters
    ----------
    lab : Lab
        Where the region is mapped.
    pages : int
        Number of pages.
    memory : str
        Kind of memory, as for :meth:`uffdlab.Lab.map`.

    Attributes
    ----------
    region : Region
    uffd : Userfaultfd
    grid : PageGrid
    ioctls : IoctlPanel
    faults : FaultLog
    timeline : TimelineView
    inspector : PteInspector
    panel : LabPanel
        The parts.
    """

    _keywords = ("lab", "pages", "memory")
    _parts: Sequence[ipywidgets.Widget] = ()

    def __init__(self, lab: Lab, *, pages: int = 64, memory: str = "shmem", **keywords: Any) -> None:
        self._lab = lab
        self._started: dict[int, Touch[object]] = {}  # by the grid's buttons; they have not ended
        self._shown: set[tuple[int, str]] = set()  # the faults of these touches that the status line has shown
        self._warned = ""  # the kind of touch that the user was warned of
        self._advice = ""  # what to do first, as the status line says it
        super().__init__([], **keywords)
        self.region = lab.map(pages=pages, memory=memory)
        if self.region.has_alias:
            self.region.alias.fill()
        self.uffd = lab.userfaultfd()
        self.grid = PageGrid(self.region.snapshot()).follow(self.region)
        self.status = StatusLine()
        self.status.add_class("uffdlab-touch-status")
        self.ioctls = IoctlPanel(self.uffd, self.region, grid=self.grid, ioctl="UFFDIO_REGISTER")
        self.faults = FaultLog(self.uffd, lab)
        self.timeline = TimelineView(lab.timeline, self.grid)
        self.inspector = PteInspector(self.region, grid=self.grid)
        self.panel = LabPanel(lab)
        self._parts = [self.grid, self.status, self.ioctls, self.faults, self.timeline, self.inspector, self.panel]
        tabs = ipywidgets.Tab(self._parts[2:])
        tabs.titles = _TABS
        self.tabs = tabs
        tabs.layout.flex, tabs.layout.min_width = "2 1 480px", "0"
        self.touches = {kind: self._touch_button(kind) for kind in ("read", "write")}
        self.again = ipywidgets.Button(description="start over", tooltip=_START_OVER, layout={"width": "auto"})
        self.again.on_click(lambda _button: run_in_background(self._start_over, self._show_status))
        buttons = ipywidgets.HBox([*self.touches.values(), self.again], layout={"flex_flow": "row wrap"})
        left = ipywidgets.VBox(
            [buttons, self.status, self.grid],
            layout={"flex": "1 1 340px" if pages <= _NARROW else "1 1 100%", "min_width": "0"},
        )
        self._bar = EndBar(self)
        self._bar.add_class("uffdlab-bench-bar")
        for name in ("ended", "_starts"):
            traitlets.dlink((self, name), (self._bar, name))
        self.children = [self._bar, ipywidgets.HBox([left, tabs], layout={"flex_flow": "row wrap"})]
        self.add_class("uffdlab-bench")
        self._show_new()
        self.grid.observe(self._label_touches, ["cursor", "_registered"])
        self.grid.observe(self._show_registered, "_registered")
        self.faults.observe(self._count_faults, "_waiting")
        for part, names in (
            (self.grid, ["_codes", "_when"]),
            (self.timeline, "_events"),
            (self.faults, ["_rows", "_waiting"]),
            (self.status, "text"),
            (self.ioctls.status, "text"),
            (self.inspector.table, "value"),
        ):
            part.observe(self.update_soon, names)
        self._label_touches()
        self._count_faults()
        self._follow(lab)

    def _needed_regions(self) -> tuple[Region, ...]:
        return (self.region,)

    def _follow(self, lab: Lab) -> None:
        for release in self._releases:
            release()
        self._releases = (lab.timeline.listen(self._on_touch_end),)
        self.follow_lab(lab.timeline)

    def _switch_to(self, lab: Lab) -> None:
        # The parts switch by themselves, to the same region.
        self._lab = lab
        self._follow(lab)
        self.region, self.uffd = counterpart(self.region, lab), counterpart_userfaultfd(self.uffd, lab)
        self._started.clear()
        self.grid.selection, self.grid.cursor = [], 0
        self.ioctls.ioctl.value = "UFFDIO_REGISTER"
        self.ioctls.check()
        self._show_new()

    def _show_new(self) -> None:
        filled = "its pages are in the page cache, not mapped; " if self.region.has_alias else ""
        self._advice = f"{self.region.name} is new: {filled}nothing is registered yet. Register pages first (tab ioctl)"
        self.status.text = self._advice

    def _show_registered(self, change: dict[str, Any]) -> None:
        # In place of an advice, never of what came of a touch.  The grid does not know what was registered in the past.
        if self.grid.past or self.status.text != self._advice:
            return
        if change["new"]:
            first, count, modes = change["new"][0]
            self._advice = (
                f"registered for {modes}: {page_range_text(first, first + count - 1)}. Choose a page in the grid, then "
                "read or write it: a fault comes to the tab faults"
            )
        else:
            self._advice = "nothing is registered. Register pages first (tab ioctl)"
        self.status.text = self._advice

    def _touch_button(self, kind: str) -> ipywidgets.Button:
        button = ipywidgets.Button(tooltip=f"{kind} the page under the grid's cursor", layout={"width": "auto"})
        button.on_click(lambda _button: self._clicked(kind))
        return button

    def _label_touches(self, _change: object = None) -> None:
        # The cursor has moved, or other pages are registered: a warning was about another state.
        self._warned = ""
        for kind, button in self.touches.items():
            button.description = f"{kind} page {self.grid.cursor:,}"

    def _clicked(self, kind: str) -> None:
        page = self.grid.cursor
        warning = "" if self._warned == kind else self._why_not(kind, page)
        self._label_touches()
        if warning:
            self._warned = kind
            self.touches[kind].description = f"{kind} page {page:,} anyway"
            self._advice = self.status.text = warning
        else:
            run_in_background(functools.partial(self._touched, kind, page), self._show_started)

    def _why_not(self, kind: str, page: int) -> str:
        # A read maps the pages around it too, if they are in the page cache and the range is registered for neither
        # minor faults nor write-protection: do_fault_around() and uffd_disable_fault_around(), mm/memory.c.
        region = self.region
        if kind != "read" or not region.has_alias or region.page_size != _SMALL_PAGE:
            return ""
        if self.grid.snapshot.has(State.PRESENT)[page] or page_marks.registered_modes(region)[page] & _NO_FAULT_AROUND:
            return ""
        return (
            f"Page {page:,} is not registered for minor or wp. A read maps it at once, and up to 15 pages around it "
            "(fault-around), so nothing waits on them any more. Register first (tab ioctl), or press again."
        )

    def touch(self, kind: str) -> None:
        """Touch the page under the grid's cursor, ``"read"`` or ``"write"``; it waits until its fault is resolved."""
        self._show_started(self._touched(kind, self.grid.cursor))

    def _touched(self, kind: str, page: int) -> tuple[str, int]:
        # What came of it, and 0; or that it has started, and its number.
        try:
            touch = self.region.write(page) if kind == "write" else self.region.read(page)
        except UffdlabError as error:
            return str(error), 0
        self._started[touch.number] = touch
        outcome = self._outcome(touch)
        return (outcome, 0) if outcome else (f"the {kind} of page {page:,} has started", touch.number)

    def _show_started(self, started: tuple[str, int]) -> None:
        text, number = started
        ended = number and number not in self._started
        waits = any(number == shown for shown, _ in self._shown)
        if not ended and not waits:  # else that is shown already
            self.status.text = text
            self._show_waiting()

    def _show_waiting(self) -> None:
        # Once for each fault: a touch may wait again after its fault was resolved, for another reason.
        for each in self.faults.waiting:
            fault = each["id"], each["kind"]
            if each["id"] in self._started and fault not in self._shown:
                self._shown.add(fault)
                self.status.text = f"the {each['what']} waits ({each['kind']}); resolve its fault in the tab faults"
                self.tabs.selected_index = _FAULTS

    def _on_touch_end(self, entry: TimelineEntry) -> None:
        # Called on any thread.
        if entry.kind == "touch" and getattr(entry.what, "number", None) in self._started:
            run_in_loop(lambda: self._show_end(entry.what))

    def _show_end(self, touch: Touch[object]) -> None:
        text = self._outcome(touch)
        if text:
            self.status.text = text

    def _outcome(self, touch: Touch[object]) -> str:
        # What came of a touch, empty while it has not ended.
        try:
            end = touch.outcome(0)
        except FaultUnresolved:
            return ""
        except UffdlabError as error:
            self._started.pop(touch.number, None)
            return str(error)
        self._started.pop(touch.number, None)
        if not end.ok:
            return _why_failed(touch)
        page = self.region.page_of(touch.address)
        where = touch.what if page is None else f"page {page:,}"
        return f"{where} was read: it holds {end.value:,}" if touch.kind == "read" else f"{where} was written"

    def start_over(self) -> None:
        """Unmap the region, close the userfaultfd, and continue with a new region of the same kind and a new one."""
        self._show_status(self._start_over())

    def _start_over(self) -> str:
        try:
            # What waits goes on first: it has no userfaultfd any more.
            self.uffd.close()
            if self.region in self._lab.regions:
                self.region.unmap()
        except UffdlabError as error:
            return str(error)
        announce(self._lab, self._lab)
        return ""

    def _show_status(self, text: str) -> None:
        if text:
            self.status.text = text

    def _count_faults(self, _change: object = None) -> None:
        waiting = len(self.faults.waiting)
        titles = list(_TABS)
        titles[_FAULTS] = f"faults ({waiting})" if waiting else "faults"
        if list(self.tabs.titles) != titles:
            self.tabs.titles = titles
        self._show_waiting()

    def close(self) -> None:
        """Close all parts; a lab that you passed in stays open."""
        for part in self._parts:
            part.close()
        self._parts = ()
        self.leave_lab()
        super().close()

    def catch_up(self) -> None:
        """Show every pending update now."""
        for part in self._parts:
            part.catch_up()

    # --- without a live kernel

    def live_bundle(self) -> dict[str, Any]:
        """Return the MIME bundle of the live widget."""
        return {**super().live_bundle(), "text/plain": f"a bench for {self._lab!r}; its last state is below"}

    def output_part(self) -> OutputHolder:
        """Return the bar, which has JavaScript of its own."""
        return self._bar

    def keep(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Write all that the bench shows now to one HTML file, to hand in; it needs no Python and no network.

        Parameters
        ----------
        path : path, optional
            By default ``bench-KERNEL.html`` in the current folder.

        Returns
        -------
        Path
            The file.
        """
        file = Path(path or f"bench-{re.sub(r'[^A-Za-z0-9._+-]+', '-', self._lab.kernel)}.html")
        self.catch_up()
        self.to_html(file)
        return file

    def static(self) -> str:
        """Return the static form of each part, for pages without a live kernel."""
        texts = [self.grid.fallback()["text/html"], self.timeline.fallback()["text/html"]]
        texts += [part.static() for part in (self.ioctls, self.faults, self.inspector, self.panel)]
        return f"<h2>{html.escape(self._title())}</h2>" + "".join(texts)

    def _title(self) -> str:
        return repr(self._lab).strip("<>")

    def picture(self) -> Picture:
        """Return all parts stacked as one picture with alt text."""
        return PictureStack([part.picture() for part in self._printed()])

    def to_csv(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return the CSV of all parts; each line begins with the name of the part."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        for part in self._printed():
            name = type(part).__name__
            head, *rows = csv.reader(io.StringIO(part.to_csv()))
            writer.writerows([["part", *head], *([name, *row] for row in rows)])
        return html_page.deliver(out.getvalue(), path)

    def _printed(self) -> Sequence[Any]:
        return self.grid, self.timeline, self.ioctls, self.faults, self.inspector, self.panel

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return one self-contained HTML page: the interactive grid and timeline, then the other parts."""
        rest = "".join(part.static() for part in (self.ioctls, self.faults, self.inspector, self.panel))
        style = css("page_grid.css", "timeline_view.css")
        title = self._title()
        parts = [self.grid.part(), self.timeline.part()]
        return html_page.deliver(html_page.page(title, parts, style, after=f'<div class="uffdlab">{rest}</div>'), path)


def _why_failed(touch: Touch[object]) -> str:
    try:
        touch.result(0)
    except UffdlabError as error:
        return str(error)
    return ""
