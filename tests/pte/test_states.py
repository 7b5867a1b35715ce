import pytest

from uffdlab import pte
from uffdlab.pte import ALL, State

from .entries import ENTRY


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
def test_states_are_described(states, known, text):
    assert pte.describe(states, known) == text
