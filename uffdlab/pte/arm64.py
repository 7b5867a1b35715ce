"""arm64 page-table entries: 4 KiB granule, Linux 6.10 and later.

Sources: arch/arm64/include/asm/pgtable-prot.h, pgtable-hwdef.h and pgtable.h of Linux 6.12 and 7.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from uffdlab.pte.states import ALL, KINDS, OF_A_SWAP_ENTRY, OF_THE_ENTRY, Bit, State
from uffdlab.pte.swap import arrays, bit, classify, kind_meaning, marker_meaning, set_where, split

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Entries: TypeAlias = NDArray[np.uint64]
    Levels: TypeAlias = NDArray[np.uint8]
    Flags: TypeAlias = NDArray[np.uint32]

# arch/arm64/include/asm/pgtable-hwdef.h, pgtable-prot.h
_ARM_VALID = 0
_ARM_TABLE = 1  # clear in a valid entry above the PTE level: a block, that is a huge page
_ARM_USER = 6
_ARM_RDONLY = 7
_ARM_AF = 10
_ARM_PRESENT_INVALID = 11  # PTE_NG where bit 0 is clear (6.10)
_ARM_WRITE = 51  # DBM
_ARM_UXN = 54
_ARM_DIRTY = 55
_ARM_SPECIAL = 56
_ARM_UFFD_WP = 58  # commit 5b32510af77b (6.10)
FRAME_MASK = 0x0000FFFFFFFFF000  # 4 KiB granule, 48-bit physical addresses
# arch/arm64/include/asm/pgtable.h, "Encode and decode a swap entry"
_ARM_SWP_UFFD_WP = 3
_ARM_SWP_TYPE = 6
_ARM_SWP_OFFSET = 12

BITS = {
    State.PRESENT: _ARM_VALID,
    State.WRITABLE: _ARM_WRITE,
    State.UFFD_WP: _ARM_UFFD_WP,
    State.ACCESSED: _ARM_AF,
    State.DIRTY: _ARM_DIRTY,
    State.SPECIAL: _ARM_SPECIAL,
}
"""The bit number of each state in the entry of a present page."""


def decode_arm64(entries: ArrayLike, levels: ArrayLike) -> tuple[Flags, Flags]:
    """Decode arm64 page-table entries (4 KiB granule, Linux 6.10 and later).

    Parameters and results are those of :func:`decode_x86`.  arm64 has no soft-dirty bit, so SOFT_DIRTY is unknown where
    a page is mapped.  WRITABLE is the kernel's pte_write() (bit 51); the processor's read-only bit is part of DIRTY.
    """
    entries, levels = arrays(entries, levels)
    valid = bit(entries, _ARM_VALID)
    present = valid | bit(entries, _ARM_PRESENT_INVALID)
    write = bit(entries, _ARM_WRITE)
    states = np.zeros(entries.shape, dtype=np.uint32)
    known = np.full(entries.shape, np.uint32(OF_THE_ENTRY & ~State.SOFT_DIRTY), dtype=np.uint32)
    protnone = present & ~valid & ~bit(entries, _ARM_USER) & bit(entries, _ARM_UXN)
    for where, state in (
        (present, State.PRESENT),
        (present & write, State.WRITABLE),
        (present & bit(entries, _ARM_UFFD_WP), State.UFFD_WP),
        (present & (bit(entries, _ARM_DIRTY) | (write & ~bit(entries, _ARM_RDONLY))), State.DIRTY),
        (present & bit(entries, _ARM_AF), State.ACCESSED),
        (present & (levels > 1) & ~bit(entries, _ARM_TABLE), State.HUGE),
        (present & bit(entries, _ARM_SPECIAL), State.SPECIAL),
        (protnone, State.PROTNONE),
    ):
        set_where(states, where, state)
    none = entries == 0
    known[none] = np.uint32(ALL)
    swap = np.flatnonzero(~present & ~none)
    if swap.size:
        swap_states, swap_known = classify(*_arm_swap(entries[swap]))
        set_where(swap_states, bit(entries[swap], _ARM_SWP_UFFD_WP), State.UFFD_WP)
        marker = (swap_states & np.uint32(State.MARKER)) != 0
        states[swap] = swap_states
        known[swap] = np.where(
            marker, np.uint32(ALL), swap_known | np.uint32(OF_A_SWAP_ENTRY & ~KINDS & ~State.SOFT_DIRTY)
        )
    unread = levels == 0
    states[unread] = 0
    known[unread] = 0
    return states, known


def _arm_swap(entries: Entries) -> tuple[Entries, Entries]:
    kinds = (entries >> np.uint64(_ARM_SWP_TYPE)) & np.uint64(31)
    return kinds, (entries >> np.uint64(_ARM_SWP_OFFSET)) & np.uint64((1 << 50) - 1)


def frames_arm64(entries: ArrayLike, levels: ArrayLike) -> NDArray[np.int64]:
    """Return the page frame number (4 KiB units) that each arm64 leaf points to; int64, -1 where nothing is mapped."""
    entries, levels = arrays(entries, levels)
    present = (bit(entries, _ARM_VALID) | bit(entries, _ARM_PRESENT_INVALID)) & (levels > 0)
    return np.where(present, ((entries & np.uint64(FRAME_MASK)) >> np.uint64(12)).astype(np.int64), -1)


def explain_arm64(entry: int, level: int = 1) -> list[Bit]:
    """Decode an arm64 entry into its fields, highest bit first; together they cover all 64 bits."""
    entry = int(entry)
    if entry == 0:
        return [Bit(0, "entry", entry, "empty: nothing is mapped", 64)]
    if not entry & (1 << _ARM_VALID | 1 << _ARM_PRESENT_INVALID):
        kinds, offsets = _arm_swap(np.array([entry], dtype=np.uint64))
        kind, offset = int(kinds[0]), int(offsets[0])
        return split(
            entry,
            [
                (62, 2, "62–63", "not used"),
                (12, 50, "offset", marker_meaning(kind, offset) or f"offset {offset}"),
                (11, 1, "present-invalid", "clear in a swap entry"),
                (6, 5, "type", kind_meaning(kind, offset)),
                (4, 2, "4–5", "not used"),
                (3, 1, "uffd-wp", "write-protected by userfaultfd", "not write-protected by userfaultfd"),
                (2, 1, "exclusive", "anonymous page of this process only", "not marked as of one process only"),
                (0, 2, "valid", "not valid"),
            ],
        )
    frame = int(frames_arm64([entry], [max(level, 1)])[0])
    return split(
        entry,
        [
            (59, 5, "software", "for software and protection keys"),
            (58, 1, "uffd-wp", "protected by userfaultfd", "not protected by userfaultfd"),
            (57, 1, "57", "device map on some kernels"),
            (56, 1, "special", "no page of its own: zero page or device memory", "an ordinary page"),
            (55, 1, "dirty", "written (set by software)", "not written"),
            (54, 1, "UXN", "user space may not fetch instructions", "user space may fetch instructions"),
            (53, 1, "PXN", "the kernel may not fetch instructions", "the kernel may fetch instructions"),
            (52, 1, "contiguous", "one of a run that shares a TLB entry", "has a TLB entry of its own"),
            (51, 1, "writable", "writes are allowed (DBM)", "a write faults"),
            (48, 3, "48–50", "reserved, guarded page (50)"),
            (12, 36, "frame", f"page at frame {frame:#x}"),
            (
                11,
                1,
                "nG" if entry & 1 else "present-invalid",
                "not global" if entry & 1 else "present for the kernel only",
            ),
            (10, 1, "accessed", "read or written", "neither read nor written"),
            (8, 2, "shareable", "shareability"),
            (7, 1, "read-only", "the processor refuses writes: clean, or not writable", "the processor allows writes"),
            (6, 1, "user", "user space may use it", "for the kernel only"),
            (2, 4, "memory type", "index into MAIR, non-secure"),
            (1, 1, "page" if level <= 1 else "table", "clear above the PTE level: a huge page"),
            (0, 1, "valid", "valid for the processor", "not valid for the processor"),
        ],
    )
