import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uffdlab import pte
from uffdlab.pte import ALL, State

NX = 1 << 63
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


def pagemap(entry, sd=False, ht=False, **keywords):
    states, known = pte.decode_pagemap([entry], vma_soft_dirty=sd, hugetlb=ht, **keywords)
    return State(int(states[0])), State(int(known[0]))


def x86_swap(kind, offset, flags=0):
    # __swp_entry() of arch/x86/include/asm/pgtable_64.h, in C's 64-bit arithmetic
    return ((~offset & ((1 << 64) - 1)) << 14 & ((1 << 64) - 1)) >> 5 | kind << 59 | flags


def arm_swap(kind, offset, flags=0):
    return kind << 6 | offset << 12 | flags


# --- x86-64


@pytest.mark.parametrize(
    ("entry", "level", "states"),
    [
        # read from a 6.1 guest: a page by CONTINUE|WP, and one by plain CONTINUE
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
        (A | D, 1, ""),  # pte_none() overlooks them
    ],
)
def test_x86_entries(entry, level, states):
    wanted = State(0)
    for name in states.split():
        wanted |= State[name]
    found, known = x86(entry, level)
    assert found == wanted
    assert known == (ENTRY if wanted else ALL)


def test_x86_bit_58_of_a_special_page_may_be_another_kernels_devmap():
    states, known = x86(P | SPECIAL | SAVED)
    assert State.DIRTY not in states | known


def test_x86_nothing_is_known_of_an_entry_that_was_not_read():
    assert x86(P | W, 0) == (State(0), State(0))


def test_x86_without_soft_dirty_tracking_the_bit_is_unknown():
    states, known = x86(P | W | SD, tracks_soft_dirty=False)
    assert State.SOFT_DIRTY not in states | known
    assert State.WRITABLE in states


@pytest.mark.parametrize(
    ("kind", "offset", "states"),
    [
        (0, 77, "SWAPPED"),
        (3, 1, "SWAPPED"),
        (28, 0x12345, "SWAPPED"),
        (31, 1, "MARKER UFFD_WP"),  # 6.2 and later
        (30, 1, "MARKER UFFD_WP"),  # 6.1
        (31, 2, "MARKER POISON"),
        (31, 4, "MARKER GUARD"),
        (31, 3, "MARKER UFFD_WP POISON"),
        (30, 0x4321, "SWAPPED"),  # a migration or device entry
    ],
)
def test_x86_entries_that_are_not_present(kind, offset, states):
    wanted = State(0)
    for name in states.split():
        wanted |= State[name]
    found, known = x86(x86_swap(kind, offset))
    assert found == wanted
    if State.MARKER in wanted:
        assert known == ALL
    else:
        assert known == ENTRY & ~(State.DIRTY | State.ACCESSED)
    assert x86(x86_swap(kind, offset, 1 << 2))[0] == wanted | State.UFFD_WP
    assert x86(x86_swap(kind, offset, 1 << 1))[0] == wanted | State.SOFT_DIRTY
    assert arm(arm_swap(kind, offset))[0] == wanted
    assert arm(arm_swap(kind, offset, 1 << 3))[0] == wanted | State.UFFD_WP
    assert pagemap(1 << 62 | offset << 5 | kind)[0] == wanted


def test_x86_marker_bits_from_the_future_stay_unknown():
    states, known = x86(x86_swap(31, 8))
    assert not states
    assert not known & (State.MARKER | State.SWAPPED | State.POISON | State.GUARD)
    assert State.PRESENT | State.WRITABLE | State.UFFD_WP in known


@given(st.integers(0, 31), st.integers(0, (1 << 50) - 1))
def test_x86_swap_entries_keep_type_and_offset(kind, offset):
    entry = x86_swap(kind, offset)
    if not entry:
        return
    assert not entry & (P | PSE | G)
    bits = {bit.name: bit.value for bit in pte.explain_x86(entry)}
    assert bits["type"] == kind
    assert bits["offset"] == ~offset & ((1 << 50) - 1)


@given(st.lists(st.tuples(ENTRIES, st.integers(0, 5)), max_size=50))
def test_x86_arrays_say_what_single_entries_say(pairs):
    entries = np.array([entry for entry, _ in pairs], dtype=np.uint64)
    levels = np.array([level for _, level in pairs], dtype=np.uint8)
    states, known = pte.decode_x86(entries, levels)
    assert states.dtype == known.dtype == np.uint32
    assert [(int(s), int(k)) for s, k in zip(states, known, strict=True)] == [x86(*pair) for pair in pairs]


