"""Change: pages that changed in the same way, found in the states before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from uffdlab import pte
from uffdlab.observations.page_text import page_ranges

if TYPE_CHECKING:
    from numpy.typing import NDArray

    StatesAndKnown = tuple[NDArray[np.uint32], NDArray[np.uint32]]

__all__ = ["Change", "group_changes"]


class Change(NamedTuple):
    """Pages that changed in the same way.

    ``pages`` are their numbers in the region; ``moved`` is whether they have another page frame; ``bits`` are the bits
    that changed, as text, if the pages are present before and after: ``now writable, no longer uffd-wp``.
    """

    pages: tuple[int, ...]
    before: str
    after: str
    moved: bool = False
    bits: str = ""

    def __str__(self) -> str:
        count = "1 page" if len(self.pages) == 1 else f"{len(self.pages)} pages"
        moved = " (another page frame)" if self.moved else ""
        return f"{count} ({page_ranges(self.pages)}): {self.bits or f'{self.before} → {self.after}'}{moved}"


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
    for number, (was, was_known, now, now_known, elsewhere) in enumerate(kinds.tolist()):
        pages = tuple((indices[which == number] + first).tolist())
        texts = pte.describe(was, was_known), pte.describe(now, now_known)
        found.append(
            Change(pages, *texts, bool(elsewhere), _bits(was & was_known, now & now_known, was_known & now_known))
        )
    return sorted(found)


def _bits(was: int, now: int, known: int) -> str:
    if not was & now & pte.State.PRESENT:
        return ""
    changed = (was ^ now) & known
    states = [state for state in pte.State if state & changed]
    return ", ".join(f"{'now' if state & now else 'no longer'} {pte.state_name(state)}" for state in states)
