"""A small model of one page under userfaultfd: what every call should come back with, and what it leaves.

It knows private anonymous memory and shared shmem, in pages of 4 KiB, without WP_UNPOPULATED and without events.
From mm/userfaultfd.c, mm/memory.c and mm/mprotect.c of Linux 6.1 to 7.3.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from uffdlab.uapi import RegisterMode

MISSING, WP, MINOR = RegisterMode.MISSING, RegisterMode.WP, RegisterMode.MINOR
_NOTHING = RegisterMode(0)
MEMORIES: Final = ("anon", "shmem")
#: The calls of the model; those of an alias and of the page cache are for shmem only.
CALLS: Final = (
    "copy", "zeropage", "continue", "protect", "poison", "read", "write", "dontneed", "mprotect", "register",
)  # fmt: skip
ALIAS_CALLS: Final = ("alias_read", "alias_write", "alias_remove")


@dataclass(frozen=True)
class Op:
    """One call on one page.

    Attributes
    ----------
    call : str
        One of :data:`CALLS` or :data:`ALIAS_CALLS`.
    page : int
    value : int
        What is written or copied; for ``register`` the modes, 0 to unregister.
    flag : bool
        ``copy``, ``continue``: MODE_WP.  ``protect``: protect, else unprotect.  ``mprotect``: writable.
    dontwake : bool
        With MODE_DONTWAKE; nothing sleeps, so it must change nothing, but UFFDIO_WRITEPROTECT refuses it with MODE_WP.
    """

    call: str
    page: int
    value: int = 0
    flag: bool = False
    dontwake: bool = False


@dataclass
class Page:
    """What is known of one page.

    Attributes
    ----------
    mapped : bool or None
        A page is mapped; None if the kernel may have done either.
    wp : bool
        The entry, or the marker in its place, is write-protected by userfaultfd.
    poisoned : bool
        A poison marker is in its place.
    cached : bool
        shmem: a page is in the page cache.
    content : int
        Its first word, if there is a page.
    modes : RegisterMode
        What it is registered for.
    writable : bool
        The mapping allows writes.
    """

    mapped: bool | None = False
    wp: bool = False
    poisoned: bool = False
    cached: bool = False
    content: int = 0
    modes: RegisterMode = _NOTHING
    writable: bool = True

    def put(self, content: int, *, wp: bool = False) -> None:
        """Map a page, in place of whatever marker was there."""
        self.mapped, self.cached, self.content, self.wp, self.poisoned = True, True, content, wp, False


class Model:
    """The pages of one region.

    Parameters
    ----------
    memory : str
        One of :data:`MEMORIES`.
    pages : int
        How many.
    """

    def __init__(self, memory: str, pages: int) -> None:
        self.shmem = memory == "shmem"
        self.pages = [Page() for _ in range(pages)]

    def apply(self, op: Op) -> str:
        """Give what the call should come back with, and change the state as it should.

        Returns
        -------
        str
            ``ok`` or an errno's name; for a read ``= 7``; ``fault wp`` where it waits; ``SIGBUS``, ``SIGSEGV``.
        """
        outcome: str = getattr(self, f"_{op.call}")(self.pages[op.page], op)
        return outcome

    # --- ioctls

    def _register(self, page: Page, op: Op) -> str:
        # Unregister first: newer kernels refuse to drop WP by registering anew, older ones leave stale marks.
        page.modes, page.wp = _NOTHING, False
        if op.value & MINOR and not self.shmem:
            return "EINVAL"
        page.modes = RegisterMode(op.value)
        return "ok"

    def _copy(self, page: Page, op: Op) -> str:
        refused = self._refused(page, op)
        there = page.cached if self.shmem else page.mapped
        if refused or there:
            return refused or "EEXIST"
        page.put(op.value, wp=op.flag)
        return "ok"

    def _zeropage(self, page: Page, _op: Op) -> str:
        if not page.modes:
            return "ENOENT"
        if page.cached if self.shmem else page.mapped or page.poisoned:
            return "EEXIST"
        page.put(0)
        return "ok"

    def _continue(self, page: Page, op: Op) -> str:
        refused = self._refused(page, op) or ("" if self.shmem else "EINVAL")
        if refused:
            return refused
        if not page.cached:
            return "EFAULT"
        if page.mapped:
            return "EEXIST"
        page.put(page.content, wp=op.flag)
        return "ok"

    def _protect(self, page: Page, op: Op) -> str:
        if op.flag and op.dontwake:
            return "EINVAL"
        if not page.modes & WP:
            return "ENOENT"
        if page.mapped or (self.shmem and not page.poisoned):  # anonymous memory has no markers without WP_UNPOPULATED
            page.wp = op.flag
        return "ok"

    def _poison(self, page: Page, _op: Op) -> str:
        if not page.modes:
            return "ENOENT"
        if page.mapped or page.wp or page.poisoned:
            return "EEXIST"
        page.poisoned = True
        return "ok"

    @staticmethod
    def _refused(page: Page, op: Op) -> str:
        if not page.modes:
            return "ENOENT"
        return "EINVAL" if op.flag and not page.modes & WP else ""

    # --- touches

    def _read(self, page: Page, _op: Op) -> str:
        return self._fault(page) or f"= {page.content}"

    def _write(self, page: Page, op: Op) -> str:
        if not page.writable:
            return "SIGSEGV"
        found = page.mapped
        waits = self._fault(page)
        if waits:
            return waits
        if page.wp:
            if not found:
                page.mapped = None  # some kernels map it first and fault again, for the protection
            return "fault wp"
        page.content = op.value
        return "ok"

    def _fault(self, page: Page) -> str:
        # Have a page mapped, or give what happens in its place.
        if page.poisoned:
            return "SIGBUS"
        if page.mapped:
            return ""
        if self.shmem and page.cached:
            if page.modes & MINOR:
                return "fault minor"
            self._around(page)
        elif page.modes & MISSING:
            return "fault missing"
        else:
            page.cached, page.content = True, 0
        page.mapped = True
        return ""

    def _around(self, page: Page) -> None:
        # A fault on a page in the page cache may map its neighbours too, where neither WP nor MINOR forbids it.
        if not page.modes & (WP | MINOR):
            for each in self.pages:
                if each.cached and not each.mapped and not each.poisoned and not each.modes & (WP | MINOR):
                    each.mapped = None

    # --- calls on mappings

    def _dontneed(self, page: Page, _op: Op) -> str:
        page.mapped = page.poisoned = False
        if not self.shmem:
            page.wp = page.cached = False  # of a file the mark stays, as a marker
        return "ok"

    def _mprotect(self, page: Page, op: Op) -> str:
        page.writable = op.flag
        return "ok"

    def _alias_read(self, page: Page, _op: Op) -> str:
        if not page.cached:
            page.cached, page.content = True, 0
        return f"= {page.content}"

    def _alias_write(self, page: Page, op: Op) -> str:
        page.cached, page.content = True, op.value
        return "ok"

    def _alias_remove(self, page: Page, _op: Op) -> str:
        page.cached = page.mapped = False  # the marks of write protection and poison stay
        return "ok"


def calls_of(memory: str, *, poison: bool) -> tuple[str, ...]:
    """Name the calls that this memory knows, on a kernel with UFFDIO_POISON or without."""
    calls = CALLS if poison else tuple(call for call in CALLS if call != "poison")
    return calls + (ALIAS_CALLS if memory == "shmem" else ())


def random_ops(memory: str, pages: int, seed: int, *, poison: bool) -> Iterator[Op]:
    """Give calls for ever, always the same ones for one seed; all pages are registered first."""
    chance = random.Random(seed)  # noqa: S311 - to be repeated, not a secret
    calls = calls_of(memory, poison=poison)
    modes = MISSING | WP | (MINOR if memory == "shmem" else 0)
    for page in range(pages):
        yield Op("register", page, int(modes))
    while True:
        call = chance.choice(calls)
        # Registration changes everything: rarely, and mostly to something that can be worked with.
        if call == "register" and chance.random() < 0.5:
            continue
        value = chance.randrange(8) if call == "register" else chance.randrange(1, 1 << 32)
        yield Op(call, chance.randrange(pages), value, chance.random() < 0.5, chance.random() < 0.25)
