from hypothesis import given
from hypothesis import strategies as st

from uffdlab import pte
from uffdlab.pte import State

from .entries import ENTRIES, PSE, SD, WP, A, D, G, P, pagemap, x86, x86_swap


def test_pagemap_bits_are_decoded():
    for bit, state in ((57, State.UFFD_WP), (56, State.EXCLUSIVE), (61, State.FILE), (55, State.SOFT_DIRTY)):
        states, known = pagemap(1 << 63 | 1 << bit)
        assert states == State.PRESENT | state
        assert state in known
    assert pagemap(1 << 62 | 1 << 58)[0] & (State.GUARD | State.MARKER) == State.GUARD | State.MARKER


@given(ENTRIES, st.booleans(), st.booleans(), st.booleans())
def test_pagemap_bits_that_the_kernel_does_not_report_are_unknown(entry, vma_soft_dirty, hugetlb, tracked):
    states, known = pagemap(entry, vma_soft_dirty, hugetlb, tracks_soft_dirty=tracked)
    assert states & known == states
    never = State.WRITABLE | State.DIRTY | State.ACCESSED | State.HUGE | State.PROTNONE | State.SPECIAL
    assert not known & never
    if vma_soft_dirty or hugetlb or not tracked:
        assert State.SOFT_DIRTY not in known
    else:
        assert State.SOFT_DIRTY in known
        assert (State.SOFT_DIRTY in states) == bool(entry >> 55 & 1)
    assert State.PRESENT | State.UFFD_WP in known


def test_pagemap_of_an_absent_hugetlb_page_has_uffd_wp_only():
    assert pagemap(1 << 57, hugetlb=True) == (State.UFFD_WP, State.PRESENT | State.UFFD_WP)


def test_pagemap_without_frames_does_not_distinguish_markers_from_swap():
    _, known = pagemap(1 << 62 | 1 << 57)
    assert not known & (State.SWAPPED | State.MARKER | State.POISON | State.GUARD)
    assert pte.frames_pagemap([1 << 63]).tolist() == [-1]
    assert pte.frames_pagemap([1 << 63 | 5, 5]).tolist() == [5, -1]


# --- pagemap and the x86-64 entry of the same page


def x86_to_pagemap(entry, level, vma_soft_dirty, hugetlb):
    present = bool(entry & (P | G)) or bool(level > 1 and entry & PSE)
    flags = 1 << 55 if vma_soft_dirty else 0
    if present:
        flags |= 1 << 63 | (1 << 57 if entry & WP else 0) | (0 if hugetlb or not entry & SD else 1 << 55)
        return flags | int(pte.frames_x86([entry], [level])[0]) & ((1 << 55) - 1)
    if entry & ~(A | D) == 0:
        return flags
    kind, offset = entry >> 59, ~entry >> 9 & ((1 << 50) - 1)
    marker = kind >= 30 and 0 < offset < 8
    if entry & 1 << 2 or (marker and offset & 1):
        flags |= 1 << 57
    if hugetlb:
        return flags
    return flags | 1 << 62 | kind | offset << 5 | (1 << 55 if entry & 1 << 1 else 0)


@given(ENTRIES | st.builds(x86_swap, st.integers(0, 31), st.integers(0, 9)), st.booleans(), st.booleans())
def test_entry_and_pagemap_agree_on_every_bit_both_know(entry, vma_soft_dirty, hugetlb):
    level = 2 if hugetlb else 1
    states, known = x86(entry, level)
    other_states, other_known = pagemap(x86_to_pagemap(entry, level, vma_soft_dirty, hugetlb), vma_soft_dirty, hugetlb)
    both = known & other_known & ~(State.EXCLUSIVE | State.FILE)
    assert states & both == other_states & both
