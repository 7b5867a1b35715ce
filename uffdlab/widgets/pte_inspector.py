"""PteInspector: one page's entry as a bit field, and the way to it from the top page table, through both mappings."""

from __future__ import annotations

import csv
import html
import io
from typing import TYPE_CHECKING, Any

import ipywidgets  # type: ignore[import-untyped]

from uffdlab import pte
from uffdlab.errors import UffdlabError, WitnessError
from uffdlab.widgets import _drawings, _export
from uffdlab.widgets._bitfield import bitfield, meanings
from uffdlab.widgets._live import LiveBox
from uffdlab.widgets._loop import later, soon
from uffdlab.widgets._succession import counterpart

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from uffdlab.figures import Picture
    from uffdlab.lab import Lab
    from uffdlab.region import Region
    from uffdlab.timeline import Entry
    from uffdlab.widgets.page_grid import PageGrid

_PAUSE = 0.15  # s
_NEWS = ("ioctl", "touch")


class PteInspector(_export.Pictured, LiveBox):
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
    _listening: Callable[[], None] | None = None

    def __init__(self, region: Region, *, grid: PageGrid | None = None, page: int = 0, **keywords: Any) -> None:
        first = region[page].first  # refuses a page that is not there
        self._region, self._due = region, False
        self._entry: tuple[str, Sequence[pte.Bit]] = "no entry was seen yet", ()
        style = {"description_width": "initial"}
        self.page = ipywidgets.BoundedIntText(value=first, min=0, max=region.pages - 1, description="page", style=style)
        self.said = ipywidgets.HTML()
        super().__init__([self.page, self.said], **keywords)
        self.page.observe(self.refresh, "value")
        if grid is not None:
            grid.observe(self._moved, "cursor")
            self._releases = (lambda: grid.unobserve(self._moved, "cursor"),)
        self._listen()

    def _listen(self) -> None:
        self._has_ended()
        timeline = self._region.lab.timeline
        self._listening = timeline.listen(self._happened)
        self.follow_lab(timeline)
        self.refresh()

    def _looks_at(self) -> tuple[Region, ...]:
        return (self._region,)

    def _has_ended(self) -> None:
        if self._listening is not None:
            self._listening()
        self._listening = None

    def _go_over(self, lab: Lab) -> None:
        self._region = counterpart(self._region, lab)
        self._listen()

    def close(self) -> None:
        """Take it away, with every listener it has."""
        self._has_ended()
        super().close()

    def _moved(self, change: dict[str, Any]) -> None:
        if 0 <= change["new"] < self._region.pages:
            self.page.value = change["new"]

    def _happened(self, entry: Entry) -> None:
        if entry.kind in _NEWS and not self._due:
            self._due = True
            soon(lambda: later(_PAUSE, self.refresh))

    def catch_up(self) -> None:
        """Show now what has happened."""
        if self._due:
            self.refresh()

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
            self._entry = f"{walk.what or hex(walk.address)}: {leaf.name} {leaf.word:#018x}", walk.bits()
            parts += [bitfield(*self._entry), meanings(walk.bits())]
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
        self._entry = caption, bits
        return bitfield(caption, bits) + meanings(bits)

    def static(self) -> str:
        """Give the bit field and the walks as HTML."""
        return str(self.said.value)

    def picture(self) -> Picture:
        """Draw the bit field as a figure with alt text."""
        return _drawings.bits(*self._entry)

    def to_csv(self, path: str | os.PathLike[str] | None = None) -> str:
        """Give one line a field of the entry, the highest first: lowest bit, width, name, value, what it means."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["bit", "width", "name", "value", "means"])
        writer.writerows([bit.number, bit.width, bit.name, bit.value, bit.meaning] for bit in self._entry[1])
        return _export.deliver(out.getvalue(), path)