def test_x86_large_arrays_are_decoded_piece_by_piece_without_seams():
    rng = np.random.default_rng(7)
    entries = rng.integers(0, 1 << 64, 150_001, dtype=np.uint64)
    levels = rng.integers(0, 4, entries.size).astype(np.uint8)
    states, known = pte.decode_x86(entries, levels)
    for index in (0, 65_535, 65_536, 131_071, 131_072, 150_000):
        assert (int(states[index]), int(known[index])) == x86(int(entries[index]), int(levels[index]))


@given(ENTRIES, st.integers(1, 3))
def test_x86_known_and_set_obey_the_rules(entry, level):
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
def test_x86_frames_come_back(frame, level, protnone):
    frame &= ~((1 << 9 * (level - 1)) - 1)
    entry = frame << 12
    if protnone:  # pgtable-invert.h
        entry = ~entry & 0x000F_FFFF_FFFF_F000
        if level > 1:
            entry &= ~((1 << 12 + 9 * (level - 1)) - 1)
    entry |= (G if protnone else P) | (PSE if level > 1 else 0)
    assert pte.frames_x86([entry], [level]).tolist() == [frame]


def test_x86_frames_of_nothing():
    assert pte.frames_x86([0, x86_swap(1, 5), P], [1, 1, 0]).tolist() == [-1, -1, -1]


# --- arm64

VALID, PAGE, RDONLY, AF, WRITE = 1, 2, 1 << 7, 1 << 10, 1 << 51


@pytest.mark.parametrize(
    ("entry", "level", "states"),
    [
        (VALID | PAGE | AF, 1, "PRESENT ACCESSED"),
        (VALID | PAGE | AF | WRITE | RDONLY, 1, "PRESENT WRITABLE ACCESSED"),
        (VALID | PAGE | AF | WRITE, 1, "PRESENT WRITABLE ACCESSED DIRTY"),
        (VALID | PAGE | RDONLY | 1 << 55 | 1 << 58, 1, "PRESENT DIRTY UFFD_WP"),
        (VALID | AF | RDONLY, 2, "PRESENT HUGE ACCESSED"),
        (VALID | PAGE | 1 << 56, 1, "PRESENT SPECIAL"),
        (1 << 11 | 1 << 54 | PAGE, 1, "PRESENT PROTNONE"),
        (0, 1, ""),
    ],
)
def test_arm64_entries(entry, level, states):
    wanted = State(0)
    for name in states.split():
        wanted |= State[name]
    found, known = arm(entry, level)
    assert found == wanted
    assert known == (ENTRY & ~State.SOFT_DIRTY if wanted else ALL)


@given(ENTRIES, st.integers(0, 4))
def test_arm64_known_and_set_obey_the_rules(entry, level):
    states, known = arm(entry, level)
    assert states & known == states
    assert State.SOFT_DIRTY not in states
    if State.PRESENT not in states:
        assert not states & (State.WRITABLE | State.DIRTY | State.ACCESSED | State.HUGE)


def test_arm64_frames():
    assert pte.frames_arm64([0x1234 << 12 | VALID | PAGE, 0, arm_swap(1, 5)], [1, 1, 1]).tolist() == [0x1234, -1, -1]


# --- pagemap


def test_pagemap_bits():
    for bit, state in ((57, State.UFFD_WP), (56, State.EXCLUSIVE), (61, State.FILE), (55, State.SOFT_DIRTY)):
        states, known = pagemap(1 << 63 | 1 << bit)
        assert states == State.PRESENT | state
        assert state in known
    assert pagemap(1 << 62 | 1 << 58)[0] & (State.GUARD | State.MARKER) == State.GUARD | State.MARKER


@given(ENTRIES, st.booleans(), st.booleans(), st.booleans())
def test_pagemap_never_tells_what_it_cannot_know(entry, sd, ht, tracked):
    states, known = pagemap(entry, sd, ht, tracks_soft_dirty=tracked)
    assert states & known == states
    never = State.WRITABLE | State.DIRTY | State.ACCESSED | State.HUGE | State.PROTNONE | State.SPECIAL
    assert not known & never
    if sd or ht or not tracked:
        assert State.SOFT_DIRTY not in known
    else:
        assert State.SOFT_DIRTY in known
        assert (State.SOFT_DIRTY in states) == bool(entry >> 55 & 1)
    assert State.PRESENT | State.UFFD_WP in known


def test_pagemap_of_an_absent_hugetlb_page_tells_uffd_wp_only():
    assert pagemap(1 << 57, ht=True) == (State.UFFD_WP, State.PRESENT | State.UFFD_WP)


def test_pagemap_without_the_right_to_see_frames_does_not_tell_markers_from_swap():
    _, known = pagemap(1 << 62 | 1 << 57)
    assert not known & (State.SWAPPED | State.MARKER | State.POISON | State.GUARD)
    assert pte.frames_pagemap([1 << 63]).tolist() == [-1]
    assert pte.frames_pagemap([1 << 63 | 5, 5]).tolist() == [5, -1]


