"""The expected result of each ioctl, and the state of the pages after it.

Sources: mm/userfaultfd.c, mm/hugetlb.c and mm/huge_memory.c of Linux 6.1 to 7.3.
"""

from __future__ import annotations

from collections.abc import Callable

from uffdlab.fuzz.memory import MINOR, NOTHING, RWP, WP, ExpectedMemory
from uffdlab.fuzz.page import ExpectedPage
from uffdlab.fuzz.rules import SKIP, Op
from uffdlab.uapi import RegisterMode


def _register(memory: ExpectedMemory, op: Op) -> str:
    # Unregister first: newer kernels refuse to drop WP by registering again, older ones leave stale uffd-wp bits.
    pages, modes = memory.pages_of(op), RegisterMode(op.value)
    memory.split(pages)
    unsupported = (modes & MINOR and not memory.rules.file) or (modes & WP and modes & RWP)
    for number in pages:
        page = memory.pages[number]
        page.wp, page.entry_writable = False, None
        page.modes = NOTHING if unsupported else modes
    return "EINVAL" if unsupported else "ok"


def _copy(memory: ExpectedMemory, op: Op) -> str:
    if memory.maybe_holes & set(memory.pages_of(op)):
        return SKIP

    def copy_page(number: int, page: ExpectedPage) -> str:
        has_content = memory.file[number] is not None if memory.rules.shared else page.has_page
        error = _registration_error(page, op) or ("EEXIST" if has_content else "")
        if not error:
            memory.fill_page(number, op.value + number - op.page, wp=op.mode_bit)
        return error or "ok"

    return memory.each_page(op, copy_page)


def _zeropage(memory: ExpectedMemory, op: Op) -> str:
    if memory.maybe_holes & set(memory.pages_of(op)):
        return SKIP

    def zero_page(number: int, page: ExpectedPage) -> str:
        if not page.modes:
            return "ENOENT"
        if memory.rules.hugetlb:
            return "EINVAL"
        if memory.rules.shared:
            if memory.file[number] is not None:
                return "EEXIST"
            memory.fill_page(number, 0)
        elif page.has_page or page.wp or page.poisoned:
            return "EEXIST"
        else:
            page.map_page(anon=True, entry_writable=False)
            page.is_zero_page = True
        return "ok"

    return memory.each_page(op, zero_page)


def _continue(memory: ExpectedMemory, op: Op) -> str:
    if memory.maybe_holes & set(memory.pages_of(op)):
        return SKIP

    def continue_page(number: int, page: ExpectedPage) -> str:
        error = _registration_error(page, op) or ("" if memory.rules.file else "EINVAL")
        if error:
            return error
        if memory.file[number] is None:
            return "EFAULT"
        if page.has_page:
            return "EEXIST"
        page.map_page(anon=False, wp=op.mode_bit, entry_writable=memory.rules.shared)
        return "ok"

    return memory.each_page(op, continue_page)


def _protect(memory: ExpectedMemory, op: Op) -> str:
    def protect_page(_: int, page: ExpectedPage) -> str:
        if not page.modes & WP:
            return "ENOENT"
        if page.has_page or (memory.rules.has_markers and not page.poisoned):
            page.wp = op.mode_bit
        page.entry_writable = False if op.mode_bit else None
        return "ok"

    return _protect_each(memory, op, protect_page)


def _rwprotect(memory: ExpectedMemory, op: Op) -> str:
    def rwprotect_page(_: int, page: ExpectedPage) -> str:
        if not page.modes & RWP:
            return "ENOENT"
        if page.has_page or page.mapped is None:  # an absent page has no bit
            page.wp = op.mode_bit
        page.entry_writable = None
        return "ok"

    return _protect_each(memory, op, rwprotect_page)


def _protect_each(memory: ExpectedMemory, op: Op, protect_page: Callable[[int, ExpectedPage], str]) -> str:
    if op.mode_bit and op.dontwake:
        return "EINVAL"  # protecting wakes no thread
    memory.unmap_huge(memory.pages_of(op))
    return memory.each_page(op, protect_page)


def _poison(memory: ExpectedMemory, op: Op) -> str:
    def poison_page(_: int, page: ExpectedPage) -> str:
        if not page.modes:
            return "ENOENT"
        if page.has_page or page.wp or page.poisoned:
            return "EEXIST"
        page.poisoned = True
        return "ok"

    return memory.each_page(op, poison_page)


def _move(memory: ExpectedMemory, op: Op) -> str:
    to, source = memory.pages[op.page], memory.pages[op.value]
    if to is source or (source.anon and not source.exclusive):
        return SKIP  # EBUSY or not: it depends on whether the child's page is free already
    if memory.rules.file or not to.modes or not source.mapping_writable or not to.mapping_writable:
        return "EINVAL"
    if to.has_page or to.wp or to.poisoned:
        return "EEXIST"
    if source.has_page:
        # The moved page is not write-protected, even if it was before; with RWP it is always protected.
        to.map_page(anon=True, content=source.content, entry_writable=not source.is_zero_page)
        to.wp, to.is_zero_page = bool(to.modes & RWP), source.is_zero_page
        source.unmap()
        source.wp = False
        return "ok"
    if source.wp or source.poisoned:
        return "EFAULT"  # a marker is no page
    return "ok" if op.mode_bit else "ENOENT"


def _wake(_memory: ExpectedMemory, _op: Op) -> str:
    return "ok"


def _registration_error(page: ExpectedPage, op: Op) -> str:
    if not page.modes:
        return "ENOENT"
    return "EINVAL" if op.mode_bit and not page.modes & WP else ""


#: By the name of the call, as :class:`uffdlab.fuzz.rules.Op` has it.
IOCTLS: dict[str, Callable[[ExpectedMemory, Op], str]] = {
    "register": _register,
    "copy": _copy,
    "zeropage": _zeropage,
    "continue": _continue,
    "protect": _protect,
    "rwprotect": _rwprotect,
    "poison": _poison,
    "move": _move,
    "wake": _wake,
}
