"""How much of which memory a lab is asked to map, and whether that can be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uffdlab.errors import UsageError
from uffdlab.uapi.memory import MEMORY, Memory

if TYPE_CHECKING:
    from collections.abc import Callable

_ADDRESSES = 1 << 47  # bytes of memory that a process can map, on x86-64 with four levels of page tables
_HUGE = 2 << 20  # bytes


def page_count(memory: str, pages: int | None, size: int | None, page_size: int | None) -> tuple[Memory, int]:
    """Return what `memory` is and how many of its pages are asked for, in pages or in bytes.

    Raises
    ------
    UsageError
        If there is no such memory, or that is no possible mapping of it.
    """
    if memory not in MEMORY:
        raise UsageError(f"there is no memory {memory!r}; there is {', '.join(map(repr, MEMORY))}")
    kind = MEMORY[memory]
    if page_size not in (None, kind.page_size):
        raise UsageError(f"{memory} has pages of {kind.page_size} bytes here, not of {page_size}")
    count = _count(pages, size, kind.page_size)
    if count * kind.page_size % kind.unit:
        raise UsageError(f"{memory} is made of huge pages: ask for a multiple of {kind.unit // kind.page_size} pages")
    return kind, count


def _count(pages: int | None, size: int | None, page_size: int) -> int:
    if (pages is None) == (size is None):
        raise UsageError("say how much to map, either in pages=… or in bytes as size=…")
    for name, given in (("pages", pages), ("size", size)):
        if given is not None and (not isinstance(given, int) or isinstance(given, bool)):
            raise UsageError(f"{name}={given!r} is no number")
    if size is not None:
        if size <= 0 or size % page_size:
            raise UsageError(f"size={size} is no positive multiple of the page size, {page_size} bytes")
        pages = size // page_size
    assert pages is not None
    if pages < 1:
        raise UsageError(f"pages={pages!r}: a region has at least 1 page")
    if pages * page_size >= _ADDRESSES:
        raise UsageError(f"{pages} pages of {page_size} bytes are more than a process has addresses for (128 TiB)")
    return pages


def reserve(kind: Memory, pages: int, free: Callable[[int, int], int]) -> None:
    """Reserve the huge pages for a mapping; other memory needs none.

    Parameters
    ----------
    kind : Memory
    pages : int
        How many pages of it are to be mapped.
    free : callable
        ``free(page_size, wanted)`` tries to have so many free huge pages of that size (bytes), and gives how many are.

    Raises
    ------
    UsageError
        If they cannot be had.
    """
    if not kind.hugetlb:
        return
    # A private mapping reserves its own pages, beside those of the file that its alias maps.
    wanted = pages if kind.shared else 2 * pages
    there = free(kind.page_size, wanted)
    if there < wanted:
        size = "1 GiB" if kind.page_size > _HUGE else "2 MiB"
        raise UsageError(
            f"{wanted} huge pages of {size} were asked for, the guest has {there} free; ask for fewer, "
            "unmap other regions, or start the lab with more memory: Lab(…, memory_mib=…)"
        )
