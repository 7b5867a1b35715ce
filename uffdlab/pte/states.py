"""State: what a page-table entry says about a page, the same for every witness; and the names of its bits."""

from __future__ import annotations

import enum
from typing import NamedTuple


class State(enum.IntFlag):
    """What a page-table entry says about a page: one bit for each property, the same for every witness."""

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
    """Mapped once only, by this entry; only pagemap reports it."""
    HUGE = 1 << 7
    """Mapped by a leaf above the PTE level (2 MiB at the PMD, 1 GiB at the PUD on x86-64)."""
    SWAPPED = 1 << 8
    """Not present, and the entry points elsewhere: a swap slot, a page under migration, a device page, a bad page."""
    MARKER = 1 << 9
    """Not present; a PTE marker stores information about a page that is not mapped (uffd-wp, poison, guard)."""
    FILE = 1 << 10
    """A page of a file or of shared memory; only pagemap reports it."""
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
"""The states that decide whether a touch faults; the others only record what happened before."""
OF_THE_PAGE = State.EXCLUSIVE | State.FILE
OF_THE_ENTRY = ALL & ~OF_THE_PAGE
OF_A_SWAP_ENTRY = OF_THE_ENTRY & ~(State.DIRTY | State.ACCESSED)
KINDS = State.SWAPPED | State.MARKER | State.POISON | State.GUARD

LEVEL_NAMES = ("", "PTE", "PMD", "PUD", "P4D", "PGD")
"""Names of the levels; with four levels 4 is both P4D and PGD."""


class Bit(NamedTuple):
    """One field of an entry, of one bit or more, and its meaning."""

    number: int
    """Number of the lowest bit."""
    name: str
    value: int
    meaning: str
    width: int = 1


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
    """Return the name of one bit, as the kernel spells it: ``uffd-wp``, ``soft-dirty``."""
    return (state.name or str(int(state))).lower().replace("_", "-")


def describe(states: int, known: int) -> str:
    """Describe an entry: ``present, not writable, uffd-wp, dirty``.

    While a page is mapped, writable and uffd-wp are always mentioned, the other bits only if set.  An unknown writable
    or uffd-wp has a question mark.
    """
    state, sure = State(int(states) & int(known)), State(int(known))
    if State.PRESENT not in sure:
        return "unknown"
    uffd = "uffd-wp" if State.UFFD_WP in state else ("not uffd-wp" if State.UFFD_WP in sure else "uffd-wp?")
    if State.PRESENT in state:
        writable = (
            "writable" if State.WRITABLE in state else ("not writable" if State.WRITABLE in sure else "writable?")
        )
        parts = ["present", writable, uffd]
    elif State.MARKER in state:
        parts = ["marker", *(state_name(s) for s in (State.UFFD_WP, State.POISON, State.GUARD) if s in state)]
    elif State.SWAPPED in state:
        parts = ["swapped", uffd]
    elif KINDS & ~sure:
        parts = ["not present", *([uffd] if State.UFFD_WP in state else [])]
    else:
        parts = ["absent"]
    return ", ".join(parts + [state_name(s) for s in _EXTRAS if s in state])
