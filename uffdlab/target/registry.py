"""Belongings: what a lab has in its target, by number, and who is told when it is gone."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from uffdlab.errors import LabClosed, TargetLost, UffdlabError, UsageError

if TYPE_CHECKING:
    from uffdlab.target.region import Region
    from uffdlab.target.touch import Touch
    from uffdlab.target.userfaultfd import Userfaultfd

_SMALL = 4096  # bytes


class Belongings:
    """The regions, userfaultfds and touches of one lab; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._regions: dict[int, Region] = {}
        self._userfaultfds: dict[int, Userfaultfd] = {}
        self._touches: dict[int, Touch[object]] = {}

    # --- what there is, the oldest first

    @property
    def regions(self) -> tuple[Region, ...]:
        """The regions that are mapped."""
        with self._lock:
            return tuple(self._regions.values())

    @property
    def userfaultfds(self) -> tuple[Userfaultfd, ...]:
        """The userfaultfds that are open."""
        with self._lock:
            return tuple(self._userfaultfds.values())

    @property
    def touches(self) -> tuple[Touch[object], ...]:
        """The touches that have not ended."""
        with self._lock:
            return tuple(self._touches.values())

    def userfaultfd(self, number: int) -> Userfaultfd | None:
        """Give the open userfaultfd of this number, None if there is none."""
        with self._lock:
            return self._userfaultfds.get(number)

    def locate(self, address: int) -> tuple[str, int | None]:
        """Give the name of the region at `address` and the page within it; ("", None) if there is none."""
        region = self._region_at(address)
        return ("", None) if region is None else (region.name, region.page_of(address))

    def page_size_at(self, address: int) -> int:
        """Give the page size of the region at `address` in bytes, 4096 if there is none."""
        region = self._region_at(address)
        return _SMALL if region is None else region.page_size

    def memory_at(self, address: int) -> str:
        """Give what kind of memory the region at `address` is, as ``lab.map`` calls it; empty if there is none."""
        region = self._region_at(address)
        return "" if region is None else region.memory

    def _region_at(self, address: int) -> Region | None:
        return next((region for region in self.regions if region.page_of(address) is not None), None)

    # --- coming and going

    def add_region(self, region: Region) -> None:
        """Take a region that was mapped."""
        with self._lock:
            self._regions[region.number] = region

    def unmapped(self, region: Region) -> None:
        """Let go of a region; it says from then on that it was unmapped."""
        with self._lock:
            self._regions.pop(region.number, None)
        region.lose("it was unmapped", UsageError)

    def add_userfaultfd(self, uffd: Userfaultfd) -> None:
        """Take a userfaultfd that was opened, or that a FORK event has brought."""
        with self._lock:
            self._userfaultfds[uffd.number] = uffd

    def drop_userfaultfd(self, number: int) -> None:
        """Let go of a userfaultfd."""
        with self._lock:
            self._userfaultfds.pop(number, None)

    def add_touch(self, touch: Touch[object]) -> None:
        """Take a touch that is about to start."""
        with self._lock:
            self._touches[touch.number] = touch

    def pop_touch(self, number: int) -> Touch[object] | None:
        """Let go of a touch that has ended or did not start, and give it; None if there is none."""
        with self._lock:
            return self._touches.pop(number, None)

    # --- when all of it is gone

    def lose(self, why: str | LabClosed) -> None:
        """Take it that the target is gone, and with it all there was; everything says so from then on."""
        with self._lock:
            regions, self._regions = tuple(self._regions.values()), {}
            userfaultfds, self._userfaultfds = tuple(self._userfaultfds.values()), {}
        closed = why if isinstance(why, LabClosed) else None
        if closed is None:  # else the lab says so itself
            for region in regions:
                region.lose(str(why))
        for uffd in userfaultfds:
            uffd.lose(why)
        self._fail_touches(
            closed or TargetLost(f"{why}, and the access with it; lab.restart_target() starts a new one")
        )

    def hear_no_more(self, error: UffdlabError) -> None:
        """Give `error` to whoever waits for a touch or a message: the machine is lost and tells nothing any more."""
        self._fail_touches(error)
        for uffd in self.userfaultfds:
            uffd.end_messages(error)

    def _fail_touches(self, error: UffdlabError) -> None:
        with self._lock:
            touches, self._touches = tuple(self._touches.values()), {}
        for touch in touches:
            touch.fail(error)
