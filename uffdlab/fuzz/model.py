"""A small model of pages under userfaultfd: what every call should come back with, and what it leaves.

It knows all memory that a lab can map.  From mm/userfaultfd.c, mm/memory.c, mm/hugetlb.c, mm/huge_memory.c,
mm/mprotect.c, mm/madvise.c, mm/mremap.c and kernel/fork.c of Linux 6.1 to 7.3.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

from uffdlab.fuzz.page import ExpectedPage, ObservedPage
from uffdlab.fuzz.rules import ANY, SKIP, Op, Rules
from uffdlab.uapi import RegisterMode

MISSING, WP, MINOR, RWP = RegisterMode.MISSING, RegisterMode.WP, RegisterMode.MINOR, RegisterMode.RWP
_NOTHING = RegisterMode(0)


@dataclass(frozen=True)
class PendingCopy:
    """A copy that waits for its source.

    Attributes
    ----------
    offset, size : int
        Its destination: bytes from the start of the region, and of the page that it was.
    value : int
        The first 8 bytes.
    wp : bool
        With MODE_WP.
    modes : RegisterMode
        What the page was registered for.
    same : bool
        Whether the mapping is the same one to the kernel as before; anonymous memory is all alike.
    """

    offset: int
    size: int
    value: int
    wp: bool
    modes: RegisterMode
    same: bool = True


class Model:
    """The pages of one region.

    Parameters
    ----------
    rules : Rules
    pages : int
        How many.

    Attributes
    ----------
    pages : list of ExpectedPage
    file : list of int or None
        The first 8 bytes of each page of the file; None for a hole.
    messages : list of str
        The messages of the last call, other than page faults.
    blocked : PendingCopy or None
        The copy that waits.
    """

    def __init__(self, rules: Rules, pages: int) -> None:
        self.rules = rules
        self.pages = [ExpectedPage() for _ in range(pages)]
        self.file: list[int | None] = [None] * pages
        self.messages: list[str] = []
        self.blocked: PendingCopy | None = None
        self._never_written: set[int] = set()  # pages of the file that were only ever read
        self._maybe_holes: set[int] = set()  # of these: what may be a hole yet, as nobody knows how huge a page came
        self._one_mapping = True  # to the kernel too: nothing was done yet to a part of it that splits it

    def pages_of(self, op: Op) -> range:
        """Return the pages that a call is to be made on."""
        whole = op.call in ("register", "mprotect") and op.count >= len(self.pages)
        count = op.count if self._one_mapping or whole else 1
        return range(op.page, min(op.page + count, len(self.pages)))

    def apply(self, op: Op) -> str:
        """Return what the call should come back with, and change the state as it should.

        Returns
        -------
        str
            ``ok`` or an errno's name; ``EAGAIN after 2`` pages; for a read ``= 7``; ``fault wp`` where it waits;
            ``SIGBUS``, ``SIGSEGV``; :data:`SKIP`; :data:`ANY`.
        """
        self.messages = []
        if self.blocked and self._unpredictable(op):
            return SKIP
        outcome: str = getattr(self, f"_{op.call}")(op)
        return outcome

    def agrees(self, number: int, seen: ObservedPage) -> bool:
        """Compare a page as seen with the model, and adopt what the kernel may choose."""
        page = self.pages[number]
        if self.rules.huge and not self.rules.file:
            seen = replace(seen, file=None)  # pagemap of 6.1 calls the huge zero page a file's
        if seen.present and page.mapped is None:
            self._maybe_holes.discard(number)
        return page.agrees(seen)

    # --- ioctls

    def _register(self, op: Op) -> str:
        # Unregister first: newer kernels refuse to drop WP by registering anew, older ones leave stale marks.
        pages, modes = self.pages_of(op), RegisterMode(op.value)
        self._split(pages)
        refused = (modes & MINOR and not self.rules.file) or (modes & WP and modes & RWP)
        for number in pages:
            page = self.pages[number]
            page.wp, page.may_write = False, None
            page.modes = _NOTHING if refused else modes
        return "EINVAL" if refused else "ok"

    def _copy(self, op: Op) -> str:
        if self._maybe_holes & set(self.pages_of(op)):
            return SKIP

        def one(number: int, page: ExpectedPage) -> str:
            taken = self.file[number] is not None if self.rules.shared else page.entry
            refused = self._refused(page, op) or ("EEXIST" if taken else "")
            if not refused:
                self._fill(number, op.value + number - op.page, wp=op.flag)
            return refused or "ok"

        return self._each(op, one)

    def _block_copy(self, op: Op) -> str:
        # A copy that would succeed, but that its source is not there.
        if self.blocked or not self._one_mapping or (self.rules.huge and self.rules.file):
            return SKIP
        if copy.deepcopy(self)._copy(op) != "ok":  # noqa: SLF001 - another of its kind
            return SKIP
        size = self.rules.page_size
        self.blocked = PendingCopy(op.page * size, size, op.value, op.flag, self.pages[op.page].modes)
        return "ok"

    def _release_copy(self, _op: Op) -> str:
        copy, self.blocked = self.blocked, None
        if copy is None:
            return SKIP
        number, last = (each // self.rules.page_size for each in (copy.offset, copy.offset + copy.size - 1))
        if last >= len(self.pages) or not self.pages[number].modes:
            return "ENOENT"
        modes = self.pages[number].modes
        if copy.wp and not modes & WP:
            return ANY  # EINVAL or EAGAIN: some kernels ask for WP first
        if not copy.same or modes != copy.modes:
            return "EAGAIN"
        return self._copy(Op("copy", number, copy.value, copy.wp))

    def _unpredictable(self, op: Op) -> bool:
        # While a copy waits: what takes the mapping away or splits it, which some kernels take for a change of it; and
        # what older kernels do not notice.
        splits = op.call in ("register", "mprotect") and len(self.pages_of(op)) < len(self.pages)
        unnoticed = op.call == "replace" or (op.call == "register" and op.value)
        return op.call == "mremap" or splits or bool(unnoticed and not self.rules.compares)

    def replaced(self, rules: Rules, pages: int) -> Model:
        """Return the model of other memory at the same address; a copy that waits goes on waiting."""
        model = Model(rules, pages)
        if self.blocked:
            model.blocked = replace(self.blocked, same=self.blocked.same and not self.rules.file and not rules.file)
        return model

    def _zeropage(self, op: Op) -> str:
        if self._maybe_holes & set(self.pages_of(op)):
            return SKIP

        def one(number: int, page: ExpectedPage) -> str:
            if not page.modes:
                return "ENOENT"
            if self.rules.hugetlb:
                return "EINVAL"
            if self.rules.shared:
                if self.file[number] is not None:
                    return "EEXIST"
                self._fill(number, 0)
            elif page.entry or page.wp or page.poisoned:
                return "EEXIST"
            else:
                page.map_page(anon=True, may_write=False)
                page.zero = True
            return "ok"

        return self._each(op, one)

    def _continue(self, op: Op) -> str:
        if self._maybe_holes & set(self.pages_of(op)):
            return SKIP

        def one(number: int, page: ExpectedPage) -> str:
            refused = self._refused(page, op) or ("" if self.rules.file else "EINVAL")
            if refused:
                return refused
            if self.file[number] is None:
                return "EFAULT"
            if page.entry:
                return "EEXIST"
            page.map_page(anon=False, wp=op.flag, may_write=self.rules.shared)
            return "ok"

        return self._each(op, one)

    def _protect(self, op: Op) -> str:
        def one(_: int, page: ExpectedPage) -> str:
            if not page.modes & WP:
                return "ENOENT"
            if page.entry or (self.rules.markers and not page.poisoned):
                page.wp = op.flag
            page.may_write = False if op.flag else None
            return "ok"

        if op.flag and op.dontwake:
            return "EINVAL"
        self._unmap_huge(self.pages_of(op))
        return self._each(op, one)

    def _rwprotect(self, op: Op) -> str:
        def one(_: int, page: ExpectedPage) -> str:
            if not page.modes & RWP:
                return "ENOENT"
            if page.entry or page.mapped is None:  # what is not there after all forgets it
                page.wp = op.flag
            page.may_write = None
            return "ok"

        if op.flag and op.dontwake:
            return "EINVAL"
        self._unmap_huge(self.pages_of(op))
        return self._each(op, one)

    def _poison(self, op: Op) -> str:
        def one(_: int, page: ExpectedPage) -> str:
            if not page.modes:
                return "ENOENT"
            if page.entry or page.wp or page.poisoned:
                return "EEXIST"
            page.poisoned = True
            return "ok"

        return self._each(op, one)

    def _move(self, op: Op) -> str:
        to, source = self.pages[op.page], self.pages[op.value]
        if to is source or (source.anon and not source.exclusive):
            return SKIP  # EBUSY or not: it depends on whether the child's page is free already
        if self.rules.file or not to.modes or not source.writable or not to.writable:
            return "EINVAL"
        if to.entry or to.wp or to.poisoned:
            return "EEXIST"
        if source.entry:
            # Not write-protected there, even if it was so here; but always protected against all access.
            to.map_page(anon=True, content=source.content, may_write=not source.zero)
            to.wp, to.zero = bool(to.modes & RWP), source.zero
            source.unmap()
            source.wp = False
            return "ok"
        if source.wp or source.poisoned:
            return "EFAULT"  # a marker is no page
        return "ok" if op.flag else "ENOENT"

    def _wake(self, _op: Op) -> str:
        return "ok"

    def _refused(self, page: ExpectedPage, op: Op) -> str:
        if not page.modes:
            return "ENOENT"
        return "EINVAL" if op.flag and not page.modes & WP else ""

    def _fill(self, number: int, value: int, *, wp: bool = False) -> None:
        if self.rules.shared:
            self._put_in_file(number, value)
        self.pages[number].map_page(anon=not self.rules.shared, content=value, wp=wp, may_write=True)

    def _each(self, op: Op, one: Callable[[int, ExpectedPage], str]) -> str:
        # One page after the other until one fails, as the kernel does it.
        for done, number in enumerate(self.pages_of(op)):
            outcome = one(number, self.pages[number])
            if outcome != "ok":
                return f"EAGAIN after {done}" if done else outcome
        return "ok"

    # --- touches

    def _read(self, op: Op) -> str:
        page = self.pages[op.page]
        waits = self._fault(op.page, write=False)
        if waits:
            return waits
        return f"= {page.content if page.anon else self.file[op.page]}"

    def _write(self, op: Op) -> str:
        page = self.pages[op.page]
        if not page.writable:
            return "SIGSEGV"
        if self._write_may_unmap_huge(page):
            return SKIP
        waits = self._fault(op.page, write=True)
        if waits:
            return waits
        if self.rules.shared:
            self._put_in_file(op.page, op.value)
        else:
            page.anon, page.content = True, op.value
        if self.rules.huge:
            for each in self.pages:  # the same huge page, perhaps
                each.may_write = each.may_write or None
        page.may_write, page.exclusive, page.zero = True, True, False
        return "ok"

    def _kernel_read(self, op: Op) -> str:
        return self._in_kernel_mode(op, "read")

    def _kernel_write(self, op: Op) -> str:
        return self._in_kernel_mode(op, "write")

    def _in_kernel_mode(self, op: Op, call: str) -> str:
        # A wait in kernel mode cannot be taken back without a change of the page.
        if copy.deepcopy(self).apply(replace(op, call=call)).startswith("fault"):
            return SKIP
        outcome = self.apply(replace(op, call=call))
        return "EFAULT" if outcome.startswith("SIG") else outcome

    def _fault(self, number: int, *, write: bool) -> str:
        # Have a page mapped, or give what happens in its place.
        page = self.pages[number]
        if page.poisoned:
            return "SIGBUS"
        if number in self._maybe_holes and not page.entry and page.modes & (MISSING | MINOR):
            return SKIP
        found = page.mapped
        if not page.entry:
            waits = self._fault_file(number, write=write) if self.rules.file else self._fault_anon(number, write=write)
            if waits:
                return waits
        page.mapped = True
        if page.wp and page.modes & RWP:
            kind = "rwp"
        elif page.wp and write:
            kind = "wp"
        else:
            return ""
        if not found:  # some kernels map it first and fault again, for the protection
            page.maybe_mapped()
            if self.rules.file and not self.rules.shared:
                page.anon = page.anon or None
        return f"fault {kind}"

    def _fault_anon(self, number: int, *, write: bool) -> str:
        page = self.pages[number]
        if page.modes & MISSING:
            return "fault missing"
        page.anon, page.content, page.may_write, page.exclusive, page.zero = True, 0, None, True, not write
        if self.rules.huge:
            self._maybe_map_all(lambda each: not each.modes & MISSING)
        return ""

    def _fault_file(self, number: int, *, write: bool) -> str:
        page, content = self.pages[number], self.file[number]
        if not write and not self.rules.hugetlb and _fault_around_may_map(page):
            # Its neighbours in the page cache may be mapped first, where nothing forbids it.
            self._maybe_map_all(_fault_around_may_map)
        if content is not None and page.modes & MINOR:
            return "fault minor"
        if content is None and page.modes & MISSING:
            return "fault missing"
        page.may_write = None
        if content is None and self.rules.hugetlb and not self.rules.shared:
            page.anon, page.content = True, 0  # not the file's
            return ""
        if content is None or number in self._maybe_holes:
            self._fill_hole(number)
        if write and not self.rules.shared:
            page.anon, page.content = True, self.file[number] or 0
        if self.rules.huge:
            self._maybe_map_all(lambda _: True)  # the whole of a huge page, whatever it is registered for
        return ""

    def _maybe_map_all(self, may: Callable[[ExpectedPage], bool]) -> None:
        for number, each in enumerate(self.pages):
            if each.entry or each.wp or each.poisoned or not may(each):
                continue
            if self.rules.file:
                each.mapped = None if self.file[number] is not None else False
            else:
                each.mapped = each.anon = None
                each.content = 0

    # --- calls on mappings

    def _dontneed(self, op: Op) -> str:
        pages = self.pages_of(op)
        self._send_messages(pages, "remove")
        self._unmap_huge(pages)
        for number in pages:
            page = self.pages[number]
            page.unmap()
            page.poisoned = False
            if not self.rules.file:
                page.wp = False  # of a file the mark stays, as a marker
        return "ok"

    def _page_out(self, op: Op) -> str:
        if self.rules.hugetlb:
            return "EINVAL"
        pages = range(len(self.pages)) if self.rules.huge else self.pages_of(op)
        if self._never_written & set(pages):
            return SKIP  # the kernel may forget a page of zeroes that was never written to: it is a hole again
        for number in pages:
            if self.pages[number].mapped:
                self.pages[number].maybe_mapped()
        return "ok"

    def _collapse(self, _op: Op) -> str:
        # It may always fail.  It must not fill a hole that is registered, nor lose a mark.
        if self.rules.file or not self.rules.huge:
            return SKIP
        for page in self.pages:
            if page.anon:
                page.maybe_mapped()
            elif not page.modes and not page.poisoned:
                page.mapped = page.anon = None
                page.content = 0
        return ANY

    def _mprotect(self, op: Op) -> str:
        pages = self.pages_of(op)
        self._split(pages)
        for number in pages:
            page = self.pages[number]
            page.writable = op.flag
            page.may_write = None if op.flag else False
        return "ok"

    def _mremap(self, _op: Op) -> str:
        if not self._one_mapping:
            return SKIP  # older kernels move one mapping only
        self._send_messages(range(len(self.pages)), "remap", "unmap")
        if not self.rules.events:
            for page in self.pages:
                page.modes, page.wp, page.may_write = _NOTHING, False, None
        return "ok"

    def _fork(self, _op: Op) -> str:
        self._send_messages(range(len(self.pages)), "fork")
        for page in self.pages:
            if page.anon:
                page.may_write, page.exclusive = (False if page.mapped else None), False
        return "ok"

    def child(self) -> Model:
        """Return the model of a child that was forked just now: its own page tables, the same file."""
        child = Model(replace(self.rules, events=False), 0)
        child.file, child._never_written, child._maybe_holes = self.file, self._never_written, self._maybe_holes
        child._one_mapping = self._one_mapping
        for each in self.pages:
            page = copy.copy(each)
            page.may_write = None
            if not self.rules.events:
                page.modes, page.wp = _NOTHING, False
            if self.rules.shared and not page.modes & (WP | RWP):
                page.unmap()  # fork leaves it to a fault of the child
                page.poisoned = False
            elif page.mapped and (page.zero or not page.anon):
                page.mapped = None  # copied if there is, or was, a page of its own in the mapping
                page.anon = None if page.zero else page.anon
            child.pages.append(page)
        return child

    def _alias_read(self, op: Op) -> str:
        self._alias_fault(op.page)
        return f"= {self.file[op.page]}"

    def _alias_write(self, op: Op) -> str:
        self._alias_fault(op.page)
        self._put_in_file(op.page, op.value)
        return "ok"

    def _alias_fault(self, number: int) -> None:
        if self.file[number] is None or number in self._maybe_holes:
            self._fill_hole(number)

    def _remove(self, op: Op) -> str:
        if not self.rules.file:
            return "EINVAL"
        if not self.rules.shared:
            return "EACCES"
        if not self.pages[op.page].writable:
            return SKIP  # older kernels refuse it, newer ones ask the file
        self._send_messages(range(op.page, op.page + 1), "remove")
        return self._alias_remove(op)

    def _alias_remove(self, op: Op) -> str:
        page = self.pages[op.page]
        self._unmap_huge(range(op.page, op.page + 1))
        self.file[op.page] = None
        self._never_written.discard(op.page)
        self._maybe_holes.discard(op.page)
        if self.rules.hugetlb:
            page.unmap()  # a copy of its own, too
            page.poisoned = False
        elif not page.anon or page.zero:
            page.unmap()  # the marks of write protection and poison stay
        return "ok"

    # --- helpers

    def _fill_hole(self, number: int) -> None:
        if self.rules.huge:  # by a page that is as huge as the kernel likes
            holes = {each for each, content in enumerate(self.file) if content is None}
            self._maybe_holes |= holes
            self._never_written |= holes
            self.file[:] = [content or 0 for content in self.file]
        self.file[number] = 0
        self._never_written.add(number)
        self._maybe_holes.discard(number)

    def _put_in_file(self, number: int, value: int) -> None:
        self.file[number] = value
        self._never_written.discard(number)
        self._maybe_holes.discard(number)

    def _send_messages(self, pages: range, *messages: str) -> None:
        if self.rules.events and any(self.pages[number].modes for number in pages):
            self.messages.extend(messages)

    def _write_may_unmap_huge(self, page: ExpectedPage) -> bool:
        # A huge entry that a read made is not writable where WP may be asked for: wp_huge_pmd() unmaps it, and then the
        # page is to be had by a minor fault.  Small entries are just made writable.
        may_be_read_only = page.mapped and not page.wp and page.may_write is None
        return self.rules.huge and self.rules.file and bool(may_be_read_only and page.modes & MINOR)

    def _split(self, pages: range) -> None:
        if len(pages) < len(self.pages):
            self._one_mapping = False
            self._unmap_huge(pages)

    def _unmap_huge(self, pages: range) -> None:
        # A huge page of a file is not mapped in parts: it is unmapped, and comes back as small ones by faults.
        if self.rules.huge and self.rules.file and len(pages) < len(self.pages):
            for page in self.pages:
                if page.mapped:
                    page.maybe_mapped()


def _fault_around_may_map(page: ExpectedPage) -> bool:
    return not page.modes & (WP | MINOR | RWP)
