"""Words to states: x86-64 and arm64 page-table entries, and pagemap words.

Every decoder takes whole arrays and answers with two: *states* (which bits are set) and *known* (which bits the word
tells at all).  A state that is not known is never shown as false.

What "known" means for an entry that maps nothing
-------------------------------------------------
A state is a property of the page-table entry (of the page behind it for EXCLUSIVE and FILE).  An empty entry has none
of them, and that is known: an absent page *is* not writable.  A swap entry keeps soft-dirty and uffd-wp, is known not
to be writable, and says nothing of dirty and accessed.  pagemap never tells writable, dirty, accessed or huge, not
even of an absent page.

Sources: arch/x86/include/asm/pgtable_types.h, pgtable.h, pgtable_64.h and pgtable-invert.h,
arch/arm64/include/asm/pgtable-prot.h, pgtable-hwdef.h and pgtable.h, include/linux/swap.h and swapops.h (leafops.h
in 7.x), fs/proc/task_mmu.c of Linux 6.1, 6.12 and 7.3.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    Words: TypeAlias = NDArray[np.uint64]
    Levels: TypeAlias = NDArray[np.uint8]
    Flags: TypeAlias = NDArray[np.uint32]

__all__ = [
    "ALL",
    "LEVEL_NAMES",
    "MAPPING",
    "Bit",
    "State",
    "decode_arm64",
    "decode_pagemap",
    "decode_x86",
    "describe",
    "explain",
    "explain_arm64",
    "explain_pagemap",
    "explain_x86",
    "frames_arm64",
    "frames_pagemap",
    "frames_x86",
    "state_name",
]


class State(enum.IntFlag):
    """What a page-table entry says of a page; one bit each, the same for every witness."""

    PRESENT = 1 << 0
    """The kernel's pte_present(): a page is mapped (a PROT_NONE mapping included)."""
    WRITABLE = 1 << 1
    """The entry lets user space write."""
    UFFD_WP = 1 << 2
    """userfaultfd's write-protect mark (in a VMA registered for RWP, 7.3+: its read-write-protect mark)."""
    DIRTY = 1 << 3
    """Written through this entry since it was last cleaned."""
    ACCESSED = 1 << 4
    """Read or written through this entry since it was last aged."""
    SOFT_DIRTY = 1 << 5
    """The entry's soft-dirty bit (not the VMA's, which pagemap adds to it)."""
    EXCLUSIVE = 1 << 6
    """Mapped once only, by this entry; only pagemap tells."""
    HUGE = 1 << 7
    """Mapped by a leaf above the PTE level (2 MiB at the PMD, 1 GiB at the PUD on x86-64)."""
    SWAPPED = 1 << 8
    """Not present, and the entry points elsewhere: a swap slot, a page under migration, a device page, a bad page."""
    MARKER = 1 << 9
    """Not present; a PTE marker remembers something for a page that is not mapped (uffd-wp, poison, guard)."""
    FILE = 1 << 10
    """A page of a file or of shared memory; only pagemap tells."""
    POISON = 1 << 11
    """A marker that makes an access fail with SIGBUS (UFFDIO_POISON, 6.6+; a swap error)."""
    GUARD = 1 << 12
    """A marker that makes an access fail with SIGSEGV (MADV_GUARD_INSTALL, 6.13+)."""
    PROTNONE = 1 << 13
    """Present for the kernel but not for the processor: PROT_NONE, NUMA hinting, or RWP together with UFFD_WP."""
    SPECIAL = 1 << 14
    """No page of its own behind it: the zero page, or a device's memory."""


ALL = State((1 << len(State)) - 1)
MAPPING = (
    State.PRESENT
    | State.WRITABLE
    | State.UFFD_WP
    | State.SWAPPED
    | State.MARKER
    | State.POISON
    | State.GUARD
    | State.PROTNONE
)
"""What decides whether a touch traps; the other bits only record what happened before."""
_OF_THE_PAGE = State.EXCLUSIVE | State.FILE
_OF_THE_ENTRY = ALL & ~_OF_THE_PAGE
_OF_A_SWAP_ENTRY = _OF_THE_ENTRY & ~(State.DIRTY | State.ACCESSED)
_KINDS = State.SWAPPED | State.MARKER | State.POISON | State.GUARD
_OF_PAGEMAP = State.PRESENT | State.UFFD_WP | _OF_THE_PAGE | _KINDS

