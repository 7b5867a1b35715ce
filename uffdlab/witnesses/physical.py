"""PhysicalWitness: the host walks the page tables in the guest's RAM.  The guest helps only to find the top table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from uffdlab import pte
from uffdlab.errors import UsageError, WitnessError
from uffdlab.observations.snapshot import Snapshot
from uffdlab.witnesses.roots import RootFinder
from uffdlab.witnesses.tables import GuestMemory, Root, Tables

if TYPE_CHECKING:
    from collections.abc import Callable

    from uffdlab.bulk.entries import Reading, Step
    from uffdlab.witnesses.base import TargetMapping
    from uffdlab.witnesses.roots import KeepBusy

__all__ = ["GuestMemory", "PhysicalWitness"]

_LEVEL_OF_ENTRIES = {1 << 12: 1, 1 << 21: 2, 1 << 30: 3}  # page size → level of its entries
_MAX_READS = 3  # attempts before the guest is paused


@dataclass
class _TargetMemory:
    """A range of the target's memory that is not a region."""

    start: int
    pages: int
    name: str = "the target's memory"
    page_size: int = 4096
    lost: None = None


class PhysicalWitness:
    """Reads page-table entries of the target from the guest's RAM.

    The target's top page table is found by its content.  While the target spins in user mode, one of the vCPUs uses it,
    and it maps the beacon's address to a page that holds the beacon.  The beacon is checked again before and after
    every read, so the table of another process is never used.

    Parameters
    ----------
    memory : GuestMemory
        The guest's RAM.
    beacon : (int, bytes)
        An address in the target and the random bytes at that address, within one 4 KiB page.
    keep_busy : callable
        ``keep_busy(seconds)`` → context manager; within it the target keeps a processor busy in user mode.
    kernel : str
        Name of the kernel, for the snapshot.
    now : callable, optional
        Returns the target's CLOCK_MONOTONIC in ns for the snapshot.
    deadline : float
        The time limit for the search of the target's page tables, in seconds.
    tracks_soft_dirty : bool
        False for a kernel without CONFIG_MEM_SOFT_DIRTY.
    """

    name = "physical"

    def __init__(
        self,
        memory: GuestMemory,
        beacon: tuple[int, bytes],
        keep_busy: KeepBusy,
        *,
        kernel: str = "",
        now: Callable[[], int] | None = None,
        deadline: float = 5.0,
        tracks_soft_dirty: bool = True,
    ) -> None:
        self._memory = memory
        self._finder = RootFinder(memory, beacon, keep_busy, deadline)
        self._kernel = kernel
        self._now = now
        self._tracks_soft_dirty = tracks_soft_dirty

    def read(self, region: TargetMapping, first: int, count: int) -> Snapshot:
        """Take a snapshot; see :class:`uffdlab.witnesses.base.Witness`.

        While the guest runs, each page table is read consistently, and so is the path to it.  Two page tables may have
        been read at different times.  If tables change during every attempt, the guest is paused and they are read
        again.
        """
        start = region.start + first * region.page_size
        bottom = _LEVEL_OF_ENTRIES.get(region.page_size)
        if bottom is None:
            raise UsageError(
                f"{region.name} has pages of {region.page_size} bytes; x86-64 has pages of 4 KiB, 2 MiB and 1 GiB"
            )
        root = self._finder.root()
        # The addresses came from the guest.
        if start < 0 or start % region.page_size or (start + count * region.page_size) >> (11 + 9 * root.levels):
            raise self._error(f"{region.name} at {start:#x} with {count} pages is not in user space")
        reading = self._read_unchanged(root, start, count, bottom)
        time_ns = self._now() if self._now else 0
        self._check_root(root, region.name)
        if bottom > 1:
            split = np.flatnonzero(pte.x86.points_to_tables(reading.entries, reading.levels, bottom))
            if split.size:
                raise self._error(
                    f"page {first + int(split[0])} of {region.name} should be one entry of {region.page_size} bytes, "
                    "but there is a table of smaller pages"
                )
        return Snapshot(
            region=region.name,
            start=start,
            page_size=region.page_size,
            witness=self.name,
            entries=reading.entries,
            levels=reading.levels,
            time_ns=time_ns,
            kernel=self._kernel,
            first=first,
            tracks_soft_dirty=self._tracks_soft_dirty,
            decoded=pte.x86.decode_odd_entries(
                reading.entries, reading.states, reading.known, reading.odd, tracks_soft_dirty=self._tracks_soft_dirty
            ),
        )

    def content(self, address: int, size: int) -> memoryview:
        """Return a copy of memory of the target, which must not change it meanwhile.

        Raises
        ------
        WitnessError
            A part of it is not in RAM.
        """
        first, offset = address & ~0xFFF, address & 0xFFF
        pages = -(-(offset + size) // 4096)
        frames = self.read(_TargetMemory(first, pages), 0, pages).frames()
        if (frames < 0).any():
            raise self._error(f"not all of {pages} pages at {first:#x} are in RAM")
        root = self._finder.root()
        content = Tables(self._memory, root).contents(frames)
        self._check_root(root, f"memory at {address:#x}")
        return memoryview(content.tobytes())[offset : offset + size]

    def find(self) -> None:
        """Find the target's page tables now, so that later reads do not need the guest, until the target changes."""
        self._finder.root()

    def path(self, address: int) -> list[Step]:
        """Return the entries from the target's top table to `address`; the walk ends at the last one.

        Raises
        ------
        WitnessError
            The address is not in user space, or the target's tables disappeared meanwhile.
        """
        root = self._finder.root()
        if not 0 <= address < 1 << (11 + 9 * root.levels):
            raise self._error(f"{address:#x} is not in user space, with {root.levels} levels of page tables")
        tables = Tables(self._memory, root)
        steps = tables.path(address)
        if tables.path(address) != steps:
            with self._memory.paused():
                steps = tables.path(address)
        self._check_root(root, f"{address:#x}")
        return steps

    def _read_unchanged(self, root: Root, start: int, count: int, bottom: int) -> Reading:
        tables = Tables(self._memory, root)
        for _ in range(_MAX_READS):
            reading = tables.read(start, count, bottom)
            if reading is not None:
                return reading
        with self._memory.paused():
            reading = tables.read(start, count, bottom)
        if reading is None:
            raise self._error("its tables change while the guest is paused: this is not the RAM of that guest")
        return reading

    def _check_root(self, root: Root, what: str) -> None:
        if not self._finder.maps_beacon(root):
            raise self._error(
                f"the target's page tables disappeared while {what} was read; the target has ended, or the guest "
                "was rebooted"
            )

    def _error(self, message: str) -> WitnessError:
        return WitnessError(f"physical: {message}", witness=self.name)
