"""Observations: what a lab tells of the pages of its target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uffdlab.target.region import Mapping, PageRange, pages_of

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from uffdlab.machines.connection import Connection
    from uffdlab.observations.cross_examination import CrossExamination
    from uffdlab.observations.page_walk import Walks
    from uffdlab.observations.snapshot import Snapshot
    from uffdlab.observations.write_probe import Deed
    from uffdlab.target.registry import Belongings
    from uffdlab.target.timeline import Timeline
    from uffdlab.witnesses import Witness
    from uffdlab.witnesses.selection import Looking


class Observations:
    """What :class:`~uffdlab.lab.Lab` can be asked about pages."""

    timeline: Timeline
    _belongings: Belongings
    _connection: Connection
    _looking: Looking

    @property
    def witnesses(self) -> tuple[str, ...]:
        """The witnesses that this lab has, the best one first."""
        return self._looking.names

    def witness(self, name: str) -> Witness:
        """Give one witness, to be asked by itself: what it says is not kept on the timeline.

        Raises
        ------
        UsageError
            There is no witness of that name.
        WitnessError
            It cannot say anything in this lab.
        """
        self._connection.must_be_open()
        return self._looking.witness(name)

    @property
    def target_pid(self) -> int:
        """The target's process number in the guest: ``lab.exec(["cat", f"/proc/{lab.target_pid}/smaps"])``."""
        return int(self._looking.facts["pid"])

    def snapshot(self, where: Mapping | PageRange, witness: str | None = None) -> Snapshot:
        """Ask a witness for the state of each page of `where`.

        If none is named, the best one that can answer; why a better one could not is on the timeline.

        Raises
        ------
        WitnessError
            If the witness cannot say anything here.
        UsageError
            If these are too many pages for one look.
        """
        self._connection.must_be_open()
        pages = pages_of(where)
        snapshot, failed = self._looking.read(pages, witness)
        for error in failed:
            self.timeline.add("witness", str(error), self._connection.now(), None, error)
        self.timeline.add("snapshot", f"{pages} of {pages.mapping.name} by {snapshot.witness}", snapshot.time_ns,
                          None, snapshot)  # fmt: skip
        return snapshot

    def paused(self) -> AbstractContextManager[None]:
        """Stop the guest's processors within a ``with`` block: all that ``physical`` says there is of one moment.

        Nothing else can be asked of the guest meanwhile.

        Raises
        ------
        WitnessError
            If the host cannot see the guest's memory.
        """
        self._connection.must_be_open()
        return self._looking.paused()

    def cross_examine(self, where: Mapping | PageRange, *, by_deed: bool = False) -> CrossExamination:
        """Ask every witness for the same pages and hold their words against each other.

        Parameters
        ----------
        where : Mapping or PageRange
        by_deed : bool
            Also write to each page, as :meth:`probe` does, and hold what happens against what was said.  A write that
            goes through leaves the page dirty.
        """
        from uffdlab.observations.cross_examination import CrossExamination  # noqa: PLC0415 - it needs a lab's snapshots, not Lab

        pages = pages_of(where)
        snapshots = [self.snapshot(pages, name) for name in self.witnesses]
        numbers = range(pages.first, pages.first + pages.count) if by_deed else ()
        return CrossExamination(snapshots, [self.probe(pages.mapping[page]) for page in numbers])

    def probe(self, page: PageRange) -> Deed:
        """Write to one page without changing its content, and tell whether that trapped; see :class:`Deed`."""
        from uffdlab.observations.write_probe import probe  # noqa: PLC0415 - it needs numpy

        return probe(page, list(self._belongings.userfaultfds))

    def walk(self, *addresses: int) -> Walks:
        """Walk the page tables to one address of the target, or to several, side by side.

        Raises
        ------
        WitnessError
            If the host cannot see the guest's memory.
        """
        return self._looking.walk(addresses, list(self._belongings.regions))

    def read_pagemap(self, start: int, pages: int, page_size: int, child: int = 0) -> dict[str, Any]:
        """Read the pagemap words of the target, or of a child of it; witnesses call this."""
        answer: dict[str, Any] = self._connection.target_call("pagemap", start, pages, page_size, child, deadline=60.0)
        return answer

    def page_size_at(self, address: int) -> int:
        """Give the page size of the region at `address`, 4096 if there is none."""
        return self._belongings.page_size_at(address)

    def memory_at(self, address: int) -> str:
        """Give what kind of memory the region at `address` is, as ``lab.map`` calls it; empty if there is none."""
        return self._belongings.memory_at(address)

    def locate(self, address: int) -> tuple[str, int | None]:
        """Give the name of the region at `address` and the page within it; ("", None) if there is none."""
        return self._belongings.locate(address)
