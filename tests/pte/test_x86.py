import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uffdlab import pte
from uffdlab.pte import ALL, State

from .entries import ENTRIES, ENTRY, PSE, SAVED, SD, SPECIAL, WP, A, D, G, P, U, W, states_of, x86, x86_swap


@pytest.mark.parametrize(
    ("entry", "level", "states"),
    [
        # read from a 6.1 guest: a page mapped by CONTINUE with WP, and one by CONTINUE without
        (0x800000003FFCFC65, 1, "PRESENT UFFD_WP DIRTY ACCESSED SOFT_DIRTY"),
        (0x8000000001BF1867, 1, "PRESENT WRITABLE DIRTY ACCESSED SOFT_DIRTY"),
        (P | U, 1, "PRESENT"),
        (P | U | W | PSE, 2, "PRESENT WRITABLE HUGE"),
        (P | U | W | PSE, 3, "PRESENT WRITABLE HUGE"),
        (P | U | PSE, 1, "PRESENT"),  # bit 7 is PAT in a PTE
        (P | U | SPECIAL, 1, "PRESENT SPECIAL"),
        (U | G | A, 1, "PRESENT ACCESSED PROTNONE"),
        (U | G | A | WP, 1, "PRESENT UFFD_WP ACCESSED PROTNONE"),  # RWP
        (PSE | U | D, 2, "PRESENT HUGE DIRTY"),  # being split
        (P | U | SAVED, 1, "PRESENT DIRTY"),
        (P | U | D | SAVED | SPECIAL, 1, "PRESENT DIRTY SPECIAL"),
        (0, 1, ""),
        (0, 4, ""),
        (A | D, 1, ""),  # pte_none() ignores these two bits
    ],
)
def test_x86_entries_are_decoded(entry, level, states):
    expected = states_of(states)
    found, known = x86(entry, level)
    assert found == expected
    assert known == (ENTRY if expected else ALL)


def test_x86_bit_58_of_a_special_page_is_not_decoded_as_dirty():
    states, known = x86(P | SPECIAL | SAVED)
    assert State.DIRTY not in states | known


def test_x86_every_bit_of_an_entry_that_was_not_read_is_unknown():
    assert x86(P | W, 0) == (State(0), State(0))


def test_x86_soft_dirty_is_unknown_without_soft_dirty_tracking():
    states, known = x86(P | W | SD, tracks_soft_dirty=False)
    assert State.SOFT_DIRTY not in states | known
    assert State.WRITABLE in states


def test_x86_a_marker_with_new_bits_is_unknown():
    states, known = x86(x86_swap(31, 8))
    assert not states
    assert not known & (State.MARKER | State.SWAPPED | State.POISON | State.GUARD)
    assert State.PRESENT | State.WRITABLE | State.UFFD_WP in known


@given(st.integers(0, 31), st.integers(0, (1 << 50) - 1))
def test_x86_swap_entries_are_explained_with_type_and_offset(kind, offset):
    entry = x86_swap(kind, offset)
    if not entry:
        return
    assert not entry & (P | PSE | G)
    bits = {bit.name: bit.value for bit in pte.explain_x86(entry)}
    assert bits["type"] == kind
    assert bits["offset"] == ~offset & ((1 << 50) - 1)


@given(st.lists(st.tuples(ENTRIES, st.integers(0, 5)), max_size=50))
def test_x86_an_array_is_decoded_like_its_single_entries(pairs):
    entries = np.array([entry for entry, _ in pairs], dtype=np.uint64)
    levels = np.array([level for _, level in pairs], dtype=np.uint8)
    states, known = pte.decode_x86(entries, levels)
    assert states.dtype == known.dtype == np.uint32
    assert [(int(s), int(k)) for s, k in zip(states, known, strict=True)] == [x86(*pair) for pair in pairs]


def test_x86_a_large_array_is_decoded_like_its_single_entries():
    rng = np.random.default_rng(7)
    entries = rng.integers(0, 1 << 64, 150_001, dtype=np.uint64)
    levels = rng.integers(0, 4, entries.size).astype(np.uint8)
    states, known = pte.decode_x86(entries, levels)
    for index in (0, 65_535, 65_536, 131_071, 131_072, 150_000):
        assert (int(states[index]), int(known[index])) == x86(int(entries[index]), int(levels[index]))


@given(ENTRIES, st.integers(1, 3))
def test_x86_decoded_states_are_consistent(entry, level):
    states, known = x86(entry, level)
    assert states & known == states
    assert State.PRESENT in known
    if State.PRESENT in states:
        assert not states & (State.SWAPPED | State.MARKER)
        assert (State.WRITABLE in states) == bool(entry & W)
        assert (State.UFFD_WP in states) == bool(entry & WP)
    else:
        assert not states & (State.WRITABLE | State.DIRTY | State.ACCESSED | State.HUGE | State.PROTNONE)
    assert State.PROTNONE not in states or not entry & P


@given(st.integers(0, (1 << 40) - 1), st.integers(1, 3), st.booleans())
def test_x86_the_frame_of_an_entry_is_decoded(frame, level, protnone):
    frame &= ~((1 << 9 * (level - 1)) - 1)
    entry = frame << 12
    if protnone:  # pgtable-invert.h
        entry = ~entry & 0x000F_FFFF_FFFF_F000
        if level > 1:
            entry &= ~((1 << 12 + 9 * (level - 1)) - 1)
    entry |= (G if protnone else P) | (PSE if level > 1 else 0)
    assert pte.frames_x86([entry], [level]).tolist() == [frame]


def test_x86_absent_entries_have_no_frame():
    assert pte.frames_x86([0, x86_swap(1, 5), P], [1, 1, 0]).tolist() == [-1, -1, -1]


def test_an_entry_above_the_pte_level_is_a_leaf_only_with_pse():
    present, pse = 1, 1 << 7
    assert [pte.x86.is_leaf(present, level) for level in (1, 2, 3, 4)] == [True, False, False, False]
    assert [pte.x86.is_leaf(present | pse, level) for level in (1, 2, 3, 4)] == [True, True, True, False]
    assert not pte.x86.is_leaf(pse, 2)
    entries = np.array([present, present | pse, pse, present], dtype=np.uint64)
    levels = np.array([2, 2, 2, 1], dtype=np.uint8)
    assert pte.x86.points_to_tables(entries, levels, 2).tolist() == [True, False, False, False]


def test_an_entry_that_points_to_a_table_is_explained():
    assert pte.x86.describe_table(0x1A007, 2) == "PTE table at frame 0x1a"
    assert pte.x86.describe_table(0x1A001 | 1 << 63, 4) == (
        "PUD table at frame 0x1a, not writable below, not for user space, no instructions below"
    )


@given(ENTRIES)
def test_the_explanation_agrees_with_the_decoder(entry):
    named = {bit.name: bit.value for bit in pte.explain_x86(entry)}
    states, _ = x86(entry)
    assert ("type" in named or "entry" in named) == (State.PRESENT not in states)
    if State.PRESENT in states:
        assert named["writable"] == (State.WRITABLE in states)
        assert named["uffd-wp"] == (State.UFFD_WP in states)
