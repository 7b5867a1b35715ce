"""PteInspector: the entry of one page as a bit field, and its page walk, through both mappings."""

from __future__ import annotations

import csv
import html
import io
from typing import TYPE_CHECKING, Any

import ipywidgets  # type: ignore[import-untyped]

from uffdlab import pte
from uffdlab.errors import WitnessError
from uffdlab.widgets._base.lab_lifecycle import counterpart
from uffdlab.widgets._base.live import LiveBox
from uffdlab.widgets._base.shared_reader import SharedReader
from uffdlab.widgets._data.moment import moment
from uffdlab.widgets._export import drawings, html_page
from uffdlab.widgets._export.bitfield import bitfield, meanings

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from uffdlab.figures import Picture
    from uffdlab.lab import Lab
    from uffdlab.observations.snapshot import Snapshot
    from uffdlab.target.region import Region
    from uffdlab.widgets.page_grid import PageGrid

    _Shown = tuple[tuple[str, Sequence[pte.Bit]], str]  # an entry's caption and bits, and all as HTML


class PteInspector(html_page.Pictured, LiveBox):
    """The page-table entry of one page, read again after every ioctl and touch.

    Parameters
    ----------
    region : Region
        The region with the page; its alias is walked too.
    grid : PageGrid, optional
        The inspector shows the page under its cursor.
    page : int
        The page that is shown initially.
    """

    _keywords = ("region", "grid", "page")

    def __init__(self, region: Region, *, grid: PageGrid | None = None, page: int = 0, **keywords: Any) -> None:
        first = region[page].first  # raises if the region has no such page
        self._region, self._grid = region, grid
        self._reader = SharedReader(self._read_page, self._show, self._show_error)
        self._closing = (self._reader.close,)
        self._entry: tuple[str, Sequence[pte.Bit]] = "no entry has been read yet", ()
        style = {"description_width": "initial"}
        self.page = ipywidgets.BoundedIntText(value=first, min=0, max=region.pages - 1, description="page", style=style)
        self.table = ipywidgets.HTML()
        super().__init__([self.page, self.table], **keywords)
        self.page.observe(self._start_update, "value")
        self.table.observe(self.update_soon, "value")
        if grid is not None:
            grid.observe(self._moved, "cursor")
            grid.observe(self._start_update, "_steps")
            self._releases = (
                lambda: grid.unobserve(self._moved, "cursor"),
                lambda: grid.unobserve(self._start_update, "_steps"),
            )
        self._listen()

    def _listen(self) -> None:
        timeline = self._region.lab.timeline
        self._reader.attach(timeline)
        self.follow_lab(timeline)
        self.refresh()

    def _needed_regions(self) -> tuple[Region, ...]:
        return (self._region,)

    def _has_ended(self) -> None:
        self._reader.detach()

    def _switch_to(self, lab: Lab) -> None:
        self._region = counterpart(self._region, lab)
        self._listen()

    def _moved(self, change: dict[str, Any]) -> None:
        if 0 <= change["new"] < self._region.pages:
            self.page.value = change["new"]

    def catch_up(self) -> None:
        """Show every pending update now."""
        if self._reader.pending:
            self.refresh()

    def refresh(self) -> None:
        """Walk to the page again, with all widgets of the lab."""
        self._reader.now()

    def _start_update(self, _change: object = None) -> None:
        if not self._show_past():
            self._reader.ask()

    def _show_past(self) -> bool:
        # If the user has stepped back in the timeline, shows the entry of then, as the grid does.
        grid = self._grid
        if grid is None or not grid.past or self.page.value not in grid.snapshot.pages:
            return False
        self._entry, text = self._of_snapshot(grid.snapshot[self.page.value - grid.snapshot.first])
        note = "The walk through the page tables can only be read now: the newest entry of the timeline shows it."
        self.table.value = f'<p class="uffdlab-past">{html.escape(grid.past)}</p>{text}<p>{note}</p>'
        return True

    def _read_page(self) -> _Shown:
        try:
            return self._walked()
        except WitnessError:
            return self._read_by_witness()

    def _show(self, seen: _Shown) -> None:
        if self._show_past():
            return
        self._entry, text = seen
        when = moment(self._region.lab.timeline, self._reader.when_ns)
        self.table.value = f"<p>as of {when}</p>{text}"

    def _show_error(self, error: Exception) -> None:
        self.table.value = f"<p>{html.escape(str(error))}</p>"

    def _walked(self) -> _Shown:
        walks = self._region.walk(self.page.value)
        parts, entry = [], self._entry
        for walk in walks[:1]:
            leaf = walk.leaf
            entry = f"{walk.what or hex(walk.address)}: {leaf.name} {leaf.value:#018x}", walk.bits()
            parts += [bitfield(*entry), meanings(walk.bits())]
        around = '<div style="overflow-x:auto;line-height:1.5" tabindex="0" role="group" aria-label="page tables">'
        return entry, f"{''.join(parts)}{around}{walks._repr_html_()}</div>"

    def _read_by_witness(self) -> _Shown:
        # Where the host cannot read the guest's memory it cannot walk the tables.
        return self._of_snapshot(self._region.lab.snapshot(self._region[self.page.value]))

    @staticmethod
    def _of_snapshot(one: Snapshot) -> _Shown:
        entry, level = int(one.entries[0]), int(one.levels[0])
        bits = pte.explain(one.form, entry, level)
        caption = f"page {one.first} of {one.region}, seen by {one.witness}: {entry:#018x}"
        return (caption, bits), bitfield(caption, bits) + meanings(bits)

    def static(self) -> str:
        """Return the bit field and the walks as HTML."""
        return str(self.table.value)

    def picture(self) -> Picture:
        """Return the bit field as a picture with alt text."""
        return drawings.bits(*self._entry)

    def to_csv(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return CSV, one line for each field, the highest first: lowest bit, width, name, value, meaning."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["bit", "width", "name", "value", "means"])
        writer.writerows([bit.number, bit.width, bit.name, bit.value, bit.meaning] for bit in self._entry[1])
        return html_page.deliver(out.getvalue(), path)
