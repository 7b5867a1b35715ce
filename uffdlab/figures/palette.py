"""How a page's state looks: a letter, a colour, a hatch and words; the same in figures and widgets.

Colours are Okabe and Ito's, which colour-blind readers can tell apart, or lighter shades of them; letters and hatches
carry the same without colour.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from uffdlab.pte import State

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LOOKS", "MIXED", "Look", "look_of", "looks_of"]

_BLACK, _WHITE = "#000000", "#FFFFFF"


class Look(NamedTuple):
    """How one kind of state is drawn."""

    letter: str
    """One or two characters; the second is a question mark where part of it is unknown."""
    words: str
    colour: str
    ink: str
    """Colour of the letter; at least 4.5 : 1 against `colour`."""
    hatch: str = ""
    """In matplotlib's notation."""


LOOKS = {
    look.letter: look
    for look in (
        Look("·", "absent", "#F1F1F1", _BLACK),
        Look("P", "present, not writable", "#A9DAF5", _BLACK),
        Look("U", "present, not writable, uffd-wp", "#E69F00", _BLACK, "////"),
        Look("W", "present, writable", "#0072B2", _WHITE),
        Look("!", "writable in spite of uffd-wp", "#F0E442", _BLACK, "xxxx"),
        Look("P?", "present, writable unknown", "#A9DAF5", _BLACK, "...."),
        Look("U?", "present, uffd-wp, writable unknown", "#E69F00", _BLACK, "////"),
        Look("Z", "zero page or device memory, not writable", "#CFE8D5", _BLACK, "----"),
        Look("N", "present without access (PROT_NONE)", "#BBBBBB", _BLACK, "\\\\\\\\"),
        Look("R", "present without access, uffd bit (RWP, or PROT_NONE and uffd-wp)", "#E69F00", _BLACK, "\\\\\\\\"),
        Look("M", "absent, marker remembers uffd-wp", "#DFA9C6", _BLACK, "////"),
        Look("S", "swapped", "#3DB68F", _BLACK),
        Look("SU", "swapped, uffd-wp", "#3DB68F", _BLACK, "////"),
        Look("X", "poison marker", "#D55E00", _BLACK, "xxxx"),
        Look("G", "guard marker", "#000000", _WHITE),
        Look("·?", "not present, nothing more known", "#F1F1F1", _BLACK, "...."),
        Look("M?", "not present, uffd-wp, nothing more known", "#DFA9C6", _BLACK, "////"),
        Look("?", "unknown", "#FFFFFF", _BLACK, "...."),
    )
}
"""Every look by its letter, in the order of the legend."""

MIXED = Look("*", "pages in several states", "#D8CCE6", _BLACK)
"""A cell that stands for many pages which are not alike."""

_NOTHING_MORE = State.SWAPPED | State.MARKER


def look_of(states: int, known: int) -> Look:
    """Choose the look for one page; what the entry does to a touch comes first."""
    state, sure = State(int(states) & int(known)), State(int(known))
    if State.PRESENT not in sure:
        letter = "?"
    elif State.PRESENT in state:
        letter = _present(state, sure)
    elif State.POISON in state:
        letter = "X"
    elif State.GUARD in state:
        letter = "G"
    elif State.SWAPPED in state:
        letter = "SU" if State.UFFD_WP in state else "S"
    elif State.MARKER in state:
        letter = "M" if State.UFFD_WP in state else "?"
    elif _NOTHING_MORE in sure:
        letter = "·"
    else:
        letter = "M?" if State.UFFD_WP in state else "·?"
    return LOOKS[letter]


def _present(state: State, sure: State) -> str:
    uffd = State.UFFD_WP in state
    if State.PROTNONE in state:
        return "R" if uffd else "N"
    if State.WRITABLE not in sure:
        return "U?" if uffd else "P?"
    if State.WRITABLE in state:
        return "!" if uffd else "W"
    if uffd:
        return "U"
    return "Z" if State.SPECIAL in state else "P"


def looks_of(states: NDArray[np.uint32], known: NDArray[np.uint32]) -> tuple[list[Look], NDArray[np.intp]]:
    """Choose the look for each page: the looks that occur, in legend order, and for each page its index among them."""
    keys = states.astype(np.uint64) << np.uint64(32) | known
    kinds, which = np.unique(keys, return_inverse=True)
    chosen = [look_of(key >> 32, key & 0xFFFF_FFFF).letter for key in kinds.tolist()]
    occurring = [letter for letter in LOOKS if letter in chosen]
    index = np.array([occurring.index(letter) for letter in chosen], dtype=np.intp)
    return [LOOKS[letter] for letter in occurring], index[which.reshape(-1)]
