"""TargetProcess: the host's side of the target process.  All requests to the target go through it."""

from __future__ import annotations

import itertools
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from uffdlab.errors import UffdlabError, UsageError
from uffdlab.machines.connection import DEADLINE
from uffdlab.target.notifications import Notifications
from uffdlab.target.registry import Registry
from uffdlab.target.touch import Touch
from uffdlab.uapi import RegisterMode
from uffdlab.uapi.protocol.agent import SpawnTarget
from uffdlab.uapi.protocol.target import ProbeKernel, StartTouch, WithdrawTouch
from uffdlab.uapi.protocol.witnesses import ReadPagemap
from uffdlab.witnesses.selection import WitnessSelection

if TYPE_CHECKING:
    from uffdlab.machines.connection import Connection
    from uffdlab.observations.page_walk import PageWalks
    from uffdlab.observations.snapshot import Snapshot
    from uffdlab.target.capabilities import Capabilities
    from uffdlab.target.timeline import Timeline
    from uffdlab.uapi.protocol.base import Method
    from uffdlab.uapi.protocol.target import Sweep, SystemCall
    from uffdlab.uapi.protocol.witnesses import PagemapEntries
    from uffdlab.witnesses.base import TargetPages

_Answer = TypeVar("_Answer")

__all__ = ["ForkedProcess", "TargetProcess"]

_BASE = 0x10_0000_0000  # the address of the target's first region: a round number is easy to read
_NONCE_BYTES = 32
_PRESENT, _UFFD_WP = 1 << 63, 1 << 57  # of a pagemap entry, Documentation/admin-guide/mm/pagemap.rst
_BULK_DEADLINE = 60.0  # seconds


class ForkedProcess(Protocol):
    """A process that was forked from the target: a :class:`uffdlab.target.child.Child` is one."""

    pid: int
    """Its pid in the guest, 0 after its end."""