LEVEL_NAMES = ("", "PTE", "PMD", "PUD", "P4D", "PGD")
"""Names of the levels; with four levels 4 is both P4D and PGD."""


class Bit(NamedTuple):
    """One bit, or one run of bits, of a word and what it means."""

    number: int
    """Number of the lowest bit."""
    name: str
    value: int
    meaning: str
    width: int = 1


# --- swap entries and markers, the part that all formats share

# The types above the swap files are handed out downwards from 31, and which exist depends on the kernel's configuration
# and age (include/linux/swap.h).  The marker is the topmost, 31, except up to 6.1 (until commit 15520a3f0469 in 6.2),
# where SWP_SWAPIN_ERROR is 31 and the marker 30.  The entries that may have these types otherwise hold a page frame
# number, and the first frames are never handed out, so a small offset under these two types is a marker.
_MARKER_TYPES = (30, 31)
_MARKER_UFFD_WP, _MARKER_POISON, _MARKER_GUARD = (
    1,
    2,
    4,
)  # swapops.h: PTE_MARKER_*; 5.19, 6.6 (6.2 as SWAPIN_ERROR), 6.13
_MARKER_LIMIT = 8
_SURE_SWAP_TYPES = 22  # 32 - device 4 - migration 3 - hwpoison 1 - marker 1 - swapin error 1


def _classify(kinds: Words, offsets: Words) -> tuple[Flags, Flags]:
    """Tell swap entries from markers; states and known, of _KINDS and UFFD_WP only."""
    marker = (kinds >= _MARKER_TYPES[0]) & (offsets > 0) & (offsets < _MARKER_LIMIT)
    # Type 31 with anything else: a swap-in error of 6.1 or a marker bit newer than this table.
    unclear = ~marker & (kinds == _MARKER_TYPES[1])
    states = np.where(marker, np.uint32(State.MARKER), np.uint32(State.SWAPPED))
    for bit, state in ((_MARKER_UFFD_WP, State.UFFD_WP), (_MARKER_POISON, State.POISON), (_MARKER_GUARD, State.GUARD)):
        states |= np.where(marker & (offsets & np.uint64(bit) != 0), np.uint32(state), np.uint32(0))
    states[unclear] = 0
    known = np.where(unclear, np.uint32(0), np.uint32(_KINDS))
    return states, known


def _marker_meaning(kind: int, offset: int) -> str:
    names = [
        name
        for bit, name in ((_MARKER_UFFD_WP, "uffd-wp"), (_MARKER_POISON, "poison"), (_MARKER_GUARD, "guard"))
        if offset & bit
    ]
    if kind in _MARKER_TYPES and 0 < offset < _MARKER_LIMIT:
        return "marker: " + ", ".join(names)
    return ""


def _kind_meaning(kind: int, offset: int) -> str:
    if _marker_meaning(kind, offset):
        return "PTE marker"
    if kind < _SURE_SWAP_TYPES:
        return f"swap file {kind}"
    if kind == _MARKER_TYPES[1]:
        return "swap-in error (6.1), or a marker with an unknown bit"
    return "swap file, bad page, migration or device page, as the kernel was configured"


def _set(states: Flags, where: NDArray[np.bool_], state: State) -> None:
    states |= np.where(where, np.uint32(state), np.uint32(0))


def _bit(words: Words, number: int) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (words & np.uint64(1 << number)) != 0
    return found


def _arrays(words: ArrayLike, levels: ArrayLike) -> tuple[Words, Levels]:
    word_array = np.ascontiguousarray(words, dtype=np.uint64)
    return word_array, np.broadcast_to(np.asarray(levels, dtype=np.uint8), word_array.shape)


# --- x86-64

