"""PageWalk: the entries from the top page table to one page; PageWalks: several of them side by side."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from uffdlab import pte
from uffdlab.bulk.entries import Step
from uffdlab.observations.html_table import Html, html_table
from uffdlab.pte import State

__all__ = ["PageWalk", "PageWalkEntry", "PageWalks"]


class PageWalkEntry(NamedTuple):
    """One entry of a walk, with its meaning."""

    level: int
    """5 = PGD (4 with four levels), 4 = P4D, 3 = PUD, 2 = PMD, 1 = PTE."""
    name: str
    table: int
    """The page frame of its table."""
    slot: int
    value: int
    meaning: str


class PageWalk:
    """The entries from the top page table to the page at one address.

    Attributes
    ----------
    address : int
        The address in the target.
    what : str
        What the address belongs to: ``page 3 of region-1``.
    entries : list of PageWalkEntry
        From the top down; the walk ends at the last one.
    levels : int
        4 or 5.
    states, known : State
        The state in the last entry.
    frame : int or None
        The page frame (4 KiB units) of the page at `address`; None if none is mapped.
    kernel : str
        The name of the kernel.
    """

    def __init__(
        self, address: int, steps: Sequence[Step], *, what: str = "", kernel: str = "", tracks_soft_dirty: bool = True
    ) -> None:
        last = steps[-1]
        states, known = pte.decode_x86([last.entry], [last.level], tracks_soft_dirty=tracks_soft_dirty)
        frame = int(pte.frames_x86([last.entry], [last.level])[0])
        if frame >= 0:
            frame += address >> 12 & (1 << 9 * (last.level - 1)) - 1
        self.address = address
        self.what = what
        self.kernel = kernel
        self.levels = steps[0].level
        self.states = State(int(states[0]))
        self.known = State(int(known[0]))
        self.frame = frame if frame >= 0 else None
        self.entries = [
            PageWalkEntry(s.level, self._name(s.level), s.table, s.slot, s.entry, self._meaning(s, last=s is last))
            for s in steps
        ]

    @property
    def leaf(self) -> PageWalkEntry:
        """The entry at which the walk ends."""
        return self.entries[-1]

    @property
    def text(self) -> str:
        """The meaning of the last entry, as text."""
        return pte.describe(self.states, self.known)

    def bits(self) -> list[pte.Bit]:
        """Return the fields of the last entry, highest bit first."""
        return pte.explain_x86(self.leaf.value, self.leaf.level)

    def _name(self, level: int) -> str:
        return "PGD" if level == self.levels else pte.LEVEL_NAMES[level]

    def _meaning(self, step: Step, *, last: bool) -> str:
        if last:
            above = step.level > 1
            none = not self.states & (State.PRESENT | State.SWAPPED | State.MARKER) and not step.entry
            if above and none:
                return f"empty: no {pte.LEVEL_NAMES[step.level - 1]} table, nothing is mapped here"
            return self.text if self.frame is None else f"{self.text}; page frame {self.frame:#x}"
        return pte.x86.describe_table(step.entry, step.level)

    # --- display

    @property
    def title(self) -> str:
        """The address, what it belongs to, and the number of levels."""
        what = f" ({self.what})" if self.what else ""
        kernel = f" on {self.kernel}" if self.kernel else ""
        return f"{self.address:#x}{what}{kernel}, {self.levels} levels"

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Return for each entry its level, position (frame of the table and index), raw value and meaning."""
        return [(e.name, f"{e.table:#x}[{e.slot}]", f"{e.value:#018x}", e.meaning) for e in self.entries]

    def __str__(self) -> str:
        return "\n".join([self.title, *_aligned([_HEADS, *self.rows()])])

    def __repr__(self) -> str:
        return f"<PageWalk to {self.title}: {self.text}>"

    def _repr_html_(self) -> str:
        return PageWalks([self])._repr_html_()


_HEADS = ("level", "table[index]", "entry", "means")


class PageWalks(list[PageWalk]):
    """Walks side by side, for instance to the same page through two mappings."""

    @property
    def same_frame(self) -> bool:
        """Whether all of them end at the same page frame, so that it is one page."""
        return len({walk.frame for walk in self}) == 1 and self[0].frame is not None

    @property
    def text(self) -> str:
        """The result as a sentence."""
        if len(self) < 2:
            return ""
        frames = ["none" if walk.frame is None else f"{walk.frame:#x}" for walk in self]
        if self.same_frame:
            return f"The same page: all end at page frame {frames[0]}."
        mapped = {walk.frame for walk in self if walk.frame is not None}
        if len(mapped) == 1:
            return f"Mapped in one of them only, at page frame {next(iter(mapped)):#x}."
        return f"Not the same page: page frames {', '.join(frames)}." if mapped else "Mapped in none of them."

    def __str__(self) -> str:
        return "\n\n".join([*(str(walk) for walk in self), *([self.text] if self.text else [])])

    def _repr_html_(self) -> str:
        names = list(dict.fromkeys(name for walk in self for name in (entry.name for entry in walk.entries)))
        order = {name: number for number, name in enumerate(("PGD", "P4D", "PUD", "PMD", "PTE"))}
        names.sort(key=lambda name: order[name])
        heads = ("level", *(walk.title for walk in self))
        rows = ((name, *(_cell(walk, name) for walk in self)) for name in names)
        return html_table("Page tables, from the top to the page", heads, rows, self.text)


def _cell(walk: PageWalk, name: str) -> str:
    for level, place, value, meaning in walk.rows():
        if level == name:
            return Html(f"<small>{place}</small><br><code>{value}</code><br>{html.escape(meaning)}")
    return ""


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = np.array([[len(cell) for cell in row] for row in rows]).max(axis=0).tolist()
    return ["  ".join(cell.ljust(size) for cell, size in zip(row, widths, strict=True)).rstrip() for row in rows]
