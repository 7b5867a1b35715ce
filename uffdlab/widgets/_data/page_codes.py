"""Pages as codes: one small number for each page, and a table of how each number is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from uffdlab import pte
from uffdlab.figures.palette import MIXED, CellStyle, cell_style
from uffdlab.pte import State

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uffdlab.observations.snapshot import Snapshot

_WIDTH = np.uint64(len(State))
_MASK = (1 << len(State)) - 1


def style_data(style: CellStyle) -> dict[str, str]:
    """Return a style in the form that the JavaScript expects."""
    return {
        "letter": style.letter,
        "text": style.text,
        "colour": style.colour,
        "ink": style.ink,
        "hatch": style.hatch,
    }


MIXED_DATA = style_data(MIXED)


class PageCodes:
    """The kinds of entry seen so far, numbered in order of first appearance."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self.table: list[dict[str, Any]] = []

    def codes(self, snapshot: Snapshot) -> NDArray[np.uint32]:
        """Return the number of each page's kind; uint32, shape (n,)."""
        # The level determines the width of a huge page.  For an absent page it only says where the walk ended.
        levels = np.where(snapshot.states & np.uint32(State.HUGE), snapshot.levels, np.uint8(0)).astype(np.uint64)
        keys = (
            snapshot.states.astype(np.uint64)
            | snapshot.known.astype(np.uint64) << _WIDTH
            | levels << np.uint64(2 * len(State))
        )
        # Neighbours are mostly equal: sort only the first page of each run.
        starts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1]))) if keys.size else np.arange(0)
        kinds, which = np.unique(keys[starts], return_inverse=True)
        numbers = np.array([self._number(key, snapshot.page_size) for key in kinds.tolist()], dtype=np.uint32)
        lengths = np.diff(np.append(starts, keys.size))
        return np.repeat(numbers[which.reshape(-1)], lengths) if keys.size else np.zeros(0, np.uint32)

    def _number(self, key: int, page_size: int) -> int:
        if key not in self._numbers:
            self._numbers[key] = len(self.table)
            states, known, level = key & _MASK, key >> len(State) & _MASK, key >> 2 * len(State)
            spanned = 4096 << 9 * (level - 1) if states & State.HUGE and level > 1 else page_size
            self.table.append(
                {
                    **style_data(cell_style(states, known)),
                    "state": pte.describe(states, known),
                    "span": max(1, spanned // page_size),
                }
            )
        return self._numbers[key]

    def pack(self, codes: NDArray[np.uint32]) -> bytes:
        """Return the codes with as few bytes for each page as possible: one or two."""
        return codes.astype(np.uint8 if len(self.table) <= 256 else "<u2").tobytes()