# arch/x86/include/asm/pgtable_types.h, _PAGE_BIT_*
_X86_PRESENT = 0
_X86_RW = 1
_X86_ACCESSED = 5
_X86_DIRTY = 6
_X86_PSE = 7
_X86_PROTNONE = 8  # _PAGE_BIT_GLOBAL where bit 0 is clear
_X86_SPECIAL = 9
_X86_UFFD_WP = 10  # commit 5a281062af1d (5.7); _PAGE_BIT_UFFD in 7.3
_X86_SOFT_DIRTY = 11
_X86_SAVED_DIRTY = 58  # 6.6, for shadow stacks; before: _PAGE_BIT_DEVMAP, always together with special
_X86_FRAME = 0x000FFFFFFFFFF000
_X86_ERRATUM = (1 << _X86_DIRTY) | (1 << _X86_ACCESSED)  # _PAGE_KNL_ERRATUM_MASK: pte_none() overlooks both
# arch/x86/include/asm/pgtable_64.h, "Encode and de-code a swap entry"
_X86_SWP_SOFT_DIRTY = 1
_X86_SWP_UFFD_WP = 2
_X86_SWP_OFFSET = 9
_X86_SWP_TYPE = 59


def _x86_low_table() -> Flags:
    # States of an entry by its low 12 bits and whether it is above the PTE level (bit 12 of the index).
    index = np.arange(1 << 13, dtype=np.uint64)
    above = _bit(index, 12)
    hardware = _bit(index, _X86_PRESENT)
    # pmd_present() also looks at PSE, which stays set while a split clears the present bit.
    present = hardware | _bit(index, _X86_PROTNONE) | (above & _bit(index, _X86_PSE))
    states = np.zeros(index.shape, dtype=np.uint32)
    _set(states, present, State.PRESENT)
    _set(states, present & ~hardware & _bit(index, _X86_PROTNONE), State.PROTNONE)
    _set(states, present & above & _bit(index, _X86_PSE), State.HUGE)
    for number, state in (
        (_X86_RW, State.WRITABLE),
        (_X86_ACCESSED, State.ACCESSED),
        (_X86_DIRTY, State.DIRTY),
        (_X86_SPECIAL, State.SPECIAL),
        (_X86_UFFD_WP, State.UFFD_WP),
        (_X86_SOFT_DIRTY, State.SOFT_DIRTY),
    ):
        _set(states, present & _bit(index, number), state)
    return states


_X86_LOW = _x86_low_table()


def decode_x86(words: ArrayLike, levels: ArrayLike, *, tracks_soft_dirty: bool = True) -> tuple[Flags, Flags]:
    """Decode x86-64 page-table entries.

    Parameters
    ----------
    words : array_like of uint64, shape (n,)
        Raw entries: leaves, or the entry where a walk ended because it is not present.
    levels : array_like of uint8, shape (n,) or ()
        1 = PTE, 2 = PMD, 3 = PUD, 4, 5; 0 = no entry was read, nothing is known.
    tracks_soft_dirty : bool
        False for a kernel without CONFIG_MEM_SOFT_DIRTY: its entries have no such bit, so it is not known.

    Returns
    -------
    states, known : ndarray of uint32, shape (n,)
        Bits of :class:`State`.  EXCLUSIVE and FILE are known only where nothing is mapped.
    """
    words, levels = _arrays(words, levels)
    states = np.empty(words.shape, dtype=np.uint32)
    known = np.empty(words.shape, dtype=np.uint32)
    # In pieces whose intermediate arrays stay in the processor's cache: three times as fast for a million pages.
    for start in range(0, words.size, _PIECE):
        piece = slice(start, start + _PIECE)
        states[piece], known[piece] = _decode_x86(words[piece], levels[piece])
    if not tracks_soft_dirty:
        _forget(states, known, State.SOFT_DIRTY)
    return states, known


_PIECE = 1 << 16


def _decode_x86(words: Words, levels: Levels) -> tuple[Flags, Flags]:
    index = (words & np.uint64(0xFFF)).astype(np.uint16)
    if levels.max() > 1:
        index |= (levels > 1).astype(np.uint16) << np.uint16(12)
    states = _X86_LOW[index]
    empty = words == 0
    known = np.where(empty, np.uint32(ALL), np.uint32(_OF_THE_ENTRY))
    # Everything but "empty" and "present, no saved-dirty" in detail: mostly few.
    odd = ((words & np.uint64(1 | 1 << _X86_SAVED_DIRTY)) != 1) & ~empty
    if odd.any():
        where = np.flatnonzero(odd)
        states[where], known[where] = _x86_odd(words[where], states[where])
    if levels.min() == 0:
        unread = levels == 0
        states[unread] = 0
        known[unread] = 0
    return states, known