class TargetProcess:
    """The target process of one lab, as the host sees it.

    Parameters
    ----------
    connection : Connection
        The connection to the machine that the target runs on.
    timeline : Timeline
        It gets an entry for everything that happens in the target.

    Attributes
    ----------
    registry : Registry
        The regions, userfaultfds and touches of the target.
    witnesses : WitnessSelection
        The witnesses that can read its pages.
    """

    def __init__(self, connection: Connection, timeline: Timeline) -> None:
        self.connection = connection
        self.timeline = timeline
        self.registry = Registry()
        self.witnesses = WitnessSelection(
            self.ask,
            lambda: connection.machine.physical,
            connection.now,
            kernel=connection.kernel,
            machine=connection.machine.name,
        )
        self._notifications = Notifications(self.registry, timeline, connection.now)
        self._touch_numbers = itertools.count(1)
        self._capabilities: Capabilities | None = None

    # --- start and end

    def open(self) -> None:
        """Subscribe to the machine, which has just started, and start the first target process on it."""
        self._capabilities = None
        self.connection.open(self._notifications.dispatch)
        self.restart()

    def restart(self) -> None:
        """Start a new target process.  End the old one with its regions, userfaultfds and touches."""
        self.registry.lose("the target process was replaced by a new one")
        nonce = os.urandom(_NONCE_BYTES)
        self.ask(SpawnTarget(nonce, _BASE))
        self.witnesses.new_target(nonce)
        if len(self.timeline):
            self.timeline.add("target", "a new target process", self.connection.now())

    @property
    def pid(self) -> int:
        """The target's pid in the guest."""
        return self.witnesses.facts.pid

    @property
    def kernel(self) -> str:
        """The kernel's name."""
        return self.connection.kernel

    @property
    def capabilities(self) -> Capabilities:
        """What this kernel can do, found by trying when this is first read."""
        if self._capabilities is None:
            from uffdlab.target.capabilities import Capabilities  # noqa: PLC0415 - most labs do not ask

            self._capabilities = Capabilities.from_answer(self.kernel, self.ask(ProbeKernel(), deadline=60.0))
        return self._capabilities

    @property
    def known_capabilities(self) -> Capabilities | None:
        """The capabilities if they are known already, else None.  This sends no request."""
        return self._capabilities

    # --- the wire

    def ask(self, request: Method[_Answer], *, deadline: float = DEADLINE) -> _Answer:
        """Send a request to the target or the agent; see :meth:`uffdlab.lab.Lab.ask`."""
        return self.connection.ask(request, deadline=deadline)

    # --- touches

    def touch(
        self,
        kind: str,
        address: int,
        what: str,
        *,
        length: int,
        stride: int = 8,
        value: int = 0,
        more: Sweep | SystemCall | None = None,
        by: ForkedProcess | None = None,
    ) -> Touch[Any]:
        """Start one access on its own thread in the target, or in a child.  Regions have methods for this."""
        if by is not None and not by.pid:
            raise UsageError("this child has ended; lab.fork() makes a new one")
        number = next(self._touch_numbers)
        request = StartTouch(number, kind, address, length, stride, value, more, by.pid if by else 0)
        now = self.connection.now()
        touch: Touch[Any] = Touch(self.connection, request, what, self._advice_on, started_ns=now)
        self.registry.add_touch(touch)
        try:
            self.ask(request)
        except BaseException as error:
            if not isinstance(error, UffdlabError):  # as Ctrl-C: its thread may run already, and nobody could end it
                with suppress(UffdlabError):
                    self.ask(WithdrawTouch(number))
            self.registry.pop_touch(number)
            raise
        return touch

    def _advice_on(self, waiting: StartTouch) -> str:
        # What is known of a touch that waits: "" if its page is not mapped, so that its fault has yet to be resolved.
        size = self.page_size_at(waiting.address)
        if waiting.length > size:  # for which of its pages it waits is not known
            return ""
        try:
            pagemap = self.ask(ReadPagemap(waiting.address // size * size, 1, size, waiting.child))
        except UffdlabError:
            return ""
        name, page = self.registry.locate(waiting.address)
        entry = int.from_bytes(pagemap.entries, "little")
        if page is None or not entry & _PRESENT:
            return ""
        uffd, modes = self.registry.owner_of(waiting.address) or ("the userfaultfd of its fault", RegisterMode(0))
        if entry & _UFFD_WP and modes & RegisterMode.RWP:
            way = f"{uffd}.rwprotect(region[{page}], rwp=False) resolves its fault"
            return f"page {page} of {name} is mapped read-write-protected; {way}"
        if entry & _UFFD_WP and waiting.kind != "read":
            way = f"{uffd}.writeprotect(region[{page}], wp=False) resolves its fault"
            return f"page {page} of {name} is mapped write-protected; {way}"
        return (
            f"page {page} of {name} is mapped by now, but nobody has woken who waits for it. It sleeps on the "
            f"userfaultfd that its range is registered with, and only that one can wake it: {uffd}.wake(region[{page}])"
        )

    # --- addresses

    def locate(self, address: int) -> tuple[str, int | None]:
        """Return the name of the region at `address` and the page within it; ("", None) if there is none."""
        return self.registry.locate(address)

    def page_size_at(self, address: int) -> int:
        """Return the page size in bytes of the region at `address`, 4096 if there is none."""
        return self.registry.page_size_at(address)

    def memory_at(self, address: int) -> str:
        """Return the kind of memory of the region at `address`, a name of ``lab.map``; "" if there is none."""
        return self.registry.memory_at(address)

    # --- page states

    def snapshot(self, where: TargetPages, witness: str | None = None) -> Snapshot:
        """Return the state of each page of `where`; see :meth:`uffdlab.lab.Lab.snapshot`."""
        self.connection.must_be_open()
        snapshot, failed = self.witnesses.read(where, witness)
        for error in failed:
            self.timeline.add("witness", str(error), self.connection.now(), None, error)
        text = f"{where} of {where.mapping.name} by {snapshot.witness}"
        self.timeline.add("snapshot", text, snapshot.time_ns, None, snapshot)
        return snapshot

    def walk(self, *addresses: int) -> PageWalks:
        """Walk the page tables to some addresses; see :meth:`uffdlab.lab.Lab.walk`."""
        return self.witnesses.walk(addresses, self.registry.describe)

    def read_pagemap(self, start: int, pages: int, page_size: int, child: int = 0) -> PagemapEntries:
        """Read the pagemap entries of the target, or of a child of it.

        Parameters
        ----------
        start : int
            The address of the first page.
        pages, page_size : int
            The number of pages, and the size of a page in bytes.
        child : int
            The pid of the child, 0 for the target itself.
        """
        return self.ask(ReadPagemap(start, pages, page_size, child), deadline=_BULK_DEADLINE)
