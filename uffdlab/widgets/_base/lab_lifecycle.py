"""A lab that ends under its widgets, and the one that takes its place.

That a lab was closed, or crashed, comes by its timeline.  Whoever starts it anew, all of the widgets of the old one
hear of it the same way and go over together: for each region to one of the same size and memory, and to one
userfaultfd.  A lab that was started here is closed with the last widget that uses it.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import traitlets

from uffdlab.errors import LabClosed, UffdlabError
from uffdlab.lab import Lab
from uffdlab.widgets._base.event_loop import soon

if TYPE_CHECKING:
    from uffdlab.target.region import Region
    from uffdlab.target.timeline import Timeline, TimelineEntry
    from uffdlab.target.userfaultfd import Userfaultfd

_ENDS = ("lab", "target")
_REPLACED = "a new target process has taken the place of the old one, and has none of its regions"
_starting: weakref.WeakKeyDictionary[Timeline, threading.Thread] = weakref.WeakKeyDictionary()
_regions: weakref.WeakKeyDictionary[Region, Region] = weakref.WeakKeyDictionary()
_userfaultfds: weakref.WeakKeyDictionary[Userfaultfd, Userfaultfd] = weakref.WeakKeyDictionary()
_users: weakref.WeakKeyDictionary[Lab, weakref.WeakSet[Follower]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Replacement:
    """What a timeline's entry holds when a lab has a successor."""

    lab: Lab


class Follower(traitlets.HasTraits):
    """A widget of a lab: says that the lab has ended, offers to start it again, and goes over to the new one.

    Attributes
    ----------
    ended : str
        Trait.  Why the lab is of no use any more; empty while it is.
    """

    ended = traitlets.Unicode().tag(sync=True)
    _starts = traitlets.Bool().tag(sync=True)

    _followed: Timeline | None = None
    _leave: Callable[[], None] | None = None

    def follow_lab(self, timeline: Timeline) -> None:
        """Listen to what becomes of the lab whose timeline this is."""
        left = self._followed
        if self._leave is not None:
            self._leave()
        self._followed = timeline
        self._leave = timeline.listen(functools.partial(self._heard, timeline))
        if timeline.lab is not None and timeline.lab in _users:
            _users[timeline.lab].add(self)
        if left is not None and left is not timeline:
            self._release(left.lab)
        self.ended = why_ended(timeline)
        self._starts = False

    def leave_lab(self) -> None:
        """Listen no more; a lab that was started here ends when nobody is left."""
        if self._leave is not None:
            self._leave()
        left, self._leave, self._followed = self._followed, None, None
        if left is not None:
            self._release(left.lab)

    def _release(self, lab: Lab | None) -> None:
        if lab is not None and lab in _users:
            _users[lab].discard(self)
            if not _users[lab]:
                lab.close()

    def start_again(self) -> threading.Thread | None:
        """Start the lab that has ended anew, on a thread of its own.

        Returns
        -------
        Thread or None
            None if the lab is not there any more.
        """
        timeline = self._followed
        if timeline is None or timeline.lab is None:
            self.ended = "this lab is not there any more; make a new one: uffdlab.Lab(…)"
            return None
        succeeded = any(isinstance(entry.what, Replacement) for entry in timeline.newest(1))
        if timeline not in _starting or not (_starting[timeline].is_alive() or succeeded):
            work = threading.Thread(target=_start, args=(timeline.lab,), name="start again", daemon=True)
            _starting[timeline] = work
            timeline.add("lab", "starts again …", _now(timeline), None, work)
            work.start()
        return _starting[timeline]

    def _heard(self, timeline: Timeline, entry: TimelineEntry) -> None:
        # On any thread.
        if entry.kind in _ENDS or (entry.kind == "unmap" and entry.what in self._looks_at()):
            soon(lambda: self._take_news(timeline, entry))

    def _take_news(self, timeline: Timeline, entry: TimelineEntry) -> None:
        if timeline is not self._followed:  # it has gone over meanwhile, or was closed
            return
        if isinstance(entry.what, threading.Thread):
            self._starts = True
        elif entry.what is None or entry.kind == "unmap":
            self.ended, self._starts = _REPLACED if entry.kind == "target" else entry.text, False
            self._has_ended()
        elif isinstance(entry.what, Replacement):
            try:
                self._go_over(entry.what.lab)
                self.follow_lab(entry.what.lab.timeline)
            except UffdlabError as error:
                self.ended, self._starts = str(error), False
        elif isinstance(entry.what, UffdlabError):
            self.ended, self._starts = _first_line(entry.what), False
            self._has_ended()

    def _looks_at(self) -> tuple[Region, ...]:
        """The regions that it is of no use without."""
        return ()

    def _has_ended(self) -> None:
        """Stop asking the lab."""

    def _go_over(self, lab: Lab) -> None:
        """Show this lab from now on."""


def announce(old: Lab, new: Lab) -> None:
    """Tell the widgets of `old` that `new` has taken its place."""
    old.timeline.add("lab", "a new lab has taken its place", _now(old.timeline), None, Replacement(new))


def counterpart(region: Region, lab: Lab) -> Region:
    """Give the region of the new lab for one of the old: as many pages of the same memory, in the page cache.

    One that is still mapped in that lab is its own.
    """
    found = region if region in lab.regions else _regions.get(region)
    if found is None or found not in lab.regions:
        found = lab.map(pages=region.pages, memory=region.memory)
        if found.has_alias:
            found.alias.fill()
        _regions[region] = found
    return found


def counterpart_userfaultfd(uffd: Userfaultfd, lab: Lab) -> Userfaultfd:
    """Give the userfaultfd of the new lab for one of the old; one that is still open in that lab is its own."""
    found = uffd if uffd in lab.userfaultfds else _userfaultfds.get(uffd)
    if found is None or found not in lab.userfaultfds:
        found = _userfaultfds[uffd] = lab.userfaultfd()
    return found


def why_ended(timeline: Timeline) -> str:
    """Give why the lab or its target has ended, in one line; empty if it has not."""
    error = _end_of(timeline)[1]
    return "" if error is None else _first_line(error)


def _end_of(timeline: Timeline) -> tuple[str, UffdlabError | None]:
    # What has ended, "lab" or "target", and why; nothing if something new has begun since.
    for entry in reversed(list(timeline)):
        if entry.kind in _ENDS and not isinstance(entry.what, threading.Thread):
            return (entry.kind, entry.what) if isinstance(entry.what, UffdlabError) else ("", None)
    return "", None


def _start(old: Lab) -> None:
    try:
        new = _renewed(old)
    except Exception as error:  # noqa: BLE001 - it is told where the user looks
        failed = error if isinstance(error, UffdlabError) else UffdlabError(f"it did not start: {error}")
        old.timeline.add("lab", f"did not start: {failed}", _now(old.timeline), None, failed)
        return
    if new is not old:
        _users[new] = weakref.WeakSet()
    announce(old, new)


def _renewed(lab: Lab) -> Lab:
    # As little as is needed: a new lab, the same on a new machine, a new target, or only new regions.
    ended, why = _end_of(lab.timeline)
    if ended == "lab" and isinstance(why, LabClosed):
        return Lab(lab.kernel)
    if ended == "lab":
        lab.reset()
    if ended == "target":
        lab.restart_target()
    return lab


def _now(timeline: Timeline) -> int:
    # A lab that has ended has no clock: the moment of its last entry.
    newest: list[Any] = timeline.newest(1)
    return int(newest[0].ended_ns) if newest else 0


def _first_line(error: object) -> str:
    line, _, _ = str(error).partition("\n")
    return line
