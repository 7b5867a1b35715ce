"""Witnesses: independent ways to learn a page's state.  Each says which bits it can know.

``pagemap`` asks the kernel (any from 5.13 on) and never learns whether a page is writable; ``physical`` reads the
guest's page tables from outside and needs nothing of the guest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from uffdlab.witnesses.pagemap import PagemapWitness
from uffdlab.witnesses.physical import PhysicalWitness

if TYPE_CHECKING:
    from uffdlab.snapshot import Snapshot

__all__ = ["Mapped", "PagemapWitness", "PhysicalWitness", "Witness"]


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
