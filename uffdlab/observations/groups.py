"""Groups of pages: runs of pages in the same state, and the number of pages on which a bit is set."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from uffdlab import pte
from uffdlab.observations.page_text import page_range_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uffdlab.pte import State

__all__ = ["BitCount", "PageGroup", "runs"]


class BitCount(NamedTuple):
    """The number of pages on which a bit is set, clear, and not known."""

    yes: int
    no: int
    unknown: int


class PageGroup(NamedTuple):
    """A run of neighbouring pages in the same state.

    ``first`` and ``last`` are page numbers in the region; ``states`` and ``known`` hold for every page of the run.
    """

    first: int
    last: int
    states: State
    known: State

    @property
    def size(self) -> int:
        """The number of pages."""
        return self.last - self.first + 1

    @property
    def text(self) -> str:
        """The state as text: ``present, not writable, uffd-wp``."""
        return pte.describe(self.states, self.known)

    def __str__(self) -> str:
        return f"{page_range_text(self.first, self.last)}: {self.text}"


def runs(*arrays: NDArray[np.uint32]) -> list[tuple[int, int]]:
    """Return the half-open index ranges over which all arrays are constant; the arrays have one shape, (n,)."""
    size = arrays[0].size
    if not size:
        return []
    differs = np.zeros(size - 1, dtype=bool)
    for array in arrays:
        differs |= array[1:] != array[:-1]
    edges = [0, *(np.flatnonzero(differs) + 1).tolist(), size]
    return list(itertools.pairwise(edges))
