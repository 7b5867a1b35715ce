"""AddressRange: the addresses of neighbouring pages of one mapping, at the time of a call."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

from msgspec import Struct

from uffdlab.errors import UsageError

if TYPE_CHECKING:
    from uffdlab.target.process import TargetProcess


class AddressRange(Struct, frozen=True):
    """Neighbouring pages of one mapping, for accesses and system calls.

    Attributes
    ----------
    target : TargetProcess
        The process that has the mapping.
    mapping : str
        The name of the mapping.
    start : int
        The address of the first page.
    first, pages : int
        The number of the first page in its mapping, and the number of pages.
    page_size : int
        The size of a page in bytes.
    """

    target: TargetProcess
    mapping: str
    start: int
    first: int
    pages: int
    page_size: int

    @property
    def length(self) -> int:
        """Length in bytes."""
        return self.pages * self.page_size

    def address(self, page: int) -> int:
        """Return the address of page number `page`, counted from the first; a negative number counts from the end.

        Raises
        ------
        UsageError
            There is no such page.
        """
        return self.start + self._index(page) * self.page_size

    def describe(self, page: int) -> str:
        """Return the page's number and mapping, ``page 3 of region-1``; UsageError if there is no such page."""
        return f"page {self.first + self._index(page)} of {self.mapping}"

    def _index(self, page: int) -> int:
        if not hasattr(page, "__index__"):
            raise UsageError(f"{page!r} is not a page number of {self.mapping}; give an integer, as in region.read(3)")
        index = operator.index(page)
        if not -self.pages <= index < self.pages:
            raise UsageError(f"{self.mapping} has no page {page}; it has pages 0 to {self.pages - 1}")
        return index % self.pages
