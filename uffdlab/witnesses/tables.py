"""Tables: the page tables of one address space, read from guest-physical memory."""

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
    """The part of guest-physical memory that a witness uses: a :class:`uffdlab.machines.PhysicalMemory` has it."""

    def ram(self) -> tuple[Entries, int]:
        """Return a view of the RAM file, uint64[frames, 512], and the number of its frames below 4 GiB.

        The guest can write to it at any time.  The other frames begin at 4 GiB.
        """
        ...  # pragma: no cover

    def root_candidates(self) -> list[tuple[int, int]]:
        """Return (physical address of the top table, levels) of each virtual processor now; 0 levels: paging is off."""
        ...  # pragma: no cover

    def paused(self) -> AbstractContextManager[object]:
        """Stop the guest's processors during a ``with`` block."""
        ...  # pragma: no cover


class Root(NamedTuple):
    """The root of an address space: the frame of its top table, and the number of levels."""

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
        """Walk to one address; the last step is the entry at which the walk ends.

        Raises
        ------
        WitnessError
            A table is not in RAM.
        """
        try:
            return self._ram.path(self._root.frame, self._root.levels, address)
        except OutsideRam as error:
            raise self._outside(error) from error

    def content(self, frame: int) -> bytes:
        """Return a copy of a page; WitnessError if it is not in RAM."""
        try:
            return self._ram.frame(frame)
        except OutsideRam as error:
            raise self._outside(error) from error

    def contents(self, frames: NDArray[np.int64]) -> Entries:
        """Return copies of pages, uint64[n, 512]; WitnessError if one is not in RAM."""
        try:
            return self._ram.frames(frames)
        except OutsideRam as error:
            raise self._outside(error) from error

    def read(self, start: int, count: int, bottom: int) -> Reading | None:
        """Return the decoded entries of `count` pages at level `bottom`; None if a table changed meanwhile.

        An entry above the bottom level that does not point to a table is returned, with its own level, for every page
        in its range.

        Raises
        ------
        WitnessError
            A table is not in RAM.
        """
        try:
            return self._ram.read(self._root.frame, self._root.levels, start, count, bottom, pte.x86.decoder())
        except OutsideRam as error:
            raise self._outside(error) from error

    @staticmethod
    def _outside(error: OutsideRam) -> WitnessError:
        return WitnessError(
            f"physical: the frame {error.frame:#x} is not RAM. The page tables changed while they were read, or these "
            "are not page tables",
            witness="physical",
        )
