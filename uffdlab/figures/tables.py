"""Tables of raw entries and of their bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from uffdlab import pte
from uffdlab.arguments import checked_function, must_be
from uffdlab.errors import UsageError
from uffdlab.figures.titles import SNAPSHOT, what, where
from uffdlab.observations.html_table import html_table
from uffdlab.observations.snapshot import Snapshot
from uffdlab.pte import State

if TYPE_CHECKING:
    from collections.abc import Iterable

_TABLE_ROWS = 16


class Table(NamedTuple):
    """A table as data. A notebook shows it as HTML with header cells; ``str()`` returns it as text."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def _repr_html_(self) -> str:
        return html_table(self.title, self.heads, self.rows, self.note)

    def __str__(self) -> str:
        columns = list(zip(self.heads, *self.rows, strict=True))
        widths = [max(map(len, column)) for column in columns]
        lines = [
            "  ".join(cell.ljust(size) for cell, size in zip(row, widths, strict=True)).rstrip()
            for row in (self.heads, *self.rows)
        ]
        return "\n".join([self.title, *lines, *([self.note] if self.note else [])])


_ALWAYS = (State.PRESENT, State.WRITABLE, State.UFFD_WP, State.DIRTY, State.ACCESSED, State.SOFT_DIRTY)


@checked_function("figures.entry_table", "figures.entry_table(snapshot, [0, 5])")
def entry_table(snapshot: Snapshot, pages: Iterable[int] | None = None) -> Table:
    """Make a table of raw entries and their bits: 1, 0, or ? if this witness cannot know the bit.

    Parameters
    ----------
    snapshot : Snapshot
    pages : iterable of int, optional
        Page numbers in the region. By default the first page of each group, for at most 16 groups.

    Raises
    ------
    UsageError
        The snapshot does not have one of the pages.
    """
    must_be(snapshot, Snapshot, "figures.entry_table()", SNAPSHOT)
    note = ""
    if pages is None:
        groups = snapshot.groups()
        pages = [group.first for group in groups[:_TABLE_ROWS]]
        if len(groups) > _TABLE_ROWS:
            note = f"the first pages of {_TABLE_ROWS} groups of {len(groups)}"
    chosen = [snapshot[_index(snapshot, page)] for page in pages]
    set_somewhere = State(0)
    for page in chosen:
        set_somewhere |= State(int(page.states[0]))
    bits = [*_ALWAYS, *(state for state in State if state not in _ALWAYS and state in set_somewhere)]
    number = pte.FORMATS[snapshot.form].bits
    heads = ["page", "raw entry", "level", "frame"]
    heads += [f"{pte.state_name(bit)} ({number[bit]})" if bit in number else pte.state_name(bit) for bit in bits]
    rows = []
    for page in chosen:
        states, known = int(page.states[0]), int(page.known[0])
        frame = int(page.frames()[0])
        rows.append(
            (
                str(page.first),
                f"{int(page.entries[0]):#018x}",
                pte.LEVEL_NAMES[int(page.levels[0])] or "?",
                f"{frame:#x}" if frame >= 0 else "",
                *(("1" if states & bit else "0") if known & bit else "?" for bit in bits),
                pte.describe(states, known),
            )
        )
    return Table(f"{what(snapshot)}{where(snapshot)}", (*heads, "state"), tuple(rows), note)


@checked_function("figures.entry", "figures.entry(region.snapshot(), 5)")
def entry(snapshot: Snapshot, page: int) -> Table:
    """Make a table of the bits of one page's raw entry: uffd-wp, writable, then the others, highest bit first.

    Raises
    ------
    UsageError
        The snapshot does not have the page.
    """
    must_be(snapshot, Snapshot, "figures.entry()", SNAPSHOT)
    one = snapshot[_index(snapshot, page)]
    entry, level = int(one.entries[0]), int(one.levels[0])
    rows = tuple(
        (
            str(bit.number) if bit.width == 1 else f"{bit.number + bit.width - 1}–{bit.number}",
            bit.name,
            str(bit.value) if bit.width <= 5 else f"{bit.value:#x}",
            bit.meaning,
        )
        for bit in pte.first_the_important(pte.explain(one.form, entry, level))
    )
    title = f"{one.region}, page {page}{where(one)}: {entry:#018x}{pte.level_text(entry, level, one.page_size)}"
    return Table(title, ("bit", "name", "value", "means"), rows, pte.describe(one.states[0], one.known[0]))


def _index(snapshot: Snapshot, page: int) -> int:
    if page not in snapshot.pages:
        last = snapshot.first + len(snapshot) - 1
        raise UsageError(f"this snapshot has pages {snapshot.first} to {last}; there is no page {page}")
    return page - snapshot.first
