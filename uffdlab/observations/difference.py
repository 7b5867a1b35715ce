"""Difference: what changed between two snapshots of the same pages."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from uffdlab import pte
from uffdlab.errors import UsageError
from uffdlab.observations.page_text import html_table, page_ranges

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uffdlab.observations.snapshot import Snapshot

__all__ = ["Change", "Difference"]


class Change(NamedTuple):
    """Pages that changed in the same way.

    ``pages`` are their numbers in the region; ``moved`` tells that another page frame is behind them.
    """

    pages: tuple[int, ...]
    before: str
    after: str
    moved: bool = False

    def __str__(self) -> str:
        count = "1 page" if len(self.pages) == 1 else f"{len(self.pages)} pages"
        moved = " (another page frame)" if self.moved else ""
        return f"{count} ({page_ranges(self.pages)}): {self.before} → {self.after}{moved}"


@dataclass(frozen=True, eq=False, repr=False)
class Difference:
    """What changed between two snapshots of the same pages: ``after - before``.

    Only bits that both know are compared.

    Raises
    ------
    UsageError
        If the two are not of the same pages.
    """

    before: Snapshot
    after: Snapshot

    def __post_init__(self) -> None:
        one, other = ((s.region, s.start, s.page_size, s.first, len(s)) for s in (self.before, self.after))
        if one != other:
            raise UsageError(
                f"these two snapshots are of different pages: {self.before!r} starts at {self.before.start:#x}, "
                f"{self.after!r} at {self.after.start:#x}; take both of the same region or range"
            )

    @cached_property
    def bits(self) -> NDArray[np.uint32]:
        """The bits that changed, of those both know; uint32, shape (n,)."""
        both = self.before.known & self.after.known
        return (self.before.states ^ self.after.states) & both

    @cached_property
    def moved(self) -> NDArray[np.bool_]:
        """Where a page is mapped before and after, but in another frame; bool, shape (n,)."""
        before, after = self.before.frames(), self.after.frames()
        moved: NDArray[np.bool_] = (before >= 0) & (after >= 0) & (before != after)
        return moved

    @cached_property
    def changed(self) -> NDArray[np.bool_]:
        """Where anything changed; bool, shape (n,)."""
        changed: NDArray[np.bool_] = (self.bits != 0) | self.moved
        return changed

    def __bool__(self) -> bool:
        return bool(self.changed.any())

    def __len__(self) -> int:
        """Give the number of pages that changed."""
        return int(self.changed.sum())

    def changes(self) -> list[Change]:
        """Group the pages that changed by how they did, in the order of their first page."""
        both = self.before.known & self.after.known
        keys = np.stack(
            [
                self.before.states.astype(np.int64),
                self.before.known.astype(np.int64),
                self.after.states.astype(np.int64),
                self.after.known.astype(np.int64),
                self.moved.astype(np.int64),
                both.astype(np.int64),
            ],
            axis=1,
        )
        indices = np.flatnonzero(self.changed)
        kinds, which = np.unique(keys[indices], axis=0, return_inverse=True)
        which = which.reshape(-1)
        found = []
        for number, (before, before_known, after, after_known, moved, _) in enumerate(kinds.tolist()):
            pages = tuple((indices[which == number] + self.before.first).tolist())
            found.append(
                Change(pages, pte.describe(before, before_known), pte.describe(after, after_known), bool(moved))
            )
        return sorted(found)

    def __str__(self) -> str:
        lines = [str(change) for change in self.changes()]
        same = len(self.before) - len(self)
        if not lines:
            return f"no change on {same} pages"
        return "\n".join([*lines, *([f"{same} pages unchanged"] if same else [])])

    def __repr__(self) -> str:
        return f"<Difference of {len(self)} among {len(self.before)} pages of {self.before.region}>"

    def _repr_html_(self) -> str:
        rows = [
            (str(len(c.pages)), page_ranges(c.pages), c.before, c.after + (" (another page frame)" if c.moved else ""))
            for c in self.changes()
        ]
        same = len(self.before) - len(self)
        title = f"{self.before.region}: what changed"
        return html_table(title, ("pages", "numbers", "before", "after"), rows, f"{same} pages unchanged")

    def to_dict(self) -> dict[str, Any]:
        """Give the changes, and both snapshots, as plain data for JSON."""
        return {
            "changes": [
                {"pages": list(c.pages), "before": c.before, "after": c.after, "moved": c.moved} for c in self.changes()
            ],
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
        }
