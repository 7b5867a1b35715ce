"""What a witness is, and what it needs to know of the pages that it is asked about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from uffdlab.errors import UffdlabError
    from uffdlab.observations.snapshot import Snapshot

__all__ = ["TargetMapping", "TargetPages", "Witness"]


class TargetMapping(Protocol):
    """What a witness needs to know of a mapping: a :class:`uffdlab.target.region.MemoryMapping` is one."""

    name: str
    start: int
    pages: int
    page_size: int

    @property
    def lost(self) -> UffdlabError | None:
        """Why it is gone, None while it is there."""
        ...  # pragma: no cover


class TargetPages(Protocol):
    """Neighbouring pages of a mapping: a :class:`uffdlab.target.region.PageRange` is one; as text ``pages 3–7``."""

    @property
    def mapping(self) -> TargetMapping:
        """The mapping that has them."""
        ...  # pragma: no cover

    @property
    def first(self) -> int:
        """Number of the first page in its mapping."""
        ...  # pragma: no cover

    @property
    def count(self) -> int:
        """How many pages there are."""
        ...  # pragma: no cover


class Witness(Protocol):
    """One independent way to learn the state of pages."""

    name: str

    def read(self, region: TargetMapping, first: int, count: int) -> Snapshot:
        """Take a snapshot of `count` pages of `region` from page `first` on.

        Raises
        ------
        WitnessError
            If nothing can be said, or what was read is not what was asked for.
        """
        ...  # pragma: no cover
