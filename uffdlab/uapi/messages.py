"""The messages of a userfaultfd: page faults and events, with the region and page of each."""

from __future__ import annotations

from msgspec import Struct

from uffdlab import uapi


class Fault(Struct, frozen=True):
    """A page-fault message (UFFD_EVENT_PAGEFAULT).

    Attributes
    ----------
    page : int or None
        The number of the page in its region; None if the address is in no region of the lab.
    region : str
        The name of the region; empty if there is none.
    address : int
        The faulting address: exact with Feature.EXACT_ADDRESS, else the start of the page.
    flags : FaultFlag
        Unknown bits are kept.
    thread : int
        The id of the waiting thread; 0 without Feature.THREAD_ID.
    time_ns : int
        When the target read it, CLOCK_MONOTONIC of the guest.
    """

    page: int | None
    region: str
    address: int
    flags: uapi.FaultFlag
    thread: int
    time_ns: int

    @property
    def write(self) -> bool:
        """Whether the access was a write."""
        return bool(self.flags & uapi.FaultFlag.WRITE)

    @property
    def wp(self) -> bool:
        """Whether the page is present but write-protected by userfaultfd."""
        return bool(self.flags & uapi.FaultFlag.WP)

    @property
    def minor(self) -> bool:
        """Whether the page is in the page cache but not mapped at this address."""
        return bool(self.flags & uapi.FaultFlag.MINOR)

    @property
    def rwp(self) -> bool:
        """Whether the page is present but read-write-protected by userfaultfd (Linux 7.3)."""
        return bool(self.flags & uapi.FaultFlag.RWP)

    @property
    def missing(self) -> bool:
        """Whether the page is missing: none of WP, MINOR and RWP is set."""
        return not self.flags & (uapi.FaultFlag.WP | uapi.FaultFlag.MINOR | uapi.FaultFlag.RWP)

    def __repr__(self) -> str:
        where = f"page={self.page}" if self.page is not None else f"address={self.address:#x}"
        facts = [where, "write" if self.write else "read"]
        facts += [name for name in ("wp", "minor", "missing") if getattr(self, name)]
        rest = int(self.flags) & ~0b111  # RWP is named by its flag
        if rest:
            facts.append(uapi.flag_names(rest, uapi.FaultFlag))
        return f"Fault({', '.join(facts)})"


class Message(Struct, frozen=True):
    """A message that is not a page fault.

    Attributes
    ----------
    event : int
        An :class:`uffdlab.uapi.Event`, or an unknown number.
    arg : tuple of int
        The fields of its argument; see :func:`uffdlab.uapi.layout.decode`.
    time_ns : int
        When the target read it, CLOCK_MONOTONIC of the guest.
    """

    event: int
    arg: tuple[int, ...]
    time_ns: int

    def __repr__(self) -> str:
        name = {int(event): event.name for event in uapi.Event}.get(self.event, f"event {self.event:#x}")
        return f"Message({name}, {', '.join(hex(field) for field in self.arg)})"


class Remap(Message, frozen=True):
    """UFFD_EVENT_REMAP: mremap(2) has moved registered memory.

    Attributes
    ----------
    start, to : int
        The old and the new address.
    length : int
        In bytes.
    """

    start: int
    to: int
    length: int

    def __repr__(self) -> str:
        return f"Remap({self.length:#x} bytes from {self.start:#x} to {self.to:#x})"


class Remove(Message, frozen=True):
    """UFFD_EVENT_REMOVE: MADV_DONTNEED, MADV_FREE or MADV_REMOVE has removed pages; the mapping stays.

    Attributes
    ----------
    start, end : int
        Addresses; `end` is exclusive.
    region : str
        Name of the region, empty if none.
    first, count : int
        The first page, and the number of pages, within the region.
    """

    start: int
    end: int
    region: str
    first: int
    count: int

    def __repr__(self) -> str:
        where = f"pages {self.first}–{self.first + self.count - 1} of {self.region}" if self.region else ""
        return f"{type(self).__name__}({where or f'{self.start:#x}–{self.end:#x}'})"


class Unmap(Remove, frozen=True):
    """UFFD_EVENT_UNMAP: munmap(2) or mremap(2) has unmapped registered memory; attributes are those of Remove."""
