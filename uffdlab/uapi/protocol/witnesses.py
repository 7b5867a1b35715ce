"""The methods of the target for the witnesses: the entries of its pages, in several formats."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from uffdlab.uapi.protocol.base import (
    USER_END,
    Answer,
    Nanoseconds,
    Pid,
    Place,
    TargetMethod,
    Text,
    Uint64,
    check_length,
    method,
)


class ScanFacts(Answer, frozen=True):
    """The categories of PAGEMAP_SCAN whose absence means something; 0 where the kernel has no PAGEMAP_SCAN."""

    answered: Uint64


class ReaderFacts(Answer, frozen=True):
    """Why the kernel's PTE reader is not available; empty if it is."""

    why_not: Text


class TargetFacts(Answer, frozen=True):
    """Facts about a target: the address of its beacon page, its process id, and what its witnesses can report."""

    address: Place
    pid: Pid
    tracks_soft_dirty: bool
    scan: ScanFacts
    entries: ReaderFacts


@method("target.beacon")
class DescribeTarget(TargetMethod[TargetFacts], frozen=True):
    """Return the address of the beacon page, and which witnesses the kernel offers."""


class PagemapEntries(Answer, frozen=True):
    """Entries of /proc/PID/pagemap, 64 bits, little-endian: for each page the entry of its first 4 KiB.

    If they are left in the memory of the target, ``at`` is their address and ``entries`` is empty.  ``hugetlb``:
    whether the pages are of hugetlbfs.  ``vma_soft_dirty``: whether the whole mapping is soft-dirty (VM_SOFTDIRTY).
    """

    hugetlb: bool
    vma_soft_dirty: bool
    time_ns: Nanoseconds
    entries: bytes = b""
    at: Annotated[int, Meta(ge=0, lt=USER_END)] = 0


@method("target.pagemap")
class ReadPagemap(TargetMethod[PagemapEntries], frozen=True):
    """Read the pagemap entries of some pages of the target, or of a child.

    `in_memory`: leave them in the target's memory, for a host that reads the guest's RAM.
    """

    start: int
    pages: int
    page_size: int
    child: int = 0
    in_memory: bool = False

    def check(self, answer: PagemapEntries) -> None:
        """See :meth:`Method.check`: one entry for each page, unless they are left in memory."""
        if answer.at and not self.in_memory:
            raise ValueError("`at` was not requested")
        check_length("entries", answer.entries, 0 if answer.at else 8 * self.pages)


@method("target.clear_soft_dirty")
class ClearSoftDirty(TargetMethod[None], frozen=True):
    """Clear the soft-dirty bits of the target (clear_refs, proc(5))."""


class ScanRuns(Answer, frozen=True):
    """The result of PAGEMAP_SCAN: start, end and categories of each run of pages, 64 bits each, little-endian."""

    runs: bytes
    vma_soft_dirty: bool
    time_ns: Nanoseconds

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.runs) % 24:
            raise ValueError(f"`runs` has {len(self.runs)} bytes, not a multiple of 24")


@method("target.scan")
class ScanPages(TargetMethod[ScanRuns], frozen=True):
    """Scan some pages of the target with PAGEMAP_SCAN."""

    start: int
    pages: int
    page_size: int


class TableEntries(Answer, frozen=True):
    """One struct pte_reader_entry for each page: the entry (64 bits), its level (32 bits), zero (32 bits)."""

    entries: bytes
    time_ns: Nanoseconds


@method("target.entries")
class ReadEntries(TargetMethod[TableEntries], frozen=True):
    """Read the page-table entries of some pages of the target through the kernel's PTE reader."""

    start: int
    pages: int
    page_size: int

    def check(self, answer: TableEntries) -> None:
        """See :meth:`Method.check`: one entry for each page."""
        check_length("entries", answer.entries, 16 * self.pages)


@method("target.spin")
class StartSpin(TargetMethod[Annotated[int, Meta(ge=-4095, le=0)]], frozen=True):
    """Keep a CPU busy in user mode, so that it uses the target's page tables; return 0 or -errno."""

    nanoseconds: int


@method("target.spin_stop")
class StopSpin(TargetMethod[None], frozen=True):
    """Stop keeping the CPU busy."""
