"""ExpectedPage: the state of one page in the model; ObservedPage: its state as a witness reports it."""

from __future__ import annotations

from dataclasses import dataclass

from uffdlab.uapi import RegisterMode

__all__ = ["ExpectedPage", "ObservedPage"]

_NOTHING = RegisterMode(0)


@dataclass(frozen=True)
class ObservedPage:
    """The state of a page as a witness reports it; None if the witness does not know it."""

    present: bool
    wp: bool
    file: bool | None = None
    swapped: bool | None = None
    writable: bool | None = None


@dataclass
class ExpectedPage:
    """The expected state of one page-table entry.

    Attributes
    ----------
    mapped : bool or None
        Whether it maps a page.  None: the kernel may choose, and the next comparison takes over its choice.
    anon : bool or None
        Whether its page is anonymous, mapped or swapped out; else it belongs to the file.  None as above.
    content : int
        The first 8 bytes of its anonymous page.
    wp : bool
        Whether the entry, swap entry or marker has the uffd-wp bit.
    poisoned : bool
        Whether it is a poison marker.
    modes : RegisterMode
        The modes that the page is registered for.
    mapping_writable : bool
        Whether the mapping allows writes.
    entry_writable : bool or None
        The entry's writable bit; None if the kernel may choose, since it may set the bit at the next write.
    exclusive : bool
        Whether the page is certainly not shared with an earlier child; else UFFDIO_MOVE refuses it.
    """

    mapped: bool | None = False
    anon: bool | None = False
    content: int = 0
    is_zero_page: bool = False
    wp: bool = False
    poisoned: bool = False
    modes: RegisterMode = _NOTHING
    mapping_writable: bool = True
    entry_writable: bool | None = None
    exclusive: bool = True

    @property
    def has_page(self) -> bool:
        """Whether the entry has a page, mapped or swapped out."""
        return bool(self.mapped or self.anon)

    def map_page(self, *, anon: bool, content: int = 0, wp: bool = False, entry_writable: bool | None = None) -> None:
        """Map a page, also in place of a marker."""
        self.mapped, self.anon, self.content, self.wp, self.poisoned = True, anon, content, wp, False
        self.is_zero_page = False
        self.entry_writable = False if wp or not self.mapping_writable else entry_writable
        self.exclusive = True

    def unmap(self) -> None:
        """Unmap the page; a uffd-wp marker and poison stay, but the bit of RWP does not."""
        self.mapped = self.anon = False
        self.entry_writable = None
        self._forget_rwp()

    def maybe_mapped(self) -> None:
        """Accept the page as mapped or absent at the next comparison."""
        self.mapped, self.entry_writable = None, None

    def _forget_rwp(self) -> None:
        if self.modes & RegisterMode.RWP:
            self.wp = False  # no marker keeps the bit of RWP

    def agrees(self, seen: ObservedPage) -> bool:
        """Return whether the page agrees with this one; take over the states that the kernel may choose."""
        if self.mapped is None:
            self.mapped = seen.present
        if self.anon is None:
            self.anon = seen.present and not seen.file
        if not self.has_page:
            self._forget_rwp()
        mapped_agrees = (seen.present, seen.wp) == (self.mapped, self.wp)
        file_agrees = seen.file in (None, self.mapped and not self.anon) or not seen.present
        swapped_agrees = seen.swapped in (None, self.anon and not self.mapped)
        return mapped_agrees and file_agrees and swapped_agrees and self._writable_agrees(seen)

    def _writable_agrees(self, seen: ObservedPage) -> bool:
        if not seen.present or seen.writable is None or (self.wp and self.modes & RegisterMode.RWP):
            return True
        if self.entry_writable is None:
            return not (seen.writable and (self.wp or not self.mapping_writable))
        return seen.writable == self.entry_writable
