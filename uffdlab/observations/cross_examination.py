"""CrossExamination: compare what several witnesses report about the same pages, also with write probes."""

from __future__ import annotations

import html
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from uffdlab.errors import UsageError
from uffdlab.observations.html_table import html_table
from uffdlab.observations.snapshot import Snapshot
from uffdlab.pte import State, state_name

if TYPE_CHECKING:
    from uffdlab.observations.write_probe import WriteProbe

_MAX_SHOWN = 20  # disagreements in a text


@dataclass(frozen=True)
class Disagreement:
    """One bit of one page on which two witnesses differ.

    Attributes
    ----------
    page : int
        The number of the page in the region.
    bit : State
        The bit.
    first, second : str
        The two witnesses.
    first_entry, second_entry : int
        The raw entry that each of them read; for a write probe, the entry after the write.
    """

    page: int
    bit: State
    first: str
    second: str
    first_entry: int
    second_entry: int

    def __str__(self) -> str:
        return (
            f"page {self.page}, {state_name(self.bit)}: {self.first} read {self.first_entry:#018x}, "
            f"{self.second} read {self.second_entry:#018x}"
        )


class CrossExamination:
    """Compares snapshots of the same pages, each from another witness.

    Parameters
    ----------
    snapshots : list of Snapshot
        At least one; all of the same pages.
    probes : sequence of WriteProbe
        Writes to some of these pages, made after the snapshots.

    Attributes
    ----------
    compared : dict of State to int
        For each bit, the number of pages on which at least two witnesses know it.
    disagreements : list of Disagreement
        Every page and bit on which two witnesses that know it differ.
    """

    def __init__(self, snapshots: list[Snapshot], probes: Sequence[WriteProbe] = ()) -> None:
        if not snapshots or len({(each.start, each.page_size, len(each)) for each in snapshots}) != 1:
            raise UsageError("witnesses can only be compared on the same pages")
        self.snapshots = snapshots
        self.probes = list(probes)
        self.compared: dict[State, int] = {}
        self.disagreements: list[Disagreement] = []
        for bit in State:
            compared = np.zeros(len(snapshots[0]), dtype=bool)
            for first, second in itertools.combinations(snapshots, 2):
                both = first.knows(bit) & second.knows(bit)
                compared |= both
                differ = both & (((first.states ^ second.states) & np.uint32(bit)) != 0)
                self.disagreements += [
                    Disagreement(
                        first.first + int(at),
                        bit,
                        first.witness,
                        second.witness,
                        int(first.entries[at]),
                        int(second.entries[at]),
                    )
                    for at in np.flatnonzero(differ)
                ]
            if compared.any():
                self.compared[bit] = int(compared.sum())
        for probe in self.probes:
            for seen in snapshots:
                self._compare_with_probe(probe, seen[probe.page - seen.first])

    def _compare_with_probe(self, probe: WriteProbe, seen: Snapshot) -> None:
        for bit in probe.contradicts(seen):
            self.disagreements.append(
                Disagreement(
                    probe.page, bit, seen.witness, "write probe", int(seen.entries[0]), int(probe.after.entries[0])
                )
            )

    @property
    def agree(self) -> bool:
        """Whether no two witnesses differ on a bit that both know."""
        return not self.disagreements

    def rows(self) -> list[tuple[str, str, str]]:
        """Return for each bit its name, the number of pages on which two know it, and on which they differ."""
        return [
            (state_name(bit), str(count), str(sum(each.bit == bit for each in self.disagreements)))
            for bit, count in self.compared.items()
        ]

    def __str__(self) -> str:
        names = ", ".join([*(each.witness for each in self.snapshots), *(["write probe"] if self.probes else [])])
        lines = [f"{'bit':<12} {'compared':>9} {'differ':>7}   ({names})"]
        lines += [f"{bit:<12} {count:>9} {differ:>7}" for bit, count, differ in self.rows()]
        return "\n".join(lines + [str(each) for each in self.disagreements[:_MAX_SHOWN]])

    def _repr_html_(self) -> str:
        names = ", ".join(each.witness for each in self.snapshots)
        heads = ("bit", "pages compared", "pages that differ")
        rest = "".join(f"<p>{html.escape(str(each))}</p>" for each in self.disagreements[:_MAX_SHOWN])
        return html_table(f"Witnesses: {names}", heads, self.rows(), right=(1, 2)) + rest
