"""The expected result of each call on a mapping and on its alias, and the state of the pages after it.

Sources: mm/madvise.c, mm/mprotect.c, mm/mremap.c, mm/khugepaged.c and kernel/fork.c of Linux 6.1 to 7.3.
"""

from __future__ import annotations

from collections.abc import Callable

from uffdlab.fuzz.memory import NOTHING, ExpectedMemory
from uffdlab.fuzz.rules import ANY, SKIP, Op


def _dontneed(memory: ExpectedMemory, op: Op) -> str:
    pages = memory.pages_of(op)
    memory.send_messages(pages, "remove")
    memory.unmap_huge(pages)
    for number in pages:
        page = memory.pages[number]
        page.unmap()
        page.poisoned = False
        if not memory.rules.file:
            page.wp = False  # for a page of a file, a marker keeps the bit
    return "ok"


def _page_out(memory: ExpectedMemory, op: Op) -> str:
    if memory.rules.hugetlb:
        return "EINVAL"
    pages = range(len(memory.pages)) if memory.rules.huge else memory.pages_of(op)
    if memory.never_written & set(pages):
        return SKIP  # the kernel may drop a page of zeroes that was never written: it is a hole again
    for number in pages:
        if memory.pages[number].mapped:
            memory.pages[number].maybe_mapped()
    return "ok"


def _collapse(memory: ExpectedMemory, _op: Op) -> str:
    # It may always fail.  It must not fill a hole that is registered, nor lose a uffd-wp bit.
    if memory.rules.file or not memory.rules.huge:
        return SKIP
    for page in memory.pages:
        if page.anon:
            page.maybe_mapped()
        elif not page.modes and not page.poisoned:
            page.mapped = page.anon = None
            page.content = 0
    return ANY


def _mprotect(memory: ExpectedMemory, op: Op) -> str:
    pages = memory.pages_of(op)
    memory.split(pages)
    for number in pages:
        page = memory.pages[number]
        page.mapping_writable = op.writable
        page.entry_writable = None if op.writable else False
    return "ok"


def _mremap(memory: ExpectedMemory, _op: Op) -> str:
    if not memory.one_mapping:
        return SKIP  # older kernels can only move one mapping
    memory.send_messages(range(len(memory.pages)), "remap", "unmap")
    if not memory.rules.events:
        for page in memory.pages:
            page.modes, page.wp, page.entry_writable = NOTHING, False, None
    return "ok"


def _fork(memory: ExpectedMemory, _op: Op) -> str:
    memory.send_messages(range(len(memory.pages)), "fork")
    for page in memory.pages:
        if page.anon:
            page.entry_writable, page.exclusive = (False if page.mapped else None), False
    return "ok"


def _alias_read(memory: ExpectedMemory, op: Op) -> str:
    _alias_fault(memory, op.page)
    return f"= {memory.file[op.page]}"


def _alias_write(memory: ExpectedMemory, op: Op) -> str:
    _alias_fault(memory, op.page)
    memory.put_in_file(op.page, op.value)
    return "ok"


def _alias_fault(memory: ExpectedMemory, number: int) -> None:
    if memory.file[number] is None or number in memory.maybe_holes:
        memory.fill_hole(number)


def _remove(memory: ExpectedMemory, op: Op) -> str:
    if not memory.rules.file:
        return "EINVAL"
    if not memory.rules.shared:
        return "EACCES"
    if not memory.pages[op.page].mapping_writable:
        return SKIP  # older kernels refuse it, newer ones let the file decide
    memory.send_messages(range(op.page, op.page + 1), "remove")
    return _alias_remove(memory, op)


def _alias_remove(memory: ExpectedMemory, op: Op) -> str:
    page = memory.pages[op.page]
    memory.unmap_huge(range(op.page, op.page + 1))
    memory.file[op.page] = None
    memory.never_written.discard(op.page)
    memory.maybe_holes.discard(op.page)
    if memory.rules.hugetlb:
        page.unmap()  # also a private copy
        page.poisoned = False
    elif not page.anon or page.is_zero_page:
        page.unmap()  # the markers for uffd-wp and poison stay
    return "ok"


#: By the name of the call, as :class:`uffdlab.fuzz.rules.Op` has it.
MAPPING_CALLS: dict[str, Callable[[ExpectedMemory, Op], str]] = {
    "dontneed": _dontneed,
    "page_out": _page_out,
    "collapse": _collapse,
    "mprotect": _mprotect,
    "mremap": _mremap,
    "fork": _fork,
    "alias_read": _alias_read,
    "alias_write": _alias_write,
    "remove": _remove,
    "alias_remove": _alias_remove,
}
