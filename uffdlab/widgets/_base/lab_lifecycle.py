"""Widgets whose lab has ended, and their switch to the lab that replaces it.

The timeline of a lab reports that the lab was closed or has crashed, and also which lab replaces it.  Then all widgets
of the old lab switch to the new one together: for each region to a new one of the same size and memory, and to a new
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
from uffdlab.widgets._base.event_loop import run_in_loop

if TYPE_CHECKING:
    from uffdlab.target.region import Region
    from uffdlab.target.timeline import Timeline, TimelineEntry
    from uffdlab.target.userfaultfd import Userfaultfd

_ENDS = ("lab", "target")
_REPLACED = "a new target process has replaced the old one; it has none of its regions"
_starting: weakref.WeakKeyDictionary[Timeline, threading.Thread] = weakref.WeakKeyDictionary()
_regions: weakref.WeakKeyDictionary[Region, Region] = weakref.WeakKeyDictionary()
_userfaultfds: weakref.WeakKeyDictionary[Userfaultfd, Userfaultfd] = weakref.WeakKeyDictionary()
_users: weakref.WeakKeyDictionary[Lab, weakref.WeakSet[Follower]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Replacement:
    """The `what` of a timeline entry that reports the new lab."""

    lab: Lab


class Follower(traitlets.HasTraits):
    """A widget of a lab: shows that the lab has ended, offers to start it again, and switches to the new one.

    Attributes
    ----------
    ended : str
        Trait.  Why the lab has ended; empty while it is usable.
    """

    ended = traitlets.Unicode().tag(sync=True)
    _starts = traitlets.Bool().tag(sync=True)

    _followed: Timeline | None = None
    _leave: Callable[[], None] | None = None

    def follow_lab(self, timeline: Timeline) -> None:
        """Watch for the end of the lab with this timeline."""
        left = self._followed
        if self._leave is not None:
            self._leave()
        self._followed = timeline
        self._leave = timeline.listen(functools.partial(self._on_entry, timeline))
        if timeline.lab is not None and timeline.lab in _users:
            _users[timeline.lab].add(self)
        if left is not None and left is not timeline:
            self._release(left.lab)
        self.ended = why_ended(timeline)
        self._starts = False

    def leave_lab(self) -> None:
        """Stop watching the lab; close it if it was started here and no other widget uses it."""
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
        """Start the lab again that has ended, on a background thread.

        Returns
        -------
        Thread or None
            None if the lab does not exist any more.
        """
        timeline = self._followed
        if timeline is None or timeline.lab is None:
            self.ended = "this lab does not exist any more; make a new one: uffdlab.Lab(…)"
            return None
        replaced = any(isinstance(entry.what, Replacement) for entry in timeline.newest(1))
        if timeline not in _starting or not (_starting[timeline].is_alive() or replaced):
            work = threading.Thread(target=_start, args=(timeline.lab,), name="start again", daemon=True)
            _starting[timeline] = work
            timeline.add("lab", "starts again …", _now(timeline), None, work)
            work.start()
        return _starting[timeline]

    def _on_entry(self, timeline: Timeline, entry: TimelineEntry) -> None:
        # Called on any thread.
        if entry.kind in _ENDS or (entry.kind == "unmap" and entry.what in self._needed_regions()):
            run_in_loop(lambda: self._follow_entry(timeline, entry))

    def _follow_entry(self, timeline: Timeline, entry: TimelineEntry) -> None:
        if timeline is not self._followed:  # it has switched meanwhile, or was closed
            return
        if isinstance(entry.what, threading.Thread):
            self._starts = True
        elif entry.what is None or entry.kind == "unmap":
            self.ended, self._starts = _REPLACED if entry.kind == "target" else entry.text, False
            self._has_ended()
        elif isinstance(entry.what, Replacement):
            try:
                self._switch_to(entry.what.lab)
                self.follow_lab(entry.what.lab.timeline)
            except UffdlabError as error:
                self.ended, self._starts = str(error), False
        elif isinstance(entry.what, UffdlabError):
            self.ended, self._starts = _first_line(entry.what), False
            self._has_ended()

    def _needed_regions(self) -> tuple[Region, ...]:
        """Return the regions that the widget needs."""
        return ()

    def _has_ended(self) -> None:
        """Stop asking the lab."""

    def _switch_to(self, lab: Lab) -> None:
        """Show `lab` from now on."""


def announce(old: Lab, new: Lab) -> None:
    """Announce to the widgets of `old` that `new` replaces it."""
    old.timeline.add("lab", "a new lab replaces it", _now(old.timeline), None, Replacement(new))


def counterpart(region: Region, lab: Lab) -> Region:
    """Return the region of the new lab for one of the old: as many pages of the same memory, in the page cache.

    A region that is still mapped in that lab is returned itself.
    """
    found = region if region in lab.regions else _regions.get(region)
    if found is None or found not in lab.regions:
        found = lab.map(pages=region.pages, memory=region.memory)
        if found.has_alias:
            found.alias.fill()
        _regions[region] = found
    return found


def counterpart_userfaultfd(uffd: Userfaultfd, lab: Lab) -> Userfaultfd:
    """Return the userfaultfd of the new lab for one of the old; one still open in that lab is returned itself."""
    found = uffd if uffd in lab.userfaultfds else _userfaultfds.get(uffd)
    if found is None or found not in lab.userfaultfds:
        found = _userfaultfds[uffd] = lab.userfaultfd()
    return found


def why_ended(timeline: Timeline) -> str:
    """Return why the lab or its target has ended, in one line; empty if it has not."""
    error = _end_of(timeline)[1]
    return "" if error is None else _first_line(error)


def _end_of(timeline: Timeline) -> tuple[str, UffdlabError | None]:
    # What has ended, "lab" or "target", and why; nothing if it was started again since.
    for entry in reversed(list(timeline)):
        if entry.kind in _ENDS and not isinstance(entry.what, threading.Thread):
            return (entry.kind, entry.what) if isinstance(entry.what, UffdlabError) else ("", None)
    return "", None


def _start(old: Lab) -> None:
    try:
        new = _restarted(old)
    except Exception as error:  # noqa: BLE001 - every error is shown to the user
        failed = error if isinstance(error, UffdlabError) else UffdlabError(f"it did not start: {error}")
        old.timeline.add("lab", f"did not start: {failed}", _now(old.timeline), None, failed)
        return
    if new is not old:
        _users[new] = weakref.WeakSet()
    announce(old, new)


def _restarted(lab: Lab) -> Lab:
    # Replaces as little as possible: the lab, its machine, its target, or only regions.
    ended, why = _end_of(lab.timeline)
    if ended == "lab" and isinstance(why, LabClosed):
        return Lab(lab.kernel)
    if ended == "lab":
        lab.reset()
    if ended == "target":
        lab.restart_target()
    return lab


def _now(timeline: Timeline) -> int:
    # A lab that has ended has no clock: use the time of its last entry.
    newest: list[Any] = timeline.newest(1)
    return int(newest[0].ended_ns) if newest else 0


def _first_line(error: object) -> str:
    line, _, _ = str(error).partition("\n")
    return line
