"""What a model knows about one page, and how it is compared with what a witness reports."""

from __future__ import annotations

from dataclasses import dataclass

from uffdlab.uapi import RegisterMode

__all__ = ["ExpectedPage", "ObservedPage"]

_NOTHING = RegisterMode(0)


@dataclass(frozen=True)
class ObservedPage:
    """What a witness saw of a page; None is what it cannot know."""

    present: bool
    wp: bool
    file: bool | None = None
    swapped: bool | None = None
    writable: bool | None = None


@dataclass
class ExpectedPage:
    """What should be so of one page-table entry.

    Attributes
    ----------
    mapped : bool or None
        It maps a page.  None: the kernel may have done either, so the next look decides.
    anon : bool or None
        Its page is of this mapping alone (anonymous), mapped or swapped out; else it is the file's.  None as above.
    content : int
        The first 8 bytes of its own page.
    wp : bool
        It has the uffd-wp bit: the entry, the swap entry, or the marker in its place.
    poisoned : bool
        A poison marker is in its place.
    modes : RegisterMode
        What it is registered for.
    writable : bool
        The mapping allows writes.
    may_write : bool or None
        The entry's writable bit; None where the kernel may choose, as it may set it at the next write only.
    exclusive : bool
        The page is known not to be shared with an earlier child; UFFDIO_MOVE refuses it otherwise.
    """

    mapped: bool | None = False
    anon: bool | None = False
    content: int = 0
    zero: bool = False
    wp: bool = False
    poisoned: bool = False
    modes: RegisterMode = _NOTHING
    writable: bool = True
    may_write: bool | None = None
    exclusive: bool = True

    @property
    def entry(self) -> bool:
        """A page is behind the entry, mapped or swapped out."""
        return bool(self.mapped or self.anon)

    def map_page(self, *, anon: bool, content: int = 0, wp: bool = False, may_write: bool | None = None) -> None:
        """Map a page, in place of whatever marker was there."""
        self.mapped, self.anon, self.content, self.wp, self.poisoned = True, anon, content, wp, False
        self.zero = False
        self.may_write = False if wp or not self.writable else may_write
        self.exclusive = True

    def unmap(self) -> None:
        """Map nothing any more; a mark of write protection and poison are another matter."""
        self.mapped = self.anon = False
        self.may_write = None
        self._forget_rwp()

    def maybe_mapped(self) -> None:
        """Leave it to the next look whether a page is mapped."""
        self.mapped, self.may_write = None, None

    def _forget_rwp(self) -> None:
        if self.modes & RegisterMode.RWP:
            self.wp = False  # no marker stands for it

    def agrees(self, seen: ObservedPage) -> bool:
        """Compare the page as seen with this model of it, and adopt what the kernel may choose."""
        if self.mapped is None:
            self.mapped = seen.present
        if self.anon is None:
            self.anon = seen.present and not seen.file
        if not self.entry:
            self._forget_rwp()
        as_mapped = (seen.present, seen.wp) == (self.mapped, self.wp)
        as_file = seen.file in (None, self.mapped and not self.anon) or not seen.present
        as_swap = seen.swapped in (None, self.anon and not self.mapped)
        return as_mapped and as_file and as_swap and self._as_writable(seen)

    def _as_writable(self, seen: ObservedPage) -> bool:
        if not seen.present or seen.writable is None or (self.wp and self.modes & RegisterMode.RWP):
            return True
        if self.may_write is None:
            return not (seen.writable and (self.wp or not self.writable))
        return seen.writable == self.may_write
