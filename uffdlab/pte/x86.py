"""x86-64 page-table entries.

Sources: arch/x86/include/asm/pgtable_types.h, pgtable.h, pgtable_64.h and pgtable-invert.h of Linux 6.1, 6.12 and 7.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from uffdlab.bulk.entries import ODD, Decoder
from uffdlab.pte.states import ALL, KINDS, LEVEL_NAMES, OF_A_SWAP_ENTRY, OF_THE_ENTRY, Bit, State
from uffdlab.pte.swap import arrays, bit, classify, forget, kind_meaning, marker_meaning, set_where, split

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from uffdlab.pte.swap import Field

    Entries: TypeAlias = NDArray[np.uint64]
    Levels: TypeAlias = NDArray[np.uint8]
    Flags: TypeAlias = NDArray[np.uint32]

# arch/x86/include/asm/pgtable_types.h, _PAGE_BIT_*
_X86_PRESENT = 0
_X86_RW = 1
_X86_USER = 2
_X86_ACCESSED = 5
_X86_DIRTY = 6
_X86_PSE = 7
_X86_PROTNONE = 8  # _PAGE_BIT_GLOBAL where bit 0 is clear
_X86_SPECIAL = 9
_X86_UFFD_WP = 10  # commit 5a281062af1d (5.7); _PAGE_BIT_UFFD in 7.3
_X86_SOFT_DIRTY = 11
_X86_SAVED_DIRTY = 58  # 6.6, for shadow stacks; before: _PAGE_BIT_DEVMAP, always together with special
_X86_NX = 63
_HUGE_LEVELS = (2, 3)  # PMD and PUD: 2 MiB and 1 GiB
FRAME_MASK = 0x000F_FFFF_FFFF_F000  # bits 12 to 51: where an entry, or CR3, holds a page frame
_X86_ERRATUM = (1 << _X86_DIRTY) | (1 << _X86_ACCESSED)  # _PAGE_KNL_ERRATUM_MASK: pte_none() ignores both
# arch/x86/include/asm/pgtable_64.h, "Encode and de-code a swap entry"
_X86_SWP_SOFT_DIRTY = 1
_X86_SWP_UFFD_WP = 2
_X86_SWP_OFFSET = 9
_X86_SWP_TYPE = 59
BITS = {
    State.PRESENT: _X86_PRESENT,
    State.WRITABLE: _X86_RW,
    State.UFFD_WP: _X86_UFFD_WP,
    State.ACCESSED: _X86_ACCESSED,
    State.DIRTY: _X86_DIRTY,
    State.SOFT_DIRTY: _X86_SOFT_DIRTY,
    State.HUGE: _X86_PSE,
    State.PROTNONE: _X86_PROTNONE,
    State.SPECIAL: _X86_SPECIAL,
}
"""The bit number of each state in the entry of a present page."""


def _x86_low_table() -> Flags:
    # The states of an entry, indexed by its low 12 bits and by whether it is above the PTE level (bit 12 of the index).
    index = np.arange(1 << 13, dtype=np.uint64)
    above = bit(index, 12)
    hardware = bit(index, _X86_PRESENT)
    # pmd_present() also looks at PSE, which stays set while a split clears the present bit.
    present = hardware | bit(index, _X86_PROTNONE) | (above & bit(index, _X86_PSE))
    states = np.zeros(index.shape, dtype=np.uint32)
    set_where(states, present, State.PRESENT)
    set_where(states, present & ~hardware & bit(index, _X86_PROTNONE), State.PROTNONE)
    set_where(states, present & above & bit(index, _X86_PSE), State.HUGE)
    for number, state in (
        (_X86_RW, State.WRITABLE),
        (_X86_ACCESSED, State.ACCESSED),
        (_X86_DIRTY, State.DIRTY),
        (_X86_SPECIAL, State.SPECIAL),
        (_X86_UFFD_WP, State.UFFD_WP),
        (_X86_SOFT_DIRTY, State.SOFT_DIRTY),
    ):
        set_where(states, present & bit(index, number), state)
    return states


_X86_LOW = _x86_low_table()


def decode_x86(entries: ArrayLike, levels: ArrayLike, *, tracks_soft_dirty: bool = True) -> tuple[Flags, Flags]:
    """Decode x86-64 page-table entries.

    Parameters
    ----------
    entries : array_like of uint64, shape (n,)
        Raw entries: leaves, or the entry where a walk ended because it is not present.
    levels : array_like of uint8, shape (n,) or ()
        1 = PTE, 2 = PMD, 3 = PUD, 4, 5; 0 = no entry was read, nothing is known.
    tracks_soft_dirty : bool
        False for a kernel without CONFIG_MEM_SOFT_DIRTY: its entries have no such bit, so SOFT_DIRTY is unknown.

    Returns
    -------
    states, known : ndarray of uint32, shape (n,)
        Bits of :class:`State`.  EXCLUSIVE and FILE are known only where nothing is mapped.
    """
    entries, levels = arrays(entries, levels)
    above = levels > 1
    of_tables = decoder()
    states, known, odd = of_tables.decode(entries, bool(above.size and above.all()))
    if above.any() and not above.all():
        where = np.flatnonzero(above)
        states[where], known[where], _ = of_tables.decode(entries[where], True)
        odd = int((known == ODD).sum())
    states, known = decode_odd_entries(entries, states, known, odd, tracks_soft_dirty=tracks_soft_dirty)
    if levels.size and levels.min() == 0:
        unread = levels == 0
        states[unread] = 0
        known[unread] = 0
    return states, known


def is_leaf(entry: int, level: int) -> bool:
    """Return whether an entry is a leaf for the processor: present, and above the PTE level with PSE set."""
    return bool(entry & 1) and (level == 1 or (level in _HUGE_LEVELS and bool(entry >> _X86_PSE & 1)))


def points_to_tables(entries: Entries, levels: Levels, level: int) -> NDArray[np.bool_]:
    """Return which entries of `level` point to a table: present, and no huge leaf; bool, shape (n,)."""
    tables: NDArray[np.bool_] = (levels == level) & bit(entries, _X86_PRESENT)
    if level in _HUGE_LEVELS:
        tables &= ~bit(entries, _X86_PSE)
    return tables


def describe_table(entry: int, level: int) -> str:
    """Describe an entry of `level` that points to a table: ``PTE table at frame 0x1a``."""
    facts = [f"{LEVEL_NAMES[level - 1]} table at frame {(entry & FRAME_MASK) >> 12:#x}"]
    facts += [] if entry >> _X86_RW & 1 else ["not writable below"]
    facts += [] if entry >> _X86_USER & 1 else ["not for user space"]
    facts += ["no instructions below"] if entry >> _X86_NX & 1 else []
    return ", ".join(facts)


def decoder() -> Decoder:
    """Return the decoder for present entries without bit 58, whose low bits determine their states."""
    return Decoder(_X86_LOW, (1 | 1 << _X86_SAVED_DIRTY, 1), int(OF_THE_ENTRY), int(ALL))


def decode_odd_entries(
    entries: Entries, states: Flags, known: Flags, odd: int, *, tracks_soft_dirty: bool = True
) -> tuple[Flags, Flags]:
    """Decode the entries that :func:`decoder` marked as ODD; usually few.

    Parameters
    ----------
    entries, states, known : ndarray, shape (n,)
        The entries, and what :func:`decoder` returned for them.
    odd : int
        How many elements of `known` are :data:`uffdlab.bulk.entries.ODD`.
    tracks_soft_dirty : bool
        See :func:`decode_x86`.

    Returns
    -------
    states, known : ndarray of uint32, shape (n,)
        The same arrays if they are writeable, else copies.
    """
    if (odd or not tracks_soft_dirty) and not (states.flags.writeable and known.flags.writeable):
        states, known = states.copy(), known.copy()
    if odd:
        where = np.flatnonzero(known == ODD)
        states[where], known[where] = _x86_odd(entries[where], states[where])
    if not tracks_soft_dirty:
        forget(states, known, State.SOFT_DIRTY)
    return states, known


def _x86_odd(entries: Entries, states: Flags) -> tuple[Flags, Flags]:
    present = (states & np.uint32(State.PRESENT)) != 0
    known = np.full(entries.shape, np.uint32(OF_THE_ENTRY), dtype=np.uint32)

    saved = present & bit(entries, _X86_SAVED_DIRTY)
    set_where(states, saved, State.DIRTY)
    # Special and bit 58 but not bit 6: dirty from 6.6 on, DEVMAP before; so DIRTY is unknown.
    devmap = saved & bit(entries, _X86_SPECIAL) & ~bit(entries, _X86_DIRTY)
    states[devmap] &= np.uint32(~State.DIRTY & ALL)
    known[devmap] &= np.uint32(~State.DIRTY & ALL)

    none = ~present & ((entries & np.uint64(~_X86_ERRATUM & (1 << 64) - 1)) == 0)
    known[none] = np.uint32(ALL)

    swap = np.flatnonzero(~present & ~none)
    if swap.size:
        kinds, offsets = _x86_swap(entries[swap])
        swap_states, swap_known = classify(kinds, offsets)
        set_where(swap_states, bit(entries[swap], _X86_SWP_UFFD_WP), State.UFFD_WP)
        set_where(swap_states, bit(entries[swap], _X86_SWP_SOFT_DIRTY), State.SOFT_DIRTY)
        marker = (swap_states & np.uint32(State.MARKER)) != 0
        states[swap] = swap_states
        known[swap] = np.where(marker, np.uint32(ALL), swap_known | np.uint32(OF_A_SWAP_ENTRY & ~KINDS))
    return states, known


def _x86_swap(entries: Entries) -> tuple[Entries, Entries]:
    # __swp_type() and __swp_offset(): the offset is stored inverted, against L1TF (6.1's format since 4.19).
    offsets = (~entries << np.uint64(5)) >> np.uint64(5 + _X86_SWP_OFFSET)
    return entries >> np.uint64(_X86_SWP_TYPE), offsets


def frames_x86(entries: ArrayLike, levels: ArrayLike) -> NDArray[np.int64]:
    """Return the page frame number (4 KiB units) that each x86-64 leaf points to; int64, -1 where nothing is mapped.

    For a huge leaf this is the first frame of the huge page.
    """
    entries, levels = arrays(entries, levels)
    index = (entries & np.uint64(0xFFF)).astype(np.uint16) | ((levels > 1).astype(np.uint16) << np.uint16(12))
    present = ((_X86_LOW[index] & np.uint32(State.PRESENT)) != 0) & (levels > 0)
    # pgtable-invert.h: an entry without bit 0 stores its frame inverted.
    physical = np.where(bit(entries, _X86_PRESENT), entries, ~entries) & np.uint64(FRAME_MASK)
    huge = (_X86_LOW[index] & np.uint32(State.HUGE)) != 0
    low = np.where(huge, (np.uint64(1) << (np.uint64(3) + np.uint64(9) * levels.astype(np.uint64))) - np.uint64(1), 0)
    frames = (physical & ~low.astype(np.uint64)) >> np.uint64(12)
    return np.where(present, frames.astype(np.int64), -1)


def explain_x86(entry: int, level: int = 1) -> list[Bit]:
    """Decode an x86-64 entry into its fields, highest bit first; together they cover all 64 bits.

    Parameters
    ----------
    entry : int
        The raw entry.
    level : int
        1 = PTE, 2 = PMD, 3 = PUD.
    """
    entry = int(entry)
    states, _ = decode_x86([entry], [max(level, 1)])
    if states[0] & State.PRESENT:
        return _x86_leaf(entry, level)
    if entry & ~_X86_ERRATUM == 0:
        return [Bit(0, "entry", entry, "empty: nothing is mapped", 64)]
    kinds, offsets = _x86_swap(np.array([entry], dtype=np.uint64))
    kind, offset = int(kinds[0]), int(offsets[0])
    offset_meaning = marker_meaning(kind, offset) or f"offset {offset}, stored inverted"
    fields: list[Field] = [
        (59, 5, "type", kind_meaning(kind, offset)),
        (9, 50, "offset", offset_meaning),
        (8, 1, "protnone", "clear: not a PROT_NONE mapping"),
        (7, 1, "PSE", "clear in a swap entry"),
        (6, 1, "6", "not used: an erratum may set it"),
        (5, 1, "5", "not used: an erratum may set it"),
        (4, 1, "4", "not used"),
        (3, 1, "exclusive", "anonymous page of this process only", "not marked as of one process only"),
        (2, 1, "uffd-wp", "write-protected by userfaultfd", "not write-protected by userfaultfd"),
        (1, 1, "soft-dirty", "written since clear_refs", "not written since clear_refs"),
        (0, 1, "present", "not present"),
    ]
    return split(entry, fields)


def _x86_leaf(entry: int, level: int) -> list[Bit]:
    hardware = entry & 1
    huge = level > 1 and entry >> _X86_PSE & 1
    frame = int(frames_x86([entry], [max(level, 1)])[0])
    low = 12 + 9 * (level - 1) if huge else 12
    size = {1: "4 KiB", 2: "2 MiB", 3: "1 GiB"}.get(level, "huge") if huge else "4 KiB"
    fields: list[Field] = [
        (63, 1, "NX", "no instruction may be fetched", "instructions may be fetched"),
        (59, 4, "pkey", f"protection key {entry >> 59 & 15}"),
        (58, 1, "saved-dirty", "dirty while read-only (6.6+; before: device map)", "not dirty while read-only"),
        (52, 6, "software", "for software (57: device map on some kernels)"),
        (low, 52 - low, "frame", f"{size} page at frame {frame:#x}" + ("" if hardware else ", stored inverted")),
    ]
    if huge:
        fields += [(13, low - 13, "reserved", "zero in a huge entry"), (12, 1, "PAT", "memory type")]
    fields += [
        (11, 1, "soft-dirty", "written since clear_refs", "not written since clear_refs"),
        (10, 1, "uffd-wp", "protected by userfaultfd", "not protected by userfaultfd"),
        (9, 1, "special", "no page of its own: zero page or device memory", "an ordinary page"),
        (8, 1, "global", "kept in the TLB", "not kept in the TLB")
        if hardware
        else (8, 1, "protnone", "present for the kernel only"),
        (7, 1, "PAT" if level <= 1 else "PSE", "memory type" if level <= 1 else "a huge page, not a table"),
        (6, 1, "dirty", "written", "not written"),
        (5, 1, "accessed", "read or written", "neither read nor written"),
        (4, 1, "PCD", "cache disabled", "cache enabled"),
        (3, 1, "PWT", "cache writes through", "cache writes back"),
        (2, 1, "user", "user space may use it", "for the kernel only"),
        (1, 1, "writable", "writes are allowed", "a write faults"),
        (0, 1, "present", "mapped", "not valid for the processor"),
    ]
    return split(entry, fields)
