"""Change: pages that changed in the same way, found in the states before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from uffdlab import pte
from uffdlab.observations.page_text import page_ranges
from uffdlab.pte import State

if TYPE_CHECKING:
    from numpy.typing import NDArray

    StatesAndKnown = tuple[NDArray[np.uint32], NDArray[np.uint32]]

__all__ = ["Change", "group_changes"]

# Whether a page was read or written matters less than how it is mapped.
_BESIDE_THE_MAPPING = State.DIRTY | State.ACCESSED | State.SOFT_DIRTY | State.EXCLUSIVE | State.FILE


class Change(NamedTuple):
    """Pages that changed in the same way.

    ``pages`` are their numbers in the region; ``moved`` is whether they have another page frame; ``bits`` are the bits
    that changed, as text, if the pages are present before and after: ``now writable, no longer uffd-wp``; ``brief`` is
    the change without bits such as *dirty*, if the pages were mapped or unmapped and no other change has the same one.
    """

    pages: tuple[int, ...]
    before: str
    after: str
    moved: bool = False
    bits: str = ""
    brief: str = ""

    def __str__(self) -> str:
        count = "1 page" if len(self.pages) == 1 else f"{len(self.pages)} pages"
        moved = " (another page frame)" if self.moved else ""
        what = self.bits or self.brief or f"{self.before} → {self.after}"
        return f"{count} ({page_ranges(self.pages)}): {what}{moved}"


def group_changes(
    changed: NDArray[np.bool_],
    before: StatesAndKnown,
    after: StatesAndKnown,
    moved: NDArray[np.bool_],
    *,
    first: int,
) -> list[Change]:
    """Group the changed pages by their change, in the order of the first page.

    Parameters
    ----------
    changed : ndarray of bool, shape (n,)
        The pages to group.
    before, after : (ndarray of uint32, ndarray of uint32), shape (n,) each
        The bits that are set, and those that are known.
    moved : ndarray of bool, shape (n,)
        The pages that have another page frame.
    first : int
        The number of the first page in its region.
    """
    keys = np.stack([each.astype(np.int64) for each in (*before, *after, moved)], axis=1)
    indices = np.flatnonzero(changed)
    kinds, which = np.unique(keys[indices], axis=0, return_inverse=True)
    which = which.reshape(-1)
    found = []
    rows = kinds.tolist()
    briefs = [_brief(*row[:4]) for row in rows]
    for number, (was, was_known, now, now_known, elsewhere) in enumerate(rows):
        pages = tuple((indices[which == number] + first).tolist())
        texts = pte.describe(was, was_known), pte.describe(now, now_known)
        bits = _bits(was & was_known, now & now_known, was_known & now_known)
        brief = briefs[number] if briefs.count(briefs[number]) == 1 else ""
        found.append(Change(pages, *texts, bool(elsewhere), bits, brief))
    return sorted(found)


def _brief(was: int, was_known: int, now: int, now_known: int) -> str:
    # Empty unless the pages were mapped, or unmapped.
    if not (was & was_known ^ now & now_known) & State.PRESENT:
        return ""
    was, now = was & ~_BESIDE_THE_MAPPING, now & ~_BESIDE_THE_MAPPING
    return f"{pte.describe(was, was_known)} → {pte.describe(now, now_known)}"


def _bits(was: int, now: int, known: int) -> str:
    if not was & now & State.PRESENT:
        return ""
    changed = (was ^ now) & known
    states = [state for state in State if state & changed]
    return ", ".join(f"{'now' if state & now else 'no longer'} {pte.state_name(state)}" for state in states)
