import pytest
from hypothesis import given
from hypothesis import strategies as st

from uffdlab import pte
from uffdlab.pte import ALL, State

from .entries import ENTRIES, ENTRY, arm, arm_swap, states_of

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
def test_arm64_entries_are_decoded(entry, level, states):
    expected = states_of(states)
    found, known = arm(entry, level)
    assert found == expected
    assert known == (ENTRY & ~State.SOFT_DIRTY if expected else ALL)


@given(ENTRIES, st.integers(0, 4))
def test_arm64_decoded_states_are_consistent(entry, level):
    states, known = arm(entry, level)
    assert states & known == states
    assert State.SOFT_DIRTY not in states
    if State.PRESENT not in states:
        assert not states & (State.WRITABLE | State.DIRTY | State.ACCESSED | State.HUGE)


def test_arm64_only_present_entries_have_a_frame():
    assert pte.frames_arm64([0x1234 << 12 | VALID | PAGE, 0, arm_swap(1, 5)], [1, 1, 1]).tolist() == [0x1234, -1, -1]


@given(ENTRIES)
def test_the_explanation_and_the_decoder_agree_on_present(entry):
    named = {bit.name for bit in pte.explain_arm64(entry)}
    assert ("type" in named or "entry" in named) == (State.PRESENT not in arm(entry)[0])
