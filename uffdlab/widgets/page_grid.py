"""PageGrid: the pages of a snapshot as cells, to inspect, select and compare."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
import traitlets

from uffdlab import figures
from uffdlab.errors import UsageError
from uffdlab.target.region import PageRange
from uffdlab.widgets._assets import css, javascript
from uffdlab.widgets._base.background import BackgroundReader
from uffdlab.widgets._base.event_loop import later, run_in_loop
from uffdlab.widgets._base.lab_lifecycle import counterpart
from uffdlab.widgets._base.live import LiveWidget
from uffdlab.widgets._data.page_codes import MIXED_DATA, PageCodes
from uffdlab.widgets._export import html_page

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

    from uffdlab.lab import Lab
    from uffdlab.observations.snapshot import Snapshot
    from uffdlab.target.region import MemoryMapping, Region

_MODES = ("side", "flicker", "changed", "after")
_MOST_CHANGES = 4
_CHANGES = ("ioctl", "touch")
_PAUSE = 0.05  # s between an event and the snapshot after it: events often come in bursts


class PageGrid(html_page.Pictured, LiveWidget):
    """The pages of one snapshot, or of two: before and after.

    Up to 2,048 pages are shown as cells with a letter, a colour and a hatch; more as a map that zooms from all pages
    down to one.  Each page costs one byte on the wire, or two with more than 256 kinds of entry.  Only the range of
    changed pages is sent.

    Parameters
    ----------
    snapshot : Snapshot
        The snapshot to show; of two, the later one.
    before : Snapshot, optional
        The earlier snapshot, of the same pages.
    mode : str
        With two: ``"side"`` (side by side), ``"flicker"``, ``"changed"`` (only what changed), ``"after"``.

    Attributes
    ----------
    selection : tuple of int
        Trait.  Number of the first page and count of pages, or empty.
    cursor : int
        Trait.  The page with the keyboard focus.

    Raises
    ------
    UsageError
        If there are no pages, or the two snapshots show different pages.
    """

    _esm = javascript("page_grid.js")
    _css = css("page_grid.css")
    _keywords = ("snapshot", "before", "mode")

    mode = traitlets.Enum(_MODES, "side").tag(sync=True)
    selection = traitlets.List(traitlets.Int(), maxlen=2).tag(sync=True)
    cursor = traitlets.Int(0).tag(sync=True)
    _chooses = traitlets.Bool(True).tag(sync=True)  # whether the browser offers the choice of mode
    _meta = traitlets.Dict().tag(sync=True)
    _kinds: traitlets.List[dict[str, Any]] = traitlets.List(traitlets.Dict()).tag(sync=True)
    _codes = traitlets.Bytes().tag(sync=True)
    _before = traitlets.Bytes().tag(sync=True)
    _status = traitlets.Unicode().tag(sync=True)

    def __init__(self, snapshot: Snapshot, before: Snapshot | None = None, **keywords: Any) -> None:
        if not len(snapshot):
            raise UsageError("there are no pages to show; take a snapshot of at least one page")
        self._seen = PageCodes()
        self._numbers: NDArray[np.uint32] = np.zeros(0, np.uint32)
        self._source: MemoryMapping | PageRange | None = None
        self._region: Region | None = None
        self._update_pending = self._stale = False
        self._live_ns = -1
        self._taken: Snapshot | None = None
        self._reader = BackgroundReader(self._read_waiting, self._show_live, self._show_end)
        self._closing = (self._reader.close,)
        self._snapshot, self._earlier = snapshot, before
        super().__init__(**keywords)
        self.cursor = snapshot.first
        self.show(snapshot, before)

    @traitlets.validate("selection")
    def _selection_within(self, proposal: dict[str, Any]) -> list[int]:
        chosen = list(proposal["value"])
        if chosen:
            pages = self._snapshot.pages
            if len(chosen) != 2 or chosen[1] < 1 or chosen[0] not in pages or chosen[0] + chosen[1] - 1 not in pages:
                raise traitlets.TraitError(
                    f"selection={chosen} is not a range of these pages; it must be [first, count] within "
                    f"{pages.start} to {pages.stop - 1}, or []"
                )
        return chosen

    # --- contents

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot that is shown; of two, the later one."""
        return self._snapshot

    @property
    def before(self) -> Snapshot | None:
        """The earlier snapshot of two."""
        return self._earlier

    @property
    def pages(self) -> slice:
        """The selected pages, or all if none are selected; use as ``region[grid.pages]``."""
        first, count = self.selection or (self._snapshot.first, len(self._snapshot))
        return slice(first, first + count)

    def show(self, snapshot: Snapshot, before: Snapshot | None = None) -> None:
        """Show another snapshot; only changed pages are sent.

        Parameters
        ----------
        snapshot : Snapshot
        before : Snapshot, optional
            The earlier one of two.  By default only `snapshot` is shown.
        """
        if not len(snapshot):
            raise UsageError("there are no pages to show; take a snapshot of at least one page")
        if before is not None:
            _ = snapshot - before  # raises for other pages
        numbers, earlier = self._seen.codes(snapshot), None if before is None else self._seen.codes(before)
        old = self._snapshot, self._numbers
        same_pages = old[1].size == numbers.size and old[0].pages == snapshot.pages and old[0].start == snapshot.start
        self._snapshot, self._earlier, self._numbers = snapshot, before, numbers
        if not same_pages and self.selection:
            self.selection = []
        # The kinds first, so that the browser knows the new codes.
        packed = self._seen.pack(numbers)
        width = len(packed) // numbers.size
        with self.hold_sync():
            self._kinds = list(self._seen.table)
            self._meta = self._facts()
            self._before = b"" if earlier is None else self._seen.pack(earlier)
            if same_pages and len(self._codes) == len(packed):
                self._status = self._what_changed(*old)
            else:
                self._codes = packed
        if self._codes != packed:
            self._send_changes(old[1], packed, width)

    def _send_changes(self, old: NDArray[np.uint32], packed: bytes, width: int) -> None:
        # The browser patches its own copy; here the trait changes without being sent as a whole.
        changed = np.flatnonzero(old != self._numbers)
        low, high = int(changed[0]), int(changed[-1]) + 1
        self._trait_values["_codes"] = packed
        self.send({"patch": low}, [packed[low * width : high * width]])

    def _facts(self) -> dict[str, Any]:
        one = self._snapshot
        where = f"{f' on {one.kernel}' if one.kernel else ''}, seen by {one.witness}"
        pages = "1 page" if len(one) == 1 else f"{len(one):,} pages"
        return {
            "title": f"{one.region}: {pages} of {_size(one.page_size)}{where}",
            "region": one.region,
            "first": one.first,
            "count": len(one),
            "page_size": one.page_size,
            "start": hex(one.start),
            "mixed": MIXED_DATA,
        }

    def _what_changed(self, old: Snapshot, numbers: NDArray[np.uint32]) -> str:
        # Usually few of a million pages change: compare only from the first changed page to the last.
        changed = np.flatnonzero(numbers != self._numbers)
        if not changed.size:
            return "no change"
        within = slice(int(changed[0]), int(changed[-1]) + 1)
        changes = [str(change) for change in (self._snapshot[within] - old[within]).changes()]
        more = [f"and {len(changes) - _MOST_CHANGES} more kinds of change"] if len(changes) > _MOST_CHANGES else []
        return "; ".join([*changes[:_MOST_CHANGES], *more]) or "no change"

    # --- live

    def follow(self, region: MemoryMapping | PageRange) -> Self:
        """Show `region` now, and again after every ioctl, touch and snapshot of its lab.

        If the grid compares two snapshots, the earlier one stays for comparison.
        """
        lab = _mapping_of(region).lab
        self._has_ended()
        self._reader.forget()
        self._live_ns = -1
        self._source, self._region = region, _region_of(region)
        self._releases = (lab.timeline.listen(self._on_timeline),)
        self.follow_lab(lab.timeline)
        self.refresh()
        return self

    def unfollow(self) -> None:
        """Stop following the region."""
        self._has_ended()
        self._reader.forget()
        self.leave_lab()
        self._source = self._region = None

    def _needed_regions(self) -> tuple[Region, ...]:
        return () if self._region is None else (self._region,)

    def _has_ended(self) -> None:
        for release in self._releases:
            release()
        self._releases = ()

    def _switch_to(self, lab: Lab) -> None:
        old, region = self._source, self._region
        if old is None or region is None:
            return
        new: MemoryMapping = counterpart(region, lab)
        if _mapping_of(old) is not region:
            new = counterpart(region, lab).alias
        self.follow(new[old.first : old.first + old.count] if isinstance(old, PageRange) else new)

    def _on_timeline(self, entry: Any) -> None:
        # Called on any thread.  A snapshot that was taken elsewhere is shown, not taken again.
        if entry.kind == "snapshot":
            if self._reader.here or not self._is_of_these(entry.what):
                return
            self._taken = entry.what
        elif entry.kind in _CHANGES:
            self._stale = True
        else:
            return
        if not self._update_pending:
            self._update_pending = True
            run_in_loop(self._update)

    def _update(self) -> None:
        later(_PAUSE, self._catch_up)

    def _catch_up(self) -> None:
        # Many events may have happened since; one snapshot is enough.
        self._update_pending = False
        if not self._releases:
            return
        if self._stale:
            self._stale = False
            self._reader.ask()
        elif self._taken is not None:
            self._show_live(self._taken)

    def catch_up(self) -> None:
        """Show every pending update now."""
        if self._releases and (self._update_pending or self._reader.busy):
            self._update_pending = False
            self.refresh()

    def _is_of_these(self, taken: Snapshot) -> bool:
        here = self._snapshot
        return (taken.region, taken.pages, taken.start) == (here.region, here.pages, here.start)

    def refresh(self) -> None:
        """Take a snapshot of the followed region and show it."""
        if self._source is not None:
            self._stale = False
            self._reader.now()

    def _read_waiting(self) -> Snapshot | None:
        source = self._source
        return None if source is None else source.snapshot()

    def _show_end(self, error: Exception) -> None:
        # The lab has ended for any reason: show why, and stop.
        if self._releases:
            self._has_ended()
            self.ended = str(error)

    def _show_live(self, taken: Snapshot | None) -> None:
        # Two threads may have taken a snapshot: show the later one.
        self._taken = None
        if taken is not None and taken.time_ns >= self._live_ns:
            self._live_ns = taken.time_ns
            before = self._earlier if self._earlier is not None and self._earlier.pages == taken.pages else None
            self.show(taken, before)

    # --- requests from the browser

    def _handle(self, content: dict[str, Any]) -> None:
        super()._handle(content)
        if content.get("ask") != "entry":
            return
        of = self._earlier if content.get("which") == "before" and self._earlier is not None else self._snapshot
        page = int(content["page"])
        if page in of.pages:
            self.send({"id": content["id"], "entry": html_page.entry(of, page)})

    # --- without a live kernel

    def picture(self) -> figures.Picture:
        """Return the contents as a picture with alt text."""
        if self._earlier is None:
            return figures.grid(self._snapshot)
        return figures.compare(self._earlier, self._snapshot)

    def to_csv(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return a CSV table, one line for each page; with two snapshots each begins with ``before`` or ``after``."""
        if self._earlier is None:
            return self._snapshot.to_csv(path)
        head, *after = self._snapshot.to_csv().splitlines()
        lines = [f"when,{head}", *(f"before,{line}" for line in self._earlier.to_csv().splitlines()[1:])]
        return html_page.deliver("\n".join([*lines, *(f"after,{line}" for line in after)]) + "\n", path)

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return one self-contained HTML page, interactive without a kernel; write it to `path` if given."""
        part = self.part()
        return html_page.deliver(html_page.page(part.title, [part], css("page_grid.css")), path)

    def part(self, title: str = "") -> html_page.Part:
        """Return the grid as a part of an HTML page without a kernel, with a title."""
        state = {
            name: getattr(self, name)
            for name in ("mode", "selection", "cursor", "_chooses", "_meta", "_kinds", "_status")
        }
        data = {"_codes": self._codes, "_before": self._before}
        snapshots = {"after": self._snapshot, "before": self._earlier}
        return html_page.Part(title or self._facts()["title"], "page_grid.js", state, data, snapshots)

    def fallback(self) -> dict[str, str]:
        """Return the picture, with its alt text and the changes, by MIME type."""
        data, _ = self.picture()._repr_mimebundle_()
        return data

    def __repr__(self) -> str:
        return f"<PageGrid of {self._snapshot!r}>"


def _mapping_of(where: MemoryMapping | PageRange) -> MemoryMapping:
    return where.mapping if isinstance(where, PageRange) else where


def _region_of(where: MemoryMapping | PageRange) -> Region:
    # The region itself, or the one whose alias it is.
    mapping = _mapping_of(where)
    regions: tuple[Region, ...] = mapping.lab.regions
    found = next((each for each in regions if mapping is each or (each.has_alias and mapping is each.alias)), None)
    return found or cast("Region", mapping)  # already unmapped: use the mapping itself


def _size(size: int) -> str:
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB")):
        if size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size >> 10} KiB"
