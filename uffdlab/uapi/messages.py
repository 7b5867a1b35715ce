"""What a userfaultfd says: page faults and the other messages, with the region and page they are about."""

from __future__ import annotations

from dataclasses import dataclass

from uffdlab import uapi


@dataclass(frozen=True)
class Fault:
    """A page-fault message (UFFD_EVENT_PAGEFAULT).

    Attributes
    ----------
    page : int or None
        Number of the page within its region; None if no region of the lab is there.
    region : str
        Name of the region, empty if none.
    address : int
        As the kernel gave it: exact with Feature.EXACT_ADDRESS, else of the page's start.
    flags : FaultFlag
        Unknown bits are kept.
    thread : int
        The thread that waits; 0 without Feature.THREAD_ID.
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
        """The access was a write."""
        return bool(self.flags & uapi.FaultFlag.WRITE)

    @property
    def wp(self) -> bool:
        """The page is there but write-protected by userfaultfd."""
        return bool(self.flags & uapi.FaultFlag.WP)

    @property
    def minor(self) -> bool:
        """The page is in the page cache but not mapped here."""
        return bool(self.flags & uapi.FaultFlag.MINOR)

    @property
    def rwp(self) -> bool:
        """The page is there but read-write-protected by userfaultfd (Linux 7.3)."""
        return bool(self.flags & uapi.FaultFlag.RWP)

    @property
    def missing(self) -> bool:
        """No page is there: neither WP nor MINOR (nor RWP) is set."""
        return not self.flags & (uapi.FaultFlag.WP | uapi.FaultFlag.MINOR | uapi.FaultFlag.RWP)

    def __repr__(self) -> str:
        where = f"page={self.page}" if self.page is not None else f"address={self.address:#x}"
        words = [where, "write" if self.write else "read"]
        words += [name for name in ("wp", "minor", "missing") if getattr(self, name)]
        rest = int(self.flags) & ~0b111  # RWP is named by its flag
        if rest:
            words.append(uapi.flag_names(rest, uapi.FaultFlag))
        return f"Fault({', '.join(words)})"


@dataclass(frozen=True)
class Message:
    """Any other message.

    Attributes
    ----------
    event : int
        An :class:`uffdlab.uapi.Event`, or a number that is not known here.
    words : tuple of int
        Its argument, see :func:`uffdlab.uapi.layout.decode`.
    time_ns : int
        When the target read it, CLOCK_MONOTONIC of the guest.
    """

    event: int
    words: tuple[int, ...]
    time_ns: int

    def __repr__(self) -> str:
        name = {int(event): event.name for event in uapi.Event}.get(self.event, f"event {self.event:#x}")
        return f"Message({name}, {', '.join(hex(word) for word in self.words)})"


@dataclass(frozen=True, repr=False)
class Remap(Message):
    """UFFD_EVENT_REMAP: mremap has moved registered memory.

    Attributes
    ----------
    start, to : int
        The address before and after.
    length : int
        In bytes.
    """

    start: int
    to: int
    length: int

    def __repr__(self) -> str:
        return f"Remap({self.length:#x} bytes from {self.start:#x} to {self.to:#x})"


@dataclass(frozen=True, repr=False)
class Remove(Message):
    """UFFD_EVENT_REMOVE: pages are gone by MADV_DONTNEED, MADV_FREE or MADV_REMOVE; the mapping stays.

    Attributes
    ----------
    start, end : int
        Addresses; `end` is the first one behind.
    region : str
        Name of the region, empty if none.
    first, count : int
        In pages of the region.
    """

    start: int
    end: int
    region: str
    first: int
    count: int

    def __repr__(self) -> str:
        where = f"pages {self.first}–{self.first + self.count - 1} of {self.region}" if self.region else ""
        return f"{type(self).__name__}({where or f'{self.start:#x}–{self.end:#x}'})"


class Unmap(Remove):
    """UFFD_EVENT_UNMAP: munmap, or mremap over it, has taken registered memory away; attributes as of Remove."""
