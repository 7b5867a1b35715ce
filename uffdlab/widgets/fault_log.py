"""FaultLog: the messages of a userfaultfd as they arrive, the waiting touches, and buttons to resolve their faults."""

from __future__ import annotations

import collections
import csv
import functools
import html
import io
import threading
import time
from typing import TYPE_CHECKING, Any

import traitlets

from uffdlab import uapi
from uffdlab.errors import IoctlError, UffdlabError, UsageError
from uffdlab.observations.html_table import html_table
from uffdlab.uapi.messages import Fault
from uffdlab.widgets._assets import css, javascript
from uffdlab.widgets._base.background import run_in_background
from uffdlab.widgets._base.lab_lifecycle import counterpart_userfaultfd
from uffdlab.widgets._base.live import LiveWidget
from uffdlab.widgets._base.shared_reader import SharedReader
from uffdlab.widgets._data import columns
from uffdlab.widgets._export import drawings, html_page

if TYPE_CHECKING:
    import os

    from uffdlab.figures import Picture
    from uffdlab.target.region import Region
    from uffdlab.target.results import IoctlResult
    from uffdlab.target.timeline import TimelineEntry
    from uffdlab.target.touch import Touch
    from uffdlab.target.userfaultfd import Userfaultfd

_MOST_MESSAGES = 200  # messages
_SMALL_PAGE = 4096  # bytes
_SHOWN = 50
_MOST_WAITING = 20
_WAYS = [(ioctl.name, way) for ioctl in uapi.IOCTLS.values() for way in ioctl.resolves]
_WAYS.sort(key=lambda each: uapi.FAULTS.index(each[1].fault))
_ACTIONS = {way.name: (name, way.mode) for name, way in _WAYS}
_RESOLVED = {"any": "resolves any fault", "none": "wakes the thread, which tries again"}
_ABOUT = [f"{name}: {_RESOLVED.get(way.fault, f'resolves a {way.fault} fault')}" for name, way in _WAYS]


