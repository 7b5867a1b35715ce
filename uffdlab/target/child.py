"""Child: a forked child of the target, with the same memory in page tables of its own."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Self

from uffdlab.errors import UsageError
from uffdlab.target.region import MappedPages, pages_of
from uffdlab.uapi.protocol.target import EndChild, ForkTarget
from uffdlab.uapi.protocol.witnesses import DescribeTarget
from uffdlab.witnesses.pagemap import PagemapWitness

if TYPE_CHECKING:
    from uffdlab.observations.snapshot import Snapshot
    from uffdlab.target.process import TargetProcess


class Child:
    """A process that was forked from the target.  It can make accesses: ``region.write(3, by=child)``.

    It makes one access at a time.  It is also a context manager that ends the process.

    Attributes
    ----------
    pid : int
        Its pid in the guest.
    took_ns : int
        The time that fork(2) took, with the wait until its FORK event was read.
    """

    def __init__(self, target: TargetProcess) -> None:
        self._target = target
        answer = target.ask(ForkTarget())
        self.pid = answer.pid
        self.took_ns = answer.ended_ns - answer.started_ns
        target.timeline.add("target", f"fork of child {self.pid}", answer.started_ns, answer.ended_ns, self)

    def snapshot(self, where: MappedPages) -> Snapshot:
        """Return the state of each page of `where` in the child's page tables, from pagemap.

        Raises
        ------
        UsageError
            The child has ended.
        WitnessError
            The child does not have this mapping: it was mapped after the fork.
        """
        if not self.pid:
            raise UsageError("this child has ended, and its page tables with it; lab.fork() makes a new one")
        pages = pages_of(where)
        tracks = self._target.ask(DescribeTarget()).tracks_soft_dirty
        read = partial(self._target.read_pagemap, child=self.pid)
        witness = PagemapWitness(read, kernel=self._target.kernel, tracks_soft_dirty=tracks)
        return witness.read(pages.mapping, pages.first, pages.count)

    def end(self) -> None:
        """Kill the child.  An access in which it still waits fails with SIGKILL."""
        if self.pid:
            pid, self.pid = self.pid, 0
            self._target.ask(EndChild(pid))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def __repr__(self) -> str:
        return f"<Child {self.pid or 'ended'}>"
