"""Check the size of a new mapping, and reserve the huge pages that it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uffdlab.arguments import nearest
from uffdlab.errors import UsageError
from uffdlab.uapi.memory import MEMORY, Memory

if TYPE_CHECKING:
    from collections.abc import Callable

_ADDRESSES = 1 << 47  # bytes of memory that a process can map, on x86-64 with four levels of page tables
_HUGE = 2 << 20  # bytes


def page_count(memory: str, pages: int | None, size: int | None, page_size: int | None) -> tuple[Memory, int]:
    """Return the kind of memory and the number of its pages, from a size in pages or in bytes.

    Raises
    ------
    UsageError
        There is no such memory, or it cannot have a mapping of this size.
    """
    if memory not in MEMORY:
        meant = nearest(memory, MEMORY) or "."
        raise UsageError(f"there is no memory {memory!r}{meant} The kinds are {', '.join(map(repr, MEMORY))}")
    kind = MEMORY[memory]
    if page_size not in (None, kind.page_size):
        raise UsageError(f"{memory} has pages of {kind.page_size} bytes, not of {page_size}")
    count = _count(pages, size, kind.page_size)
    if count * kind.page_size % kind.unit:
        raise UsageError(
            f"{memory} consists of huge pages: the size must be a multiple of {kind.unit // kind.page_size} pages"
        )
    return kind, count


def _count(pages: int | None, size: int | None, page_size: int) -> int:
    if (pages is None) == (size is None):
        raise UsageError("give the size of the mapping, either in pages as pages=… or in bytes as size=…")
    for name, given in (("pages", pages), ("size", size)):
        if given is not None and (not isinstance(given, int) or isinstance(given, bool)):
            raise UsageError(f"{name}={given!r} is no number")
    if size is not None:
        if size <= 0 or size % page_size:
            raise UsageError(f"size={size} is not a positive multiple of the page size, {page_size} bytes")
        pages = size // page_size
    assert pages is not None
    if pages < 1:
        raise UsageError(f"pages={pages!r}: a region must have at least 1 page")
    if pages * page_size >= _ADDRESSES:
        raise UsageError(f"{pages} pages of {page_size} bytes are more than the address space of a process (128 TiB)")
    return pages


def reserve(kind: Memory, pages: int, free: Callable[[int, int], int]) -> None:
    """Reserve the huge pages for a mapping, if its memory needs them.

    Parameters
    ----------
    kind : Memory
    pages : int
        The number of pages to map.
    free : callable
        ``free(page_size, wanted)`` tries to have this many free huge pages of that size in bytes, and returns how many
        are free.

    Raises
    ------
    UsageError
        There are not enough free huge pages.
    """
    if not kind.hugetlb:
        return
    # A private mapping reserves its own pages, beside those of the file that its alias maps.
    wanted = pages if kind.shared else 2 * pages
    there = free(kind.page_size, wanted)
    if there < wanted:
        size = "1 GiB" if kind.page_size > _HUGE else "2 MiB"
        raise UsageError(
            f"{wanted} huge pages of {size} are needed, and the guest has {there} free; map fewer, "
            "unmap other regions, or start the lab with more memory: Lab(…, memory_mib=…)"
        )
