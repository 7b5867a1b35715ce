"""PageGrid: the pages of a snapshot as cells, to inspect, select and compare."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any, NamedTuple, Self, cast

import numpy as np
import traitlets

from uffdlab import figures
from uffdlab.errors import UsageError
from uffdlab.observations.page_text import page_range_text
from uffdlab.observations.snapshot import Difference
from uffdlab.target.region import PageRange
from uffdlab.widgets._assets import css, javascript
from uffdlab.widgets._base.lab_lifecycle import counterpart
from uffdlab.widgets._base.live import LiveWidget
from uffdlab.widgets._base.shared_reader import SharedReader
from uffdlab.widgets._data import page_marks
from uffdlab.widgets._data.moment import moment
from uffdlab.widgets._data.page_codes import MIXED_DATA, PageCodes
from uffdlab.widgets._export import html_page
from uffdlab.witnesses.selection import ABOUT

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

    from uffdlab.lab import Lab
    from uffdlab.observations.snapshot import Snapshot
    from uffdlab.target.region import MappedPages, MemoryMapping, Region

_MODES = ("side", "flicker", "changed", "after")
_MOST_CHANGES = 4


class _Seen(NamedTuple):
    # What one reading gives: the pages, the ranges that are registered, where touches wait, whether one may wait soon.
    snapshot: Snapshot
    registered: list[list[Any]]
    waiting: list[list[Any]]
    more: bool


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
    across_labs : bool
        Whether the two are of different labs: see :class:`uffdlab.observations.snapshot.Difference`.

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
    _keywords = ("snapshot", "before", "mode", "across_labs")

    across_labs = traitlets.Bool()
    mode = traitlets.Enum(_MODES, "side").tag(sync=True)
    selection = traitlets.List(traitlets.Int(), maxlen=2).tag(sync=True)
    cursor = traitlets.Int(0).tag(sync=True)
    _chooses = traitlets.Bool(True).tag(sync=True)  # whether the browser offers the choice of mode
    _meta = traitlets.Dict().tag(sync=True)
    _kinds: traitlets.List[dict[str, Any]] = traitlets.List(traitlets.Dict()).tag(sync=True)
    _codes = traitlets.Bytes().tag(sync=True)
    _before = traitlets.Bytes().tag(sync=True)
    _status = traitlets.Unicode().tag(sync=True)
    _registered: traitlets.List[list[Any]] = traitlets.List().tag(sync=True)  # [first page, count, modes]
    _waiting: traitlets.List[list[Any]] = traitlets.List().tag(sync=True)  # [page, kind of access]
    _when = traitlets.Unicode().tag(sync=True)  # the moment that is shown
    _steps = traitlets.Int()  # how often the user has stepped to another moment
    _past = traitlets.Bool().tag(sync=True)  # whether it is one that the user has stepped back to

    def __init__(self, snapshot: Snapshot, before: Snapshot | None = None, **keywords: Any) -> None:
        if not len(snapshot):
            raise UsageError("there are no pages to show; take a snapshot of at least one page")
        self._seen = PageCodes()
        self._numbers: NDArray[np.uint32] = np.zeros(0, np.uint32)
        self._source: MappedPages | None = None
        self._region: Region | None = None
        self._reader = SharedReader(self._read_pages, self._show_live, self._show_end)
        self._closing = (self._reader.close,)
        self._snapshot, self._earlier = snapshot, before
        super().__init__(**keywords)
        self.cursor = snapshot.first
        self.show(snapshot, before)
        self.observe(self.update_soon, ["_codes", "_when", "_before"])

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
            Difference(before, snapshot, self.across_labs)  # raises for other pages
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
            "witness": one.witness,
            "witness_about": ABOUT.get(one.witness, ""),
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

    def follow(self, region: MappedPages) -> Self:
        """Show `region` now, and again after every ioctl, touch and snapshot of its lab.

        If the grid compares two snapshots, the earlier one stays for comparison.
        """
        lab = _mapping_of(region).lab
        self._source, self._region, self._past = region, _region_of(region), False
        self._reader.attach(lab.timeline)
        self.follow_lab(lab.timeline)
        self.refresh()
        return self

    def unfollow(self) -> None:
        """Stop following the region."""
        self._has_ended()
        self.leave_lab()
        self._source = self._region = None

    def _needed_regions(self) -> tuple[Region, ...]:
        return () if self._region is None else (self._region,)

    def _has_ended(self) -> None:
        self._reader.detach()

    def _switch_to(self, lab: Lab) -> None:
        old, region = self._source, self._region
        if old is None or region is None:
            return
        new: MemoryMapping = counterpart(region, lab)
        if _mapping_of(old) is not region:
            new = counterpart(region, lab).alias
        self.follow(new[old.first : old.first + old.count] if isinstance(old, PageRange) else new)

    def catch_up(self) -> None:
        """Show every pending update now."""
        if self._reader.pending:
            self.refresh()

    def refresh(self) -> None:
        """Take a snapshot of the followed region and show it, with all widgets of its lab."""
        if self._source is not None:
            self._reader.now()

    def show_moment(self, snapshot: Snapshot, when: str, *, past: bool) -> None:
        """Show a snapshot of the timeline; while it is a `past` one, the grid does not follow its region."""
        was, self._past = self._past, past
        if self._source is not None:
            self._when = f"as of {when}" + (", stepped back in the timeline" if past else "")
        if past:
            self._registered, self._waiting = [], []  # those of now
        elif was:
            self._reader.ask()
        self.show(snapshot, self._earlier)
        if past or was:  # else every reading would lead to the next
            self._steps += 1

    @property
    def past(self) -> str:
        """The moment that the user has stepped back to in the timeline, as text; empty if the grid shows now."""
        return self._when if self._past else ""

    def _read_pages(self) -> _Seen | None:
        source = self._source
        if source is None:
            return None
        snapshot = source.snapshot()
        mapping, first, last = _mapping_of(source), snapshot.first, snapshot.pages.stop
        modes = page_marks.registered_modes(mapping)[first:last]
        waiting, more = page_marks.waiting_pages(mapping)
        here = [[page, kind] for page, kind in waiting if first <= page < last]
        return _Seen(snapshot, page_marks.registered_ranges(modes, first), here, more)

    def _show_end(self, error: Exception) -> None:
        # The lab has ended for any reason: show why, and stop.
        if self._reader.attached:
            self._has_ended()
            self.ended = str(error)

    def _show_live(self, seen: _Seen | None) -> None:
        if seen is None or self._source is None or self._past:
            return
        taken = seen.snapshot
        before = self._earlier if self._earlier is not None and self._earlier.pages == taken.pages else None
        # First the pages, in messages of their own: a held message would come after the codes that need its kinds.
        self.show(taken, before)
        with self.hold_sync():
            self._registered, self._waiting = seen.registered, seen.waiting
            self._when = f"as of {moment(_mapping_of(self._source).lab.timeline, self._reader.when_ns)}"
        if seen.more:
            self._reader.retry()

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
        return figures.compare(self._earlier, self._snapshot, across_labs=self.across_labs)

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
            for name in (
                *("mode", "selection", "cursor", "_chooses", "_meta", "_kinds", "_status"),
                *("_registered", "_waiting", "_when", "_past"),
            )
        }
        data = {"_codes": self._codes, "_before": self._before}
        snapshots = {"after": self._snapshot, "before": self._earlier}
        return html_page.Part(title or self._facts()["title"], "page_grid.js", state, data, snapshots)

    def fallback(self) -> dict[str, str]:
        """Return the picture, with its alt text, the changes and the marks, by MIME type."""
        data, _ = self.picture()._repr_mimebundle_()
        return {**data, "text/html": data["text/html"] + self.marks_html()}

    def marks_html(self) -> str:
        """Return as HTML which moment is shown, which pages are registered, and on which a touch waits."""
        lines = [self._when] if self._when else []
        lines += [f"registered for {modes}: {page_range_text(low, low + n - 1)}" for low, n, modes in self._registered]
        lines += [f"a touch waits: {kind} of page {page}" for page, kind in self._waiting]
        return "".join(f"<p>{html.escape(line)}</p>" for line in lines)

    def __repr__(self) -> str:
        return f"<PageGrid of {self._snapshot!r}>"


def _mapping_of(where: MappedPages) -> MemoryMapping:
    return where.mapping if isinstance(where, PageRange) else where


def _region_of(where: MappedPages) -> Region:
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
