import pytest

from uffdlab.pte import ALL, State

from .entries import ENTRY, arm, arm_swap, pagemap, states_of, x86, x86_swap


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
def test_swap_entries_and_markers_are_decoded_in_every_format(kind, offset, states):
    expected = states_of(states)
    found, known = x86(x86_swap(kind, offset))
    assert found == expected
    if State.MARKER in expected:
        assert known == ALL
    else:
        assert known == ENTRY & ~(State.DIRTY | State.ACCESSED)
    assert x86(x86_swap(kind, offset, 1 << 2))[0] == expected | State.UFFD_WP
    assert x86(x86_swap(kind, offset, 1 << 1))[0] == expected | State.SOFT_DIRTY
    assert arm(arm_swap(kind, offset))[0] == expected
    assert arm(arm_swap(kind, offset, 1 << 3))[0] == expected | State.UFFD_WP
    assert pagemap(1 << 62 | offset << 5 | kind)[0] == expected
