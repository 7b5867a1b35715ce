"""How fast each witness reads 2^20 pages of 4 KiB, and 64 pages."""

from __future__ import annotations

import atexit
import functools
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from harness import Row, median_seconds

from uffdlab import Lab
from uffdlab.target.region import Region

KERNEL = "6.1-series"
WITH_SCAN = "debian/trixie"
MANY = 1 << 20
FEW = 64
RUNS = 9
TURNS = 31


def rows() -> Iterator[Row]:
    """Map every page to the zero page and read.  The peer of physical is a copy of as many bytes on this host."""
    with Lab(KERNEL, memory_mib=6144) as lab:  # Linux refuses a mapping larger than its memory
        region = lab.map(pages=MANY, memory="anon")
        region.sweep("read").result(120)
        yield from _physical(lab, region, "physical_1m")
        yield Row("pread_1m", _pread_seconds(lab, region, 5) * 1e3, "ms")
        for witness in lab.witnesses:
            if witness != "physical":
                yield _against_c(lab, region, witness)
        for witness in lab.witnesses:
            value = median_seconds(partial(region[:FEW].snapshot, witness), runs=50, warmup=5)
            yield Row(f"snapshot_64, {witness}", value * 1e3, "ms")
        # One page of each page table is absent, so that no table has only equal entries.
        for page in range(256, MANY, 512):
            region[page].madvise("dontneed")
        yield from _physical(lab, region, "physical_1m, mixed")
    with Lab(WITH_SCAN, memory_mib=6144) as lab:
        region = lab.map(pages=MANY, memory="anon")
        region.sweep("read").result(120)
        yield _against_c(lab, region, "scan")


def _physical(lab: Lab, region: Region, name: str) -> Iterator[Row]:
    witness = lab.witness("physical")

    def read() -> Any:
        # Not region.snapshot(): the lab's timeline keeps each snapshot, and memory that is new to a process costs more
        # than the read.  The next row measures that, with a peer that keeps its copies too.
        snapshot = witness.read(region, 0, region.pages)
        return snapshot.entries, snapshot.levels, snapshot.states, snapshot.known

    source = read()[0].copy()
    peer = "a copy of the same 8 MiB"
    yield _in_turns(name, read, source.copy, peer)
    copies: list[object] = []
    yield _in_turns(
        f"{name}, kept", lambda: copies.append(region.snapshot("physical")), lambda: copies.append(source.copy()), peer
    )


def _against_c(lab: Lab, region: Region, witness: str) -> Row:
    """Measure one witness.  The peer is a C program in the same guest that reads the same pagemap entries."""
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(RUNS):
        theirs.append(_pread_seconds(lab, region, 1))
        start = time.perf_counter()
        region.snapshot(witness)
        ours.append(time.perf_counter() - start)
    value, peer = statistics.median(ours), statistics.median(theirs)
    return Row(f"{witness}_1m", value * 1e3, "ms", "a C program's pread of pagemap in the guest", peer * 1e3)


def _pread_seconds(lab: Lab, region: Region, runs: int) -> float:
    done = lab.exec(
        ["./pagemap_pread", str(lab.target_pid), f"{region.start:#x}", str(MANY), str(runs)],
        push=[_peer()],
        deadline=120,
    )
    assert done.status == 0, done
    return statistics.median(int(line) for line in done.stdout.split()) / 1e9


@functools.cache
def _peer() -> Path:
    program = Path(tempfile.mkdtemp(prefix="uffdlab-bench-")) / "pagemap_pread"
    atexit.register(shutil.rmtree, program.parent)
    source = Path(__file__).parent / "peers" / "pagemap_pread.c"
    subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-static", "-o", program, source], check=True)
    return program


def _in_turns(name: str, action: Callable[[], object], peer: Callable[[], object], what: str) -> Row:
    # In turn, so that other load on the host affects both alike.
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(TURNS):
        for call, times in ((peer, theirs), (action, ours)):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
    return Row(name, statistics.median(ours) * 1e3, "ms", what, statistics.median(theirs) * 1e3)
