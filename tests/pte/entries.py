"""Raw entries for the tests, and decoders for one entry."""

from hypothesis import strategies as st

from uffdlab import pte
from uffdlab.pte import ALL, State

P, W, U, A, D, PSE, G, SPECIAL, WP, SD = (1 << n for n in (0, 1, 2, 5, 6, 7, 8, 9, 10, 11))
SAVED = 1 << 58
ENTRIES = st.integers(0, (1 << 64) - 1)
ENTRY = ALL & ~(State.EXCLUSIVE | State.FILE)


def x86(entry, level=1, **keywords):
    states, known = pte.decode_x86([entry], [level], **keywords)
    return State(int(states[0])), State(int(known[0]))


def arm(entry, level=1):
    states, known = pte.decode_arm64([entry], [level])
    return State(int(states[0])), State(int(known[0]))


def pagemap(entry, vma_soft_dirty=False, hugetlb=False, **keywords):
    states, known = pte.decode_pagemap([entry], vma_soft_dirty=vma_soft_dirty, hugetlb=hugetlb, **keywords)
    return State(int(states[0])), State(int(known[0]))


def x86_swap(kind, offset, flags=0):
    # __swp_entry() of arch/x86/include/asm/pgtable_64.h, in C's 64-bit arithmetic
    return ((~offset & ((1 << 64) - 1)) << 14 & ((1 << 64) - 1)) >> 5 | kind << 59 | flags


def arm_swap(kind, offset, flags=0):
    return kind << 6 | offset << 12 | flags


def states_of(names):
    """Return the states with these names, such as ``"PRESENT WRITABLE"``."""
    states = State(0)
    for name in names.split():
        states |= State[name]
    return states
