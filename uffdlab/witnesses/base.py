"""The interface of a witness, and of the mappings and pages that it reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from uffdlab.errors import UffdlabError
    from uffdlab.observations.snapshot import Snapshot

__all__ = ["TargetMapping", "TargetPages", "Witness"]


class TargetMapping(Protocol):
    """The part of a mapping that a witness uses: a :class:`uffdlab.target.region.MemoryMapping` has it."""

    name: str
    start: int
    pages: int
    page_size: int

    @property
    def lost(self) -> UffdlabError | None:
        """The error that says why it is not mapped any more; None while it is mapped."""
        ...  # pragma: no cover


class TargetPages(Protocol):
    """The part of a page range that a witness uses: a :class:`uffdlab.target.region.PageRange` has it."""

    @property
    def mapping(self) -> TargetMapping:
        """The mapping that has them."""
        ...  # pragma: no cover

    @property
    def first(self) -> int:
        """The number of the first page in its mapping."""
        ...  # pragma: no cover

    @property
    def count(self) -> int:
        """The number of pages."""
        ...  # pragma: no cover


class Witness(Protocol):
    """One independent way to read the state of pages."""

    name: str

    def read(self, region: TargetMapping, first: int, count: int) -> Snapshot:
        """Return a snapshot of `count` pages of `region` from page `first` on.

        Raises
        ------
        WitnessError
            The pages cannot be read, or the answer is not for these pages.
        """
        ...  # pragma: no cover
