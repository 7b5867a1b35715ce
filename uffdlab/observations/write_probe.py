"""WriteProbe: what a write to a page does, found by making one that leaves the content as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from uffdlab.pte import State

if TYPE_CHECKING:
    from uffdlab.observations.snapshot import Difference, Snapshot
    from uffdlab.uapi.messages import Fault

__all__ = ["WriteProbe"]


@dataclass(frozen=True)
class WriteProbe:
    """What came of a write that changes no content: an atomic addition of 0, on a thread of its own.

    Attributes
    ----------
    page : int
        Number of the page in its mapping.
    trapped : bool
        A userfaultfd was told; the write waited until it was withdrawn (or a handler let it go on).
    fault : Fault or None
        What the userfaultfd was told.
    refused : str
        The signal by which the kernel refused the write, SIGBUS or SIGSEGV; empty if it did not.
    before, after : Snapshot
        The page before and after, by the best witness.
    """

    page: int
    trapped: bool
    fault: Fault | None
    refused: str
    before: Snapshot
    after: Snapshot

    @property
    def went_through(self) -> bool:
        """The write was made without a userfaultfd or a signal."""
        return not self.trapped and not self.refused

    @property
    def difference(self) -> Difference:
        """What changed: of a write that trapped and was withdrawn, nothing; else what the write itself did."""
        return self.after - self.before

    @property
    def copied(self) -> bool | None:
        """A copy on write: the page lies in another page frame now, or is the file's no more.

        None where nobody can tell: an unprivileged user is shown no page frames by pagemap, see proc(5).
        """
        was_file, is_own = self.before.has(State.PRESENT | State.FILE)[0], self.after.lacks(State.FILE)[0]
        if self.difference.moved[0] or (was_file and is_own and self.after.has(State.PRESENT)[0]):
            return True
        both = self.before.has(State.PRESENT)[0] and self.after.has(State.PRESENT)[0]
        unseen = self.before.frames()[0] < 0 or self.after.frames()[0] < 0
        return None if both and unseen else False

    def contradicts(self, seen: Snapshot) -> State:
        """Return the bits of `seen`, taken of this page before, that cannot be true after what happened.

        Present, writable and not PROT_NONE means that the processor lets the write through, whatever userfaultfd
        thinks; write-protected by userfaultfd and not writable means that it may not go through.
        """
        if seen.has(State.PRESENT | State.WRITABLE)[0] and seen.lacks(State.PROTNONE)[0] and not self.went_through:
            return State.WRITABLE
        closed = seen.has(State.PRESENT | State.UFFD_WP)[0] and seen.lacks(State.WRITABLE)[0]
        still = self.after.has(State.UFFD_WP)[0] and self.after.lacks(State.WRITABLE)[0]
        return State.WRITABLE if closed and still and self.went_through else State(0)

    def __str__(self) -> str:
        if self.refused:
            end = f"was refused with {self.refused}"
        elif self.trapped:
            end = f"trapped ({self.fault!r})" if self.fault else "trapped"
        else:
            end = "went through"
        change = str(self.difference) if self.difference else "the page is as before"
        return f"a write to page {self.page} {end}; {change}"
