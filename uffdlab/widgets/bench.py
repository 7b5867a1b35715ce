"""Bench: all of the widgets as one workbench, with a region and a userfaultfd to begin with."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import ipywidgets  # type: ignore[import-untyped]

from uffdlab.errors import UffdlabError
from uffdlab.widgets._box import LabBox, Said
from uffdlab.widgets.fault_log import FaultLog
from uffdlab.widgets.ioctl_panel import IoctlPanel
from uffdlab.widgets.lab_panel import LabPanel
from uffdlab.widgets.page_grid import PageGrid
from uffdlab.widgets.pte_inspector import PteInspector
from uffdlab.widgets.timeline_view import TimelineView

if TYPE_CHECKING:
    from uffdlab.lab import Lab


class Bench(LabBox):
    """A grid of a new region's pages, touches and ioctls on them, faults, timeline, page-table entries.

    The region's pages are in the page cache and not mapped, so a touch of one is a minor fault once it is registered.

    Parameters
    ----------
    lab : Lab
        Where the region is mapped.
    pages : int
        How many pages.
    memory : str
        As of :meth:`uffdlab.Lab.map`.

    Attributes
    ----------
    region : Region
    uffd : Userfaultfd
    grid : PageGrid
    """

    _keywords = ("lab", "pages", "memory")
    _parts: Sequence[ipywidgets.Widget] = ()

    def __init__(self, lab: Lab, *, pages: int = 64, memory: str = "shmem", **keywords: Any) -> None:
        self._lab, self._pages, self._memory = lab, pages, memory
        super().__init__([], **keywords)
        self.panel = LabPanel(lab)
        self.panel.picker.observe(self._booted, "lab")
        self._compose()

    def _compose(self) -> None:
        lab = self._lab
        self.region = lab.map(pages=self._pages, memory=self._memory)
        if self.region.has_alias:
            self.region.alias.fill()
        self.uffd = lab.userfaultfd()
        self.grid = PageGrid(self.region.snapshot()).follow(self.region)
        self.said = Said()
        ioctls = IoctlPanel(self.uffd, self.region, grid=self.grid, ioctl="UFFDIO_REGISTER")
        log = FaultLog(self.uffd, lab)
        view = TimelineView(lab.timeline, self.grid)
        inspector = PteInspector(self.region, grid=self.grid)
        self._parts = [self.grid, self.said, ioctls, log, view, inspector]
        tabs = ipywidgets.Tab([ioctls, log, view, inspector, self.panel])
        tabs.titles = ("ioctl", "faults", "timeline", "page tables", "lab")
        self.tabs = tabs
        self.children = [self.grid, ipywidgets.HBox([self._touch("read"), self._touch("write")]), self.said, tabs]

    def _touch(self, kind: str) -> ipywidgets.Button:
        button = ipywidgets.Button(description=f"{kind} the page", tooltip=f"{kind} the page under the grid's cursor")
        button.on_click(lambda _button: self.touch(kind))
        return button

    def touch(self, kind: str) -> None:
        """Touch the page under the grid's cursor, ``"read"`` or ``"write"``; it may wait as long as its fault does."""
        page = self.grid.cursor
        try:
            touch = self.region.write(page) if kind == "write" else self.region.read(page)
            self.said.text = f"{touch.what} began; if it waits, the faults tell"
        except UffdlabError as error:
            self.said.text = str(error)

    def _booted(self, change: dict[str, Any]) -> None:
        # The panel has closed the old lab; its parts show nothing that is left.
        self._end_parts()
        self._lab = change["new"]
        self._compose()

    def _end_parts(self) -> None:
        for part in self._parts:
            part.close()
        self._parts = ()

    def close(self) -> None:
        """Take all of it away; the lab stays."""
        self._end_parts()
        super().close()

    def to_html(self) -> str:
        """Give each part's own form for pages without a live kernel."""
        texts = [self.grid.picture()._repr_html_()]
        texts += [part.to_html() for part in self._parts[2:]]
        return f"<h2>{html.escape(repr(self._lab))}</h2>" + "".join(texts)
