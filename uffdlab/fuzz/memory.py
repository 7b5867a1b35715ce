"""ExpectedMemory: the expected state of a region's pages, and of the file that they may belong to.

Sources: mm/userfaultfd.c, mm/memory.c, mm/hugetlb.c and mm/huge_memory.c of Linux 6.1 to 7.3.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

from uffdlab.fuzz.page import ExpectedPage, ObservedPage
from uffdlab.fuzz.rules import Op, Rules
from uffdlab.uapi import RegisterMode

MISSING, WP, MINOR, RWP = RegisterMode.MISSING, RegisterMode.WP, RegisterMode.MINOR, RegisterMode.RWP
NOTHING = RegisterMode(0)


class ExpectedMemory:
    """The expected pages of one region.

    Parameters
    ----------
    rules : Rules
    pages : int
        The number of pages.

    Attributes
    ----------
    pages : list of ExpectedPage
    file : list of int or None
        The first 8 bytes of each page of the file; None for a hole.
    messages : list of str
        The messages of the last call, other than page faults.
    never_written : set of int
        Pages of the file that were read but never written.
    maybe_holes : set of int
        Those of them that may still be holes, because the size of the huge page is not known.
    one_mapping : bool
        Whether the region is one mapping for the kernel, too: no call has split it.
    """

    def __init__(self, rules: Rules, pages: int) -> None:
        self.rules = rules
        self.pages = [ExpectedPage() for _ in range(pages)]
        self.file: list[int | None] = [None] * pages
        self.messages: list[str] = []
        self.never_written: set[int] = set()
        self.maybe_holes: set[int] = set()
        self.one_mapping = True

    def pages_of(self, op: Op) -> range:
        """Return the pages of a call."""
        whole = op.call in ("register", "mprotect") and op.count >= len(self.pages)
        count = op.count if self.one_mapping or whole else 1
        return range(op.page, min(op.page + count, len(self.pages)))

    def agrees(self, number: int, seen: ObservedPage) -> bool:
        """Return whether a page agrees with the model; take over the states that the kernel may choose."""
        page = self.pages[number]
        if self.rules.huge and not self.rules.file:
            seen = replace(seen, file=None)  # pagemap of 6.1 reports the huge zero page as a page of a file
        if seen.present and page.mapped is None:
            self.maybe_holes.discard(number)
        return page.agrees(seen)

    def each_page(self, op: Op, call: Callable[[int, ExpectedPage], str]) -> str:
        """Call `call` for each page until it fails for one, as the kernel does; return the result."""
        for done, number in enumerate(self.pages_of(op)):
            outcome = call(number, self.pages[number])
            if outcome != "ok":
                return f"EAGAIN after {done}" if done else outcome
        return "ok"

    def fill_page(self, number: int, value: int, *, wp: bool = False) -> None:
        """Map a page with this content; for shared memory, write it into the file."""
        if self.rules.shared:
            self.put_in_file(number, value)
        self.pages[number].map_page(anon=not self.rules.shared, content=value, wp=wp, entry_writable=True)

    def fill_hole(self, number: int) -> None:
        """Fill a hole of the file with a page of zeroes."""
        if self.rules.huge:  # the kernel chooses the size of the page
            holes = {each for each, content in enumerate(self.file) if content is None}
            self.maybe_holes |= holes
            self.never_written |= holes
            self.file[:] = [content or 0 for content in self.file]
        self.file[number] = 0
        self.never_written.add(number)
        self.maybe_holes.discard(number)

    def put_in_file(self, number: int, value: int) -> None:
        """Write the first 8 bytes of a page of the file."""
        self.file[number] = value
        self.never_written.discard(number)
        self.maybe_holes.discard(number)

    def maybe_map_all(self, may_be_mapped: Callable[[ExpectedPage], bool]) -> None:
        """Accept as mapped or absent, at the next comparison, the pages for which `may_be_mapped` is true."""
        for number, each in enumerate(self.pages):
            if each.has_page or each.wp or each.poisoned or not may_be_mapped(each):
                continue
            if self.rules.file:
                each.mapped = None if self.file[number] is not None else False
            else:
                each.mapped = each.anon = None
                each.content = 0

    def send_messages(self, pages: range, *messages: str) -> None:
        """Expect these messages if a userfaultfd asked for events, and one of these pages is registered."""
        if self.rules.events and any(self.pages[number].modes for number in pages):
            self.messages.extend(messages)

    def write_may_unmap_huge(self, page: ExpectedPage) -> bool:
        """Return whether a write may unmap a huge page before it is made."""
        # A huge entry from a read is not writable if the range may be registered for WP: wp_huge_pmd() unmaps it, and
        # the next access is a minor fault.  Small entries become writable without that.
        may_be_read_only = page.mapped and not page.wp and page.entry_writable is None
        return self.rules.huge and self.rules.file and bool(may_be_read_only and page.modes & MINOR)

    def split(self, pages: range) -> None:
        """Record that a call on these pages splits the mapping."""
        if len(pages) < len(self.pages):
            self.one_mapping = False
            self.unmap_huge(pages)

    def unmap_huge(self, pages: range) -> None:
        """Accept pages as mapped or absent at the next comparison, if a part of a huge page is changed."""
        # The kernel does not map parts of a file's huge page: it unmaps the page, and faults map small pages later.
        if self.rules.huge and self.rules.file and len(pages) < len(self.pages):
            for page in self.pages:
                if page.mapped:
                    page.maybe_mapped()

    def child(self) -> ExpectedMemory:
        """Return the memory of a child that was just forked: its own page tables, the same file."""
        child = ExpectedMemory(replace(self.rules, events=False), 0)
        child.file, child.never_written, child.maybe_holes = self.file, self.never_written, self.maybe_holes
        child.one_mapping = self.one_mapping
        for each in self.pages:
            page = copy.copy(each)
            page.entry_writable = None
            if not self.rules.events:
                page.modes, page.wp = NOTHING, False
            if self.rules.shared and not page.modes & (WP | RWP):
                page.unmap()  # fork does not copy the entry; a fault of the child maps the page
                page.poisoned = False
            elif page.mapped and (page.is_zero_page or not page.anon):
                page.mapped = None  # the entry is copied if the mapping has, or had, an anonymous page
                page.anon = None if page.is_zero_page else page.anon
            child.pages.append(page)
        return child
