"""Tables: the page tables of one address space, read out of guest-physical memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

import numpy as np

from uffdlab import pte
from uffdlab.bulk.entries import OutsideRam, Ram, Reading, Step
from uffdlab.errors import WitnessError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    Entries: TypeAlias = NDArray[np.uint64]

__all__ = ["GuestMemory", "Reading", "Root", "Step", "Tables"]


class GuestMemory(Protocol):
    """Guest-physical memory as the witness needs it: a :class:`uffdlab.machines.PhysicalMemory` is one."""

    def ram(self) -> tuple[Entries, int]:
        """Return the RAM file as it lies, uint64[frames, 512], and how many of its frames lie below 4 GiB.

        The guest writes to it at any time.  The frames above begin at 4 GiB.
        """
        ...  # pragma: no cover

    def root_candidates(self) -> list[tuple[int, int]]:
        """Return (physical address of the top table, levels) of each virtual processor now; 0 levels: paging is off."""
        ...  # pragma: no cover

    def paused(self) -> AbstractContextManager[object]:
        """Stop the guest's processors for the time of a with block."""
        ...  # pragma: no cover


class Root(NamedTuple):
    """Where an address space begins: the frame of its top table, and how many levels there are."""

    frame: int
    levels: int


class Tables:
    """Reads the tables below one root.

    Parameters
    ----------
    memory : GuestMemory
    root : Root
    """

    def __init__(self, memory: GuestMemory, root: Root) -> None:
        self._ram = Ram(*memory.ram())
        self._root = root

    def path(self, address: int) -> list[Step]:
        """Walk to one address; the last step is the entry where the walk ends.

        Raises
        ------
        WitnessError
            A table lies outside of RAM.
        """
        try:
            return self._ram.path(self._root.frame, self._root.levels, address)
        except OutsideRam as error:
            raise self._outside(error) from error

    def content(self, frame: int) -> bytes:
        """Copy a page; WitnessError if it lies outside of RAM."""
        try:
            return self._ram.frame(frame)
        except OutsideRam as error:
            raise self._outside(error) from error

    def contents(self, frames: NDArray[np.int64]) -> Entries:
        """Copy pages, uint64[n, 512]; WitnessError if one lies outside of RAM."""
        try:
            return self._ram.frames(frames)
        except OutsideRam as error:
            raise self._outside(error) from error

    def read(self, start: int, count: int, bottom: int) -> Reading | None:
        """Read the entries of `count` pages at level `bottom`, decoded; None if a table changed meanwhile.

        Where an entry above the bottom is no table, it stands with its own level for all that lies below it.

        Raises
        ------
        WitnessError
            A table lies outside of RAM.
        """
        try:
            return self._ram.read(self._root.frame, self._root.levels, start, count, bottom, pte.x86.decoder())
        except OutsideRam as error:
            raise self._outside(error) from error

    @staticmethod
    def _outside(error: OutsideRam) -> WitnessError:
        return WitnessError(
            f"physical: the frame {error.frame:#x} is not RAM. The page tables changed while they were read, or these "
            "are no page tables",
            witness="physical",
        )
