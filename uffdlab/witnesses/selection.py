"""WitnessSelection: the witnesses of a target, and which of them is asked."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from msgspec.structs import replace

from uffdlab.arguments import nearest
from uffdlab.errors import MachineError, TargetLost, UsageError, WitnessError, errno_name
from uffdlab.uapi.protocol.witnesses import DescribeTarget, ReadEntries, ReadPagemap, ScanPages, StartSpin, StopSpin

if TYPE_CHECKING:
    from collections.abc import Callable

    from uffdlab.observations.page_walk import PageWalks
    from uffdlab.observations.snapshot import Snapshot
    from uffdlab.uapi.protocol.base import Method
    from uffdlab.uapi.protocol.witnesses import PagemapEntries, TargetFacts
    from uffdlab.witnesses.base import TargetPages, Witness
    from uffdlab.witnesses.physical import PhysicalWitness
    from uffdlab.witnesses.tables import GuestMemory

_Answer = TypeVar("_Answer")

ABOUT = {
    "physical": "the host walked the page tables in the guest's RAM; no kernel was asked",
    "kernel": "the PTE reader, a module in the guest's kernel, read the raw entries",
    "pagemap": "/proc/PID/pagemap said so, which does not know writable, dirty and accessed",
    "scan": "the ioctl PAGEMAP_SCAN said so, which does not know writable, dirty and accessed",
}
"""What each witness is, in one sentence; the best one is first."""
NAMES = tuple(ABOUT)
"""Every witness, the best one first."""
_BULK_DEADLINE = 60.0  # seconds
_MIN_PAGES_FROM_RAM = 1 << 14  # pages
_MAX_PAGES = 1 << 22  # pages of one snapshot, which takes some 70 MB


class Ask(Protocol):
    """Sends a request to the target."""

    def __call__(self, request: Method[_Answer], *, deadline: float = ...) -> _Answer:
        """Return the answer to a request; `deadline` in seconds."""
        ...  # pragma: no cover


class WitnessSelection:
    """The witnesses of one target.

    Parameters
    ----------
    ask : callable
        ``ask(request, deadline=…)``: a request of :mod:`uffdlab.uapi.protocol` to the target.
    physical : callable
        Returns the guest's memory; None if the host cannot read it.
    now : callable
        Returns the guest's CLOCK_MONOTONIC in ns.
    kernel : str
        The name of the kernel.
    machine : str
        The kind of machine.
    """

    def __init__(
        self,
        ask: Ask,
        physical: Callable[[], GuestMemory | None],
        now: Callable[[], int],
        *,
        kernel: str,
        machine: str,
    ) -> None:
        self._ask = ask
        self._physical = physical
        self._now = now
        self._kernel = kernel
        self._machine = machine
        self._nonce = b""
        self._facts: TargetFacts | None = None
        self._witnesses: dict[str, Witness] = {}
        self._buffer_lock = threading.Lock()

    # --- the target

    def new_target(self, nonce: bytes) -> None:
        """Discard everything about the last target; the new one has `nonce` in its beacon."""
        self._nonce = nonce
        self._facts = None
        self._witnesses = {}

    # --- the witnesses

    @property
    def names(self) -> tuple[str, ...]:
        """The witnesses that can answer now, the best one first."""
        return tuple(name for name in NAMES if not self._why_not(name))

    def _why_not(self, name: str) -> str:
        facts = self.facts
        if name == "physical" and self._physical() is None:
            return f"the host cannot read the memory of this {self._machine} machine"
        if name == "kernel":
            return facts.entries.why_not
        if name == "scan" and not facts.scan.answered:
            return "this kernel has no PAGEMAP_SCAN, which Linux 6.7 introduced"
        return ""

    @property
    def facts(self) -> TargetFacts:
        """The address of the target's beacon, and which interfaces its kernel has."""
        if self._facts is None:
            self._facts = self._ask(DescribeTarget())
        return self._facts

    def witness(self, name: str) -> Witness:
        """Return a witness by its name.

        Raises
        ------
        UsageError
            There is no witness with this name.
        WitnessError
            This witness cannot read anything in this lab.
        """
        if name not in NAMES:
            raise UsageError(
                f"there is no witness {name!r}{nearest(name, NAMES) or '.'} The witnesses are {', '.join(NAMES)}"
            )
        if name not in self._witnesses:
            try:
                why_not = self._why_not(name)
            except TargetLost as error:
                raise WitnessError(
                    f"{name}: there is no target process; lab.restart_target() starts one", witness=name
                ) from error
            if why_not:
                raise WitnessError(f"{name}: {why_not}; this lab has {', '.join(self.names)}", witness=name)
            self._witnesses[name] = self._make(name)
        return self._witnesses[name]

    def _make(self, name: str) -> Witness:
        common: dict[str, Any] = {
            "kernel": self._kernel,
            "tracks_soft_dirty": self.facts.tracks_soft_dirty,
        }
        # Imported when first used, with numpy: a lab that reads no page states does not wait for that.
        if name == "pagemap":
            from uffdlab.witnesses.pagemap import PagemapWitness  # noqa: PLC0415

            return PagemapWitness(self._read_pagemap, **common)
        if name == "scan":
            from uffdlab.witnesses.scan import ScanWitness  # noqa: PLC0415

            return ScanWitness(self._with_long_deadline(ScanPages), self.facts.scan.answered, **common)
        if name == "kernel":
            from uffdlab.witnesses.kernel import KernelWitness  # noqa: PLC0415

            return KernelWitness(self._with_long_deadline(ReadEntries), **common)
        from uffdlab.witnesses.physical import PhysicalWitness  # noqa: PLC0415

        memory = self._physical()
        assert memory is not None
        beacon = self.facts.address, self._nonce
        return PhysicalWitness(memory, beacon, self._spinning, now=self._now, **common)

    def _physical_witness(self) -> PhysicalWitness:
        return cast("PhysicalWitness", self.witness("physical"))

    def walk(self, addresses: Iterable[int], describe: Callable[[int], str]) -> PageWalks:
        """Walk the page tables to some addresses; ``describe(address)`` returns the page and mapping, for the title.

        Raises
        ------
        WitnessError
            The host cannot read the guest's memory.
        """
        from uffdlab.observations.page_walk import PageWalk, PageWalks  # noqa: PLC0415 - they need numpy

        witness = self._physical_witness()
        tracks_soft_dirty = self.facts.tracks_soft_dirty
        return PageWalks(
            PageWalk(
                each, witness.path(each), what=describe(each), kernel=self._kernel, tracks_soft_dirty=tracks_soft_dirty
            )
            for each in addresses
        )

    def _with_long_deadline(
        self, method: Callable[[int, int, int], Method[_Answer]]
    ) -> Callable[[int, int, int], _Answer]:
        return lambda start, pages, page_size: self._ask(method(start, pages, page_size), deadline=_BULK_DEADLINE)

    def _read_pagemap(self, start: int, pages: int, page_size: int) -> PagemapEntries:
        ask_for_entries = self._with_long_deadline(ReadPagemap)
        if pages < _MIN_PAGES_FROM_RAM or self._physical() is None:
            return ask_for_entries(start, pages, page_size)
        # The target leaves so many entries in its memory, and the host reads them from the guest's RAM.
        physical = self._physical_witness()
        with self._buffer_lock:
            answer = self._ask(ReadPagemap(start, pages, page_size, in_memory=True), deadline=_BULK_DEADLINE)
            if not answer.at:
                return answer
            try:
                return replace(answer, entries=bytes(physical.content(answer.at, 8 * pages)))
            except WitnessError:  # swapped out, or a wrong address
                return ask_for_entries(start, pages, page_size)

    @contextlib.contextmanager
    def _spinning(self, seconds: float) -> Iterator[None]:
        """Keep the target in user mode, so that its page-table root is in a CPU's CR3."""
        try:
            error_number = -self._ask(StartSpin(int(seconds * 1e9)))
        except TargetLost as error:
            raise WitnessError(
                "physical: the target has ended, and its page tables with it; lab.restart_target() starts a new one",
                witness="physical",
            ) from error
        if error_number:
            raise WitnessError(
                "physical: the target could not start the thread that keeps its page tables in use: "
                f"{errno_name(error_number)}",
                witness="physical",
            )
        try:
            yield
        finally:
            with contextlib.suppress(TargetLost):
                self._ask(StopSpin())

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the guest, after finding the target's page tables, for which the guest must run."""
        witness = self._physical_witness()
        memory = self._physical()
        assert memory is not None
        witness.find()
        with memory.paused():
            yield

    # --- a snapshot

    def read(self, where: TargetPages, name: str | None = None) -> tuple[Snapshot, list[WitnessError]]:
        """Return a snapshot by one witness, or if none is named, by the best one that can answer.

        Returns
        -------
        snapshot : Snapshot
        failed : list of WitnessError
            Why better witnesses did not answer.

        Raises
        ------
        WitnessError
            The named witness cannot answer, or no witness can.
        UsageError
            These are too many pages for one snapshot.
        """
        if where.count > _MAX_PAGES:
            raise UsageError(
                f"{where.count} pages are too many for one snapshot (at most {_MAX_PAGES}); take a part of them, "
                f"region[:{_MAX_PAGES}]"
            )
        lost = where.mapping.lost  # other memory may be at its address now
        if lost is not None:
            witness = name or NAMES[0]
            raise WitnessError(f"{witness}: {lost}", witness=witness) from lost
        if name is not None:
            return self._snapshot_of(name, where), []
        failed: list[WitnessError] = []
        for candidate in NAMES:
            try:
                if self._why_not(candidate):
                    continue
                return self._snapshot_of(candidate, where), failed
            except WitnessError as error:
                failed.append(error)
            except TargetLost as error:
                failed.append(WitnessError(f"{candidate} of {where.mapping.name}: {error}", witness=candidate))
        for other in failed[1:]:
            failed[0].add_note(f"and {other}")
        raise failed[0]

    def _snapshot_of(self, name: str, where: TargetPages) -> Snapshot:
        try:
            return self.witness(name).read(where.mapping, where.first, where.count)
        except MachineError as error:
            error.add_note(f"the machine failed while {name} was reading {where.mapping.name}")
            raise