def _forget(states: Flags, known: Flags, state: State) -> None:
    states &= np.uint32(~state & ALL)
    known &= np.uint32(~state & ALL)


def _x86_odd(words: Words, states: Flags) -> tuple[Flags, Flags]:
    present = (states & np.uint32(State.PRESENT)) != 0
    known = np.full(words.shape, np.uint32(_OF_THE_ENTRY), dtype=np.uint32)

    saved = present & _bit(words, _X86_SAVED_DIRTY)
    _set(states, saved, State.DIRTY)
    # Special and bit 58 but not bit 6: dirty from 6.6 on, DEVMAP before.
    devmap = saved & _bit(words, _X86_SPECIAL) & ~_bit(words, _X86_DIRTY)
    states[devmap] &= np.uint32(~State.DIRTY & ALL)
    known[devmap] &= np.uint32(~State.DIRTY & ALL)

    none = ~present & ((words & np.uint64(~_X86_ERRATUM & (1 << 64) - 1)) == 0)
    known[none] = np.uint32(ALL)

    swap = np.flatnonzero(~present & ~none)
    if swap.size:
        entries = words[swap]
        kinds, offsets = _x86_swap(entries)
        swap_states, swap_known = _classify(kinds, offsets)
        _set(swap_states, _bit(entries, _X86_SWP_UFFD_WP), State.UFFD_WP)
        _set(swap_states, _bit(entries, _X86_SWP_SOFT_DIRTY), State.SOFT_DIRTY)
        marker = (swap_states & np.uint32(State.MARKER)) != 0
        states[swap] = swap_states
        known[swap] = np.where(marker, np.uint32(ALL), swap_known | np.uint32(_OF_A_SWAP_ENTRY & ~_KINDS))
    return states, known


def _x86_swap(entries: Words) -> tuple[Words, Words]:
    # __swp_type() and __swp_offset(): the offset is stored inverted, against L1TF (6.1's format since 4.19).
    offsets = (~entries << np.uint64(5)) >> np.uint64(5 + _X86_SWP_OFFSET)
    return entries >> np.uint64(_X86_SWP_TYPE), offsets


def frames_x86(words: ArrayLike, levels: ArrayLike) -> NDArray[np.int64]:
    """Give the page frame number (4 KiB units) each x86-64 leaf points to, -1 where nothing is mapped.

    For a huge leaf this is the first frame of the huge page.
    """
    words, levels = _arrays(words, levels)
    index = (words & np.uint64(0xFFF)).astype(np.uint16) | ((levels > 1).astype(np.uint16) << np.uint16(12))
    present = ((_X86_LOW[index] & np.uint32(State.PRESENT)) != 0) & (levels > 0)
    # pgtable-invert.h: an entry without bit 0 stores its frame inverted.
    physical = np.where(_bit(words, _X86_PRESENT), words, ~words) & np.uint64(_X86_FRAME)
    huge = (_X86_LOW[index] & np.uint32(State.HUGE)) != 0
    low = np.where(huge, (np.uint64(1) << (np.uint64(3) + np.uint64(9) * levels.astype(np.uint64))) - np.uint64(1), 0)
    frames = (physical & ~low.astype(np.uint64)) >> np.uint64(12)
    return np.where(present, frames.astype(np.int64), -1)


