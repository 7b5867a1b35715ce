"""The expected result of each access to a page: its outcome, its page faults, and the state of the pages after it.

Sources: mm/memory.c, mm/hugetlb.c, mm/huge_memory.c and mm/userfaultfd.c of Linux 6.1 to 7.3.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

from uffdlab.fuzz.memory import MINOR, MISSING, RWP, WP, ExpectedMemory
from uffdlab.fuzz.page import ExpectedPage
from uffdlab.fuzz.rules import SKIP, Op


def _read(memory: ExpectedMemory, op: Op) -> str:
    page = memory.pages[op.page]
    waits = _fault(memory, op.page, write=False)
    if waits:
        return waits
    return f"= {page.content if page.anon else memory.file[op.page]}"


def _write(memory: ExpectedMemory, op: Op) -> str:
    page = memory.pages[op.page]
    if not page.mapping_writable:
        return "SIGSEGV"
    if memory.write_may_unmap_huge(page):
        return SKIP
    waits = _fault(memory, op.page, write=True)
    if waits:
        return waits
    if memory.rules.shared:
        memory.put_in_file(op.page, op.value)
    else:
        page.anon, page.content = True, op.value
    if memory.rules.huge:
        for each in memory.pages:  # the same huge page, perhaps
            each.entry_writable = each.entry_writable or None
    page.entry_writable, page.exclusive, page.is_zero_page = True, True, False
    return "ok"


def _kernel_read(memory: ExpectedMemory, op: Op) -> str:
    return _in_kernel_mode(memory, op, "read")


def _kernel_write(memory: ExpectedMemory, op: Op) -> str:
    return _in_kernel_mode(memory, op, "write")


def _in_kernel_mode(memory: ExpectedMemory, op: Op, call: str) -> str:
    # An access that waits in kernel mode cannot be withdrawn without changing the page.
    if ACCESSES[call](copy.deepcopy(memory), op).startswith("fault"):
        return SKIP
    outcome = ACCESSES[call](memory, op)
    return "EFAULT" if outcome.startswith("SIG") else outcome


def _fault(memory: ExpectedMemory, number: int, *, write: bool) -> str:
    # Map a page, or return what happens instead.
    page = memory.pages[number]
    if page.poisoned:
        return "SIGBUS"
    if number in memory.maybe_holes and not page.has_page and page.modes & (MISSING | MINOR):
        return SKIP
    found = page.mapped
    if not page.has_page:
        fault = _fault_file if memory.rules.file else _fault_anon
        waits = fault(memory, number, write=write)
        if waits:
            return waits
    page.mapped = True
    if page.wp and page.modes & RWP:
        kind = "rwp"
    elif page.wp and write:
        kind = "wp"
    else:
        return ""
    if not found:  # some kernels map it first, and fault again because of the protection
        page.maybe_mapped()
        if memory.rules.file and not memory.rules.shared:
            page.anon = page.anon or None
    return f"fault {kind}"


def _fault_anon(memory: ExpectedMemory, number: int, *, write: bool) -> str:
    page = memory.pages[number]
    if page.modes & MISSING:
        return "fault missing"
    page.anon, page.content, page.entry_writable, page.exclusive, page.is_zero_page = True, 0, None, True, not write
    if memory.rules.huge:
        memory.maybe_map_all(lambda each: not each.modes & MISSING)
    return ""


def _fault_file(memory: ExpectedMemory, number: int, *, write: bool) -> str:
    page, content = memory.pages[number], memory.file[number]
    if not write and not memory.rules.hugetlb and _fault_around_may_map(page):
        # Fault-around may map its neighbours in the page cache first, unless their registration forbids it.
        memory.maybe_map_all(_fault_around_may_map)
    if content is not None and page.modes & MINOR:
        return "fault minor"
    if content is None and page.modes & MISSING:
        return "fault missing"
    page.entry_writable = None
    if content is None and memory.rules.hugetlb and not memory.rules.shared:
        page.anon, page.content = True, 0  # not the file's
        return ""
    if content is None or number in memory.maybe_holes:
        memory.fill_hole(number)
    if write and not memory.rules.shared:
        page.anon, page.content = True, memory.file[number] or 0
    if memory.rules.huge:
        memory.maybe_map_all(lambda _: True)  # the whole huge page, for any registration
    return ""


def _fault_around_may_map(page: ExpectedPage) -> bool:
    return not page.modes & (WP | MINOR | RWP)


#: By the name of the call, as :class:`uffdlab.fuzz.rules.Op` has it.
ACCESSES: dict[str, Callable[[ExpectedMemory, Op], str]] = {
    "read": _read,
    "write": _write,
    "kernel_read": _kernel_read,
    "kernel_write": _kernel_write,
}
