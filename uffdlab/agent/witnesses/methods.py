"""The target's RPC methods that read its own page tables; one class reads for each witness."""

from __future__ import annotations

import os
import time

from uffdlab.agent.witnesses.entries import Entries
from uffdlab.agent.witnesses.pagemap import PagemapBuffer, all_soft_dirty, check_mapped, read_entries
from uffdlab.agent.witnesses.scan import Scan
from uffdlab.agent.witnesses.soft_dirty import SoftDirty

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def rpc_methods(beacon: int, pid_of: Callable[[int], int] = int) -> dict[str, Callable[..., Any]]:
    """Return the methods for a target whose beacon page is at `beacon`.  Call this before anything else is mapped.

    ``pid_of(child)`` returns the PID of a child; it refuses a child that does not exist.
    """
    tracking = SoftDirty(beacon)
    scan = Scan(beacon, tracking)
    entries = Entries(beacon)
    buffer = PagemapBuffer()

    def describe_beacon() -> dict[str, Any]:
        return {
            "address": beacon,
            "pid": os.getpid(),
            "tracks_soft_dirty": tracking.tracked,
            "scan": scan.facts,
            "entries": entries.facts,
        }

    def pagemap(start: int, pages: int, page_size: int, child: int = 0, in_memory: bool = False) -> dict[str, Any]:
        process = str(pid_of(child)) if child else "self"
        check_mapped(start, pages, page_size, process)
        facts = {
            # Only hugetlbfs has pages of another size here: a transparent huge page is listed as 4 KiB pages.
            "hugetlb": page_size != os.sysconf("SC_PAGE_SIZE"),
        }
        if in_memory and not child and not facts["hugetlb"]:
            at = buffer.put(start, pages)
            soft_dirty = tracking.vma_soft_dirty(start, lambda: all_soft_dirty(buffer.entries(pages)))
            return {**facts, "at": at, "vma_soft_dirty": soft_dirty, "time_ns": time.monotonic_ns()}
        entries_read = read_entries(start, pages, page_size, process)
        soft_dirty = tracking.vma_soft_dirty(start, lambda: all_soft_dirty(entries_read), process)
        return {**facts, "entries": entries_read, "vma_soft_dirty": soft_dirty, "time_ns": time.monotonic_ns()}

    def clear_soft_dirty() -> None:
        with open("/proc/self/clear_refs", "wb") as file:
            file.write(b"4")  # proc(5)

    return {
        "target.beacon": describe_beacon,
        "target.pagemap": pagemap,
        "target.clear_soft_dirty": clear_soft_dirty,
        "target.scan": scan.read,
        "target.entries": entries.read,
    }
