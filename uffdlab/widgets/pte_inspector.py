"""PteInspector: one page's entry as a bit field, and the way to it from the top page table, through both mappings."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import ipywidgets  # type: ignore[import-untyped]

from uffdlab import pte
from uffdlab.errors import UffdlabError, WitnessError
from uffdlab.widgets._bitfield import bitfield, meanings
from uffdlab.widgets._box import LabBox
from uffdlab.widgets._loop import later, soon

if TYPE_CHECKING:
    from uffdlab.region import Region
    from uffdlab.timeline import Entry
    from uffdlab.widgets.page_grid import PageGrid

_PAUSE = 0.15  # s
_NEWS = ("ioctl", "touch")


class PteInspector(LabBox):
    """The page-table entry of one page, looked at again after every ioctl and touch.

    Parameters
    ----------
    region : Region
        Whose page it is; its alias is walked too.
    grid : PageGrid, optional
        The page under its cursor is shown.
    page : int
        The page to begin with.
    """

    _keywords = ("region", "grid", "page")

    def __init__(self, region: Region, *, grid: PageGrid | None = None, page: int = 0, **keywords: Any) -> None:
        first = region[page].first  # refuses a page that is not there
        self._region, self._due = region, False
        style = {"description_width": "initial"}
        self.page = ipywidgets.BoundedIntText(value=first, min=0, max=region.pages - 1, description="page", style=style)
        self.said = ipywidgets.HTML()
        super().__init__([self.page, self.said], **keywords)
        self.page.observe(self.refresh, "value")
        releases = [region.lab.timeline.listen(self._happened)]
        if grid is not None:
            grid.observe(self._moved, "cursor")
            releases.append(lambda: grid.unobserve(self._moved, "cursor"))
        self._releases = tuple(releases)
        self.refresh()

    def _moved(self, change: dict[str, Any]) -> None:
        if 0 <= change["new"] < self._region.pages:
            self.page.value = change["new"]

    def _happened(self, entry: Entry) -> None:
        if entry.kind in _NEWS and not self._due:
            self._due = True
            soon(lambda: later(_PAUSE, self.refresh))

    def refresh(self, _change: object = None) -> None:
        """Walk to the page anew."""
        self._due = False
        if self.comm is None:
            return
        try:
            self.said.value = self._walked()
        except WitnessError:
            self.said.value = self._asked_of_a_witness()
        except UffdlabError as error:
            self.said.value = f"<p>{html.escape(str(error))}</p>"

    def _walked(self) -> str:
        walks = self._region.walk(self.page.value)
        parts = []
        for walk in walks[:1]:
            leaf = walk.leaf
            parts += [bitfield(f"{walk.what or hex(walk.address)}: {leaf.name} {leaf.word:#018x}", walk.bits())]
            parts += [meanings(walk.bits())]
        around = '<div style="overflow-x:auto;line-height:1.5" tabindex="0" role="group" aria-label="page tables">'
        return f"{''.join(parts)}{around}{walks._repr_html_()}</div>"

    def _asked_of_a_witness(self) -> str:
        # Where the host cannot see the guest's memory there are no tables to walk.
        try:
            one = self._region.lab.snapshot(self._region[self.page.value])
        except UffdlabError as error:
            return f"<p>{html.escape(str(error))}</p>"
        word, level = int(one.words[0]), int(one.levels[0])
        bits = pte.explain(one.form, word, level)
        caption = f"page {one.first} of {one.region}, seen by {one.witness}: {word:#018x}"
        return bitfield(caption, bits) + meanings(bits)

    def to_html(self) -> str:
        """Give the bit field and the walks as HTML."""
        return str(self.said.value)
