"""Region, its alias, and ranges of their pages."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias

from msgspec import Struct

from uffdlab.arguments import checked
from uffdlab.errors import ProtocolError, TargetLost, UsageError, WrongArguments
from uffdlab.target import syscalls
from uffdlab.target.address_range import AddressRange
from uffdlab.target.mapping_size import reserve
from uffdlab.target.pages import Pages
from uffdlab.uapi.memory import MEMORY
from uffdlab.uapi.protocol.agent import ReserveHugepages
from uffdlab.uapi.protocol.target import FindFreePlace, MapMemory, NoteMoved, UnmapMemory

if TYPE_CHECKING:
    from uffdlab.observations.page_walk import PageWalks
    from uffdlab.observations.snapshot import Snapshot
    from uffdlab.observations.write_probe import WriteProbe
    from uffdlab.target.process import TargetProcess
    from uffdlab.target.results import CallResult
    from uffdlab.uapi.memory import Memory


class PageRange(Pages, Struct, frozen=True):
    """Some neighbouring pages of a region: ``region[3]``, ``region[8:16]``.

    Attributes
    ----------
    mapping : MemoryMapping
        The region or alias that they belong to.
    first, count : int
        The number of the first page in `mapping`, and the number of pages.
    """

    mapping: MemoryMapping
    first: int
    count: int

    @property
    def start(self) -> int:
        """The address of the first page in the target."""
        return self.mapping.start + self.first * self.mapping.page_size

    @property
    def length(self) -> int:
        """The length in bytes."""
        return self.count * self.mapping.page_size

    def snapshot(self, witness: str | None = None) -> Snapshot:
        """See :meth:`MemoryMapping.snapshot`."""
        return self.mapping.target.snapshot(self, witness)

    def __getitem__(self, which: object) -> PageRange:
        name = self.mapping.name
        raise WrongArguments(
            f"{self} of {name} cannot be cut again; take pages of the region, by their numbers there: "
            f"region[{self.first}], region[{self.first}:{self.first + self.count}]"
        )

    @property
    def _addresses(self) -> AddressRange:
        self.mapping._must_be_there()
        mapping = self.mapping
        return AddressRange(mapping.target, mapping.name, self.start, self.first, self.count, mapping.page_size)

    def __str__(self) -> str:
        last = self.first + self.count - 1
        return f"page {self.first}" if self.count == 1 else f"pages {self.first}–{last}"


@checked("region", snapshot="region.snapshot('pagemap')", probe="region.probe(3)", walk="region.walk(3)")
class MemoryMapping(Pages):
    """One whole mapping of the target.

    Attributes
    ----------
    target : TargetProcess
        The process that has the mapping.
    lab : Lab
        The lab that it belongs to.
    name : str
        Its name in tables and pictures.
    start : int
        Its address in the target.
    pages : int
        The number of its pages.
    page_size : int
        The size of a page in bytes.
    lost : TargetLost, UsageError or None
        The error that says why it is not mapped any more; None while it is mapped.
    """

    def __init__(self, target: TargetProcess, name: str, start: int, pages: int, page_size: int) -> None:
        self.target = target
        self.lab: Any = target.timeline.lab  # for users; this package does not use it
        self.name = name
        self.start = start
        self.pages = pages
        self.page_size = page_size
        self.lost: TargetLost | UsageError | None = None

    @property
    def length(self) -> int:
        """The length in bytes."""
        return self.pages * self.page_size

    def __len__(self) -> int:
        return self.pages

    def __iter__(self) -> Iterator[PageRange]:
        return (PageRange(self, page, 1) for page in range(self.pages))

    def __getitem__(self, which: int | slice) -> PageRange:
        if not isinstance(which, slice):
            if not hasattr(which, "__index__"):
                raise UsageError(
                    f"{self.name}[{which!r}] is not a page number; give an integer or a slice: region[3], region[8:16]"
                )
            which = operator.index(which)
            page = which + self.pages if which < 0 else which
            if not 0 <= page < self.pages:
                raise UsageError(f"{self.name} has no page {which}; it has pages 0 to {self.pages - 1}")
            return PageRange(self, page, 1)
        first, stop, step = which.indices(self.pages)
        if step != 1:
            raise UsageError(f"a range of {self.name} cannot have a step of {step}; the step must be 1")
        if stop <= first or (which.stop is not None and which.stop > self.pages):
            raise UsageError(
                f"{self.name}[{'' if which.start is None else which.start}:{'' if which.stop is None else which.stop}] "
                f"is not a range of its {self.pages} pages; give a first page and an end within 0 to {self.pages}"
            )
        return PageRange(self, first, stop - first)

    def page_of(self, address: int) -> int | None:
        """Return the number of the page that holds `address`; None if it is outside."""
        page = (address - self.start) // self.page_size
        return page if 0 <= page < self.pages else None

    def snapshot(self, witness: str | None = None) -> Snapshot:
        """Return the state of every page, as one witness reports it.

        Parameters
        ----------
        witness : str, optional
            One of :data:`uffdlab.witnesses.selection.NAMES`.  The default is the best witness available.

        Raises
        ------
        WitnessError
            The witness cannot read these pages.
        """
        return self.target.snapshot(self[:], witness)

    def probe(self, page: int) -> WriteProbe:
        """Test whether `page` can be written, by a write that changes no content; see :class:`WriteProbe`."""
        from uffdlab.target.write_probe import probe  # noqa: PLC0415 - it needs numpy

        return probe(self.target, self[page])

    def walk(self, page: int) -> PageWalks:
        """Walk the page tables to one page; if the region has an alias, also to the same page there.

        Raises
        ------
        WitnessError
            The host cannot read the guest's memory.
        """
        return self.target.walk(self[page].start)

    def _lose(self, why: str, kind: type[TargetLost | UsageError] = TargetLost) -> None:
        # Mark it as lost: from now on every access raises an error of this kind.  The registry calls this.
        self.lost = kind(f"{self.name} does not exist any more: {why}; map a new one: lab.map(…)")

    def _must_be_there(self) -> None:
        # Raise TargetLost if its target has ended, UsageError if it was unmapped.
        if self.lost is not None:
            raise self.lost.with_traceback(None)

    def _must_be_of(self, target: TargetProcess) -> None:
        if self.target is not target:
            raise UsageError(f"{self.name} belongs to another lab, {self.lab!r}; map a region in this one: lab.map(64)")

    @property
    def _addresses(self) -> AddressRange:
        self._must_be_there()
        return AddressRange(self.target, self.name, self.start, 0, self.pages, self.page_size)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: {self.pages} pages of {self.page_size} bytes at {self.start:#x}>"


@checked("region", walk="region.walk(3)")
class Region(MemoryMapping):
    """A mapping that can be registered with a userfaultfd.

    Attributes
    ----------
    memory : str
        A key of :data:`uffdlab.uapi.memory.MEMORY`, ``shmem`` or ``hugetlb`` for example.
    has_alias : bool
        Whether it has an alias.
    """

    def __init__(
        self, target: TargetProcess, number: int, memory: str, start: int, alias: int, pages: int, page_size: int
    ) -> None:
        super().__init__(target, f"region-{number}", start, pages, page_size)
        self.number = number
        self.memory = memory
        self.has_alias = MEMORY[memory].has_alias
        self._alias = MemoryMapping(target, f"region-{number}'s alias", alias, pages, page_size)

    @property
    def alias(self) -> MemoryMapping:
        """A second mapping of the same file pages, which the lab never registers.

        An access through it puts a page into the page cache without mapping it in the region.

        Raises
        ------
        UsageError
            This memory has no file, so its pages cannot have a second mapping.
        """
        if not self.has_alias:
            raise UsageError(
                f"{self.name} is {self.memory} memory, {MEMORY[self.memory].about}: its pages cannot have a second "
                "mapping; memory that is shared or has a file has an alias"
            )
        return self._alias

    def walk(self, page: int) -> PageWalks:
        """Walk the page tables to one page; if there is an alias, also to the same page there, side by side."""
        ends = [self[page].start]
        with suppress(UsageError):  # memory without a file has no alias
            ends.append(self.alias[page].start)
        return self.target.walk(*ends)

    def _lose(self, why: str, kind: type[TargetLost | UsageError] = TargetLost) -> None:
        super()._lose(why, kind)
        self._alias._lose(why, kind)

    def unmap(self) -> None:
        """Unmap the region and its alias."""
        self._must_be_there()
        self.target.ask(UnmapMemory(self.number))
        self.target.registry.unmapped(self)
        self.target.timeline.add("unmap", f"{self.name} was unmapped", self.target.connection.now(), None, self)

    def mremap(self, to: int | None = None) -> CallResult:
        """Call mremap(2): move the whole region to another address, which :attr:`start` is then.

        Parameters
        ----------
        to : int, optional
            The new address; MREMAP_FIXED unmaps what is mapped there.  The default is a free range.
        """
        addresses = self._addresses
        destination = self.target.ask(FindFreePlace(self.length)) if to is None else to
        result = syscalls.move(addresses, destination)
        if result.value != destination:
            raise ProtocolError(f"{result.call} returned {result.value:#x}")
        self.start = destination
        self.target.ask(NoteMoved(self.number, destination))
        return result

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, {self.memory}: {MEMORY[self.memory].about}>"


def map_region(target: TargetProcess, memory: str, kind: Memory, pages: int) -> Region:
    """Map new memory in the target; `kind` is ``MEMORY[memory]``.  See :meth:`uffdlab.lab.Lab.map`."""

    def free_hugepages(page_size: int, wanted: int) -> int:
        return target.ask(ReserveHugepages(page_size, wanted), deadline=60.0).free

    reserve(kind, pages, free_hugepages)
    answer = target.ask(MapMemory(memory, pages, kind.page_size))
    region = Region(target, answer.number, memory, answer.start, answer.alias, pages, kind.page_size)
    target.registry.add_region(region)
    alias = f", its alias at {region.alias.start:#x}" if region.has_alias else ""
    target.timeline.add("map", f"{region!r}{alias}", target.connection.now())
    return region


MappedPages: TypeAlias = MemoryMapping | PageRange
"""A region, an alias, or some pages of one."""


def pages_of(where: MappedPages) -> PageRange:
    """Return a region, an alias or a part of one as a range of pages.

    Raises
    ------
    UsageError
        `where` is none of these.
    """
    if isinstance(where, PageRange):
        return where
    if isinstance(where, MemoryMapping):
        return where[:]
    raise UsageError(f"{where!r} has no pages; give a region or a part of one, such as region[3] or region[8:16]")


def mapped_pages(where: MappedPages, target: TargetProcess) -> PageRange:
    """Return a region, an alias or a part of one as a range.

    Raises
    ------
    TargetLost, UsageError
        It is not mapped any more, or belongs to another target: all have regions at the same addresses.
    """
    pages = pages_of(where)
    pages.mapping._must_be_there()
    pages.mapping._must_be_of(target)
    return pages
