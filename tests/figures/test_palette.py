import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uffdlab.figures.palette import CELL_STYLES, MIXED, cell_style, cell_styles
from uffdlab.pte import ALL, State

ENTRY = ALL & ~(State.EXCLUSIVE | State.FILE)
PAGEMAP = State.PRESENT | State.UFFD_WP | State.SWAPPED | State.MARKER | State.POISON | State.GUARD


def luminance(colour):
    parts = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("style", [*CELL_STYLES.values(), MIXED], ids=lambda style: style.text)
def test_letters_have_enough_contrast(style):
    assert contrast(style.colour, style.ink) >= 4.5


def test_states_differ_without_colour():
    assert MIXED.letter not in CELL_STYLES
    # the states that matter most differ in grey too, or by hatch
    plain = [CELL_STYLES[letter] for letter in "·PUW"]
    for index, one in enumerate(plain):
        for other in plain[:index]:
            assert one.hatch != other.hatch or contrast(one.colour, other.colour) > 1.25


@pytest.mark.parametrize(
    ("states", "known", "letter"),
    [
        (State(0), ALL, "·"),
        (State.PRESENT, ENTRY, "P"),
        (State.PRESENT | State.WRITABLE, ENTRY, "W"),
        (State.PRESENT | State.UFFD_WP, ENTRY, "U"),
        (State.PRESENT | State.WRITABLE | State.UFFD_WP, ENTRY, "!"),
        (State.PRESENT | State.SPECIAL, ENTRY, "Z"),
        (State.PRESENT | State.SPECIAL | State.UFFD_WP, ENTRY, "U"),
        (State.PRESENT | State.PROTNONE, ENTRY, "N"),
        (State.PRESENT | State.PROTNONE | State.UFFD_WP, ENTRY, "R"),
        (State.PRESENT, PAGEMAP, "P?"),
        (State.PRESENT | State.UFFD_WP, PAGEMAP, "U?"),
        (State.PRESENT | State.WRITABLE, PAGEMAP, "P?"),  # an unknown bit does not count
        (State.SWAPPED, PAGEMAP, "S"),
        (State.SWAPPED | State.UFFD_WP, PAGEMAP, "SU"),
        (State.MARKER | State.UFFD_WP, ALL, "M"),
        (State.MARKER | State.POISON | State.UFFD_WP, ALL, "X"),
        (State.MARKER | State.GUARD, ALL, "G"),
        (State(0), State.PRESENT | State.UFFD_WP, "·?"),
        (State.UFFD_WP, State.PRESENT | State.UFFD_WP, "M?"),
        (State(0), State(0), "?"),
    ],
)
def test_each_state_has_its_letter(states, known, letter):
    assert cell_style(states, known).letter == letter


@given(st.lists(st.tuples(st.integers(0, int(ALL)), st.integers(0, int(ALL))), max_size=30))
def test_an_array_has_the_styles_of_its_pages(pages):
    states = np.array([states & known for states, known in pages], dtype=np.uint32)
    known = np.array([known for _, known in pages], dtype=np.uint32)
    styles, which = cell_styles(states, known)
    assert [styles[index] for index in which] == [cell_style(*page) for page in pages]
    assert [style.letter for style in styles] == [
        letter for letter in CELL_STYLES if letter in {style.letter for style in styles}
    ]