def explain_x86(word: int, level: int = 1) -> list[Bit]:
    """Take an x86-64 entry apart, highest bit first; the bits of the list put together are the word.

    Parameters
    ----------
    word : int
        The raw entry.
    level : int
        1 = PTE, 2 = PMD, 3 = PUD.
    """
    word = int(word)
    states, _ = decode_x86([word], [max(level, 1)])
    if states[0] & State.PRESENT:
        return _x86_leaf(word, level)
    if word & ~_X86_ERRATUM == 0:
        return [Bit(0, "entry", word, "empty: nothing is mapped", 64)]
    kinds, offsets = _x86_swap(np.array([word], dtype=np.uint64))
    kind, offset = int(kinds[0]), int(offsets[0])
    offset_meaning = _marker_meaning(kind, offset) or f"offset {offset}, stored inverted"
    fields = [
        (59, 5, "type", _kind_meaning(kind, offset)),
        (9, 50, "offset", offset_meaning),
        (8, 1, "protnone", "clear: not a PROT_NONE mapping"),
        (7, 1, "PSE", "clear in a swap entry"),
        (6, 1, "6", "not used: an erratum may set it"),
        (5, 1, "5", "not used: an erratum may set it"),
        (4, 1, "4", "not used"),
        (3, 1, "exclusive", "anonymous page of this process only"),
        (2, 1, "uffd-wp", "write-protected by userfaultfd"),
        (1, 1, "soft-dirty", "written since clear_refs"),
        (0, 1, "present", "not present"),
    ]
    return _split(word, fields)


def _x86_leaf(word: int, level: int) -> list[Bit]:
    hardware = word & 1
    huge = level > 1 and word >> _X86_PSE & 1
    frame = int(frames_x86([word], [max(level, 1)])[0])
    low = 12 + 9 * (level - 1) if huge else 12
    size = {1: "4 KiB", 2: "2 MiB", 3: "1 GiB"}.get(level, "huge") if huge else "4 KiB"
    fields = [
        (63, 1, "NX", "no instruction may be fetched"),
        (59, 4, "pkey", f"protection key {word >> 59 & 15}"),
        (58, 1, "saved-dirty", "dirty while read-only (6.6+; before: device map)"),
        (52, 6, "52–57", "for software (57: device map on some kernels)"),
        (low, 52 - low, "frame", f"{size} page at frame {frame:#x}" + ("" if hardware else ", stored inverted")),
    ]
    if huge:
        fields += [(13, low - 13, "reserved", "zero in a huge entry"), (12, 1, "PAT", "memory type")]
    fields += [
        (11, 1, "soft-dirty", "written since clear_refs"),
        (10, 1, "uffd-wp", "protected by userfaultfd"),
        (9, 1, "special", "no page of its own: zero page or device memory"),
        (8, 1, "global" if hardware else "protnone", "kept in the TLB" if hardware else "present for the kernel only"),
        (7, 1, "PAT" if level <= 1 else "PSE", "memory type" if level <= 1 else "a huge page, not a table"),
        (6, 1, "dirty", "written"),
        (5, 1, "accessed", "read or written"),
        (4, 1, "PCD", "cache disabled"),
        (3, 1, "PWT", "cache writes through"),
        (2, 1, "user", "user space may use it"),
        (1, 1, "writable", "writes are allowed"),
        (0, 1, "present", "mapped"),
    ]
    return _split(word, fields)


def _split(word: int, fields: list[tuple[int, int, str, str]]) -> list[Bit]:
    return [Bit(low, name, word >> low & (1 << width) - 1, meaning, width) for low, width, name, meaning in fields]


# --- arm64

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
_ARM_FRAME = 0x0000FFFFFFFFF000  # 4 KiB granule, 48-bit physical addresses
# arch/arm64/include/asm/pgtable.h, "Encode and decode a swap entry"
_ARM_SWP_UFFD_WP = 3
_ARM_SWP_TYPE = 6
_ARM_SWP_OFFSET = 12


