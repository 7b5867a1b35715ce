"""Registry: the regions, userfaultfds and touches of a target, by number.  When the target ends, it marks them lost."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol

from uffdlab.errors import LabClosed, TargetLost, UffdlabError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from uffdlab.uapi import RegisterMode
    from uffdlab.uapi.messages import Fault, Message
    from uffdlab.uapi.protocol.target import TouchResult

_SMALL = 4096  # bytes
_MOST_SEARCHED = 4096  # pages
_INEXACT_NS = 2_000_000_000


class AnyMapping(Protocol):
    """A mapping: a :class:`uffdlab.target.region.MemoryMapping` is one."""

    name: str

    def page_of(self, address: int) -> int | None:
        """Return the number of the page that holds `address`, None if it is outside."""
        ...  # pragma: no cover


class AnyRegion(AnyMapping, Protocol):
    """A region: a :class:`uffdlab.target.region.Region` is one."""

    number: int
    memory: str
    start: int
    page_size: int
    has_alias: bool

    @property
    def length(self) -> int:
        """Its size in bytes."""
        ...  # pragma: no cover

    @property
    def alias(self) -> AnyMapping:
        """The second mapping of its pages."""
        ...  # pragma: no cover

    def _lose(self, why: str, kind: type[TargetLost | UsageError] = TargetLost) -> None:
        """Mark it as lost."""
        ...  # pragma: no cover


class AnyUserfaultfd(Protocol):
    """A userfaultfd: a :class:`uffdlab.target.userfaultfd.Userfaultfd` is one."""

    @property
    def number(self) -> int:
        """Its number in the target."""
        ...  # pragma: no cover

    def _registered_at(self, address: int) -> RegisterMode | None:
        """Return what the memory at `address` is registered for with it, or None."""
        ...  # pragma: no cover

    def _deliver(self, data: bytes, time_ns: int, adopted: int = 0) -> None:
        """Add one struct uffd_msg to its messages."""
        ...  # pragma: no cover

    def intercept(self, interceptor: Callable[[Fault | Message], bool]) -> Callable[[], None]:
        """Call `interceptor` with every message first; return a function that removes it."""
        ...  # pragma: no cover

    def _unmapped(self, start: int, length: int) -> None:
        """Note that a range was unmapped."""
        ...  # pragma: no cover

    def _end_messages(self, why: UffdlabError) -> None:
        """End every wait for a message with `why`."""
        ...  # pragma: no cover

    def _lose(self, why: str | LabClosed) -> None:
        """Mark it as lost."""
        ...  # pragma: no cover


class AnyTouch(Protocol):
    """A touch: a :class:`uffdlab.target.touch.Touch` is one."""

    number: int
    what: str
    address: int
    started_ns: int

    def _finish(self, end: TouchResult) -> None:
        """Store how it ended."""
        ...  # pragma: no cover

    def _fail(self, error: BaseException) -> None:
        """End every wait for it with this error."""
        ...  # pragma: no cover


class Registry:
    """The regions, userfaultfds and touches of one target.  All methods are thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._regions: dict[int, AnyRegion] = {}
        self._userfaultfds: dict[int, AnyUserfaultfd] = {}
        self._touches: dict[int, AnyTouch] = {}

    # --- the content, the oldest first

    @property
    def regions(self) -> tuple[AnyRegion, ...]:
        """The regions that are mapped."""
        with self._lock:
            return tuple(self._regions.values())

    @property
    def userfaultfds(self) -> tuple[AnyUserfaultfd, ...]:
        """The userfaultfds that are open."""
        with self._lock:
            return tuple(self._userfaultfds.values())

    @property
    def touches(self) -> tuple[AnyTouch, ...]:
        """The touches that have not ended."""
        with self._lock:
            return tuple(self._touches.values())

    def fault_arrived(self, address: int, time_ns: int) -> None:
        """Date back a touch of this page that is said to have begun after the fault that it caused.

        The host computes when it asked for a touch, on the guest's clock, to some ms; on a busy host to some 100 ms.
        An older message, which was left unread, is of another touch.
        """
        later = [touch for touch in self.touches if time_ns < touch.started_ns < time_ns + _INEXACT_NS]
        if later:  # hardly ever, and thousands of faults may come in a second
            size = self.page_size_at(address)
            for touch in later:
                if touch.address // size == address // size:
                    touch.started_ns = time_ns

    def userfaultfd(self, number: int) -> AnyUserfaultfd | None:
        """Return the open userfaultfd with this number, or None."""
        with self._lock:
            return self._userfaultfds.get(number)

    def locate(self, address: int) -> tuple[str, int | None]:
        """Return the name of the region at `address` and the page within it; ("", None) if there is none."""
        region = self._region_at(address)
        return ("", None) if region is None else (region.name, region.page_of(address))

    def page_size_at(self, address: int) -> int:
        """Return the page size of the region at `address` in bytes, 4096 if there is none."""
        region = self._region_at(address)
        return _SMALL if region is None else region.page_size

    def memory_at(self, address: int) -> str:
        """Return the kind of memory of the region at `address`, a name of ``lab.map``; empty if there is none."""
        region = self._region_at(address)
        return "" if region is None else region.memory

    def describe(self, address: int) -> str:
        """Return the page and mapping at `address`, ``page 3 of region-1's alias``; "" if there is none."""
        for region in self.regions:
            for mapping in (region, region.alias) if region.has_alias else (region,):
                page = mapping.page_of(address)
                if page is not None:
                    return f"page {page} of {mapping.name}"
        return ""

    def owner_of(self, start: int, length: int = 1) -> tuple[str, RegisterMode] | None:
        """Return who has a range registered, as ``lab.userfaultfds[0]``, and for what; None if nobody is known to.

        Of a range with several owners that of the lowest address, in steps of a page.
        """
        step = self.page_size_at(start)
        for address in range(start, start + min(length, _MOST_SEARCHED * step), step):
            for index, uffd in enumerate(self.userfaultfds):
                modes = uffd._registered_at(address)
                if modes:
                    return f"lab.userfaultfds[{index}]", modes
        return None

    def _region_at(self, address: int) -> AnyRegion | None:
        return next((region for region in self.regions if region.page_of(address) is not None), None)

    # --- adding and removing

    def add_region(self, region: AnyRegion) -> None:
        """Add a region that was mapped."""
        with self._lock:
            self._regions[region.number] = region

    def unmapped(self, region: AnyRegion) -> None:
        """Remove a region and mark it as unmapped."""
        with self._lock:
            self._regions.pop(region.number, None)
            userfaultfds = tuple(self._userfaultfds.values())
        for uffd in userfaultfds:
            uffd._unmapped(region.start, region.length)
        region._lose("it was unmapped", UsageError)

    def add_userfaultfd(self, uffd: AnyUserfaultfd) -> None:
        """Add a userfaultfd that was opened, or that a FORK event brought."""
        with self._lock:
            self._userfaultfds[uffd.number] = uffd

    def drop_userfaultfd(self, number: int) -> None:
        """Remove a userfaultfd, so that it gets no more messages."""
        with self._lock:
            self._userfaultfds.pop(number, None)

    def add_touch(self, touch: AnyTouch) -> None:
        """Add a touch that is about to start."""
        with self._lock:
            self._touches[touch.number] = touch

    def pop_touch(self, number: int) -> AnyTouch | None:
        """Remove a touch that has ended or did not start, and return it; None if there is none."""
        with self._lock:
            return self._touches.pop(number, None)

    # --- when the target or the machine ends

    def lose(self, why: str | LabClosed) -> None:
        """Mark everything in the target as lost, and empty the registry."""
        with self._lock:
            regions, self._regions = tuple(self._regions.values()), {}
            userfaultfds, self._userfaultfds = tuple(self._userfaultfds.values()), {}
        closed = why if isinstance(why, LabClosed) else None
        if closed is None:  # the error of a closed or reset lab says it itself
            for region in regions:
                region._lose(str(why))
        for uffd in userfaultfds:
            uffd._lose(why)
        self._fail_touches(
            closed or TargetLost(f"{why}, and the access with it; lab.restart_target() starts a new one")
        )

    def machine_lost(self, error: UffdlabError) -> None:
        """End every wait for a touch or a message with `error`, because the machine is lost."""
        self._fail_touches(error)
        for uffd in self.userfaultfds:
            uffd._end_messages(error)

    def _fail_touches(self, error: UffdlabError) -> None:
        with self._lock:
            touches, self._touches = tuple(self._touches.values()), {}
        for touch in touches:
            touch._fail(error)