# --- the two witnesses against each other: what pagemap says is derived here from the entry, as task_mmu.c does it


def pagemap_of(entry, level, sd, ht):
    present = bool(entry & (P | G)) or bool(level > 1 and entry & PSE)
    flags = 1 << 55 if sd else 0
    if present:
        flags |= 1 << 63 | (1 << 57 if entry & WP else 0) | (0 if ht or not entry & SD else 1 << 55)
        return flags | int(pte.frames_x86([entry], [level])[0]) & ((1 << 55) - 1)
    if entry & ~(A | D) == 0:
        return flags
    kind, offset = entry >> 59, ~entry >> 9 & ((1 << 50) - 1)
    marker = kind >= 30 and 0 < offset < 8
    if entry & 1 << 2 or (marker and offset & 1):
        flags |= 1 << 57
    if ht:
        return flags
    return flags | 1 << 62 | kind | offset << 5 | (1 << 55 if entry & 1 << 1 else 0)


@given(ENTRIES | st.builds(x86_swap, st.integers(0, 31), st.integers(0, 9)), st.booleans(), st.booleans())
def test_entry_and_pagemap_agree_on_every_bit_both_know(entry, sd, ht):
    level = 2 if ht else 1
    states, known = x86(entry, level)
    other_states, other_known = pagemap(pagemap_of(entry, level, sd, ht), sd, ht)
    both = known & other_known & ~(State.EXCLUSIVE | State.FILE)
    assert states & both == other_states & both


# --- taken apart, and as text


@given(ENTRIES, st.integers(1, 3), st.sampled_from(["x86-64", "arm64", "pagemap"]))
def test_the_explained_bits_add_up_to_the_entry(entry, level, form):
    bits = pte.explain(form, entry, level)
    assert sum(bit.value << bit.number for bit in bits) == entry
    assert sum(bit.width for bit in bits) == 64
    assert [bit.number for bit in bits] == sorted((bit.number for bit in bits), reverse=True)


@pytest.mark.parametrize("explain", [pte.explain_x86, pte.explain_arm64])
@given(entry=ENTRIES)
def test_explanations_say_present_where_decoders_do(explain, entry):
    named = {bit.name: bit.value for bit in explain(entry)}
    states, _ = x86(entry) if explain is pte.explain_x86 else arm(entry)
    if explain is pte.explain_x86 and State.PRESENT in states:
        assert named["writable"] == (State.WRITABLE in states)
        assert named["uffd-wp"] == (State.UFFD_WP in states)
    assert ("type" in named or "entry" in named) == (State.PRESENT not in states)


@pytest.mark.parametrize(
    ("states", "known", "text"),
    [
        (State.PRESENT | State.UFFD_WP, ENTRY, "present, not writable, uffd-wp"),
        (State.PRESENT | State.WRITABLE | State.DIRTY, ENTRY, "present, writable, not uffd-wp, dirty"),
        (State.PRESENT | State.UFFD_WP, State.PRESENT | State.UFFD_WP, "present, writable?, uffd-wp"),
        (State(0), ALL, "absent"),
        (State(0), State.PRESENT | State.UFFD_WP, "not present"),
        (State.UFFD_WP, State.PRESENT | State.UFFD_WP, "not present, uffd-wp"),
        (State.MARKER | State.UFFD_WP, ALL, "marker, uffd-wp"),
        (State.SWAPPED | State.UFFD_WP, ALL, "swapped, uffd-wp"),
        (State(0), State(0), "unknown"),
    ],
)
def test_states_as_text(states, known, text):
    assert pte.describe(states, known) == text


def test_an_entry_above_the_pte_level_is_a_leaf_with_pse_only():
    present, pse = 1, 1 << 7
    assert [pte.x86.is_leaf(present, level) for level in (1, 2, 3, 4)] == [True, False, False, False]
    assert [pte.x86.is_leaf(present | pse, level) for level in (1, 2, 3, 4)] == [True, True, True, False]
    assert not pte.x86.is_leaf(pse, 2)
    entries = np.array([present, present | pse, pse, present], dtype=np.uint64)
    levels = np.array([2, 2, 2, 1], dtype=np.uint8)
    assert pte.x86.points_to_tables(entries, levels, 2).tolist() == [True, False, False, False]


def test_what_an_entry_says_of_the_table_it_points_to():
    assert pte.x86.describe_table(0x1A007, 2) == "PTE table at frame 0x1a"
    assert pte.x86.describe_table(0x1A001 | 1 << 63, 4) == (
        "PUD table at frame 0x1a, not writable below, not for user space, no instructions below"
    )