def decode_arm64(words: ArrayLike, levels: ArrayLike) -> tuple[Flags, Flags]:
    """Decode arm64 page-table entries (4 KiB granule, Linux 6.10 and later).

    Parameters and results as of :func:`decode_x86`.  arm64 has no soft-dirty bit: it is unknown where a page is mapped.
    WRITABLE is the kernel's pte_write() (bit 51); the processor's read-only bit is part of DIRTY.
    """
    words, levels = _arrays(words, levels)
    valid = _bit(words, _ARM_VALID)
    present = valid | _bit(words, _ARM_PRESENT_INVALID)
    write = _bit(words, _ARM_WRITE)
    states = np.zeros(words.shape, dtype=np.uint32)
    known = np.full(words.shape, np.uint32(_OF_THE_ENTRY & ~State.SOFT_DIRTY), dtype=np.uint32)
    protnone = present & ~valid & ~_bit(words, _ARM_USER) & _bit(words, _ARM_UXN)
    for where, state in (
        (present, State.PRESENT),
        (present & write, State.WRITABLE),
        (present & _bit(words, _ARM_UFFD_WP), State.UFFD_WP),
        (present & (_bit(words, _ARM_DIRTY) | (write & ~_bit(words, _ARM_RDONLY))), State.DIRTY),
        (present & _bit(words, _ARM_AF), State.ACCESSED),
        (present & (levels > 1) & ~_bit(words, _ARM_TABLE), State.HUGE),
        (present & _bit(words, _ARM_SPECIAL), State.SPECIAL),
        (protnone, State.PROTNONE),
    ):
        _set(states, where, state)
    none = words == 0
    known[none] = np.uint32(ALL)
    swap = np.flatnonzero(~present & ~none)
    if swap.size:
        entries = words[swap]
        swap_states, swap_known = _classify(*_arm_swap(entries))
        _set(swap_states, _bit(entries, _ARM_SWP_UFFD_WP), State.UFFD_WP)
        marker = (swap_states & np.uint32(State.MARKER)) != 0
        states[swap] = swap_states
        known[swap] = np.where(
            marker, np.uint32(ALL), swap_known | np.uint32(_OF_A_SWAP_ENTRY & ~_KINDS & ~State.SOFT_DIRTY)
        )
    unread = levels == 0
    states[unread] = 0
    known[unread] = 0
    return states, known


def _arm_swap(entries: Words) -> tuple[Words, Words]:
    kinds = (entries >> np.uint64(_ARM_SWP_TYPE)) & np.uint64(31)
    return kinds, (entries >> np.uint64(_ARM_SWP_OFFSET)) & np.uint64((1 << 50) - 1)


def frames_arm64(words: ArrayLike, levels: ArrayLike) -> NDArray[np.int64]:
    """Give the page frame number (4 KiB units) each arm64 leaf points to, -1 where nothing is mapped."""
    words, levels = _arrays(words, levels)
    present = (_bit(words, _ARM_VALID) | _bit(words, _ARM_PRESENT_INVALID)) & (levels > 0)
    return np.where(present, ((words & np.uint64(_ARM_FRAME)) >> np.uint64(12)).astype(np.int64), -1)


def explain_arm64(word: int, level: int = 1) -> list[Bit]:
    """Take an arm64 entry apart, highest bit first; the bits of the list put together are the word."""
    word = int(word)
    if word == 0:
        return [Bit(0, "entry", word, "empty: nothing is mapped", 64)]
    if not word & (1 << _ARM_VALID | 1 << _ARM_PRESENT_INVALID):
        kinds, offsets = _arm_swap(np.array([word], dtype=np.uint64))
        kind, offset = int(kinds[0]), int(offsets[0])
        return _split(
            word,
            [
                (62, 2, "62–63", "not used"),
                (12, 50, "offset", _marker_meaning(kind, offset) or f"offset {offset}"),
                (11, 1, "present-invalid", "clear in a swap entry"),
                (6, 5, "type", _kind_meaning(kind, offset)),
                (4, 2, "4–5", "not used"),
                (3, 1, "uffd-wp", "write-protected by userfaultfd"),
                (2, 1, "exclusive", "anonymous page of this process only"),
                (0, 2, "valid", "not valid"),
            ],
        )
    frame = int(frames_arm64([word], [max(level, 1)])[0])
    return _split(
        word,
        [
            (59, 5, "59–63", "for software and protection keys"),
            (58, 1, "uffd-wp", "protected by userfaultfd"),
            (57, 1, "57", "device map on some kernels"),
            (56, 1, "special", "no page of its own: zero page or device memory"),
            (55, 1, "dirty", "written (set by software)"),
            (54, 1, "UXN", "user space may not fetch instructions"),
            (53, 1, "PXN", "the kernel may not fetch instructions"),
            (52, 1, "contiguous", "one of a run that shares a TLB entry"),
            (51, 1, "writable", "writes are allowed (DBM)"),
            (48, 3, "48–50", "reserved, guarded page (50)"),
            (12, 36, "frame", f"page at frame {frame:#x}"),
            (
                11,
                1,
                "nG" if word & 1 else "present-invalid",
                "not global" if word & 1 else "present for the kernel only",
            ),
            (10, 1, "accessed", "read or written"),
            (8, 2, "shareable", "shareability"),
            (7, 1, "read-only", "the processor refuses writes: clean, or not writable"),
            (6, 1, "user", "user space may use it"),
            (2, 4, "memory type", "index into MAIR, non-secure"),
            (1, 1, "page" if level <= 1 else "table", "clear above the PTE level: a huge page"),
            (0, 1, "valid", "valid for the processor"),
        ],
    )


