"""What the target can say of its own page tables: one method an RPC, one class a witness."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from uffdlab.agent.witness_entries import Entries
from uffdlab.agent.witness_pagemap import all_soft_dirty, check_mapped, words_of
from uffdlab.agent.witness_scan import Scan
from uffdlab.agent.witness_soft_dirty import SoftDirty


def of(beacon: int, pid_of: Callable[[int], int] = int) -> dict[str, Callable[..., Any]]:
    """Give the methods for a target whose beacon page is at `beacon`; call it before anything else is mapped.

    `pid_of` gives the process number of a child by the number the host knows it by, or refuses.
    """
    sd = SoftDirty(beacon)
    scan = Scan(beacon, sd)
    entries = Entries(beacon)

    def tell_beacon() -> dict[str, Any]:
        return {
            "address": beacon,
            "pid": os.getpid(),
            "tracks_soft_dirty": sd.tracked,
            "scan": scan.facts,
            "entries": entries.facts,
        }

    def pagemap(start: int, pages: int, page_size: int, child: int = 0) -> dict[str, Any]:
        process = str(pid_of(child)) if child else "self"
        if not child:
            check_mapped(start, pages, page_size)
        words = words_of(start, pages, page_size, process)
        return {
            "words": words,
            "vma_soft_dirty": sd.of_mapping(start, lambda: all_soft_dirty(words), process),
            # Pages of another size than the smallest are of hugetlbfs: a transparent huge page is 4 KiB pages here.
            "hugetlb": page_size != os.sysconf("SC_PAGE_SIZE"),
            "time_ns": time.monotonic_ns(),
        }

    def clear_soft_dirty() -> None:
        Path("/proc/self/clear_refs").write_text("4", encoding="ascii")  # proc(5)

    def pread_ns(start: int, pages: int) -> int:
        """Time the kernel's part of a pagemap read alone, in ns: what a C program in the guest takes for it."""
        words_of(start, pages, os.sysconf("SC_PAGE_SIZE"))
        started = time.monotonic_ns()
        words_of(start, pages, os.sysconf("SC_PAGE_SIZE"))
        return time.monotonic_ns() - started

    return {
        "target.beacon": tell_beacon,
        "target.pagemap": pagemap,
        "target.clear_soft_dirty": clear_soft_dirty,
        "target.pread_ns": pread_ns,
        "target.scan": scan.read,
        "target.entries": entries.read,
    }
