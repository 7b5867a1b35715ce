"""CrossExamination: what several witnesses say of the same pages, held against each other bit by bit."""

from __future__ import annotations

import html
import itertools
from dataclasses import dataclass

import numpy as np

from uffdlab.errors import UsageError
from uffdlab.pte import State
from uffdlab.snapshot import Snapshot


@dataclass(frozen=True)
class Disagreement:
    """One bit of one page on which two witnesses differ.

    Attributes
    ----------
    page : int
        Number of the page within the region.
    bit : State
        The bit.
    first, second : str
        The two witnesses.
    first_word, second_word : int
        What each of them read, raw.
    """

    page: int
    bit: State
    first: str
    second: str
    first_word: int
    second_word: int

    def __str__(self) -> str:
        return (
            f"page {self.page}, {self.bit.name}: {self.first} read {self.first_word:#018x}, "
            f"{self.second} read {self.second_word:#018x}"
        )


class CrossExamination:
    """Compares snapshots of the same pages, each by another witness.

    Parameters
    ----------
    snapshots : list of Snapshot
        At least one; all of the same pages.

    Attributes
    ----------
    compared : dict of State to int
        For each bit, on how many pages at least two witnesses knew it.
    disagreements : list of Disagreement
        Every page and bit on which two that know it differ.
    """

    def __init__(self, snapshots: list[Snapshot]) -> None:
        if not snapshots or len({(each.start, each.page_size, len(each)) for each in snapshots}) != 1:
            raise UsageError("witnesses can only be compared over the same pages")
        self.snapshots = snapshots
        self.compared: dict[State, int] = {}
        self.disagreements: list[Disagreement] = []
        for bit in State:
            compared = np.zeros(len(snapshots[0]), dtype=bool)
            for one, other in itertools.combinations(snapshots, 2):
                both = one.knows(bit) & other.knows(bit)
                compared |= both
                differ = both & (((one.states ^ other.states) & np.uint32(bit)) != 0)
                self.disagreements += [
                    Disagreement(
                        one.first + int(at), bit, one.witness, other.witness, int(one.words[at]), int(other.words[at])
                    )
                    for at in np.flatnonzero(differ)
                ]
            if compared.any():
                self.compared[bit] = int(compared.sum())

    @property
    def agree(self) -> bool:
        """No two witnesses differ on a bit that both know."""
        return not self.disagreements

    def rows(self) -> list[tuple[str, str, str]]:
        """Give (bit, pages on which two knew it, pages on which they differ)."""
        return [
            (str(bit.name).lower(), str(count), str(sum(each.bit == bit for each in self.disagreements)))
            for bit, count in self.compared.items()
        ]

    def __str__(self) -> str:
        names = ", ".join(each.witness for each in self.snapshots)
        lines = [f"{'bit':<12} {'compared':>9} {'differ':>7}   ({names})"]
        lines += [f"{bit:<12} {count:>9} {differ:>7}" for bit, count, differ in self.rows()]
        return "\n".join(lines + [str(each) for each in self.disagreements[:20]])

    def _repr_html_(self) -> str:
        names = html.escape(", ".join(each.witness for each in self.snapshots))
        head = "".join(f'<th scope="col">{name}</th>' for name in ("bit", "pages compared", "pages that differ"))
        body = "".join(
            f'<tr><th scope="row">{bit}</th><td>{count}</td><td>{differ}</td></tr>'
            for bit, count, differ in self.rows()
        )
        rest = "".join(f"<p>{html.escape(str(each))}</p>" for each in self.disagreements[:20])
        caption = f"<caption>Witnesses: {names}</caption>"
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{rest}"