# --- pagemap

# fs/proc/task_mmu.c, PM_*
_PM_SOFT_DIRTY = 55
_PM_EXCLUSIVE = 56
_PM_UFFD_WP = 57  # commit fb8e37f35a2f (5.13)
_PM_GUARD = 58  # 6.15
_PM_FILE = 61
_PM_SWAP = 62
_PM_PRESENT = 63
_PM_FRAME = (1 << 55) - 1


def decode_pagemap(
    words: ArrayLike, *, vma_soft_dirty: bool, hugetlb: bool, tracks_soft_dirty: bool = True
) -> tuple[Flags, Flags]:
    """Decode words of /proc/PID/pagemap.

    Parameters
    ----------
    words : array_like of uint64, shape (n,)
    vma_soft_dirty : bool
        The mapping has "sd" among its VmFlags (smaps).  pagemap then sets soft-dirty for every page of it, whatever the
        entry says, so the entry's own bit is not known.
    hugetlb : bool
        The mapping is of hugetlbfs ("ht").  For these pagemap never looks at the entry's soft-dirty bit, and for one
        that is not present it tells uffd-wp and nothing else (pagemap_hugetlb_range()).
    tracks_soft_dirty : bool
        False for a kernel without CONFIG_MEM_SOFT_DIRTY.

    Returns
    -------
    states, known : ndarray of uint32, shape (n,)
        Bits of :class:`State`.  WRITABLE, DIRTY, ACCESSED, HUGE, PROTNONE and SPECIAL are never known.  What kind
        of entry a swapped one is, only with CAP_SYS_ADMIN: without it pagemap leaves type and offset zero.
    """
    words = np.ascontiguousarray(words, dtype=np.uint64)
    states = np.zeros(words.shape, dtype=np.uint32)
    known = np.full(words.shape, np.uint32(_OF_PAGEMAP), dtype=np.uint32)
    present = _bit(words, _PM_PRESENT)
    for number, state in (
        (_PM_PRESENT, State.PRESENT),
        (_PM_UFFD_WP, State.UFFD_WP),
        (_PM_EXCLUSIVE, State.EXCLUSIVE),
        (_PM_FILE, State.FILE),
        (_PM_GUARD, State.MARKER | State.GUARD),
    ):
        _set(states, _bit(words, number), state)
    if tracks_soft_dirty and not vma_soft_dirty and not hugetlb:
        _set(states, _bit(words, _PM_SOFT_DIRTY), State.SOFT_DIRTY)
        known |= np.uint32(State.SOFT_DIRTY)
    if hugetlb:
        known[~present] = np.uint32(State.PRESENT | State.UFFD_WP)
        states &= known
    swap = np.flatnonzero(~present & _bit(words, _PM_SWAP))
    if swap.size:
        frames = words[swap] & np.uint64(_PM_FRAME)
        kind_states, kind_known = _classify(frames & np.uint64(31), frames >> np.uint64(5))
        kind_states[frames == 0] = 0
        kind_known[frames == 0] = 0
        guard = (states[swap] & np.uint32(State.GUARD)) != 0
        kind_known[guard] |= np.uint32(State.GUARD | State.MARKER)
        states[swap] |= kind_states
        # Of the page behind an entry that is not present, what is told depends on the kernel's age: take nothing.
        marker = (states[swap] & np.uint32(State.MARKER)) != 0
        of_the_page = np.where(marker, np.uint32(_OF_THE_PAGE), np.uint32(0))
        known[swap] = known[swap] & np.uint32(~(_KINDS | _OF_THE_PAGE) & ALL) | kind_known | of_the_page
        states[swap] &= known[swap]
    return states, known


