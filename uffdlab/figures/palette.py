"""How a page's state is drawn, in figures and in widgets: a letter, a colour, a hatch and a text.

The colours are those of Okabe and Ito, which colour-blind readers can distinguish, or lighter shades of them. Letters
and hatches say the same without colour.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from uffdlab.pte import State

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ABSENT", "CELL_STYLES", "MIXED", "CellStyle", "cell_style", "cell_styles"]

_BLACK, _WHITE = "#000000", "#FFFFFF"
ABSENT = "·"
"""The letter of a page that is absent."""


class CellStyle(NamedTuple):
    """How one kind of state is drawn."""

    letter: str
    """One or two characters. The second one is a question mark if a part of the state is unknown."""
    text: str
    colour: str
    ink: str
    """Colour of the letter. Its contrast with `colour` is at least 4.5 : 1."""
    hatch: str = ""
    """In matplotlib's notation."""


CELL_STYLES = {
    style.letter: style
    for style in (
        CellStyle(ABSENT, "absent", "#F1F1F1", _BLACK),
        CellStyle("P", "present, not writable", "#A9DAF5", _BLACK),
        CellStyle("U", "present, not writable, uffd-wp", "#E69F00", _BLACK, "////"),
        CellStyle("W", "present, writable", "#0072B2", _WHITE),
        CellStyle("!", "writable in spite of uffd-wp", "#F0E442", _BLACK, "xxxx"),
        CellStyle("P?", "present, writable unknown", "#A9DAF5", _BLACK, "...."),
        CellStyle("U?", "present, uffd-wp, writable unknown", "#E69F00", _BLACK, "////"),
        CellStyle("Z", "zero page or device memory, not writable", "#CFE8D5", _BLACK, "----"),
        CellStyle("N", "present without access (PROT_NONE)", "#BBBBBB", _BLACK, "\\\\\\\\"),
        CellStyle(
            "R", "present without access, uffd bit (RWP, or PROT_NONE and uffd-wp)", "#E69F00", _BLACK, "\\\\\\\\"
        ),
        CellStyle("M", "absent, marker remembers uffd-wp", "#DFA9C6", _BLACK, "////"),
        CellStyle("S", "swapped", "#3DB68F", _BLACK),
        CellStyle("SU", "swapped, uffd-wp", "#3DB68F", _BLACK, "////"),
        CellStyle("X", "poison marker", "#D55E00", _BLACK, "xxxx"),
        CellStyle("G", "guard marker", "#000000", _WHITE),
        CellStyle("·?", "not present, nothing more known", "#F1F1F1", _BLACK, "...."),
        CellStyle("M?", "not present, uffd-wp, nothing more known", "#DFA9C6", _BLACK, "////"),
        CellStyle("?", "unknown", "#FFFFFF", _BLACK, "...."),
    )
}
"""Every style by its letter, in the order of the legend."""

MIXED = CellStyle("*", "pages in several states", "#D8CCE6", _BLACK)
"""The style of a cell whose pages have different states."""

_NOTHING_MORE = State.SWAPPED | State.MARKER


def cell_style(states: int, known: int) -> CellStyle:
    """Return the style for one page; what the entry does to a touch comes first."""
    state, known_state = State(int(states) & int(known)), State(int(known))
    if State.PRESENT not in known_state:
        letter = "?"
    elif State.PRESENT in state:
        letter = _present(state, known_state)
    elif State.POISON in state:
        letter = "X"
    elif State.GUARD in state:
        letter = "G"
    elif State.SWAPPED in state:
        letter = "SU" if State.UFFD_WP in state else "S"
    elif State.MARKER in state:
        letter = "M" if State.UFFD_WP in state else "?"
    elif _NOTHING_MORE in known_state:
        letter = "·"
    else:
        letter = "M?" if State.UFFD_WP in state else "·?"
    return CELL_STYLES[letter]


def _present(state: State, known_state: State) -> str:
    uffd = State.UFFD_WP in state
    if State.PROTNONE in state:
        return "R" if uffd else "N"
    if State.WRITABLE not in known_state:
        return "U?" if uffd else "P?"
    if State.WRITABLE in state:
        return "!" if uffd else "W"
    if uffd:
        return "U"
    return "Z" if State.SPECIAL in state else "P"


def cell_styles(states: NDArray[np.uint32], known: NDArray[np.uint32]) -> tuple[list[CellStyle], NDArray[np.intp]]:
    """Return the styles that occur, in the order of the legend, and for each page its index among them."""
    keys = states.astype(np.uint64) << np.uint64(32) | known
    kinds, which = np.unique(keys, return_inverse=True)
    chosen = [cell_style(key >> 32, key & 0xFFFF_FFFF).letter for key in kinds.tolist()]
    occurring = [letter for letter in CELL_STYLES if letter in chosen]
    index = np.array([occurring.index(letter) for letter in chosen], dtype=np.intp)
    return [CELL_STYLES[letter] for letter in occurring], index[which.reshape(-1)]
