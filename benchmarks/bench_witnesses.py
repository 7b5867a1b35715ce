"""How fast each witness reads: a million pages of 4 KiB, and 64."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from harness import Row, median_seconds

from uffdlab import Lab
from uffdlab.region import Region

KERNEL = "6.1-series"
MANY = 1 << 20
FEW = 64
RUNS = 9
TURNS = 31


def rows() -> Iterator[Row]:
    """Every page is mapped (to the zero page); the peer of physical is a plain copy of the same bytes on this host."""
    with Lab(KERNEL, memory_mib=6144) as lab:  # Linux refuses a mapping larger than its memory
        region = lab.map(pages=MANY, memory="anon")
        region.sweep("read").result(120)
        yield from _physical(lab, region, "physical_1m")
        for witness in lab.witnesses:
            if witness != "physical":
                value = median_seconds(partial(region.snapshot, witness), runs=RUNS, warmup=1)
                peer = lab.target_call("pread_ns", region.start, MANY) / 1e9
                yield Row(f"{witness}_1m", value * 1e3, "ms", "pread of pagemap in the guest", peer * 1e3)
        for witness in lab.witnesses:
            value = median_seconds(partial(region[:FEW].snapshot, witness), runs=50, warmup=5)
            yield Row(f"snapshot_64, {witness}", value * 1e3, "ms")
        # Pages in turn absent and mapped, so that no two neighbours are alike.
        for first in range(0, MANY, 2 * FEW):
            region[first : first + FEW].madvise("dontneed")
        yield from _physical(lab, region, "physical_1m, mixed")


def _physical(lab: Lab, region: Region, name: str) -> Iterator[Row]:
    def look() -> Any:
        # Not region.snapshot(): the lab's timeline would keep each, and memory that is new to a process costs more
        # than what is measured here.  That is the next row, with a peer whose copies are kept as well.
        snapshot, _ = lab._looking.read(region[:], "physical")  # noqa: SLF001
        return snapshot.words, snapshot.levels, snapshot.states, snapshot.known

    source = look()[0].copy()
    peer = "a copy of the same 8 MiB"
    yield _in_turns(name, look, source.copy, peer)
    kept: list[object] = []
    yield _in_turns(
        f"{name}, kept", lambda: kept.append(region.snapshot("physical")), lambda: kept.append(source.copy()), peer
    )


def _in_turns(name: str, action: Callable[[], object], peer: Callable[[], object], what: str) -> Row:
    # One after the other, so that what else the host does meets both alike.
    mine, theirs = [], []
    for _ in range(TURNS):
        for one, times in ((peer, theirs), (action, mine)):
            start = time.perf_counter()
            one()
            times.append(time.perf_counter() - start)
    return Row(name, statistics.median(mine) * 1e3, "ms", what, statistics.median(theirs) * 1e3)