class FaultLog(html_page.Pictured, LiveWidget):
    """Messages, waiting touches, and buttons to resolve them.

    All messages are counted.  The browser gets only the newest, a few times per second, however many arrive.

    Parameters
    ----------
    uffd : Userfaultfd
        Resolves the faults; the messages of the whole lab are shown.
    lab : Lab
        The lab of `uffd`.

    Attributes
    ----------
    total : int
        Number of messages so far.
    counts : dict of str to int
        Number of messages by kind.
    shown : list of (float, str)
        The newest messages, newest first: time in µs since the first entry of the timeline, and text.
    waiting : list of dict
        The waiting touches: ``id``, ``what``, ``where``, ``kind``, ``address``, ``age`` in s.
    """

    _esm = javascript("fault_log.js")
    _css = css("page_grid.css")
    _keywords = ("uffd", "lab")

    # Columns: time and text; count and kind; touch, age, what, where and kind.
    _rows = traitlets.Bytes().tag(sync=True)
    _counts = traitlets.Bytes().tag(sync=True)
    _waiting = traitlets.Bytes().tag(sync=True)
    _actions = traitlets.List(list(_ACTIONS)).tag(sync=True)
    _about = traitlets.List(_ABOUT).tag(sync=True)  # what each action does
    _status = traitlets.Unicode().tag(sync=True)

    def __init__(self, uffd: Userfaultfd, lab: Any, **keywords: Any) -> None:
        self._uffd, self._lab = uffd, lab
        self._messages: collections.deque[tuple[int, str]] = collections.deque(maxlen=_MOST_MESSAGES)
        self._points: collections.deque[tuple[int, int, str]] = collections.deque(maxlen=_MOST_MESSAGES)
        self._tally: collections.Counter[str] = collections.Counter()
        self._faults: dict[int, tuple[Fault, float]] = {}  # by the address of the page
        self._lock, self._found = threading.Lock(), -1  # the last entry that was there when it began to listen
        self._zero: int | None = None
        self._reader = SharedReader(self._read_waiting, self._show, self._show_error)
        self._closing = (self._reader.close,)
        self.shown: list[tuple[float, str]] = []
        self.waiting: list[dict[str, Any]] = []
        super().__init__(**keywords)
        self._listen()
        self.observe(self.update_soon, ["_rows", "_waiting"])

    def _listen(self) -> None:
        for release in self._releases:
            release()
        timeline = self._lab.timeline
        with self._lock:
            # Listen first, then read what is there: nothing is missed, nothing is counted twice.  Entries that come
            # later may come in another order than that of their numbers, from several threads.
            self._releases = (timeline.listen(self._on_timeline),)
            self._messages.clear()
            self._points.clear()
            self._tally.clear()
            self._faults.clear()
            self._found = -1
            for entry in timeline:
                self._record(entry)
                self._found = entry.number
        self._reader.attach(timeline)
        self.follow_lab(timeline)
        self.refresh()

    def _switch_to(self, lab: Any) -> None:
        self._uffd = counterpart_userfaultfd(self._uffd, lab)
        self._lab, self._zero = lab, None
        self._listen()

    def _has_ended(self) -> None:
        self.refresh()

    @property
    def total(self) -> int:
        """Number of messages so far."""
        return self._tally.total()

    @property
    def counts(self) -> dict[str, int]:
        """Number of messages so far, by kind."""
        return dict(self._tally)

    # --- updates

    def _on_timeline(self, entry: TimelineEntry) -> None:
        # Called on any thread, perhaps ten thousand times per second.
        with self._lock:
            changed = entry.number > self._found and self._record(entry)
        if changed:
            self._reader.ask_soon()

    def _record(self, entry: TimelineEntry) -> bool:
        if self._zero is None:
            self._zero = entry.started_ns
        if entry.kind == "message":
            self._messages.append((entry.started_ns, entry.text))
            if isinstance(entry.what, Fault):
                fault = entry.what
                kind = _kind(fault)
                self._tally[kind] += 1
                self._points.append((entry.started_ns, fault.page or 0, kind))
                if len(self._faults) > _MOST_MESSAGES:
                    self._faults.pop(next(iter(self._faults)))
                self._faults[fault.address & ~0xFFF] = fault, time.monotonic()
            else:
                self._tally[entry.text.split(",")[0].removeprefix("Message(").rstrip(")")] += 1
        return entry.kind in ("message", "touch")

    def catch_up(self) -> None:
        """Show every pending update now."""
        if self._reader.pending:
            self.refresh()

    def refresh(self) -> None:
        """Update the browser now, with all widgets of the lab."""
        self._reader.now()

    def _show(self, seen: tuple[list[dict[str, Any]], bool]) -> None:
        self.waiting, more = seen
        with self._lock:
            newest = list(self._messages)[-_SHOWN:]
        self.shown = [((when - (self._zero or 0)) / 1000, text) for when, text in reversed(newest)]
        with self.hold_sync():
            self._pack()
        if more:
            self._reader.retry()

    def _show_error(self, error: Exception) -> None:
        self._status = str(error)
        self._show(([], False))

    def _pack(self) -> None:
        numbers, texts, packed = columns.numbers, columns.texts, columns.packed
        when, what = [when for when, _ in self.shown], [what for _, what in self.shown]
        self._rows = packed(len(what), numbers(when, "f8"), texts(what))
        counts = self.counts
        self._counts = packed(len(counts), numbers(counts.values(), "f8"), texts(counts))
        waiting = self.waiting
        ids, ages = (numbers((each[key] for each in waiting), "f8") for key in ("id", "age"))
        described = [texts(each[key] for each in waiting) for key in ("what", "where", "kind")]
        self._waiting = packed(len(waiting), ids, ages, *described)

    def _read_waiting(self) -> tuple[list[dict[str, Any]], bool]:
        # The waiting touches, and whether some have started but do not wait yet.
        found, more = [], False
        for touch in () if self.ended else self._open_touches():
            state = touch.state
            more = more or state == "running"
            if state == "waiting":
                found.append(self._described(touch))
        return found, more

    def _open_touches(self) -> tuple[Touch[object], ...]:
        touches: tuple[Touch[object], ...] = self._lab.touches
        return touches[:_MOST_WAITING]

    def _described(self, touch: Touch[object]) -> dict[str, Any]:
        fault, seen = self._faults.get(touch.address & ~0xFFF, (None, time.monotonic()))
        kind = _kind(fault) if fault else "no message yet"
        region = _region_at(self._lab, touch.address)
        where = f"page {region.page_of(touch.address)} of {region.name}" if region else f"address {touch.address:#x}"
        return {
            "id": touch.number,
            "what": touch.what,
            "where": where,
            "kind": kind,
            "address": hex(touch.address),
            "age": round(time.monotonic() - seen, 3),
        }

    # --- actions

    def resolve(self, action: str, touch: int | None = None, data: bytes = b"") -> IoctlResult | IoctlError | None:
        """Resolve the fault of a waiting touch.

        Parameters
        ----------
        action : str
            ``"continue"``, ``"continue WP"``, ``"copy"``, ``"zeropage"``, ``"unprotect"``, ``"poison"``, ``"wake"``.
        touch : int, optional
            The number of the touch, as in `waiting`; by default the one that has waited longest.
        data : bytes
            For ``"copy"``: the contents of the page, padded with zeros.

        Returns
        -------
        IoctlResult, IoctlError or None
            The result of the ioctl; None if no touch waits.
        """
        outcome, text = self._sent(action, touch, data)
        self._set_status(text)
        return outcome

    def _sent(self, action: str, touch: int | None, data: bytes) -> tuple[IoctlResult | IoctlError | None, str]:
        # Called on any thread.  Returns the result and the text that describes it.
        if action not in _ACTIONS:
            raise UsageError(f"there is no action {action!r} for a fault; the actions are {', '.join(_ACTIONS)}")
        touches = {each.number: each for each in self._open_touches()}
        waits = touches.get(touch) if touch is not None else next(iter(touches.values()), None)
        if waits is None:
            return None, "no touch waits any more"
        name, mode = _ACTIONS[action]
        try:
            region = _region_at(self._lab, waits.address)
            size = region.page_size if region else _SMALL_PAGE
            start = waits.address - waits.address % size
            fields = {"start": start, "dst": start, "len": size, "mode": mode}
            values = {field: value for field, value in fields.items() if field in uapi.IOCTLS[name].fields}
            source = data[:size].ljust(size, b"\0") if name == "UFFDIO_COPY" else None
            where = f"page {region.page_of(waits.address)}" if region else ""
            outcome = self._uffd.ioctl(name, values, source=source, where=where)
        except IoctlError as error:
            return error, str(error)
        except UffdlabError as error:
            return None, str(error)
        return outcome, f"{outcome.call} → done"

    def _set_status(self, text: str) -> None:
        self._status = text
        self._reader.ask_soon()

    def _handle(self, content: dict[str, Any]) -> None:
        super()._handle(content)
        action, touch = content.get("resolve"), content.get("touch")
        if action in _ACTIONS:
            data = str(content.get("data", "")).encode()
            run_in_background(lambda: self._sent(action, touch, data)[1], self._set_status)

    # --- without a live kernel

    def picture(self) -> Picture:
        """Return a picture of the newest faults as points, time against page, with alt text."""
        with self._lock:
            found = tuple(self._points)
        points = [((when - (self._zero or 0)) / 1000, page, kind) for when, page, kind in found]
        return drawings.faults("Faults", points, self._summary())

    def static(self) -> str:
        """Return the waiting touches, a picture of the faults and a table of the messages, as HTML."""
        with self._lock:
            messages = tuple(self._messages)
        rows = [(f"{(when - (self._zero or 0)) / 1000:,.1f}", text) for when, text in messages]
        waits = "".join(f"<li>{html.escape(each['what'])} waits ({each['kind']})</li>" for each in self.waiting)
        table = html_table("Messages", ("at, µs", "message"), rows[-_SHOWN:], self._summary())
        picture = self.picture()._repr_html_() if self._points else ""
        return (f"<ul>{waits}</ul>" if waits else "") + picture + table

    def _summary(self) -> str:
        counts = "; ".join(f"{count:,} {kind}" for kind, count in self.counts.items())
        return f"{self.total:,} message{'s' * (self.total > 1)}: {counts}" if counts else "no messages"

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return one self-contained HTML page with the messages; write it to `path` if given."""
        before = f'<div class="uffdlab">{self.static()}</div>'
        return html_page.deliver(html_page.page("Faults", [], css("page_grid.css"), before), path)

    def to_csv(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return the newest 200 messages as CSV: the guest's time in ns, the message; write it to `path` if given."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerows([("time_ns", "message"), *self._messages])
        return html_page.deliver(out.getvalue(), path)

    def fallback(self) -> dict[str, str]:
        """Return :meth:`static` as HTML."""
        return {"text/html": self.static()}


def _kind(fault: Fault) -> str:
    return _kind_of(int(fault.flags))


@functools.cache
def _kind_of(flags: int) -> str:
    # Cached: there may be ten thousand messages per second.
    fault = Fault(None, "", 0, uapi.FaultFlag(flags), 0, 0)
    kinds = [name for name in ("minor", "wp", "missing") if getattr(fault, name)] or ["other"]
    return f"{kinds[0]}, {'write' if fault.write else 'read'}"


def _region_at(lab: Any, address: int) -> Region | None:
    regions: tuple[Region, ...] = lab.regions
    return next((region for region in regions if region.page_of(address) is not None), None)
