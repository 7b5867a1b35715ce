"""Entries of /proc/PID/pagemap.

Source: fs/proc/task_mmu.c of Linux 6.1, 6.12 and 7.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from uffdlab.pte.states import ALL, KINDS, OF_THE_PAGE, Bit, State
from uffdlab.pte.swap import bit, classify, kind_meaning, marker_meaning, set_where, split

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from uffdlab.pte.swap import Field

    Entries: TypeAlias = NDArray[np.uint64]
    Levels: TypeAlias = NDArray[np.uint8]
    Flags: TypeAlias = NDArray[np.uint32]

_OF_PAGEMAP = State.PRESENT | State.UFFD_WP | OF_THE_PAGE | KINDS
# fs/proc/task_mmu.c, PM_*
_PM_SOFT_DIRTY = 55
_PM_EXCLUSIVE = 56
_PM_UFFD_WP = 57  # commit fb8e37f35a2f (5.13)
_PM_GUARD = 58  # 6.15
_PM_FILE = 61
_PM_SWAP = 62
_PM_PRESENT = 63
FRAME_MASK = (1 << 55) - 1

BITS = {
    State.PRESENT: _PM_PRESENT,
    State.SWAPPED: _PM_SWAP,
    State.FILE: _PM_FILE,
    State.GUARD: _PM_GUARD,
    State.UFFD_WP: _PM_UFFD_WP,
    State.EXCLUSIVE: _PM_EXCLUSIVE,
    State.SOFT_DIRTY: _PM_SOFT_DIRTY,
}
"""The bit number of each state in a pagemap entry."""


def decode_pagemap(
    entries: ArrayLike, *, vma_soft_dirty: bool, hugetlb: bool, tracks_soft_dirty: bool = True
) -> tuple[Flags, Flags]:
    """Decode entries of /proc/PID/pagemap.

    Parameters
    ----------
    entries : array_like of uint64, shape (n,)
        Raw pagemap entries.
    vma_soft_dirty : bool
        The mapping has "sd" among its VmFlags (smaps).  pagemap then sets soft-dirty for each of its pages, whatever
        the page-table entry holds, so the bit of the page-table entry is unknown.
    hugetlb : bool
        The mapping is of hugetlbfs ("ht").  There pagemap ignores the soft-dirty bit of the page-table entry.  For a
        page that is not present it reports uffd-wp and nothing else (pagemap_hugetlb_range()).
    tracks_soft_dirty : bool
        False for a kernel without CONFIG_MEM_SOFT_DIRTY.

    Returns
    -------
    states, known : ndarray of uint32, shape (n,)
        Bits of :class:`State`.  WRITABLE, DIRTY, ACCESSED, HUGE, PROTNONE and SPECIAL are never known.  The kind
        of a swap entry is known only with CAP_SYS_ADMIN: without it pagemap reports type and offset as zero.
    """
    entries = np.ascontiguousarray(entries, dtype=np.uint64)
    states = np.zeros(entries.shape, dtype=np.uint32)
    known = np.full(entries.shape, np.uint32(_OF_PAGEMAP), dtype=np.uint32)
    present = bit(entries, _PM_PRESENT)
    for number, state in (
        (_PM_PRESENT, State.PRESENT),
        (_PM_UFFD_WP, State.UFFD_WP),
        (_PM_EXCLUSIVE, State.EXCLUSIVE),
        (_PM_FILE, State.FILE),
        (_PM_GUARD, State.MARKER | State.GUARD),
    ):
        set_where(states, bit(entries, number), state)
    if tracks_soft_dirty and not vma_soft_dirty and not hugetlb:
        set_where(states, bit(entries, _PM_SOFT_DIRTY), State.SOFT_DIRTY)
        known |= np.uint32(State.SOFT_DIRTY)
    if hugetlb:
        known[~present] = np.uint32(State.PRESENT | State.UFFD_WP)
        states &= known
    swap = np.flatnonzero(~present & bit(entries, _PM_SWAP))
    if swap.size:
        frames = entries[swap] & np.uint64(FRAME_MASK)
        kind_states, kind_known = classify(frames & np.uint64(31), frames >> np.uint64(5))
        kind_states[frames == 0] = 0
        kind_known[frames == 0] = 0
        guard = (states[swap] & np.uint32(State.GUARD)) != 0
        kind_known[guard] |= np.uint32(State.GUARD | State.MARKER)
        states[swap] |= kind_states
        # What pagemap reports about the page behind a non-present entry depends on the kernel version: ignore it.
        marker = (states[swap] & np.uint32(State.MARKER)) != 0
        of_the_page = np.where(marker, np.uint32(OF_THE_PAGE), np.uint32(0))
        known[swap] = known[swap] & np.uint32(~(KINDS | OF_THE_PAGE) & ALL) | kind_known | of_the_page
        states[swap] &= known[swap]
    return states, known


def frames_pagemap(entries: ArrayLike) -> NDArray[np.int64]:
    """Return the page frame number of each entry; int64, -1 where nothing is mapped or CAP_SYS_ADMIN is missing."""
    entries = np.asarray(entries, dtype=np.uint64)
    frames = (entries & np.uint64(FRAME_MASK)).astype(np.int64)
    return np.where(bit(entries, _PM_PRESENT) & (frames > 0), frames, -1)


def explain_pagemap(entry: int) -> list[Bit]:
    """Decode a pagemap entry into its fields, highest bit first; together they cover all 64 bits."""
    entry = int(entry)
    fields: list[Field] = [
        (63, 1, "present", "mapped", "not mapped"),
        (62, 1, "swap", "a swap entry, migration entry or marker", "none of swap, migration and marker"),
        (61, 1, "file", "a page of a file or of shared memory", "no page of a file"),
        (59, 2, "59–60", "zero"),
        (58, 1, "guard", "guard region (6.15+)", "no guard region"),
        (57, 1, "uffd-wp", "protected by userfaultfd", "not protected by userfaultfd"),
        (56, 1, "exclusive", "mapped once only", "mapped more than once, or not at all"),
        (55, 1, "soft-dirty", "written since clear_refs, or the whole mapping is new", "not written since clear_refs"),
    ]
    frame = entry & FRAME_MASK
    if entry >> _PM_PRESENT & 1 or not entry >> _PM_SWAP & 1:
        meaning = f"frame {frame:#x}" if frame else "none, or the reader lacks CAP_SYS_ADMIN"
        fields.append((0, 55, "frame", meaning))
    else:
        kind, offset = frame & 31, frame >> 5
        hidden = "" if frame else "not shown without CAP_SYS_ADMIN"
        fields += [
            (5, 50, "offset", hidden or marker_meaning(kind, offset) or f"offset {offset}"),
            (0, 5, "type", hidden or kind_meaning(kind, offset)),
        ]
    return split(entry, fields)
