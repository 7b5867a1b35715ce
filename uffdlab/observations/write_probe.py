"""WriteProbe: the effect of a write to a page, found by a write that does not change its content."""

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
    """The effect of a write that changes no content: an atomic addition of 0, on its own thread.

    Attributes
    ----------
    page : int
        The number of the page in its mapping.
    trapped : bool
        A userfaultfd got a message.  The write waited until it was withdrawn, or until a handler resolved its fault.
    fault : Fault or None
        That message.
    refused : str
        The signal with which the kernel refused the write, SIGBUS or SIGSEGV; empty if it was not refused.
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
        """Whether the write was made, without a message or a signal."""
        return not self.trapped and not self.refused

    @property
    def difference(self) -> Difference:
        """What the write changed.  A write that trapped and was withdrawn changes nothing."""
        return self.after - self.before

    @property
    def copied(self) -> bool | None:
        """Whether the page was copied on write: it has another page frame now, or is not a page of the file any more.

        None if that is not known: pagemap shows no page frames to an unprivileged user, see proc(5).
        """
        was_file, is_own = self.before.has(State.PRESENT | State.FILE)[0], self.after.lacks(State.FILE)[0]
        if self.difference.moved[0] or (was_file and is_own and self.after.has(State.PRESENT)[0]):
            return True
        both = self.before.has(State.PRESENT)[0] and self.after.has(State.PRESENT)[0]
        unseen = self.before.frames()[0] < 0 or self.after.frames()[0] < 0
        return None if both and unseen else False

    def contradicts(self, seen: Snapshot) -> State:
        """Return the bits of `seen`, a snapshot of this page before the write, that contradict the effect of the write.

        If the entry is present, writable and not PROT_NONE, the processor makes the write without a fault.  If the
        entry is write-protected by userfaultfd and not writable, the write must not succeed.
        """
        if seen.has(State.PRESENT | State.WRITABLE)[0] and seen.lacks(State.PROTNONE)[0] and not self.went_through:
            return State.WRITABLE
        was_protected = seen.has(State.PRESENT | State.UFFD_WP)[0] and seen.lacks(State.WRITABLE)[0]
        is_protected = self.after.has(State.UFFD_WP)[0] and self.after.lacks(State.WRITABLE)[0]
        return State.WRITABLE if was_protected and is_protected and self.went_through else State(0)

    def __str__(self) -> str:
        if self.refused:
            end = f"was refused with {self.refused}"
        elif self.trapped:
            end = f"trapped ({self.fault!r})" if self.fault else "trapped"
        else:
            end = "succeeded"
        change = str(self.difference) if self.difference else "the page is unchanged"
        return f"a write to page {self.page} {end}; {change}"
