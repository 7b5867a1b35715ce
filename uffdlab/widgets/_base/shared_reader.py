"""One reading of a lab for all its widgets, so that all of them show the same moment.

After each change of the lab (an ioctl, a message, the end of a touch, a snapshot) the widgets of
that lab read what they need, one after the other, and then show it together.  What is asked for in between, as by a
cursor that moves, is a reading for all of them too.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from uffdlab.observations.snapshot import Snapshot
from uffdlab.widgets._base import event_loop
from uffdlab.widgets._base.background import BackgroundReader
from uffdlab.widgets._base.event_loop import later, run_in_loop

if TYPE_CHECKING:
    from uffdlab.target.timeline import Timeline, TimelineEntry

_Seen = TypeVar("_Seen")
_CHANGES = ("ioctl", "touch", "message", "snapshot")
_PAUSE = 0.05  # s between a change and the reading after it: changes often come in bursts
_INTERVAL = 0.2  # s between two readings while changes go on
_groups: weakref.WeakKeyDictionary[Timeline, _Group] = weakref.WeakKeyDictionary()


class SharedReader(Generic[_Seen]):
    """What one widget reads of its lab, together with the other widgets of that lab.

    Parameters
    ----------
    read : callable
        Reads the lab, on any thread.
    show : callable
        Called with the result of `read`, on the event loop.
    failed : callable
        Called with the exception that `read` raised, on the event loop.

    Attributes
    ----------
    when_ns : int
        The moment that is shown, on the guest's CLOCK_MONOTONIC, in ns; 0 before the first reading.
    """

    def __init__(
        self, read: Callable[[], _Seen], show: Callable[[_Seen], None], failed: Callable[[Exception], None]
    ) -> None:
        self.read, self.show, self.failed = read, show, failed
        self.when_ns = self.generation = 0
        self._group: _Group | None = None

    def attach(self, timeline: Timeline) -> None:
        """Read with the widgets of this timeline's lab from now on."""
        self.detach()
        group = _groups.get(timeline)
        if group is None:
            group = _groups[timeline] = _Group(timeline)
        self._group = group
        group.members.append(self)

    def detach(self) -> None:
        """Read no more, and drop the result of a running reading."""
        self.forget()
        group, self._group = self._group, None
        if group is not None:
            group.members.remove(self)
            if not group.members:
                group.close()

    close = detach

    def forget(self) -> None:
        """Drop the result of a running reading; it reads another object."""
        self.generation += 1

    @property
    def attached(self) -> bool:
        """Whether it reads with the widgets of a lab."""
        return self._group is not None

    @property
    def pending(self) -> bool:
        """Whether a reading is due or running."""
        return self._group is not None and (self._group.due or self._group.reader.busy)

    def ask(self) -> None:
        """Request a reading.  Called on the event loop."""
        if self._group is not None:
            self._group.reader.ask()

    def ask_soon(self) -> None:
        """Request a reading after a pause."""
        if self._group is not None:
            self._group.request()

    def retry(self) -> None:
        """Request a reading after a pause, because what was read is about to change; in a script nothing waits."""
        if event_loop.running() is not None:
            self.ask_soon()

    def now(self) -> None:
        """Read on this thread and show the result, with all widgets of the lab."""
        if self._group is not None:
            self._group.now()
        else:
            _Group.show([_read(self)], 0)


class _Group:
    # The readers of one lab.

    def __init__(self, timeline: Timeline) -> None:
        self.members: list[SharedReader[Any]] = []
        self.reader = BackgroundReader(self._read, self._show, _never)
        self.due, self._last = False, 0.0
        self._timeline = timeline
        self._leave = timeline.listen(self._on_timeline)

    def close(self) -> None:
        self._leave()
        self.reader.close()
        _groups.pop(self._timeline, None)

    def _on_timeline(self, entry: TimelineEntry) -> None:
        # Called on any thread, perhaps ten thousand times per second.  A reading takes snapshots itself.
        if entry.kind in _CHANGES and not self.reader.here:
            self.request()

    def request(self) -> None:
        if not self.due:
            self.due = True
            run_in_loop(self._schedule)

    def _schedule(self) -> None:
        later(max(_PAUSE, self._last + _INTERVAL - time.monotonic()), self._start)

    def _start(self) -> None:
        self.due, self._last = False, time.monotonic()
        self.reader.ask()

    def now(self) -> None:
        self.due = False
        self.reader.now()

    def _read(self) -> list[_Reading]:
        return [_read(member) for member in tuple(self.members)]

    def _show(self, readings: list[_Reading]) -> None:
        self.show(readings, max((entry.ended_ns for entry in self._timeline.newest(1)), default=0))

    @staticmethod
    def show(readings: list[_Reading], otherwise: int) -> None:
        # The moment is that of the first snapshot among them.
        times = [reading.snapshot.time_ns for reading in readings if reading.snapshot is not None]
        for reading in readings:
            reading.deliver(times[0] if times else otherwise)


class _Reading:
    # What one member has read.

    def __init__(self, member: SharedReader[Any], seen: Any, error: Exception | None, generation: int) -> None:
        self._member, self._seen, self._error, self._generation = member, seen, error, generation

    @property
    def snapshot(self) -> Snapshot | None:
        found = getattr(self._seen, "snapshot", None)
        return found if isinstance(found, Snapshot) else None

    def deliver(self, when_ns: int) -> None:
        member = self._member
        if member.generation != self._generation:  # it reads something else by now
            return
        if self._error is not None:
            member.failed(self._error)
        else:
            member.when_ns = when_ns
            member.show(self._seen)


def _read(member: SharedReader[Any]) -> _Reading:
    generation = member.generation
    try:
        return _Reading(member, member.read(), None, generation)
    except Exception as error:  # noqa: BLE001 - every error is shown to the user
        return _Reading(member, None, error, generation)


def _never(error: Exception) -> None:
    raise error