def frames_pagemap(words: ArrayLike) -> NDArray[np.int64]:
    """Give the page frame number of each pagemap word, -1 where none is mapped or the reader may not see it."""
    words = np.asarray(words, dtype=np.uint64)
    frames = (words & np.uint64(_PM_FRAME)).astype(np.int64)
    return np.where(_bit(words, _PM_PRESENT) & (frames > 0), frames, -1)


def explain_pagemap(word: int) -> list[Bit]:
    """Take a pagemap word apart, highest bit first; the bits of the list put together are the word."""
    word = int(word)
    fields = [
        (63, 1, "present", "mapped"),
        (62, 1, "swap", "a swap entry, migration entry or marker"),
        (61, 1, "file", "a page of a file or of shared memory"),
        (59, 2, "59–60", "zero"),
        (58, 1, "guard", "guard region (6.15+)"),
        (57, 1, "uffd-wp", "protected by userfaultfd"),
        (56, 1, "exclusive", "mapped once only"),
        (55, 1, "soft-dirty", "written since clear_refs, or the whole mapping is new"),
    ]
    frame = word & _PM_FRAME
    if word >> _PM_PRESENT & 1 or not word >> _PM_SWAP & 1:
        meaning = f"frame {frame:#x}" if frame else "none, or the reader lacks CAP_SYS_ADMIN"
        fields.append((0, 55, "frame", meaning))
    else:
        kind, offset = frame & 31, frame >> 5
        hidden = "" if frame else "not shown without CAP_SYS_ADMIN"
        fields += [
            (5, 50, "offset", hidden or _marker_meaning(kind, offset) or f"offset {offset}"),
            (0, 5, "type", hidden or _kind_meaning(kind, offset)),
        ]
    return _split(word, fields)


def explain(form: str, word: int, level: int = 1) -> list[Bit]:
    """Take a word apart by the name of its format: ``x86-64``, ``arm64`` or ``pagemap``."""
    explainers: dict[str, Callable[[], list[Bit]]] = {
        "x86-64": lambda: explain_x86(word, level),
        "arm64": lambda: explain_arm64(word, level),
        "pagemap": lambda: explain_pagemap(word),
    }
    return explainers[form]()


# --- in words

_EXTRAS = (
    State.HUGE,
    State.PROTNONE,
    State.SPECIAL,
    State.DIRTY,
    State.ACCESSED,
    State.SOFT_DIRTY,
    State.EXCLUSIVE,
    State.FILE,
)


def state_name(state: State) -> str:
    """Give the word for one bit, as in the kernel: ``uffd-wp``, ``soft-dirty``."""
    return (state.name or str(int(state))).lower().replace("_", "-")


def describe(states: int, known: int) -> str:
    """Say in words what an entry is: ``present, not writable, uffd-wp, dirty``.

    Writable and uffd-wp are always spoken of while a page is mapped, the other bits only where they are set.  An
    unknown writable or uffd-wp has a question mark.
    """
    state, sure = State(int(states) & int(known)), State(int(known))
    if State.PRESENT not in sure:
        return "unknown"
    uffd = "uffd-wp" if State.UFFD_WP in state else ("not uffd-wp" if State.UFFD_WP in sure else "uffd-wp?")
    if State.PRESENT in state:
        writable = (
            "writable" if State.WRITABLE in state else ("not writable" if State.WRITABLE in sure else "writable?")
        )
        words = ["present", writable, uffd]
    elif State.MARKER in state:
        words = ["marker", *(state_name(s) for s in (State.UFFD_WP, State.POISON, State.GUARD) if s in state)]
    elif State.SWAPPED in state:
        words = ["swapped", uffd]
    elif _KINDS & ~sure:
        words = ["not present", *([uffd] if State.UFFD_WP in state else [])]
    else:
        words = ["absent"]
    return ", ".join(words + [state_name(s) for s in _EXTRAS if s in state])
