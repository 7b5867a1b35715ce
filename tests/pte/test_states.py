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


@pytest.mark.parametrize(
    ("entry", "level", "page_size", "text"),
    [
        (0, 1, 4096, " in a PTE"),
        (0, 2, 4096, " in a PMD: the PTE table that would hold this page's entry is not there yet"),
        (0, 3, 4096, " in a PUD: the PMD table that would lead to this page's entry is not there yet"),
        (0, 2, 2 << 20, " in a PMD"),
        (0, 3, 2 << 20, " in a PUD: the PMD table that would hold this page's entry is not there yet"),
        (0, 3, 1 << 30, " in a PUD"),
        (0xE7, 2, 4096, " in a PMD"),
        (0, 0, 4096, ""),
    ],
)
def test_an_empty_upper_entry_is_explained_as_a_missing_table(entry, level, page_size, text):
    assert pte.level_text(entry, level, page_size) == text


@pytest.mark.parametrize("form", ["x86-64", "pagemap"])
def test_uffd_wp_and_writable_are_at_the_top_of_the_fields(form):
    bits = pte.explain(form, 0x8000_0000_03FF_CC67)
    names = [bit.name for bit in pte.first_the_important(bits)]
    assert names[: 2 if form == "x86-64" else 1] == (["uffd-wp", "writable"] if form == "x86-64" else ["uffd-wp"])
    assert sorted(names) == sorted(bit.name for bit in bits)
