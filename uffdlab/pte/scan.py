"""Categories of the PAGEMAP_SCAN ioctl (6.7+).

Source: fs/proc/task_mmu.c of Linux 6.12 and 7.3, pagemap_page_category(), _thp_category(), _hugetlb_category() and
pagemap_scan_test_walk(); include/uapi/linux/fs.h.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from uffdlab.pte.states import KINDS, Bit, State
from uffdlab.pte.swap import bit, set_where

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Entries: TypeAlias = NDArray[np.uint64]
    Flags: TypeAlias = NDArray[np.uint32]


class Category(enum.IntFlag):
    """PAGE_IS_*, include/uapi/linux/fs.h."""

    WPALLOWED = 1 << 0
    WRITTEN = 1 << 1
    FILE = 1 << 2
    PRESENT = 1 << 3
    SWAPPED = 1 << 4
    PFNZERO = 1 << 5
    HUGE = 1 << 6
    SOFT_DIRTY = 1 << 7
    GUARD = 1 << 8
    ACCESSED = 1 << 9


_MEANINGS = {
    Category.ACCESSED: "in an RWP mapping: without the uffd bit (7.3+)",
    Category.GUARD: "a guard region (6.15+)",
    Category.SOFT_DIRTY: "written since clear_refs, or the whole mapping is new",
    Category.HUGE: "mapped by a huge page, or of a mapping of huge pages",
    Category.PFNZERO: "the zero page",
    Category.SWAPPED: "a swap entry, migration entry or marker",
    Category.PRESENT: "mapped",
    Category.FILE: "a page of a file or of shared memory",
    Category.WRITTEN: "without the uffd-wp bit (7.3+: and registered for WP)",
    Category.WPALLOWED: "registered for asynchronous write protection",
}

_STATES = {
    State.PRESENT: Category.PRESENT,
    State.SWAPPED: Category.SWAPPED,
    State.FILE: Category.FILE,
    State.GUARD: Category.GUARD,
    State.HUGE: Category.HUGE,
    State.SPECIAL: Category.PFNZERO,
    State.SOFT_DIRTY: Category.SOFT_DIRTY,
}
BITS = {state: int(category).bit_length() - 1 for state, category in _STATES.items()}
"""The bit number of each state among the categories."""


def _set(categories: Entries, category: Category) -> NDArray[np.bool_]:
    return bit(categories, int(category).bit_length() - 1)


def decode_scan(
    categories: ArrayLike, *, answered: int, vma_soft_dirty: bool, tracks_soft_dirty: bool = True
) -> tuple[Flags, Flags]:
    """Decode the categories that PAGEMAP_SCAN reported for each page.

    Parameters
    ----------
    categories : array_like of uint64, shape (n,)
        PAGE_IS_* of each page.
    answered : int
        The categories whose absence means something.  The absence of a category that the kernel does not know means
        nothing.  Neither does that of WRITTEN from 7.3 on, which is reported only where memory is registered for WP.
    vma_soft_dirty : bool
        The mapping is soft-dirty as a whole.  Then every page has that category, whatever its entry holds.
    tracks_soft_dirty : bool
        False for a kernel without CONFIG_MEM_SOFT_DIRTY.

    Returns
    -------
    states, known : ndarray of uint32, shape (n,)
        Bits of :class:`State`.  WRITABLE, DIRTY, ACCESSED, EXCLUSIVE and PROTNONE are never known.  For an entry that
        is not present, the only kind that can be known is GUARD.
    """
    categories = np.ascontiguousarray(categories, dtype=np.uint64)
    reported = Category(answered)
    states = np.zeros(categories.shape, dtype=np.uint32)
    known = np.full(categories.shape, np.uint32(State.PRESENT), dtype=np.uint32)
    present, elsewhere = _set(categories, Category.PRESENT), _set(categories, Category.SWAPPED)
    empty = ~present & ~elsewhere
    set_where(states, present, State.PRESENT)

    # An empty entry has no bits; HUGE describes its mapping, not the entry.
    set_where(known, empty, State.UFFD_WP | State.FILE)
    set_where(known, present | empty, KINDS)

    without_wp = _set(categories, Category.WRITTEN) | _set(categories, Category.ACCESSED)
    wp = ~empty & ~without_wp & (_set(categories, Category.WPALLOWED) | (Category.WRITTEN in reported))
    set_where(states, wp, State.UFFD_WP)
    set_where(known, wp | without_wp, State.UFFD_WP)

    set_where(states, present & _set(categories, Category.FILE), State.FILE)
    set_where(states, present & _set(categories, Category.HUGE), State.HUGE)
    set_where(known, present, State.FILE | State.HUGE)
    zero = present & _set(categories, Category.PFNZERO) & ~_set(categories, Category.HUGE)
    set_where(states, zero, State.SPECIAL)
    set_where(known, zero, State.SPECIAL)

    guard = _set(categories, Category.GUARD)
    set_where(states, guard, State.MARKER | State.GUARD)
    set_where(known, guard, KINDS)
    if Category.GUARD in reported:
        set_where(known, elsewhere, State.GUARD)
    if Category.SOFT_DIRTY in reported and tracks_soft_dirty and not vma_soft_dirty:
        set_where(states, _set(categories, Category.SOFT_DIRTY), State.SOFT_DIRTY)
        known |= np.uint32(State.SOFT_DIRTY)
    return states, known


def explain_scan(categories: int) -> list[Bit]:
    """Decode a page's categories, highest bit first; together the fields cover all 64 bits."""
    categories = int(categories)
    rest = [Bit(10, "10–63", categories >> 10, "categories that are not known here", 54)]
    return rest + [
        Bit(
            int(category).bit_length() - 1,
            str(category.name).lower().replace("_", "-"),
            int(bool(categories & category)),
            meaning if categories & category else f"not {meaning}",
        )
        for category, meaning in _MEANINGS.items()
    ]
