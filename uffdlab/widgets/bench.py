"""Bench: all widgets as one workbench, with a new region and a new userfaultfd."""

from __future__ import annotations

import csv
import functools
import html
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import ipywidgets  # type: ignore[import-untyped]
import traitlets

from uffdlab.errors import UffdlabError
from uffdlab.widgets._assets import css
from uffdlab.widgets._base.background import run_in_background
from uffdlab.widgets._base.controls import LabBox, StatusLine
from uffdlab.widgets._base.lab_lifecycle import Follower, counterpart, counterpart_userfaultfd
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


_NARROW = 256  # pages; a grid of more takes the whole width


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
        tabs.titles = ("ioctl", "faults", "timeline", "page tables", "lab")
        self.tabs = tabs
        tabs.layout.flex, tabs.layout.min_width = "2 1 480px", "0"
        left = ipywidgets.VBox(
            [ipywidgets.HBox([self._touch("read"), self._touch("write")]), self.status, self.grid],
            layout={"flex": "1 1 340px" if pages <= _NARROW else "1 1 100%", "min_width": "0"},
        )
        self.children = [ipywidgets.HBox([left, tabs], layout={"flex_flow": "row wrap"})]
        self.add_class("uffdlab-bench")
        self.follow_lab(lab.timeline)

    def _switch_to(self, lab: Lab) -> None:
        # The parts switch by themselves, to the same region.
        self._lab = lab
        self.region, self.uffd = counterpart(self.region, lab), counterpart_userfaultfd(self.uffd, lab)
        self.status.text = "a new region; nothing is registered yet"

    def _touch(self, kind: str) -> ipywidgets.Button:
        button = ipywidgets.Button(tooltip=f"{kind} the page under the grid's cursor", layout={"width": "auto"})
        traitlets.dlink((self.grid, "cursor"), (button, "description"), lambda page: f"{kind} page {page}")
        button.on_click(
            lambda _button: run_in_background(
                functools.partial(self._touched, kind, self.grid.cursor), self._show_status
            )
        )
        return button

    def touch(self, kind: str) -> None:
        """Touch the page under the grid's cursor, ``"read"`` or ``"write"``; it waits until its fault is resolved."""
        self._show_status(self._touched(kind, self.grid.cursor))

    def _touched(self, kind: str, page: int) -> str:
        try:
            touch = self.region.write(page) if kind == "write" else self.region.read(page)
        except UffdlabError as error:
            return str(error)
        return f"{touch.what} started; if it waits, the faults tab shows it"

    def _show_status(self, text: str) -> None:
        self.status.text = text

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

    def static(self) -> str:
        """Return the static form of each part, for pages without a live kernel."""
        texts = [self.grid.picture()._repr_html_(), self.timeline.fallback()["text/html"]]
        texts += [part.static() for part in (self.ioctls, self.faults, self.inspector, self.panel)]
        return f"<h2>{html.escape(repr(self._lab))}</h2>" + "".join(texts)

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
        title = repr(self._lab)
        parts = [self.grid.part(), self.timeline.part()]
        return html_page.deliver(html_page.page(title, parts, style, after=f'<div class="uffdlab">{rest}</div>'), path)
