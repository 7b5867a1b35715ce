"""Witnesses: independent ways to learn a page's state.  Each says which bits it can know.

``physical`` reads the guest's page tables from outside and needs nothing of the guest; ``kernel`` gets the same raw
entries from the PTE reader of kernel-patch; ``pagemap`` (any kernel from 5.13 on) and ``scan`` (PAGEMAP_SCAN, from 6.7
on) ask the stock kernel and never learn whether a page is writable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from uffdlab.witnesses.kernel import KernelWitness
from uffdlab.witnesses.pagemap import PagemapWitness
from uffdlab.witnesses.physical import PhysicalWitness
from uffdlab.witnesses.scan import ScanWitness

if TYPE_CHECKING:
    from uffdlab.snapshot import Snapshot

__all__ = ["NAMES", "KernelWitness", "Mapped", "PagemapWitness", "PhysicalWitness", "ScanWitness", "Witness"]

NAMES = ("physical", "kernel", "pagemap", "scan")
"""Every witness, the best one first."""


class Mapped(Protocol):
    """What a witness needs to know of a mapping of the target: a :class:`uffdlab.region.Mapping` is one."""

    name: str
    start: int
    pages: int
    page_size: int


class Witness(Protocol):
    """One independent way to learn the state of pages."""

    name: str

    def read(self, region: Mapped, first: int, count: int) -> Snapshot:
        """Take a snapshot of `count` pages of `region` from page `first` on.

        Raises
        ------
        WitnessError
            If nothing can be said, or what was read is not what was asked for.
        """
        ...  # pragma: no cover
