"""A snapshot of 64 pages by each witness."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from harness import Row, median_seconds

from uffdlab import Lab

KERNEL = "6.1-series"
PAGES = 64
RUNS = 50
PAGEMAP = Path("/proc/self/pagemap")


def rows() -> Iterator[Row]:
    """Half of the pages are mapped; the peer reads as many entries of this process's own pagemap."""
    peer = _own_pagemap()
    with Lab(KERNEL) as lab:
        region = lab.map(pages=PAGES)
        region.alias.fill()
        uffd = lab.userfaultfd()
        uffd.register(region, "minor", "wp")
        uffd.continue_(region[: PAGES // 2], wp=True)
        for witness in lab.witnesses:
            value = median_seconds(partial(region.snapshot, witness), runs=RUNS, warmup=5)
            name = f"{PAGES}-page snapshot, {witness}"
            yield Row(name, value * 1e3, "ms", "pread of /proc/self/pagemap", peer * 1e3)


def _own_pagemap() -> float:
    with mmap.mmap(-1, PAGES * mmap.PAGESIZE) as memory, PAGEMAP.open("rb", buffering=0) as pagemap:
        memory[:: mmap.PAGESIZE] = bytes(PAGES)
        offset = np.frombuffer(memory, np.uint8).ctypes.data // mmap.PAGESIZE * 8

        def read() -> None:
            np.frombuffer(os.pread(pagemap.fileno(), PAGES * 8, offset), np.uint64)

        return median_seconds(read, runs=RUNS, warmup=5)
