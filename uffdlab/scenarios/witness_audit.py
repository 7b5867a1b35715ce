"""Compare every witness with the others, over kinds of memory and modes; and falsify entries on purpose."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from uffdlab.errors import IoctlError, UsageError
from uffdlab.observations.cross_examination import CrossExamination
from uffdlab.pte import FORMATS, State

if TYPE_CHECKING:
    from uffdlab.lab import Lab
    from uffdlab.observations.snapshot import Snapshot
    from uffdlab.observations.write_probe import WriteProbe
    from uffdlab.target.region import Region
    from uffdlab.target.userfaultfd import Userfaultfd

__all__ = ["FALSIFIED_BITS", "MEMORIES", "MODES", "Audit", "examine", "falsify", "table"]

MEMORIES = (
    "anon", "anon-shared", "shmem", "shmem-private", "tmpfs", "thp", "shmem-thp", "hugetlb", "hugetlb-private",
)  # fmt: skip
MODES = (("missing",), ("minor",), ("wp",), ("minor", "wp"))
_PAGES = 8

#: For each format, the bits of the raw entry that are inverted, as a decoder with a wrong bit number would read them.
FALSIFIED_BITS = {
    name: {state: form.bits[state] for state in (State.PRESENT, State.WRITABLE, State.UFFD_WP) if state in form.bits}
    for name, form in FORMATS.items()
}


@dataclass(frozen=True)
class Audit:
    """One region, examined.

    Attributes
    ----------
    kernel, memory, mode : str
    pages : int
        How many pages were read.
    witnesses : tuple of str
    compared : int
        Pairs of page and bit that at least two witnesses know.
    disagreements : tuple of str
    refused : str
        Why this kernel cannot register this memory for this mode; empty if it can.
    falsified, caught : int
        The number of entries that were falsified, and the number of these that the examination found.
    """

    kernel: str
    memory: str
    mode: str
    pages: int = 0
    witnesses: tuple[str, ...] = ()
    compared: int = 0
    disagreements: tuple[str, ...] = ()
    refused: str = ""
    falsified: int = 0
    caught: int = 0


def examine(lab: Lab, memories: Iterable[str] = MEMORIES, modes: Iterable[tuple[str, ...]] = MODES) -> Iterator[Audit]:
    """Make pages in every state that a kind of memory and a mode allow, and compare the witnesses."""
    for memory in memories:
        for mode in modes:
            yield _case(lab, memory, mode)


def _case(lab: Lab, memory: str, mode: tuple[str, ...]) -> Audit:
    name = "+".join(mode)
    region = _map(lab, memory)
    uffd = lab.userfaultfd()
    try:
        uffd.register(region, *mode)
        _into_all_states(region, uffd, mode)
        examined = lab.cross_examine(region[: min(region.pages, 1024)])
        probes = [lab.probe(region[page]) for page in range(_PAGES)]
        examined_again = CrossExamination(examined.snapshots, probes)
        falsified, caught = falsify(examined.snapshots, probes)
    except IoctlError as error:
        return Audit(lab.kernel, memory, name, refused=f"{error.call}: errno {error.errno}")
    finally:
        uffd.close()
        region.unmap()
    return Audit(
        kernel=lab.kernel,
        memory=memory,
        mode=name,
        pages=len(examined.snapshots[0]),
        witnesses=(*(each.witness for each in examined.snapshots), "write probe"),
        compared=sum(examined.compared.values()),
        disagreements=tuple(map(str, examined_again.disagreements)),
        falsified=falsified,
        caught=caught,
    )


def _map(lab: Lab, memory: str) -> Region:
    size = 1024 * 4096 if memory.endswith("thp") else 0
    region = lab.map(size=size, memory=memory) if size else lab.map(pages=_PAGES, memory=memory)
    # Pages 0 to 3 are touched before the registration, so that some pages are mapped in any mode; the others are not.
    with suppress(UsageError):  # memory without a file has no alias
        region.alias.fill()
    if memory.endswith("thp"):
        region.fill()
    else:
        region[:2].fill()
        for page in (2, 3):
            region.read(page).result()
        region[4:].madvise("dontneed", check=False)  # the kernel maps the neighbours of what is read
    return region


def _into_all_states(region: Region, uffd: Userfaultfd, mode: tuple[str, ...]) -> None:
    if "minor" in mode:
        uffd.continue_(region[4], check=False)
    if "missing" in mode:
        uffd.copy(region[5], bytes(8), check=False)
    if "wp" in mode:
        for page in (1, 3, 6):  # a written page, one that was only read, and an absent one
            uffd.writeprotect(region[page])


def falsify(snapshots: list[Snapshot], probes: Sequence[WriteProbe] = ()) -> tuple[int, int]:
    """Falsify one bit of one page of one snapshot at a time; return how many entries were falsified, how many found.

    Only those are counted that change a decoded state and that can be found: another witness knows the bit, or a
    write probe was trapped by a userfaultfd.
    """
    falsified = caught = 0
    for number, original in enumerate(snapshots):
        others = [*snapshots[:number], *snapshots[number + 1 :]]
        for state, bit in FALSIFIED_BITS.get(original.form, {}).items():
            for page in np.flatnonzero(original.has(State.PRESENT))[:_PAGES].tolist():
                changed = _falsified(original, page, bit)
                known_elsewhere = any(other.knows(state)[page] for other in others)
                trapped = any(probe.page == original.first + page and probe.trapped for probe in probes)
                if changed.has(state)[page] == original.has(state)[page] or not (
                    known_elsewhere or (state == State.WRITABLE and trapped)
                ):
                    continue
                falsified += 1
                found = CrossExamination([changed, *others], probes).disagreements
                caught += any(each.page == original.first + page for each in found)
    return falsified, caught


def _falsified(original: Snapshot, page: int, bit: int) -> Snapshot:
    entries = original.entries.copy()
    entries[page] ^= np.uint64(1 << bit)
    return replace(original, entries=entries)


def table(cases: Iterable[Audit]) -> str:
    """Return the cases as a Markdown table, with a line for each kernel and kind of memory."""
    rows: dict[tuple[str, str], dict[str, Audit]] = {}
    for case in cases:
        rows.setdefault((case.kernel, case.memory), {})[case.mode] = case
    modes = ["+".join(mode) for mode in MODES]
    lines = [f"| kernel | memory | {' | '.join(modes)} | witnesses |", "|---" * (len(modes) + 3) + "|"]
    for (kernel, memory), found in rows.items():
        cells = [_cell(found.get(mode)) for mode in modes]
        who = next((", ".join(each.witnesses) for each in found.values() if each.witnesses), "")
        lines.append(f"| {kernel} | {memory} | {' | '.join(cells)} | {who} |")
    return "\n".join(lines)


def _cell(case: Audit | None) -> str:
    if case is None:
        return ""
    return (
        "cannot" if case.refused else f"{len(case.disagreements)} of {case.compared:,}; {case.caught}/{case.falsified}"
    )
