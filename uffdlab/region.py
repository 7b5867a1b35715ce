"""Region, its alias, and ranges of their pages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from uffdlab.errors import UsageError
from uffdlab.touch import Touch

if TYPE_CHECKING:
    from uffdlab.lab import Lab
    from uffdlab.snapshot import Snapshot
    from uffdlab.walk import Walks


@dataclass(frozen=True)
class PageRange:
    """Some neighbouring pages of a region: ``region[3]``, ``region[8:16]``.

    Attributes
    ----------
    mapping : Mapping
        The region or alias they belong to.
    first, count : int
        In pages.
    """

    mapping: Mapping
    first: int
    count: int

    @property
    def start(self) -> int:
        """Address of the first page in the target."""
        return self.mapping.start + self.first * self.mapping.page_size

    @property
    def length(self) -> int:
        """Length in bytes."""
        return self.count * self.mapping.page_size

    def snapshot(self, witness: str | None = None) -> Snapshot:
        """See :meth:`Mapping.snapshot`."""
        return self.mapping.lab.snapshot(self, witness)

    def __str__(self) -> str:
        last = self.first + self.count - 1
        return f"page {self.first}" if self.count == 1 else f"pages {self.first}–{last}"


class Mapping:
    """One mapping of the target, as pages.

    Attributes
    ----------
    lab : Lab
        The lab it belongs to.
    name : str
        What it is called in tables and pictures.
    start : int
        Its address in the target.
    pages : int
        How many pages it has.
    page_size : int
        Size of one of them in bytes.
    """

    def __init__(self, lab: Lab, name: str, start: int, pages: int, page_size: int) -> None:
        self.lab = lab
        self.name = name
        self.start = start
        self.pages = pages
        self.page_size = page_size

    @property
    def length(self) -> int:
        """Length in bytes."""
        return self.pages * self.page_size

    def __len__(self) -> int:
        return self.pages

    def __iter__(self) -> Iterator[PageRange]:
        return (PageRange(self, page, 1) for page in range(self.pages))

    def __getitem__(self, which: int | slice) -> PageRange:
        if isinstance(which, int):
            page = which + self.pages if which < 0 else which
            if not 0 <= page < self.pages:
                raise UsageError(f"{self.name} has pages 0 to {self.pages - 1}; page {which} is not one of them")
            return PageRange(self, page, 1)
        first, stop, step = which.indices(self.pages)
        if step != 1:
            raise UsageError(f"pages of {self.name} were asked for in steps of {step}; a range takes them one by one")
        if stop <= first or (which.stop is not None and which.stop > self.pages):
            raise UsageError(
                f"{self.name}[{'' if which.start is None else which.start}:{'' if which.stop is None else which.stop}] "
                f"is no range of its {self.pages} pages; give first and end within 0 to {self.pages}"
            )
        return PageRange(self, first, stop - first)

    def page_of(self, address: int) -> int | None:
        """Give the number of the page that holds `address`, None if it is outside."""
        page = (address - self.start) // self.page_size
        return page if 0 <= page < self.pages else None

    def snapshot(self, witness: str | None = None) -> Snapshot:
        """Ask a witness for the state of every page.

        Parameters
        ----------
        witness : str, optional
            One of :data:`uffdlab.witnesses.NAMES`; the best one there is if not given.

        Raises
        ------
        WitnessError
            If the witness that was asked for cannot say anything here.
        """
        return self.lab.snapshot(self[:], witness)

    def walk(self, page: int) -> Walks:
        """Walk the page tables to one page; of a region with an alias, also to the same page there.

        Raises
        ------
        WitnessError
            If the host cannot see the guest's memory.
        """
        return self.lab.walk(self[page].start)

    def read(self, page: int, offset: int = 0) -> Touch:
        """Read the 64-bit word at byte `offset` of `page`, on a thread of its own in the guest."""
        return self._touch("read", page, offset, 0)

    def write(self, page: int, value: int = 0x55, offset: int = 0) -> Touch:
        """Write the 64-bit word `value` at byte `offset` of `page`, on a thread of its own in the guest."""
        return self._touch("write", page, offset, value)

    def copy_out(self, page: int, deadline: float = 10.0) -> bytes:
        """Give the whole content of `page`; this reads it, so it may fault.

        Raises
        ------
        FaultUnresolved
            If the read still waits for its page fault at `deadline` (seconds); it is withdrawn then.
        """
        where = self[page]
        touch = self.lab.touch("copy_out", where.start, f"reading {where} of {self.name}", length=where.length)
        try:
            data: bytes = touch.result(deadline)
        finally:
            if touch.state == "waiting":
                touch.withdraw()
        return data

    def fill(self, value: int = 1, deadline: float = 60.0) -> None:
        """Write a word into every page: `value` into page 0, `value` + 1 into page 1, and so on.

        Raises
        ------
        TouchFailed
            If the guest has not enough memory for the pages (SIGBUS).
        FaultUnresolved
            If it meets a page fault that nobody resolves before `deadline` (seconds); it is withdrawn then.
        """
        what = f"filling {self.pages} pages of {self.name}"
        touch = self.lab.touch("fill", self.start, what, length=self.length, stride=self.page_size, value=value)
        try:
            touch.result(deadline)
        finally:
            if touch.state == "waiting":
                touch.withdraw()

    def _touch(self, kind: str, page: int, offset: int, value: int) -> Touch:
        where = self[page]
        if not 0 <= offset <= where.length - 8 or offset % 8:
            raise UsageError(f"offset {offset} is no aligned 64-bit word within a page of {where.length} bytes")
        what = f"{kind} {'to' if kind == 'write' else 'of'} {where} of {self.name}"
        return self.lab.touch(kind, where.start + offset, what, length=8, value=value % (1 << 64))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: {self.pages} pages of {self.page_size} bytes at {self.start:#x}>"


class Region(Mapping):
    """A mapping that can be registered with a userfaultfd.

    Attributes
    ----------
    memory : str
        ``shmem`` or ``hugetlb``.
    alias : Mapping
        A second mapping of the same file pages, never registered: through it pages get into the page cache without
        being mapped in the region.
    """

    def __init__(self, lab: Lab, number: int, memory: str, start: int, alias: int, pages: int, page_size: int) -> None:
        super().__init__(lab, f"region-{number}", start, pages, page_size)
        self.number = number
        self.memory = memory
        self.alias = Mapping(lab, f"region-{number}'s alias", alias, pages, page_size)

    def walk(self, page: int) -> Walks:
        """Walk the page tables to one page, and where there is an alias to the same page there, side by side."""
        ends = [self[page].start]
        with suppress(UsageError):  # memory without a file has no alias
            ends.append(self.alias[page].start)
        return self.lab.walk(*ends)

    def unmap(self) -> None:
        """Unmap the region and its alias."""
        self.lab.unmap(self)
